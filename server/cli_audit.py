"""``python main.py audit``: is all the money where the journal says? Beside a running server, changing nothing."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from models.audit.report import NAMED_MAX, Report
from models.audit.service import audit
from models.audit.store import SnapshotTooOld
from models.db import Database, StandaloneServer, database_away
from models.errors import CODES
from models.figures.service import Figures
from models.figures.store import FigureStore
from server.clock import SystemClock
from server.config import Config
from server.mongod import running_uri

NAMED = 10
PIPE_COLUMNS = 400

EPILOG = f"""
Everything is read as of one instant, so servers may go on meanwhile. MongoDB keeps that instant for
minSnapshotHistoryWindowInSeconds, 300 by default. If the audit takes longer it says so and gives up; then
allow it more time, on every member of the replica set:

  db.adminCommand({{setParameter: 1, minSnapshotHistoryWindowInSeconds: 3600}})

Of each invariant at most {NAMED_MAX} broken rows are named; the others are counted.
Exit status: 0 when everything holds, 1 when a row is broken, 2 on wrong use or when the database cannot be read.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``audit`` to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "audit",
        help="check wallets, journal, calls and payments against each other",
        description="Check the invariants of the money over the whole database.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--names",
        type=_whole,
        default=NAMED,
        metavar="N",
        help=f"name at most N broken rows of each invariant (default {NAMED})",
    )
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Read, print a table and the broken rows. 0: clean; 1: something is broken; 2: it could not be read."""
    # A pipe has no width: there a line is as long as it is.
    console = console or Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    uri = config.mongo_uri or await running_uri(config.data_dir)
    if uri is None:
        said = f"No server runs with the data in {config.data_dir}: start it, or set MONGO_URI."
        console.print(said, markup=False)
        return 2
    db = Database(uri, config.mongo_database)
    try:
        await db.refuse_standalone()
        report = await _read(db)
        broken = sum(tally.broken for tally in report.tallies)
        # For the administrators' page of health.
        await Figures(store=FigureStore(db), clock=SystemClock()).keep_audit(
            clean=report.clean, broken=broken
        )
    except SnapshotTooOld:
        console.print("It took longer than MongoDB keeps the instant that was read: see audit --help.")
        return 2
    except StandaloneServer as fault:
        console.print(str(fault), markup=False)
        return 2
    except Exception as error:
        if not database_away(error):
            raise
        console.print(CODES["DATABASE_AWAY"].sentence, markup=False)
        return 2
    finally:
        await db.close()
    show(report, console, args.names)
    return 0 if report.clean else 1


async def _read(db: Database) -> Report:
    """The audit, with a bar for each collection when there is somebody to see it."""
    now = SystemClock().now()
    if not sys.stderr.isatty():
        return await audit(db, now)
    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=max(done, total))

        return await audit(db, now, progress)


def show(report: Report, console: Console, names: int) -> None:
    """The table, and under it the broken rows by name."""
    table = Table()
    table.add_column("")
    table.add_column("what must hold", overflow="fold")
    table.add_column("checked", justify="right")
    table.add_column("broken", justify="right")
    for tally in report.tallies:
        broken = f"[red]{tally.broken}[/]" if tally.broken else "[green]0[/]"
        table.add_row(tally.invariant, tally.says, f"{tally.checked}", broken)
    console.print(table)
    read = ", ".join(f"{number} {what}" for what, number in report.read.items()) or "nothing"
    console.print(f"Read: {read}.", markup=False)
    for tally in report.tallies:
        for finding in tally.named[:names]:
            said = f"{finding.invariant} {finding.collection} {finding.row}: {finding.sentence}"
            console.print(said, markup=False, soft_wrap=True, highlight=False)
        more = tally.broken - len(tally.named[:names])
        if more:
            console.print(f"{tally.invariant} and {more} more", markup=False)
    console.print("Everything holds." if report.clean else "The books are not in order.", markup=False)


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= NAMED_MAX:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {NAMED_MAX} is expected")
    return int(text)
