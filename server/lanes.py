"""One at a time per key, in order of arrival; different keys never wait for one another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Lanes:
    """First come, first served per key. A key costs memory only while somebody is in its lane."""

    def __init__(self) -> None:
        # Those who wait, by key; a key is there while somebody is in its lane.
        self.waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def free(self, key: str) -> bool:
        """Whether nobody is in the lane: what needs no wait may then go at once and still keep the order."""
        return key not in self.waiting

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait for this request's turn. Nothing is awaited before the place in the queue is taken."""
        queue = self.waiting.get(key)
        if queue is None:
            self.waiting[key] = deque()
        else:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._next(key)
                else:
                    with suppress(ValueError):  # skipped by the one before, in this very turn of the loop
                        queue.remove(place)
                raise
        try:
            yield
        finally:
            self._next(key)

    def _next(self, key: str) -> None:
        queue = self.waiting[key]
        while queue:
            place = queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self.waiting[key]
