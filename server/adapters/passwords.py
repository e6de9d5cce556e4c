"""Passwords as bcrypt hashes, made in threads of their own.

bcrypt takes 0.2 s at cost 12 and lets go of the interpreter's lock meanwhile, so the loop goes on. The pool has no
more threads than processors and a short queue: a flood of sign-ins is refused instead of answered minutes later, and
never starves other work of threads.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from models.errors import Refusal

T = TypeVar("T")

THREADS_MAX = 2
# Waiting and running at once for each thread: some five seconds of work at cost 12.
QUEUE_MAX_PER_THREAD = 24
_COST_MIN = 4  # bcrypt's own
# bcrypt reads 72 bytes and no NUL. A digest of the whole password in base64 has 44 and none; the label makes it a
# digest that no other program's leaked list of digests can stand in for.
_LABEL = b"ringmeter password v1"


class Passwords:
    """``Passwords(rounds=12)``: ``models.auth.session.Hasher``. ``rounds`` is bcrypt's cost, 4 to 16; ``close`` it."""

    def __init__(self, *, rounds: int, threads: int | None = None, queue_max: int | None = None) -> None:
        self._rounds = rounds
        threads = threads or min(THREADS_MAX, _cores())
        self._queue_max = QUEUE_MAX_PER_THREAD * threads if queue_max is None else queue_max
        self._pool = ThreadPoolExecutor(threads, "bcrypt")
        self._running = 0
        self._lock = threading.Lock()
        # What an unknown user's password is compared with: any hash of the same cost that nothing matches.
        self._nobody = bcrypt.hashpw(os.urandom(32).hex().encode(), bcrypt.gensalt(rounds))

    async def hash(self, password: str) -> str:
        """The hash to keep. Refuses with ``SERVER_BUSY``."""
        digest = _digest(password)
        return (await self._run(lambda: bcrypt.hashpw(digest, bcrypt.gensalt(self._rounds)))).decode()

    async def verify(self, password: str, kept: str | None) -> bool:
        """Whether ``kept`` is the password's hash; None costs as much and is False. Refuses with ``SERVER_BUSY``.

        So does a hash of a lower cost, from before the cost was raised: how long it takes tells of no account.
        """
        digest = _digest(password)
        against = self._nobody if kept is None else kept.encode()
        same = await self._run(lambda: self._checked(digest, against))
        return same and kept is not None

    def _checked(self, digest: bytes, against: bytes) -> bool:
        same: bool = bcrypt.checkpw(digest, against)
        # The work doubles with each step: 2^10 and then 2^10 + 2^11 are 2^12.
        for cost in range(max(_COST_MIN, _cost(against)), self._rounds):
            bcrypt.hashpw(digest, bcrypt.gensalt(cost))
        return same

    def outdated(self, kept: str) -> bool:
        """Whether the hash has another cost than new ones; it stands in the hash (``$2b$12$…``)."""
        return _cost(kept.encode()) != self._rounds

    def close(self) -> None:
        """Stop the threads; what waits is not done any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._running >= self._queue_max:
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

    def _leave(self, _: Future[T] | None) -> None:
        with self._lock:
            self._running -= 1


def _cost(kept: bytes) -> int:
    return int(kept.split(b"$")[2])


def _cores() -> int:
    """The cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(password: str) -> bytes:
    # Keyboards differ in how they compose letters; NFKC makes the same password of them (NIST SP 800-63B).
    text = unicodedata.normalize("NFKC", password)
    return base64.b64encode(hmac.digest(_LABEL, text.encode(), "sha256"))
