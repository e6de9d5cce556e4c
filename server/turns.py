"""Which process does the jobs that are anybody's: one for each job, and the others now and then.

That is about the load, not about safety: every such job claims or swaps what it does, so that two at the same time do
nothing twice. Who it is follows from who lives, without a word between them (rendezvous hashing): when a process comes
or goes, only its own share moves. The others look as well, less often, should the one be gone or stand still.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import blake2b

from handlers.registry import Job
from models.ports import Clock

# Of so many turns of somebody else's job each takes one: 4 s after it was due, deadlines of the dead are acted upon.
# Where there are more processes than that, one of them looks at about every other turn, one after the other. When many
# die at once, as with their machine, those who are left may be further apart, until the dead are known to be dead.
OTHERS_TURN = 4


class Turns:
    """``workers`` are the living processes that do such jobs; this one does them if ``works``, or if nobody else does:
    what the dead have left must not wait for somebody to start a worker.

    Turns are numbered by the time of day, so that those who look one after the other need not agree on it.
    """

    def __init__(
        self, process: str, *, works: bool, workers: Callable[[], Collection[str]], clock: Clock
    ) -> None:
        self._process = process
        self._works = works
        self._workers = workers
        self._clock = clock
        self._known: set[str] = set()
        self._orders: dict[str, list[str]] = {}
        # The number of the last turn of somebody else's job.
        self._last: dict[str, int] = {}
        # Told when somebody has come or gone: whoever rests may be wanted now.
        self.moved: list[Callable[[], None]] = []

    def mine(self, job: Job) -> bool:
        """Whether this turn of the job is for this process."""
        if not job.anywhere:
            self._look()  # those that rest do not
            return True
        order = self._order(job.name)
        if self._process not in order:
            return False
        if order[0] == self._process:
            return True
        number = self._number(job)
        last, self._last[job.name] = self._last.get(job.name, number - 1), number
        own, every = self._own(order)  # whoever has missed theirs takes the next
        return (number - own) // every > (last - own) // every

    def until_mine(self, job: Job) -> int:
        """After how many turns of the job the next one is for this process, as long as nobody comes or goes."""
        order = self._order(job.name)
        if order[0] == self._process:
            return 1
        own, every = self._own(order)
        return every - (self._number(job) - own) % every

    def first(self, name: str) -> bool:
        """Whether the job of that name is this process's among those that live."""
        return self._order(name)[0] == self._process

    def _order(self, name: str) -> list[str]:
        """Who does the job of that name, whose it is first."""
        self._look()
        if name not in self._orders:
            self._orders[name] = sorted(self._known, key=lambda process: _weight(name, process), reverse=True)
        return self._orders[name]

    def _look(self) -> None:
        """See whether somebody has come or gone."""
        workers = self._all()
        if workers != self._known:
            self._known = workers
            self._orders.clear()
            for tell in self.moved:
                tell()

    def _number(self, job: Job) -> int:
        return int(self._clock.now().timestamp() / job.every_seconds)

    def _own(self, order: list[str]) -> tuple[int, int]:
        """Which of how many turns of somebody else's job this process takes."""
        others = max(1, len(order) - 1)
        every = max(OTHERS_TURN, 2 * (others - 1))
        place = order.index(self._process) if self._process in order else others
        return -(-place * every // others), every

    def _all(self) -> set[str]:
        workers = set(self._workers())
        return workers if workers and not self._works else {*workers, self._process}


def _weight(name: str, process: str) -> bytes:
    return blake2b(f"{name}:{process}".encode(), digest_size=8).digest()
