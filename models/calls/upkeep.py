"""What keeps calls true without anybody asking: sockets that come and go, policy, deadlines, leases of processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta

from models.also import Also
from models.calls import commands as c
from models.calls import rules
from models.calls.call import Call, Fact, Reason, Role
from models.calls.engine import AT_A_STRETCH_MAX, DUE_MAX, TRIES_MAX
from models.calls.meter import AlreadyRefunded
from models.calls.renewals import RENEWED_BY_OTHERS_AFTER_SECONDS, Renewals
from models.db import Session, Stale, database_away
from models.errors import Refusal

# How long the end of the money may wait for the database before the phones are told without it.
CUT_OFF_PATIENCE = 0.05


class Upkeep(Renewals):
    """The verbs of the server itself and of its jobs."""

    async def attached(self, user_id: str, device_id: str, process: str) -> None:
        """A device's socket is here: if it holds a leg, its lease is ours; what its user pays for is known here."""
        call = self.board.call_of(user_id)
        if call is None:
            lock = await self._store.lock_of(user_id)
            call = await self._store.load(lock.call_id) if lock else None
        role = call.role_of(user_id) if call else None
        if call is not None and role is not None and call.live:
            await self._apply(call.id, c.Attach(role, device_id, process))
        for stay_id in await self._store.stays_of(user_id):
            if self.board.call(stay_id) is None:
                await self._tell(
                    await self._loaded(stay_id), ()
                )  # nobody is told; this process knows it from now on

    async def lost(
        self, user_id: str, device_id: str, process: str, last_seen_at: datetime, *, crashed: bool = False
    ) -> None:
        """A device's socket is gone."""
        call = self.board.call_of(user_id)
        if call is None:
            lock = await self._store.lock_of(user_id)
            call = await self._store.load(lock.call_id) if lock else None
        role = call.role_of(user_id) if call else None
        if process == self._process and self._doors.connected(user_id, device_id):
            return  # its next one came while we asked for its call, and has been attached already
        if call is not None and role is not None:
            gone = c.Lose(role, device_id, process, last_seen_at, crashed)
            try:
                await self._apply(call.id, gone)
            except Exception as error:
                if database_away(error):
                    self._losses.setdefault(call.id, {})[user_id] = gone
                raise

    async def end_all(self, user_id: str) -> None:
        """End the user's live call: banned, deleted."""
        lock = await self._store.lock_of(user_id)
        if lock is not None:
            await self._apply(lock.call_id, c.Stop(Reason.POLICY))

    async def end_by_policy(self, call_id: str, also: Also) -> Call:
        """End a live call or stay, ``also`` in the same transaction; an ended one answers with how it ended.

        Refuses with ``CALL_UNKNOWN``.
        """
        return await self._apply(call_id, c.Stop(Reason.POLICY), also=also)

    async def of_anybody(self, call_id: str) -> Call:
        """A call or stay, whoever is in it: for administrators. ``CALL_UNKNOWN``."""
        return await self._loaded(call_id)

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
        await self._catch_up()
        due = await self._store.due(self._clock.now(), DUE_MAX)
        await self._each(due, self.tick)
        return len(due)

    async def alarm(self, call_id: str) -> None:
        """A local timer has rung. The end of the money is told within ``CUT_OFF_PATIENCE``, database or not.

        What was paid for is over either way: whoever reads the call later ends it at the same instant. Only a payment
        that reached another process while the database is out of reach here could not be known.
        """
        call = self.board.call(call_id)
        if call is None or not rules.out_of_money(call, self._clock.now()):
            await self.tick(call_id)
            return
        ending = asyncio.ensure_future(self.tick(call_id))
        done, _ = await asyncio.wait({ending}, timeout=CUT_OFF_PATIENCE)
        if not done or ending.exception() is not None:
            now = self._clock.now()
            over = rules.step(call, c.Tick(), role=Role.SERVER, now=now, timers=self._timers)
            # Later than others wait for a renewal: this process stood still, and they know what it does not.
            late = timedelta(seconds=RENEWED_BY_OTHERS_AFTER_SECONDS)
            if over.call.ended_at is not None and now - over.call.ended_at <= late:
                if self._holds_a_leg(call):
                    self._cut[call_id] = over.call.ended_at
                await self.announcer.cut(over.call)
        await ending
        await self._catch_up()

    def _holds_a_leg(self, call: Call) -> bool:
        """Whether a device that talks in this call is connected here; for a stay, any of who pays it."""
        if call.room_id is not None:
            return self._doors.online(call.caller.user_id)
        held = ((call.party(role).user_id, call.leg(role)) for role in (Role.CALLER, Role.CALLEE))
        return any(leg is not None and self._doors.connected(user_id, leg.device_id) for user_id, leg in held)

    async def _catch_up(self) -> None:
        """Write down what could not be when it happened, before anything is judged by the time that it is now."""
        await self._each(list(self._losses), self._lose_late)
        await self._each(list(self._cut), self._end_cut)

    async def _lose_late(self, call_id: str) -> None:
        """The sockets of a call that went while there was no database, dated when they went."""
        for user_id, gone in list(self._losses.get(call_id, {}).items()):
            if not self._doors.connected(user_id, gone.device_id):
                await self._apply(call_id, gone)
            self._losses.get(call_id, {}).pop(user_id, None)
        if not self._losses.get(call_id):
            self._losses.pop(call_id, None)

    async def _end_cut(self, call_id: str) -> None:
        """Phones were told that the money of this call is over, so it is, also if another process has extended it
        meanwhile: nobody talks any more, and nobody shall pay for it.
        """
        if (at := self._cut.get(call_id)) is not None:
            await self._apply(call_id, c.Stop(Reason.INSUFFICIENT_FUNDS, at=at))
            self._cut.pop(call_id, None)

    # ------------------------------------------------------------------------------------------------------- money

    async def run_money(self) -> int:
        """Settle ended calls that nobody has settled, and clear those whose dispute window is over; how many."""
        due = await self._store.money_due(self._clock.now(), DUE_MAX)

        async def go_on(call_id: str) -> None:
            call = await self._loaded(call_id)
            await self._meter.close(call)
            await self._meter.clear(call)

        await self._each(due, go_on)
        return len(due)

    async def refund(
        self,
        call_id: str,
        *,
        amount_minor: int | None = None,
        key: str | None = None,
        note: str | None = None,
        also: Callable[[int, str], Also] | None = None,
    ) -> Call:
        """Give the payer back what a call cost, or ``amount_minor`` of it; the call after it.

        The payee and the platform bear it as they shared it. With a ``key`` it is done once however often it is asked.
        ``also``, given the amount and its currency, says what else belongs into the transaction.
        Refuses with ``CALL_UNKNOWN``, ``CALL_WRONG_STATE`` (live, or free), ``REFUND_TOO_LARGE``,
        ``IDEMPOTENCY_MISMATCH`` (the key has refunded another amount).
        """
        for _ in range(TRIES_MAX):
            call = await self._loaded(call_id)
            if call.live or call.charge is None:
                raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value)
            await self._meter.close(call)
            call = await self._loaded(call_id)
            assert call.charge is not None
            amount = call.cost_minor if amount_minor is None else amount_minor
            now = self._clock.now()
            try:
                async with self._meter.refunding(
                    call, amount, key=key or f"nr:{call.charge.refunds + 1}", note=note, now=now
                ) as cover:
                    after = replace(
                        call,
                        version=call.version + 1,
                        charge=cover.charge,
                        cost_minor=call.cost_minor - amount,
                        untold=(),
                    )
                    facts = (Fact("updated", after.version, {}),)
                    more = also(amount, call.price.currency) if also is not None else None
                    cover.written = await self._store.swap(call, after, facts, now, _both(cover.post, more))
            except Stale:
                continue
            except AlreadyRefunded as before:
                if amount_minor not in (None, before.amount_minor):
                    raise Refusal("IDEMPOTENCY_MISMATCH") from None
                return call
            if cover.written:
                await self._tell(after, facts)
                return after
        raise Refusal("SERVER_BUSY")

    async def beat(self) -> None:
        """This process lives; sockets may be leased to it."""
        await self._store.processes.beat(self._process, self._clock.now(), works=self.works)

    async def refresh(self, call_ids: Collection[str]) -> None:
        """Look again at calls that another process has changed."""
        for call_id in call_ids:
            if self.board.call(call_id) is not None:
                call = await self._store.load(call_id)
                if call is not None:
                    await self._learn(call)

    async def refresh_held(self) -> None:
        """Look again at calls whose candidates wait here, though none of their people has a socket here.

        They were sent by REST. Who is connected elsewhere is spoken of there, and nobody would say here that the
        other side can use them now.
        """
        for call in self.board.holding():
            if not (self._doors.online(call.caller.user_id) or self._doors.online(call.callee.user_id)):
                await self.refresh([call.id])

    async def run_leases(self, dead_after_seconds: float) -> None:
        """Beat for this process, learn who lives, and find the legs here whose socket went without a word."""
        now = self._clock.now()
        await self.beat()
        await self._catch_up()
        horizon = now - timedelta(seconds=dead_after_seconds)
        self.living, self.workers = await self._store.processes.living_and_working(horizon)
        self.others_live = len(self.living) > 1
        astray = []
        for count, call in enumerate(self.board.calls(), 1):
            if count % AT_A_STRETCH_MAX == 0:
                await asyncio.sleep(0)
            if self._astray(call):
                astray.append(call.id)
        await self._each(astray, self._lose_legs_here)

    async def run_orphaned(self, dead_after_seconds: float) -> None:
        """Find the legs whose socket went with its process; for all processes, so one of them is enough."""
        await self._catch_up()  # with what this process knows of legs that were lost before those
        horizon = self._clock.now() - timedelta(seconds=dead_after_seconds)
        living = {*(await self._store.processes.living_and_working(horizon))[0], self._process}

        async def lose_legs_outside(call_id: str) -> None:
            await self._lose_legs(await self._loaded(call_id), living, horizon)

        await self._each(await self._store.with_legs_outside(living), lose_legs_outside)

    def _astray(self, call: Call) -> bool:
        """Whether a leg that is leased to this process is lost and has its socket, or has none and is not lost."""
        for party, leg in ((call.caller, call.caller_leg), (call.callee, call.callee_leg)):
            if leg is not None and leg.process == self._process:
                here = self._doors.connected(party.user_id, leg.device_id)
                if here == (leg.lost_at is not None):
                    return True
        return False

    async def _lose_legs_here(self, call_id: str) -> None:
        """The legs that are leased to this process and have no socket in it.

        And the other way round: where others took this process for dead, while it or the database stood still, a
        device's leg is lost and its socket is not. It is sent back, so that the app takes its leg up again.
        """
        call = self.board.call(call_id)
        for role in (Role.CALLER, Role.CALLEE):
            leg = call.leg(role) if call is not None and call.live else None
            if call is None or leg is None or leg.process != self._process:
                continue
            user_id = call.party(role).user_id
            here = self._doors.connected(user_id, leg.device_id)
            if here and leg.orphaned and leg.lost_at is not None:
                self.send_back(user_id, leg.device_id)
            elif not here and leg.lost_at is None:
                lost = c.Lose(role, leg.device_id, self._process, self._clock.now())
                await self._apply(call_id, lost)

    async def _lose_legs(self, call: Call, living: Collection[str], horizon: datetime) -> None:
        at = {leg.process for leg in (call.caller_leg, call.callee_leg) if leg and leg.process}
        beats = await self._store.processes.last_beats([process for process in at if process not in living])
        for role in (Role.CALLER, Role.CALLEE):
            leg = call.leg(role)
            if leg is None or leg.process is None or leg.process in living or leg.lost_at is not None:
                continue
            seen = beats.get(leg.process, call.created_at)
            # Or else it has begun since it was asked who lives.
            if leg.process not in beats or seen < horizon:
                await self._apply(call.id, c.Lose(role, leg.device_id, leg.process, seen, crashed=True))


def _both(one: Also | None, other: Also | None) -> Also | None:
    """Both in one transaction, in this order."""
    if one is None or other is None:
        return one or other

    async def both(session: Session) -> None:
        await one(session)
        await other(session)

    return both
