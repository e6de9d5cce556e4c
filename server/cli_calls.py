"""``python main.py calls show|refund|end``: on a running system, from beside it.

A refund is durable when the command returns; a running server tells both sides of the call within seconds, and their
devices get their balances then.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.billing.receipt import segments_of
from models.calls import tariff
from models.calls.call import Call
from models.calls.store import CallStore
from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Kind, pocket_of
from models.ledger.store import LedgerStore
from models.money import minor_of, spoken
from server.cli_beside import beside, console_for_pipes
from server.cli_wired import UNSAID, add_reason, operator, services_beside
from server.clock import SystemClock
from server.config import Config


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``calls`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "calls",
        help="show a call with its money, refund or end it",
        description="Look after what calls cost.",
    )
    verbs = parser.add_subparsers(dest="calls_verb", required=True, metavar="VERB")
    show = verbs.add_parser("show", help="A call, its segments and its entries in the journal")
    show.add_argument("call_id", metavar="CALL", help="the call's id")
    refund = verbs.add_parser(
        "refund",
        help="Give back what a call cost, or a part of it",
        description="Give the payer back what a call cost; payee and platform bear it as they shared it.",
    )
    refund.add_argument("call_id", metavar="CALL", help="the call's id")
    refund.add_argument("--amount", help="in major units, such as 12.50; without it all that is left")
    add_reason(refund, "stands in the trail and in the statement of both")
    refund.add_argument("--key", help="the same key refunds once, however often the command is repeated")
    end = verbs.add_parser("end", help="End a live call, for reasons of policy")
    end.add_argument("call_id", metavar="CALL", help="the call's id")
    add_reason(end)
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done; 1: no such call, more than is left, or no database to ask."""
    console = console or console_for_pipes()

    async def work(db: Database) -> None:
        if args.calls_verb == "refund":
            await _refund(args, config, db, console)
        elif args.calls_verb == "end":
            await _end(args, config, db, console)
        else:
            await _show(args.call_id, db, console)

    return await beside(config, console, work)


async def _refund(args: argparse.Namespace, config: Config, db: Database, console: Console) -> None:
    call = await _call(args.call_id, db)
    currency = call.price.currency
    try:
        amount = None if args.amount is None else minor_of(args.amount, currency)
    except ValueError:
        raise Refusal("VALIDATION_FAILED", amount=["Not an amount of this currency."]) from None
    async with services_beside(config, db) as services:
        done = await services.desk.money.refund_call(
            args.call_id,
            by=operator(),
            reason=args.reason,
            amount_minor=amount,
            key=args.key,
            note=None if args.reason == UNSAID else args.reason,
        )
    if done.again:
        console.print("It was refunded already under this key; nothing was moved.", markup=False)
        return
    console.print(
        f"Refunded {spoken(done.amount_minor, currency)} to {call.caller.username}; "
        f"{spoken(done.call.cost_minor, currency)} is left of the call.",
        markup=False,
        soft_wrap=True,
    )


async def _end(args: argparse.Namespace, config: Config, db: Database, console: Console) -> None:
    async with services_beside(config, db) as services:
        after = await services.desk.calls.end(args.call_id, by=operator(), reason=args.reason)
    assert after.end_reason is not None, "it has ended"
    console.print(f"The call has ended: {after.end_reason.value}.", markup=False)


async def _call(call_id: str, db: Database) -> Call:
    found = await CallStore(db).load(call_id)
    if found is None:
        raise Refusal("CALL_UNKNOWN")
    return found


async def _show(call_id: str, db: Database, console: Console) -> None:
    call, now = await _call(call_id, db), SystemClock().now()
    currency = call.price.currency
    cost = tariff.cost(call, now) if call.live else call.cost_minor
    reason = f" ({call.end_reason.value})" if call.end_reason else ""
    stage = f", {call.charge.stage.value}" if call.charge else ""
    back = call.charge.refunded.total if call.charge else 0
    refunded = f", refunded {spoken(back, currency)}" if back else ""
    did = "called" if call.room_id is None else f"came into room {call.room_id} of"
    console.print(
        f"{call.caller.username} {did} {call.callee.username} at {call.created_at:%Y-%m-%d %H:%M:%S} UTC: "
        f"{call.state.value}{reason}, {spoken(cost + back, currency)}{refunded}{stage}.",
        markup=False,
    )
    segments = Table("segment", "a minute", "talked", "billed", "price")
    for segment in segments_of(call):
        segments.add_row(
            segment.type,
            spoken(segment.price.rate_per_minute_minor, currency),
            f"{segment.talk_ms / 1000:.3f} s",
            f"{tariff.billed_seconds(segment.price, segment.talk_ms)} s",
            spoken(tariff.cost_of(segment.price, segment.talk_ms), currency),
        )
    console.print(segments)
    entries = Table("entry", "kind", "at", "account", "amount")
    reasons = []
    names = {person.user_id: person.username for person in (call.caller, call.callee)}
    for sealed in await LedgerStore(db).of_call(call_id):
        entry = sealed.entry
        if entry.kind is Kind.REFUND and entry.note:
            reasons.append(f"Refund of {entry.at:%Y-%m-%d %H:%M:%S} UTC: {entry.note}")
        for leg in entry.legs:
            entries.add_row(
                entry.id.removeprefix(f"call:{call_id}:"),
                entry.kind.value,
                f"{entry.at:%H:%M:%S}",
                escape(_account(leg.account, names)),
                spoken(leg.amount_minor, leg.currency),
            )
    if entries.row_count:
        console.print(entries)
    for reason in reasons:
        console.print(reason, markup=False, soft_wrap=True)


def _account(account: str, names: Mapping[str, str]) -> str:
    """An account with its owner's username for the id."""
    place = pocket_of(account)
    if place is None:
        return account
    user_id, _, currency = place[0].rpartition(":")
    return f"wallet:{names.get(user_id, user_id)}:{currency}:{place[1].value}"
