"""The call machine, cell by cell: every state, every command, every role; then random walks through it.

The expected outcomes are written out here and not read from ``rules.MOVES``, so that a change of the table has to be
made twice, once on purpose.
"""

from __future__ import annotations

import typing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calls import commands as c
from models.calls import rules, tariff
from models.calls.call import Call, Charge, Leg, Party, Price, Purse, Reason, Role, State, Timers
from models.errors import Refusal

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TIMERS = Timers()
OFFER = {"type": "offer", "sdp": "v=0\r\na=ice-ufrag:offer\r\n"}
OTHER_OFFER = {"type": "offer", "sdp": "v=0\r\na=ice-ufrag:other\r\n"}
ANSWER = {"type": "answer", "sdp": "v=0\r\na=ice-ufrag:answer\r\n"}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def person(name: str) -> Party:
    return Party(user_id=name, username=name, display_name=name.title())


def do(call: Call, command: c.Command, role: Role, seconds: float, timers: Timers = TIMERS) -> Call:
    return rules.step(call, command, role=role, now=at(seconds), timers=timers).call


# 100 a second, and what is held for the first ten seconds of it.
PRICE = Price(rate_per_minute_minor=6_000, first_block_seconds=1, block_seconds=1)
CHARGE = Charge(wallet="ann:NGN", share_bps=0, held=Purse(400, 600), granted_ms=10_000, reach_ms=10_000)


def ringing(*, reports: bool = True, timers: Timers = TIMERS, paid: bool = False) -> Call:
    """Ann's device a1, on process p1, rings Bob at second 0."""
    call = Call(
        id="call",
        type="audio",
        state=State.RINGING,
        version=1,
        caller=person("ann"),
        callee=person("bob"),
        caller_leg=Leg(device_id="a1", process="p1", reports_media=reports),
        created_at=START,
        price=PRICE if paid else Price(),
        charge=CHARGE if paid else None,
    )
    return rules.begin(call, timers=timers).call


def accepted() -> Call:
    """Bob's b1, on process p1, has taken it at second 5; both report media, and nobody has any yet."""
    return do(ringing(), c.Accept("b1", "p1", reports_media=True), Role.CALLEE, 5)


def active() -> Call:
    """Both have media since second 8."""
    call = do(accepted(), c.Connected("a1"), Role.CALLER, 7)
    return do(call, c.Connected("b1"), Role.CALLEE, 8)


def reconnecting() -> Call:
    """Ann's socket was lost at second 9."""
    return do(active(), c.Lose(Role.CALLER, "a1", "p1", at(9)), Role.SERVER, 9)


def ended() -> Call:
    return do(active(), c.HangUp("a1"), Role.CALLER, 9)


CALLS = {
    "ringing": ringing,
    "accepted": accepted,
    "active": active,
    "reconnecting": reconnecting,
    "ended": ended,
}

MINE = {Role.CALLER: "a1", Role.CALLEE: "b1", Role.SERVER: "a1"}
OTHER = {Role.CALLER: "a2", Role.CALLEE: "b2", Role.SERVER: "a2"}


def _commands(device: str) -> dict[str, c.Command]:
    return {
        "ring": c.Ring(device),
        "accept": c.Accept(device, "p1"),
        "reject": c.Reject(device),
        "hang up": c.HangUp(device),
        "connected": c.Connected(device),
        "receiving": c.Report(device, {}, True),
        "silence": c.Report(device, {}, False),
        "resume": c.Resume(device, "p2"),
        "offer": c.Describe(device, OFFER),
        "answer": c.Describe(device, ANSWER),
        "ask video": c.AskUpgrade(device, "video", Price()),
        "answer video": c.AnswerUpgrade(device, True),
    }


SERVERS: dict[str, c.Command] = {
    "attach caller": c.Attach(Role.CALLER, "a1", "p2"),
    "attach callee": c.Attach(Role.CALLEE, "b1", "p2"),
    "attach other": c.Attach(Role.CALLER, "a2", "p2"),
    "lose caller": c.Lose(Role.CALLER, "a1", "p1", at(10)),
    "lose callee": c.Lose(Role.CALLEE, "b1", "p1", at(10)),
    "lose other": c.Lose(Role.CALLER, "a2", "p1", at(10)),
    "lose moved": c.Lose(Role.CALLER, "a1", "p9", at(10)),
    "grant": c.Grant(Charge(wallet="ann:NGN", share_bps=0, granted_ms=600_000)),
    "tick early": c.Tick(),
    "tick late": c.Tick(),
    "stop": c.Stop(Reason.POLICY),
}

