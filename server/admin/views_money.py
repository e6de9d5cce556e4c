"""Giving money of a call back: what it cost, what of that is left, and the form."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from models.calls.call import Call, Role
from models.errors import Refusal
from models.money import minor_of, spoken
from server.admin.visit import Page, Visit
from server.clock import SystemIds

AMOUNT_LENGTH_MAX = 24


def refundable(call: Call) -> int:
    """What of an ended call's price can still be given back, in minor units."""
    return 0 if call.live or call.charge is None else call.cost_minor


async def refund(visit: Visit, failed: dict[str, Any] | None = None, status: int = 200) -> web.StreamResponse:
    """One call's money, and the form to give of it back."""
    call = await visit.services.desk.calls.one(visit.part("id"))
    receipt = await visit.services.receipts.of(call, Role.CALLER)
    charge = call.charge
    return await visit.render(
        "call_money.html",
        status=status,
        call=call,
        charge=charge,
        currency=call.price.currency,
        left=refundable(call),
        refunded=charge.refunded.total if charge is not None else 0,
        receipt=receipt,
        # So that the same form, sent twice, gives back once.
        key=failed["form"].get("key") if failed else SystemIds().new(),
        failed=failed,
    )


async def give_back(visit: Visit) -> web.StreamResponse:
    """Do it; both sides are told."""
    call = await visit.services.desk.calls.one(visit.part("id"))
    currency = call.price.currency
    try:
        minor = _minor(visit.sent("amount", AMOUNT_LENGTH_MAX), currency)
        await visit.fresh()
        done = await visit.services.desk.money.refund_call(
            call.id,
            by=visit.actor,
            reason=visit.sent("reason"),
            amount_minor=minor,
            key=visit.sent("key", 64) or None,
            note=visit.sent("note") or None,
        )
    except Refusal as no:
        return await refund(visit, failed=visit.failed("refund", no), status=no.status)
    said = f"{spoken(done.amount_minor, currency)} went back to {call.caller.display_name}."
    return visit.to(f"/calls/{call.id}", "It had gone back already." if done.again else said)


def _minor(text: str, currency: str) -> int | None:
    """What was typed, in minor units; None: all. Refuses with ``VALIDATION_FAILED``."""
    if not text:
        return None
    try:
        minor = minor_of(text, currency)
    except ValueError:
        raise Refusal("VALIDATION_FAILED", amount=[f"Not an amount of {currency}."]) from None
    if minor <= 0:
        raise Refusal("VALIDATION_FAILED", amount=["More than nothing is expected."])
    return minor


PAGES = [
    Page(method="GET", path="/calls/{id}/refund", handler=refund),
    Page(method="POST", path="/calls/{id}/refund", handler=give_back),
]
