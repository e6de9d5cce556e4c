"""The call machine.

The machine is data: ``MOVES[state][command] -> Row(roles, move)``. A missing row is the refusal, and a refused move
changes nothing. A move is a pure function of the call, the command, who asks and the time; ``step`` adds what holds
for every move: the next version, the next deadline, the invariants. The table in docs/calls.md and the exhaustive
test (every state × every command × every role) read the same table.

    ringing ──accept──▶ accepted ──both legs have media──▶ active ⇄ reconnecting
       │                   │                                 │          │
       └───────────────────┴──────────────▶ ended ◀──────────┴──────────┘

A leg is *down* while it is not proven to be in the conversation: its socket is gone and the other side reports no
media from it, or media that it promised to report has not come up or has stopped. A call is active exactly while no
leg is down; a stretch of that is an interval, and intervals are what a meter may charge. A leg whose socket is gone
but whose media the peer keeps reporting (a locked screen stops an app's heartbeat, not its RTP) is not down.

Deadlines are fields, computed here from the call alone; whoever notices that one has passed sends ``Tick``. An end
that a deadline brings about is dated at the deadline, however late it is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from models.calls import commands as c
from models.calls.call import Call, Fact, Interval, Leg, Negotiation, Reason, Role, State, Timers, Upgrade
from models.errors import Refusal

# Devices of one callee that are remembered as ringing; more than anybody owns.
RUNG_DEVICES_MAX = 32

Told = list[tuple[str, dict[str, Any]]]
Move = Callable[[Call, Any, Role, datetime, Timers], tuple[Call, Told]]


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of the table: who may command it, and the move."""

    roles: frozenset[Role]
    move: Move


@dataclass(frozen=True, slots=True)
class Step:
    """The call after a command, and what to tell. ``changed`` is False when the command had nothing to do."""

    call: Call
    facts: tuple[Fact, ...]
    changed: bool


def step(call: Call, command: c.Command, *, role: Role, now: datetime, timers: Timers) -> Step:
    """Apply one command at ``now``.

    Refuses with ``CALL_ENDED``, ``CALL_WRONG_STATE``, ``CALL_WRONG_SIDE``, ``CALL_ANSWERED_ELSEWHERE`` or
    ``CALL_GLARE``. A command that has nothing to do (a repeated hang-up, a stale lease) returns the call unchanged.
    """
    row = MOVES[call.state].get(type(command))
    if row is None:
        raise _no(call)
    if role not in row.roles:
        raise Refusal("CALL_WRONG_SIDE", callId=call.id)
    # Another process's clock may be ahead of this one's: nothing happens before what has happened already.
    now = max(now, _latest(call))
    after, told = row.move(call, command, role, now, timers)
    if after is call:
        return Step(call, (), changed=False)
    after = replace(after, version=call.version + 1)
    after = replace(after, deadline_at=deadline(after, timers))
    check(after)
    return Step(after, tuple(Fact(kind, after.version, data) for kind, data in told), changed=True)


def begin(call: Call, *, timers: Timers) -> Step:
    """The first version of a call: ringing, with its deadline and the fact that tells the callee."""
    assert call.version == 1, "a call begins ringing, at version 1"
    call = replace(call, deadline_at=deadline(call, timers))
    check(call)
    return Step(call, (Fact("requested", 1, {}),), changed=True)


def deadline(call: Call, timers: Timers) -> datetime | None:
    """The earliest instant at which time alone changes the call; None once it has ended."""
    due = list(_dues(call, timers))
    return min(at for at, _ in due) if due else None


