"""``python main.py payouts list|show|approve|reject|otp|resend|void|submit``: on a running system, from beside it.

Most withdrawals need nobody. One does when the gateway asks the operator for a one-time password, and when nobody knows
what became of it: then it says so in ``review``, its money stays held, and it is never submitted again by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.db import Database
from models.desk.payouts import PayoutDesk
from models.ledger.store import LedgerStore
from models.money import spoken
from models.payouts import rules
from models.payouts.payout import OPEN, Payout, Stage
from models.payouts.store import PayoutStore
from models.users.store import UserStore
from server.cli_beside import beside, console_for_pipes
from server.cli_wired import add_reason, operator, services_beside
from server.config import Config

LISTED = 50
LISTED_MAX = 1000
_STATES = ("open", "review", *(stage.value for stage in Stage), "all")
_VERBS = {
    "approve": "Let a withdrawal go on that waits for approval",
    "reject": "Give a withdrawal back that waits for approval",
    "otp": "Give the gateway the one-time password that it has sent to you",
    "resend": "Have the one-time password sent again",
    "submit": "Submit again what was sent and is not known to the gateway, or now what waits",
    "void": "Give the money back of what the gateway does not have",
}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``payouts`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "payouts",
        help="list or show withdrawals, and do what they need a person for",
        description="Look after withdrawals.",
    )
    verbs = parser.add_subparsers(dest="payouts_verb", required=True, metavar="VERB")
    listing = verbs.add_parser(
        "list", help="Withdrawals that are under way, newest first; with --state all of them"
    )
    listing.add_argument(
        "--state", choices=_STATES, default="open", help="default open; review: those that need a person"
    )
    listing.add_argument("--limit", type=_whole, default=LISTED, help=f"at most this many (default {LISTED})")
    show = verbs.add_parser("show", help="A withdrawal with its entries in the journal")
    show.add_argument("payout", metavar="PAYOUT", help="its id or its reference")
    for verb, said in _VERBS.items():
        one = verbs.add_parser(verb, help=said, description=f"{said}.")
        one.add_argument("payout", metavar="PAYOUT", help="its id or its reference")
        add_reason(one)
        if verb == "otp":
            one.add_argument("password", metavar="PASSWORD", help="as the gateway has sent it")
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done; 1: no such withdrawal, refused, or no database to ask."""
    console = console or console_for_pipes()

    async def work(db: Database) -> None:
        if args.payouts_verb == "list":
            await _list(args, db, console)
            return
        async with services_beside(config, db) as services:
            desk = services.desk.payouts
            if args.payouts_verb == "show":
                await _show(await desk.find(args.payout), db, console)
                return
            after = await _done(args, desk)
        said = spoken(after.amount_minor, after.currency)
        console.print(f"{said} to {after.to.bank_name} {after.to.last4}: {_where(after)}.", markup=False)

    return await beside(config, console, work)


async def _done(args: argparse.Namespace, desk: PayoutDesk) -> Payout:
    who: dict[str, Any] = {"by": operator(), "reason": args.reason}
    if args.payouts_verb == "otp":
        return await desk.authorize(args.payout, args.password, **who)
    verbs = {
        "resend": desk.resend,
        "approve": desk.approve,
        "reject": desk.reject,
        "submit": desk.submit,
        "void": desk.void,
    }
    return await verbs[args.payouts_verb](args.payout, **who)


async def _list(args: argparse.Namespace, db: Database, console: Console) -> None:
    review = args.state == "review"
    stages = None
    if args.state == "open":
        stages = OPEN
    elif args.state not in ("all", "review"):
        stages = frozenset({Stage(args.state)})
    found = await PayoutStore(db).some(stages, review=review, most=args.limit)
    owners = await UserStore(db).profiles({one.user_id for one in found})
    console.print(_payouts(found, {user_id: owner.username for user_id, owner in owners.items()}))
    for one in found:
        if one.review is not None:
            console.print(f"{one.id}: {one.review}", markup=False, soft_wrap=True)


async def _show(payout: Payout, db: Database, console: Console) -> None:
    owners = await UserStore(db).profiles({payout.user_id})
    console.print(_payouts([payout], {user_id: owner.username for user_id, owner in owners.items()}))
    facts = {
        "reference": payout.reference,
        "its gateway's": payout.gateway_reference or "",
        "to": f"{payout.to.account_name}, {payout.to.bank_name} ({payout.to.bank_code}) …{payout.to.last4}",
        "fee": spoken(payout.fee_minor, payout.currency),
        "submitted": f"{payout.submissions} times" if payout.submissions != 1 else "once",
        "since": f"{payout.stage_at:%Y-%m-%d %H:%M:%S} UTC",
        "next look": f"{payout.look_at:%Y-%m-%d %H:%M:%S} UTC" if payout.look_at else "none",
        "not known there": f"{payout.unknown} times in a row" if payout.unknown else "",
        "needs a person": payout.review or "",
    }
    for name, value in facts.items():
        if value:
            console.print(f"{name}: {value}", markup=False, soft_wrap=True)
    table = Table("entry", "at", "account", "amount")
    ledger = LedgerStore(db)
    for kind in rules.KINDS:
        sealed = await ledger.entry(rules.entry_id(payout.id, kind))
        for leg in sealed.entry.legs if sealed else ():
            assert sealed is not None
            name = sealed.entry.id.rpartition(":")[2]
            amount = spoken(leg.amount_minor, leg.currency)
            table.add_row(name, f"{sealed.entry.at:%Y-%m-%d %H:%M:%S}", escape(leg.account), amount)
    if table.row_count:
        console.print(table)


def _payouts(found: Sequence[Payout], names: Mapping[str, str]) -> Table:
    # Ids and references are for copying: a narrow terminal wraps them, it never cuts them.
    table = Table()
    for name in ("id", "username", "gateway", "to"):
        table.add_column(name, overflow="fold")
    table.add_column("amount", justify="right")
    for name in ("state", "its gateway's word", "asked"):
        table.add_column(name, overflow="fold")
    for one in found:
        cells = (
            one.id,
            names.get(one.user_id, one.user_id),
            one.gateway,
            f"{one.to.bank_name} …{one.to.last4}",
            spoken(one.amount_minor, one.currency),
            _where(one),
            one.word,
            f"{one.created_at:%Y-%m-%d %H:%M:%S}",
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _where(payout: Payout) -> str:
    reason = f" ({payout.reason.value})" if payout.reason else ""
    return f"{payout.stage.value}{reason}{', needs a person' if payout.review else ''}"


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LISTED_MAX:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {LISTED_MAX} is expected")
    return int(text)
