"""Who does the jobs that are anybody's."""

from __future__ import annotations

import itertools

from handlers.registry import Job
from server.turns import OTHERS_TURN, Turns


async def nothing(services: object) -> None:
    """Nothing."""


def job(name: str, *, anywhere: bool = True) -> Job:
    return Job(name=name, every_seconds=1, handler=nothing, doc="", anywhere=anywhere)


def turns(process: str, living: list[str], *, works: bool = True) -> Turns:
    return Turns(process, works=works, workers=lambda: living)


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
    taken = sum(mine.mine(job("pushes")) for _ in range(160) for mine in turns_of_all)
    assert taken == 160 + 15 * 160 / 16


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
