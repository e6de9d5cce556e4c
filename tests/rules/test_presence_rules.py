"""Presence as pure rules: devices fold into one state, and only what lasts is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.presence.rules import BETWEEN, FOREGROUND_AFTER, OFFLINE_AFTER, Line, Seen, fold, look, settle

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BEFORE = NOON - timedelta(hours=1)
STATES = ("online", "away", "in_call", "offline")


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Watcher:
    """Somebody who is looked at as it happens, by a job that comes round every tenth of a second."""

    def __init__(self, state: str) -> None:
        self.line = Line(told=Seen(state))  # type: ignore[arg-type]
        self.told: list[tuple[float, str]] = []
        self._state = state
        self._tenths = 0

    def until(self, seconds: float, state: str | None = None) -> Watcher:
        """Time passes until ``seconds``, then ``state`` is so."""
        while True:
            now = after(self._tenths / 10)
            if self._tenths == round(seconds * 10) and state is not None:
                self._state = state
            before, self.line = self.line, settle(look(self.line, Seen(self._state), now), now)  # type: ignore[arg-type]
            if self.line.told != before.told:
                self.told.append((self._tenths / 10, self.line.told.state))
            if self._tenths >= round(seconds * 10):
                return self
            self._tenths += 1


# ------------------------------------------------------------------------------------------------------- one state


@pytest.mark.parametrize(
    ("devices", "busy", "state"),
    [
        ([], False, "offline"),
        ([], True, "in_call"),
        (["away"], False, "away"),
        (["away", "away"], False, "away"),
        (["online"], False, "online"),
        (["away", "online"], False, "online"),
        (["away"], True, "in_call"),
        (["online", "away"], True, "in_call"),
    ],
)
def test_a_call_counts_before_a_foreground_before_a_background_before_nothing(
    devices: list[Any], busy: bool, state: str
) -> None:
    assert fold(devices, busy=busy).state == state


def test_when_somebody_was_last_seen_is_told_only_of_those_who_are_not_there() -> None:
    for devices, busy in product(([], ["away"], ["online"]), (True, False)):
        seen = fold(devices, busy=busy, last_seen_at=BEFORE)  # type: ignore[arg-type]
        assert seen.last_seen_at == (BEFORE if seen.state == "offline" else None)


# ------------------------------------------------------------------------------------------------------ the debounce


@pytest.mark.parametrize("before", STATES)
def test_what_has_not_changed_is_never_told(before: str) -> None:
    assert Watcher(before).until(60).told == []


def test_a_connection_that_comes_back_in_time_was_never_gone() -> None:
    watcher = Watcher("online").until(1, "offline").until(3.9, "online").until(60)
    assert watcher.told == []


def test_a_connection_that_flaps_for_a_minute_is_told_of_only_when_it_stays_away() -> None:
    watcher = Watcher("online")
    for second in range(60):
        watcher.until(second, "offline" if second % 2 else "online")
    assert watcher.told == []
    assert watcher.until(70).told == [(62.0, "offline")]


def test_who_is_gone_is_told_after_three_seconds() -> None:
    assert Watcher("online").until(1, "offline").until(10).told == [(4.0, "offline")]


@pytest.mark.parametrize("before", ["online", "away", "offline"])
def test_a_call_is_told_at_once(before: str) -> None:
    assert Watcher(before).until(1, "in_call").until(10).told == [(1.0, "in_call")]


def test_who_comes_is_told_at_once_and_then_nothing_more_for_a_second() -> None:
    watcher = Watcher("offline").until(1, "online").until(1.2, "away").until(10)
    assert watcher.told == [(1.0, "online"), (2.2, "away")]


def test_a_call_that_is_over_in_a_moment_is_told_with_its_end_a_second_later() -> None:
    assert Watcher("online").until(1, "in_call").until(1.3, "online").until(10).told == [
        (1.0, "in_call"),
        (2.0, "online"),
    ]


def test_a_look_at_another_app_is_not_told_and_leaving_it_open_is() -> None:
    watcher = Watcher("online").until(1, "away").until(1.5, "online").until(10)
    assert watcher.told == []
    assert watcher.until(11, "away").until(20).told == [(12.0, "away")]


def test_of_several_changes_in_the_window_only_the_last_is_told() -> None:
    watcher = Watcher("online").until(1, "away").until(1.5, "offline").until(2, "in_call").until(10)
    assert watcher.told == [(2.0, "in_call")]
    watcher = Watcher("online").until(1, "offline").until(2, "away").until(2.5, "offline").until(10)
    assert watcher.told == [(5.5, "offline")]


def test_a_later_last_seen_joins_what_is_waiting_and_does_not_put_it_off() -> None:
    line = look(Line(told=Seen("online")), Seen("offline", after(0)), after(0))
    line = look(line, Seen("offline", after(2)), after(2))
    assert line.due_at == after(0) + OFFLINE_AFTER
    assert settle(line, after(3)).told == Seen("offline", after(2))


def test_nothing_is_told_before_it_is_due() -> None:
    line = look(Line(told=Seen("online")), Seen("offline"), NOON)
    assert settle(line, NOON + OFFLINE_AFTER - timedelta(milliseconds=1)) == line
    assert settle(line, NOON + OFFLINE_AFTER).told == Seen("offline")


@given(
    st.sampled_from(STATES),
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(STATES)), max_size=30),
)
def test_whatever_happens_the_last_thing_told_is_what_holds_and_no_two_are_alike(
    first: str, steps: list[tuple[int, str]]
) -> None:
    watcher, at, state = Watcher(first), 0.0, first
    for tenths, state in steps:
        at += tenths / 10
        watcher.until(at, state)
    watcher.until(at + max(OFFLINE_AFTER, FOREGROUND_AFTER, BETWEEN).total_seconds() + 0.1)
    told = [first, *(state for _, state in watcher.told)]
    assert told[-1] == state
    assert all(one != other for one, other in pairwise(told))
    for (one, _), (other, what) in pairwise(watcher.told):
        assert what == "in_call" or other - one >= BETWEEN.total_seconds() - 1e-9
