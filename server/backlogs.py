"""What is due in the database and not done, queue by queue, for ``/metrics``.

Whoever owns a queue names it once where it is put together:

    backlogs.add("webhooks", inbox.overdue)

One process at a time reads them, the one whose turn it is, so that a hundred do not ask the same; the others show none.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Protocol

import structlog

from models.backlog.store import Overdue
from models.ports import Clock
from server.metrics import BACKLOG, BACKLOG_AGE

log = structlog.get_logger(__name__)

# As often as Prometheus usually asks.
BACKLOGS_SECONDS = 15.0
JOB = "backlogs"

Read = Callable[[datetime], Awaitable[Overdue]]


class Queue(Protocol):
    """A store of to-dos."""

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        ...


class Backlogs:
    """The queues of one process. ``turn`` says whether it is this one that reads them now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queues: dict[str, Read] = {}
        self._shown = False

    def add(self, name: str, read: Read) -> None:
        """A queue by its name in the metrics, lower-case words with ``_``."""
        if not re.fullmatch(r"[a-z][a-z_]{1,39}", name) or name in self._queues:
            raise ValueError(f"a backlog cannot be called {name!r}, or two are")
        self._queues[name] = read

    @property
    def names(self) -> list[str]:
        """The queues that were added."""
        return list(self._queues)

    async def look(self) -> dict[str, Overdue | None]:
        """What is due in each queue, for a page; None: it cannot be read now."""
        found: dict[str, Overdue | None] = {}
        for name, read in self._queues.items():
            try:
                found[name] = await read(self._clock.now())
            except Exception as error:
                log.warning("a queue cannot be read", queue=name, exc_info=error)
                found[name] = None
        return found

    async def read(self, mine: bool) -> None:
        """Read them all when it is this process's turn (``mine``), else show none.

        A queue that cannot be read shows nothing, and the fault is the caller's once the others are read.
        """
        if not mine:
            self._hide()
            return
        now = self._clock.now()
        fault: Exception | None = None
        for name, read in self._queues.items():
            try:
                found = await read(now)
            except Exception as error:
                fault = fault or error
                _forget(name)
                continue
            age = (now - found.since).total_seconds() if found.since is not None else 0.0
            BACKLOG.labels(name).set(found.number)
            BACKLOG_AGE.labels(name).set(max(0.0, age))
        self._shown = True
        if fault is not None:
            raise fault

    def _hide(self) -> None:
        if self._shown:
            for name in self._queues:
                _forget(name)
        self._shown = False


def backlogs_of(queues: Mapping[str, Queue], clock: Clock) -> Backlogs:
    """Those queues, by name."""
    backlogs = Backlogs(clock)
    for name, queue in queues.items():
        backlogs.add(name, queue.overdue)
    return backlogs


def _forget(name: str) -> None:
    for gauge in (BACKLOG, BACKLOG_AGE):
        gauge.remove_by_labels({"queue": name})
