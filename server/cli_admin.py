"""``python main.py admin create NAME|list``: who keeps the server, from beside it.

A new administrator has no second factor yet. The pages at ``/admin`` let them do nothing but set one up.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handlers.services import Services
from models.auth.rules import Key, login_key
from models.db import Database
from models.errors import Refusal
from models.users.profile import ADMIN, Account
from server.cli_beside import beside, console_for_pipes
from server.cli_wired import add_reason, operator, services_beside
from server.config import Config

# More than any password of ours, so that a wrong file is not read whole.
PASSWORD_BYTES_MAX = 4096
HERE = ("", "0.0.0.0", "::")  # noqa: S104 - what is listened on, and no address to go to


class WrongUse(Exception):
    """The command cannot be understood; the text says why."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``admin`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "admin", help="create or list administrators", description="Look after who keeps this server."
    )
    verbs = parser.add_subparsers(dest="admin_verb", required=True, metavar="VERB")
    create = verbs.add_parser(
        "create",
        help="Make an administrator: a new account, or one that there is",
        description="Make an administrator. Who has an account keeps its password; for a new one a password is asked "
        "for at the terminal, or read from --password-file, or from what comes in.",
    )
    create.add_argument("name", metavar="NAME", help="username, e-mail address, phone number or id")
    create.add_argument("--email", help="of a new account whose NAME is a username")
    create.add_argument(
        "--password-file", metavar="FILE", help="its first line is the password; - is what comes in"
    )
    add_reason(create)
    verbs.add_parser("list", help="Who is an administrator, and with a second factor or without")
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done; 1: refused, or no database to ask; 2: wrong use."""
    console = console or console_for_pipes()
    wrong: list[str] = []

    async def work(db: Database) -> None:
        async with services_beside(config, db) as services:
            if args.admin_verb == "list":
                console.print(_table(await services.desk.admins.all()))
                return
            try:
                account = await _create(args, services, console)
            except WrongUse as fault:
                wrong.append(str(fault))
                return
        console.print(_next(account, config), markup=False, soft_wrap=True)

    status = await beside(config, console, work)
    for said in wrong:
        print(said, file=sys.stderr)
    return 2 if wrong else status


async def _create(args: argparse.Namespace, services: Services, console: Console) -> Account:
    who: dict[str, Any] = {"by": operator(), "reason": args.reason}
    people = services.desk.people
    try:
        known: Account | None = await people.find(args.name)
    except Refusal as no:
        if no.code != "USER_UNKNOWN":
            raise
        known = None
    if known is not None:
        if args.email is not None or args.password_file is not None:
            # Anybody can have registered that name before: they would be the administrator, by their own password.
            raise WrongUse(
                f"{_whose(known)} Nothing was done. If it is meant, say so without --email and --password-file."
            )
        if sys.stdin.isatty() and not _meant(known):
            raise WrongUse("Nothing was done.")
        account = await people.promote(known.profile.user_id, **who)
        console.print(f"{account.profile.username} is an administrator. {_whose(account)}", markup=False)
        return account
    kind = (login_key(args.name) or (Key.USERNAME, ""))[0]
    email = args.name if kind is Key.EMAIL else args.email
    phone = args.name if kind is Key.PHONE else None
    if email is None and phone is None:
        email = _asked_email()
    account = await services.desk.admins.create(
        username=args.name if kind is Key.USERNAME else None,
        email=email,
        phone=phone,
        password=_password(args.password_file),
        **who,
    )
    console.print(f"{account.profile.username} has an account and is an administrator.", markup=False)
    return account


def _whose(account: Account) -> str:
    """What there is to recognize an account by."""
    said = [f"{way} {name}" for way, name in (("e-mail", account.email), ("phone", account.phone)) if name]
    since = f"{account.created_at:%Y-%m-%d %H:%M} UTC"
    return (
        f"It is an account that there is since {since}, with {' and '.join(said) or 'no address'}, "
        "and keeps its password."
    )


def _meant(account: Account) -> bool:
    """Whether whoever types says so."""
    return input(f"{_whose(account)} Make it an administrator? [y/N] ").strip().lower() in ("y", "yes")


def _asked_email() -> str:
    if not sys.stdin.isatty():
        raise WrongUse(
            "There is no account of this name. A new one takes --email, or an address as its NAME."
        )
    return input("There is no account of this name. E-mail address of a new one: ").strip()


def _password(path: str | None) -> str:
    """What was typed twice without being shown, or the first line of a file or of what comes in."""
    if path is None and sys.stdin.isatty():
        first = getpass.getpass("Password: ")
        if first != getpass.getpass("The same again: "):
            raise WrongUse("These are two passwords; nothing was done.")
        return first
    try:
        if path in (None, "-"):
            text = sys.stdin.readline(PASSWORD_BYTES_MAX)
        else:
            assert path is not None
            with Path(path).open(encoding="utf-8") as kept:
                text = kept.readline(PASSWORD_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as fault:
        raise WrongUse(f"The password cannot be read: {fault}.") from None
    password = text.rstrip("\r\n")
    if not password:
        raise WrongUse("There is no password in what comes in, or in --password-file.")
    return password


def _next(account: Account, config: Config) -> str:
    """How it goes on."""
    host = "127.0.0.1" if config.host in HERE else config.host
    address = config.money.public_url or f"http://{host}:{config.port}"
    if account.second_factor:
        return f"Sign in at {address}/admin with the password and a code of the authenticator app."
    return (
        f"Next: sign in at {address}/admin. The first page shows a QR code for an authenticator app (any that knows "
        "TOTP) and recovery codes to keep; without a second factor nothing else can be done there."
    )


def _table(accounts: list[Account]) -> Table:
    table = Table()
    for name in ("username", "e-mail", "phone", "state", "second factor", "since", "id"):
        table.add_column(name, overflow="fold")
    for account in accounts:
        assert account.profile.role == ADMIN
        cells = (
            account.profile.username,
            account.email or "",
            account.phone or "",
            account.profile.status,
            "on" if account.second_factor else "none yet",
            f"{account.created_at:%Y-%m-%d}",
            account.profile.user_id,
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table
