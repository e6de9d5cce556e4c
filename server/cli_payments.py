"""``python main.py payments list|show|look|refund|review``: on a running system, from beside it.

A refund is taken from the wallet and then asked of the gateway, once; what the gateway does not answer clearly is
looked up by the running server. The owner's devices learn of their balance at their next connect.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handlers.services import Services
from models.db import Database
from models.errors import Refusal
from models.money import minor_of, spoken
from models.payments.gateway import GatewayAway
from models.payments.inbox.store import Stage, Told
from models.payments.payment import Payment, Refund, Status
from models.trail.rules import Act, Target
from models.users.store import UserStore
from server.cli_beside import beside, console_for_pipes
from server.cli_wired import UNSAID, operator, services_beside
from server.config import Config

LISTED = 50


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``payments`` with its verbs to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "payments", help="list, show or refund payments", description="Look after money that comes in."
    )
    verbs = parser.add_subparsers(dest="payments_verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="Payments, newest first")
    listing.add_argument("--status", choices=[status.value for status in Status], help="only those")
    listing.add_argument("--limit", type=_whole, default=LISTED, help=f"at most this many (default {LISTED})")
    for verb, said in (
        ("show", "A payment, its checkouts, entries and refunds"),
        ("look", "Ask the gateway now how a payment stands"),
    ):
        one = verbs.add_parser(verb, help=said, description=f"{said}.")
        one.add_argument("reference", metavar="REFERENCE")
    refund = verbs.add_parser(
        "refund",
        help="Give money of a payment back through its gateway",
        description="Take money of a payment out of the wallet and give it back through its gateway.",
    )
    refund.add_argument("reference", metavar="REFERENCE")
    refund.add_argument("--amount", help='in major units, such as "10.50"; without it all that is left')
    refund.add_argument("--reason", default="asked for", help="what the gateway is told")
    refund.add_argument("--key", help="the same key refunds once, however often the command is repeated")
    review = verbs.add_parser(
        "review",
        help="What needs a person; with a reference, say what you have found out",
        description="List what needs a person. With a reference: it was looked at, and is listed no more.",
    )
    review.add_argument("reference", metavar="REFERENCE", nargs="?", help="of a payment or a refund")
    review.add_argument(
        "--refund", choices=("done", "failed"), help="what has become of that refund, by the gateway's pages"
    )
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Do what ``args`` say. 0: done; 1: no such payment, refused, or no database to ask."""
    console = console or console_for_pipes()

    async def work(db: Database) -> None:
        async with services_beside(config, db) as services:
            await _VERBS[args.payments_verb](args, services, db, console)

    return await beside(config, console, work)


async def _list(args: argparse.Namespace, services: Services, db: Database, console: Console) -> None:
    status = Status(args.status) if args.status else None
    console.print(await _payments(await services.payments.store.newest(args.limit, status=status), db))


async def _show(args: argparse.Namespace, services: Services, db: Database, console: Console) -> None:
    payment = await _found(args.reference, services)
    console.print(await _payments([payment], db))
    facts = {
        "id": payment.id,
        "user": payment.user_id,
        "into": payment.into,
        "at the gateway": payment.word,
        "its fee": spoken(payment.fee_minor, payment.currency) if payment.fee_minor is not None else "",
        "card": f"{payment.card.brand} …{payment.card.last4}" if payment.card else "",
        "next look": f"{payment.look_at:%Y-%m-%d %H:%M:%S} UTC" if payment.look_at else "none",
        "needs a person": payment.review or "",
    }
    for name, value in facts.items():
        if value:
            console.print(f"{name}: {value}", markup=False, soft_wrap=True)
    for one in payment.asked:
        theirs = f", there {one.gateway_reference}" if one.gateway_reference else ""
        paid, back = (spoken(some, payment.currency) for some in (one.paid_minor, one.reversed_minor))
        console.print(
            f"checkout {one.reference}{theirs}: {paid} paid, {back} back", markup=False, soft_wrap=True
        )
    for refund in await services.refunds.store.of_payment(payment.id):
        console.print(_said(refund), markup=False, soft_wrap=True)


