"""How a call begins: who may ring whom, who is busy, and what to do when both ring each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.calls import commands as c
from models.calls import rules
from models.calls.call import Call, Fact, Leg, Negotiation, Party, Price, Reason, Role, State
from models.calls.engine import TRIES_MAX, Engine
from models.calls.sdp import check_description
from models.db import Stale
from models.errors import Refusal
from models.ports import Device
from models.users.service import Profile

# An obstacle that is gone at the next try. Not a user's id: those are UUIDs.
STALE = "stale"


class Beginning(Engine):
    """The verb ``request`` and the ways around what stands in its way."""

    async def request(
        self,
        device: Device,
        *,
        to: str,
        type: str,
        offer: Mapping[str, Any] | None = None,
        reports_media: bool = False,
        op_id: str | None = None,
        max_rate_per_minute_minor: int | None = None,
    ) -> Call:
        """Ring somebody; the call, ringing (or accepted at once when they were ringing you: glare).

        Refuses with ``SELF_NOT_ALLOWED``, ``USER_UNKNOWN``, ``USER_BLOCKED``, ``USER_UNAVAILABLE``, ``CALL_BUSY``
        (they are in a call), ``CALL_IN_PROGRESS`` (you are), ``RATE_LIMITED``, ``IDEMPOTENCY_MISMATCH`` (the ``op_id``
        belongs to a call to somebody else), ``PRICE_CHANGED`` (it is above ``max_rate_per_minute_minor``),
        ``INSUFFICIENT_FUNDS``, ``WALLET_FROZEN``, and as descriptions are.
        """
        offer = check_description(offer, kind="offer", call_type=type) if offer is not None else None
        if op_id is not None:
            known = await self._store.by_op(device.user_id, op_id)
            if known is not None:
                return _asked_before(known, to)
        caller, callee = await self._both(device.user_id, to)
        # Also for somebody who is busy: each attempt leaves a missed call in their history.
        await self._rings.admit(caller.user_id, callee.user_id)
        price = self._meter.quote(callee=callee, call_type=type)
        agreed(price, max_rate_per_minute_minor)
        now = self._clock.now()
        call = Call(
            id=self._ids.new(),
            type=type,
            state=State.RINGING,
            version=1,
            caller=caller,
            callee=callee,
            caller_leg=Leg(device_id=device.device_id, process=device.process, reports_media=reports_media),
            created_at=now,
            price=price,
            negotiation=Negotiation(number=1, offerer=Role.CALLER, offer=offer) if offer else Negotiation(),
            op_id=op_id,
        )
        for number in range(TRIES_MAX):
            obstacle = await self._begin(call, again=number > 0)
            if obstacle is None:
                return await self._unless_cancelled(call)
            if obstacle is STALE:
                continue
            settled = await self._around(call, device, obstacle, reports_media)
            if settled is not None:
                return settled
        raise Refusal("SERVER_BUSY")

    async def price(self, user_id: str, *, to: str, type: str) -> Price:
        """The tariff of a call to somebody. Refuses as ``request`` does about the two people."""
        _, callee = await self._both(user_id, to)
        return self._meter.quote(callee=callee, call_type=type)

    async def _both(self, caller_id: str, callee_id: str) -> tuple[Party, Party]:
        """The two people, if the one may call the other."""
        if callee_id == caller_id:
            raise Refusal("SELF_NOT_ALLOWED")
        meeting = await self._users.meet(caller_id, callee_id)
        if meeting.callee is None:
            raise Refusal("USER_UNKNOWN")
        if meeting.blocked_by_caller:
            raise Refusal("USER_BLOCKED")
        if meeting.blocked_by_callee or not meeting.callee.active:
            raise Refusal("USER_UNAVAILABLE")
        return party_of(meeting.caller), party_of(meeting.callee)

    async def _begin(self, call: Call, *, again: bool) -> str | None:
        """Reserve, lock and ring. None when it rings, else what stood in the way: a busy user's id, ``op_id``, or
        ``STALE`` when the payer's wallet was moved meanwhile. ``again``: it was counted among the rings already."""
        # Asking first spares a reservation and a transaction that would fail; the insert below decides.
        busy = await self._store.busy_of(call.caller.user_id, call.callee.user_id)
        if busy is not None:
            return busy
        if not again:
            # Not before: who is busy hears nothing, and who calls them is told that they are.
            await self._rings.admit_stranger(call.caller.user_id, call.callee.user_id)
        turn = self._turns.setdefault(call.id, asyncio.Lock())
        # In its turn like every move: whoever ends the call now tells so after its ring, or it would ring on.
        async with turn:
            try:
                async with self._meter.opening(call) as cover:
                    first = rules.begin(replace(call, charge=cover.charge), timers=self._timers)
                    now = self._clock.now()
                    obstacle = await self._store.begin(first.call, first.facts, now, cover.post)
                    cover.written = obstacle is None
            except Stale:
                return STALE
            if obstacle is None and not await self._cancelled_early(call):
                await self._tell(first.call, first.facts)
        return obstacle

    async def _cancelled_early(self, call: Call) -> bool:
        return call.op_id is not None and await self._store.buried(call.caller.user_id, call.op_id)

    async def _tell_untold(self, call_id: str) -> None:
        """Tell what a process has not; but a call that was cancelled before it came, and whose process died over
        that, rings nobody and gives back what it holds."""
        call = await self._loaded(call_id)
        if call.state is State.RINGING and await self._cancelled_early(call):
            await self._cancel(call)
        else:
            await super()._tell_untold(call_id)

    async def _unless_cancelled(self, call: Call) -> Call:
        """The call as it is now; ended if its cancel had overtaken it (E7)."""
        known = self.board.call(call.id)
        if known is not None:
            return known
        return await self._cancel(await self._loaded(call.id))

    async def _cancel(self, found: Call) -> Call:
        ended = replace(found, untold=())
        done = rules.step(
            ended,
            c.HangUp(found.caller_leg.device_id),
            role=Role.CALLER,
            now=self._clock.now(),
            timers=self._timers,
        )
        if not done.changed:
            return found  # it has ended meanwhile
        # Nobody has heard of it and nobody will: an early cancel rings nowhere. The fact that says nothing is there so
        # that what was reserved is given back even if this process does not live to do it.
        silent = (Fact("settled", done.call.version),)
        if await self._store.swap(ended, done.call, silent, self._clock.now()):
            self._keep_told(found.id, (fact.version for fact in found.untold))
            await self._tell(done.call, silent)
            return done.call
        return await self._loaded(found.id)

    async def _around(self, call: Call, device: Device, obstacle: str, reports_media: bool) -> Call | None:
        """What to do about an obstacle: the answer, or None to try again; otherwise a refusal."""
        if obstacle == "op_id":
            assert call.op_id is not None
            known = await self._store.by_op(call.caller.user_id, call.op_id)
            return _asked_before(known, call.callee.user_id) if known is not None else None
        lock = await self._store.lock_of(obstacle)
        if lock is None:
            return None
        other = await self._store.load(lock.call_id)
        if other is None or not other.live:
            await self._store.drop_orphan_lock(lock)
            return None
        if (
            call.op_id is not None
            and other.op_id == call.op_id
            and other.caller.user_id == call.caller.user_id
        ):
            # The same request, which another process has just begun.
            return _asked_before(other, call.callee.user_id)
        if obstacle != call.caller.user_id:
            if other.role_of(call.caller.user_id) is not None:
                return None  # the same two: the caller's own lock tells what to do
            await self._record_busy(call)
            raise Refusal("CALL_BUSY", callId=call.id)
        if other.role_of(call.callee.user_id) is None:
            raise Refusal("CALL_IN_PROGRESS", callId=other.id)
        if other.state is State.RINGING and other.caller.user_id == call.callee.user_id:
            return await self._merge(other, device, reports_media)
        await self._recall(other, call.caller.user_id)
        return None

    async def _merge(self, other: Call, device: Device, reports_media: bool) -> Call | None:
        """Both called each other: the call that rings is accepted, and its offer goes to this device to be answered."""
        try:
            merged = await self.accept(device, other.id, reports_media=reports_media)
        except Refusal:
            return None
        offer = merged.negotiation.offer
        if merged.negotiation.pending and merged.negotiation.number == 1 and offer is not None:
            fact = Fact("described", merged.version, {"to": Role.CALLEE.value, "description": offer})
            await self.announcer.announce(merged, [fact], again=True)
        return merged

    async def _recall(self, other: Call, user_id: str) -> None:
        """Calling the same person again: the old call ended without our knowing, or is meant to."""
        role = other.role_of(user_id)
        leg = other.leg(role) if role else None
        lost = leg is not None and leg.lost_at is not None
        reason = Reason.CONNECTION_LOST if lost else Reason.COMPLETED
        if other.state is State.RINGING:
            reason = Reason.CANCELLED
        await self._apply(other.id, c.Stop(reason, by=user_id))

    async def _record_busy(self, call: Call) -> None:
        """A busy attempt leaves its line in both histories."""
        now = self._clock.now()
        ended = replace(
            call,
            state=State.ENDED,
            ended_at=now,
            end_reason=Reason.BUSY,
            negotiation=Negotiation(),
            op_id=None,
        )
        await self._store.record(ended, now)

    async def accept(
        self,
        device: Device,
        call_id: str,
        *,
        answer: Mapping[str, Any] | None = None,
        reports_media: bool = False,
    ) -> Call:
        """Take the call on this device; the first device wins.

        Refuses with ``CALL_ANSWERED_ELSEWHERE`` and ``CALL_ENDED``.
        """
        if answer is not None:
            call = await self._seen(call_id, device.user_id)
            answer = check_description(answer, kind="answer", call_type=call.type)
        command = c.Accept(device.device_id, device.process, answer, reports_media)
        return await self._apply(call_id, command, device.user_id)


def _asked_before(known: Call, to: str) -> Call:
    """The call that was requested with the same ``opId``, if it was to the same person."""
    if known.callee.user_id != to:
        raise Refusal("IDEMPOTENCY_MISMATCH")
    return known


def agreed(price: Price, max_rate_per_minute_minor: int | None) -> None:
    """Refuse with ``PRICE_CHANGED`` a rate above the one that the payer has seen."""
    if max_rate_per_minute_minor is not None and price.rate_per_minute_minor > max_rate_per_minute_minor:
        raise Refusal(
            "PRICE_CHANGED", ratePerMinuteMinor=price.rate_per_minute_minor, currency=price.currency
        )


def party_of(profile: Profile) -> Party:
    """Somebody as they are now."""
    return Party(
        user_id=profile.user_id,
        username=profile.username,
        display_name=profile.display_name,
        avatar_url=profile.avatar_url,
        rate_per_minute_minor=profile.rate_per_minute_minor,
        video_rate_per_minute_minor=profile.video_rate_per_minute_minor,
        currency=profile.currency,
    )
