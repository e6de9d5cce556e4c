"""Three processes of the server on one MongoDB and one Redis, each with a port of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import aiohttp

from models.audit.service import audit
from models.db import Database
from server.clock import SystemClock
from server.mongod import EmbeddedMongod
from tests.chaos.replica_set import ReplicaSet
from tests.doors.redis_server import RedisServer
from tests.doors.serverprocess import ServerProcess, eventually

PROCESSES = 3
# Eleven minor units every three seconds and a fee: whoever is charged for a second too much shows it.
PRICES = {
    "CALL_RATE_MINOR": "220",
    "CALL_FIRST_BLOCK_SECONDS": "1",
    "CALL_BLOCK_SECONDS": "1",
    "CALL_MINIMUM_MINOR": "2",
    "CALL_CONNECT_FEE_MINOR": "7",
    "DISPUTE_WINDOW_SECONDS": "1",
}
ENV = {
    **PRICES,
    "JWT_SECRET": "a secret of the tests, long enough for HS256",
    "RING_SECONDS": "15",
    "CONNECT_SECONDS": "15",
    "RECONNECT_SECONDS": "30",
    "CALLER_GRACE_SECONDS": "10",
    "LOG_LEVEL": "warning",
}


@dataclass
class Town:
    """``servers``, their ``redis`` and the database they share."""

    servers: list[ServerProcess]
    redis: RedisServer
    db: Database
    replica_set: ReplicaSet | None = None

    def urls(self, first: int) -> list[str]:
        """The addresses of all, beginning with one of them: a load balancer that goes round."""
        urls = [server.address for server in self.servers]
        first %= len(urls)
        return urls[first:] + urls[:first]

    @property
    def deadline_seconds(self) -> float:
        """After so long nothing that is without its people may still be live: noticed, waited for, ended."""
        env = self.servers[0].env
        waits = ("RING_SECONDS", "CONNECT_SECONDS", "RECONNECT_SECONDS", "CALLER_GRACE_SECONDS")
        return 8.0 + max(float(env[name]) for name in waits) + 5.0

    async def joined(self) -> None:
        """All of them reach the database and Redis."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http:

            async def reached(address: str) -> bool:
                try:
                    async with http.get(f"{address}/health") as answer:
                        said = await answer.json()
                except (aiohttp.ClientError, TimeoutError):
                    return False
                return bool((said["status"], said["redis"]) == ("ok", "up"))

            for server in self.servers:
                await eventually(lambda s=server: reached(s.address), within=30, what="reaches all it needs")

    async def ends(self, call_id: str) -> bool:
        """Wait for the end of a call in the database; whether it comes by its deadlines."""

        async def ended() -> bool:
            return (
                await self.db.db["calls"].find_one({"_id": call_id, "state": "ended"}, {"_id": 1}) is not None
            )

        try:
            return bool(await eventually(ended, within=self.deadline_seconds))
        except AssertionError:
            return False

    async def kill(self, number: int) -> None:
        await asyncio.to_thread(self.servers[number].kill)

    async def start(self, number: int) -> None:
        await asyncio.to_thread(self.servers[number].start)

    async def drain(self, number: int) -> int:
        """SIGTERM and the wait for the end; the exit status."""
        return await asyncio.to_thread(self.servers[number].drain)

    def freeze(self, number: int) -> None:
        self.servers[number].signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self.servers[number].signal(signal.SIGCONT)

    async def audit(self, *, beside: bool = True) -> tuple[int, str]:
        """``main.py audit``: its exit status and its words. Not ``beside``: the same within this process."""
        if not beside:
            report = await audit(self.db, SystemClock().now())
            return 0 if report.clean else 1, repr([tally.named for tally in report.tallies if tally.broken])
        done = await asyncio.to_thread(self.servers[0].command, "audit")
        return done.returncode, done.stdout + done.stderr


@asynccontextmanager
async def open_town(
    folder: Path, *, mongo_uri: str | None = None, members: int = 1, **env: str
) -> AsyncIterator[Town]:
    """Everything running; gone at the end. With ``members`` the MongoDB is a replica set of so many."""
    redis = await RedisServer(folder).start()
    mongod, replica_set = None, None
    servers: list[ServerProcess] = []
    db: Database | None = None
    try:
        if members > 1:
            replica_set = ReplicaSet(folder / "set", members)
            mongo_uri = await replica_set.start()
        elif mongo_uri is None:
            mongod = EmbeddedMongod(folder / "mongod", fast=True)
            mongo_uri = await mongod.start()
        name = f"chaos-{uuid4().hex[:12]}"
        db = Database(mongo_uri, name)
        settings = {**ENV, "REDIS_URL": redis.url, **env}
        for number in range(PROCESSES):
            server = ServerProcess(folder / f"p{number}", mongo_uri=mongo_uri, database=name, **settings)
            servers.append(server)
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        town = Town(servers, redis, db, replica_set)
        await town.joined()
        yield town
    finally:
        for server in servers:
            if server.process is not None:
                server.signal(signal.SIGCONT)
        await asyncio.gather(*(asyncio.to_thread(_end, server) for server in servers))
        if db is not None:
            if replica_set is None and mongod is None:
                await db.client.drop_database(db.db.name)
            await db.close()
        if mongod is not None:
            await mongod.stop()
        if replica_set is not None:
            await replica_set.stop()
        await redis.kill()


def _end(server: ServerProcess) -> None:
    if server.process is not None:
        server.kill()
