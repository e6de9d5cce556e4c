"""``make fuzz``: hostile frames at a server's door of sockets, every answer looked at, and the server's memory.

    python -m tests.fuzz --frames 200000 --seed 1

1 when an answer was missing, came twice or was a fault of ours, or the server's memory grew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from tests.fuzz.run import Siege, run

FRAMES = 200_000
# What the server's memory may grow by, once it is warm, over all the rest: MiB. A hundred bytes kept of each frame of
# 200,000 would be twice as much.
GROWTH_MIB_MAX = 10.0


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--frames", type=int, default=FRAMES, metavar="N", help=f"how many (default {FRAMES})"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="other frames with another one (default 1)"
    )
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="fuzz") as folder,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        bar = progress.add_task("hostile frames", total=args.frames)
        found = run(
            Path(folder),
            number=args.frames,
            seed=args.seed,
            told=lambda sent: progress.update(bar, completed=sent),
        )
    took = time.perf_counter() - begun
    show(console, found, took)
    if found.grown > GROWTH_MIB_MAX:
        console.print(f"The memory grew by more than {GROWTH_MIB_MAX:g} MiB.", style="red")
        return 1
    return 0


def show(console: Console, found: Siege, took: float) -> None:
    """Print what was sent, how it was answered, and the memory."""
    attack = found.attack
    answers = Table(Column("answered with", no_wrap=True), Column("frames", justify="right"))
    for code, count in attack.answers.most_common():
        answers.add_row(code, f"{count:,}")
    sent = Table(Column("sent", no_wrap=True), Column("frames", justify="right"))
    for name, count in attack.by_event.most_common():
        sent.add_row(name, f"{count:,}")
    memory = Table(Column("after frames", justify="right"), Column("resident, MiB", justify="right"))
    for number, mib in found.memory[:: max(1, len(found.memory) // 10)]:
        memory.add_row(f"{number:,}", f"{mib:.1f}")
    for table in (sent, answers, memory):
        console.print(table)
    console.print(
        f"{attack.sent:,} frames in {took:.0f} s, every event with an ack id answered exactly once, "
        f"{attack.answers['closed']:,} connections ended by frames below the events; "
        f"memory {found.warm:.1f} MiB when warm, {found.grown:+.1f} MiB at the end."
    )


if __name__ == "__main__":
    sys.exit(main())
