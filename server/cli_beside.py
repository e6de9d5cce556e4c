"""What the commands share that work on the database of a running server, from beside it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from models.db import Database, database_away
from models.errors import CODES, Refusal
from models.money import spoken
from server.config import Config
from server.mongod import running_uri

PIPE_COLUMNS = 400


def console_for_pipes() -> Console:
    """A console whose lines are as long as they are when nobody looks: a pipe has no width."""
    return Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """What draws a bar for each thing that is worked on: its name, how much is done, of how much. None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = drawn.add_task(what)
            drawn.update(tasks[what], completed=done, total=max(done, total))

        yield progress


async def beside(config: Config, console: Console, work: Callable[[Database], Awaitable[None]]) -> int:
    """Do ``work`` on the server's database. 0: done; 1: refused (in a sentence), or no database is there."""
    uri = config.mongo_uri or await running_uri(config.data_dir)
    if uri is None:
        console.print(
            f"No server runs with the data in {config.data_dir}: start it, or set MONGO_URI.", markup=False
        )
        return 1
    db = Database(uri, config.mongo_database)
    try:
        await work(db)
    except Refusal as refusal:
        console.print(_said(refusal), markup=False, soft_wrap=True)
        return 1
    except Exception as error:
        if not database_away(error):
            raise
        console.print(CODES["DATABASE_AWAY"].sentence, markup=False)
        return 1
    finally:
        await db.close()
    return 0


def _said(refusal: Refusal) -> str:
    """Its sentence and what is known besides, amounts as people write them."""
    details = dict(refusal.details)
    currency = details.get("currency")
    if isinstance(details.get("availableMinor"), int) and isinstance(currency, str):
        details["available"] = spoken(details.pop("availableMinor"), details.pop("currency"))
    parts = [
        f"{name}: {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in details.items()
    ]
    sentence = CODES[refusal.code].sentence
    return f"{sentence} ({', '.join(parts)})" if parts else sentence