def _dues(call: Call, timers: Timers) -> Iterable[tuple[datetime, str]]:
    match call.state:
        case State.RINGING:
            yield call.created_at + timedelta(seconds=timers.ring), "ring"
            if call.caller_leg.lost_at is not None:
                yield call.caller_leg.lost_at + timedelta(seconds=timers.caller_grace), "caller_lost"
        case State.ACCEPTED:
            assert call.accepted_at is not None
            yield call.accepted_at + timedelta(seconds=timers.connect), "connect"
        case State.ACTIVE | State.RECONNECTING:
            assert call.active_at is not None
            yield call.active_at + timedelta(seconds=timers.longest), "longest"
            if call.authorised_until is not None:
                yield call.authorised_until, "money"
            for leg in _legs(call):
                if leg.down_at is not None:
                    yield leg.down_at + timedelta(seconds=timers.reconnect), "reconnect"
                elif leg.lost_at is not None:
                    yield _proven_until(leg, timers), "lease"
        case State.ENDED:
            return


# ---------------------------------------------------------------------------------------------- moves while ringing


def _ring(call: Call, cmd: c.Ring, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    if cmd.device_id in call.rung_devices or len(call.rung_devices) >= RUNG_DEVICES_MAX:
        return call, []
    after = replace(call, rung_devices=(*call.rung_devices, cmd.device_id))
    if call.ringing_at is not None:
        return after, []
    return replace(after, ringing_at=now), [("rang", {"device": cmd.device_id})]


def _accept(call: Call, cmd: c.Accept, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    leg = Leg(
        device_id=cmd.device_id,
        process=cmd.process,
        reports_media=cmd.reports_media,
        down_at=now if cmd.reports_media else None,
    )
    caller_leg = call.caller_leg
    if (caller_leg.reports_media or caller_leg.lost_at is not None) and caller_leg.down_at is None:
        caller_leg = replace(caller_leg, down_at=now)
    negotiation, answer = call.negotiation, cmd.answer
    renewed = negotiation.pending and negotiation.number > 1
    if renewed:
        # An offer that came (or was renewed) after the ring began has not reached this device yet: it is sent now,
        # and an answer can only have been meant for the offer that came with the ring.
        answer = None
    elif answer is not None and negotiation.pending:
        negotiation = replace(negotiation, answer=answer)
    told: Told = [("accepted", {"device": cmd.device_id, "answer": answer})]
    if renewed:
        told.append(("described", {"to": Role.CALLEE, "description": negotiation.offer}))
    after = replace(
        call,
        state=State.ACCEPTED,
        accepted_at=now,
        callee_leg=leg,
        caller_leg=caller_leg,
        negotiation=negotiation,
    )
    after, more = _activate_if_up(after, now)
    return after, told + [row for row in more if row[0] != "updated"]


def _reject(call: Call, cmd: c.Reject, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    after = _ended(call, cmd.reason, call.callee.user_id, now)
    return after, [("rejected", {"device": cmd.device_id})]


def _cancel_or_decline(
    call: Call, cmd: c.HangUp, role: Role, now: datetime, timers: Timers
) -> tuple[Call, Told]:
    if role is Role.CALLEE:
        return _reject(call, c.Reject(cmd.device_id), role, now, timers)
    return _ended(call, Reason.CANCELLED, call.caller.user_id, now), [("ended", {})]


def _lose_ringing(call: Call, cmd: c.Lose, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    leg = call.leg(cmd.role)
    if leg is None or leg.lost_at is not None or not _is_lease(leg, cmd):
        return call, []
    return replace(call, caller_leg=replace(leg, lost_at=now)), []


def _attach(call: Call, cmd: c.Attach, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """The device of a leg is back before anybody missed it (or while it only had to be there, not to talk)."""
    leg = call.leg(cmd.role)
    if leg is None or leg.device_id != cmd.device_id or leg.process is None:
        return call, []
    if leg.process == cmd.process and leg.lost_at is None:
        return call, []
    down_at = leg.down_at if leg.reports_media else None
    back = replace(leg, process=cmd.process, lost_at=None, down_at=down_at, orphaned=False)
    after = _with_leg(call, cmd.role, back)
    return _activate_if_up(after, now) if call.state is State.ACCEPTED else (after, [])


# ------------------------------------------------------------------------------------- moves of an answered call


def _accept_again(call: Call, cmd: c.Accept, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    return _mine_or_elsewhere(call, cmd.device_id), []


def _ring_late(call: Call, cmd: c.Ring, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    return _mine_or_elsewhere(call, cmd.device_id), []


def _reject_late(call: Call, cmd: c.Reject, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """A stale ring that is declined must not end the call that another device has taken."""
    _mine_or_elsewhere(call, cmd.device_id)
    raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value)


def _hang_up(call: Call, cmd: c.HangUp, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    return _ended(call, Reason.COMPLETED, call.party(role).user_id, now), [("ended", {})]


def _connected(call: Call, cmd: c.Connected, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    leg = _held(call, role, cmd.device_id)
    if leg.lost_at is not None:
        raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value, hint="resume first")
    if leg.down_at is None:
        return call, []
    return _activate_if_up(_with_leg(call, role, replace(leg, down_at=None)), now)


def _report(call: Call, cmd: c.Report, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """Keep the figures; what one side receives proves the other side's leg, and its own media."""
    mine, peer = _held(call, role, cmd.device_id), call.leg(role.other)
    assert peer is not None
    told: Told = []
    after = replace(call, quality={**call.quality, role.value: dict(cmd.stats)})
    if cmd.receiving:
        last = replace(peer, proof_at=now, down_at=None if peer.lost_at is not None else peer.down_at)
        after = _with_leg(after, role.other, last)
        if mine.lost_at is None:
            after = _with_leg(after, role, replace(mine, down_at=None))
        return _activate_if_up(after, now)
    if cmd.receiving is False and call.state is State.ACTIVE and peer.proof_at is not None:
        # Media was seen before and has stopped: the conversation ended with the last proof of it.
        after = _with_leg(after, role, replace(mine, down_at=now))
        after = _interrupted(after, peer.proof_at)
        told = [("updated", {"restartIce": True})]
    return after, told


def _resume(call: Call, cmd: c.Resume, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    leg = call.leg(role)
    assert leg is not None
    taken = leg.device_id != cmd.device_id
    if (
        not taken
        and leg.lost_at is None
        and leg.process == cmd.process
        and not (leg.down_at and call.active_at)
    ):
        return call, []
    reports = leg.reports_media if cmd.reports_media is None else cmd.reports_media
    untouched = not taken and leg.lost_at is None and leg.down_at is None
    down_at = now if reports and not untouched else None
    fresh = replace(
        leg,
        device_id=cmd.device_id,
        process=cmd.process,
        epoch=leg.epoch + 1,
        reports_media=reports,
        lost_at=None,
        down_at=down_at,
        proof_at=None if taken else leg.proof_at,
        orphaned=False,
    )
    after = _with_leg(call, role, fresh)
    told: Told = [("leg_taken", {"role": role, "device": leg.device_id})] if taken else []
    negotiation = call.negotiation
    if negotiation.pending and negotiation.offerer is role.other:
        told.append(("described", {"to": role, "description": negotiation.offer}))
    if call.state is State.RINGING:
        return after, told
    if down_at is not None and call.state is State.ACTIVE:
        return _interrupted(after, now), [*told, ("updated", {})]
    after, more = _activate_if_up(after, now)
    return after, [*told, *(more or [("updated", {})])]


def _describe(call: Call, cmd: c.Describe, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """Offer and answer (JSEP, RFC 9429). The caller is impolite, the callee polite: one offer survives a glare."""
    _held(call, role, cmd.device_id)
    body, before = cmd.description, call.negotiation
    if body["type"] == "answer":
        if before.offer is None or before.offerer is not role.other or call.state is State.RINGING:
            raise Refusal(
                "CALL_WRONG_STATE", callId=call.id, state=call.state.value, hint="no offer to answer"
            )
        after = replace(call, negotiation=replace(before, answer=body))
        return after, [("described", {"to": role.other, "description": body})]
    if before.offerer is role and before.offer == body and before.answer is not None:
        # The same offer again: its sender has missed the answer.
        return replace(call), [("described", {"to": role, "description": before.answer})]
    if before.pending and before.offerer is role.other and role is Role.CALLEE:
        raise Refusal("CALL_GLARE", callId=call.id)
    repeated = before.offerer is role and before.offer == body
    # Number 1 is the offer that came with the request; whatever comes later reaches an accepting device by itself.
    number = before.number if repeated else max(before.number, 1) + 1
    after = replace(call, negotiation=Negotiation(number=number, offerer=role, offer=body))
    told: Told = [("described", {"to": role.other, "description": body})]
    return after, ([] if call.state is State.RINGING else told)


def _lose(call: Call, cmd: c.Lose, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    leg = call.leg(cmd.role)
    if leg is None or leg.lost_at is not None or not _is_lease(leg, cmd):
        return call, []
    seen = min(max(cmd.last_seen_at, leg.proof_at or cmd.last_seen_at, _latest(call)), now)
    proven = leg.proof_at is not None and _proven_until(leg, timers) > now
    down_at = leg.down_at if proven or leg.down_at else seen
    lost = replace(leg, lost_at=now, down_at=down_at, orphaned=cmd.crashed)
    after = _with_leg(call, cmd.role, lost)
    if call.state is State.ACTIVE and not proven:
        return _interrupted(after, seen), [("updated", {})]
    return after, []


def _ask_upgrade(
    call: Call, cmd: c.AskUpgrade, role: Role, now: datetime, timers: Timers
) -> tuple[Call, Told]:
    _held(call, role, cmd.device_id)
    if call.type == cmd.type:
        return call, []
    if call.upgrade is not None and call.upgrade.by is role:
        return call, []
    if call.upgrade is not None:
        # Both want the same at once: that is the consent.
        return _answer_upgrade(call, c.AnswerUpgrade(cmd.device_id, True), role, now, timers)
    return replace(call, upgrade=Upgrade(role, cmd.type, now)), [
        ("upgrade_asked", {"by": role, "type": cmd.type})
    ]


def _answer_upgrade(
    call: Call, cmd: c.AnswerUpgrade, role: Role, now: datetime, timers: Timers
) -> tuple[Call, Told]:
    _held(call, role, cmd.device_id)
    asked = call.upgrade
    if asked is None:
        if cmd.accept and call.type == "video":
            return call, []
        raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value, hint="nobody asked")
    if asked.by is role:
        raise Refusal("CALL_WRONG_SIDE", callId=call.id)
    after = replace(call, upgrade=None, type=asked.type if cmd.accept else call.type)
    return after, [("upgrade_answered", {"by": role, "accept": cmd.accept, "type": asked.type})]


# ------------------------------------------------------------------------------------------ time, and the server


def _tick(call: Call, cmd: c.Tick, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """Do the earliest thing that is due, dated when it was due; what is due after it comes with the next tick."""
    due = sorted((at, what) for at, what in _dues(call, timers) if at <= now)
    if not due:
        return call, []
    at, what = due[0]
    match what:
        case "ring":
            reason = Reason.NO_ANSWER if call.rung_devices else Reason.UNREACHABLE
            return _ended(call, reason, None, at), [("timed_out", {})]
        case "caller_lost":
            return _ended(call, Reason.CALLER_LOST, None, at), [("ended", {})]
        case "connect":
            return _ended(call, Reason.CONNECT_FAILED, None, at), [("ended", {})]
        case "longest":
            return _ended(call, Reason.MAX_DURATION, None, at), [("ended", {})]
        case "money":
            return _ended(call, Reason.INSUFFICIENT_FUNDS, None, at), [("ended", {})]
        case "reconnect":
            crashed = any(leg.orphaned and leg.down_at is not None for leg in _legs(call))
            reason = Reason.SERVER_RECOVERED if crashed else Reason.CONNECTION_LOST
            return _ended(call, reason, None, at), [("ended", {})]
        case _:
            assert what == "lease"
            after = call
            for side in (Role.CALLER, Role.CALLEE):
                leg = after.leg(side)
                if leg and leg.lost_at and leg.down_at is None and _proven_until(leg, timers) <= now:
                    after = _with_leg(after, side, replace(leg, down_at=leg.proof_at or leg.lost_at))
            downs = [leg.down_at for leg in _legs(after) if leg.down_at is not None]
            return _interrupted(after, min(downs)), [("updated", {})]


def _stop(call: Call, cmd: c.Stop, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    if call.state is State.RINGING and cmd.reason is Reason.POLICY:
        # Nobody learns from a ring that they were blocked: it looks unanswered.
        return _ended(call, Reason.NO_ANSWER, cmd.by, now), [("timed_out", {})]
    return _ended(call, cmd.reason, cmd.by, now), [("ended", {})]


def _nothing(call: Call, cmd: c.Command, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    return call, []


# --------------------------------------------------------------------------------------------------- small pieces


def _legs(call: Call) -> list[Leg]:
    return [leg for leg in (call.caller_leg, call.callee_leg) if leg is not None]


def _with_leg(call: Call, role: Role, leg: Leg) -> Call:
    return replace(call, caller_leg=leg) if role is Role.CALLER else replace(call, callee_leg=leg)


def _is_lease(leg: Leg, cmd: c.Lose) -> bool:
    return leg.device_id == cmd.device_id and leg.process == cmd.process


def _proven_until(leg: Leg, timers: Timers) -> datetime:
    at = leg.proof_at or leg.lost_at
    assert at is not None
    return at + timedelta(seconds=timers.lease)


def _held(call: Call, role: Role, device_id: str) -> Leg:
    """The leg of ``role`` if ``device_id`` holds it."""
    leg = call.leg(role)
    if leg is None:
        raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value)
    if leg.device_id != device_id:
        raise Refusal("CALL_ANSWERED_ELSEWHERE", callId=call.id)
    return leg


def _mine_or_elsewhere(call: Call, device_id: str) -> Call:
    _held(call, Role.CALLEE, device_id)
    return call


def _activate_if_up(call: Call, now: datetime) -> tuple[Call, Told]:
    """To active, with a new interval, once no leg is down."""
    if call.state is State.ACTIVE or any(leg.down_at is not None for leg in _legs(call)):
        return call, []
    after = replace(
        call,
        state=State.ACTIVE,
        active_at=call.active_at or now,
        intervals=(*call.intervals, Interval(now)),
    )
    return after, [("updated", {})]


def _interrupted(call: Call, at: datetime) -> Call:
    return replace(call, state=State.RECONNECTING, intervals=_closed(call, at))


def _closed(call: Call, at: datetime) -> tuple[Interval, ...]:
    if not call.intervals or call.intervals[-1].end is not None:
        return call.intervals
    last = call.intervals[-1]
    return (*call.intervals[:-1], Interval(last.start, max(last.start, at)))


def _latest(call: Call) -> datetime:
    """The newest instant at which this call is known to have changed its state."""
    known = [call.created_at, call.accepted_at, call.active_at]
    if call.intervals:
        known += [call.intervals[-1].start, call.intervals[-1].end]
    return max(at for at in known if at is not None)


def _ended(call: Call, reason: Reason, by: str | None, at: datetime) -> Call:
    at = max(at, _latest(call))
    # Addresses and fingerprints in the descriptions are nobody's business once the call is over.
    return replace(
        call,
        state=State.ENDED,
        ended_at=at,
        end_reason=reason,
        ended_by=by,
        intervals=_closed(call, at),
        negotiation=Negotiation(number=call.negotiation.number),
        upgrade=None,
    )


def _no(call: Call) -> Refusal:
    if call.state is State.ENDED:
        assert call.end_reason is not None
        return Refusal("CALL_ENDED", callId=call.id, endReason=call.end_reason.value)
    return Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value)


def check(call: Call) -> None:
    """What must hold of every call, before it is written and after it is read."""
    ended = call.state is State.ENDED
    running = bool(call.intervals) and call.intervals[-1].end is None
    assert ended == (call.end_reason is not None) == (call.ended_at is not None), (
        "an end has a reason and a time"
    )
    assert ended == (call.deadline_at is None), "a live call has a deadline, an ended one none"
    assert running == (call.state is State.ACTIVE), "an interval runs exactly while the call is active"
    assert ended or (call.callee_leg is None) == (call.state is State.RINGING), (
        "the callee has a leg once answered"
    )
    if call.state in (State.ACTIVE, State.RECONNECTING):
        assert call.active_at is not None
        down = any(leg.down_at is not None for leg in _legs(call))
        assert down == (call.state is State.RECONNECTING), "reconnecting exactly while a leg is down"
    for one, following in zip(call.intervals, call.intervals[1:], strict=False):
        assert one.end is not None, "only the last interval runs"
        assert one.start <= one.end <= following.start, "intervals follow one another"


# ------------------------------------------------------------------------------------------------------ the table

_CALLER = frozenset({Role.CALLER})
_CALLEE = frozenset({Role.CALLEE})
_BOTH = _CALLER | _CALLEE
_SERVER = frozenset({Role.SERVER})

_ANSWERED: dict[type, Row] = {
    c.Ring: Row(_CALLEE, _ring_late),
    c.Accept: Row(_CALLEE, _accept_again),
    c.Reject: Row(_CALLEE, _reject_late),
    c.HangUp: Row(_BOTH, _hang_up),
    c.Connected: Row(_BOTH, _connected),
    c.Report: Row(_BOTH, _report),
    c.Resume: Row(_BOTH, _resume),
    c.Describe: Row(_BOTH, _describe),
    c.Lose: Row(_SERVER, _lose),
    c.Tick: Row(_SERVER, _tick),
    c.Stop: Row(_SERVER, _stop),
}

MOVES: dict[State, dict[type, Row]] = {
    State.RINGING: {
        c.Ring: Row(_CALLEE, _ring),
        c.Accept: Row(_CALLEE, _accept),
        c.Reject: Row(_CALLEE, _reject),
        c.HangUp: Row(_BOTH, _cancel_or_decline),
        c.Resume: Row(_CALLER, _resume),
        c.Describe: Row(_CALLER, _describe),
        c.Attach: Row(_SERVER, _attach),
        c.Lose: Row(_SERVER, _lose_ringing),
        c.Tick: Row(_SERVER, _tick),
        c.Stop: Row(_SERVER, _stop),
    },
    State.ACCEPTED: {**_ANSWERED, c.Attach: Row(_SERVER, _attach)},
    State.ACTIVE: {
        **_ANSWERED,
        c.Attach: Row(_SERVER, _attach),
        c.AskUpgrade: Row(_BOTH, _ask_upgrade),
        c.AnswerUpgrade: Row(_BOTH, _answer_upgrade),
    },
    # A device that is back does not talk yet: its leg comes up by Resume, which the app sends.
    State.RECONNECTING: {**_ANSWERED, c.Attach: Row(_SERVER, _nothing)},
    State.ENDED: {
        c.Reject: Row(_CALLEE, _nothing),
        c.HangUp: Row(_BOTH, _nothing),
        c.Attach: Row(_SERVER, _nothing),
        c.Lose: Row(_SERVER, _nothing),
        c.Tick: Row(_SERVER, _nothing),
        c.Stop: Row(_SERVER, _nothing),
    },
}