async def _look(args: argparse.Namespace, services: Services, db: Database, console: Console) -> None:
    payment = await _found(args.reference, services)
    try:
        payment = await services.payments.looking.look(payment)
    except GatewayAway as away:
        console.print(f"The gateway did not say: {away}.", markup=False)
        raise Refusal("GATEWAY_AWAY") from away
    console.print(await _payments([payment], db))


async def _refund(args: argparse.Namespace, services: Services, db: Database, console: Console) -> None:
    payment = await _found(args.reference, services)
    minor = None
    if args.amount is not None:
        try:
            minor = minor_of(Decimal(args.amount), payment.currency)
        except (ValueError, InvalidOperation):
            raise Refusal("VALIDATION_FAILED", amount=[f"No amount of {payment.currency}."]) from None
    refund = await services.desk.money.refund_payment(
        payment.reference, by=operator(), reason=args.reason, amount_minor=minor, key=args.key
    )
    console.print(_said(await services.refunds.work(refund)), markup=False, soft_wrap=True)


async def _review(args: argparse.Namespace, services: Services, db: Database, console: Console) -> None:
    if args.reference is not None and args.refund is not None:
        said = f"the gateway's pages say {args.refund}"
        await services.trail.record(_act("payment.settle_refund", args.reference, said))
        done = await services.refunds.settle(args.reference, done=args.refund == "done")
        console.print(_said(done), markup=False, soft_wrap=True)
        return
    if args.reference is not None:
        await services.trail.record(_act("payment.look", args.reference, UNSAID))
        await services.payments.looked_at(args.reference)
        console.print(f"{args.reference} is listed no more.", markup=False)
        return
    payments = await services.payments.store.newest(LISTED, review=True)
    for payment in payments:
        console.print(f"payment {payment.reference}: {payment.review}", markup=False, soft_wrap=True)
    refunds = await services.refunds.store.for_review(LISTED)
    for refund in refunds:
        console.print(_said(refund), markup=False, soft_wrap=True)
    told: list[Told] = []
    for stage in (Stage.UNMATCHED, Stage.LEFT):
        told += await services.inbox.store.newest(LISTED, stage=stage)
    for one in told:
        about = one.notice.reference or one.notice.gateway_reference or "nothing"
        said = f"notification {one.id} of {one.at:%Y-%m-%d %H:%M} about {about}: {one.stage.value}"
        console.print(said, markup=False, soft_wrap=True)
    if not payments and not refunds and not told:
        console.print("Nothing needs a person.")


def _act(act: str, reference: str, why: str) -> Act:
    return Act(actor=operator(), act=act, target=Target("payment", reference[:64]), reason=why)


_VERBS = {"list": _list, "show": _show, "look": _look, "refund": _refund, "review": _review}


async def _found(reference: str, services: Services) -> Payment:
    found = await services.payments.store.by_reference(reference)
    if found is None:
        raise Refusal("PAYMENT_UNKNOWN")
    return found


async def _payments(payments: Sequence[Payment], db: Database) -> Table:
    owners = await UserStore(db).profiles({payment.user_id for payment in payments})
    # References are for copying: a narrow terminal wraps them, it never cuts them.
    table = Table()
    for name in ("reference", "username", "gateway"):
        table.add_column(name, overflow="fold")
    for name in ("asked", "paid", "back"):
        table.add_column(name, justify="right")
    for name in ("status", "at", "review"):
        table.add_column(name, overflow="fold")
    for payment in payments:
        owner = owners.get(payment.user_id)
        cells = (
            payment.reference,
            owner.username if owner else payment.user_id,
            payment.gateway,
            *(
                spoken(amount, payment.currency)
                for amount in (payment.amount_minor, payment.paid_minor, payment.reversed_minor)
            ),
            payment.status.value,
            f"{payment.created_at:%Y-%m-%d %H:%M}",
            "yes" if payment.review else "",
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _said(refund: Refund) -> str:
    word = f" ({refund.word})" if refund.word else ""
    review = f"; needs a person: {refund.review}" if refund.review else ""
    return f"refund {refund.id} of {spoken(refund.amount_minor, refund.currency)}: {refund.stage.value}{word}{review}"


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError("a whole number from 1 to 1000 is expected")
    return int(text)