# In each cell three letters: what comes of it when the caller, the callee, the server commands it.
#   R A C X E  it is done, and the call is now ringing, accepted, in conversation (active), reconnecting, ended
#   =          it is allowed and there is nothing to do
#   s w !      refused: CALL_WRONG_STATE, CALL_WRONG_SIDE, CALL_ENDED
#   o          refused: CALL_ANSWERED_ELSEWHERE (another device holds the leg)
TABLE = """
                 ringing  accepted  active  reconnecting  ended
ring             wRw      w=w       w=w     w=w           !!!
accept           wAw      w=w       w=w     w=w           !!!
reject           wEw      wsw       wsw     wsw           w=w
hang up          EEw      EEw       EEw     EEw           ==w
connected        sss      AAw       ==w     s=w           !!!
receiving        sss      AAw       CCw     XCw           !!!
silence          sss      AAw       CCw     XXw           !!!
resume           Rww      AAw       CCw     XXw           !!!
offer            Rww      AAw       CCw     XXw           !!!
answer           sww      ssw       ssw     ssw           !!!
ask video        sss      sss       CCw     sss           !!!
answer video     sss      sss       ssw     sss           !!!
other: ring          wRw      wow       wow     wow           !!!
other: accept        wAw      wow       wow     wow           !!!
other: reject        wEw      wow       wow     wow           w=w
other: hang up       EEw      EEw       EEw     EEw           ==w
other: connected     sss      oow       oow     oow           !!!
other: receiving     sss      oow       oow     oow           !!!
other: silence       sss      oow       oow     oow           !!!
other: resume        Rww      AAw       XXw     XXw           !!!
other: offer         oww      oow       oow     oow           !!!
other: answer        oww      oow       oow     oow           !!!
other: ask video     sss      sss       oow     sss           !!!
other: answer video  sss      sss       oow     sss           !!!
attach caller    wwR      wwA       wwC     ww=           ww=
attach callee    ww=      wwA       wwC     ww=           ww=
attach other     ww=      ww=       ww=     ww=           ww=
lose caller      wwR      wwA       wwX     ww=           ww=
lose callee      ww=      wwA       wwX     wwX           ww=
lose other       ww=      ww=       ww=     ww=           ww=
lose moved       ww=      ww=       ww=     ww=           ww=
grant            wwR      wwA       wwC     wwX           ww=
tick early       ww=      ww=       ww=     ww=           ww=
tick late        wwE      wwE       wwE     wwE           ww=
stop             wwE      wwE       wwE     wwE           ww=
"""

STATE_OF = {
    "R": State.RINGING,
    "A": State.ACCEPTED,
    "C": State.ACTIVE,
    "X": State.RECONNECTING,
    "E": State.ENDED,
}
CODE_OF = {
    "s": "CALL_WRONG_STATE",
    "w": "CALL_WRONG_SIDE",
    "!": "CALL_ENDED",
    "o": "CALL_ANSWERED_ELSEWHERE",
}
ROLES = (Role.CALLER, Role.CALLEE, Role.SERVER)


def cells() -> list[tuple[str, str, Role, str]]:
    head, *lines = TABLE.strip().splitlines()
    found = []
    for line in lines:
        *words, a, b, d, e, f = line.split()
        for state, letters in zip(head.split(), (a, b, d, e, f), strict=True):
            found += [
                (" ".join(words), state, role, letter) for role, letter in zip(ROLES, letters, strict=True)
            ]
    return found


def command_for(name: str, role: Role) -> c.Command:
    if name in SERVERS:
        return SERVERS[name]
    if name.startswith("other: "):
        return _commands(OTHER[role])[name.removeprefix("other: ")]
    return _commands(MINE[role])[name]


@pytest.mark.parametrize(("name", "state", "role", "letter"), cells())
def test_every_cell_of_the_table_is_as_written_here(name: str, state: str, role: Role, letter: str) -> None:
    before = CALLS[state]()
    copy = replace(before)
    command, now = command_for(name, role), at(100_000 if name == "tick late" else 10)
    if letter in CODE_OF:
        with pytest.raises(Refusal) as no:
            rules.step(before, command, role=role, now=now, timers=TIMERS)
        assert no.value.code == CODE_OF[letter]
        assert no.value.details["callId"] == before.id
        if letter == "!":
            assert no.value.details["endReason"] == "completed"
        assert before == copy, "a refused move changes nothing"
        return
    done = rules.step(before, command, role=role, now=now, timers=TIMERS)
    assert before == copy, "a move never changes what it is given"
    if letter == "=":
        assert done.call is before
        assert (done.changed, done.facts) == (False, ())
        return
    assert done.changed
    assert done.call.state is STATE_OF[letter]
    assert done.call.version == before.version + 1
    assert {fact.version for fact in done.facts} <= {done.call.version}
    assert (done.call.deadline_at is None) == (done.call.state is State.ENDED)
    rules.check(done.call)


