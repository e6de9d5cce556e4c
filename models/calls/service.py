"""The verbs of a call: load → rules → guarded swap → tell.

Every verb may be repeated and may be cut off between any two awaits. What has been swapped is durable and carries its
untold facts; whoever told them says so, and a job tells those that nobody did. Within a process the moves of one call
go one at a time; between processes the version guards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol
from weakref import WeakValueDictionary

import structlog

from models.calls import commands as c
from models.calls import rules
from models.calls.call import MISSED, Call, Fact, Leg, Negotiation, Party, Reason, Role, State, Timers
from models.calls.meter import Meter
from models.calls.sdp import check_candidate, check_description
from models.calls.store import CallStore, Signal
from models.calls.switchboard import Forward, Switchboard
from models.errors import Refusal
from models.ports import Alarms, Clock, Device, Doors, Ids
from models.users.service import Profile, Users

log = structlog.get_logger(__name__)

# Tries of one verb against other writers before it gives up as busy.
TRIES_MAX = 12
# Calls that ended this long ago still come with SYNC, so that a stuck screen heals.
RECENT_MINUTES = 5
CANDIDATES_PER_MESSAGE_MAX = 256
SIGNALS_PER_POLL_MAX = 200
# Facts that nobody has told for this long are told by the job.
UNTOLD_AFTER_SECONDS = 3
DUE_MAX = 500


class Announcer(Protocol):
    """Says facts aloud: to sockets, logs and pushes."""

    async def announce(self, call: Call, facts: Sequence[Fact], *, again: bool) -> None:
        """Tell facts of a call; ``again`` after a crash, when some may have been told before."""
        ...

    async def forward(self, call: Call, forwards: Sequence[Forward]) -> None:
        """Send candidates to the devices that hold the other leg."""
        ...


class Attempts(Protocol):
    """The limit on ringing one person (CONTRACT §1: 6 a minute per pair)."""

    def take(self, key: str, now: float) -> int:
        """Count one; 0, or the milliseconds until the next is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a list and where it goes on."""

    items: list[Call]
    next_cursor: str | None


class Calls:
    """One per process."""

    def __init__(
        self,
        *,
        store: CallStore,
        users: Users,
        meter: Meter,
        clock: Clock,
        ids: Ids,
        alarms: Alarms,
        doors: Doors,
        attempts: Attempts,
        timers: Timers,
        process: str,
    ) -> None:
        self._store = store
        self._users = users
        self._meter = meter
        self._clock = clock
        self._ids = ids
        self._alarms = alarms
        self._doors = doors
        self._attempts = attempts
        self._timers = timers
        self._process = process
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._told: dict[str, set[int]] = {}
        # Whether another process serves the same database; found out with each beat.
        self.others_live = False
        self.board = Switchboard()
        self.announcer: Announcer

    # ------------------------------------------------------------------------------------------------- beginning

    async def request(
        self,
        device: Device,
        *,
        to: str,
        type: str,
        offer: Mapping[str, Any] | None = None,
        reports_media: bool = False,
        op_id: str | None = None,
    ) -> Call:
        """Ring somebody; the call, ringing (or accepted at once when they were ringing you: glare).

        Refuses with ``SELF_NOT_ALLOWED``, ``USER_UNKNOWN``, ``USER_BLOCKED``, ``USER_UNAVAILABLE``, ``CALL_BUSY``
        (they are in a call), ``CALL_IN_PROGRESS`` (you are), ``RATE_LIMITED``, and as descriptions are.
        """
        offer = check_description(offer, kind="offer", call_type=type) if offer is not None else None
        if to == device.user_id:
            raise Refusal("SELF_NOT_ALLOWED")
        if op_id is not None:
            known = await self._store.by_op(device.user_id, op_id)
            if known is not None:
                return known
        meeting = await self._users.meet(device.user_id, to)
        if meeting.callee is None:
            raise Refusal("USER_UNKNOWN")
        if meeting.blocked_by_caller:
            raise Refusal("USER_BLOCKED")
        if meeting.blocked_by_callee or not meeting.callee.active:
            raise Refusal("USER_UNAVAILABLE")
        caller, callee = _party(meeting.caller), _party(meeting.callee)
        price = await self._meter.quote(caller_id=caller.user_id, callee_id=callee.user_id, call_type=type)
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
        for _ in range(TRIES_MAX):
            obstacle = await self._begin(call)
            if obstacle is None:
                return await self._unless_cancelled(call)
            settled = await self._around(call, device, obstacle, reports_media)
            if settled is not None:
                return settled
        raise Refusal("SERVER_BUSY")

    async def _begin(self, call: Call) -> str | None:
        """Reserve, lock and ring. None when it rings, else what stood in the way: a busy user's id, or ``op_id``."""
        # Asking first spares a reservation and a transaction that would fail; the insert below decides.
        busy = await self._store.busy_of(call.caller.user_id, call.callee.user_id)
        if busy is not None:
            return busy
        wait = self._attempts.take(
            f"{call.caller.user_id}>{call.callee.user_id}", self._clock.now().timestamp()
        )
        if wait:
            raise Refusal("RATE_LIMITED", retry_after_ms=wait)
        first = rules.begin(await self._meter.open(call), timers=self._timers)
        obstacle = await self._store.begin(first.call, first.facts, self._clock.now())
        if obstacle is not None:
            await self._meter.release(first.call)
            return obstacle
        if call.op_id is None or not await self._store.buried(call.caller.user_id, call.op_id):
            await self._tell(first.call, first.facts)
        return None

    async def _unless_cancelled(self, call: Call) -> Call:
        """The call as it is now; ended if its cancel had overtaken it (E7)."""
        known = self.board.call(call.id)
        if known is not None:
            return known
        found = await self._store.load(call.id)
        assert found is not None
        ended = replace(found, untold=())
        done = rules.step(
            ended,
            c.HangUp(call.caller_leg.device_id),
            role=Role.CALLER,
            now=self._clock.now(),
            timers=self._timers,
        )
        # Nobody has heard of it and nobody will: an early cancel rings nowhere.
        if await self._store.swap(ended, done.call, (), self._clock.now()):
            self._told.setdefault(call.id, set()).update(fact.version for fact in found.untold)
            await self._meter.close(done.call)
            self.board.update(done.call)
            return done.call
        return await self._loaded(call.id)

    async def _around(self, call: Call, device: Device, obstacle: str, reports_media: bool) -> Call | None:
        """What to do about an obstacle: the answer, or None to try again; otherwise a refusal."""
        if obstacle == "op_id":
            assert call.op_id is not None
            return await self._store.by_op(call.caller.user_id, call.op_id)
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
            return other  # the same request, which another process has just begun
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

    # ------------------------------------------------------------------------------------------------ the machine

    async def ringing(self, device: Device, call_id: str) -> Call:
        """This device of the callee rings."""
        return await self._apply(call_id, c.Ring(device.device_id), device.user_id)

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

    async def reject(self, device: Device, call_id: str, *, reason: Reason = Reason.DECLINED) -> Call:
        """Refuse on all devices. Safe to repeat: an ended call answers with how it ended."""
        return await self._apply(call_id, c.Reject(device.device_id, reason), device.user_id)

    async def end(
        self, device: Device, *, call_id: str | None = None, op_id: str | None = None
    ) -> Call | None:
        """Hang up, decline or cancel; an ended call answers with its final state.

        With ``op_id`` the call that was (or will be) requested with it is cancelled; None when it has not come yet.
        """
        if call_id is not None:
            return await self._apply(call_id, c.HangUp(device.device_id), device.user_id)
        assert op_id is not None
        call = await self._store.by_op(device.user_id, op_id)
        if call is None:
            await self._store.bury(device.user_id, op_id, self._clock.now())
            # The start may have slipped in between; one of the two sees the other.
            call = await self._store.by_op(device.user_id, op_id)
        return await self._apply(call.id, c.HangUp(device.device_id), device.user_id) if call else None

    async def connected(self, device: Device, call_id: str) -> Call:
        """Media flows on this side."""
        return await self._apply(call_id, c.Connected(device.device_id), device.user_id)

    async def report(
        self, device: Device, call_id: str, *, stats: Mapping[str, Any], receiving: bool | None
    ) -> Call:
        """Keep this side's quality figures; ``receiving`` says whether media comes in, where the figures tell."""
        return await self._apply(call_id, c.Report(device.device_id, stats, receiving), device.user_id)

    async def resume(
        self,
        device: Device,
        call_id: str,
        *,
        offer: Mapping[str, Any] | None = None,
        reports_media: bool | None = None,
    ) -> Call:
        """Take this user's leg up on this device, after a lost connection or from another device."""
        call = await self._apply(
            call_id, c.Resume(device.device_id, device.process, reports_media), device.user_id
        )
        if offer is not None:
            call = await self.describe(device, call_id, {**offer, "type": "offer"})
        return call

    async def describe(self, device: Device, call_id: str, description: Mapping[str, Any]) -> Call:
        """An offer or answer for the other side, at any time. Refuses with ``CALL_GLARE`` and as for descriptions."""
        call = await self._seen(call_id, device.user_id)
        body = check_description(description, kind=None, call_type=call.type)
        return await self._apply(call_id, c.Describe(device.device_id, body), device.user_id)

    async def ask_upgrade(self, device: Device, call_id: str, *, type: str) -> Call:
        """Ask the other side for video."""
        return await self._apply(call_id, c.AskUpgrade(device.device_id, type), device.user_id)

    async def answer_upgrade(self, device: Device, call_id: str, *, accept: bool) -> Call:
        """Say yes or no to the other side's wish."""
        return await self._apply(call_id, c.AnswerUpgrade(device.device_id, accept), device.user_id)

    # --------------------------------------------------------------------------------------------------- signaling

    def relay(
        self, user_id: str, device_id: str, call_id: str, candidates: Sequence[Any]
    ) -> tuple[Call, list[Forward]] | None:
        """Candidates for the other side: the call and what passes now. None when this process must ``fetch`` first.

        A leg of a REST client has no socket to send to: what goes to it takes ``signal``.
        """
        call = self.board.call(call_id)
        if call is None or (call.live and self._polled(call, user_id)):
            return None
        checked = [check_candidate(candidate) for candidate in candidates]
        return call, self.board.relay(call, user_id, device_id, checked)

    async def signal(self, user_id: str, device_id: str, call_id: str, candidates: Sequence[Any]) -> Call:
        """As ``relay``, with what it takes of the database: the call itself, and the log of a leg that polls."""
        call = await self._seen(call_id, user_id)
        checked = [check_candidate(candidate) for candidate in candidates]
        if call.live:
            self.board.update(call)
        await self._send(call, self.board.relay(call, user_id, device_id, checked))
        return call

    async def signals(self, user_id: str, call_id: str, *, after: int) -> list[Signal]:
        """What a client without a socket has not seen yet. A callee's number 1 is the offer that rang."""
        call = await self._seen(call_id, user_id)
        role = call.role_of(user_id)
        assert role is not None
        kept = await self._store.signals(call_id, role, after, SIGNALS_PER_POLL_MAX)
        now = call.negotiation
        rung = now.pending and now.offerer is Role.CALLER and (call.state is State.RINGING or now.number == 1)
        if role is Role.CALLEE and after < 1 and rung:
            return [Signal(1, "description", call.caller.user_id, now.offer, call.created_at), *kept]
        return kept

    @staticmethod
    def _polled(call: Call, user_id: str) -> bool:
        role = call.role_of(user_id)
        leg = call.leg(role.other) if role else None
        return leg is not None and leg.process is None

    async def _send(self, call: Call, forwards: Sequence[Forward]) -> None:
        for to in (Role.CALLER, Role.CALLEE):
            leg, mine = call.leg(to), [f.candidate for f in forwards if f.to is to]
            if mine and leg is not None and leg.process is None:
                await self._keep(call, to, "candidate", mine)
        if forwards:
            await self.announcer.forward(call, forwards)

    async def _keep(self, call: Call, to: Role, kind: str, bodies: Sequence[Any]) -> None:
        await self._store.keep_signals(
            call.id, to, kind, call.party(to.other).user_id, bodies, self._clock.now()
        )

    # --------------------------------------------------------------------------------------------------- questions

    async def get(self, user_id: str, call_id: str) -> Call:
        """One call of the user. Refuses with ``CALL_UNKNOWN``, also for the calls of others."""
        return await self._seen(call_id, user_id, fresh=True)

    async def recent(self, user_id: str) -> list[Call]:
        """The user's live call and those that ended in the last 5 minutes."""
        return await self._store.recent(user_id, self._clock.now() - timedelta(minutes=RECENT_MINUTES))

    async def history(
        self,
        user_id: str,
        *,
        direction: str | None = None,
        status: str | None = None,
        other_id: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> list[Call]:
        """The user's calls, newest first, one more than ``limit`` where there are more.

        ``direction``: ``incoming``, ``outgoing``; ``status``: ``missed``, a state or an end reason.
        """
        states = {State.RINGING, State.ACCEPTED, State.ACTIVE, State.RECONNECTING}
        return await self._store.history(
            user_id,
            direction=direction,
            missed=[reason.value for reason in MISSED] if status == "missed" else None,
            reasons=[status] if status in set(Reason) else None,
            states=[s.value for s in states]
            if status == "live"
            else [status]
            if status in set(State)
            else None,
            other_id=other_id,
            before=before,
            most=limit + 1,
        )

    async def still_rings(self, call_id: str) -> bool:
        """Whether a push about this call may still ring."""
        call = await self._store.load(call_id)
        return call is not None and call.state is State.RINGING

    # ----------------------------------------------------------------------------- connections, policy, time (server)

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
        for call in due:
            await self.tick(call.id)
        return len(due)

    async def run_untold(self) -> int:
        """Tell what was swapped and never told; how many calls."""
        late = self._clock.now() - timedelta(seconds=UNTOLD_AFTER_SECONDS)
        calls = await self._store.untold(late, DUE_MAX)
        for call in calls:
            told = self._told.get(call.id, set())
            missing = [fact for fact in call.untold if fact.version not in told]
            if missing:
                await self._tell(replace(call, untold=()), missing, again=True)
        return len(calls)

    async def flush_told(self) -> None:
        """Write down what has been told, for all calls at once."""
        told, self._told = self._told, {}
        if told:
            try:
                await self._store.told(told)
            except Exception:
                for call_id, versions in told.items():
                    self._told.setdefault(call_id, set()).update(versions)
                raise

    async def beat(self) -> None:
        """This process lives; sockets may be leased to it."""
        await self._store.beat(self._process, self._clock.now())

    async def refresh(self, call_ids: Collection[str]) -> None:
        """Look again at calls that another process has changed."""
        for call_id in call_ids:
            if self.board.call(call_id) is not None:
                call = await self._store.load(call_id)
                if call is not None:
                    self._learn(call)

    async def run_leases(self, dead_after_seconds: float) -> None:
        """Beat for this process, and find the legs whose socket is gone without anybody having said so."""
        now = self._clock.now()
        await self.beat()
        living = await self._store.living(now - timedelta(seconds=dead_after_seconds))
        self.others_live = len(living) > 1
        for call in await self._store.with_legs_outside(list(living)):
            await self._lose_legs(call, set(living))
        for call in self.board.calls():
            for role in (Role.CALLER, Role.CALLEE):
                leg = call.leg(role)
                if leg is None or leg.process != self._process or leg.lost_at is not None:
                    continue
                if not self._doors.connected(call.party(role).user_id, leg.device_id):
                    await self._apply(call.id, c.Lose(role, leg.device_id, self._process, now))

    async def _lose_legs(self, call: Call, living: set[str]) -> None:
        dead = {leg.process for leg in (call.caller_leg, call.callee_leg) if leg and leg.process} - living
        beats = await self._store.last_beats([process for process in dead if process])
        for role in (Role.CALLER, Role.CALLEE):
            leg = call.leg(role)
            if leg is not None and leg.process in dead and leg.lost_at is None:
                seen = beats.get(leg.process or "", call.created_at)
                await self._apply(call.id, c.Lose(role, leg.device_id, leg.process or "", seen, crashed=True))

    # ------------------------------------------------------------------------------------------------ how it is done

    async def _apply(self, call_id: str, command: c.Command, user_id: str | None = None) -> Call:
        turn = self._turns.setdefault(call_id, asyncio.Lock())
        async with turn:
            for attempt in range(TRIES_MAX):
                known = self.board.call(call_id) if attempt == 0 else None
                call = known or await self._loaded(call_id)
                if known is None:
                    self._learn(call)
                role = Role.SERVER if user_id is None else call.role_of(user_id)
                if role is None:
                    raise Refusal("CALL_UNKNOWN")
                now = self._clock.now()
                try:
                    done = rules.step(call, command, role=role, now=now, timers=self._timers)
                except Refusal:
                    if known is not None:
                        continue  # what is in memory may be old; a no needs the truth
                    raise
                if not done.changed:
                    if known is not None:
                        continue
                    return call
                if await self._store.swap(call, done.call, done.facts, now):
                    await self._tell(done.call, done.facts)
                    return done.call
        raise Refusal("SERVER_BUSY")

    def _learn(self, call: Call) -> None:
        """Take over what another process has made of a call that this one knows at an older version."""
        known = self.board.call(call.id)
        if known is not None and known.version < call.version:
            self.board.update(replace(call, untold=()))

    async def _tell(self, call: Call, facts: Sequence[Fact], *, again: bool = False) -> None:
        """Commit first, tell after: the swap is durable. What fails here is told by ``run_untold``."""
        passing = self.board.update(replace(call, untold=()))
        if call.deadline_at is not None:
            self._alarms.set(call.id, call.deadline_at)
        else:
            self._alarms.clear(call.id)
        try:
            if not call.live:
                await self._meter.close(call)
                await self._store.drop_signals(call.id)
            for fact in facts:
                await self._keep_described(call, fact)
            if facts:
                await self.announcer.announce(call, facts, again=again)
                self._told.setdefault(call.id, set()).update(fact.version for fact in facts)
            await self._send(call, passing)
        except Exception as error:
            log.warning("told later", call_id=call.id, error=repr(error))

    async def _keep_described(self, call: Call, fact: Fact) -> None:
        """Descriptions for a leg that polls."""
        if fact.kind == "described":
            to, body = Role(fact.data["to"]), fact.data["description"]
        elif fact.kind == "accepted" and fact.data["answer"] is not None:
            to, body = Role.CALLER, fact.data["answer"]
        else:
            return
        leg = call.leg(to)
        if leg is not None and leg.process is None:
            await self._keep(call, to, "description", [body])

    async def _loaded(self, call_id: str) -> Call:
        call = await self._store.load(call_id)
        if call is None:
            raise Refusal("CALL_UNKNOWN")
        return call

    async def _seen(self, call_id: str, user_id: str, *, fresh: bool = False) -> Call:
        """The call, if it is one of the user's."""
        call = None if fresh else self.board.call(call_id)
        call = call or await self._loaded(call_id)
        if call.role_of(user_id) is None:
            raise Refusal("CALL_UNKNOWN")
        return call


def _party(profile: Profile) -> Party:
    return Party(
        user_id=profile.user_id,
        username=profile.username,
        display_name=profile.display_name,
        avatar_url=profile.avatar_url,
        rate_per_minute_minor=profile.rate_per_minute_minor,
        currency=profile.currency,
    )
