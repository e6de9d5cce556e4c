"""Payments: the routes of CONTRACT §3.2 by which money comes in, what gateways tell us, and who is told of it."""

from __future__ import annotations

from typing import Any

from handlers.context import Context
from handlers.payments_shapes import (
    BuyCredits,
    Deposit,
    PaidView,
    PaymentNotice,
    PaymentRef,
    PaymentReference,
    PaymentView,
    Taken,
    WebhookRef,
)
from handlers.registry import job, notice, route
from handlers.services import Services
from handlers.shapes import Page, PageQuery, decode_cursor, encode_cursor
from handlers.wallet import wallet_view
from handlers.wallet_shapes import amount_of
from models.mailbox.service import Mailbox
from models.payments.payment import Payment, Status
from models.ports import Letter

PAYMENT_UPDATED = notice(
    "PAYMENT_UPDATED", PaymentNotice, "To who pays, on every device: a payment has changed, or was paid."
)

_NOTICE = PaymentNotice()
_WHICH = ["WALLET_UNKNOWN", "CURRENCY_MISMATCH"]
_GATEWAY = ["GATEWAY_UNAVAILABLE", "GATEWAY_AWAY", "GATEWAY_REFUSED"]


@route(
    "POST",
    "/api/wallet/deposit",
    also=["/api/wallet/add-funds", "/wallet/add-funds"],
    takes=Deposit,
    gives=PaymentView,
    wraps="payment",
    status=201,
    once=True,
    refuses=[*_GATEWAY, *_WHICH, "AMOUNT_TOO_LARGE", "SERVER_BUSY"],
)
async def deposit(ctx: Context, ask: dict[str, Any]) -> Any:
    """Begin to pay money in. It is paid at ``checkoutUrl``, and credited when the gateway says that it was paid.

    After ``GATEWAY_AWAY`` the same ``Idempotency-Key`` goes on with the same payment.
    """
    payment = await ctx.services.payments.deposit(
        ctx.user_id,
        key=ask["op_id"],
        amount=amount_of(ask),
        currency=ask["currency"],
        gateway=ask["gateway"],
        into=ask["into"],
    )
    return payment_view(payment)


@route(
    "POST",
    "/api/payments",
    also=["/payments"],
    takes=BuyCredits,
    gives=PaymentView,
    wraps="payment",
    status=201,
    once=True,
    refuses=[
        "IDEMPOTENCY_KEY_REQUIRED",
        *_GATEWAY,
        *_WHICH,
        "WALLET_FROZEN",
        "INSUFFICIENT_FUNDS",
        "AMOUNT_TOO_LARGE",
        "SERVER_BUSY",
    ],
)
async def buy_credits(ctx: Context, ask: dict[str, Any]) -> Any:
    """Buy call credits through a gateway, or with ``method: "wallet"`` from your primary balance, at once.

    The latter needs an ``Idempotency-Key``, which moves the money once, ever.
    """
    payment = await ctx.services.payments.buy(
        ctx.user_id,
        key=ask["op_id"],
        amount=amount_of(ask),
        currency=ask["currency"],
        method=ask["method"],
    )
    return payment_view(payment)


@route(
    "POST",
    "/api/wallet/verify-deposit",
    takes=PaymentReference,
    gives=PaidView,
    refuses=["PAYMENT_UNKNOWN", "SERVER_BUSY"],
)
async def verify_deposit(ctx: Context, ask: dict[str, Any]) -> Any:
    """How a payment stands, and the wallet that it goes into. The gateway is asked; nothing you say is believed."""
    paid = await ctx.services.payments.verify(ctx.user_id, ask["reference"])
    return {"payment": payment_view(paid.payment), "wallet": wallet_view(paid.wallet)}


