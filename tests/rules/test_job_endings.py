"""How jobs end with their process: what is in the middle of a turn finishes it, and no other turn begins."""

from __future__ import annotations

import asyncio

from server.clock import Tasks


class Job:
    """Work that stops in the middle of each turn until it is let go on."""

    def __init__(self, tasks: Tasks, seconds: float = 60.0) -> None:
        self.begun, self.done, self.broken_off = 0, 0, 0
        self.there, self.go_on = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(tasks.every(seconds, self._turn, "job"))

    async def _turn(self) -> None:
        self.begun += 1
        self.there.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        self.done += 1


async def test_a_job_in_the_middle_of_its_turn_finishes_it_and_begins_no_other() -> None:
    tasks = Tasks()
    job = Job(tasks)
    await job.there.wait()
    ending = asyncio.create_task(tasks.end([job.task], 60.0))
    await asyncio.sleep(0)
    job.go_on.set()
    async with asyncio.timeout(5):
        await ending
    assert (job.begun, job.done, job.broken_off, job.task.done()) == (1, 1, 0, True)


async def test_a_job_that_rests_is_stopped_at_once() -> None:
    tasks = Tasks()
    job = Job(tasks)
    job.go_on.set()
    await job.there.wait()
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.end([job.task], 60.0)
    assert (job.begun, job.done, job.task.done()) == (1, 1, True)


async def test_a_turn_that_does_not_come_to_its_end_is_broken_off() -> None:
    tasks = Tasks()
    stuck, resting = Job(tasks), Job(tasks)
    resting.go_on.set()
    await asyncio.gather(stuck.there.wait(), resting.there.wait())
    await tasks.end([stuck.task, resting.task], 0.01)
    assert (stuck.done, stuck.broken_off, stuck.task.cancelled()) == (0, 1, True)
    assert (resting.done, resting.broken_off) == (1, 0)


async def test_where_there_are_no_jobs_there_is_nothing_to_end() -> None:
    await Tasks().end([], 1.0)
