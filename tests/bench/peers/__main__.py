"""``python -m tests.bench.peers [--quick] [--json FILE] [--only …]``: this server beside others."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from server.cli_run import event_loop_factory
from server.mongod import EmbeddedMongod, MongodFault
from tests.bench.machine import Cores, NoStart, describe, load
from tests.bench.peers import report, rounds
from tests.bench.peers.contenders import NAMES, Contender, Ours, contenders
from tests.bench.peers.plan import QUICK, Plan
from tests.bench.plan import Told
from tests.bench.stats import Round, summary

PARTS = ("relay", "idle")
# A connection here is two descriptors while the generator has its socket.
SPARE_FILES = 200

Work = Callable[[Contender, Plan, Cores, Told], Awaitable[dict[str, Round]]]


class Bench:
    """One run: round by round, in each round one contender after the other, never two at a time."""

    def __init__(self, plan: Plan, names: list[str], parts: list[str], progress: Progress) -> None:
        self._plan, self._names, self._parts, self._progress = plan, names, parts, progress
        self.cores = Cores()
        self.results: dict[str, dict[str, Any]] = {}
        self.titles: dict[str, str] = {}
        self.warnings: list[str] = []

    async def run(self, folder: Path) -> None:
        """Everything."""
        self.cores.take_ours()
        mongod = EmbeddedMongod(folder / "mongod")
        uri = await mongod.start() if "ringmeter" in self._names else ""
        try:
            every = contenders(self.cores, folder, uri, self._names)
            self.titles = {one.name: one.title for one in every}
            work: dict[str, tuple[Work, int]] = {
                "relay": (rounds.relay, self._plan.rounds),
                "idle": (rounds.idle, self._plan.idle_rounds),
            }
            for part in self._parts:
                await self._interleaved(part, every, *work[part])
            self.warnings = [line for one in every if isinstance(one, Ours) for line in one.warnings()]
        finally:
            if uri:
                await mongod.stop()

    async def _interleaved(self, part: str, every: list[Contender], work: Work, times: int) -> None:
        kept: dict[str, dict[str, list[Round]]] = {one.name: {} for one in every}
        for number in range(times):
            # Each round begins with another one, so that none always has the same neighbour.
            for one in every[number % len(every) :] + every[: number % len(every)]:
                task = self._progress.add_task(
                    f"{part}, round {number + 1} of {times}: {one.title}", total=1.0
                )

                def told(share: float, task: Any = task) -> None:
                    self._progress.update(task, completed=share)
                    self._progress.refresh()

                try:
                    for name, done in (await work(one, self._plan, self.cores, told)).items():
                        kept[one.name].setdefault(name, []).append(done)
                except RuntimeError as fault:
                    raise RuntimeError(f"{one.title}, {part}, round {number + 1}: {fault}") from fault
                finally:
                    self._progress.remove_task(task)
        for name, measured in kept.items():
            self.results.setdefault(name, {}).update({what: told_of(done) for what, done in measured.items()})


def told_of(done: list[Round]) -> dict[str, Any]:
    """The summary of the rounds that are not in doubt, or of all where there are none; and each of them."""
    doubts = [rounds.doubt(one.figures) for one in done]
    good = [one for one, doubt in zip(done, doubts, strict=True) if doubt is None] or done
    faults = summary(done)["faults"]
    return {**summary(good), "faults": faults, "doubts": doubts, "each": [one.figures for one in done]}


def raise_file_limit(connections: int) -> None:
    """As many open files as the connections need, here and in the processes started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + SPARE_FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))


def main() -> int:
    """Run and print; 1 when something did not start."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds: figures are rough")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the CPU per message there as SVG")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), help="these contenders")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    for name, what in (
        ("rounds", "rounds of the relay"),
        ("pairs", "calls, each of two connections"),
        ("idle", "idle connections"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=what)
    args = parser.parse_args()
    given = {name: value for name in ("rounds", "pairs", "idle") if (value := getattr(args, name))}
    plan = replace(QUICK if args.quick else Plan(), **given)
    raise_file_limit(max(2 * plan.pairs, plan.idle))
    console = Console(width=None if sys.stdout.isatty() else 140)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    begun, load_before = time.perf_counter(), load()
    # The bar has no thread of its own: it would run in the middle of a measurement.
    with (
        tempfile.TemporaryDirectory(prefix="peers") as folder,
        Progress(*columns, console=console, transient=True, auto_refresh=False) as progress,
    ):
        bench = Bench(plan, args.only, args.part, progress)
        try:
            with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
                runner.run(bench.run(Path(folder)))
        except (NoStart, MongodFault, RuntimeError) as fault:
            console.print(str(fault), style="red", markup=False)
            return 1
    about = {
        "machine": describe(),
        "cores": bench.cores.sentence(),
        "load_before": load_before,
        "seconds": round(time.perf_counter() - begun, 1),
        "plan": asdict(plan),
        "titles": bench.titles,
    }
    report.show(console, about, bench.results, bench.warnings)
    if args.json:
        whole = {**about, "results": bench.results, "warnings": bench.warnings}
        args.json.write_text(json.dumps(whole, indent=2) + "\n")
    if args.picture:
        args.picture.write_text(report.picture(about, bench.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
