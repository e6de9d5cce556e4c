"""Several processes of the server and a Redis: what a candidate costs them all together, and whom it wakes.

The callers of each process talk to people of the next one, so every message goes from one process to another. All
that the processes and Redis spend is counted, also what they spend for themselves; what that is, a rest before says.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import aiohttp

from tests.bench import calls, relay
from tests.bench.machine import Cores, Server, Spent, busy_seconds, stolen_seconds
from tests.bench.peers.meter import ahead, cpu_clock
from tests.bench.people import register
from tests.bench.phone import Phone, connect_all
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round
from tests.doors.redis_server import RedisServer

JOIN_SECONDS_MAX = 30.0
# For five seconds after a process has come all read more often what others have written.
SETTLE_SECONDS = 7.0
# In place of a rate: as many as go through.
FLAT_OUT = 0.0
# What processes say to themselves, to know that the line works.
TO_ITSELF = "beat"
_COUNTED = re.compile(r'^ringmeter_bus_(published|received)_total\{kind="(\w+)"\} (\S+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Several:
    """Processes that are counted together."""

    pids: tuple[int, ...]

    def meter(self) -> Meter:
        """Begin to count."""
        return Meter(self)


class Meter:
    """Their CPU time over a stretch of time."""

    def __init__(self, several: Several) -> None:
        self._pids = several.pids
        self._begun = self._all()

    def read(self) -> Spent:
        """What was spent since it was made."""
        seconds, servers, own, busy = (now - then for now, then in zip(self._all(), self._begun, strict=True))
        return Spent(seconds, servers, own, max(0.0, busy - servers - own))

    def _all(self) -> tuple[float, ...]:
        spent = sum(cpu_clock(pid) for pid in self._pids)
        return time.perf_counter(), spent, time.process_time(), busy_seconds()


class Town:
    """``count`` processes with one Redis, and running calls between them."""

    def __init__(self, servers: list[Server], redis: RedisServer) -> None:
        self.servers, self.count = servers, len(servers)
        self.several = Several((*(server.pid for server in servers), redis.pid))
        self.rest_share = 0.0
        self.board: relay.Relay

    async def call(self, pairs: int, told: Told) -> None:
        """Let each of ``pairs`` talk to somebody at the next process; from then on ``board`` sends."""
        people = await register(self.servers[0].url, f"p{self.count}-", 2 * pairs, told)
        phones = [Phone(one) for one in people]
        for number, server in enumerate(self.servers):
            here = [phone for at, phone in enumerate(phones[:pairs]) if at % self.count == number]
            here += [phone for at, phone in enumerate(phones[pairs:]) if (at + 1) % self.count == number]
            await connect_all(here, server.url, lambda: None)
        exchange = calls.Exchange(phones[:pairs], phones[pairs:])
        self.board = relay.relay_over(await calls.keep_running(exchange, pairs))
        await asyncio.sleep(SETTLE_SECONDS)

    async def rest(self, seconds: float) -> None:
        """What all of them take for themselves while the calls run and nobody says anything."""
        meter = self.several.meter()
        await asyncio.sleep(seconds)
        spent = meter.read()
        self.rest_share = spent.server / spent.seconds

    async def said(self) -> dict[str, Counter[str]]:
        """What all of them have published and received so far, by kind."""
        found: dict[str, Counter[str]] = {"published": Counter(), "received": Counter()}
        async with aiohttp.ClientSession() as http:
            for server in self.servers:
                async with http.get(f"{server.url}/metrics") as answer:
                    for which, kind, count in _COUNTED.findall(await answer.text()):
                        if kind != TO_ITSELF:
                            found[which][kind] += round(float(count))
        return found


@asynccontextmanager
async def town(
    count: int, uri: str, folder: Path, cores: Cores, settings: Mapping[str, str]
) -> AsyncIterator[Town]:
    """Everything running on a database of its own; gone at the end."""
    folder.mkdir(parents=True)
    redis = RedisServer(folder)
    servers: list[Server] = []
    try:
        await redis.start()
        if cores.server:
            os.sched_setaffinity(redis.pid, cores.server)
        env = {
            **settings,
            "MONGO_URI": uri,
            "MONGO_DATABASE": f"bench-{uuid4().hex[:8]}",
            "REDIS_URL": redis.url,
            "JWT_SECRET": uuid4().hex * 2,
        }
        for number in range(count):
            server = Server(cores, folder / f"p{number}", env)
            servers.append(server)
            await server.start()
        await _joined(servers)
        yield Town(servers, redis)
    finally:
        await asyncio.gather(*(server.stop() for server in servers))
        await redis.kill()


async def _joined(servers: list[Server]) -> None:
    """All of them reach Redis, and have seen one another's beats in the database."""
    until = time.perf_counter() + JOIN_SECONDS_MAX
    async with aiohttp.ClientSession() as http:
        for server in servers:
            while time.perf_counter() < until:
                async with http.get(f"{server.url}/health") as answer:
                    if (await answer.json()).get("redis") == "up":
                        break
                await asyncio.sleep(0.1)
            else:
                raise RuntimeError("a process does not reach Redis")
    await asyncio.sleep(5)


async def candidates(here: Town, rate: float, plan: Plan, told: Told) -> Round:
    """One round of candidates at a rate, or with ``FLAT_OUT`` as many as go through."""
    seconds = plan.process_flood_seconds if rate == FLAT_OUT else plan.process_seconds
    plan = replace(plan, relay_rate=rate, relay_seconds=seconds)
    with ahead(*here.several.pids):
        await here.rest(plan.process_rest_seconds)  # in the same circumstances as the round
    before = await here.said()
    with ahead(*here.several.pids):
        measure = relay.flat_out if rate == FLAT_OUT else relay.steady
        began, stolen = time.perf_counter(), stolen_seconds()
        done = await measure(here.board, plan, here.several, told)
        stolen_share = (stolen_seconds() - stolen) / (time.perf_counter() - began)
    after = await here.said()
    count = len(here.board.due)
    published, received = (after[which] - before[which] for which in ("published", "received"))
    cpu, passed = done.figures["server_cpu_us_per_message"], done.figures.get("messages_per_s", rate)
    figures = {
        "processes": float(here.count),
        "asked_per_s": rate,
        "passed_per_s": passed,
        "cpu_us_per_message": cpu,
        "rest_cpu_share": here.rest_share,
        "cpu_us_beyond_rest": cpu - here.rest_share / passed * 1e6,
        "published_per_message": published.total() / count,
        "stolen_cpu_share": stolen_share,
        "woken_per_message": received.total() / count,
        **{name: value for name, value in done.figures.items() if name.startswith(("taken", "gen", "oth"))},
    }
    return Round(figures, done.faults)
