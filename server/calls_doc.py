"""``docs/calls.md``: the call machine, walked and written down.

The table of ``models.calls.rules`` says who may command what in which state, but not where a move leads. So the
machine is walked: from a ringing call, every command that the table allows, with every choice that it has, at the
next second or at the next deadline, until nothing new is met. What was seen is what the page shows.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import get_args

from models.calls import commands as c
from models.calls.call import Call, Charge, Leg, Party, Price, Purse, Reason, Role, State, Timers
from models.calls.rules import MOVES, begin, step
from models.errors import Refusal
from server.json_schemas import first_line, words

KINDS_MAX = 5_000
Kind = tuple[object, ...]
# from, to → what brought it about
Edges = dict[tuple[State, State], set[str]]
# state, command → states that it led to
Seen = dict[tuple[State, type], set[State]]

_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_TIMERS = Timers()
# Ten minutes that are paid for.
_PRICE = Price(rate_per_minute_minor=100)
_CHARGE = Charge(wallet="wallet", share_bps=0, held=Purse(0, 1000), granted_ms=600_000, reach_ms=600_000)
_DEVICES = {Role.CALLER: "caller's", Role.CALLEE: "callee's", Role.SERVER: ""}
_ROLES = (Role.CALLER, Role.CALLEE, Role.SERVER)


def calls_page() -> str:
    """The whole page, Markdown with one Mermaid diagram."""
    seen, edges = walk()
    return "\n".join([_HEAD, *_diagram(edges), _TABLE_HEAD, *_table(seen), _DEADLINES, *_ends(edges), ""])


@cache
def walk() -> tuple[Seen, Edges]:
    """Everything that the machine can do, as far as its state and reasons go."""
    seen: Seen = defaultdict(set)
    edges: Edges = defaultdict(set)
    starts = [_start(reports=False, money=True), _start(reports=True, money=False)]
    todo = deque(starts)
    known = {_kind(call) for call in starts}
    while todo:
        before = todo.popleft()
        for command, role, now in _choices(before):
            try:
                done = step(before, command, role=role, now=now, timers=_TIMERS)
            except Refusal:
                continue
            after = done.call
            if not done.changed:
                continue
            seen[before.state, type(command)].add(after.state)
            if after.state is not before.state:
                edges[before.state, after.state].add(_cause(command, after))
            kind = _kind(after)
            if kind not in known:
                known.add(kind)
                todo.append(after)
                assert len(known) < KINDS_MAX, "the walk does not end: tell less apart in _kind()"
    return seen, edges


def _start(*, reports: bool, money: bool) -> Call:
    call = Call(
        id="call",
        type="audio",
        state=State.RINGING,
        version=1,
        caller=Party(user_id="caller", username="caller", display_name="Caller"),
        callee=Party(user_id="callee", username="callee", display_name="Callee"),
        caller_leg=Leg(device_id=_DEVICES[Role.CALLER], process="p", reports_media=reports),
        created_at=_T0,
        price=_PRICE if money else Price(),
        charge=_CHARGE if money else None,
    )
    return begin(call, timers=_TIMERS).call


def _kind(call: Call) -> Kind:
    """What is told apart: all that decides about states. Descriptions and upgrades do not."""
    if call.state is State.ENDED:
        return (call.state, call.end_reason)

    def leg(one: Leg | None) -> Kind:
        if one is None:
            return ()
        flags = (one.reports_media, one.lost_at is None, one.down_at is None, one.proof_at is None)
        return (*flags, one.orphaned and one.down_at is not None)

    return (
        call.state,
        bool(call.rung_devices),
        leg(call.caller_leg),
        leg(call.callee_leg),
        _next_by_time(call),
    )


def _next_by_time(call: Call) -> Kind:
    """What the next deadline does, when nothing comes before it."""
    assert call.deadline_at is not None
    after = step(call, c.Tick(), role=Role.SERVER, now=call.deadline_at, timers=_TIMERS).call
    return (after.state, after.end_reason)


def _choices(call: Call) -> Iterator[tuple[c.Command, Role, datetime]]:
    """Every command that the table allows, with every choice it has, by every role that may give it, soon and late."""
    if call.deadline_at is None:
        times = [_T0]
    else:
        legs = [leg for leg in (call.caller_leg, call.callee_leg) if leg is not None]
        instants = [call.created_at, call.accepted_at, call.active_at]
        instants += [at for leg in legs for at in (leg.lost_at, leg.down_at, leg.proof_at)]
        soon = max(at for at in instants if at is not None) + timedelta(seconds=1)
        times = [soon, max(soon, call.deadline_at - timedelta(seconds=1))]
    for kind, row in MOVES[call.state].items():
        for role in (role for role in _ROLES if role in row.roles):
            if kind is c.Tick:
                yield c.Tick(), role, call.deadline_at or _T0
                continue
            for now in times:
                for command in _commands(kind, role, now):
                    yield command, role, now


def _commands(kind: type, role: Role, now: datetime) -> Iterator[c.Command]:
    device = _DEVICES[role]
    if kind in (c.Ring, c.HangUp, c.Connected):
        yield kind(device)
    elif kind is c.Accept:
        yield c.Accept(device, "p")
        yield c.Accept(device, "p", reports_media=True)
    elif kind is c.Reject:
        yield c.Reject(device, Reason.DECLINED)
        yield c.Reject(device, Reason.BUSY)
    elif kind is c.Report:
        for receiving in (True, False):
            yield c.Report(device, {}, receiving)
    elif kind is c.Resume:
        yield c.Resume(device, "p")
    elif kind is c.Describe:
        for what in ("offer", "answer"):
            yield c.Describe(device, {"type": what, "sdp": role.value})
    elif kind is c.AskUpgrade:
        yield c.AskUpgrade(device, "video", Price())
    elif kind is c.AnswerUpgrade:
        for accept in (True, False):
            yield c.AnswerUpgrade(device, accept)
    elif kind is c.Grant:
        yield c.Grant(_CHARGE)
    elif kind is c.Stop:
        yield c.Stop(Reason.POLICY)
    else:
        for side in (Role.CALLER, Role.CALLEE):
            if kind is c.Attach:
                yield c.Attach(side, _DEVICES[side], "p")
            else:
                assert kind is c.Lose, f"the walk does not know {kind.__name__}"
                yield c.Lose(side, _DEVICES[side], "p", now)
                yield c.Lose(side, _DEVICES[side], "p", now, crashed=True)


def _cause(command: c.Command, after: Call) -> str:
    name = type(command).__name__
    if after.state is not State.ENDED or after.end_reason is None:
        return name
    return f"{name}: {after.end_reason.value}"


# --------------------------------------------------------------------------------------------------- what is written


def _diagram(edges: Edges) -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> ringing"]
    for start in State:
        for end in State:
            causes = edges.get((start, end))
            if causes:
                names = sorted({cause.split(":")[0] for cause in causes})
                lines.append(f"    {start} --> {end}: {', '.join(names)}")
    return [*lines, f"    {State.ENDED} --> [*]", "```", ""]


def _table(seen: Seen) -> list[str]:
    rows = [
        f"| command | {' | '.join(State)} |",
        f"|---|{'---|' * len(State)}",
    ]
    for kind in get_args(c.Command):
        cells = [_cell(state, kind, seen) for state in State]
        rows.append(f"| `{kind.__name__}` | {' | '.join(cells)} |")
    rows += ["", "| command | what it says |", "|---|---|"]
    for kind in get_args(c.Command):
        rows.append(f"| `{kind.__name__}` | {first_line(words(kind.__doc__))}. |")
    return rows


def _cell(state: State, kind: type, seen: Seen) -> str:
    row = MOVES[state].get(kind)
    if row is None:
        return "–"
    who = "both" if row.roles == {Role.CALLER, Role.CALLEE} else ", ".join(sorted(row.roles))
    leads = [end.value for end in State if end in seen.get((state, kind), set()) and end is not state]
    return f"{who} → {', '.join(leads)}" if leads else who


def _ends(edges: Edges) -> list[str]:
    by_reason: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for (start, end), causes in edges.items():
        for cause in causes:
            if end is State.ENDED:
                command, reason = cause.split(": ")
                by_reason[reason].add((start.value, command))
    rows = ["| `endReason` | from | by |", "|---|---|---|"]
    for reason in Reason:
        found = by_reason.get(reason.value, set())
        states = [state.value for state in State if state.value in {start for start, _ in found}]
        commands = sorted({f"`{command}`" for _, command in found})
        rows.append(f"| `{reason.value}` | {', '.join(states)} | {', '.join(commands)} |")
    return rows


_HEAD = """\
# The call machine

