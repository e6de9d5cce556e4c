"""Money out: withdrawals, the bank accounts that they go to, and cards that were kept."""

from __future__ import annotations

from functools import partial
from typing import Any

from handlers.context import Context
from handlers.payouts_shapes import (
    AddBankAccount,
    BankAccountRef,
    BankAccountView,
    BanksQuery,
    BankView,
    CardRef,
    CardView,
    KeepCard,
    PayoutNotice,
    PayoutRef,
    PayoutView,
    Withdraw,
)
from handlers.registry import job, notice, route
from handlers.second_factor import WRONG_FACTOR
from handlers.services import Services
from handlers.shapes import Page, PageQuery, decode_cursor, encode_cursor
from handlers.wallet_shapes import amount_of
from models.mailbox.service import Mailbox
from models.payouts.payout import Payout
from models.ports import Letter

PAYOUT_UPDATED = notice(
    "PAYOUT_UPDATED", PayoutNotice, "To who withdraws, on every device: a withdrawal is at another place."
)

_NOTICE = PayoutNotice()
_GATEWAY = ["GATEWAY_UNAVAILABLE", "GATEWAY_AWAY", "GATEWAY_REFUSED"]


# -------------------------------------------------------------------------------------------------------- withdrawals


@route(
    "POST",
    "/api/wallet/withdraw",
    also=["/wallet/withdraw"],
    takes=Withdraw,
    gives=PayoutView,
    wraps="payout",
    status=202,
    once=True,
    refuses=[
        "IDEMPOTENCY_KEY_REQUIRED",
        "BANK_ACCOUNT_UNKNOWN",
        "WALLET_UNKNOWN",
        "CURRENCY_MISMATCH",
        "GATEWAY_UNAVAILABLE",
        "PAYOUT_LIMIT",
        "PAYOUT_COOLING_OFF",
        "WALLET_FROZEN",
        "INSUFFICIENT_FUNDS",
        "PIN_WRONG",
        "PIN_LOCKED",
        "PIN_UNSET",
        *WRONG_FACTOR,
        "SERVER_BUSY",
    ],
)
async def withdraw(ctx: Context, ask: dict[str, Any]) -> Any:
    """Send money of your primary balance to your bank account. Needs an ``Idempotency-Key``, which sends it once, ever.

    It is held at once and on its way then: ``PAYOUT_UPDATED`` tells when it has arrived, or is back in the wallet. A
    second factor that is on is asked for too.
    """
    return await ctx.services.payouts.withdraw(
        ctx.user_id,
        key=ask["op_id"],
        bank_account_id=ask["bank_account_id"],
        amount=amount_of(ask),
        currency=ask["currency"],
        pin=ask["pin"],
        also_asks=partial(
            ctx.services.accounts.fresh_factor,
            ctx.user_id,
            totp=ask["totp"],
            recovery_code=ask["recovery_code"],
        ),
    )


