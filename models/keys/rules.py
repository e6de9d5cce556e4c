"""Which keys are taken, and whether their signatures hold. Pure.

An elliptic-curve key has 32 bytes, or 33 with the type byte 0x05 in front, as Signal's libraries write it. A
signature covers the bytes of the signed key exactly as they were uploaded, type byte included.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import xeddsa

from models.errors import Refusal
from models.keys.keys import DeviceKeys, Kind, Prekey, Upload

EC_TYPE = 0x05
EC_BYTES = 32
SIGNATURE_BYTES = 64
# ML-KEM-768 and ML-KEM-1024 (FIPS 203, table 3: encapsulation keys), or their Kyber forerunners of the same sizes.
KEM_BYTES = (1184, 1568)
# A key package with a few extensions and an X.509 chain fits; most have 300 bytes.
MLS_BYTES_MAX = 8 * 1024
# Signal numbers prekeys with 24 bits; 32 leave room for others.
KEY_ID_MAX = 2**32 - 1
# Signal's libraries draw 14 bits; X3DH knows no limit.
REGISTRATION_ID_MAX = 2**32 - 1

# In one upload, as Signal has it: with the KEM keys a request of some 235 KiB.
UPLOAD_MAX = 100
# Waiting for their claim, of one kind and device: two full uploads.
KEPT_MAX = 200
# A device is asked for more below this: enough for the first messages of ten people while it comes back.
LOW = 10
# Devices of one person with keys; every message is encrypted for each of them, and a frame has to hold that.
DEVICES_MAX = 20

_NAMES = {Kind.EC: "preKeys", Kind.KEM: "kemPreKeys", Kind.MLS: "keyPackages"}
_LAST_NAMES = {Kind.KEM: "lastResortKemPreKey", Kind.MLS: "lastResortKeyPackage"}


def checked(upload: Upload) -> Upload:
    """``upload`` if every key in it can be one. Refuses with ``VALIDATION_FAILED``; signatures are not looked at."""
    _checked_ec("identityKey", upload.identity_key)
    if upload.signed is not None:
        _checked_ec("signedPreKey", upload.signed.key)
    for name, kind, prekey in _all(upload):
        if kind is Kind.EC:
            _checked_ec(name, prekey.key)
        elif kind is Kind.KEM:
            key = _decoded(name, prekey.key)
            if len(key) not in KEM_BYTES and len(key) - 1 not in KEM_BYTES:
                raise wrong(name, "A key of ML-KEM-768 or ML-KEM-1024, with or without its type byte.")
        elif not 0 < len(_decoded(name, prekey.key)) <= MLS_BYTES_MAX:
            raise wrong(name, f"1 to {MLS_BYTES_MAX} bytes.")
    for kind, row in upload.one_time.items():
        if len(row) > UPLOAD_MAX:
            raise wrong(_NAMES[kind], f"At most {UPLOAD_MAX} at once.")
        if len({prekey.id for prekey in row}) < len(row):
            raise wrong(_NAMES[kind], "Each id once.")
    return upload


def signed_parts(upload: Upload) -> Iterator[tuple[str, Prekey]]:
    """Everything in ``upload`` that has to be signed by its identity key, with the field's name on the wire."""
    if upload.signed is not None:
        yield "signedPreKey", upload.signed
    for name, kind, prekey in _all(upload):
        if kind is Kind.KEM:
            yield name, prekey


def check_signature(identity_key: str, name: str, prekey: Prekey) -> None:
    """Refuse with ``SIGNATURE_INVALID`` (``field``, ``keyId``) unless the identity key has signed this key."""
    if prekey.signature is None or not signature_holds(identity_key, prekey.key, prekey.signature):
        raise Refusal("SIGNATURE_INVALID", field=name, keyId=prekey.id)


def signature_holds(identity_key: str, key: str, signature: str) -> bool:
    """Whether ``signature`` is the XEdDSA signature of ``key`` by ``identity_key``.

    XEdDSA (https://signal.org/docs/specifications/xeddsa/) fixes the sign of the Edwards point to 0. Signal's own
    libraries keep its sign in the highest bit of the signature, which is always 0 otherwise: both are understood.
    """
    point, message, signed = _raw(identity_key), _bytes(key), _bytes(signature)
    if point is None or message is None or signed is None or len(signed) != SIGNATURE_BYTES:
        return False
    sign_bit = bool(signed[-1] & 0x80)
    edwards = xeddsa.curve25519_pub_to_ed25519_pub(point, sign_bit)
    return bool(xeddsa.ed25519_verify(signed[:-1] + bytes([signed[-1] & 0x7F]), edwards, message))


def same_identity(one: str, other: str) -> bool:
    """Whether two identity keys are one, with or without the type byte."""
    return _raw(one) == _raw(other)


def refills_after(
    refills: Mapping[Kind, int], before: Mapping[Kind, int], added: Mapping[Kind, int]
) -> dict[Kind, int]:
    """The counts of ended shortages after an upload that ``added`` to what there was ``before``."""
    ended = {
        kind: before.get(kind, 0) < LOW <= before.get(kind, 0) + added.get(kind, 0) and added.get(kind, 0) > 0
        for kind in Kind
    }
    return {kind: refills.get(kind, 0) + ended[kind] for kind in Kind}


def digest_of(keys: DeviceKeys) -> str:
    """What a device compares its own keys with: SHA-256, in base64, over the bytes of the lasting Signal keys.

    Identity key, then for the signed prekey and, if there is one, the KEM key of last resort: the id as 8 bytes, most
    significant first, and the key.
    """
    parts = [_decoded("identityKey", keys.identity_key)]
    last = keys.last_resort.get(Kind.KEM)
    for prekey in (keys.signed, *((last,) if last else ())):
        parts += [prekey.id.to_bytes(8, "big"), _decoded("key", prekey.key)]
    return base64.b64encode(hashlib.sha256(b"".join(parts)).digest()).decode()


def fingerprint(prekey: Prekey) -> str:
    """What tells two keys under one id apart, when the key itself is given away."""
    return hashlib.sha256(prekey.key.encode()).hexdigest()


def name_of(kind: Kind) -> str:
    """The field in which one-time keys of that kind are uploaded."""
    return _NAMES[kind]


def last_name_of(kind: Kind) -> str:
    """The field in which the key of last resort of that kind is uploaded."""
    return _LAST_NAMES[kind]


def _all(upload: Upload) -> Iterator[tuple[str, Kind, Prekey]]:
    for kind, row in upload.one_time.items():
        for prekey in row:
            yield _NAMES[kind], kind, prekey
    for kind, prekey in upload.last_resort.items():
        yield _LAST_NAMES[kind], kind, prekey


def _checked_ec(name: str, text: str) -> None:
    if _raw(text) is None:
        raise wrong(name, "A Curve25519 key: 32 bytes, or 33 with 0x05 in front, in base64.")


def _raw(text: str) -> bytes | None:
    """The 32 bytes of an elliptic-curve key."""
    key = _bytes(text)
    if key is not None and len(key) == EC_BYTES + 1 and key[0] == EC_TYPE:
        key = key[1:]
    return key if key is not None and len(key) == EC_BYTES else None


def _decoded(name: str, text: str) -> bytes:
    found = _bytes(text)
    if found is None:
        raise wrong(name, "Not base64.")
    return found


def _bytes(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def wrong(name: str, sentence: str) -> Refusal:
    """The refusal of a field, in a sentence."""
    details: dict[str, Any] = {name: [sentence]}
    return Refusal("VALIDATION_FAILED", **details)
