"""``python main.py trail list|verify|export``: what administrators and operators have done, from beside a server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.db import Database
from models.trail.rules import (
    ACTS,
    Actor,
    Anchor,
    Malformed,
    Row,
    Verdict,
    Walk,
    anchor_of,
    line_of,
    row_of_line,
)
from models.trail.service import PAGE_MAX, Trail
from server.cli_beside import beside, console_for_pipes
from server.clock import SystemClock
from server.config import Config
from server.wiring_desk import wire_trail

LISTED = 50
# A line of an export is a few hundred bytes; more is no line of ours.
LINE_MAX = 65_536


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``trail`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "trail",
        help="list, verify or export what administrators have done",
        description="Look into the trail of administrators' and operators' acts.",
    )
    verbs = parser.add_subparsers(dest="trail_verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="Acts, the newest first")
    listing.add_argument("--actor", metavar="NAME", help="by whom: a username, an id, or operator")
    listing.add_argument("--act", metavar="ACT", help=f"which: {', '.join(ACTS)}, or a group such as user")
    listing.add_argument("--target", metavar="NAME", help="on whom or what: a name or an id")
    listing.add_argument("--since", type=_day, metavar="DAY", help="from this day on, YYYY-MM-DD (UTC)")
    listing.add_argument("--until", type=_day, metavar="DAY", help="up to this day, which is included")
    listing.add_argument("--text", metavar="WORDS", help="words of the reason, the names or the details")
    listing.add_argument("--limit", type=_whole, default=LISTED, help=f"at most this many (default {LISTED})")
    verify = verbs.add_parser(
        "verify",
        help="Walk the whole chain and say the first row that does not hold",
        description="Exit status 0: the chain holds; 1: it does not, or no database to ask.",
    )
    verify.add_argument(
        "--at",
        type=_anchor,
        metavar="SEQ:HASH",
        help="a row as a log outside has kept it; without it a cut-off end may go unseen",
    )
    verify.add_argument("--file", type=Path, metavar="FILE", help="verify an export instead of the database")
    export = verbs.add_parser("export", help="All rows as JSON lines, the oldest first")
    export.add_argument("--out", type=Path, metavar="FILE", help="write there; without it to the terminal")
    export.add_argument("--after", type=_seq, default=0, metavar="SEQ", help="only rows behind this number")
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done, or the chain holds; 1: it does not, or no database to ask; 2: wrong use."""
    console = console or console_for_pipes()
    if args.trail_verb == "verify" and args.file is not None:
        return _verify_file(args.file, args.at, console)
    found = 0

    async def work(db: Database) -> None:
        nonlocal found
        trail = wire_trail(db, SystemClock())
        if args.trail_verb == "list":
            await _list(args, trail, console)
        elif args.trail_verb == "export":
            found = await _export(args, trail, console)
        else:
            found = _say(await trail.verify(args.at), console)

    return await beside(config, console, work) or found


async def _list(args: argparse.Namespace, trail: Trail, console: Console) -> None:
    table = Table()
    for name in ("number", "at", "who", "act", "on", "reason", "details"):
        table.add_column(name, overflow="fold")
    left, before = args.limit, None
    while left > 0:
        page = await trail.search(
            actor=args.actor,
            act=args.act,
            target=args.target,
            since=args.since,
            until=args.until + timedelta(days=1) if args.until else None,
            text=args.text,
            before=before,
            limit=min(left, PAGE_MAX),
        )
        for row in page.rows:
            table.add_row(*(escape(cell) for cell in _cells(row)))
        left, before = left - len(page.rows), page.before
        if before is None:
            break
    console.print(table)
    if before is not None:
        console.print("There are older ones: --limit.", markup=False)


def _cells(row: Row) -> tuple[str, ...]:
    details = ", ".join(f"{name} {value}" for name, value in row.details.items())
    target = row.target
    return (
        str(row.seq),
        f"{row.at:%Y-%m-%d %H:%M:%S}",
        said_of_actor(row.actor),
        row.act,
        f"{target.kind} {target.name} ({target.id})" if target.name else f"{target.kind} {target.id}",
        row.reason,
        details,
    )


def said_of_actor(actor: Actor) -> str:
    """Who acted, for people."""
    name = f"{actor.kind} {actor.name}" if actor.name else actor.kind
    return f"{name} from {actor.address}" if actor.address else name


def _say(verdict: Verdict, console: Console) -> int:
    if not verdict.ok:
        console.print(f"The chain is broken: {verdict.said}.", markup=False, soft_wrap=True)
        return 1
    rows = "one row" if verdict.rows == 1 else f"{verdict.rows} rows"
    last = f"; the last one is {verdict.seq}:{verdict.hash}" if verdict.rows else ""
    console.print(f"The chain holds: {rows}{last}.", markup=False, soft_wrap=True)
    return 0


def _verify_file(path: Path, anchor: Anchor | None, console: Console) -> int:
    walk = Walk(anchor)
    try:
        with path.open(encoding="utf-8") as lines:
            for line in iter(lambda: lines.readline(LINE_MAX), ""):
                if not walk.step(_row_of(line)):
                    break
    except (OSError, UnicodeDecodeError) as fault:
        console.print(f"{path} cannot be read: {fault}.", markup=False)
        return 2
    return _say(walk.end(None), console)


def _row_of(line: str) -> Row | Malformed:
    try:
        return row_of_line(line)
    except Malformed as fault:
        return fault


async def _export(args: argparse.Namespace, trail: Trail, console: Console) -> int:
    rows, broken = 0, 0
    try:
        with _opened(args.out) as out:
            async for row in trail.lines(after=args.after):
                if isinstance(row, Malformed):
                    broken += 1
                    continue
                out.write(line_of(row) + "\n")
                rows += 1
    except OSError as fault:
        console.print(f"It cannot be written: {fault}.", markup=False)
        return 1
    if args.out is not None:
        console.print(f"{rows} rows are in {args.out}.", markup=False)
    if broken:
        print(f"{broken} rows cannot be read: see trail verify.", file=sys.stderr)
    return 1 if broken else 0


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """The file, which only its owner may read; without one what the terminal shows."""
    if path is None:
        yield sys.stdout
        return
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8", newline="\n") as out:
        yield out


def _anchor(text: str) -> Anchor:
    try:
        return anchor_of(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def _day(text: str) -> datetime:
    try:
        return datetime.combine(datetime.strptime(text, "%Y-%m-%d").date(), time(), UTC)  # noqa: DTZ007
    except ValueError:
        raise argparse.ArgumentTypeError("a day as 2026-11-21 is expected") from None


def _seq(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise argparse.ArgumentTypeError("the number of a row is expected")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError("a whole number from 1 to 100000 is expected")
    return int(text)
