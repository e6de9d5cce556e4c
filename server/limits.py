"""Rates per device, address, account and pair (CONTRACT §1), in this process's memory."""

from __future__ import annotations

from collections import OrderedDict, deque

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