@route(
    "POST",
    "/api/payments/verify/{reference}",
    also=["/payments/verify/{reference}"],
    takes=PaymentReference,
    gives=PaymentView,
    wraps="payment",
    refuses=["PAYMENT_UNKNOWN", "SERVER_BUSY"],
)
async def verify_payment(ctx: Context, ask: dict[str, Any]) -> Any:
    """How a payment stands, by the gateway."""
    return payment_view((await ctx.services.payments.verify(ctx.user_id, ask["reference"])).payment)


@route(
    "GET",
    "/api/payments",
    also=["/payments"],
    takes=PageQuery,
    gives=PaymentView,
    many=True,
    scope="payments:read",
)
async def payments(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your payments, newest first."""
    parts = decode_cursor(ask["cursor"], parts=1)
    limit = ask["limit"]
    found = await ctx.services.payments.payments(
        ctx.user_id, before_id=parts[0] if parts else None, most=limit + 1
    )
    items = [payment_view(one) for one in found[:limit]]
    return Page(items, encode_cursor(found[limit - 1].id) if len(found) > limit else None)


@route(
    "GET",
    "/api/payments/{id}",
    scope="payments:read",
    also=["/payments/{id}"],
    takes=PaymentRef,
    gives=PaymentView,
    wraps="payment",
    refuses=["PAYMENT_UNKNOWN"],
)
async def payment(ctx: Context, ask: dict[str, Any]) -> Any:
    """One of your payments."""
    return payment_view(await ctx.services.payments.payment(ctx.user_id, ask["id"]))


# ------------------------------------------------------------------------------------------------ gateways, and jobs


@route(
    "POST",
    "/api/payments/webhooks/{gateway}",
    takes=WebhookRef,
    gives=Taken,
    public=True,
    limit="none",
    body="raw",
    refuses=["WEBHOOK_INVALID", "ROUTE_UNKNOWN"],
)
async def payment_webhook(ctx: Context, ask: dict[str, Any]) -> dict[str, Any]:
    """For payment gateways alone: their notifications, signed over the very bytes. Answered once it is stored.

    What it says is not believed: it makes the server ask the gateway.
    """
    await ctx.services.inbox.take(ask["gateway"], ctx.raw, ctx.headers)
    return {"received": True}


@job("payments_inbox", every_seconds=1.0, anywhere=True)
async def payments_inbox(services: Services) -> None:
    """Work off what gateways have told."""
    await services.inbox.run()


@job("payments_looks", every_seconds=5.0, anywhere=True)
async def payments_looks(services: Services) -> None:
    """Ask gateways for what they have not told: payments that are open, and those that may have gone back."""
    await services.payments.run_looks()


@job("payments_refunds", every_seconds=5.0, anywhere=True)
async def payments_refunds(services: Services) -> None:
    """Have refunds done, and ask how they stand."""
    await services.refunds.run()


@job("payments_untold", every_seconds=5.0, anywhere=True)
async def payments_untold(services: Services) -> None:
    """Tell what a process has written and not lived to tell."""
    await services.payments.looking.tell_missed()


# ------------------------------------------------------------------------------------------------------- how it looks


def payment_view(payment: Payment) -> dict[str, Any]:
    """A payment for ``PaymentView`` to dump."""
    return {
        "id": payment.id,
        "reference": payment.reference,
        "gateway": payment.gateway,
        "amount_minor": payment.amount_minor,
        "paid_minor": payment.paid_minor,
        "reversed_minor": payment.reversed_minor,
        "currency": payment.currency,
        "into": payment.into,
        "status": payment.status.value,
        "checkout_url": payment.checkout_url if payment.status is Status.PENDING else None,
        "version": payment.version,
        "created_at": payment.created_at,
    }


class PaymentTeller:
    """An announcer of payments: a change becomes a letter to who pays, told once and kept for who is away."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def payment(self, payment: Payment) -> None:
        """It is so now."""
        payload = {"payment": dict(_NOTICE.dump({"payment": payment_view(payment)})["payment"])}
        key = f"payment:{payment.id}:{payment.version}"
        await self._mailbox.post(
            [Letter(user_id=payment.user_id, event=PAYMENT_UPDATED, payload=payload, key=key)]
        )
