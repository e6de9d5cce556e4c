"""``run --processes N``: one process that serves nobody and keeps N that do, all at one port.

- The port is reserved by a socket that is bound and never listens, so that children may come and go at it.
- A child that dies is started again, later and later while it keeps dying.
- SIGHUP replaces them one after the other: a new one serves before the old one is sent away, so that the phones of the
  old one find somebody. SIGTERM and SIGINT send all away.
- A child's standard input is open as long as this process lives; when it ends, the child drains.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)

# A child that starts finds the database there, so it takes a second or two; an old one may make indexes first.
READY_SECONDS = 60.0
# A drain takes at most ten.
GONE_SECONDS = 13.0
BACK_OFF_SECONDS = (0.2, 1.0, 3.0, 10.0, 30.0)
# One that has served so long has not died of its start.
LIVED_SECONDS = 30.0
READY = b"ready\n"


@dataclass(eq=False)
class Child:
    """A process that serves; ``leaving`` when it was told to go."""

    number: int
    process: asyncio.subprocess.Process
    leaving: bool = False


class Supervisor:
    """``command`` starts a child when ``--member FOLDER:NUMBER`` is added to it."""

    def __init__(self, command: Sequence[str], env: dict[str, str], count: int) -> None:
        self._command, self._env, self._count = list(command), env, count
        self._children: set[Child] = set()
        self._numbers = 0
        self._stopping = asyncio.Event()
        self._rolling = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="ringmeter-")

    async def start(self) -> bool:
        """Start all; False when the first one could not."""
        if await self._new() is None:
            return False
        await asyncio.gather(*(self._new() for _ in range(self._count - 1)))
        for _ in range(self._count - len(self._children)):
            self._spawn(self._replace(0))
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Keep them until ``stop``, then send all away and wait for them."""
        await stop.wait()
        self._stopping.set()
        for task in self._work:
            task.cancel()
        for child in self._children:
            self._send(child, signal.SIGTERM)
        await asyncio.gather(*(self._gone(child) for child in list(self._children)))
        self._folder.cleanup()

    def roll(self) -> None:
        """Replace all children, one after the other; once more while it goes on does nothing."""
        if not self._rolling.locked():
            self._spawn(self._roll())

    async def _roll(self) -> None:
        async with self._rolling:
            for old in sorted(self._children, key=lambda child: child.number):
                new = await self._new()
                if new is None:
                    log.error("the new process does not serve; the old ones stay")
                    return
                self._send(old, signal.SIGTERM)
                await self._gone(old)
            log.info("all processes are new", processes=[child.process.pid for child in self._children])

    async def _new(self) -> Child | None:
        """A child that serves, or None when it does not come to that."""
        self._numbers += 1
        child = Child(
            self._numbers,
            await asyncio.create_subprocess_exec(
                *self._command,
                "--member",
                f"{self._folder.name}:{self._numbers}",
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            ),
        )
        self._children.add(child)
        assert child.process.stdout is not None
        said = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                said = await child.process.stdout.readline()
        if said != READY:
            child.leaving = True
            self._send(child, signal.SIGKILL)
            await self._gone(child)
            return None
        log.info("a process serves", number=child.number, pid=child.process.pid)
        self._spawn(self._watch(child))
        return child

    async def _watch(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        status = await child.process.wait()
        if child.leaving or self._stopping.is_set():
            return
        self._children.discard(child)
        log.error("a process has died; starting another", pid=child.process.pid, status=status)
        await self._replace(0 if loop.time() - began > LIVED_SECONDS else 1)

    async def _replace(self, failures: int) -> None:
        while not self._stopping.is_set():
            if failures:
                await asyncio.sleep(BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1])
            if await self._new() is not None:
                return
            failures += 1

    async def _gone(self, child: Child) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_SECONDS):
                await child.process.wait()
        if child.process.returncode is None:
            self._send(child, signal.SIGKILL)
            await child.process.wait()
        self._children.discard(child)

    def _send(self, child: Child, number: int) -> None:
        child.leaving = True
        with suppress(ProcessLookupError):
            child.process.send_signal(number)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds a port for the children and takes no connection. Raises ``OSError``."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    held = socket.socket(family, kind, protocol)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held


def member_command(host: str, port: int) -> list[str]:
    """How this program is started as a child."""
    return [sys.executable, str(Path(sys.argv[0]).resolve()), "run", "--host", host, "--port", str(port)]


def member_env(uri: str) -> dict[str, str]:
    """The environment of a child: ours, with the database that we have."""
    return {**os.environ, "MONGO_URI": uri}
