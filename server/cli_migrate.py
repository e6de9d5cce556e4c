"""``python main.py migrate``: what a new version changes of what an older one has written; each start does it."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from models.db import Database, HalfRestored
from models.migrations.service import MigrationFailed, Migrations
from server.cli_beside import beside, console_for_pipes
from server.clock import SystemClock, SystemIds, pause
from server.config import Config

EPILOG = """\
Every server and worker does this before it opens a port; the first one does the work, the others wait for it. Done
beforehand it shortens that start, and nothing else.

Exit status: 0 when all migrations are done, 1 when some are not (with --status) or one has failed, 2 on wrong use.
"""


def add_parser(commands: Any) -> None:
    """``migrate [--status]``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "migrate",
        help="bring the database to this version, as each start does",
        description="Run the migrations that have not been run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--status", action="store_true", help="only say which are done; 1 when some are not")


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do it or say how it stands."""
    console = console or console_for_pipes()
    status = 0

    async def work(db: Database) -> None:
        nonlocal status
        migrations = Migrations(db, SystemClock(), by=SystemIds().new(), pause=pause)
        if not args.status:
            try:
                await db.refuse_half_restored()
                await migrations.run()
            except (MigrationFailed, HalfRestored) as fault:
                console.print(f"{fault}", markup=False, soft_wrap=True)
                status = 1
        if not await _show(migrations, console):
            status = 1

    return await beside(config, console, work) or status


async def _show(migrations: Migrations, console: Console) -> bool:
    """The table; whether all are done."""
    table = Table()
    for column in ("migration", "what it does", "state", "since", "tries"):
        table.add_column(column, overflow="fold")
    standings, holder = await migrations.standings(), await migrations.holder()
    for one in standings:
        record = one.record
        state = "done" if one.done else "waits" if record is None else "runs" if holder else "interrupted"
        since = (record.done_at or record.begun_at).isoformat(timespec="seconds") if record else ""
        table.add_row(
            one.migration.name, one.migration.says, state, since, f"{record.tries}" if record else ""
        )
    console.print(table)
    for name in await migrations.unknown():
        console.print(f"{name} was done by a newer version than this.", markup=False)
    waiting = sum(not one.done for one in standings)
    console.print(
        f"{waiting} of {len(standings)} are to be done." if waiting else f"All {len(standings)} are done.",
        markup=False,
    )
    return not waiting
