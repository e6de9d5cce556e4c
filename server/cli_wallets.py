"""``python main.py wallets list|show|freeze|unfreeze``: on a running system, from beside it.

A freeze holds from the next posting on, in every process: the database refuses a posting that has not seen it. The
owner's devices learn of it at their next connect.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Wallet
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.money import spoken
from models.ports import Clock
from models.users.store import UserStore
from models.wallet.rules import StatementLine, lines_of
from models.wallet.store import WalletStore
from server.cli_beside import beside, console_for_pipes
from server.cli_wired import add_reason, operator, services_beside
from server.config import Config

# More wallets than anybody reads through in a terminal.
LISTED = 200
LINES_SHOWN = 10


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``wallets`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "wallets", help="list, show, freeze or unfreeze wallets", description="Look after people's wallets."
    )
    verbs = parser.add_subparsers(dest="wallets_verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="Whose wallets there are, newest first")
    listing.add_argument("--limit", type=_whole, default=LISTED, help=f"at most this many (default {LISTED})")
    for verb, said in (
        ("show", "Somebody's wallets, their PIN's state and the newest lines"),
        ("freeze", "Let nothing out of somebody's wallets; what comes in still does"),
        ("unfreeze", "Let money out of somebody's wallets again"),
    ):
        one = verbs.add_parser(verb, help=said, description=f"{said}.")
        one.add_argument("name", metavar="NAME", help="username, e-mail address, phone number or id")
        if verb != "show":
            one.add_argument("--currency", help="only the wallet in this currency")
            add_reason(one)
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done; 1: no such user or wallet, or no database to ask."""
    console = console or console_for_pipes()
    return await beside(config, console, lambda db: _do(args, db, config, console))


async def _do(args: argparse.Namespace, db: Database, config: Config, console: Console) -> None:
    if args.wallets_verb == "list":
        wallets = await LedgerStore(db).newest(args.limit)
        owners = await UserStore(db).profiles({wallet.user_id for wallet in wallets})
        names = {user_id: owner.username for user_id, owner in owners.items()}
        console.print(_wallets(wallets, names))
        return
    async with services_beside(config, db) as services:
        owner = (await services.desk.people.find(args.name)).profile
        if args.wallets_verb == "show":
            pins = WalletStore(db)
            await _show(owner.user_id, owner.username, services.ledger, pins, services.clock, console)
            return
        money, frozen = services.desk.money, args.wallets_verb == "freeze"
        verb = money.freeze if frozen else money.unfreeze
        done = await verb(owner.user_id, by=operator(), reason=args.reason, currency=args.currency)
    for wallet in done:
        state = "frozen" if frozen else "open"
        console.print(f"The {wallet.currency} wallet of {owner.username} is {state}.", markup=False)


async def _show(
    user_id: str, name: str, ledger: Ledger, pins: WalletStore, clock: Clock, console: Console
) -> None:
    wallets = await ledger.store.wallets_of(user_id)
    if not wallets:
        raise Refusal("WALLET_UNKNOWN")
    console.print(_wallets(wallets, {user_id: name}))
    pin, now = await pins.pin(user_id), clock.now()
    if pin is None:
        state = "not set"
    elif not pin.locked(now):
        state = "set"
    else:
        state = (
            f"locked until {pin.locked_until:%Y-%m-%d %H:%M} UTC" if pin.locked_until else "locked: reset it"
        )
    console.print(f"PIN: {state}.", markup=False)
    for wallet in wallets:
        found = await ledger.store.statement(wallet.key, below_version=wallet.version + 1, most=LINES_SHOWN)
        lines = [
            line
            for sealed in found
            for seal in sealed.seals
            if seal.wallet == wallet.key
            for line in lines_of(sealed.entry, seal, wallet.currency)
        ]
        if lines:
            console.print(_lines(lines[:LINES_SHOWN]))


def _wallets(wallets: Sequence[Wallet], names: dict[str, str]) -> Table:
    # Ids and names are for copying: a narrow terminal wraps them, it never cuts them.
    table = Table()
    for name in ("username", "currency"):
        table.add_column(name, overflow="fold")
    for name in ("available", "held", "credits", "credits held", "pending", "owed"):
        table.add_column(name, justify="right")
    for name in ("state", "since", "id"):
        table.add_column(name, overflow="fold")
    for wallet in wallets:
        amounts = (
            *(wallet.primary, wallet.primary_held, wallet.credits),
            *(wallet.credits_held, wallet.pending, wallet.owed),
        )
        cells = (
            names.get(wallet.user_id, wallet.user_id),
            wallet.currency,
            # The currency has a column of its own.
            *(spoken(amount, wallet.currency).replace(f"{wallet.currency} ", "") for amount in amounts),
            "frozen" if wallet.frozen else "open",
            f"{wallet.created_at:%Y-%m-%d}",
            wallet.id,
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _lines(lines: Sequence[StatementLine]) -> Table:
    table = Table()
    for name in ("at", "kind", "account"):
        table.add_column(name, overflow="fold")
    for name in ("amount", "after"):
        table.add_column(name, justify="right")
    for name in ("call or payment", "note"):
        table.add_column(name, overflow="fold")
    for line in lines:
        cells = (
            f"{line.created_at:%Y-%m-%d %H:%M:%S}",
            line.kind,
            line.account,
            spoken(line.amount_minor, line.currency),
            spoken(line.balance_after_minor, line.currency),
            line.call_id or line.payment_id or "",
            line.note or "",
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("a whole number from 1 to 1000000 is expected")
    return int(text)
