"""``python main.py reports list|show|close``: on a running system, from beside it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handlers.shapes import rfc3339
from models.db import Database
from models.reports.report import Resolution, State
from models.reports.service import Filed, Reports
from server.cli_beside import beside, console_for_pipes
from server.cli_wired import operator, services_beside
from server.config import Config

LISTED = 50
LISTED_MAX = 1000
_SAID_MAX = 60


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``reports`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "reports",
        help="list, show or close reports of messages and people",
        description="Look after what people have reported.",
    )
    verbs = parser.add_subparsers(dest="reports_verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="What was reported, newest first")
    states = [*(state.value for state in State), "all"]
    listing.add_argument("--state", choices=states, default="open", help="default open")
    listing.add_argument("--limit", type=_whole, default=LISTED, help=f"at most this many (default {LISTED})")
    show = verbs.add_parser("show", help="A report with its evidence")
    show.add_argument("report_id", metavar="REPORT", help="the report's id")
    close = verbs.add_parser(
        "close", help="Close a report", description="Close a report; banned also bans the reported person."
    )
    close.add_argument("report_id", metavar="REPORT", help="the report's id")
    resolutions = [resolution.value for resolution in Resolution]
    close.add_argument("--resolution", choices=resolutions, required=True, help="what came of it")
    close.add_argument("--note", help="why, for whoever reads it later")
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done; 1: no such report, closed already, or no database to ask."""
    console = console or console_for_pipes()
    return await beside(config, console, lambda db: _beside(args, db, config, console))


async def _beside(args: argparse.Namespace, db: Database, config: Config, console: Console) -> None:
    async with services_beside(config, db) as services:
        await _do(args, services.reports, console)


async def _do(args: argparse.Namespace, reports: Reports, console: Console) -> None:
    if args.reports_verb == "list":
        state = None if args.state == "all" else State(args.state)
        page = await reports.some(state, before=None, limit=args.limit)
        console.print(_table(page.items))
        if page.more:
            console.print("There are older ones: --limit.", markup=False)
        return
    filed = await reports.one(args.report_id)
    if args.reports_verb == "close":
        resolution = Resolution(args.resolution)
        filed = await reports.close(
            None,
            args.report_id,
            version=filed.report.version,
            resolution=resolution,
            note=args.note,
            actor=operator(),
        )
        name = filed.people[filed.report.reported_id].username
        banned = f"; {name} is banned" if resolution is Resolution.BANNED else ""
        console.print(f"Closed as {resolution.value}{banned}.", markup=False)
        return
    for line in _lines(filed):
        console.print(line, markup=False, soft_wrap=True)


def _table(items: Sequence[Filed]) -> Table:
    table = Table()
    for name in ("since", "state", "reported", "by", "reason", "what", "id"):
        table.add_column(name, overflow="fold")
    for filed in items:
        report = filed.report
        said = report.evidence.text if report.evidence else report.comment
        what = ("message: " if report.evidence else "person: ") + (said or "")
        cells = (
            f"{report.created_at:%Y-%m-%d %H:%M}",
            report.closing.resolution.value if report.closing else report.state.value,
            filed.people[report.reported_id].username,
            filed.people[report.reporter_id].username,
            report.reason.value,
            what if len(what) <= _SAID_MAX else what[: _SAID_MAX - 1] + "…",
            report.id,
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _lines(filed: Filed) -> list[str]:
    report, evidence, closing = filed.report, filed.report.evidence, filed.report.closing
    reporter, reported = filed.people[report.reporter_id], filed.people[report.reported_id]
    what = "a message of " if evidence else ""
    lines = [
        f"{reporter.username} reported {what}{reported.username} at {rfc3339(report.created_at)}: "
        f"{report.reason.value}.",
        f"Reported person: {reported.user_id} ({reported.status})",
        f"Comment: {report.comment or '-'}",
    ]
    if evidence:
        text = "(encrypted)" if evidence.encrypted else evidence.text or "-"
        lines += [
            f"Message {evidence.message_id}, number {evidence.seq} of conversation {evidence.conversation_id}, "
            f"of {rfc3339(evidence.created_at)}:",
            f"  {text}",
            f"  Attachment: {evidence.attachment['id'] if evidence.attachment else '-'}",
            f"  SHA-256 {evidence.sha256}",
        ]
    if closing:
        by = closing.by or "the command line"
        lines.append(
            f"Closed as {closing.resolution.value} by {by} at {rfc3339(closing.at)}: {closing.note or '-'}"
        )
    return lines


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LISTED_MAX:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {LISTED_MAX} is expected")
    return int(text)
