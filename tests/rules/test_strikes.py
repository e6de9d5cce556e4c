"""When the next turn of a job is: with those of the other jobs of the process, and on time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.clock import STRIKE_SECONDS, until_next

_NOWS = st.floats(0, 1e6)
_PHASES = st.floats(0, STRIKE_SECONDS, exclude_max=True)


@given(now=_NOWS, phase=_PHASES, seconds=st.sampled_from([0.1, 0.25, 0.4, 0.5, 1.0, 2.0, 60.0]))
def test_a_turn_is_at_a_strike_within_half_a_strike_of_its_time(
    now: float, phase: float, seconds: float
) -> None:
    wait = until_next(now, seconds, phase)
    strikes = (now + wait - phase) / STRIKE_SECONDS
    assert strikes == pytest.approx(round(strikes), abs=1e-3)
    assert wait == pytest.approx(seconds, abs=STRIKE_SECONDS / 2 + 1e-6)
    assert wait >= STRIKE_SECONDS / 2 - 1e-6


def test_jobs_of_one_process_meet_and_those_of_another_come_between() -> None:
    ends = {
        round(now + until_next(now, seconds, 0.03), 6)
        for now, seconds in [(7.0, 0.1), (6.61, 0.5), (5.1, 2.0)]
    }
    assert ends == {7.13}
    assert round(7.0 + until_next(7.0, 0.1, 0.08), 6) == 7.08


def test_work_that_takes_a_while_does_not_put_its_next_turn_off_by_a_whole_strike() -> None:
    assert until_next(10.004, 0.1, 0.0) == pytest.approx(0.096)
