"""The moves of the call machine: each a pure function of the call, the command, who asks and the time.

The table that says which move goes in which state, and for whom, is in ``rules.py``, with the theory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from models.calls import commands as c
from models.calls import tariff
from models.calls.call import (
    Call,
    Interval,
    Leg,
    Negotiation,
    Reason,
    Role,
    State,
    Timers,
)
from models.calls.deadlines import dues, legs, money_runs_out, proven_until
from models.errors import Refusal

# Devices of one callee that are remembered as ringing; more than anybody owns.
RUNG_DEVICES_MAX = 32
# A call that is interrupted more often than this is no longer taken apart by reports; its document stays small.
INTERVALS_MAX = 1_000
# Whoever ends a call settles it at once; what is not settled after this is the job's to settle.
SETTLED_WITHIN = timedelta(seconds=10)

Told = list[tuple[str, dict[str, Any]]]
Move = Callable[[Call, Any, Role, datetime, Timers], tuple[Call, Told]]

# ---------------------------------------------------------------------------------------------- moves while ringing


def ring(call: Call, cmd: c.Ring, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    if cmd.device_id in call.rung_devices or len(call.rung_devices) >= RUNG_DEVICES_MAX:
        return call, []
    after = replace(call, rung_devices=(*call.rung_devices, cmd.device_id))
    if call.ringing_at is not None:
        return after, []
    return replace(after, ringing_at=now), [("rang", {"device": cmd.device_id})]


def accept(call: Call, cmd: c.Accept, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
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


def reject(call: Call, cmd: c.Reject, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    after = _ended(call, cmd.reason, call.callee.user_id, now)
    return after, [("rejected", {"device": cmd.device_id})]


def cancel_or_decline(
    call: Call, cmd: c.HangUp, role: Role, now: datetime, timers: Timers
) -> tuple[Call, Told]:
    if role is Role.CALLEE:
        return reject(call, c.Reject(cmd.device_id), role, now, timers)
    return _ended(call, Reason.CANCELLED, call.caller.user_id, now), [("ended", {})]


def lose_ringing(call: Call, cmd: c.Lose, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    leg = call.leg(cmd.role)
    if leg is None or leg.lost_at is not None or not _is_lease(leg, cmd):
        return call, []
    return replace(call, caller_leg=replace(leg, lost_at=now)), []


def attach(call: Call, cmd: c.Attach, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
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


def accept_again(call: Call, cmd: c.Accept, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    return _mine_or_elsewhere(call, cmd.device_id), []


def ring_late(call: Call, cmd: c.Ring, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    return _mine_or_elsewhere(call, cmd.device_id), []


def reject_late(call: Call, cmd: c.Reject, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """A stale ring that is declined must not end the call that another device has taken."""
    _mine_or_elsewhere(call, cmd.device_id)
    raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value)


def hang_up(call: Call, cmd: c.HangUp, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    return _ended(call, Reason.COMPLETED, call.party(role).user_id, now), [("ended", {})]


def connected(call: Call, cmd: c.Connected, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    leg = held(call, role, cmd.device_id)
    if leg.lost_at is not None:
        raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value, hint="resume first")
    if leg.down_at is None:
        return call, []
    return _activate_if_up(_with_leg(call, role, replace(leg, down_at=None)), now)


def report(call: Call, cmd: c.Report, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """Keep the figures; what one side receives proves the other side's leg, and its own media."""
    mine, peer = held(call, role, cmd.device_id), call.leg(role.other)
    assert peer is not None
    told: Told = []
    after = replace(call, quality={**call.quality, role.value: dict(cmd.stats)})
    if cmd.receiving and not _in_their_own_cause(call, peer, role, now, timers):
        last = replace(peer, proof_at=now, down_at=None if peer.lost_at is not None else peer.down_at)
        after = _with_leg(after, role.other, last)
        if mine.lost_at is None:
            after = _with_leg(after, role, replace(mine, down_at=None))
        return _activate_if_up(after, now)
    stopped = cmd.receiving is False and call.state is State.ACTIVE and peer.proof_at is not None
    if stopped and peer.proof_at is not None and len(call.intervals) < INTERVALS_MAX:
        # Media was seen before and has stopped: the conversation ended with the last proof of it.
        after = _with_leg(after, role, replace(mine, down_at=now))
        after = _interrupted(after, peer.proof_at)
        told = [("updated", {"restartIce": True})]
    return after, told


def _in_their_own_cause(call: Call, payer: Leg, role: Role, now: datetime, timers: Timers) -> bool:
    """Nobody is paid on their own word alone for long: a payer's phone that stays away ends a paid call."""
    if role is not Role.CALLEE or call.charge is None or payer.lost_at is None:
        return False
    return now - payer.lost_at > timedelta(seconds=timers.payee_proof)


