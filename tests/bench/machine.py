"""The server under measurement as a process of its own on its own core, and what the system says of processes."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Protocol

import aiohttp

from server.processes import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0
POLL_SECONDS = 0.01


class NoStart(Exception):
    """The server did not come up; the text says what it said."""


class Cores:
    """Which core is whose: the server's alone, and one for the generator and the database."""

    def __init__(self) -> None:
        mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.apart = len(mine) > 1
        self.server = {mine[0]} if self.apart else None
        self.rest = {mine[1]} if self.apart else None

    def take_ours(self) -> None:
        """Move this process to the generator's core, with all that it starts from now on."""
        if self.rest:
            os.sched_setaffinity(0, self.rest)

    def take_servers(self) -> None:
        """Move this process to the server's core: what it measures now runs in it."""
        if self.server:
            os.sched_setaffinity(0, self.server)

    def sentence(self) -> str:
        """Who runs where."""
        if self.server and self.rest:
            return f"server on core {min(self.server)}; generator and MongoDB share core {min(self.rest)}"
        return "server, generator and MongoDB share the same cores: the figures say less"


class Server:
    """``main.py run`` with a configuration of its own. ``data_dir`` also takes its output."""

    def __init__(self, cores: Cores, data_dir: Path, settings: Mapping[str, str]) -> None:
        self._cores = cores
        self._dir = data_dir
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir / "server.log"

    @property
    def pid(self) -> int:
        """Its process id while it runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> float:
        """Seconds from the start of the process to its first good ``/health``. Raises ``NoStart``."""
        self._dir.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        quiet = {"LOG_LEVEL": "warning", "STUN_URLS": "none", "ACCESS_TOKEN_SECONDS": "86400"}
        # .env of the working folder must not get in; main.py looks for one where it is started.
        env = {**kept, **quiet, "DATA_DIR": str(self._dir / "data"), "PORT": str(self.port), **self._settings}
        begun = time.perf_counter()
        with open(self.log, "ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "main.py"), "run"],
                cwd=self._dir,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        if self._cores.server:
            os.sched_setaffinity(self.pid, self._cores.server)
        async with aiohttp.ClientSession() as http:
            while time.perf_counter() - begun < START_SECONDS_MAX:
                if self._process.poll() is not None:
                    break
                try:
                    async with http.get(f"{self.url}/health") as answer:
                        if answer.status == 200:
                            return time.perf_counter() - begun
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(POLL_SECONDS)
        said = self.said()
        await self.stop()
        raise NoStart(f"The server did not start:\n{said[-2000:]}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not go."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        until = time.perf_counter() + STOP_SECONDS_MAX
        while self._process.poll() is None and time.perf_counter() < until:  # noqa: ASYNC110 - a process
            await asyncio.sleep(POLL_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process = None

    def said(self) -> str:
        """All that it has written."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def warnings(self) -> list[str]:
        """What it has logged (its level is ``warning``)."""
        return [
            line for line in self.said().splitlines() if line and not line.startswith("Ringmeter is ready")
        ]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far (proc(5), fields 14 and 15); NaN without ``/proc``."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return nan
    after = text.rpartition(")")[2].split()
    return (int(after[11]) + int(after[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Resident memory in MiB; NaN without ``/proc``."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return nan


class Counting(Protocol):
    """Reads what was spent since it was made."""

    def read(self) -> Spent: ...


class Counted(Protocol):
    """One process or several whose time is counted."""

    def meter(self) -> Counting: ...


@dataclass(frozen=True, slots=True)
class Watched:
    """The processes whose time is told apart: the server, and the database beside it."""

    server: int
    database: int

    def meter(self) -> Meter:
        """Begin to count."""
        return Meter(self)


class Meter:
    """CPU time over a stretch of time."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._begun = self._all()

    def read(self) -> Spent:
        """What was spent since it was made."""
        seconds, server, database, own, busy = (
            now - then for now, then in zip(self._all(), self._begun, strict=True)
        )
        return Spent(seconds, server, own, max(0.0, busy - server - database - own))

    def _all(self) -> tuple[float, float, float, float, float]:
        watched = self._watched
        return (
            time.perf_counter(),
            cpu_seconds(watched.server),
            cpu_seconds(watched.database),
            time.process_time(),
            busy_seconds(),
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds: those that passed, and CPU time of the server, the generator and of everybody else's programs."""

    seconds: float
    server: float
    generator: float
    others: float

    def shares(self) -> dict[str, float]:
        """Of one core each."""
        return {
            "server_cpu_share": self.server / self.seconds,
            "generator_cpu_share": self.generator / self.seconds,
            "others_cpu_share": self.others / self.seconds,
        }


def busy_seconds() -> float:
    """What all cores have worked so far (proc(5): all fields of ``cpu`` but idle and iowait); NaN without ``/proc``."""
    fields = _fields()
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK") if fields else nan


def stolen_seconds() -> float:
    """What a virtual machine's host has kept from it so far while it had work to do (proc(5): ``steal``)."""
    fields = _fields()
    return fields[7] / os.sysconf("SC_CLK_TCK") if fields else nan


def _fields() -> list[int]:
    try:
        return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return []


def load() -> float:
    """The machine's load average of the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else nan


def describe() -> dict[str, str | int | None]:
    """The machine and the versions that the figures depend on."""
    from importlib.metadata import version

    packages = ("aiohttp", "python-socketio", "python-engineio", "pymongo", "uvloop", "orjson", "bcrypt")
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