def test_the_table_here_has_every_command_and_every_state_of_the_machine() -> None:
    classes = {type(command_for(name, Role.CALLER)) for name, *_ in cells()}
    assert classes == set(typing.get_args(c.Command))
    assert {state for _, state, _, _ in cells()} == {state.value for state in State}
    assert set(rules.MOVES) == set(State)
    assert {command for row in rules.MOVES.values() for command in row} == classes


def test_a_row_of_the_machine_is_refused_here_exactly_where_it_is_missing_there() -> None:
    """What is refused by state alone in this table is what has no row in ``MOVES``, and the other way round."""
    for name, state, role, letter in cells():
        row = rules.MOVES[State(state)].get(type(command_for(name, role)))
        if row is None:
            assert letter in "s!", (name, state)
        else:
            assert (role in row.roles) == (letter != "w"), (name, state, role)


# ------------------------------------------------------------------------------------------------ what ends how

ENDS = [
    ("ringing", c.HangUp("a1"), Role.CALLER, 10, "cancelled", "ann", 10),
    ("ringing", c.HangUp("b1"), Role.CALLEE, 10, "declined", "bob", 10),
    ("ringing", c.Reject("b1"), Role.CALLEE, 10, "declined", "bob", 10),
    ("ringing", c.Reject("b1", Reason.BUSY), Role.CALLEE, 10, "busy", "bob", 10),
    ("ringing", c.Tick(), Role.SERVER, 60, "unreachable", None, 45),
    ("ringing", c.Stop(Reason.POLICY), Role.SERVER, 10, "no_answer", None, 10),
    ("ringing", c.Stop(Reason.CANCELLED, "ann"), Role.SERVER, 10, "cancelled", "ann", 10),
    ("accepted", c.HangUp("b2"), Role.CALLEE, 10, "completed", "bob", 10),
    ("accepted", c.Tick(), Role.SERVER, 60, "connect_failed", None, 35),
    ("accepted", c.Stop(Reason.POLICY), Role.SERVER, 10, "policy", None, 10),
    ("active", c.HangUp("a1"), Role.CALLER, 10, "completed", "ann", 10),
    ("active", c.Tick(), Role.SERVER, 99_999, "max_duration", None, 14_408),
    ("active", c.Stop(Reason.POLICY), Role.SERVER, 10, "policy", None, 10),
    ("reconnecting", c.Tick(), Role.SERVER, 60, "connection_lost", None, 39),
    ("reconnecting", c.HangUp("b1"), Role.CALLEE, 10, "completed", "bob", 10),
]


@pytest.mark.parametrize(("state", "command", "role", "seconds", "reason", "by", "ended"), ENDS)
def test_an_end_has_its_reason_who_and_the_instant_when_it_was_due(
    state: str, command: c.Command, role: Role, seconds: float, reason: str, by: str | None, ended: float
) -> None:
    call = do(CALLS[state](), command, role, seconds)
    assert (call.end_reason, call.ended_by, call.ended_at) == (Reason(reason), by, at(ended))
    assert (call.negotiation.offer, call.negotiation.answer, call.upgrade) == (None, None, None)


def test_a_ring_that_somebody_heard_ends_as_no_answer_and_one_that_nobody_heard_as_unreachable() -> None:
    heard = do(ringing(), c.Ring("b1"), Role.CALLEE, 1)
    assert do(heard, c.Tick(), Role.SERVER, 45).end_reason is Reason.NO_ANSWER
    assert do(ringing(), c.Tick(), Role.SERVER, 45).end_reason is Reason.UNREACHABLE


def test_a_deadline_is_due_at_its_millisecond_and_not_before() -> None:
    for make in (ringing, accepted, active, reconnecting):
        call = make()
        assert call.deadline_at is not None
        early = call.deadline_at - timedelta(milliseconds=1)
        assert not rules.step(call, c.Tick(), role=Role.SERVER, now=early, timers=TIMERS).changed
        assert rules.step(call, c.Tick(), role=Role.SERVER, now=call.deadline_at, timers=TIMERS).changed


