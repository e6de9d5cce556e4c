"""The verbs of keys: hand in, count, claim, remove.

    keys = Keys(store=KeyStore(db), users=users, windows=windows, clock=clock, ids=ids)

``announcer`` is set by the wiring.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Protocol

from models.chat.rules import reachable
from models.errors import Refusal
from models.keys import rules
from models.keys.keys import Bundle, Change, DeviceKeys, Kind, Owner, Upload
from models.keys.store import KeyStore
from models.ports import Clock, Ids, Window, Windows
from models.users.service import Users

# Claims of one device by one person. A session is begun once, so this is for clients in trouble; with one kind's
# store full it takes them seven minutes to exhaust it, and then there is the key of last resort.
CLAIMS_PER_MINUTE = 30
# Changes that one turn of the job tells.
RETELL_MAX = 100
# Verified in one turn of the loop: a millisecond's work.
SIGNATURES_AT_ONCE = 16
# Of X3DH and PQXDH; key packages are claimed by themselves.
SIGNAL = (Kind.EC, Kind.KEM)


class Announcer(Protocol):
    """Says what happens to keys aloud; saying it again says nothing."""

    async def keys_changed(self, change: Change, watchers: Collection[str]) -> None:
        """Tell those who have claimed keys of a device that its identity key is another one, or none."""
        ...

    async def keys_low(self, keys: DeviceKeys, kind: Kind, counts: Mapping[Kind, int]) -> None:
        """Tell a device that few one-time keys of ``kind`` are left; once for each shortage."""
        ...


class Keys:
    """See the module for its making."""

    def __init__(
        self,
        *,
        store: KeyStore,
        users: Users,
        windows: Windows,
        clock: Clock,
        ids: Ids,
        claims_per_minute: int = CLAIMS_PER_MINUTE,
    ) -> None:
        self._store = store
        self._users = users
        self._windows = windows
        self._claims_per_minute = claims_per_minute
        self._clock = clock
        self._ids = ids
        self.announcer: Announcer

    async def put(self, owner: Owner, upload: Upload) -> DeviceKeys:
        """Keep a device's keys: lasting ones replace what it had, one-time ones are added. Safe to repeat.

        An identity key stays, unless the device's keys were removed or it has signed in anew. Refuses with
        ``VALIDATION_FAILED``, ``SIGNATURE_INVALID``, ``IDENTITY_CHANGED``, ``KEY_ID_TAKEN`` (another key was
        uploaded under this id) and ``TOKEN_INVALID`` (the sign-in has just ended).
        """
        rules.checked(upload)
        for n, (name, prekey) in enumerate(rules.signed_parts(upload), 1):
            rules.check_signature(upload.identity_key, name, prekey)
            if n % SIGNATURES_AT_ONCE == 0:
                await asyncio.sleep(0)
        keys = await self._store.put(owner, upload, new_set=self._ids.new(), now=self._clock.now())
        if keys is None:
            raise Refusal("TOKEN_INVALID")
        await self.tell_changes()
        return keys

    async def own(self, user_id: str, device_id: str) -> tuple[DeviceKeys, Mapping[Kind, int]]:
        """A device's lasting keys, and how many one-time keys it has left. Refuses with ``KEYS_UNKNOWN``."""
        keys = await self._store.of_device(user_id, device_id)
        if keys is None:
            raise Refusal("KEYS_UNKNOWN")
        return keys, await self._store.counts(keys.set_id)

    async def check(self, user_id: str, device_id: str, *, digest: str) -> None:
        """Refuse unless the device's lasting keys have this digest: ``KEYS_MISMATCH``; ``KEYS_UNKNOWN`` without any."""
        keys = await self._store.of_device(user_id, device_id)
        if keys is None:
            raise Refusal("KEYS_UNKNOWN")
        if rules.digest_of(keys) != digest:
            raise Refusal("KEYS_MISMATCH")

    async def remove(self, user_id: str, device_id: str) -> None:
        """Remove a device's keys. Safe to repeat."""
        await self._store.remove(user_id, device_id)
        await self.tell_changes()

    async def devices_of(self, user_ids: Collection[str]) -> dict[str, set[str]]:
        """The devices with keys of each of them."""
        return await self._store.devices_of(user_ids)

    # ------------------------------------------------------------------------------------------------------- claiming

    async def claim(
        self,
        user_id: str,
        own_device_id: str,
        *,
        of: str,
        device_id: str | None = None,
        kinds: Collection[Kind] = SIGNAL,
    ) -> list[Bundle]:
        """What it takes to write to a person's devices (or to one): of each kind one key that nobody else gets.

        One's own other devices are claimed in the same way. Refuses with ``USER_UNKNOWN``, ``USER_BLOCKED``,
        ``USER_UNAVAILABLE``, ``KEYS_UNKNOWN`` (none of the devices has keys) and ``RATE_LIMITED``.
        """
        if of != user_id:
            reachable(await self._users.meet(user_id, of))
        found = await self._watched(user_id, of, device_id, None if of != user_id else own_device_id)
        await self._count(user_id, found)
        return [await self._bundle(keys, kinds) for keys in found]

    async def _watched(
        self, user_id: str, of: str, device_id: str | None, but: str | None
    ) -> list[DeviceKeys]:
        """The keys that are wanted. Should one of them end from now on, ``user_id`` will hear of it."""
        watched: set[str] = set()
        while True:
            found = [
                keys
                for keys in await self._store.of_users([of])
                if keys.owner.device_id != but and device_id in (None, keys.owner.device_id)
            ]
            sets = {keys.set_id for keys in found}
            # Those that ended meanwhile were claimed by nobody here.
            await self._store.unwatch(watched - sets, [user_id])
            if not found:
                raise Refusal("KEYS_UNKNOWN")
            if sets <= watched:
                return found
            await self._store.watch(sets - watched, user_id)
            watched = watched & sets | sets

    async def _count(self, user_id: str, found: Collection[DeviceKeys]) -> None:
        windows = [
            Window(
                f"claim {user_id}|{one.owner.user_id}|{one.owner.device_id}", self._claims_per_minute, 60.0
            )
            for one in found
        ]
        wait = await self._windows.take(*windows, now=self._clock.now().timestamp())
        if wait:
            raise Refusal("RATE_LIMITED", retry_after_ms=wait)

    async def _bundle(self, keys: DeviceKeys, kinds: Collection[Kind]) -> Bundle:
        taken = {}
        for kind in kinds:
            prekey = await self._store.take(keys.set_id, kind, self._clock.now())
            if prekey is not None:
                taken[kind] = prekey
        for kind in kinds:
            if kind in taken or keys.refills[kind]:
                await self._warn(keys, kind)
        return Bundle(keys=keys, one_time=taken)

    async def _warn(self, keys: DeviceKeys, kind: Kind) -> None:
        """Ask the device for more, if few are left. Again with every claim: whoever was to ask may have died."""
        if await self._store.left(keys.set_id, kind) < rules.LOW:
            await self.announcer.keys_low(keys, kind, await self._store.counts(keys.set_id))

    # ---------------------------------------------------------------------------------------------------- timed work

    async def tell_changes(self) -> int:
        """Tell of identity keys that are gone, whichever way they went; how many. Safe in several processes."""
        told = 0
        while told < RETELL_MAX:
            change = await self._store.claim_change(self._clock.now())
            if change is None:
                break
            while watchers := await self._store.watchers(change.set_id):
                await self.announcer.keys_changed(change, watchers)
                await self._store.unwatch([change.set_id], watchers)
            await self._store.change_told(change.set_id)
            told += 1
        return told

    async def tidy(self) -> int:
        """Let go of what is only kept for late retries; how many rows."""
        return await self._store.tidy(self._clock.now())
