"""When the next turn of a job is: with those of the other jobs of the process, on time, and after what is urgent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import strikes
from server.clock import Tasks
from server.strikes import HALF_SECONDS, STRIKE_SECONDS, Bell, Strikes, until_next

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


@given(
    now=_NOWS,
    phase=_PHASES,
    seed=st.integers(0, 2**32 - 1),
    name=st.text(max_size=20),
    seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0, 30.0, 60.0, 3600.0]),
    part=st.floats(0, 1),
)
def test_jobs_of_half_a_second_and_more_have_each_a_place_at_the_half_seconds(
    now: float, phase: float, seed: int, name: str, seconds: float, part: float
) -> None:
    beat = Strikes(phase, seed).beat_of(name, seconds)
    assert beat is not None
    wait = until_next(now, seconds / 2, phase + beat.after, beat.every)
    assert STRIKE_SECONDS / 2 - 1e-6 <= wait <= seconds + STRIKE_SECONDS / 2 + 1e-6, "in its first period"
    place = now + wait
    assert (place - phase) / HALF_SECONDS == pytest.approx(round((place - phase) / HALF_SECONDS), abs=1e-3)
    took = 0.001 + part * (seconds - STRIKE_SECONDS / 2 - 0.002)
    again = took + until_next(place + took, seconds / 2, phase + beat.after, beat.every)
    assert again == pytest.approx(seconds, abs=1e-4), "however long the turn takes, if it is over in time"


def test_jobs_of_the_same_period_are_spread_over_it_and_otherwise_in_another_process() -> None:
    def places(seed: int) -> list[float]:
        beats = [Strikes(0.0, seed).beat_of(f"job {number}", 2.0) for number in range(40)]
        return [beat.after for beat in beats if beat is not None]

    assert set(places(1)) == {0.0, 0.5, 1.0, 1.5}
    assert places(1) == places(1)
    assert places(1) != places(2)
    assert Tasks()._strikes._seed != Tasks()._strikes._seed


def test_jobs_that_are_due_more_often_or_at_odd_times_have_any_strike() -> None:
    assert [Strikes(0.0).beat_of("job", seconds) for seconds in (0.1, 0.25, 0.4, 0.6)] == [None] * 4


def test_jobs_of_one_process_meet_and_those_of_another_come_between() -> None:
    ends = {
        round(now + until_next(now, seconds, 0.03), 6)
        for now, seconds in [(7.0, 0.1), (6.61, 0.5), (5.1, 2.0)]
    }
    assert ends == {7.13}
    assert round(7.0 + until_next(7.0, 0.1, 0.08), 6) == 7.08


def test_work_that_takes_a_while_does_not_put_its_next_turn_off_by_a_whole_strike() -> None:
    assert until_next(10.004, 0.1, 0.0) == pytest.approx(0.096)


class Turns:
    """Jobs of one process that keep book of their turns."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.book: list[str] = []
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self._turned: dict[str, asyncio.Event] = {}
        self._jobs: list[asyncio.Task[None]] = []

    def job(self, name: str, *, first: bool = False) -> None:
        """A job whose turns end at once, or only when it may go on, if it is ``first``."""

        async def turn() -> None:
            self.book.append(name)
            self._turned.setdefault(name, asyncio.Event()).set()
            if first:
                self.begun.set()
                await self.go_on.wait()
                self.book.append(f"{name} done")

        self._jobs.append(
            asyncio.create_task(self.tasks.every(strikes.STRIKE_SECONDS, turn, name, first=first))
        )

    async def until(self, name: str) -> None:
        """Wait for the next turn of a job."""
        self._turned[name] = asyncio.Event()
        async with asyncio.timeout(5):
            await self._turned[name].wait()

    async def end(self) -> None:
        self.go_on.set()
        await self.tasks.end(self._jobs, 1.0)