def test_a_leg_that_went_with_its_process_ends_the_call_as_recovered_by_the_server() -> None:
    call = do(active(), c.Lose(Role.CALLER, "a1", "p1", at(9), crashed=True), Role.SERVER, 20)
    call = do(call, c.Tick(), Role.SERVER, 60)
    assert (call.end_reason, call.ended_at) == (Reason.SERVER_RECOVERED, at(39))


def test_an_accept_while_the_callers_socket_is_gone_waits_for_the_caller() -> None:
    call = do(ringing(reports=False), c.Lose(Role.CALLER, "a1", "p1", at(3)), Role.SERVER, 3)
    call = do(call, c.Accept("b1", "p1"), Role.CALLEE, 5)
    assert call.state is State.ACCEPTED, "nobody talks to a caller who is not there"
    back = do(call, c.Attach(Role.CALLER, "a1", "p2"), Role.SERVER, 8)
    assert (back.state, back.active_at) == (State.ACTIVE, at(8))
    assert do(call, c.Tick(), Role.SERVER, 60).end_reason is Reason.CONNECT_FAILED


def test_without_media_reports_the_conversation_begins_with_the_accept() -> None:
    call = do(ringing(reports=False), c.Accept("b1", "p1"), Role.CALLEE, 5)
    assert (call.state, call.active_at, call.accepted_at) == (State.ACTIVE, at(5), at(5))


def test_a_clock_that_has_gone_back_makes_no_interval_overlap_and_no_conversation_longer() -> None:
    """A process whose clock is behind that of the one before it (E41)."""
    call = do(reconnecting(), c.Resume("a1", "p2", False), Role.CALLER, 9 - 300)
    assert call.state is State.ACTIVE
    assert call.intervals[-1].start == at(9)
    call = do(call, c.HangUp("a1"), Role.CALLER, 20 - 300)
    assert (call.ended_at, call.spoken_seconds()) == (at(9), 1)


# ------------------------------------------------------------------------------------------------- negotiations


def test_the_polite_side_is_told_of_a_glare_and_the_impolite_sides_offer_takes_its_place() -> None:
    call = do(active(), c.Describe("a1", OFFER), Role.CALLER, 10)
    with pytest.raises(Refusal) as no:
        do(call, c.Describe("b1", OTHER_OFFER), Role.CALLEE, 11)
    assert no.value.code == "CALL_GLARE"
    call = do(active(), c.Describe("b1", OTHER_OFFER), Role.CALLEE, 10)
    call = do(call, c.Describe("a1", OFFER), Role.CALLER, 11)
    assert (call.negotiation.offerer, call.negotiation.offer) == (Role.CALLER, OFFER)


def test_only_the_other_side_answers_an_offer() -> None:
    call = do(active(), c.Describe("a1", OFFER), Role.CALLER, 10)
    with pytest.raises(Refusal) as no:
        do(call, c.Describe("a1", ANSWER), Role.CALLER, 11)
    assert no.value.code == "CALL_WRONG_STATE"
    assert do(call, c.Describe("b1", ANSWER), Role.CALLEE, 11).negotiation.answer == ANSWER


def test_an_answer_to_the_first_offer_does_not_answer_an_offer_that_was_renewed_while_it_rang() -> None:
    call = do(ringing(), c.Describe("a1", OFFER), Role.CALLER, 1)
    call = do(call, c.Describe("a1", OTHER_OFFER), Role.CALLER, 2)
    done = rules.step(call, c.Accept("b1", "p1", ANSWER), role=Role.CALLEE, now=at(5), timers=TIMERS)
    assert done.call.negotiation.pending, "the ring carried another offer than the one that waits now"
    told = {fact.kind: fact.data for fact in done.facts}
    assert told["accepted"]["answer"] is None
    assert told["described"] == {"to": Role.CALLEE, "description": OTHER_OFFER}


# ------------------------------------------------------------------------------------------------------- walks

PROCESSES = ("p1", "p2", None)


