"""The servers that are compared, each a process of its own, and the pairs of phones between which they relay."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from server.processes import free_port
from tests.bench.calls import STRAGGLERS_SECONDS, Attempt, Exchange
from tests.bench.machine import POLL_SECONDS, ROOT, START_SECONDS_MAX, Cores, NoStart, Server
from tests.bench.people import Person, register
from tests.bench.phone import Phone, now
from tests.bench.plan import Told

NODE_RELAY = ROOT / "tests" / "js" / "relay.mjs"
NODE_SERVER = ROOT / "tests" / "js" / "node_modules" / "socket.io" / "package.json"
AT_ONCE = 10
# A call's id here, so that a room's is as long and all frames are.
ID_SIZE = 36

Pair = tuple[Phone, Phone, str]


class Contender(Protocol):
    """``pair_up`` makes what is relayed between: for this server calls, for the others rooms."""

    name: str
    title: str
    acks: bool

    @property
    def pid(self) -> int: ...

    @property
    def url(self) -> str: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def people(self, count: int, told: Told) -> list[Person]: ...

    async def pair_up(self, phones: Sequence[Phone], told: Told) -> list[Pair]: ...

    async def part(self, pairs: Sequence[Pair]) -> None: ...


class Ours:
    """This server as it is shipped: users who have registered, calls that were asked for and accepted."""

    name, title, acks = "ringmeter", "this server, full checks", True

    def __init__(self, cores: Cores, folder: Path, mongo_uri: str) -> None:
        settings = {
            "MONGO_URI": mongo_uri,
            "BCRYPT_ROUNDS": "4",
            "AUTH_PER_MINUTE": "1000000",
            "RINGS_PER_MINUTE": "1000000",
            "CALL_RATE_MINOR": "0",
        }
        self._server = Server(cores, folder, settings)
        self._people: list[Person] = []

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def url(self) -> str:
        return self._server.url

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    async def people(self, count: int, told: Told) -> list[Person]:
        """They are made once and sign on again in every round."""
        missing = count - len(self._people)
        if missing > 0:
            self._people += await register(self.url, f"peer{len(self._people)}x", missing, told)
        return self._people[:count]

    async def pair_up(self, phones: Sequence[Phone], told: Told) -> list[Pair]:
        half = len(phones) // 2
        exchange = Exchange(list(phones[:half]), list(phones[half:]))
        exchange.hang_up = False
        made: list[Attempt] = []
        while len(made) < half:
            batch = [exchange.place(now()) for _ in range(min(AT_ONCE, half - len(made)))]
            await asyncio.wait([one.done for one in batch], timeout=STRAGGLERS_SECONDS)
            made += batch
            told(len(made) / half)
        bad = [one.fault or "no answer" for one in made if one.fault or not one.told]
        if bad:
            raise RuntimeError(f"of {half} calls {len(bad)} did not come about: {bad[0]}")
        return [(one.caller, one.callee, one.call_id or "") for one in made]

    async def part(self, pairs: Sequence[Pair]) -> None:
        for start in range(0, len(pairs), AT_ONCE):
            ended = []
            for caller, _, call_id in pairs[start : start + AT_ONCE]:
                done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
                caller.emit("CALL_ENDED", {"callId": call_id}, lambda ack, _, done=done: done.set_result(ack))
                ended.append(done)
            await asyncio.wait(ended, timeout=STRAGGLERS_SECONDS)

    def warnings(self) -> list[str]:
        """What it has logged."""
        return self._server.warnings()


class Bare:
    """A relay by room without any checks. The token of a connection is its room."""

    def __init__(
        self,
        name: str,
        title: str,
        command: Callable[[int], list[str]],
        cores: Cores,
        folder: Path,
        *,
        acks: bool,
    ) -> None:
        self.name, self.title, self.acks = name, title, acks
        self._command, self._cores = command, cores
        self._log = folder / f"{name}.log"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._port = free_port()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as out:
            self._process = subprocess.Popen(
                self._command(self._port), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        if self._cores.server:
            os.sched_setaffinity(self.pid, self._cores.server)
        until = time.perf_counter() + START_SECONDS_MAX
        while time.perf_counter() < until and self._process.poll() is None:
            with socket.socket() as door:
                if door.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            await asyncio.sleep(POLL_SECONDS)
        await self.stop()
        raise NoStart(f"{self.title} did not start:\n{self._log.read_text(errors='replace')[-2000:]}")

    async def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    async def people(self, count: int, told: Told) -> list[Person]:
        half = count // 2
        return [Person(f"u{n}", f"u{n}", _room(n % half)) for n in range(count)]

    async def pair_up(self, phones: Sequence[Phone], told: Told) -> list[Pair]:
        half = len(phones) // 2
        return [(phones[n], phones[half + n], _room(n)) for n in range(half)]

    async def part(self, pairs: Sequence[Pair]) -> None:
        """Nothing keeps them together but their connections."""


def _room(number: int) -> str:
    return f"room{number:0{ID_SIZE - 4}d}"


def contenders(cores: Cores, folder: Path, mongo_uri: str, names: Sequence[str]) -> list[Contender]:
    """Those that are asked for. Raises ``NoStart`` when Node or its server is missing."""

    def module(name: str) -> Callable[[int], list[str]]:
        return lambda port: [sys.executable, "-m", f"tests.bench.peers.{name}", str(port)]

    node = shutil.which("node") or "node"
    every: list[Contender] = [
        Ours(cores, folder / "ringmeter", mongo_uri),
        Bare(
            "node",
            "Node socket.io, bare relay",
            lambda port: [node, str(NODE_RELAY), str(port)],
            cores,
            folder,
            acks=True,
        ),
        Bare("stock", "python-socketio as it comes", module("stock"), cores, folder, acks=True),
        Bare("aiohttp", "bare aiohttp WebSocket", module("bare"), cores, folder, acks=False),
    ]
    chosen = [one for one in every if one.name in names]
    if "node" in names and not (shutil.which("node") and NODE_SERVER.exists()):
        raise NoStart("Node's socket.io is not installed: `npm ci` in tests/js (make bench-peers does it).")
    return chosen


NAMES = ("ringmeter", "node", "stock", "aiohttp")
