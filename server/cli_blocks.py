"""``python main.py blocks list|add|remove``: addresses that are kept out, on a running system, from beside it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.blocks.store import Block
from models.db import Database
from server.cli_beside import beside, console_for_pipes
from server.cli_wired import add_reason, operator, services_beside
from server.config import Config

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LASTS = "24h"


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``blocks`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "blocks",
        help="list, add or remove addresses that are kept out",
        description="Keep addresses out for a time. The servers know within seconds.",
    )
    verbs = parser.add_subparsers(dest="blocks_verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="Which are kept out, until when, and why")
    add = verbs.add_parser("add", help="Keep a network out: its requests are refused, its sockets close")
    add.add_argument(
        "--for",
        dest="lasts",
        type=_lasts,
        default=_lasts(_LASTS),
        metavar="TIME",
        help=f"90s, 30m, 24h or 7d (default {_LASTS})",
    )
    remove = verbs.add_parser("remove", help="Let a network in again")
    for verb in (add, remove):
        verb.add_argument("network", metavar="NETWORK", help="203.0.113.7, 203.0.113.0/24 or 2001:db8::/64")
        add_reason(verb)
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done; 1: no such network, or no database to ask."""
    console = console or console_for_pipes()
    return await beside(config, console, lambda db: _do(args, db, config, console))


async def _do(args: argparse.Namespace, db: Database, config: Config, console: Console) -> None:
    async with services_beside(config, db) as services:
        blocks = services.blocks
        if args.blocks_verb == "list":
            console.print(_table(await blocks.all()))
        elif args.blocks_verb == "add":
            made = await blocks.add(args.network, lasts=args.lasts, by=operator(), reason=args.reason)
            console.print(
                f"{made.network} is kept out until {made.until:%Y-%m-%d %H:%M:%S} UTC.", markup=False
            )
        else:
            done = await blocks.remove(args.network, by=operator(), reason=args.reason)
            console.print("It is let in again." if done else "It was not kept out.", markup=False)


def _table(blocks: Sequence[Block]) -> Table:
    table = Table()
    for name in ("network", "until (UTC)", "since (UTC)", "by", "times", "reason"):
        table.add_column(name, overflow="fold")
    for block in blocks:
        cells = (
            block.network,
            f"{block.until:%Y-%m-%d %H:%M:%S}",
            f"{block.made_at:%Y-%m-%d %H:%M:%S}",
            block.by,
            str(block.times or ""),
            block.reason,
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _lasts(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError("a time such as 90s, 30m, 24h or 7d is expected")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