def _command(dice: Random, now: datetime) -> tuple[c.Command, Role]:
    """Any command at all, mostly from a role that may give it, now and then from another."""
    role, side = dice.choice((Role.CALLER, Role.CALLEE)), dice.choice((Role.CALLER, Role.CALLEE))
    device, theirs = (("b" if r is Role.CALLEE else "a") + dice.choice("1112") for r in (role, side))
    process, reports = dice.choice(PROCESSES), dice.random() < 0.5
    seen = now - timedelta(seconds=dice.choice((0, 0, 5, 15, 120)))
    by_side: list[c.Command] = [
        c.Ring(device),
        c.Accept(device, process, dice.choice((None, ANSWER)), reports),
        c.Connected(device),
        c.Report(device, {"rttMs": 1}, dice.choice((True, True, False, None))),
        c.Resume(device, process, dice.choice((True, False, None))),
        c.Describe(device, dice.choice((OFFER, OTHER_OFFER, ANSWER))),
        c.AskUpgrade(device, "video", Price()),
        c.AnswerUpgrade(device, reports),
    ]
    by_server: list[c.Command] = [
        c.Attach(side, theirs, process or "p3"),
        c.Lose(side, theirs, process or "p3", seen, reports),
        c.Tick(),
    ]
    ends: list[c.Command] = [c.HangUp(device), c.Reject(device), c.Stop(Reason.POLICY)]
    kind = dice.random()
    if kind < 0.65:
        return dice.choice(by_side), role
    if kind < 0.95:
        return dice.choice(by_server), Role.SERVER
    if kind < 0.97:  # rare, or no walk would get anywhere
        return dice.choice(ends), dice.choice(ROLES)
    return dice.choice([*by_side, *by_server]), dice.choice(ROLES)


def _more_money(charge: Charge, seconds: int) -> c.Grant:
    """The meter has reserved ``seconds`` more."""
    held, ms = charge.held + Purse(0, 100 * seconds), (charge.granted_ms or 0) + 1000 * seconds
    return c.Grant(replace(charge, held=held, granted_ms=ms, reach_ms=ms))


def invariants(call: Call, now: datetime) -> None:
    rules.check(call)
    if call.charge is not None:
        granted = call.charge.granted_ms  # None: it has come to a free segment
        assert granted is None or call.talk_ms() <= granted, "nobody talks longer than is paid for"
        assert call.live or call.cost_minor == tariff.cost(call) <= call.charge.held.total
    assert (call.deadline_at is None) == (not call.live)
    previous = call.accepted_at
    for stretch in call.intervals:
        assert previous is not None
        assert stretch.start >= previous
        assert stretch.end is None or stretch.end >= stretch.start
        previous = stretch.end
    horizon = call.ended_at or now
    if call.intervals:
        assert call.active_at == call.intervals[0].start
        assert (call.intervals[-1].end or call.intervals[-1].start) <= horizon, "nobody talks after the end"
        assert call.talked <= horizon - call.active_at, "no more conversation than time"
    if call.state is State.ACTIVE:
        for leg in (call.caller_leg, call.callee_leg):
            assert leg is not None
            assert leg.lost_at is None or leg.proof_at is not None, "a lost leg is active only when proven"
    if not call.live:
        assert call.ended_at is not None
        assert call.created_at <= call.ended_at <= now
        assert (call.negotiation.offer, call.upgrade) == (None, None)


def left_alone(call: Call, timers: Timers, now: datetime) -> None:
    """Time alone ends every call, and each deadline brings it nearer to its end."""
    for _ in range(8):
        if not call.live:
            return
        assert call.deadline_at is not None
        done = rules.step(call, c.Tick(), role=Role.SERVER, now=call.deadline_at, timers=timers)
        assert done.changed, "a deadline that does nothing would be due for ever"
        invariants(done.call, max(call.deadline_at, now))
        call = done.call
    raise AssertionError("this call never ends")


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_wherever_a_call_wanders_its_invariants_hold(seed: int) -> None:
    dice = Random(seed)
    timers = Timers(longest=dice.choice((60, 14_400)))
    call, now = ringing(reports=dice.random() < 0.5, timers=timers, paid=dice.random() < 0.5), START
    for _ in range(60):
        now += timedelta(seconds=dice.choice((0, 0, 0.001, 1, 1, 1, 1, 5, 5, 14.999, 15, 31)))
        # Another process may be a little behind, and one of them by five minutes (E41).
        skewed = now - timedelta(seconds=dice.choice((0,) * 20 + (0.05, 300)))
        command, role = _command(dice, now)
        if call.charge is not None and dice.random() < 0.1:
            command, role = _more_money(call.charge, dice.choice((1, 5, 30))), Role.SERVER
        try:
            done = rules.step(call, command, role=role, now=skewed, timers=timers)
        except Refusal:
            continue
        assert done.changed or done.call is call
        assert done.call.version == call.version + (1 if done.changed else 0)
        assert all(fact.version == done.call.version for fact in done.facts)
        assert call.live or done.call.state is State.ENDED, "an end is never left"
        assert done.call.negotiation.number >= call.negotiation.number
        assert done.call.caller_leg.epoch >= call.caller_leg.epoch
        assert done.call.intervals[: len(call.intervals) - 1] == call.intervals[:-1], (
            "the past stays as it was"
        )
        call = done.call
        invariants(call, now)
    left_alone(call, timers, now)
