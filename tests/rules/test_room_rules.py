"""The rules of rooms alone: every move from every kind of room, and long random walks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calls.call import Price
from models.errors import Refusal
from models.rooms import rules
from models.rooms.board import Board
from models.rooms.room import Access, Closed, Gone, Participant, Room, Seat, Timers
from models.rooms.rules import Entrant, Step

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TIMERS = Timers()
OWNER = "ada"
PEOPLE = ("ada", "bob", "eve", "kim")


def room(**fields: Any) -> Room:
    made = Room(
        id="room",
        version=1,
        name=None,
        type="video",
        access=Access.OPEN,
        owner_id=OWNER,
        capacity=3,
        price=None,
        created_at=START,
        emptied_at=START,
    )
    return replace(made, **fields)


def entrant(user_id: str, device: str | None = "phone", **fields: Any) -> Entrant:
    given: dict[str, Any] = {
        "process": "p1" if device else None,
        "stay_id": f"stay-{user_id}",
        "session_id": "session",
        "apart": frozenset(),
    }
    return Entrant(user_id=user_id, device_id=device, **{**given, **fields})


def enter(
    before: Room, user_id: str, device: str | None = "phone", *, now: datetime = START, **fields: Any
) -> Step:
    return rules.enter(before, entrant(user_id, device, **fields), now, TIMERS)


def with_people(*user_ids: str, **fields: Any) -> Room:
    made = room(**fields)
    for user_id in user_ids:
        made = enter(made, user_id).room
    return made


def refused(code: str, move: Any) -> None:
    with pytest.raises(Refusal) as no:
        move()
    assert no.value.code == code


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def kinds(step: Step) -> list[str]:
    return [fact.kind for fact in step.facts]


def test_the_first_begins_a_session_and_the_last_ends_it() -> None:
    one = enter(room(), "bob")
    assert one.room.session is not None
    assert (one.room.session.started_by, one.room.emptied_at) == ("bob", None)
    two = enter(one.room, "eve", session_id="another")
    assert two.room.session == one.room.session
    left = rules.leave(two.room, user_id="bob", device_id="phone", now=after(5))
    assert (left.over, left.room.session) == (None, replace(one.room.session, last_gone_at=after(5)))
    last = rules.leave(left.room, user_id="eve", device_id="phone", now=after(9))
    assert last.over == (left.room.session, after(9))
    assert (last.room.session, last.room.emptied_at) == (None, after(9))


def test_a_second_device_is_the_same_participant() -> None:
    one = enter(room(), "bob").room
    two = enter(one, "bob", "tablet")
    assert (len(two.room.participants), kinds(two)) == (1, [])
    left = rules.leave(two.room, user_id="bob", device_id="phone", now=START)
    assert (kinds(left), [one.user_id for one in left.room.present]) == ([], ["bob"])
    assert kinds(rules.leave(left.room, user_id="bob", device_id="tablet", now=START)) == ["left"]


def test_the_oldest_device_gives_way_to_one_too_many() -> None:
    full = room()
    for number in range(rules.SEATS_MAX + 1):
        full = enter(full, "bob", f"d{number}").room
    assert [seat.device_id for seat in full.participants[0].seats] == [
        f"d{n}" for n in range(1, rules.SEATS_MAX + 1)
    ]


def test_devices_by_sockets_and_by_other_means_do_not_push_each_other_out() -> None:
    there = with_people("bob")
    for n in range(2 * rules.SEATS_MAX):
        there = enter(there, "bob", f"tablet{n}").room
        there = enter(there, "bob", f"livekit:{n}", process=None).room
    (bob,) = there.participants
    last = range(rules.SEATS_MAX, 2 * rules.SEATS_MAX)
    assert set(bob.devices) == {f"tablet{n}" for n in last}
    assert {seat.device_id for seat in bob.seats} - set(bob.devices) == {f"livekit:{n}" for n in last}


def test_joining_again_changes_nothing() -> None:
    one = with_people("bob")
    assert enter(one, "bob").room is one
    assert enter(one, "bob", None).room is one


def test_a_full_room_says_how_many_it_holds_and_lets_those_in_it_in_again() -> None:
    full = with_people("ada", "bob", "eve")
    with pytest.raises(Refusal) as no:
        enter(full, "kim")
    assert (no.value.code, no.value.details) == ("ROOM_FULL", {"capacity": 3})
    assert len(enter(full, "bob", "tablet").room.participants) == 3


def test_a_place_taken_by_rest_counts_and_is_given_back_when_nobody_comes() -> None:
    held = enter(with_people("ada", "bob"), "eve", None)
    assert (kinds(held), [one.user_id for one in held.room.present]) == ([], ["ada", "bob"])
    refused("ROOM_FULL", lambda: enter(held.room, "kim"))
    assert rules.deadline(held.room, TIMERS) == after(TIMERS.arrive)
    assert rules.tick(held.room, after(TIMERS.arrive - 1), TIMERS).room is held.room
    gone = rules.tick(held.room, after(TIMERS.arrive), TIMERS)
    assert gone.room.participant("eve") is None
    assert gone.facts[0].data["was_here"] is False
    came = enter(held.room, "eve")
    assert kinds(came) == ["joined"]
    assert rules.deadline(came.room, TIMERS) is None


def test_invite_only_lets_in_the_owner_and_the_invited() -> None:
    closed = room(access=Access.INVITE)
    refused("ROOM_INVITE_ONLY", lambda: enter(closed, "bob"))
    assert enter(closed, OWNER).facts
    invited = rules.invite(closed, by=OWNER, user_ids=["bob", "bob"])
    assert invited.facts[0].data == {"user_ids": ["bob"], "by": OWNER}
    assert enter(invited.room, "bob").facts
    assert rules.invite(invited.room, by=OWNER, user_ids=["bob"]).room is invited.room


def test_who_was_kicked_stays_out_until_invited_again() -> None:
    kicked = rules.kick(with_people("ada", "bob"), by=OWNER, user_id="bob", now=START)
    assert kinds(kicked) == ["left", "kicked"]
    assert kicked.facts[0].data["reason"] == Gone.KICKED
    refused("ROOM_KICKED", lambda: enter(kicked.room, "bob"))
    assert rules.kick(kicked.room, by=OWNER, user_id="bob", now=START).room is kicked.room
    again = rules.invite(kicked.room, by=OWNER, user_ids=["bob"]).room
    assert enter(again, "bob").facts


def test_a_kick_takes_the_invitation_back() -> None:
    invited = rules.invite(room(access=Access.INVITE), by=OWNER, user_ids=["bob"]).room
    kicked = rules.kick(invited, by=OWNER, user_id="bob", now=START)
    assert (kinds(kicked), kicked.facts[0].data["was_in"]) == (["kicked"], False)
    assert kicked.room.invited_ids == ()


@pytest.mark.parametrize("by", ["bob", "stranger"])
def test_only_the_owner_invites_and_kicks(by: str) -> None:
    there = with_people("ada", "bob", "eve")
    refused("ROOM_NOT_OWNER", lambda: rules.invite(there, by=by, user_ids=["kim"]))
    refused("ROOM_NOT_OWNER", lambda: rules.kick(there, by=by, user_id="eve", now=START))
    refused("SELF_NOT_ALLOWED", lambda: rules.kick(there, by=OWNER, user_id=OWNER, now=START))


def test_the_lists_of_a_room_are_bounded() -> None:
    many = [f"u{n}" for n in range(rules.INVITED_MAX)]
    full = rules.invite(room(), by=OWNER, user_ids=many).room
    refused("VALIDATION_FAILED", lambda: rules.invite(full, by=OWNER, user_ids=["one more"]))
    kicked = with_people("bob", kicked_ids=tuple(f"u{n}" for n in range(rules.KICKED_MAX)))
    refused("VALIDATION_FAILED", lambda: rules.kick(kicked, by=OWNER, user_id="bob", now=START))
    again = rules.invite(kicked, by=OWNER, user_ids=["u0"]).room
    assert rules.kick(again, by=OWNER, user_id="bob", now=START).room.kicked_ids[0] == "u1", (
        "nobody slips back in"
    )


def test_a_closed_room_is_empty_and_takes_nobody() -> None:
    closed = rules.close(with_people("ada", "bob"), reason=Closed.OWNER, now=after(3))
    assert kinds(closed) == ["left", "left", "closed"]
    assert closed.facts[-1].data["user_ids"] == ["ada", "bob"]
    assert closed.over is not None
    assert (closed.room.participants, rules.deadline(closed.room, TIMERS)) == ((), None)
    refused("ROOM_CLOSED", lambda: enter(closed.room, OWNER))
    refused("ROOM_CLOSED", lambda: rules.invite(closed.room, by=OWNER, user_ids=["bob"]))
    assert rules.close(closed.room, reason=Closed.EMPTY, now=after(9)).room is closed.room


def test_an_empty_room_closes_after_its_time_and_not_while_somebody_is_on_the_way() -> None:
    empty = room()
    assert rules.deadline(empty, TIMERS) == after(TIMERS.empty)
    assert rules.tick(empty, after(TIMERS.empty - 1), TIMERS).room is empty
    assert rules.tick(empty, after(TIMERS.empty), TIMERS).room.close_reason is Closed.EMPTY
    held = enter(empty, "bob", None, now=after(TIMERS.empty - 1)).room
    assert rules.tick(held, after(TIMERS.empty), TIMERS).room is held


def test_a_lost_device_is_gone_after_the_grace_and_was_last_there_when_it_was_heard() -> None:
    there = with_people("ada", "bob")
    lost = rules.lose(there, user_id="bob", device_id="phone", process="p1", seen_at=after(2))
    assert kinds(lost) == []
    assert rules.deadline(lost.room, TIMERS) == after(2 + TIMERS.grace)
    assert rules.tick(lost.room, after(1 + TIMERS.grace), TIMERS).room is lost.room
    gone = rules.tick(lost.room, after(2 + TIMERS.grace), TIMERS)
    assert (gone.facts[0].data["reason"], gone.facts[0].data["at"]) == (Gone.LOST, after(2))


def test_a_session_is_over_when_the_last_lost_device_was_heard_last() -> None:
    lost = rules.lose(
        with_people("bob"), user_id="bob", device_id="phone", process="p1", seen_at=after(2)
    ).room
    gone = rules.tick(lost, after(60), TIMERS)
    assert gone.over is not None
    assert gone.over[1] == after(2)


def test_a_session_is_over_when_the_last_was_there_though_a_lost_device_is_missed_later() -> None:
    lost = rules.lose(
        with_people("ada", "bob"), user_id="bob", device_id="phone", process="p1", seen_at=after(2)
    ).room
    left = rules.leave(lost, user_id="ada", device_id="phone", now=after(9)).room
    over = rules.tick(left, after(2 + TIMERS.grace), TIMERS).over
    assert over is not None
    assert over[1] == after(9)


def test_a_device_that_is_back_in_time_was_never_gone() -> None:
    lost = rules.lose(with_people("bob"), user_id="bob", device_id="phone", process="p1", seen_at=START).room
    back = rules.back(lost, user_id="bob", device_id="phone", process="p2")
    assert (kinds(back), rules.deadline(back.room, TIMERS)) == ([], None)
    assert back.room.participants[0].seats == (Seat(device_id="phone", process="p2"),)
    # What the old process finds out late is not about this socket.
    late = rules.lose(back.room, user_id="bob", device_id="phone", process="p1", seen_at=after(1))
    assert late.room is back.room


def test_of_two_devices_only_the_lost_one_goes() -> None:
    both = enter(with_people("bob"), "bob", "tablet").room
    lost = rules.lose(both, user_id="bob", device_id="phone", process="p1", seen_at=START).room
    gone = rules.tick(lost, after(TIMERS.grace), TIMERS)
    assert (kinds(gone), [s.device_id for s in gone.room.participants[0].seats]) == ([], ["tablet"])
    assert gone.room.version == lost.version + 1


def test_who_pays_has_a_place_that_nobody_sees_until_it_is_paid() -> None:
    priced = room(price=Price(rate_per_minute_minor=100, currency="NGN"))
    held = enter(priced, "bob")
    (bob,) = held.room.participants
    assert (bob.pending, bob.stay_id, bob.seats, kinds(held)) == (True, "stay-bob", (), [])
    paid = enter(held.room, "bob", paid="stay-bob")
    assert (kinds(paid), paid.room.participants[0].pending) == (["joined"], False)
    assert enter(held.room, "bob", paid="another").room is held.room
    back = rules.withdraw(held.room, user_id="bob", stay_id="stay-bob", now=START)
    assert (back.room.participants, back.facts[0].data["stay_id"]) == ((), "stay-bob")
    assert rules.withdraw(paid.room, user_id="bob", stay_id="stay-bob", now=START).room is paid.room


def test_who_has_not_paid_yet_begins_no_session() -> None:
    pending = enter(room(price=Price(rate_per_minute_minor=60, currency="NGN")), "bob").room
    refused(
        "ROOM_NOT_JOINED",
        lambda: rules.begin_session(pending, user_id="bob", session_id="s", now=START),
    )


def test_the_owner_pays_nothing_in_their_own_room() -> None:
    priced = room(price=Price(rate_per_minute_minor=100, currency="NGN"))
    assert kinds(enter(priced, OWNER)) == ["joined"]


def test_a_block_keeps_two_guests_apart_from_both_sides() -> None:
    there = with_people("ada", "bob")
    both = enter(there, "eve", apart=frozenset({"bob"})).room
    assert [one.user_id for one in both.seen_by("eve")] == ["ada", "eve"]
    assert [one.user_id for one in both.seen_by("bob")] == ["ada", "bob"]
    to = rules.addressees(both, user_id="bob", device_id="phone", target_id=None)
    assert [one.user_id for one in to] == ["ada"]
    refused(
        "TARGET_UNKNOWN",
        lambda: rules.addressees(both, user_id="eve", device_id="phone", target_id="bob"),
    )


def test_of_who_comes_anew_it_has_been_asked_whom_a_block_parts_from_them() -> None:
    with pytest.raises(rules.NotAsked):
        enter(room(), "bob", apart=None)
    there = with_people("bob")
    assert enter(there, "bob", "tablet", apart=None).room is not there


def test_a_block_in_the_room_parts_guests_and_takes_out_who_is_at_odds_with_the_owner() -> None:
    there = with_people("ada", "bob", "eve")
    parted = rules.sever(there, "bob", "eve", now=START)
    assert (kinds(parted), len(parted.room.present)) == (["severed"], 3)
    assert rules.sever(parted.room, "eve", "bob", now=START).room is parted.room
    for one, other in (("ada", "bob"), ("bob", "ada")):
        out = rules.sever(there, one, other, now=START)
        assert [fact.data["user_id"] for fact in out.facts] == ["bob"]


def test_signals_are_between_members_with_a_device_in_the_room() -> None:
    there = with_people("ada", "bob", "eve")
    to = rules.addressees(there, user_id="ada", device_id="phone", target_id="eve")
    assert [one.user_id for one in to] == ["eve"]
    for user_id, device, target, code in (
        ("kim", "phone", None, "ROOM_NOT_JOINED"),
        ("ada", "tablet", None, "ROOM_NOT_JOINED"),
        ("ada", "phone", "kim", "TARGET_UNKNOWN"),
        ("ada", "phone", "ada", "TARGET_UNKNOWN"),
    ):
        refused(
            code,
            lambda u=user_id, d=device, t=target: rules.addressees(
                there, user_id=u, device_id=d, target_id=t
            ),
        )
    closed = rules.close(there, reason=Closed.OWNER, now=START).room
    refused("ROOM_CLOSED", lambda: rules.addressees(closed, user_id="ada", device_id="phone", target_id=None))


def test_a_session_is_ended_by_the_owner_or_by_who_alone_is_left() -> None:
    there = with_people("ada", "bob")
    refused("ROOM_NOT_OWNER", lambda: rules.end_session(there, user_id="bob", now=START))
    ended = rules.end_session(there, user_id=OWNER, now=after(5))
    assert (ended.room.session, len(ended.room.present)) == (None, 2)
    assert rules.end_session(ended.room, user_id="bob", now=START).room is ended.room
    alone = rules.leave(there, user_id="ada", device_id=None, now=START).room
    assert rules.end_session(alone, user_id="bob", now=after(6)).over is not None
    begun = rules.begin_session(ended.room, user_id="bob", session_id="next", now=after(7)).room
    assert begun.session is not None
    assert begun.session.id == "next"
    refused(
        "ROOM_NOT_JOINED",
        lambda: rules.begin_session(room(), user_id="bob", session_id="s", now=START),
    )


def test_a_board_does_not_go_back_to_what_was_before_the_last_one_left() -> None:
    board, there = Board(), with_people("bob")
    assert board.update(there) == {"bob"}
    assert board.in_room("bob")
    left = rules.leave(there, user_id="bob", device_id=None, now=START).room
    assert board.update(left) == {"bob"}
    assert board.update(there) == set()
    assert not board.in_room("bob")
    assert (len(board), board.rooms_of("bob")) == (0, [])


# ------------------------------------------------------------------------------------------------------ random walks


def invariants(before: Room, step: Step) -> None:
    now = step.room
    assert len(now.participants) <= now.capacity
    assert len({one.user_id for one in now.participants}) == len(now.participants)
    assert (now.emptied_at is None) == (bool(now.participants) or not now.open)
    assert now.open or not now.participants
    assert not (set(now.invited_ids) & set(now.kicked_ids))
    assert not any(one.user_id in now.kicked_ids for one in now.participants)
    if now is before:
        assert (step.facts, step.over) == ((), None)
        return
    assert now.version == before.version + 1
    assert all(fact.version == now.version for fact in step.facts)
    assert not now.present or now.open
    if not now.present:
        assert now.session is None
    if before.session is not None and now.session is None:
        assert step.over is not None
        assert step.over[0] == before.session
        assert step.over[1] >= before.session.started_at
    was, is_ = {one.user_id for one in before.present}, {one.user_id for one in now.present}
    said = {(f.kind, f.data["user_id"]) for f in step.facts if f.kind in ("joined", "left")}
    seen = {
        (kind, user_id)
        for kind, user_id in said
        if kind == "joined"
        or next(f for f in step.facts if f.data.get("user_id") == user_id).data["was_here"]
    }
    assert seen == {("joined", u) for u in is_ - was} | {("left", u) for u in was - is_}
    stays = {one.stay_id for one in before.participants if one.stay_id}
    ended = {f.data["stay_id"] for f in step.facts if f.kind == "left" and f.data["stay_id"]}
    assert stays - {one.stay_id for one in now.participants if one.stay_id} == ended, "none runs on"
    by_id = {one.user_id: one for one in now.participants}
    assert all(
        one.user_id in by_id[other].apart for one in now.participants for other in one.apart if other in by_id
    )


who, where = st.sampled_from(PEOPLE), st.sampled_from(["phone", "tablet"])
MOVES = st.one_of(
    st.tuples(st.just("join"), who, st.one_of(st.none(), where), st.sampled_from(["p1", "p2"])),
    st.tuples(st.just("pay"), who, where),
    st.tuples(st.just("withdraw"), who),
    st.tuples(st.just("leave"), who, st.one_of(st.none(), where)),
    st.tuples(st.just("lose"), who, where, st.sampled_from(["p1", "p2"])),
    st.tuples(st.just("back"), who, where, st.sampled_from(["p1", "p2"])),
    st.tuples(st.just("wait"), st.sampled_from([1, 14, 16, 61, 90_000])),
    st.tuples(st.just("invite"), who, who),
    st.tuples(st.just("kick"), who, who),
    st.tuples(st.just("remove"), who),
    st.tuples(st.just("sever"), who, who),
    st.tuples(st.just("close")),
)


def move(before: Room, what: tuple[Any, ...], now: datetime, number: int) -> Step:
    match what:
        case ("join", user_id, device, process):
            ids = {"stay_id": f"stay-{number}", "session_id": f"session-{number}"}
            return rules.enter(before, entrant(user_id, device, process=process, **ids), now, TIMERS)
        case ("pay", user_id, device):
            one = before.participant(user_id)
            paid = one.stay_id if one else None
            return rules.enter(before, entrant(user_id, device, paid=paid), now, TIMERS)
        case ("withdraw", user_id):
            one = before.participant(user_id)
            return rules.withdraw(before, user_id=user_id, stay_id=(one and one.stay_id) or "", now=now)
        case ("leave", user_id, device):
            return rules.leave(before, user_id=user_id, device_id=device, now=now)
        case ("lose", user_id, device, process):
            return rules.lose(before, user_id=user_id, device_id=device, process=process, seen_at=now)
        case ("back", user_id, device, process):
            return rules.back(before, user_id=user_id, device_id=device, process=process)
        case ("invite", by, user_id):
            return rules.invite(before, by=by, user_ids=[user_id])
        case ("kick", by, user_id):
            return rules.kick(before, by=by, user_id=user_id, now=now)
        case ("remove", user_id):
            return rules.remove(before, user_id=user_id, reason=Gone.POLICY, now=now)
        case ("sever", one_id, other_id):
            return rules.sever(before, one_id, other_id, now=now) if one_id != other_id else Step(before)
        case _:
            return rules.close(before, reason=Closed.OWNER, now=now)


@settings(max_examples=400, deadline=None)
@given(st.lists(MOVES, max_size=40), st.booleans(), st.booleans())
def test_whatever_happens_places_sessions_facts_and_stays_agree(
    walk: list[tuple[Any, ...]], priced: bool, invite: bool
) -> None:
    there = room(
        price=Price(rate_per_minute_minor=100, currency="NGN") if priced else None,
        access=Access.INVITE if invite else Access.OPEN,
    )
    now, board = START, Board()
    for number, what in enumerate(walk):
        if what[0] == "wait":
            now += timedelta(seconds=what[1])
        step = rules.tick(there, now, TIMERS)
        invariants(there, step)
        there = step.room
        due = rules.deadline(there, TIMERS)
        assert due is None or due > now, "what is due has been done"
        if what[0] != "wait":
            try:
                step = move(there, what, now, number)
            except Refusal:
                continue
            invariants(there, step)
            there = step.room
        board.update(there)
        assert {u for u in PEOPLE if board.in_room(u)} == {one.user_id for one in there.present}


def test_a_participant_without_a_seat_is_not_here() -> None:
    assert not Participant(user_id="bob", joined_at=START).here
