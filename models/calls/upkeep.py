"""What keeps calls true without anybody asking: sockets that come and go, policy, deadlines, leases of processes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from models.calls import commands as c
from models.calls.call import Call, Reason, Role
from models.calls.engine import DUE_MAX, Engine


class Upkeep(Engine):
    """The verbs of the server itself and of its jobs."""

    async def attached(self, user_id: str, device_id: str, process: str) -> None:
        """A device's socket is here: if it holds a leg, its lease is ours."""
        call = self.board.call_of(user_id)
        if call is None:
            lock = await self._store.lock_of(user_id)
            call = await self._store.load(lock.call_id) if lock else None
        role = call.role_of(user_id) if call else None
        if call is not None and role is not None and call.live:
            await self._apply(call.id, c.Attach(role, device_id, process))

    async def lost(
        self, user_id: str, device_id: str, process: str, last_seen_at: datetime, *, crashed: bool = False
    ) -> None:
        """A device's socket is gone."""
        call = self.board.call_of(user_id)
        if call is None:
            lock = await self._store.lock_of(user_id)
            call = await self._store.load(lock.call_id) if lock else None
        role = call.role_of(user_id) if call else None
        if call is not None and role is not None:
            await self._apply(call.id, c.Lose(role, device_id, process, last_seen_at, crashed))

    async def end_all(self, user_id: str) -> None:
        """End the user's live call: banned, deleted."""
        lock = await self._store.lock_of(user_id)
        if lock is not None:
            await self._apply(lock.call_id, c.Stop(Reason.POLICY))

    async def end_between(self, user_id: str, other_id: str) -> None:
        """End the live call between two people: one has blocked the other."""
        lock = await self._store.lock_of(user_id)
        call = await self._store.load(lock.call_id) if lock else None
        if call is not None and call.role_of(other_id) is not None:
            await self._apply(call.id, c.Stop(Reason.POLICY))

    async def forget(self, user_id: str) -> None:
        """Take a person's name and picture out of their calls."""
        await self._store.forget(user_id, "deleted")

    async def tick(self, call_id: str) -> None:
        """Do what is due for one call; called by its alarm and by ``run_due``."""
        call = await self._apply(call_id, c.Tick())
        if call.deadline_at is not None and call.deadline_at <= self._clock.now():
            await self._apply(call_id, c.Tick())

    async def run_due(self) -> int:
        """Do what is due for every call, whoever should have; how many there were."""
        due = await self._store.due(self._clock.now(), DUE_MAX)
        await self._each(due, self.tick)
        return len(due)

    async def beat(self) -> None:
        """This process lives; sockets may be leased to it."""
        await self._store.beat(self._process, self._clock.now())

    async def refresh(self, call_ids: Collection[str]) -> None:
        """Look again at calls that another process has changed."""
        for call_id in call_ids:
            if self.board.call(call_id) is not None:
                call = await self._store.load(call_id)
                if call is not None:
                    await self._learn(call)

    async def run_leases(self, dead_after_seconds: float) -> None:
        """Beat for this process, and find the legs whose socket is gone without anybody having said so."""
        now = self._clock.now()
        await self.beat()
        living = await self._store.living(now - timedelta(seconds=dead_after_seconds))
        self.others_live = len(living) > 1

        async def lose_legs_outside(call_id: str) -> None:
            await self._lose_legs(await self._loaded(call_id), set(living))

        await self._each(await self._store.with_legs_outside(list(living)), lose_legs_outside)
        await self._each([call.id for call in self.board.calls()], self._lose_legs_here)

    async def _lose_legs_here(self, call_id: str) -> None:
        """The legs that are leased to this process and have no socket in it."""
        call = self.board.call(call_id)
        for role in (Role.CALLER, Role.CALLEE):
            leg = call.leg(role) if call is not None and call.live else None
            if call is None or leg is None or leg.process != self._process or leg.lost_at is not None:
                continue
            if not self._doors.connected(call.party(role).user_id, leg.device_id):
                lost = c.Lose(role, leg.device_id, self._process, self._clock.now())
                await self._apply(call_id, lost)

    async def _lose_legs(self, call: Call, living: set[str]) -> None:
        dead = {leg.process for leg in (call.caller_leg, call.callee_leg) if leg and leg.process} - living
        beats = await self._store.last_beats([process for process in dead if process])
        for role in (Role.CALLER, Role.CALLEE):
            leg = call.leg(role)
            if leg is not None and leg.process in dead and leg.lost_at is None:
                seen = beats.get(leg.process or "", call.created_at)
                await self._apply(call.id, c.Lose(role, leg.device_id, leg.process or "", seen, crashed=True))
