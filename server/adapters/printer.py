"""Statements as files: CSV, and PDF. Both are made in a thread, one after another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from models.errors import Refusal
from models.papers.rules import Statement, csv_of

# Waiting and running at once; whoever comes then is asked to come again.
QUEUE_MAX = 8


class FilePrinter:
    """``models.papers.service.Printer``; ``close`` it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "printer")
        self._lock = threading.Lock()
        self._running = 0

    async def csv(self, statement: Statement) -> bytes:
        """As CSV, in UTF-8. Refuses with ``SERVER_BUSY``."""
        return await self._run(lambda: csv_of(statement).encode())

    async def pdf(self, statement: Statement) -> bytes:
        """As PDF. Refuses with ``SERVER_BUSY``."""
        return await self._run(lambda: _pdf(statement))

    async def close(self) -> None:
        """Stop the thread; what waits is not done any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], bytes]) -> bytes:
        with self._lock:
            if self._running >= QUEUE_MAX:
                raise Refusal("SERVER_BUSY")
            self._running += 1
        try:
            future = self._pool.submit(work)
        except BaseException:
            self._leave(None)
            raise
        # Counted until the thread is done, also when whoever asked has gone.
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _: Future[bytes] | None) -> None:
        with self._lock:
            self._running -= 1


def _pdf(statement: Statement) -> bytes:
    from server.adapters.paper import pdf_of  # 20 MB of a library that a server may never need

    return pdf_of(statement)
