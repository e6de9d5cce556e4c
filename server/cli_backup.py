"""``python main.py backup FILE`` and ``restore FILE``: the whole database in one file, and back into an empty one."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.audit.service import audit
from models.audit.store import SnapshotTooOld
from models.backup.archive import Archive, Damaged, Listed, sha256_of
from models.backup.service import backup, restore
from models.backup.store import NotEmpty, Unfinished
from models.db import Database, StandaloneServer, database_away
from models.errors import CODES
from server import cli_audit
from server.cli_beside import bars, console_for_pipes
from server.clock import SystemClock
from server.config import Config
from server.health import VERSION
from server.mongod import EmbeddedMongod, MongodFault, running_uri

BACKUP_EPILOG = """\
A server may run meanwhile: what is written is the database at one instant. MongoDB keeps an instant for 300 s; where
reading takes longer, set a longer time on every member of the replica set first, in mongosh:

  db.adminCommand({setParameter: 1, minSnapshotHistoryWindowInSeconds: 3600})

FILE is a ZIP archive as mongodump would fill it, with the counts and SHA-256 of what is in it. It holds all that people
have written, and is its owner's alone (mode 600): encrypt it before it goes anywhere. The secrets (JWT_SECRET,
RECEIPT_SECRET, PIN_PEPPER) are not in it; keep them elsewhere, or nobody's PIN is right after a restore.

Exit status: 0 when FILE is whole, 1 when it could not be made, 2 on wrong use.
"""
RESTORE_EPILOG = """\
Into an empty database only, which MONGO_URI and MONGO_DATABASE name (or the embedded one in DATA_DIR, with no server on
it). FILE is checked to its last byte first. No server starts on a database before a restore has come to its end; one
that was interrupted begins anew with --again. The audit follows at once.

Exit status: 0 when it is restored and the books are in order, 1 when not, 2 on wrong use.
"""


def add_parser(commands: Any) -> None:
    """``backup FILE``, ``restore FILE [--check] [--again]``."""
    for name, said, epilog in (
        ("backup", "write the whole database into a file", BACKUP_EPILOG),
        ("restore", "fill an empty database from a backup", RESTORE_EPILOG),
    ):
        parser: argparse.ArgumentParser = commands.add_parser(
            name,
            help=said,
            description=f"{said.capitalize()}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("file", metavar="FILE", type=Path)
        if name == "restore":
            parser.add_argument("--check", action="store_true", help="only see whether FILE is whole")
            parser.add_argument(
                "--again", action="store_true", help="begin anew after a restore that was interrupted"
            )


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do it; 0. 1 with a sentence when it cannot be done."""
    console = console or console_for_pipes()
    try:
        if args.command == "restore" and args.check:
            return _check(args.file, console)
        if args.command == "restore":
            return await _restore(args, config, console)
        return await _backup(args.file, config, console)
    except Damaged as fault:
        said = f"{args.file} {fault}."
    except FileNotFoundError as fault:
        said = f"{args.file.parent if args.command == 'backup' else fault.filename} is not there."
    except FileExistsError:
        said = f"{args.file} is there already; a backup is never written over."
    except OSError as fault:
        said = f"{args.file} cannot be used: {fault.strerror or fault}."
    except NotEmpty as fault:
        said = f"The database {fault}; a restore goes into an empty one only. Nothing was changed."
    except Unfinished:
        said = "A restore into this database runs, or was interrupted: if it was, begin anew with --again."
    except SnapshotTooOld:
        said = "It took longer than MongoDB keeps the instant that was read: see backup --help."
    except (MongodFault, StandaloneServer) as fault:
        said = f"{fault}"
    except Exception as error:
        if not database_away(error):
            raise
        said = CODES["DATABASE_AWAY"].sentence
    console.print(said, markup=False, soft_wrap=True)
    return 1


async def _backup(path: Path, config: Config, console: Console) -> int:
    async with _database(config, make=False) as db:
        await db.refuse_standalone()
        about = {
            "version": VERSION,
            "mongodb": await db.version(),
            "takenAt": SystemClock().now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        with bars() as progress:
            listed = await backup(db, path, about, progress)
    _show(listed, console)
    console.print(f"{path} is whole: {path.stat().st_size} bytes, SHA-256 {sha256_of(path)}", markup=False)
    return 0


def _check(path: Path, console: Console) -> int:
    archive = Archive(path)
    try:
        with bars() as progress:
            archive.check(progress)
    finally:
        archive.close()
    _show(archive.collections, console)
    console.print(
        f"{path} is whole, taken at {archive.about.get('takenAt')} from {archive.database}.", markup=False
    )
    return 0


async def _restore(args: argparse.Namespace, config: Config, console: Console) -> int:
    async with _database(config, make=True) as db:
        await db.refuse_standalone()
        now = SystemClock().now()
        with bars() as progress:
            listed = await restore(db, args.file, now, again=args.again, progress=progress)
        _show(listed, console)
        with bars() as progress:
            report = await audit(db, SystemClock().now(), progress)
    cli_audit.show(report, console, cli_audit.NAMED)
    return 0 if report.clean else 1


def _show(listed: Sequence[Listed], console: Console) -> None:
    table = Table()
    table.add_column("collection")
    table.add_column("documents", justify="right")
    table.add_column("bytes", justify="right")
    for one in listed:
        table.add_row(one.name, f"{one.documents}", f"{one.bytes}")
    table.add_row("in all", f"{sum(o.documents for o in listed)}", f"{sum(o.bytes for o in listed)}")
    console.print(table)


@asynccontextmanager
async def _database(config: Config, *, make: bool) -> AsyncIterator[Database]:
    """The configured database; the embedded one is started for the time when no server runs on it."""
    uri = config.mongo_uri or await running_uri(config.data_dir)
    mongod = None
    if uri is None:
        if not make and not (config.data_dir / "db").exists():
            raise MongodFault(f"There is no database in {config.data_dir}: set MONGO_URI or DATA_DIR.")
        mongod = EmbeddedMongod(config.data_dir)
        uri = await mongod.start()
    db = Database(uri, config.mongo_database)
    try:
        yield db
    finally:
        await db.close()
        if mongod is not None:
            await mongod.stop()
