"""When the jobs of a process have their turns: at the strikes of one clock, together, and what is urgent first.

To wake up costs an idle process more than most of what it then does, so all do it at once; and what most of them do
can wait for the few that hold money for somebody who talks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

STRIKE_SECONDS = 0.1
# So long do the others wait at most for a turn of those that are first: less than half a second, by which a tick may be
# late (CONTRACT §2.1).
PATIENCE_SECONDS = 0.2

_Waiter = asyncio.Future[None]


def until_next(now: float, seconds: float, phase: float) -> float:
    """The seconds from ``now`` to the strike of a clock that is next to ``now + seconds``.

    It strikes every ``STRIKE_SECONDS``, ``phase`` after the full ones. Never sooner than half a strike.
    """
    strikes = round((now + seconds - phase) / STRIKE_SECONDS)
    wait = phase + strikes * STRIKE_SECONDS - now
    return wait if wait >= STRIKE_SECONDS / 2 else wait + STRIKE_SECONDS


class Strikes:
    """The clock of a process. It has one timer for each strike that somebody waits for."""

    def __init__(self) -> None:
        # Another one in each process: else those of one machine would all ask the database at the same instant.
        self._phase = int.from_bytes(os.urandom(2), "big") / 65536 * STRIKE_SECONDS
        self._due: dict[int, tuple[list[_Waiter], list[_Waiter]]] = {}
        self._going_first = 0
        # While those that are first are held for, who is; None while nobody is.
        self._held: list[_Waiter] | None = None
        self._patience: asyncio.TimerHandle | None = None

    async def next(self, seconds: float, *, first: bool = False) -> None:
        """Wait for the strike that is next to ``seconds`` from now, and for those that go first there."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait = until_next(now, seconds, self._phase)
        strike = round((now + wait - self._phase) / STRIKE_SECONDS)
        if strike not in self._due:
            self._due[strike] = [], []
            loop.call_later(wait, self._struck, strike)
        waiter = loop.create_future()
        self._due[strike][0 if first else 1].append(waiter)
        await waiter

    @contextmanager
    def going_first(self) -> Iterator[None]:
        """For the time of a turn before which no other shall go on."""
        self._going_first += 1
        self._hold()
        try:
            yield
        finally:
            self._going_first -= 1
            if not self._going_first:
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
        if first:
            self._hold()
            _wake(first)
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
            self._patience.cancel()
            held, self._held = self._held, None
            _wake(held)


def _wake(waiters: Iterable[_Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
