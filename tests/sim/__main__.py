"""``python -m tests.sim --seed 1 --runs 10000``: histories by the thousand, and what came of them.

The histories of seeds ``seed, seed + 1, …`` are walked once each. Then calm ones are played again and again, the
process at work dying one exchange later each time (``--crash`` replays one of these).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tests.sim.workers import Played, Task, work

# The share of histories in which a crash is placed at every exchange in turn; below so many runs there are none.
SWEPT_PART, SWEPT_FROM = 3 / 10, 100
FAILURES_MAX = 3
FAULTS = {
    "crash": "processes that died at an exchange",
    "conflict": "write conflicts injected into transactions",
    "real conflict": "write conflicts that MongoDB made itself",
    "lost": "answers lost, of commits as well",
    "aborted": "commits lost on their way",
    "away": "times that the database was away",
}


@dataclass
class Tally:
    """What has been played."""

    histories: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    exchanges: int = 0
    failures: list[Played] = field(default_factory=list)
    ended: float = 0.0

    def take(self, played: Played) -> None:
        """One more history."""
        self.histories[played.kind] += 1
        self.counts += played.counts
        self.faults += played.faults
        self.exchanges += played.exchanges
        if played.failure:
            self.failures.append(played)


def main() -> int:
    """0 when every history came out as the model says, else 1."""
    parser = argparse.ArgumentParser(prog="tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--crash", type=int, help="the exchange of a calm history after which its process dies"
    )
    asked = parser.parse_args()
    console, begun = Console(), time.monotonic()
    tally = _play(asked, console)
    _tell(tally, tally.ended - begun, console)
    for played in tally.failures:
        console.print(f"\n[bold red]Seed {played.seed}[/]: {played.failure}", highlight=False)
        console.print(f"It replays with: make sim {played.replay}", style="bold")
    return 1 if tally.failures else 0


def _play(asked: argparse.Namespace, console: Console) -> Tally:
    """Let the workers play, and add up what they send."""
    swept = int(asked.runs * SWEPT_PART) if asked.runs >= SWEPT_FROM and asked.crash is None else 0
    workers = max(1, min(asked.workers, asked.runs))
    context = multiprocessing.get_context("spawn")
    tasks: Any = context.Queue()
    results: Any = context.Queue()
    stop: Any = context.Event()
    walks = 1 if asked.crash is not None else asked.runs - swept
    for seed in range(asked.seed, asked.seed + walks):
        tasks.put(Task(seed, crash_at=asked.crash))
    next_sweep = asked.seed
    for _ in range(workers if swept else 0):
        tasks.put(Task(next_sweep, sweep=True))
        next_sweep += 1
    crew = [context.Process(target=work, args=(tasks, results, stop), daemon=False) for _ in range(workers)]
    for worker in crew:
        worker.start()
    tally = Tally()
    try:
        with _bar(console) as bar:
            line = bar.add_task("histories", total=walks + swept)
            while sum(tally.histories.values()) < walks + swept and len(tally.failures) < FAILURES_MAX:
                played = results.get()
                if played is None:  # a sweep has come to its end
                    tasks.put(Task(next_sweep, sweep=True))
                    next_sweep += 1
                    continue
                tally.take(played)
                bar.update(line, advance=1)
        tally.ended = time.monotonic()
    finally:
        stop.set()
        _dismiss(crew, tasks, results)
    return tally


def _dismiss(crew: list[Any], tasks: Any, results: Any) -> None:
    """Let the workers end, whatever they are at."""
    while not tasks.empty():
        tasks.get()
    for _ in crew:
        tasks.put(None)
    results.cancel_join_thread()
    for worker in crew:
        worker.join(60)  # it ends its history and its mongod
        if worker.is_alive():
            worker.terminate()
            worker.join()


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _tell(tally: Tally, seconds: float, console: Console) -> None:
    played = sum(tally.histories.values())
    table = Table(
        title=f"{played:,} histories in {seconds:,.0f} s, {played / seconds:.1f} a second",
        title_justify="left",
    )
    table.add_column("what")
    table.add_column("how many", justify="right")
    for kind, number in sorted(tally.histories.items()):
        table.add_row(f"{kind} histories", f"{number:,}")
    table.add_section()
    table.add_row("exchanges with MongoDB at which something could go wrong", f"{tally.exchanges:,}")
    for fault, said in FAULTS.items():
        table.add_row(said, f"{tally.faults[fault]:,}")
    table.add_row("verbs and jobs run at once", f"{tally.counts['things at once']:,}")
    repeated = sum(number for what, number in tally.counts.items() if what.startswith("again: "))
    table.add_row("verbs sent again or late", f"{repeated:,}")
    table.add_section()
    calls = (
        "calls",
        "paid calls",
        "calls that lasted as long as the money",
        "earnings paid back after a refund",
    )
    for what in (*calls, "journal entries"):
        table.add_row(what, f"{tally.counts[what]:,}")
    for what in ("minor units paid in", "minor units transferred", "minor units charged"):
        table.add_row(what, f"{tally.counts[what]:,}")
    table.add_section()
    table.add_row("[bold]histories that broke[/]", f"[bold]{len(tally.failures):,}[/]")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
