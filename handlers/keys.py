"""Keys of devices for end-to-end encryption: handed in, counted, claimed, removed.

The device is the one that the request names (``X-Device-Id``), as for its socket: ciphertexts go there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from handlers.context import Context
from handlers.keys_shapes import (
    CheckKeys,
    Claimed,
    ClaimKeys,
    KeyCounts,
    KeysChangedNotice,
    KeysLowNotice,
    PutKeys,
    upload_of,
)
from handlers.registry import job, notice, route
from handlers.services import Services
from models.keys.keys import Bundle, Change, DeviceKeys, Kind, Owner
from models.keys.service import SIGNAL
from models.mailbox.service import Mailbox
from models.ports import Letter

KEYS_CHANGED = notice(
    "KEYS_CHANGED",
    KeysChangedNotice,
    "To all who have claimed keys of a device: its identity key is another one, or gone. Claim again before you write, "
    "and show that the security number has changed.",
)
KEYS_LOW = notice(
    "KEYS_LOW",
    KeysLowNotice,
    "To one device, once for each shortage: fewer than 10 one-time keys of a kind are left; upload more.",
)


@route(
    "PUT",
    "/api/keys",
    takes=PutKeys,
    gives=KeyCounts,
    wraps="keys",
    refuses=["SIGNATURE_INVALID", "IDENTITY_CHANGED", "KEY_ID_TAKEN", "TOKEN_INVALID"],
)
async def put_keys(ctx: Context, ask: dict[str, Any]) -> Any:
    """Hand in this device's keys: a signed prekey replaces the one before, one-time keys are added. Safe to repeat.

    At most 100 one-time keys of a kind at once, of which 200 are kept; 20 devices of a person have keys. Signatures
    cover a key's bytes as they are uploaded. Of an id that was used for another key ``KEY_ID_TAKEN`` says which.
    The keys go when this device signs out. A device that signs in anew may bring another identity key; within one
    sign-in ``IDENTITY_CHANGED`` asks to remove the keys first. Others hear of it by ``KEYS_CHANGED``.
    """
    owner = Owner(user_id=ctx.user_id, device_id=ctx.device_id, session_id=ctx.session_id)
    await ctx.services.keys.put(owner, upload_of(ask))
    return await count_keys(ctx, ask)


@route("GET", "/api/keys/count", gives=KeyCounts, wraps="keys", refuses=["KEYS_UNKNOWN"])
async def count_keys(ctx: Context, ask: dict[str, Any]) -> Any:
    """How many keys of this device are left for others to claim."""
    keys, counts = await ctx.services.keys.own(ctx.user_id, ctx.device_id)
    return {
        "device_id": keys.owner.device_id,
        "identity_key": keys.identity_key,
        "signed_pre_key_id": keys.signed.id,
        **_counts(counts),
        "last_resort": Kind.KEM in keys.last_resort,
        "last_resort_key_package": Kind.MLS in keys.last_resort,
    }


@route("POST", "/api/keys/check", takes=CheckKeys, refuses=["KEYS_UNKNOWN", "KEYS_MISMATCH"])
async def check_keys(ctx: Context, ask: dict[str, Any]) -> None:
    """Whether the server has the keys that this device thinks it has.

    The digest is SHA-256, in base64, over the bytes of the identity key; then for the signed prekey, and for the
    ``lastResortKemPreKey`` if there is one, the id as 8 bytes (most significant first) and the key.
    """
    await ctx.services.keys.check(ctx.user_id, ctx.device_id, digest=ask["digest"])


@route("DELETE", "/api/keys")
async def remove_keys(ctx: Context, ask: dict[str, Any]) -> None:
    """Remove this device's keys: nobody can write to it encrypted. Safe to repeat."""
    await ctx.services.keys.remove(ctx.user_id, ctx.device_id)


@route(
    "POST",
    "/api/keys/claim",
    takes=ClaimKeys,
    gives=Claimed,
    once=True,
    refuses=["USER_UNKNOWN", "USER_BLOCKED", "USER_UNAVAILABLE", "KEYS_UNKNOWN", "RATE_LIMITED"],
)
async def claim_keys(ctx: Context, ask: dict[str, Any]) -> Any:
    """What it takes to write to somebody's devices: of each a one-time key of each kind, which nobody else gets.

    Keys are given out in the order of their upload. At most 30 claims of a device a minute. An ``Idempotency-Key``
    gives a retry the same keys. With your own id you get your other devices. From then on ``KEYS_CHANGED`` tells you
    when the identity key of one of them changes.
    """
    kinds = (Kind.MLS,) if ask["kind"] == "mls" else SIGNAL
    bundles = await ctx.services.keys.claim(
        ctx.user_id, ctx.device_id, of=ask["user_id"], device_id=ask["device_id"], kinds=kinds
    )
    return {"user_id": ask["user_id"], "devices": [_bundle(bundle, kinds) for bundle in bundles]}


def _bundle(bundle: Bundle, kinds: Collection[Kind]) -> dict[str, Any]:
    keys = bundle.keys
    return {
        "device_id": keys.owner.device_id,
        "identity_key": keys.identity_key,
        "registration_id": keys.registration_id,
        "signed_pre_key": keys.signed,
        "pre_key": bundle.best(Kind.EC) if Kind.EC in kinds else None,
        "kem_pre_key": bundle.best(Kind.KEM) if Kind.KEM in kinds else None,
        "key_package": bundle.best(Kind.MLS) if Kind.MLS in kinds else None,
    }


def _counts(counts: Mapping[Kind, int]) -> dict[str, int]:
    return {"one_time": counts[Kind.EC], "kem": counts[Kind.KEM], "key_packages": counts[Kind.MLS]}


class KeysTeller:
    """``models.keys.service.Announcer``: what happens to keys becomes letters."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def keys_changed(self, change: Change, watchers: Collection[str]) -> None:
        """Keep and tell a letter to each of them."""
        payload = {
            "userId": change.user_id,
            "deviceId": change.device_id,
            "identityKey": change.identity_key,
        }
        key = f"keys:{change.set_id}:changed"
        await self._mailbox.post(
            [Letter(user_id=watcher, event=KEYS_CHANGED, payload=payload, key=key) for watcher in watchers],
            again=True,  # whoever read the note before may have died between keeping and telling
        )

    async def keys_low(self, keys: DeviceKeys, kind: Kind, counts: Mapping[Kind, int]) -> None:
        """Keep and tell a letter to the device: one of each shortage."""
        letter = Letter(
            user_id=keys.owner.user_id,
            event=KEYS_LOW,
            payload=dict(KeysLowNotice().dump(_counts(counts))),
            key=f"keys:{keys.set_id}:low:{kind.value}:{keys.refills[kind]}",
            only_device=keys.owner.device_id,
        )
        await self._mailbox.post([letter])


@job("keys.changes", every_seconds=1.0, anywhere=True)
async def tell_key_changes(services: Services) -> None:
    """Tell of keys that went with a sign-in, and of what a dead process has left untold."""
    await services.keys.tell_changes()
    await services.key_groups.tell_untold()


@job("keys.tidy", every_seconds=3600.0, anywhere=True)
async def tidy_keys(services: Services) -> None:
    """Let go of the ids of one-time keys that were claimed a month ago."""
    await services.keys.tidy()
