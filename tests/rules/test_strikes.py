"""When the next turn of a job is: with those of the other jobs of the process, on time, and after what is urgent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import strikes
from server.clock import Tasks
from server.strikes import STRIKE_SECONDS, until_next

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
