"""Windows that all processes count in together, in Redis: one script, one round trip, and never a long wait for it.

Redis is not needed. While it does not answer, each process counts in its own memory, where it has kept count all along,
so whoever puts Redis out of action gets one allowance for each process and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from models.ports import Window
from server.limits import LocalWindows

log = structlog.get_logger(__name__)

# A sign-in waits this long for the count at most; Redis answers in less than one.
TIMEOUT_SECONDS = 0.25
# After a time-out nobody waits for it again for so long.
REST_SECONDS = 2.0
CONNECTIONS_MAX = 8

# Of each window the instants of its last ``most``, newest first, in milliseconds: the oldest of them says when there is
# room. Now comes from the caller, for tests turn their own clocks. A clock that was set back does not lock for ever.
_SCRIPT = """
local now = tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
  local most, span = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local first = redis.call('LINDEX', key, most - 1)
  if first then
    local wait = tonumber(first) + span - now
    if wait > span then wait = span end
    if wait > 0 then return wait end
  end
  redis.call('LPUSH', key, ARGV[1])
  redis.call('LTRIM', key, 0, most - 1)
  redis.call('PEXPIRE', key, span)
end
return 0
"""


class SharedWindows:
    """``models.ports.Windows`` in the Redis at ``url``, for the servers of database ``name``.

    ``told(up)`` hears of each change between Redis and memory.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        told: Callable[[bool], None] = lambda up: None,
        timeout_seconds: float | None = None,
    ) -> None:
        timeout_seconds = timeout_seconds or TIMEOUT_SECONDS
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Redis = Redis(connection_pool=pool)
        self._script = self._redis.register_script(_SCRIPT)
        # One slot of a cluster holds them all, as a script needs it.
        self._prefix = f"ringmeter:{{{name}}}:w:"
        self._timeout = timeout_seconds
        self._told = told
        self._local = LocalWindows()
        self._rests_until = 0.0
        self.up = True
        told(True)

    async def take(self, *windows: Window, now: float) -> int:
        """See ``models.ports.Windows``."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._rests_until:
            return self._local.count(windows, now)
        keys = [self._prefix + window.key for window in windows]
        words: list[Any] = [round(now * 1000)]
        for window in windows:
            words += [window.most, round(window.seconds * 1000)]
        try:
            async with asyncio.timeout(self._timeout):
                wait = int(await self._script(keys=keys, args=words))
        except (RedisError, OSError, TimeoutError) as fault:
            self._rests_until = loop.time() + REST_SECONDS
            self._now(False, repr(fault))
            return self._local.count(windows, now)
        self._now(True)
        if not wait:
            self._local.count(windows, now)
        return wait

    def _now(self, up: bool, why: str = "") -> None:
        if up == self.up:
            return
        self.up = up
        self._told(up)
        if up:
            log.info("limits are counted in Redis again, for all processes together")
        else:
            log.warning("limits are counted by each process for itself: Redis does not answer", error=why)

    async def close(self) -> None:
        """Let the connections go."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
