"""Rates in this process's memory: of devices, which are at one process, and of what has no Redis to be counted in."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from models.ports import Window

# Keys remembered; the least recently used are forgotten first, which only ever favours the client.
KEYS_MAX = 100_000


class Allowance:
    """What is left of one bucket at an instant; whoever holds it may take from it without a look into the table."""

    __slots__ = ("at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst = rate, burst
        self.level, self.at = burst, now

    def take(self, now: float) -> bool:
        """Take one token at ``now`` (monotonic seconds), if there is one."""
        level = self.level + (now - self.at) * self.rate
        if level > self.burst:
            level = self.burst
        self.at = now
        if level < 1:
            self.level = level
            return False
        self.level = level - 1
        return True

    def wait(self) -> int:
        """The milliseconds until there is one, as of the last ``take``."""
        return max(1, round((1 - self.level) / self.rate * 1000))


class TokenBucket:
    """``rate`` per second with a ``burst``; each key has its own bucket."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, Allowance] = OrderedDict()

    def of(self, key: str, now: float) -> Allowance:
        """The bucket of one key."""
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = Allowance(self._rate, self._burst, now)
            if len(self._buckets) > KEYS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return found

    def take(self, key: str, now: float) -> int:
        """Take one token at ``now`` (monotonic seconds). 0, or the milliseconds until there is one."""
        bucket = self.of(key, now)
        return 0 if bucket.take(now) else bucket.wait()


class LocalWindows:
    """``models.ports.Windows`` in this process's memory."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    async def take(self, *windows: Window, now: float) -> int:
        """See ``models.ports.Windows``."""
        return self.count(windows, now)

    def count(self, windows: Sequence[Window], now: float) -> int:
        """As ``take``, at once."""
        for window in windows:
            wait = self._count(window, now)
            if wait:
                return wait
        return 0

    def _count(self, window: Window, now: float) -> int:
        times = self._times.setdefault(window.key, deque())
        self._times.move_to_end(window.key)
        while times and times[0] <= now - window.seconds:
            times.popleft()
        if len(times) >= window.most:
            return max(1, round((times[-window.most] + window.seconds - now) * 1000))
        times.append(now)
        if len(self._times) > KEYS_MAX:
            self._times.popitem(last=False)
        return 0

    async def close(self) -> None:
        """Nothing to let go."""