def resume(call: Call, cmd: c.Resume, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
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


def describe(call: Call, cmd: c.Describe, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """Offer and answer (JSEP, RFC 9429). The caller is impolite, the callee polite: one offer survives a glare."""
    held(call, role, cmd.device_id)
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


def lose(call: Call, cmd: c.Lose, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    leg = call.leg(cmd.role)
    if leg is None or leg.lost_at is not None or not _is_lease(leg, cmd):
        return call, []
    seen = min(max(cmd.last_seen_at, leg.proof_at or cmd.last_seen_at, latest(call)), now)
    proven = leg.proof_at is not None and proven_until(leg, timers) > now
    down_at = leg.down_at if proven or leg.down_at else seen
    lost = replace(leg, lost_at=now, down_at=down_at, orphaned=cmd.crashed)
    after = _with_leg(call, cmd.role, lost)
    if call.state is State.ACTIVE and not proven:
        return _interrupted(after, seen), [("updated", {})]
    return after, []


# ------------------------------------------------------------------------------------------ time, and the server


def tick(call: Call, cmd: c.Tick, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """Do the earliest thing that is due, dated when it was due; what is due after it comes with the next tick."""
    due = sorted((at, what) for at, what in dues(call, timers) if at <= now)
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
            crashed = any(leg.orphaned and leg.down_at is not None for leg in legs(call))
            reason = Reason.SERVER_RECOVERED if crashed else Reason.CONNECTION_LOST
            return _ended(call, reason, None, at), [("ended", {})]
        case _:
            assert what == "lease"
            after = call
            for side in (Role.CALLER, Role.CALLEE):
                leg = after.leg(side)
                if leg and leg.lost_at and leg.down_at is None and proven_until(leg, timers) <= now:
                    after = _with_leg(after, side, replace(leg, down_at=leg.proof_at or leg.lost_at))
            downs = [leg.down_at for leg in legs(after) if leg.down_at is not None]
            return _interrupted(after, min(downs)), [("updated", {})]


def grant(call: Call, cmd: c.Grant, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    """The money of a live call has moved. Nobody is told by an event of the call: the billing ticks say it."""
    return (call if cmd.charge == call.charge else replace(call, charge=cmd.charge)), []


def stop(call: Call, cmd: c.Stop, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    if call.state is State.RINGING and cmd.reason is Reason.POLICY:
        # Nobody learns from a ring that they were blocked: it looks unanswered.
        return _ended(call, Reason.NO_ANSWER, cmd.by, now), [("timed_out", {})]
    return _ended(call, cmd.reason, cmd.by, min(now, cmd.at or now)), [("ended", {})]


def nothing(call: Call, cmd: c.Command, role: Role, now: datetime, timers: Timers) -> tuple[Call, Told]:
    return call, []


# --------------------------------------------------------------------------------------------------- small pieces


def _with_leg(call: Call, role: Role, leg: Leg) -> Call:
    return replace(call, caller_leg=leg) if role is Role.CALLER else replace(call, callee_leg=leg)


def _is_lease(leg: Leg, cmd: c.Lose) -> bool:
    return leg.device_id == cmd.device_id and leg.process == cmd.process


def held(call: Call, role: Role, device_id: str) -> Leg:
    """The leg of ``role`` if ``device_id`` holds it."""
    leg = call.leg(role)
    if leg is None:
        raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value)
    if leg.device_id != device_id:
        raise Refusal("CALL_ANSWERED_ELSEWHERE", callId=call.id)
    return leg


def _mine_or_elsewhere(call: Call, device_id: str) -> Call:
    held(call, Role.CALLEE, device_id)
    return call


def _activate_if_up(call: Call, now: datetime) -> tuple[Call, Told]:
    """To active, with a new interval, once no leg is down."""
    if call.state is State.ACTIVE or any(leg.down_at is not None for leg in legs(call)):
        return call, []
    after = replace(
        call,
        state=State.ACTIVE,
        active_at=call.active_at or now,
        intervals=(*call.intervals, Interval(now)),
    )
    return after, [("updated", {})]


def _interrupted(call: Call, at: datetime) -> Call:
    return _proven(replace(call, state=State.RECONNECTING, intervals=_closed(call, at)))


def _closed(call: Call, at: datetime) -> tuple[Interval, ...]:
    if not call.intervals or call.intervals[-1].end is not None:
        return call.intervals
    last = call.intervals[-1]
    # However late it is noticed: nobody has talked on longer than was paid for.
    paid_until = money_runs_out(call)
    if paid_until is not None:
        at = min(at, paid_until)
    return (*call.intervals[:-1], Interval(last.start, max(last.start, at)))


def _proven(call: Call) -> Call:
    """After an interval was closed: nobody has talked before an upgrade what was not talked at all.

    A leg that is given up may have been silent since before the upgrade. Then the segment that ended with it is
    shorter, and what is secured pays for another length of conversation.
    """
    if tariff.earlier_ms(call) <= call.talk_ms():
        return call
    left, earlier = call.talk_ms(), []
    for segment in call.earlier:
        earlier.append(replace(segment, talk_ms=min(segment.talk_ms, left)))
        left -= earlier[-1].talk_ms
    call = replace(call, earlier=tuple(earlier))
    if call.charge is None:
        return call
    granted = tariff.reach_ms(call, call.charge.secured_minor)
    return replace(call, charge=replace(call.charge, granted_ms=granted, reach_ms=granted))


def latest(call: Call) -> datetime:
    """The newest instant at which this call is known to have changed its state."""
    known = [call.created_at, call.accepted_at, call.active_at]
    if call.intervals:
        known += [call.intervals[-1].start, call.intervals[-1].end]
    return max(at for at in known if at is not None)


def _ended(call: Call, reason: Reason, by: str | None, at: datetime) -> Call:
    at = max(at, latest(call))
    # Addresses and fingerprints in the descriptions are nobody's business once the call is over.
    after = replace(
        call,
        state=State.ENDED,
        ended_at=at,
        end_reason=reason,
        ended_by=by,
        intervals=_closed(call, at),
        negotiation=Negotiation(number=call.negotiation.number),
        upgrade=None,
        money_due_at=at + SETTLED_WITHIN if call.charge is not None else None,
    )
    after = _proven(after)
    return replace(after, cost_minor=tariff.cost(after))
