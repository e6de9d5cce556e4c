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
from dataclasses import dataclass, field
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
    """A process that serves; ``leaving`` when it was told to go, ``begun`` when it is clear whether it came to serve.

    ``failures``: how many in its place have not lasted, one after the other, just before it.
    """

    number: int
    process: asyncio.subprocess.Process
    failures: int = 0
    leaving: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)


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
        """Start all; False when the first one could not, or when it is time to stop."""
        if await self._new() is None:
            return False
        for child in await asyncio.gather(*(self._new() for _ in range(self._count - 1))):
            if child is None and not self._stopping.is_set():
                self._spawn(self._replace(1))
        return not self._stopping.is_set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep them until ``stop``, then send all away and wait for them."""
        await stop.wait()
        self._stopping.set()
        work = list(self._work)
        for task in work:
            task.cancel()
        for child in self._children:
            self._send(child, signal.SIGTERM)
        await asyncio.gather(*(self._gone(child) for child in list(self._children)))
        await asyncio.gather(*work, return_exceptions=True)  # one may have been starting a child
        self._folder.cleanup()

    def roll(self) -> None:
        """Replace all children, one after the other; once more while it goes on does nothing."""
        if not self._rolling.locked():
            self._spawn(self._roll())

    async def _roll(self) -> None:
        async with self._rolling:
            for old in sorted(self._children, key=lambda child: child.number):
                await old.begun.wait()
                if old not in self._children:
                    continue  # it has died, and another one takes its place
                new = await self._new()
                if new is None:
                    log.error("the new process does not serve; the old ones stay")
                    return
                if old not in self._children:
                    # It has died meanwhile. The one that takes its place may be there already: the new one is too many.
                    old = new
                self._send(old, signal.SIGTERM)
                await self._gone(old)
            log.info("all processes are new", processes=[child.process.pid for child in self._children])

    async def _new(self, failures: int = 0) -> Child | None:
        """A child that serves, or None when it does not come to that."""
        if self._stopping.is_set():
            return None
        self._numbers += 1
        number = self._numbers
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "--member",
                f"{self._folder.name}:{number}",
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except (
            OSError
        ) as fault:  # too many processes or open files, no memory, or the program is being replaced
            log.error("a process cannot be started", error=repr(fault))
            return None
        child = Child(number, process, failures)
        self._children.add(child)
        try:
            if self._stopping.is_set() or not await self._serves(child):
                self._send(child, signal.SIGKILL)
                await self._gone(child)
                return None
        finally:
            child.begun.set()
        log.info("a process serves", number=child.number, pid=process.pid)
        self._spawn(self._watch(child))
        return child

    async def _serves(self, child: Child) -> bool:
        assert child.process.stdout is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                return await child.process.stdout.readline() == READY
        return False

    async def _watch(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        status = await child.process.wait()
        if child.leaving or self._stopping.is_set():
            return
        self._children.discard(child)
        log.error("a process has died; starting another", pid=child.process.pid, status=status)
        await self._replace(0 if loop.time() - began > LIVED_SECONDS else child.failures + 1)

    async def _replace(self, failures: int) -> None:
        while not self._stopping.is_set():
            if failures:
                await asyncio.sleep(BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1])
            if await self._new(failures) is not None:
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
    """A socket that holds a port for the children and takes no connection. Raises ``OSError``.

    It holds it against whoever asks for the port for himself alone. A program that sets SO_REUSEADDR may still listen
    there as long as no child does, and one of the same user that sets SO_REUSEPORT may at any time.
    """
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
