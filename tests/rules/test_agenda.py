"""The order in which things come due, and the pace at which very many renewals are taken up."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from models.agenda import STALE_MAX, Agenda
from models.calls.renewals import CROWD_PER_SECOND, pace
from tests.fakes import VirtualClock

START = VirtualClock().now()
SECOND = timedelta(seconds=1)


def at(seconds: float) -> datetime:
    return START + timedelta(milliseconds=round(seconds * 1000))


KEYS = st.sampled_from("abcdefgh")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 20)),
        st.tuples(st.just("drop"), KEYS, st.just(0)),
        st.tuples(st.just("take"), st.just(""), st.integers(0, 20)),
    ),
    max_size=200,
)


@given(STEPS)
def test_an_agenda_is_as_a_table_that_is_sorted_whenever_it_is_asked(
    steps: list[tuple[str, str, int]],
) -> None:
    agenda, table = Agenda(), dict[str, datetime]()
    for what, key, seconds in steps:
        if what == "set":
            agenda.set(key, at(seconds))
            if table.get(key) != at(seconds):
                table.pop(key, None)  # the newest stands last
                table[key] = at(seconds)
        elif what == "drop":
            agenda.drop(key)
            table.pop(key, None)
        else:
            first = min(((when, one) for one, when in table.items()), key=lambda one: one[0], default=None)
            assert agenda.first() == first
            taken = agenda.take(at(seconds))
            assert taken == (first[1] if first is not None and first[0] <= at(seconds) else None)
            table.pop(taken or "", None)
        assert len(agenda) == len(table)
        assert sorted(agenda.until(at(10), 100)) == sorted(when for when in table.values() if when <= at(10))
    assert all(key in agenda for key in table)


@given(STEPS)
def test_whoever_waits_for_the_first_is_told_of_whatever_comes_before_it(
    steps: list[tuple[str, str, int]],
) -> None:
    """They wait until the instant that was first when they looked, and look again when they are told or it has come."""
    agenda, told = Agenda(), list[bool]()
    agenda.sooner = lambda: told.append(True)
    waits_for = agenda.to_be_seen()
    for what, key, seconds in steps:
        told.clear()
        if what == "set":
            agenda.set(key, at(seconds))
        elif what == "drop":
            agenda.drop(key)
        else:
            agenda.take(at(seconds))
            told.append(True)  # whoever takes has looked
        if told:
            waits_for = agenda.to_be_seen()
        first = agenda.to_be_seen()
        assert first is None or (waits_for is not None and waits_for <= first)


def test_nobody_is_told_of_what_comes_later_than_the_first_or_stays_where_it_is() -> None:
    agenda, told = Agenda(), list[str]()
    agenda.sooner = lambda: told.append("sooner")
    agenda.set("a", at(10))
    assert told == ["sooner"]
    agenda.set("b", at(11))
    agenda.set("a", at(10))
    agenda.drop("b")
    agenda.set("a", at(12))
    assert told == ["sooner"]
    agenda.set("c", at(9))
    assert told == ["sooner", "sooner"]


def test_an_entry_is_to_be_seen_as_long_before_its_time_as_the_agenda_is_looked_ahead() -> None:
    agenda = Agenda()
    assert agenda.to_be_seen() is None
    agenda.set("a", at(60))
    assert agenda.to_be_seen() == at(60)
    agenda.looked_ahead = 10 * SECOND
    assert agenda.to_be_seen() == at(50)
    agenda.drop("a")
    assert agenda.to_be_seen() is None


def test_what_is_moved_all_the_time_takes_no_more_room_than_what_stands_still() -> None:
    agenda = Agenda()
    for turn in range(10_000):
        agenda.set(f"{turn % 3}", at(turn))
    assert len(agenda._heap) <= 2 * 3 + STALE_MAX + 1
    assert [agenda.take(at(20_000)) for _ in range(4)] == ["1", "2", "0", None]


def test_it_costs_what_is_found_however_much_waits() -> None:
    agenda = Agenda()
    for number in range(5_000):
        agenda.set(str(number), at(number))
    assert sorted(agenda.until(at(2), 10_000)) == [at(0), at(1), at(2)]
    assert len(agenda.until(at(4_000), 7)) == 7


def test_a_crowd_is_taken_up_at_an_even_pace_and_a_few_are_not() -> None:
    assert pace([at(10)] * 2_000, START, SECOND) == 200
    assert pace([at(10)] * 2_000, START, SECOND / 10) == 20
    assert pace([at(10)] * 2_000, START, 60 * SECOND) == 200, "after a long time no more than a second's"
    assert pace([at(10)] * (10 * CROWD_PER_SECOND - 1), START, SECOND) == 0
    assert pace([], START, SECOND) == 0
    evenly = [at(number / (CROWD_PER_SECOND - 10)) for number in range(400)]
    assert pace(evenly, START, SECOND) == 0, "they come evenly as they are"


@given(st.lists(st.integers(0, 9_999), min_size=1, max_size=1_000))
def test_at_that_pace_none_is_late(due_ms: list[int]) -> None:
    """However they lie: what the pace does from now on is ahead of what is due, where it is a crowd at all."""
    due = sorted(due_ms)
    rate = pace([at(ms / 1000) for ms in due], START, SECOND)
    if not rate:
        return
    for count, ms in enumerate(due, 1):
        assert count <= rate * max(1.0, ms / 1000) + 1e-6
