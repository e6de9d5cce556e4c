"""Three mongods as one replica set, whose primary can be made to step down."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from server.mongod import FOR_TESTS, SET_NAME, find_mongod
from server.processes import free_port, listens
from tests.doors.serverprocess import eventually

# Members that hear nothing of a primary for so long elect one.
ELECTION_MS = 2000


class ReplicaSet:
    """``uri`` names all members. Without a password: they listen on this machine only, and hold nothing of anybody."""

    def __init__(self, folder: Path, members: int) -> None:
        self._folder = folder
        self._ports: list[int] = []
        while len(self._ports) < members:
            port = free_port()
            if port not in self._ports:
                self._ports.append(port)
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def uri(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"mongodb://{hosts}/?replicaSet={SET_NAME}"

    async def start(self) -> str:
        """Start all, and wait until one of them takes writes."""
        binary = find_mongod()
        for number, port in enumerate(self._ports):
            folder = self._folder / f"m{number}"
            folder.mkdir(parents=True)
            words = [
                *("--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1"),
                *("--replSet", SET_NAME, "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64"),
                *("--setParameter", "diagnosticDataCollectionEnabled=false"),
                *("--setParameter", "transactionLifetimeLimitSeconds=6"),
                *(*FOR_TESTS, "--noscripting", "--quiet", "--nounixsocket"),
            ]
            with open(self._folder / f"m{number}.log", "wb") as log:
                self._processes.append(
                    subprocess.Popen(
                        [str(binary), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                    )
                )
        await eventually(lambda: all(listens(port) for port in self._ports), within=60)
        members = [
            {"_id": number, "host": f"127.0.0.1:{port}", "priority": 2 if number == 0 else 1}
            for number, port in enumerate(self._ports)
        ]
        config = {
            "_id": SET_NAME,
            "members": members,
            "writeConcernMajorityJournalDefault": False,
            "settings": {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": 500},
        }
        async with _client(f"mongodb://127.0.0.1:{self._ports[0]}/?directConnection=true") as client:
            await client.admin.command("replSetInitiate", config)
        await eventually(self.primary, within=60, what="a primary")
        return self.uri

    async def primary(self) -> str | None:
        """The address of the member that takes writes."""
        async with _client(self.uri) as client:
            with contextlib.suppress(PyMongoError):
                hello = await client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return str(hello["me"])
        return None

    async def step_down(self, seconds: int = 30) -> str:
        """The primary gives its place up to another; the address of the new one."""
        before = await eventually(self.primary, what="a primary")
        async with _client(self.uri) as client:
            with contextlib.suppress(PyMongoError):  # it may close the connection on which it was told
                await client.admin.command("replSetStepDown", seconds, secondaryCatchUpPeriodSecs=10)

        async def another() -> str | None:
            now = await self.primary()
            return now if now != before else None

        after: str = await eventually(another, within=30, what="another primary")
        return after

    async def stop(self) -> None:
        """Nothing of it is kept."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            await asyncio.to_thread(process.wait, 10)


@contextlib.asynccontextmanager
async def _client(uri: str) -> Any:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, serverSelectionTimeoutMS=3000)
    try:
        yield client
    finally:
        await client.close()