Written by `python main.py docs` from `models/calls/rules.py`; do not edit.

A call is one document at one version. A command is applied by a pure function of the call, the command, who gives
it and the time; the result is the next version with its next deadline and the facts to tell, or a refusal that changes
nothing. The store swaps one version for the next, guarded by the version.
"""

_TABLE_HEAD = """\
## Who may command what

A cell names who may give the command, and after the arrow the states that it can lead to (it may also lead to none
of them: the call stays as it is, only its legs change, or the move itself refuses). A dash is a refusal:
`CALL_WRONG_STATE`, in the last column `CALL_ENDED`. The wrong side gets `CALL_WRONG_SIDE`, a device that does not
hold the leg `CALL_ANSWERED_ELSEWHERE`. The codes are in [errors.md](errors.md).
"""

_DEADLINES = f"""
## Deadlines and ends

Every live call carries the earliest instant at which time alone changes it, so a restart loses none; whoever notices
that it has passed sends `Tick`, and an end is dated at the deadline, however late it is noticed. Defaults:
{_TIMERS.ring} s of ringing, {_TIMERS.caller_grace} s of ringing without the caller's connection, {_TIMERS.connect} s
from the accept to media, {_TIMERS.reconnect} s of a lost leg, {_TIMERS.longest // 3600} h in all. A leg without a
socket is not lost while the other side has reported its media within {_TIMERS.lease} s.
"""
