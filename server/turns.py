"""Which process does the jobs that are anybody's: one for each job, and the others now and then.

That is about the load, not about safety: every such job claims or swaps what it does, so that two at the same time do
nothing twice. Who it is follows from who lives, without a word between them (rendezvous hashing): when a process comes
or goes, only its own share moves. The others look as well, less often, should the one be gone or stand still.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import blake2b

from handlers.registry import Job

# Of somebody else's job each takes one turn of so many times as many as there are processes: together they look at
# every other turn or less, however many they are. Of two, the other one looks 4 s after a deadline was due.
OTHERS_TURN = 2


class Turns:
    """``workers`` are the living processes that do such jobs; this one does them only if ``works``."""

    def __init__(self, process: str, *, works: bool, workers: Callable[[], Collection[str]]) -> None:
        self._process = process
        self._works = works
        self._workers = workers
        self._passed: dict[str, int] = {}

    def mine(self, job: Job) -> bool:
        """Whether this turn of the job is for this process."""
        if not job.anywhere:
            return True
        if not self._works:
            return False
        workers = self._all()
        if self._first(job.name, workers):
            return True
        self._passed[job.name] = (self._passed.get(job.name, 0) + 1) % (OTHERS_TURN * len(workers))
        return self._passed[job.name] == 0

    def first(self, name: str) -> bool:
        """Whether the job of that name is this process's among those that live."""
        return self._works and self._first(name, self._all())

    def _all(self) -> set[str]:
        return {*self._workers(), self._process}

    def _first(self, name: str, workers: Collection[str]) -> bool:
        return max(workers, key=lambda process: _weight(name, process)) == self._process


def _weight(name: str, process: str) -> bytes:
    return blake2b(f"{name}:{process}".encode(), digest_size=8).digest()
