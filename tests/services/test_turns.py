"""Who does the jobs that are anybody's."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.registry import Job
from server.turns import OTHERS_TURN, Turns
from tests.fakes import VirtualClock


async def nothing(services: object) -> None:
    """Nothing."""


def job(name: str, *, anywhere: bool = True) -> Job:
    return Job(name=name, every_seconds=1, handler=nothing, doc="", anywhere=anywhere)


class EachTime:
    """A clock on which each turn is a second after the one before it."""

    def __init__(self) -> None:
        self.at = datetime.fromtimestamp(840_000_000, UTC)  # where rounds of 4, 12 and 28 turns begin

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


def turns(process: str, living: list[str], *, works: bool = True) -> Turns:
    return Turns(process, works=works, workers=lambda: living, clock=EachTime())


def test_each_job_has_one_process_that_does_it_each_time_and_the_others_look_now_and_then() -> None:
    living = [f"p{number}" for number in range(4)]
    owners = []
    for number in range(40):
        taken = {}
        for process in living:
            mine = turns(process, living)
            taken[process] = sum(mine.mine(job(f"job {number}")) for _ in range(2 * OTHERS_TURN))
        assert sorted(taken.values()) == [2, 2, 2, 2 * OTHERS_TURN]
        owners.append(max(taken, key=lambda process: taken[process]))
    assert set(owners) == set(living), "they are spread"


def test_many_processes_look_after_the_jobs_of_others_no_more_often_than_few() -> None:
    living = [f"p{number}" for number in range(16)]
    turns_of_all = [turns(process, living) for process in living]
    taken = sum(mine.mine(job("pushes")) for _ in range(168) for mine in turns_of_all)
    assert taken == 168 + 15 * 168 / 28, "little more than one in two turns"


def test_when_a_process_goes_only_its_jobs_move() -> None:
    living = [f"p{number}" for number in range(4)]

    def owner(name: str, there: list[str]) -> str:
        (found,) = [process for process in there if turns(process, there).mine(job(name))]
        return found

    for number in range(40):
        before, after = owner(f"job {number}", living), owner(f"job {number}", living[:3])
        assert after == before or before == "p3"


def test_who_comes_and_who_goes_is_noticed_at_the_next_turn() -> None:
    living, names = ["p0", "p1"], [f"job {number}" for number in range(20)]
    mine = turns("p0", living)

    def first_of() -> set[str]:
        return {name for name in names if mine.first(name)}

    both = first_of()
    assert both
    assert both < set(names)
    living.remove("p1")
    assert first_of() == set(names)
    assert all(mine.mine(job(name)) for name in names)
    living.append("p1")
    assert first_of() == both


def test_a_server_that_leaves_jobs_to_workers_does_only_those_about_itself() -> None:
    mine = turns("web", ["worker"], works=False)
    assert not any(mine.mine(job("pushes")) for _ in range(2 * OTHERS_TURN))
    assert mine.mine(job("leases", anywhere=False))
    assert turns("alone", []).mine(job("pushes"))


def test_where_no_worker_lives_the_servers_that_leave_jobs_to_workers_do_them_themselves() -> None:
    mine = turns("web", [], works=False)
    assert mine.mine(job("pushes"))
    assert mine.first("pushes")


def test_what_a_dead_process_had_to_do_is_looked_at_by_one_of_the_others_after_a_few_turns() -> None:
    living = [f"p{number}" for number in range(8)]
    for name in ("pushes", "orphaned", "money"):
        (dead,) = (process for process in living if turns(process, living).first(name))
        others = [turns(process, living) for process in living if process != dead]
        taken = [at for at in range(160) if sum(one.mine(job(name)) for one in others)]
        assert max(after - before for before, after in itertools.pairwise(taken)) <= 2
        assert taken[0] <= 1


@given(
    count=st.integers(2, 12),
    begun=st.lists(st.integers(0, 60_000), min_size=12, max_size=12),
    name=st.sampled_from(["pushes", "orphaned", "money"]),
)
def test_those_who_look_now_and_then_do_so_one_after_the_other_whenever_they_began(
    count: int, begun: list[int], name: str
) -> None:
    living = [f"p{number}" for number in range(count)]
    looks = []
    for process, begun_ms in zip(living, begun, strict=False):
        clock = VirtualClock()
        clock.pass_(begun_ms / 1000)
        its = Turns(process, works=True, workers=lambda: living, clock=clock)
        if its.first(name):
            continue
        while clock.now() < VirtualClock().now() + timedelta(seconds=180):
            if its.mine(job(name)):
                looks.append((clock.now() - VirtualClock().now()).total_seconds())
            clock.pass_(1)
    looks = sorted(at for at in looks if at > 60)
    # Each is within a second after the instant that is its own, so two may be that much further apart.
    assert max(after - before for before, after in itertools.pairwise(looks)) <= OTHERS_TURN + 1
    if count > OTHERS_TURN:
        assert max(after - before for before, after in itertools.pairwise(looks)) <= 2 + 1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_whoever_rests_until_its_turn_has_the_same_turns_as_one_that_asks_each_time(count: int) -> None:
    living = [f"p{number}" for number in range(count)]
    for process in living:
        asking, resting = VirtualClock(), VirtualClock()
        asks = Turns(process, works=True, workers=lambda: living, clock=asking)
        rests = Turns(process, works=True, workers=lambda: living, clock=resting)
        asked, rested = [], []
        for _ in range(100):
            asking.pass_(1)
            if asks.mine(job("pushes")):
                asked.append(asking.now())
        while resting.now() < asking.now():
            resting.pass_(rests.until_mine(job("pushes")))
            assert rests.mine(job("pushes")), "it does not wake in vain"
            rested.append(resting.now())
        assert rested[: len(asked)] == asked


def test_a_process_that_leaves_jobs_to_workers_rests_as_well() -> None:
    clock = VirtualClock()
    web = Turns("web", works=False, workers=lambda: ["worker"], clock=clock)
    assert 1 <= web.until_mine(job("pushes")) <= OTHERS_TURN
    assert not web.mine(job("pushes"))


def test_a_turn_that_was_left_out_is_made_good_at_the_next() -> None:
    clock, living = VirtualClock(), [f"p{number}" for number in range(8)]
    late = next(
        one
        for process in living
        if not (one := Turns(process, works=True, workers=lambda: living, clock=clock)).first("pushes")
    )
    late.mine(job("pushes"))
    clock.pass_(late.until_mine(job("pushes")) + 1)
    assert late.mine(job("pushes"))
    clock.pass_(1)
    assert not late.mine(job("pushes")), "once"


def test_who_rests_is_told_that_somebody_has_come_or_gone_whatever_job_finds_it_out() -> None:
    living, told = ["p0", "p1"], list[str]()
    its = turns("p0", living)
    its.mine(job("leases", anywhere=False))
    its.moved.append(lambda: told.append("moved"))
    its.mine(job("leases", anywhere=False))
    assert told == []
    living.remove("p1")
    its.mine(job("leases", anywhere=False))
    its.mine(job("leases", anywhere=False))
    assert told == ["moved"]
