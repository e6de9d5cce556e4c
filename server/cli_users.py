"""``python main.py users list|ban|unban|promote|demote|sign-out|drop-2fa NAME``: beside a running server.

A ban reaches the running servers through the database; each closes that person's sockets within a second.
"""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.db import Database
from models.users.profile import Account
from server.cli_beside import beside, console_for_pipes
from server.cli_wired import add_reason, operator, services_beside
from server.config import Config

# More people than anybody reads through in a terminal.
LISTED = 200

_VERBS = {
    "ban": ("Keep somebody out: sockets close and calls end within a second", "is banned"),
    "unban": ("Let somebody in again, with the sign-ins they had", "is active"),
    "promote": ("Make somebody an administrator", "is an administrator"),
    "demote": ("Make an administrator a user again", "is a user"),
    "sign-out": ("End all sign-ins of somebody", "is signed out everywhere"),
    "drop-2fa": (
        "Ask somebody for no second factor any more, who has lost it and shown you who they are",
        "signs in by password alone",
    ),
}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``users`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "users",
        help="list, ban, promote or sign out people; drop a lost second factor",
        description="Look after the people of this server.",
    )
    verbs = parser.add_subparsers(dest="users_verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="Who has an account, newest first")
    listing.add_argument("--limit", type=_whole, default=LISTED, help=f"at most this many (default {LISTED})")
    for verb, (said, _) in _VERBS.items():
        one = verbs.add_parser(verb, help=said, description=f"{said}.")
        one.add_argument("name", metavar="NAME", help="username, e-mail address, phone number or id")
        add_reason(one)
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done; 1: no such user, or no database to ask."""
    console = console or console_for_pipes()
    return await beside(config, console, lambda db: _do(args, db, config, console))


async def _do(args: argparse.Namespace, db: Database, config: Config, console: Console) -> None:
    async with services_beside(config, db) as services:
        people = services.desk.people
        if args.users_verb == "list":
            console.print(_table(await people.people(args.limit)))
            return
        verbs = {
            "ban": people.ban,
            "unban": people.unban,
            "promote": people.promote,
            "demote": people.demote,
            "drop-2fa": people.drop_factor,
            "sign-out": people.end_sessions,
        }
        account = await verbs[args.users_verb](args.name, by=operator(), reason=args.reason)
    console.print(f"{account.profile.username} {_VERBS[args.users_verb][1]}.", markup=False)


def _table(accounts: list[Account]) -> Table:
    # Ids and names are for copying: a narrow terminal wraps them, it never cuts them.
    table = Table()
    for name in ("username", "name", "e-mail", "phone", "role", "status", "since", "id"):
        table.add_column(name, overflow="fold")
    for account in accounts:
        person = account.profile
        cells = (
            person.username,
            person.display_name,
            account.email or "",
            account.phone or "",
            person.role,
            person.status,
            f"{account.created_at:%Y-%m-%d}",
            person.user_id,
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("a whole number from 1 to 1000000 is expected")
    return int(text)
