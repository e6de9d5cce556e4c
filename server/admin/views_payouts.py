"""Withdrawals: those that wait for approval, those that need a person, and what is decided about one."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from models.errors import Refusal
from models.payouts import rules
from models.payouts.payout import Payout, Stage
from server.admin.nav import Entry
from server.admin.visit import Page, Visit

SHOWN = 100
EARLIER_SHOWN = 6
# What may be done and what it is called afterwards. Whatever lets money out asks for the second factor again.
FRESH = {"approve", "submit", "authorize"}
SAID = {
    "approve": "The withdrawal is approved and on its way.",
    "reject": "The withdrawal is rejected: the money is in the wallet again.",
    "submit": "The withdrawal is submitted.",
    "void": "The withdrawal is taken back: the money is in the wallet again.",
    "authorize": "The gateway has the password.",
    "resend": "The gateway was asked to send the password again.",
}


async def payouts(visit: Visit) -> web.StreamResponse:
    """All that somebody has to decide, then what is under way by itself."""
    desk = visit.services.desk.payouts
    waiting, review = await desk.waiting(SHOWN), await desk.for_review(SHOWN)
    seen = {one.id for one in (*waiting, *review)}
    others = [one for one in await desk.under_way(SHOWN) if one.id not in seen]
    owners = await visit.services.users.profiles({one.user_id for one in (*waiting, *review, *others)})
    return await visit.render(
        "payouts.html", waiting=waiting, review=review, others=others, owners=owners, most=SHOWN
    )


async def payout(visit: Visit, failed: dict[str, Any] | None = None, status: int = 200) -> web.StreamResponse:
    """One withdrawal, with what somebody has to know who decides on it."""
    services = visit.services
    one = await services.desk.payouts.find(visit.part("id"))
    earlier = await services.payouts.payouts(one.user_id, before_id=one.id, most=EARLIER_SHOWN)
    wallet = await services.ledger.wallet(one.user_id, one.currency)
    found = await services.trail.search(target=one.id, limit=5)
    return await visit.render(
        "payout.html",
        status=status,
        one=one,
        owner=(await services.users.profiles({one.user_id})).get(one.user_id),
        wallet=wallet,
        earlier=earlier,
        done=found.rows,
        may=_may(one, visit),
        own=one.user_id == visit.user_id,
        failed=failed,
    )


async def act(visit: Visit) -> web.StreamResponse:
    """Do one of ``SAID``."""
    name, desk = visit.part("act"), visit.services.desk.payouts
    if name not in SAID:
        raise Refusal("ROUTE_UNKNOWN")
    one = await desk.find(visit.part("id"))
    who: dict[str, Any] = {"by": visit.actor, "reason": visit.sent("reason")}
    try:
        if name in FRESH:
            await visit.fresh()
        match name:
            case "approve":
                await desk.approve(one.id, **who)
            case "reject":
                await desk.reject(one.id, **who)
            case "submit":
                await desk.submit(one.id, **who)
            case "void":
                await desk.void(one.id, **who)
            case "resend":
                await desk.resend(one.id, **who)
            case _:
                await desk.authorize(one.id, visit.sent("password", 64), **who)
    except Refusal as no:
        return await payout(visit, failed=visit.failed(name, no), status=no.status)
    return visit.to(f"/payouts/{one.id}", SAID[name])


def _may(one: Payout, visit: Visit) -> set[str]:
    """What may be done about it now; nobody decides on one of their own."""
    now = visit.now
    if one.user_id == visit.user_id:
        return set()
    if one.stage is Stage.APPROVAL:
        return {"approve", "reject"}
    acts = set()
    if one.stage is Stage.WAITING or rules.may_submit(one, now):
        acts.add("submit")
    if (one.open and rules.may_void(one, now)) or (one.stage is Stage.PAID and one.review is not None):
        acts.add("void")
    if one.stage is Stage.OTP:
        acts |= {"authorize", "resend"}
    return acts


async def count(visit: Visit) -> int:
    """How many wait for somebody, for the menu."""
    store = visit.services.payouts.store
    now = visit.now
    return (await store.unapproved(now)).number + (await store.reviewed(now)).number


ENTRY = Entry("Withdrawals", "/payouts", "out", count)
PAGES = [
    Page(method="GET", path="/payouts", handler=payouts),
    Page(method="GET", path="/payouts/{id}", handler=payout),
    Page(method="POST", path="/payouts/{id}/{act}", handler=act),
]
