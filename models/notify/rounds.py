"""The rounds of a job that sends: claim some to-dos, work them together, until nothing is due."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from models.notify.rules import BATCH_MAX, LEASE_SECONDS
from models.ports import Clock, Ids

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Claim(Protocol[T_co]):
    """Takes the next to-do that is due, for the worker named ``lease`` until ``lease_until``."""

    async def __call__(self, now: datetime, *, lease: str, lease_until: datetime) -> T_co | None:
        """The to-do, or None when nothing is due."""
        ...


def _always() -> bool:
    return True


class Rounds(Generic[T]):
    """The rounds of one sort of to-dos in one process, at most ``most`` of them at the same time.

    A round lasts as long as its slowest provider. ``may`` is asked before each claim.
    """

    def __init__(
        self,
        *,
        claim: Claim[T],
        work: Callable[[Sequence[T]], Awaitable[None]],
        most: int,
        clock: Clock,
        ids: Ids,
        may: Callable[[], bool] = _always,
    ) -> None:
        self._claim = claim
        self._work = work
        self._most = most
        self._clock = clock
        self._ids = ids
        self._may = may
        self._running = 0

    async def run(self) -> int:
        """Work what is due; how many to-dos that were. 0 also when enough rounds run already."""
        if self._running >= self._most:
            return 0
        self._running += 1
        worked = 0
        try:
            while batch := await self._batch():
                await self._work(batch)
                worked += len(batch)
        finally:
            self._running -= 1
        return worked

    async def _batch(self) -> list[T]:
        batch: list[T] = []
        while len(batch) < BATCH_MAX and self._may():
            now = self._clock.now()
            until = now + timedelta(seconds=LEASE_SECONDS)
            try:
                todo = await self._claim(now, lease=self._ids.new(), lease_until=until)
            except Exception:
                if not batch:
                    raise
                break  # what is claimed already waits for no lease to end; the next claim shows whether it lasts
            if todo is None:
                break
            if self._clock.now() >= until:
                break  # this process stood still: the to-do is another worker's by now
            batch.append(todo)
        return batch


async def each(works: Iterable[Awaitable[None]]) -> None:
    """Do all of it, whatever becomes of some of it; the first fault, when all is done, is the caller's."""
    faults = [one for one in await asyncio.gather(*works, return_exceptions=True) if one is not None]
    if faults:
        raise faults[0]
