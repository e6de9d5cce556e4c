"""The only reader of clocks, the only source of chance, and the only starter of tasks."""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog

from models.ports import Clock
from server.strikes import HALF_SECONDS, Bell, Strikes

log = structlog.get_logger(__name__)

# Counts on while a laptop sleeps, where the platform has it.
_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# How far our time moves towards the machine's at each correction: a jump of the machine's clock (E41) becomes a slow
# drift, so that no ring or charge is cut short by it.
_SLEW = timedelta(milliseconds=5)
_SLEW_EVERY_SECONDS = 10.0

# Shorter than others wait before they take a process for dead (its last beat may be two seconds old by then): until
# then nobody has taken anything away from it.
STANDSTILL_SECONDS = 5.0


class SystemClock:
    """Wall time taken once, counted on by the monotonic clock, slewed slowly; it never goes backwards."""

    def __init__(self) -> None:
        self._wall = datetime.now(UTC)
        self._mono = time.clock_gettime(_MONOTONIC)
        self._slewed_at = self._mono

    def now(self) -> datetime:
        """The present instant: aware, UTC, whole milliseconds."""
        mono = time.clock_gettime(_MONOTONIC)
        if mono - self._slewed_at >= _SLEW_EVERY_SECONDS:
            self._slewed_at = mono
            ours = self._wall + timedelta(seconds=mono - self._mono)
            drift = datetime.now(UTC) - ours
            # Forwards freely in small steps; backwards never faster than time itself runs.
            self._wall += max(-_SLEW, min(_SLEW, drift))
        instant = self._wall + timedelta(seconds=mono - self._mono)
        return instant.replace(microsecond=instant.microsecond // 1000 * 1000)

    @staticmethod
    def monotonic() -> float:
        """Seconds for measuring spans and rates; no relation to the time of day."""
        return time.monotonic()


class Rest(Protocol):
    """The rests that a job takes between its turns, while most of them would find nothing to do."""

    bell: Bell

    def seconds(self, every: float) -> float:
        """How long the next rest is, for a job that has its turns ``every`` so many seconds; never less than that."""
        ...


async def pause(seconds: float) -> None:
    """Wait."""
    await asyncio.sleep(seconds)


class SystemIds:
    """UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, 74 random bits."""

    def new(self) -> str:
        """A new id, rising with time to the millisecond."""
        value = (time.time_ns() // 1_000_000) << 80
        random = int.from_bytes(os.urandom(10), "big")
        value |= (0x7 << 76) | ((random >> 68 & 0xFFF) << 64) | (0b10 << 62) | (random & ((1 << 62) - 1))
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Wakefulness:
    """Notices that this process stood still (frozen, its machine asleep), before it acts on what came meanwhile.

    A loop that wakes up reads its sockets before it gets to its timers, or after: so both look here first.
    """

    def __init__(self, woken: Callable[[], None]) -> None:
        self._woken = woken
        self.looked_at = time.monotonic()

    def look(self) -> None:
        """To be called every second and before anything is done at once; ``woken`` is called after a standstill."""
        now, before = time.monotonic(), self.looked_at
        self.looked_at = now
        if now - before > STANDSTILL_SECONDS:
            log.warning("this process stood still", seconds=round(now - before, 1))
            self._woken()


class Tasks:
    """Background work that is awaited at the end and whose faults are logged, never lost."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        # The jobs that sleep until their next turn: to stop one there breaks nothing off.
        self._resting: set[asyncio.Task[Any]] = set()
        self._ending = False
        # Another phase in each process: else those of one machine would all ask the database at the same instant.
        chance = int.from_bytes(os.urandom(4), "big")
        self._strikes = Strikes((chance & 0xFFFF) / 0x10000 * HALF_SECONDS, seed=chance)
        self.give_way = self._strikes.give_way

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start ``work`` now."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task failed", task=task.get_name(), exc_info=task.exception())

    async def drain(self, seconds: float) -> None:
        """Wait for what runs, at most ``seconds``, then cancel the rest."""
        if self._running:
            _, late = await asyncio.wait(set(self._running), timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)

    async def every(
        self,
        seconds: float,
        work: Callable[[], Awaitable[Any]],
        name: str,
        *,
        first: bool = False,
        rest: Rest | None = None,
    ) -> None:
        """Run ``work`` every ``seconds`` until cancelled; a fault is logged and the next turn comes.

        To the next tenth of a second, or at the job's own half second: jobs that wake this process do it together,
        and others give way to the turns of one that is ``first``. A ``rest`` says how long it may be until the next
        turn, and its bell that it may not.
        """
        task = asyncio.current_task()
        assert task is not None
        loop, beat = asyncio.get_running_loop(), self._strikes.beat_of(name, seconds)
        # The next place of its beat, however long the turn has taken; not the one that is next to a period from now.
        early = seconds / 2 if beat is not None else 0.0
        while True:
            try:
                with self._strikes.going_first() if first else nullcontext():
                    await work()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.warning("job failed", job=name, error=repr(error))
            # The driver may answer a cancellation with a result or an error of its own; it is asked for only once.
            if task.cancelling() or self._ending:
                return
            self._resting.add(task)
            try:
                longer, began = seconds if rest is None else _rest_of(rest, seconds, name), loop.time()
                if rest is None or longer <= seconds:
                    await self._strikes.next(seconds - early, first=first, beat=beat)
                elif not await self._strikes.rest(longer - early, first=first, bell=rest.bell, beat=beat):
                    # No more often than without a bell; but not in its own time if that is long.
                    left = min(seconds, HALF_SECONDS) - (loop.time() - began)
                    await self._strikes.next(max(0.0, left), first=first)
            finally:
                self._resting.discard(task)

    async def end(self, timed: Collection[asyncio.Task[Any]], seconds: float) -> None:
        """Let what runs ``every`` so often finish the turn it is in, at most ``seconds``, and cancel the rest.

        A driver that is cancelled while it connects leaves its socket open.
        """
        self._ending = True
        for task in self._resting.intersection(timed):
            task.cancel()
        if timed:
            await asyncio.wait(timed, timeout=seconds)
        for task in timed:
            task.cancel()
        await asyncio.gather(*timed, return_exceptions=True)


def _rest_of(rest: Rest, seconds: float, name: str) -> float:
    """How long the job may rest; without an answer no longer than it always does."""
    try:
        return rest.seconds(seconds)
    except Exception as error:
        log.error("a job does not rest", job=name, exc_info=error)
        return seconds


class LoopAlarms:
    """Local timers on one heap and one timer of the loop. Lost in a crash: the deadline job makes them good."""

    def __init__(self, clock: Clock, tasks: Tasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._due: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.ring: Callable[[str], Coroutine[Any, Any, Any]] | None = None

    def set(self, key: str, at: datetime) -> None:
        """Ring once for ``key`` at ``at``."""
        if self._due.get(key) == at:
            return
        self._due[key] = at
        heapq.heappush(self._heap, (at, key))
        if self._heap[0][0] == at:
            self._arm()

    def clear(self, key: str) -> None:
        """Forget ``key``; its entry in the heap is skipped when it comes up."""
        self._due.pop(key, None)

    def stop(self) -> None:
        """Ring no more."""
        self._due.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._heap:
            return
        wait = max(0.0, (self._heap[0][0] - self._clock.now()).total_seconds())
        self._timer = asyncio.get_running_loop().call_later(wait, self._fire)

    def _fire(self) -> None:
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._due.get(key) == at:
                del self._due[key]
                if self.ring is not None:
                    self._tasks.spawn(self.ring(key), name=f"alarm {key}")
        self._arm()
