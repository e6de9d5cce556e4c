"""When time alone changes a call: the deadlines, as a pure function of the call."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from models.calls.call import Call, Leg, State, Timers

# A renewal may be made early by this part of its lead, where many come together.
EARLY_PART = 6


def deadline(call: Call, timers: Timers) -> datetime | None:
    """The earliest instant at which time alone changes the call; None once it has ended."""
    due = list(dues(call, timers))
    return min(at for at, _ in due) if due else None


def dues(call: Call, timers: Timers) -> Iterable[tuple[datetime, str]]:
    """Every deadline of the call with its name."""
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
            out_of_money = money_runs_out(call)
            if out_of_money is not None:
                yield out_of_money, "money"
            for leg in legs(call):
                if leg.down_at is not None:
                    yield leg.down_at + timedelta(seconds=timers.reconnect), "reconnect"
                elif leg.lost_at is not None:
                    yield proven_until(leg, timers), "lease"
        case State.ENDED:
            return


def money_runs_out(call: Call) -> datetime | None:
    """When the conversation that is paid for ends, if it goes on from here; None while nobody talks or it is free."""
    if call.charge is None or call.charge.granted_ms is None:
        return None
    if not call.intervals or call.intervals[-1].end is not None:
        return None
    left = call.charge.granted_ms - call.talk_ms()
    return call.intervals[-1].start + timedelta(milliseconds=max(0, left))


def renewal(call: Call) -> datetime | None:
    """When more money should be reserved, well ahead of the end of what is (RFC 8506 §5.3)."""
    end = money_runs_out(call)
    if end is None or call.charge is None or not call.charge.lead_ms:
        return None
    return end - timedelta(milliseconds=call.charge.lead_ms)


def legs(call: Call) -> list[Leg]:
    """The legs that are there."""
    return [leg for leg in (call.caller_leg, call.callee_leg) if leg is not None]


def proven_until(leg: Leg, timers: Timers) -> datetime:
    """How long the other side's report of its media stands for a leg without a socket."""
    at = leg.proof_at or leg.lost_at
    assert at is not None
    return at + timedelta(seconds=timers.lease)
