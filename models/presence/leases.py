"""The leases of the sockets of this process, in memory and in the database.

Memory is ahead: what happens to a socket is known here at once and written next, in the order in which it happened
to that person. What cannot be written, for want of a database, is tried again by ``tidy``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from weakref import WeakValueDictionary

from models.ports import Clock, Doors
from models.presence.rules import DeviceState
from models.presence.store import Lease, PresenceStore, Row


class Leases:
    """``Leases(store, doors, clock)``. The verbs answer whether what others see may have changed."""

    def __init__(self, store: PresenceStore, doors: Doors, clock: Clock) -> None:
        self._store = store
        self._doors = doors
        self._clock = clock
        self._here: dict[str, dict[str, Lease]] = {}
        # Given back and not yet written: when the device was last heard of.
        self._left: dict[tuple[str, str], datetime] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def states(self, user_id: str) -> list[DeviceState]:
        """What the person's devices here say of themselves."""
        return [lease.state for lease in self._here.get(user_id, {}).values()]

    def lease(self, user_id: str, device_id: str) -> Lease | None:
        """The lease of a device that is connected here."""
        return self._here.get(user_id, {}).get(device_id)

    async def arrive(self, user_id: str, device_id: str) -> bool:
        """A device's socket is here: online, unless an older socket of it has said here that it is not."""
        if not self._doors.connected(user_id, device_id):
            return False  # it has gone again before we came to this
        if self.lease(user_id, device_id) is not None:
            return False
        now = self._clock.now()
        self._here.setdefault(user_id, {})[device_id] = Lease(
            device_id=device_id, process=self._store.process, state="online", focus=None, since=now
        )
        async with self._turn(user_id):
            lease = self.lease(user_id, device_id)
            if lease is not None:
                await self._store.enter(user_id, lease, now)
        return True

    async def say(self, user_id: str, device_id: str, *, state: DeviceState, focus: str | None) -> bool:
        """What a device says of itself. Nothing of a device whose socket is gone."""
        before = self.lease(user_id, device_id)
        if before is None:
            return False
        after = self._here[user_id][device_id] = replace(before, state=state, focus=focus)
        if after == before:
            return False
        async with self._turn(user_id):
            lease = self.lease(user_id, device_id)
            if lease is not None:
                await self._store.alter(user_id, lease, self._clock.now())
        return after.state != before.state

    async def leave(self, user_id: str, device_id: str, seen_at: datetime) -> bool:
        """A device's socket is gone; it was last heard of at ``seen_at``."""
        if self.lease(user_id, device_id) is None:
            return False
        del self._here[user_id][device_id]
        if not self._here[user_id]:
            del self._here[user_id]
        self._left[user_id, device_id] = seen_at
        await self._give_back(user_id, device_id)
        return True

    async def tidy(self) -> list[str]:
        """Give back what was not given back when its socket went; whose that was."""
        now = self._clock.now()
        held = [(user_id, device_id) for user_id, devices in self._here.items() for device_id in devices]
        without = [key for key in held if not self._doors.connected(*key)]
        late = list(self._left)
        for user_id, device_id in without:
            await self.leave(user_id, device_id, now)
        for user_id, device_id in late:
            await self._give_back(user_id, device_id)
        return [user_id for user_id, _ in [*without, *late]]

    async def restore(self, rows: Sequence[Row]) -> None:
        """Enter again what another process has taken away: it took us for dead, while the machine stood still."""
        lost = []
        for row in rows:
            there = {lease.device_id for lease in row.leases}
            mine = self._here.get(row.user_id, {}).values()
            lost += [(row.user_id, lease) for lease in mine if lease.device_id not in there]
        if lost:
            await self._store.restore(lost, self._clock.now())

    async def _give_back(self, user_id: str, device_id: str) -> None:
        async with self._turn(user_id):
            seen_at = self._left.get((user_id, device_id))
            if seen_at is None:
                return
            if self.lease(user_id, device_id) is None:
                await self._store.leave(user_id, device_id, seen_at=seen_at, now=self._clock.now())
            self._left.pop((user_id, device_id), None)

    def _turn(self, user_id: str) -> asyncio.Lock:
        return self._turns.setdefault(user_id, asyncio.Lock())
