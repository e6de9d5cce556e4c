"""CPU time by the nanosecond, what each core was busy with, and the memory that is a process's own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path

from tests.bench.machine import Cores, cpu_seconds, memory_mb

_HUNDREDTH = 1 / os.sysconf("SC_CLK_TCK")

AHEAD = -15


def cpu_clock(pid: int) -> float:
    """User and system time of a process and all its threads so far; where there is no such clock, by hundredths."""
    try:
        # The clock of another process, as clock_getcpuclockid(3) makes its number.
        return time.clock_gettime((~pid) << 3 | 2)
    except OSError:
        return cpu_seconds(pid)


def memory_kb(pid: int) -> float:
    """Its share of memory (PSS), or all that is resident where that is not told."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1])
    except OSError:
        pass
    return memory_mb(pid) * 1024


def core_seconds(cores: set[int] | None) -> float:
    """What these cores have worked so far (proc(5): all but idle and iowait); NaN when they are not known."""
    if not cores:
        return nan
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return nan
    busy = 0.0
    for line in lines:
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(word) for word in fields[:8]]
            busy += (sum(ticks) - ticks[3] - ticks[4]) * _HUNDREDTH
    return busy


@contextmanager
def ahead(*pids: int) -> Iterator[None]:
    """For the time of a ``with`` this process and some others go before all the rest, where that is allowed."""
    before = [(who, os.getpriority(os.PRIO_PROCESS, who)) for who in (0, *pids)]
    _order([(who, AHEAD) for who, _ in before], AHEAD)
    try:
        yield
    finally:
        _order(before, 0)


def _order(nices: list[tuple[int, int]], group: int) -> None:
    with suppress(OSError):
        for who, nice in nices:
            os.setpriority(os.PRIO_PROCESS, who, nice)
        # Niceness counts within a session only, where sessions share the machine (sched(7), autogroup).
        for who, _ in nices:
            Path(f"/proc/{who or 'self'}/autogroup").write_text(str(group))


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that passed, of the server's and the generator's CPU time, and of both cores' work for anybody."""

    seconds: float
    server: float
    generator: float
    server_core: float
    generator_core: float

    def shares(self) -> dict[str, float]:
        """Of one core each; ``others`` is what neither of the two has worked."""
        own = self.server + self.generator
        return {
            "server_share": self.server / self.seconds,
            "generator_share": self.generator / self.seconds,
            "server_core_share": self.server_core / self.seconds,
            "generator_core_share": self.generator_core / self.seconds,
            "others_share": max(0.0, self.server_core + self.generator_core - own) / self.seconds,
        }


class Meter:
    """Begins to count when it is made or begun anew."""

    def __init__(self, pid: int, cores: Cores) -> None:
        self.pid, self._cores = pid, cores
        self.begin()

    def begin(self) -> None:
        """From now on."""
        self._begun = self._all()

    def read(self) -> Spent:
        """What was spent since."""
        return Spent(*(now - then for now, then in zip(self._all(), self._begun, strict=True)))

    def _all(self) -> tuple[float, ...]:
        return (
            time.perf_counter(),
            cpu_clock(self.pid),
            time.process_time(),
            core_seconds(self._cores.server),
            core_seconds(self._cores.rest),
        )