async def some_time() -> None:
    """Enough for whatever could go on by now."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def turns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Turns]:
    monkeypatch.setattr(strikes, "STRIKE_SECONDS", 0.005)
    monkeypatch.setattr(strikes, "PATIENCE_SECONDS", 60.0)
    some = Turns()
    yield some
    await some.end()


async def test_at_a_strike_the_urgent_job_has_its_turn_before_any_other_begins_its_own() -> None:
    tasks, book, all_done = Tasks(), list[str](), asyncio.Event()
    # So that all find the same strike: none of them is near the middle between two.
    tasks._strikes._phase = asyncio.get_running_loop().time() % STRIKE_SECONDS

    def job(name: str, *, first: bool = False) -> asyncio.Task[None]:
        turns = itertools.count()

        async def turn() -> None:
            if next(turns) != 1:
                return  # it begins with a turn at once, which is not at a strike
            book.append(name)
            await some_time()
            book.append(f"{name} done")
            if len(book) == 6:
                all_done.set()

        return asyncio.create_task(tasks.every(STRIKE_SECONDS, turn, name, first=first))

    jobs = [job(name, first=name == "renewals") for name in ("ticks", "renewals", "deadlines")]
    async with asyncio.timeout(5):
        await all_done.wait()
    await tasks.end(jobs, 1.0)
    assert book == ["renewals", "renewals done", "ticks", "deadlines", "ticks done", "deadlines done"]


async def test_others_wait_for_the_urgent_turn_s_end(turns: Turns) -> None:
    turns.job("renewals", first=True)
    await turns.begun.wait()
    turns.job("ticks")
    await turns.until("ticks")  # what has only been started has its first turn at once
    strike = strikes.Strikes(0.0)
    for _ in range(3):  # of another clock, which strikes as often
        await strike.next(0.005)
    assert turns.book == ["renewals", "ticks"]
    turns.go_on.set()
    await turns.until("ticks")
    assert turns.book[:4] == ["renewals", "ticks", "renewals done", "ticks"]


async def test_others_lose_their_patience_with_an_urgent_turn_that_takes_long(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strikes, "PATIENCE_SECONDS", 0.03)
    loop = asyncio.get_running_loop()
    started = loop.time()
    turns.job("renewals", first=True)
    await turns.begun.wait()
    turns.job("ticks")
    await turns.until("ticks")  # at once, as the first one is
    await turns.until("ticks")
    assert loop.time() - started > 0.025, "it was held for six strikes"
    await turns.until("ticks")
    assert turns.book.count("renewals done") == 0


async def test_work_in_slices_lets_the_urgent_turn_pass_between_two_of_them(turns: Turns) -> None:
    await turns.tasks.give_way()  # nobody is there
    turns.job("renewals", first=True)
    await turns.begun.wait()
    slices = asyncio.create_task(turns.tasks.give_way())
    await some_time()
    assert not slices.done()
    turns.go_on.set()
    async with asyncio.timeout(5):
        await slices


async def test_an_urgent_job_that_is_stopped_before_its_turn_keeps_nobody_waiting(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = strikes.Strikes(0.0)

    def both() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(clock.next(0.005, first=first)) for first in (True, False)]

    stopped, other = both()
    await asyncio.sleep(0)
    stopped.cancel()
    async with asyncio.timeout(5):
        await other
    monkeypatch.setattr(strikes, "PATIENCE_SECONDS", 0.001)
    stopped, other = both()
    async with asyncio.timeout(5):
        await stopped  # it is woken, and never begins the turn for which the others wait
        await other
    monkeypatch.setattr(strikes, "PATIENCE_SECONDS", 60.0)
    urgent, other = both()
    async with asyncio.timeout(5):
        await urgent
        with clock.going_first():
            await some_time()
        await other  # which waits for this turn, and not for the one that never was


async def test_others_wait_for_all_that_are_urgent_at_a_strike(turns: Turns) -> None:
    clock, book = strikes.Strikes(0.0), list[str]()
    # So that all find the same strike: none of them is near the middle between two.
    clock._phase = asyncio.get_running_loop().time() % strikes.STRIKE_SECONDS

    async def urgent(name: str) -> None:
        await clock.next(0.005, first=True)
        with clock.going_first():
            book.append(name)
            if name == "cut-offs":
                await some_time()
                book.append("cut-offs done")

    async def other() -> None:
        await clock.next(0.005)
        book.append("other")

    async with asyncio.timeout(5):
        await asyncio.gather(other(), urgent("renewals"), urgent("cut-offs"))
    assert book == ["renewals", "cut-offs", "cut-offs done", "other"]


async def test_a_job_that_is_held_ends_with_its_process(turns: Turns) -> None:
    turns.job("renewals", first=True)
    await turns.begun.wait()
    held = asyncio.create_task(turns.tasks.every(0.005, some_time, "ticks"))
    strike = strikes.Strikes(0.0)
    for _ in range(3):
        await strike.next(0.005)
    async with asyncio.timeout(5):
        await turns.tasks.end([held], 60.0)
    assert held.done()


class Resting:
    """``server.clock.Rest`` of an hour more."""

    def __init__(self) -> None:
        self.bell = Bell()

    def seconds(self, every: float) -> float:
        return every + 3600.0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a job means to wait for its next turn, each time; it comes at the next strike."""
    seen, sleeps = list[float](), Strikes.next

    async def next(self: Strikes, seconds: float, **more: Any) -> None:
        seen.append(seconds)
        await sleeps(self, 0.0)

    monkeypatch.setattr(Strikes, "next", next)
    return seen


