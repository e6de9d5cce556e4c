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

from dataclasses import dataclass, replace
from datetime import datetime

from models.calls import commands as c
from models.calls import moves, tariff, upgrades
from models.calls.call import Call, Charge, Fact, Role, Stage, State, Timers
from models.calls.deadlines import deadline, legs, money_runs_out, renewal
from models.calls.moves import Move, latest
from models.errors import Refusal

__all__ = ["MOVES", "Row", "Step", "begin", "check", "deadline", "step"]


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
    now = max(now, latest(call))
    after, told = row.move(call, command, role, now, timers)
    if after is call:
        return Step(call, (), changed=False)
    after = _timed(after, timers, version=call.version + 1)
    check(after)
    return Step(after, tuple(Fact(kind, after.version, data) for kind, data in told), changed=True)


def begin(call: Call, *, timers: Timers) -> Step:
    """The first version of a call: ringing, with its deadline and the fact that tells the callee."""
    assert call.version == 1, "a call begins ringing, at version 1"
    call = _timed(call, timers, version=1)
    check(call)
    return Step(call, (Fact("requested", 1, {}),), changed=True)


def charged(call: Call, charge: Charge | None, *, timers: Timers) -> Call:
    """A call that is about to be written, with its money."""
    call = _timed(replace(call, charge=charge), timers, version=call.version)
    check(call)
    return call


def out_of_money(call: Call, now: datetime) -> bool:
    """Whether what was paid for is used up, so that the end of the call goes before anything else."""
    end = money_runs_out(call)
    return end is not None and end <= now


def _timed(call: Call, timers: Timers, *, version: int) -> Call:
    """The call at a version, with its times."""
    return replace(call, version=version, deadline_at=deadline(call, timers), renew_at=renewal(call))


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
        down = any(leg.down_at is not None for leg in legs(call))
        assert down == (call.state is State.RECONNECTING), "reconnecting exactly while a leg is down"
    if call.charge is not None and call.charge.stage is Stage.OPEN:
        assert tariff.cost(call) <= call.charge.secured_minor, "what was talked is paid for"
    for one, following in zip(call.intervals, call.intervals[1:], strict=False):
        assert one.end is not None, "only the last interval runs"
        assert one.start <= one.end <= following.start, "intervals follow one another"


# ------------------------------------------------------------------------------------------------------ the table

_CALLER = frozenset({Role.CALLER})
_CALLEE = frozenset({Role.CALLEE})
_BOTH = _CALLER | _CALLEE
_SERVER = frozenset({Role.SERVER})

_ANSWERED: dict[type, Row] = {
    c.Ring: Row(_CALLEE, moves.ring_late),
    c.Accept: Row(_CALLEE, moves.accept_again),
    c.Reject: Row(_CALLEE, moves.reject_late),
    c.HangUp: Row(_BOTH, moves.hang_up),
    c.Connected: Row(_BOTH, moves.connected),
    c.Report: Row(_BOTH, moves.report),
    c.Resume: Row(_BOTH, moves.resume),
    c.Describe: Row(_BOTH, moves.describe),
    c.Lose: Row(_SERVER, moves.lose),
    c.Tick: Row(_SERVER, moves.tick),
    c.Grant: Row(_SERVER, moves.grant),
    c.Stop: Row(_SERVER, moves.stop),
}

MOVES: dict[State, dict[type, Row]] = {
    State.RINGING: {
        c.Ring: Row(_CALLEE, moves.ring),
        c.Accept: Row(_CALLEE, moves.accept),
        c.Reject: Row(_CALLEE, moves.reject),
        c.HangUp: Row(_BOTH, moves.cancel_or_decline),
        c.Resume: Row(_CALLER, moves.resume),
        c.Describe: Row(_CALLER, moves.describe),
        c.Attach: Row(_SERVER, moves.attach),
        c.Lose: Row(_SERVER, moves.lose_ringing),
        c.Tick: Row(_SERVER, moves.tick),
        c.Grant: Row(_SERVER, moves.grant),
        c.Stop: Row(_SERVER, moves.stop),
    },
    State.ACCEPTED: {**_ANSWERED, c.Attach: Row(_SERVER, moves.attach)},
    State.ACTIVE: {
        **_ANSWERED,
        c.Attach: Row(_SERVER, moves.attach),
        c.AskUpgrade: Row(_BOTH, upgrades.ask_upgrade),
        c.AnswerUpgrade: Row(_BOTH, upgrades.answer_upgrade),
    },
    # A device that is back does not talk yet: its leg comes up by Resume, which the app sends.
    State.RECONNECTING: {**_ANSWERED, c.Attach: Row(_SERVER, moves.nothing)},
    State.ENDED: {
        c.Reject: Row(_CALLEE, moves.nothing),
        c.HangUp: Row(_BOTH, moves.nothing),
        c.Attach: Row(_SERVER, moves.nothing),
        c.Lose: Row(_SERVER, moves.nothing),
        c.Tick: Row(_SERVER, moves.nothing),
        c.Grant: Row(_SERVER, moves.nothing),
        c.Stop: Row(_SERVER, moves.nothing),
    },
}
