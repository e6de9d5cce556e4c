"""Who is due when: an order in time that nobody has to sort, or to walk from end to end, to find what is due."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

# Entries of keys that were moved or dropped may outnumber the others by so many before they are swept away.
STALE_MAX = 64


class Agenda:
    """Keys, each due once at an instant. What is taken is off it; what waits costs nothing until its time comes.

    ``looked_ahead``: so long before its time an entry is wanted to be seen. ``sooner``, of the one who waits, is told
    whenever there is something to be seen earlier than before.
    """

    def __init__(self) -> None:
        self.looked_ahead = timedelta()
        self.sooner: Callable[[], None] | None = None
        # Each with the number of its entry: the others of the key are skipped when they come up.
        self._at: dict[str, tuple[datetime, int]] = {}
        self._heap: list[tuple[datetime, int, str]] = []
        self._entries = 0

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def set(self, key: str, at: datetime) -> None:
        """``key`` is due at ``at``, and not when it was before."""
        known = self._at.get(key)
        if known is not None and known[0] == at:
            return
        self._entries += 1
        self._at[key] = (at, self._entries)
        heapq.heappush(self._heap, (at, self._entries, key))
        if len(self._heap) > 2 * len(self._at) + STALE_MAX:
            self._heap = [(when, number, one) for one, (when, number) in self._at.items()]
            heapq.heapify(self._heap)
        if self.sooner is not None and self._heap[0][1] == self._entries:
            self.sooner()

    def drop(self, key: str) -> None:
        """``key`` is not due any more."""
        self._at.pop(key, None)

    def first(self) -> tuple[datetime, str] | None:
        """The earliest with its instant; it stays. Of several at one instant, the one that was set first."""
        while self._heap:
            at, number, key = self._heap[0]
            if self._at.get(key) == (at, number):
                return at, key
            heapq.heappop(self._heap)
        return None

    def to_be_seen(self) -> datetime | None:
        """From when on there is something to be seen; None when nothing is on it."""
        first = self.first()
        return None if first is None else first[0] - self.looked_ahead

    def take(self, now: datetime) -> str | None:
        """The earliest that is due by ``now``, taken off; None when nothing is."""
        first = self.first()
        if first is None or first[0] > now:
            return None
        heapq.heappop(self._heap)
        del self._at[first[1]]
        return first[1]

    def until(self, end: datetime, most: int) -> list[datetime]:
        """The instants up to ``end``, in no order, at most so many. Costs what is found, not what there is."""
        return [at for _, at in zip(range(most), self._walk(end), strict=False)]

    def _walk(self, end: datetime) -> Iterator[datetime]:
        # Nothing below an entry of the heap is earlier than the entry.
        left = [0]
        while left:
            place = left.pop()
            if place < len(self._heap) and self._heap[place][0] <= end:
                at, number, key = self._heap[place]
                if self._at.get(key) == (at, number):
                    yield at
                left += (2 * place + 1, 2 * place + 2)
