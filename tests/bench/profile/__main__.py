"""``python -m tests.bench.profile [relay] [call_setup]``: flame graphs of this server into docs/images.

py-spy looks at the server from outside, as it was started for everybody. On Linux that is allowed to root, and to
others where ``kernel.yama.ptrace_scope`` is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from server.cli_run import event_loop_factory
from server.mongod import EmbeddedMongod, MongodFault
from tests.bench import calls
from tests.bench.flames import draw
from tests.bench.machine import ROOT, Cores, NoStart, Watched
from tests.bench.peers.contenders import Contender, contenders
from tests.bench.peers.plan import QUICK
from tests.bench.peers.rounds import connected
from tests.bench.peers.wires import Wires
from tests.bench.phone import Phone
from tests.bench.plan import Plan
from tests.bench.relay import ALLOWED_PER_SECOND

IMAGES = ROOT / "docs" / "images"
SAMPLES_PER_SECOND = 400
# Half of what the devices are allowed, for as long as samples are taken.
OF_ALLOWED = 0.5
SETTLE_SECONDS = 0.5

Work = Callable[[list[Phone], Contender, float], Awaitable[str]]


class NoProfile(Exception):
    """py-spy did not do it; the text says what it said."""


async def relay(phones: list[Phone], one: Contender, seconds: float) -> str:
    """Candidates from every device."""
    pairs = await one.pair_up(phones, lambda share: None)
    wires = Wires(pairs)
    wires.learn()
    wires.flood(1.0, wires.devices * QUICK.flood_each, lambda: None)
    wires.settle()
    wires.rest(2 * SETTLE_SECONDS)
    with Recording(one.pid, seconds) as spy:
        wires.steady(
            min(4000, round(wires.devices * ALLOWED_PER_SECOND * OF_ALLOWED)), seconds + SETTLE_SECONDS
        )
        stacks = spy.stacks()
    wires.close()
    await one.part(pairs)
    return stacks


async def call_setup(phones: list[Phone], one: Contender, seconds: float) -> str:
    """Calls, one after the other on each of twenty lines: request, ring, accept, end."""
    half = len(phones) // 2
    exchange = calls.Exchange(phones[:half], phones[half:])
    plan = replace(Plan(), flat_out_seconds=1.0)
    watched = Watched(one.pid, one.pid)
    await calls.flat_out(exchange, plan, watched, lambda share: None)
    with Recording(one.pid, seconds) as spy:
        plan = replace(plan, flat_out_seconds=seconds + SETTLE_SECONDS)
        await calls.flat_out(exchange, plan, watched, lambda share: None)
        return spy.stacks()


TITLES: dict[str, tuple[str, Work]] = {
    "relay": ("Relaying ICE candidates", relay),
    "call_setup": ("Calls: request, ring, accept, end", call_setup),
}


class Recording:
    """py-spy at work on a process for some seconds."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="profile")
        self._out = Path(self._folder.name) / "stacks"
        spy = Path(sys.executable).parent / "py-spy"
        what = f"record --pid {pid} --duration {round(seconds)} --rate {SAMPLES_PER_SECOND} --native --format raw"
        try:
            self._process = subprocess.Popen(
                [str(spy), *what.split(), "--output", str(self._out)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as fault:
            raise NoProfile(f"py-spy does not run ({fault.strerror}): make profile installs it.") from fault

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()

    def stacks(self) -> str:
        """What it has seen. Raises ``NoProfile``."""
        said, _ = self._process.communicate(timeout=30)
        if self._process.returncode or not self._out.exists():
            raise NoProfile(f"py-spy: {said.decode(errors='replace')[-1000:]}")
        return plain(self._out.read_text())


def plain(raw: str) -> str:
    """Stacks that work, as functions with their files: without lines, and without where this machine keeps them.

    A thread that waits for work or for sockets is left out; so are frames that are no function of anybody's: counting
    of references, wrappers of Cython, addresses without a name.
    """
    kept = []
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [name for name in map(_name, stack.split(";")) if not _NO_FUNCTION.match(name)]
        if frames and not _WAITS.match(frames[-1]):
            once = [name for name, before in zip(frames, ["", *frames], strict=False) if name != before]
            kept.append(f"{';'.join(once)} {count}")
    return "\n".join(kept)


_WAITS = re.compile(r"epoll_p?wait|PyThread_acquire_lock|_worker \(concurrent|(?:poll|select|futex)\b")
_NO_FUNCTION = re.compile(r"0x[0-9a-f]+ |_*Py_X?(?:DECREF|INCREF|SIZE)|__Pyx_")


def _name(frame: str) -> str:
    name = re.sub(r":\d+\)", ")", frame.strip()).replace(f"{ROOT}/", "")
    return re.sub(r"\((?:/[^()\s;]*/)?(?:site-packages|python3\.\d+)/", "(", name)


async def run(names: list[str], pairs: int, seconds: float, console: Console) -> None:
    """Each on a fresh start of the server."""
    cores = Cores()
    cores.take_ours()
    with tempfile.TemporaryDirectory(prefix="profile") as folder:
        mongod = EmbeddedMongod(Path(folder) / "mongod")
        uri = await mongod.start()
        try:
            (one,) = contenders(cores, Path(folder), uri, ["ringmeter"])
            for name in names:
                title, work = TITLES[name]
                async with connected(one, 2 * pairs, lambda share: None) as phones:
                    stacks = await work(phones, one, seconds)
                IMAGES.mkdir(exist_ok=True)
                (IMAGES / f"{name}.svg").write_text(draw(stacks, title))
                console.print(f"docs/images/{name}.svg: {title.lower()}")
        finally:
            await mongod.stop()


def main() -> int:
    """1 when something did not start."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("what", nargs="*", help=f"of {', '.join(TITLES)} (all)")
    parser.add_argument("--pairs", type=int, default=100, metavar="N")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="N")
    args = parser.parse_args()
    if unknown := set(args.what) - set(TITLES):
        parser.error(f"there is no profile of {', '.join(sorted(unknown))}")
    console = Console()
    try:
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run(run(args.what or list(TITLES), args.pairs, args.seconds, console))
    except (NoStart, MongodFault, NoProfile, RuntimeError) as fault:
        console.print(str(fault), style="red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
