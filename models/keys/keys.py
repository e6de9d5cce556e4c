"""What a device publishes so that others can write to it: frozen values.

All keys are public ones, in base64 as they go over the wire. The words are those of Signal's X3DH and PQXDH
(https://signal.org/docs/specifications/pqxdh/) and of MLS (RFC 9420).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What kind of one-time key it is; each kind has a row of its own.

    ``EC``: Curve25519, where the signed prekey stands in for a missing one. ``KEM``: post-quantum, and ``MLS``: key
    packages; each of these two has one key of last resort, which is given out again and again.
    """

    EC = "ec"
    KEM = "kem"
    MLS = "mls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prekey:
    """One key under the app's own number for it; ``signature`` is the identity key's, where the kind has one."""

    id: int
    key: str
    signature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose keys they are: a device, and the sign-in by which it is here."""

    user_id: str
    device_id: str
    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a device hands in at once. What is None or empty stays as it is."""

    identity_key: str
    registration_id: int | None = None
    signed: Prekey | None = None
    last_resort: Mapping[Kind, Prekey] = field(default_factory=dict)
    one_time: Mapping[Kind, tuple[Prekey, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKeys:
    """The lasting keys of a device. ``set_id`` is new with every identity key; its one-time keys go by it.

    ``refills`` counts for each kind how often an upload has ended a shortage.
    """

    set_id: str
    owner: Owner
    identity_key: str
    registration_id: int
    signed: Prekey
    last_resort: Mapping[Kind, Prekey]
    refills: Mapping[Kind, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What it takes to begin a session with a device. ``one_time`` has no entry for a kind that has run out."""

    keys: DeviceKeys
    one_time: Mapping[Kind, Prekey]

    def best(self, kind: Kind) -> Prekey | None:
        """The one-time key of that kind, else that of last resort."""
        return self.one_time.get(kind) or self.keys.last_resort.get(kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A device's identity key is gone; ``identity_key`` is the new one, None when the device has none now."""

    set_id: str
    user_id: str
    device_id: str
    identity_key: str | None
