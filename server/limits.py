"""Rates per device, address, account and pair (CONTRACT §1), in this process's memory."""

from __future__ import annotations

from collections import OrderedDict, deque

# Keys remembered; the least recently used are forgotten first, which only ever favours the client.
KEYS_MAX = 100_000


class TokenBucket:
    """``rate`` per second with a ``burst``; each key has its own bucket."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> int:
        """Take one token at ``now`` (monotonic seconds). 0, or the milliseconds until there is one."""
        level, at = self._buckets.get(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        if level < 1:
            return max(1, round((1 - level) / self._rate * 1000))
        self._buckets[key] = (level - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > KEYS_MAX:
            self._buckets.popitem(last=False)
        return 0


class SlidingWindow:
    """At most ``most`` in any ``seconds``; for what must be strict, such as guesses at a password."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, key: str, now: float) -> int:
        """Count one at ``now`` (monotonic seconds). 0, or the milliseconds until one more is allowed."""
        times = self._times.setdefault(key, deque())
        self._times.move_to_end(key)
        while times and times[0] <= now - self._seconds:
            times.popleft()
        if len(times) >= self._most:
            return max(1, round((times[0] + self._seconds - now) * 1000))
        times.append(now)
        if len(self._times) > KEYS_MAX:
            self._times.popitem(last=False)
        return 0