@pytest.mark.parametrize("every", [0.1, 0.25, 3600.0])
async def test_who_rests_is_back_at_the_next_strike_when_the_bell_rings(
    waits: list[float], every: float
) -> None:
    tasks, rest, turned = Tasks(), Resting(), asyncio.Event()

    async def turn() -> None:
        turned.set()

    job = asyncio.create_task(tasks.every(every, turn, "job", rest=rest))
    for number in range(3):
        async with asyncio.timeout(5):
            await turned.wait()
        turned.clear()
        await some_time()
        assert len(waits) == number, "it rests by the bell alone"
        sleeper = rest.bell.sleeper
        rest.bell.ring()
        rest.bell.ring()  # whoever is awake already hears nothing
        assert sleeper is not None
        assert not sleeper.result()
    async with asyncio.timeout(5):
        await turned.wait()
    await tasks.end([job], 1.0)
    rest.bell.ring()
    assert job.done()
    # No more often than it would without a bell, and not in its own time if that is long.
    assert all(0 <= wait <= min(every, HALF_SECONDS) for wait in waits)
    assert max(waits) > min(every, HALF_SECONDS) - 0.1


async def test_what_goes_wrong_about_a_rest_keeps_no_job_from_its_turns(waits: list[float]) -> None:
    class Broken(Resting):
        def seconds(self, every: float) -> float:
            raise LookupError("nobody")

    tasks, rest, done = Tasks(), Broken(), asyncio.Event()
    turns = itertools.count(1)

    async def turn() -> None:
        if next(turns) == 3:
            done.set()

    job = asyncio.create_task(tasks.every(0.1, turn, "job", rest=rest))
    async with asyncio.timeout(5):
        await done.wait()
    await tasks.end([job], 1.0)
    assert waits[:2] == [0.1, 0.1]


async def test_a_bell_that_rings_while_a_strike_holds_others_wakes_who_sleeps_by_it(turns: Turns) -> None:
    turns.job("renewals", first=True)
    await turns.begun.wait()
    bell, clock = Bell(), turns.tasks._strikes
    sleeper = asyncio.create_task(clock.rest(0.005, bell=bell))
    beside = Strikes(0.0)
    async with asyncio.timeout(5):
        while not clock._held:
            await beside.next(0.005)
    assert not sleeper.done()
    bell.ring()
    async with asyncio.timeout(5):
        assert not await sleeper
    turns.go_on.set()
    await turns.until("renewals")  # it goes on as if nobody had been held


async def test_a_job_with_a_place_in_its_period_waits_for_the_next_one(waits: list[float]) -> None:
    tasks, done = Tasks(), asyncio.Event()
    turns = itertools.count(1)

    async def turn() -> None:
        if next(turns) == 4:
            done.set()

    job = asyncio.create_task(tasks.every(30.0, turn, "pushes"))
    async with asyncio.timeout(5):
        await done.wait()
    await tasks.end([job], 1.0)
    # The place that is next to half a period from now is the next one, whatever time it is in the period.
    assert waits[:3] == [15.0, 15.0, 15.0]


async def test_who_rests_for_half_a_second_and_more_wakes_up_with_others_and_not_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = list[tuple[float, float]]()

    def spied(now: float, seconds: float, phase: float, every: float) -> float:
        ends.append((now, wait := until_next(now, seconds, phase, every)))
        return wait

    monkeypatch.setattr(strikes, "until_next", spied)
    clock, bell = Strikes(0.07), Bell()
    for tenths in range(5, 60):
        sleeper = asyncio.create_task(clock.rest(tenths / 10, bell=bell))
        await asyncio.sleep(0)
        bell.ring()
        assert not await sleeper
        now, wait = ends.pop()
        halves = (now + wait - 0.07) / HALF_SECONDS
        assert halves == pytest.approx(round(halves), abs=1e-3)
        assert tenths / 10 - HALF_SECONDS - 1e-6 <= wait
        assert wait <= max(tenths / 10, HALF_SECONDS + STRIKE_SECONDS / 2) + 1e-6
