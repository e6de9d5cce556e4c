"""``python -m tests.chaos``: faults under load, one after the other, and a table of what became of the calls.

Exit status 0 when nothing was lost, doubled, left over or charged wrongly; 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.faults import FAULTS
from tests.chaos.play import Played, play
from tests.chaos.story import Plan
from tests.chaos.town import PROCESSES, open_town
from tests.doors.phones import Exchange

QUICK_PHONES = 16
NAMED = 12


def main() -> int:
    """Play what was asked for."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="this fault (may be repeated)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phones", type=int, default=40, help="an even number, two for each call")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PHONES} phones, the kill and Redis")
    parser.add_argument("--keep", type=Path, help="a folder in which the servers' logs are kept")
    asked = parser.parse_args()
    phones = QUICK_PHONES if asked.quick else asked.phones + asked.phones % 2
    names = asked.only or (["kill", "redis"] if asked.quick else list(FAULTS))
    # Where nobody looks on there is no width: the table's own.
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as folder:
        kept = asked.keep or Path(folder)
        plan = Plan(phones=phones, seed=asked.seed, victim=asked.seed % PROCESSES)
        results = asyncio.run(_play_all(names, plan, kept, console))
    _tell(results, console)
    return 1 if any(one.books.violations for one in results) else 0


async def _play_all(names: list[str], plan: Plan, folder: Path, console: Console) -> list[Played]:
    columns = (TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.fields[stage]}"))
    results = []
    exchange = Exchange()
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
            lines = {name: bars.add_task(name, total=1.0, stage="", start=False) for name in names}
            for name in names:
                fault, line = FAULTS[name], lines[name]
                bars.start_task(line)
                bars.update(line, stage="servers")

                def said(stage: str, share: float, line: object = line) -> None:
                    bars.update(line, stage=stage, completed=share)  # type: ignore[arg-type]
                    if not console.is_terminal:
                        console.print(f"{name}: {stage}")  # noqa: B023

                place = folder / f"{name}-{plan.seed}"
                place.mkdir(parents=True)
                async with open_town(place, members=fault.members) as town:
                    results.append(await play(name, fault, town, plan, exchange, said))
    finally:
        exchange.close()
    return results


def _tell(results: list[Played], console: Console) -> None:
    table = Table(title="Faults under load", padding=(0, 0, 0, 1))
    table.add_column("fault", no_wrap=True)
    heads = ("phones", "calls", "hit", "resumed", "ended", "events", "lost", "doubled", "audit", "wrong", "s")
    for head in heads:
        table.add_column(head, justify="right", min_width=len(head))
    for one in results:
        books = one.books
        table.add_row(
            one.name,
            *(
                f"{one.phones}",
                f"{books.calls}",
                f"{books.hit}",
                f"{books.resumed}",
                f"{books.ended.total()}",
            ),
            *(f"{books.events}", _count(books.lost), _count(books.doubled)),
            "[green]clean[/]" if books.audit == 0 else f"[red]{books.audit}[/]",
            *(_count(len(books.violations)), f"{one.seconds:.0f}"),
        )
    console.print(table)
    console.print(
        "hit: live when the fault came; resumed: of these, gone on with and hung up; ended: by their deadlines."
    )
    for one in results:
        ended = ", ".join(f"{number} {reason}" for reason, number in one.books.ended.items())
        console.print(f"{one.name}: {FAULTS[one.name].says}; ended: {ended or 'none'}", highlight=False)
    for one in results:
        for said in one.books.violations[:NAMED]:
            console.print(f"{one.name}: {said}", markup=False, highlight=False, soft_wrap=True)
        if len(one.books.violations) > NAMED:
            console.print(f"{one.name}: and {len(one.books.violations) - NAMED} more")


def _count(number: int) -> str:
    return f"[red]{number}[/]" if number else "0"


if __name__ == "__main__":
    sys.exit(main())
