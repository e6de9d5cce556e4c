"""How long a job rests, and what wakes it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import pytest

from handlers.registry import Job
from models.agenda import Agenda
from server import rests, strikes
from server.clock import Tasks
from server.rests import REST_SECONDS_MAX, AgendaRest, TurnsRest, rest_of
from server.turns import OTHERS_TURN, Turns
from server.wiring import catalogue
from tests.fakes import VirtualClock


async def nothing(services: object) -> None:
    """Nothing."""


def job(*, every: float = 0.5, anywhere: bool = True) -> Job:
    return Job(name="pushes", every_seconds=every, handler=nothing, doc="", anywhere=anywhere)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_a_job_rests_until_there_is_something_to_be_seen_and_two_seconds_at_most(clock: VirtualClock) -> None:
    agenda = Agenda()
    rest = AgendaRest(agenda, clock)
    assert rest.seconds(0.1) == REST_SECONDS_MAX
    assert rest.seconds(5.0) == 5.0, "never less than it would"
    for ahead, seconds in ((60, REST_SECONDS_MAX), (0.7, 0.7), (0.05, 0.1), (0, 0.1), (-3, 0.1)):
        agenda.set("call", clock.now() + timedelta(seconds=ahead))
        assert rest.seconds(0.1) == pytest.approx(seconds)
    agenda.looked_ahead = timedelta(seconds=10)
    agenda.set("call", clock.now() + timedelta(seconds=10.7))
    assert rest.seconds(0.1) == pytest.approx(0.7)


async def test_a_job_whose_agenda_was_empty_is_at_work_as_soon_as_something_comes_upon_it(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rests, "REST_SECONDS_MAX", 3600.0)
    monkeypatch.setattr(strikes, "STRIKE_SECONDS", 0.005)
    tasks, agenda, turned = Tasks(), Agenda(), asyncio.Event()
    done = list[str]()

    async def turn() -> None:
        turned.set()
        while (due := agenda.take(clock.now())) is not None:
            done.append(due)

    running = asyncio.create_task(tasks.every(0.005, turn, "ticks", rest=AgendaRest(agenda, clock)))
    async with asyncio.timeout(5):
        await turned.wait()
        for call in ("one", "another"):
            await asyncio.sleep(0)  # it rests
            turned.clear()
            agenda.set(call, clock.now())
            await turned.wait()
    await tasks.end([running], 1.0)
    assert done == ["one", "another"]


def test_what_any_process_does_rests_while_it_is_others_turn_and_wakes_when_somebody_goes(
    clock: VirtualClock,
) -> None:
    living = ["p0", "p1"]
    several = [Turns(process, works=True, workers=lambda: living, clock=clock) for process in living]
    (first,) = (turns for turns in several if turns.first("pushes"))
    (other,) = (turns for turns in several if turns is not first)
    assert TurnsRest(job(), first).seconds(0.5) == 0.5
    rest = TurnsRest(job(), other)
    assert 0.5 <= rest.seconds(0.5) <= 0.5 * OTHERS_TURN
    assert rest.seconds(0.5) == 0.5 * other.until_mine(job())
    loop = asyncio.new_event_loop()
    rest.bell.sleeper = sleeper = loop.create_future()
    living[:] = [process for process, turns in zip(living, several, strict=True) if turns is other]
    other.mine(job(anywhere=False))
    assert not sleeper.result()
    assert rest.seconds(0.5) == 0.5, "there is nobody else to do it"
    loop.close()


def test_of_the_server_s_jobs_those_about_calls_that_run_rest_by_their_agendas(clock: VirtualClock) -> None:
    board, billing = SimpleNamespace(renewals=Agenda()), SimpleNamespace(agenda=Agenda())
    calls = SimpleNamespace(board=board, unwritten=Agenda())
    services = SimpleNamespace(calls=calls, billing=billing)
    turns = Turns("p0", works=True, workers=list, clock=clock)
    kinds = {
        name: type(rest_of(one, services, turns, clock)).__name__ for name, one in catalogue.jobs.items()
    }
    assert {name for name, kind in kinds.items() if kind == "AgendaRest"} == {"renewals", "ticks", "told"}
    anywhere = {name for name, one in catalogue.jobs.items() if one.anywhere}
    assert {name for name, kind in kinds.items() if kind == "TurnsRest"} == anywhere
    for agenda in (board.renewals, billing.agenda, calls.unwritten):
        assert agenda.sooner is not None, "each of them wakes its job"
