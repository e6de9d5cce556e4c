"""A real server: ``python main.py`` in a process of its own, which a test may kill, drain and start again.

Where a test is not about the start, the process is forked from one that has imported all of it: see ``warm``.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.uri_parser import parse_uri

from server.mongod import put_away
from tests import databases
from tests.doors import warm
from tests.patience import PATIENT_MS

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "main.py"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
# Quick hashes, no public STUN server, no waiting between sign-ins, free calls: what a test needs and no user wants.
TEST_ENV = {
    "PORT": "0",
    "STUN_URLS": "none",
    "BCRYPT_ROUNDS": "4",
    "AUTH_PER_MINUTE": "100000",
    "RINGS_PER_MINUTE": "1000000",
    "STRANGER_RINGS_PER_MINUTE": "1000000",
    "DECLINE_COOL_OFF_SECONDS": "0",
    "EXPO_URL": "http://127.0.0.1:9/",
    "LOG_LEVEL": "info",
    "CALL_RATE_MINOR": "0",
}
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT", "COVERAGE_PROCESS_START")


def program(name: str, package: str) -> str:
    """The path of a program that a test needs. Without it the test skips, under ``CI=true`` it fails."""
    path = shutil.which(name)
    if path is None:
        said = f"{name} is missing: apt-get install {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    return path


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], *, within: float = 15.0, what: str = ""
) -> Any:
    """The first true value of ``condition``, asked again and again; an AssertionError after ``within`` seconds.

    A condition that asks the server is asked less often than ten times a second, which is a device's limit.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    while True:
        found, pause = condition(), 0.03
        if inspect.isawaitable(found):
            found, pause = await found, 0.15
        if found:
            return found
        assert loop.time() < until, f"not within {within:g} s: {what or inspect.getsource(condition).strip()}"
        turn: asyncio.Future[None] = loop.create_future()
        loop.call_later(pause, lambda one=turn: one.done() or one.set_result(None))
        await turn


class ServerProcess:
    """``python main.py run`` in ``folder``: ``address`` and ``port`` once it has said its line.

    Without ``mongo_uri`` it brings its embedded database, in ``folder/.data``. ``env`` wins over ``TEST_ENV``.
    ``cold``: with an interpreter of its own, as have those that start processes themselves.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mongo_uri: str | None = None,
        database: str | None = None,
        words: tuple[str, ...] = (),
        cold: bool = False,
        **env: str,
    ) -> None:
        self.words = words
        self.cold = cold or "--processes" in words or "COVERAGE_PROCESS_START" in os.environ
        self.folder = folder
        self.data_dir = folder / ".data"
        folder.mkdir(parents=True, exist_ok=True)
        self.env = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.env |= TEST_ENV | {"DATA_DIR": str(self.data_dir)} | env
        if mongo_uri is not None:
            self.env["MONGO_URI"] = mongo_uri
        if database is not None:
            self.env["MONGO_DATABASE"] = database
        self.process: subprocess.Popen[bytes] | warm.Forked | None = None
        self.port = 0
        self.line = ""
        self.started_in = 0.0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def begin(self, *words: str) -> None:
        """Start ``python main.py words…``, and wait for nothing."""
        # Files, not pipes: nobody reads a pipe all the time, and a full one would stop the server.
        error, said = self.folder / "server.log", self.folder / "server.out"
        if not self.cold:
            self.process = warm.Forked(words, cwd=self.folder, env=self.env, out=said, err=error)
            return
        with open(error, "ab") as log, open(said, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(MAIN), *words],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
            )

    def start(self) -> ServerProcess:
        """Start it and wait for its line. A second start takes the same port, so that clients find it again."""
        began = time.monotonic()
        if self.port:
            self.env["PORT"] = str(self.port)
        self.begin("run", *self.words)
        assert self.process is not None
        self.line = self._first_line()
        found = re.search(r"http://[^\s/]+:(\d+)", self.line)
        if found is None:
            self.process.kill()
            self.ended()
        assert found is not None, f"the server did not start: {self.line!r}\n{self.log()[-3000:]}"
        self.port = int(found[1])
        self.started_in = time.monotonic() - began
        return self

    def _first_line(self) -> str:
        """The line with the address; log lines may come before it."""
        assert self.process is not None
        until = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.said().splitlines(keepends=True):
                if line.startswith("Ringmeter ") and line.endswith("\n"):
                    return line
            select.select([], [], [], 0.02)
        return self.said()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end of the process: its exit status."""
        assert self.process is not None
        status = self.process.wait(STOP_SECONDS_MAX)
        self.process = None
        return status

    def kill(self) -> None:
        """SIGKILL: no last word, no clean-up. An embedded database stays behind, as after a crash."""
        self.signal(signal.SIGKILL)
        self.ended()

    def drain(self) -> int:
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def stop(self) -> None:
        """For the end of a test: nothing of it is left, whatever state it is in."""
        if self.process is not None:
            self.signal(signal.SIGTERM)
            try:
                self.ended()
            except subprocess.TimeoutExpired:
                self.kill()
        if self.data_dir.exists():
            asyncio.run(put_away(self.data_dir))

    def said(self) -> str:
        """What it wrote to standard output since its last start."""
        return (self.folder / "server.out").read_text(errors="replace")

    def log(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "server.log").read_text(errors="replace")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``python main.py words…`` beside it, with the same configuration."""
        if not self.cold:
            return warm.run(words, cwd=self.folder, env=self.env | {"COLUMNS": "200"})
        return subprocess.run(
            [sys.executable, str(MAIN), *words],
            cwd=self.folder,
            env=self.env | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[ServerProcess]:
    """A started server, gone at the end."""
    server = ServerProcess(folder, **settings)
    try:
        yield server.start()
    finally:
        server.stop()


@asynccontextmanager
async def lodging(uri: str) -> AsyncIterator[str]:
    """A database of the session's mongod for servers that have all ended at the end, by whatever.

    It is a prepared one: for a server to make its collections costs more than all else of its start.
    """
    name, _ = databases.take(uri)
    yield name
    await _give_back(uri, name)


@contextmanager
def lodging_now(uri: str) -> Iterator[str]:
    """``lodging`` where there is no loop."""
    name, _ = databases.take(uri)
    yield name
    asyncio.run(_give_back(uri, name))


async def _give_back(uri: str, name: str) -> None:
    async with AsyncMongoClient[Any](uri, serverSelectionTimeoutMS=PATIENT_MS) as client:
        if await _heard_out(parse_uri(uri)["nodelist"][0][1]):
            await databases.give_back(uri, name, client)
        else:
            await client.drop_database(name)


async def _heard_out(port: int) -> bool:
    """Whether the one at this port has read all that was sent to it by processes which have been killed since.

    A connection whose other end is gone stays in CLOSE_WAIT until it was read to its end.
    """
    table = Path("/proc/net/tcp")
    if not table.exists():
        return False
    waits = re.compile(rf"^ *\d+: [0-9A-F]{{8}}:{port:04X} [0-9A-F:]+ 08 ", re.MULTILINE)
    await eventually(lambda: not waits.search(table.read_text()))
    return True


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024