@route("GET", "/api/wallet/payouts", takes=PageQuery, gives=PayoutView, many=True)
async def payouts(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your withdrawals, newest first."""
    parts, limit = decode_cursor(ask["cursor"], parts=1), ask["limit"]
    found = await ctx.services.payouts.payouts(
        ctx.user_id, before_id=parts[0] if parts else None, most=limit + 1
    )
    return Page(found[:limit], encode_cursor(found[limit - 1].id) if len(found) > limit else None)


@route(
    "GET",
    "/api/wallet/payouts/{id}",
    takes=PayoutRef,
    gives=PayoutView,
    wraps="payout",
    refuses=["PAYOUT_UNKNOWN"],
)
async def payout(ctx: Context, ask: dict[str, Any]) -> Any:
    """One of your withdrawals."""
    return await ctx.services.payouts.payout(ctx.user_id, ask["id"])


# ------------------------------------------------------------------------------------------------------ bank accounts


@route(
    "GET",
    "/api/wallet/banks",
    takes=BanksQuery,
    gives=BankView,
    many=True,
    refuses=["WALLET_UNKNOWN", *_GATEWAY],
)
async def banks(ctx: Context, ask: dict[str, Any]) -> Page:
    """The banks that can be paid to in a currency, by name; all of them on one page."""
    currency = await _currency(ctx, ask["currency"])
    return Page(list(await ctx.services.bank_accounts.banks(currency)))


@route("GET", "/api/wallet/bank-accounts", gives=BankAccountView, many=True)
async def bank_accounts(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your bank accounts, the oldest first; all of them on one page."""
    return Page(await ctx.services.bank_accounts.of_user(ctx.user_id))


@route(
    "POST",
    "/api/wallet/bank-accounts",
    takes=AddBankAccount,
    gives=BankAccountView,
    wraps="bankAccount",
    status=201,
    limit="auth",
    refuses=["BANK_ACCOUNT_REFUSED", "BANK_ACCOUNT_EXISTS", "WALLET_UNKNOWN", *_GATEWAY, "RATE_LIMITED"],
)
async def add_bank_account(ctx: Context, ask: dict[str, Any]) -> Any:
    """Keep a bank account to withdraw to. The bank is asked whose it is, and its answer is what is kept.

    For some time nothing can be withdrawn to a new one.
    """
    currency = await _currency(ctx, ask["currency"])
    return await ctx.services.bank_accounts.add(
        ctx.user_id, currency=currency, bank_code=ask["bank_code"], account_number=ask["account_number"]
    )


@route(
    "DELETE",
    "/api/wallet/bank-accounts/{id}",
    takes=BankAccountRef,
    refuses=["BANK_ACCOUNT_UNKNOWN"],
)
async def remove_bank_account(ctx: Context, ask: dict[str, Any]) -> None:
    """Forget a bank account. Withdrawals that are on their way to it go on."""
    await ctx.services.bank_accounts.remove(ctx.user_id, ask["id"])


async def _currency(ctx: Context, asked: str | None) -> str:
    return asked or (await ctx.services.wallets.wallet(ctx.user_id)).currency


# -------------------------------------------------------------------------------------------------------------- cards


@route("GET", "/api/wallet/cards", gives=CardView, many=True)
async def cards(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your cards, the oldest first; all of them on one page."""
    return Page(await ctx.services.cards.of_user(ctx.user_id))


@route(
    "POST",
    "/api/wallet/cards",
    takes=KeepCard,
    gives=CardView,
    wraps="card",
    status=201,
    refuses=["PAYMENT_UNKNOWN", "CARD_UNKNOWN"],
)
async def keep_card(ctx: Context, ask: dict[str, Any]) -> Any:
    """Keep the card that you have paid with, as its gateway lets it be kept. Safe to repeat."""
    return await ctx.services.cards.keep(ctx.user_id, ask["reference"])


@route("DELETE", "/api/wallet/cards/{id}", takes=CardRef, refuses=["CARD_UNKNOWN"])
async def remove_card(ctx: Context, ask: dict[str, Any]) -> None:
    """Forget a card."""
    await ctx.services.cards.remove(ctx.user_id, ask["id"])


# --------------------------------------------------------------------------------------------------------------- jobs


@job("payouts", every_seconds=1.0, anywhere=True)
async def work_on_payouts(services: Services) -> None:
    """Submit withdrawals, once each, and ask their gateways what has become of them."""
    await services.payouts.work.run_due()


@job("payouts_untold", every_seconds=5.0, anywhere=True)
async def tell_of_payouts(services: Services) -> None:
    """Tell people where their withdrawals are, which a process has not lived to tell."""
    await services.payouts.work.run_untold()


class PayoutTeller:
    """An announcer of payouts: where one is becomes a durable letter to its owner, one for each status."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def __call__(self, payout: Payout) -> None:
        """Tell it; what was told before is not told again."""
        letter = Letter(
            user_id=payout.user_id,
            event=PAYOUT_UPDATED,
            payload=dict(_NOTICE.dump({"payout": payout})),
            key=f"payout:{payout.id}:{payout.status.value}",
        )
        await self._mailbox.post([letter], again=True)
