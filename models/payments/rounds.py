"""The turns of a job: take what is due, work on it together, until nothing is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from models.notify.rounds import each

T = TypeVar("T")


async def work_off(
    claim: Callable[[], Awaitable[T | None]], work: Callable[[T], Awaitable[None]], at_once: int
) -> int:
    """Work on what ``claim`` gives, ``at_once`` of it at the same time, until it gives None; how many that were.

    A fault of one keeps none of the others of its batch from being worked on; it is raised after them.
    """
    done = 0
    while True:
        batch: list[T] = []
        while len(batch) < at_once and (todo := await claim()) is not None:
            batch.append(todo)
        if not batch:
            return done
        await each(work(todo) for todo in batch)
        done += len(batch)
