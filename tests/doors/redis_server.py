"""A real redis-server of a test's own, which may be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

from server.processes import free_port, listens
from tests.doors.serverprocess import eventually, program


class RedisServer:
    """``url`` is good from the first start on; each start begins with nothing, as a broker without a disk does."""

    def __init__(self, folder: Path, *, password: str | None = None) -> None:
        self._password = password
        self._program = program("redis-server", "redis-server")
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        who = f":{self._password}@" if self._password else ""
        return f"redis://{who}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process id while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def unix_url(self) -> str:
        """By a socket in the folder."""
        who = f":{self._password}@" if self._password else ""
        return f"unix://{who}{self._folder / 'redis.sock'}"

    async def start(self) -> RedisServer:
        """Start it and wait until it listens."""
        words = f"--port {self.port} --bind 127.0.0.1 --save  --appendonly no --loglevel warning".split(" ")
        words += ["--unixsocket", str(self._folder / "redis.sock")]
        if self._password:
            words += ["--requirepass", self._password]
        self._process = subprocess.Popen(
            [self._program, *words], cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        await eventually(lambda: listens(self.port), what="redis-server listens")
        return self

    def freeze(self) -> None:
        """It holds its connections and does nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it stopped."""
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """It is gone, without a word."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await asyncio.to_thread(self._process.wait, 5)
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
