"""When the jobs of a process have their turns: at the strikes of one clock, together, and what is urgent first.

To wake up costs an idle process more than most of what it then does, so all do it at once: those that are not due more
often at the half seconds, spread over their periods. And what most of them do can wait for the few that hold money for
somebody who talks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from zlib import crc32

STRIKE_SECONDS = 0.1
# At one strike in so long a time those jobs meet that have their turns no more often.
HALF_SECONDS = 0.5
# So long do the others wait at most for a turn of those that are first.
PATIENCE_SECONDS = 0.15

# True when it was woken at its strike.
_Waiter = asyncio.Future[bool]


def until_next(now: float, seconds: float, phase: float, every: float | None = None) -> float:
    """The seconds from ``now`` to the strike of a clock that is next to ``now + seconds``.

    It strikes ``every`` so many seconds, or ``STRIKE_SECONDS``, and ``phase`` after the full ones. Never sooner than
    half a ``STRIKE_SECONDS``.
    """
    every = every or STRIKE_SECONDS
    wait = phase + round((now + seconds - phase) / every) * every - now
    return wait if wait >= STRIKE_SECONDS / 2 else wait + every


class Beat(NamedTuple):
    """Which strikes are meant: one in ``every`` seconds, ``after`` the full ones."""

    every: float
    after: float


class Bell:
    """Wakes the one who sleeps by it, before the strike that they wait for."""

    def __init__(self) -> None:
        self.sleeper: _Waiter | None = None

    def ring(self) -> None:
        """Nothing when nobody sleeps by it."""
        if self.sleeper is not None and not self.sleeper.done():
            self.sleeper.set_result(False)


class Strikes:
    """The clock of a process. It has one timer for each strike that somebody waits for.

    ``phase``, in seconds, says when it strikes: see ``until_next``. ``seed`` says which places jobs have in their
    periods; where it is another for each process of a machine, they do not all have the same turns at once.
    """

    def __init__(self, phase: float, seed: int = 0) -> None:
        self._phase = phase
        self._seed = seed
        self._due: dict[int, tuple[list[_Waiter], list[_Waiter]]] = {}
        # Of those that are first: how many were woken and have not begun, and how many are in their turn.
        self._called = 0
        self._going_first = 0
        # Who waits for those that are first; None while nobody has to.
        self._held: list[_Waiter] | None = None
        self._patience: asyncio.TimerHandle | None = None

    def beat_of(self, name: str, every: float) -> Beat | None:
        """At which strikes the job of that name has its turns; None when at any, as one that has them more often."""
        places, odd = divmod(every, HALF_SECONDS)
        if odd or not places:
            return None
        return Beat(every, crc32(name.encode(), self._seed) % int(places) * HALF_SECONDS)

    async def next(self, seconds: float, *, first: bool = False, beat: Beat | None = None) -> None:
        """Wait for the strike that is next to ``seconds`` from now, and for those that go first there.

        Only strikes of the ``beat`` are meant, if there is one.
        """
        await self._waiter_at(seconds, beat or Beat(STRIKE_SECONDS, 0.0), first)

    async def rest(
        self, seconds: float, *, first: bool = False, bell: Bell, beat: Beat | None = None
    ) -> bool:
        """As ``next``, for a longer time; False as soon as the ``bell`` rings before.

        Without a ``beat`` it is no longer than ``seconds``, and whoever rests for half a second wakes up with others.
        """
        if beat is None and seconds >= HALF_SECONDS:
            seconds, beat = seconds - HALF_SECONDS / 2, Beat(HALF_SECONDS, 0.0)
        return await self._waiter_at(seconds, beat or Beat(STRIKE_SECONDS, 0.0), first, bell)

    def _waiter_at(self, seconds: float, beat: Beat, first: bool, bell: Bell | None = None) -> _Waiter:
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait = until_next(now, seconds, self._phase + beat.after, beat.every)
        strike = round((now + wait - self._phase) / STRIKE_SECONDS)
        if strike not in self._due:
            self._due[strike] = [], []
            loop.call_later(wait, self._struck, strike)
        waiter = loop.create_future()
        self._due[strike][0 if first else 1].append(waiter)
        if bell is not None:
            bell.sleeper = waiter
        return waiter

    @contextmanager
    def going_first(self) -> Iterator[None]:
        """For the time of a turn before which no other shall go on."""
        self._called = max(0, self._called - 1)
        self._going_first += 1
        self._hold()
        try:
            yield
        finally:
            self._going_first -= 1
            if not self._going_first and not self._called:
                self._let_go()

    async def give_way(self) -> None:
        """For work in slices, between them: let those that are first have their turn, and others a moment."""
        if self._held is None:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._held.append(waiter)
        await waiter

    def _struck(self, strike: int) -> None:
        first, others = self._due.pop(strike)
        if woken := _wake(first):
            self._called += woken
            self._hold()
        if self._held is None:
            _wake(others)
        else:
            self._held += others

    def _hold(self) -> None:
        if self._held is None:
            self._held = []
            self._patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._let_go)

    def _let_go(self) -> None:
        if self._held is not None and self._patience is not None:
            self._called = 0  # whoever was woken and has not begun never will, or too late
            self._patience.cancel()
            held, self._held = self._held, None
            _wake(held)


def _wake(waiters: Iterable[_Waiter]) -> int:
    """How many of them were still waiting."""
    waiting = [waiter for waiter in waiters if not waiter.done()]
    for waiter in waiting:
        waiter.set_result(True)
    return len(waiting)
