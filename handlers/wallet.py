"""Wallets: the routes of CONTRACT §3.2 that need no gateway, and who is told of a balance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from handlers.context import Context
from handlers.registry import notice, route
from handlers.second_factor import WRONG_FACTOR
from handlers.shapes import Page, decode_cursor, encode_cursor
from handlers.users import public_user
from handlers.wallet_shapes import (
    AccountRef,
    AccountView,
    ChangePin,
    CreateWallet,
    MakeTransfer,
    PinCheck,
    PinVerdict,
    ResetPin,
    StatementLineView,
    StatementQuery,
    TransferredView,
    WalletNotice,
    WalletQuery,
    WalletView,
    amount_of,
)
from models.errors import Refusal
from models.ledger.journal import Entry, Wallet
from models.mailbox.service import Mailbox
from models.money import exponent
from models.ports import Clock, Letter
from models.users.profile import Profile
from models.wallet.rules import PAID_INTO, StatementLine
from models.wallet.service import Account, Place

WALLET_UPDATED = notice(
    "WALLET_UPDATED", WalletNotice, "To a wallet's owner, on every device: a balance has changed."
)

_NOTICE = WalletNotice()
_PIN = ["PIN_WRONG", "PIN_LOCKED", "PIN_UNSET", "SERVER_BUSY"]
_WHICH = ["WALLET_UNKNOWN", "CURRENCY_MISMATCH"]


# ---------------------------------------------------------------------------------------------------------- wallets


@route(
    "POST",
    "/api/wallet/create",
    takes=CreateWallet,
    gives=WalletView,
    wraps="wallet",
    status=201,
    once=True,
    refuses=["WALLET_EXISTS", *_PIN],
)
async def create_wallet(ctx: Context, ask: dict[str, Any]) -> Any:
    """Make your wallet and set its PIN. A wallet in another currency needs the PIN that you have."""
    return wallet_view(await ctx.services.wallets.create(ctx.user_id, ask["pin"], ask["currency"]))


@route(
    "GET",
    "/api/wallet",
    scope="wallet:read",
    also=["/wallet"],
    takes=WalletQuery,
    gives=WalletView,
    wraps="wallet",
    refuses=_WHICH,
    etag=True,
)
async def wallet(ctx: Context, ask: dict[str, Any]) -> Any:
    """Your wallet, or the one in ``currency``."""
    return wallet_view(await ctx.services.wallets.wallet(ctx.user_id, ask["currency"]))


@route("GET", "/api/wallets", also=["/wallets"], gives=AccountView, many=True, etag=True, scope="wallet:read")
async def accounts(ctx: Context, ask: dict[str, Any]) -> Page:
    """The accounts of your wallets: of each the primary one and the call credits; all of them on one page."""
    return Page([account_view(one) for one in await ctx.services.wallets.accounts(ctx.user_id)])


@route(
    "GET",
    "/api/wallets/{id}",
    also=["/wallets/{id}"],
    takes=AccountRef,
    gives=AccountView,
    wraps="wallet",
    refuses=["WALLET_UNKNOWN"],
    etag=True,
)
async def account(ctx: Context, ask: dict[str, Any]) -> Any:
    """One of your accounts."""
    return account_view(await ctx.services.wallets.account(ctx.user_id, ask["id"]))


@route(
    "GET",
    "/api/wallet/transactions",
    scope="wallet:read",
    also=["/transactions"],
    takes=StatementQuery,
    gives=StatementLineView,
    many=True,
    refuses=_WHICH,
    etag=True,
)
async def transactions(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your statement, newest first. What is only reserved for a call changes nothing in it."""
    page = await ctx.services.wallets.statement(
        ctx.user_id,
        account=ask["account"],
        currency=ask["currency"],
        after=_place(ask["cursor"]),
        limit=ask["limit"],
    )
    items = [_line(ctx, line, page.people) for line in page.lines]
    place = page.after
    return Page(items, encode_cursor(place.wallet_id, str(place.version), place.account) if place else None)


# ------------------------------------------------------------------------------------------------------------- PINs


@route("POST", "/api/wallet/validate-pin", takes=PinCheck, gives=PinVerdict, refuses=_PIN[1:])
async def validate_pin(ctx: Context, ask: dict[str, Any]) -> Any:
    """Whether this is your PIN. Wrong ones count wherever they are given: five in a row lock it."""
    return await ctx.services.wallets.pins.verdict(ctx.user_id, ask["pin"])


@route("POST", "/api/wallet/change-pin", takes=ChangePin, refuses=_PIN)
async def change_pin(ctx: Context, ask: dict[str, Any]) -> None:
    """Set another PIN, with the one that you have."""
    await ctx.services.wallets.pins.change(ctx.user_id, old=ask["current_pin"], new=ask["new_pin"])


@route(
    "POST",
    "/api/wallet/reset-pin",
    takes=ResetPin,
    limit="auth",
    refuses=["PASSWORD_WRONG", *WRONG_FACTOR, "PIN_UNSET", "SERVER_BUSY"],
)
async def reset_pin(ctx: Context, ask: dict[str, Any]) -> None:
    """Set another PIN, with your account's password; a locked one is open again. A second factor is asked for too."""
    fresh = partial(
        ctx.services.accounts.fresh_factor,
        ctx.user_id,
        totp=ask["totp"],
        recovery_code=ask["recovery_code"],
    )
    await ctx.services.wallets.pins.reset(
        ctx.user_id, password=ask["password"], new=ask["new_pin"], also=fresh
    )


# --------------------------------------------------------------------------------------------------- money to others


@route(
    "POST",
    "/api/wallet/transfer",
    also=["/wallet/transfer"],
    takes=MakeTransfer,
    gives=TransferredView,
    status=201,
    once=True,
    refuses=[
        "IDEMPOTENCY_KEY_REQUIRED",
        "SELF_NOT_ALLOWED",
        "USER_UNKNOWN",
        "USER_BLOCKED",
        "USER_UNAVAILABLE",
        *_WHICH,
        "WALLET_FROZEN",
        "INSUFFICIENT_FUNDS",
        "AMOUNT_TOO_LARGE",
        *_PIN,
    ],
)
async def transfer(ctx: Context, ask: dict[str, Any]) -> Any:
    """Send money from your primary balance to somebody's. Needs an ``Idempotency-Key``, which moves it once, ever."""
    done = await ctx.services.wallets.transfer(
        ctx.user_id,
        key=ask["op_id"],
        to=ask["to"],
        amount=amount_of(ask),
        currency=ask["currency"],
        pin=ask["pin"],
        note=ask["note"],
    )
    sent = {
        "id": done.id,
        "to": public_user(ctx, done.payee),
        "amount_minor": done.amount_minor,
        "currency": done.wallet.currency,
        "note": done.entry.note,
        "created_at": done.entry.at,
    }
    return {"transfer": sent, "wallet": wallet_view(done.wallet)}


# ------------------------------------------------------------------------------------------------------- how it looks


def wallet_view(wallet: Wallet) -> dict[str, Any]:
    """A wallet for ``WalletView`` to dump."""
    return {
        "id": wallet.id,
        "currency": wallet.currency,
        "exponent": exponent(wallet.currency),
        "available_minor": wallet.primary,
        "held_minor": wallet.primary_held,
        "call_credits": {
            "id": wallet.credits_id,
            "available_minor": wallet.credits,
            "held_minor": wallet.credits_held,
        },
        "pending_earnings_minor": wallet.pending,
        "owed_minor": wallet.owed,
        "frozen": wallet.frozen,
        "version": wallet.version,
        "created_at": wallet.created_at,
    }


def account_view(account: Account) -> dict[str, Any]:
    """An account for ``AccountView`` to dump."""
    wallet, credits = account.wallet, account.kind == "call_credits"
    return {
        "id": account.id,
        "kind": account.kind,
        "wallet_id": wallet.id,
        "currency": wallet.currency,
        "available_minor": wallet.credits if credits else wallet.primary,
        "held_minor": wallet.credits_held if credits else wallet.primary_held,
        "frozen": wallet.frozen,
        "created_at": wallet.created_at,
    }


def wallet_on_the_wire(wallet: Wallet) -> dict[str, Any]:
    """A wallet in wire form."""
    return dict(_NOTICE.dump({"wallet": wallet_view(wallet)})["wallet"])


def _line(ctx: Context, line: StatementLine, people: Mapping[str, Profile]) -> dict[str, Any]:
    view = {
        "id": line.id,
        "kind": line.kind,
        "account": line.account,
        "amount_minor": line.amount_minor,
        "currency": line.currency,
        "balance_after_minor": line.balance_after_minor,
        "note": line.note,
        "created_at": line.created_at,
    }
    if line.call_id is not None:
        view["call_id"] = line.call_id
    if line.payment_id is not None:
        view["payment_id"] = line.payment_id
    if line.payout_id is not None:
        view["payout_id"] = line.payout_id
    if line.counterparty is not None and line.counterparty in people:
        view["counterparty"] = public_user(ctx, people[line.counterparty])
    return view


def _place(cursor: str | None) -> Place | None:
    parts = decode_cursor(cursor, parts=3)
    if parts is None:
        return None
    wallet_id, version, name = parts
    if not (version.isascii() and version.isdigit() and len(version) <= 15) or name not in PAID_INTO:
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    return Place(wallet_id, int(version), name)


class WalletTeller:
    """A listener of the ledger: changed wallets become letters to their owners.

    A balance is told to who is connected; whoever is not gets the newest one in ``SYNC``. While other processes live
    on the database (``others_live``) the letters are durable, since that is how devices connected there hear of it.
    """

    def __init__(self, *, mailbox: Mailbox, clock: Clock, others_live: Callable[[], bool]) -> None:
        self._mailbox = mailbox
        self._clock = clock
        self._others_live = others_live

    async def __call__(self, wallets: Sequence[Wallet], entries: Sequence[Entry]) -> None:
        """Tell wallets as they are after ``entries``; without any, something else than a balance has changed."""
        durable = self._others_live()
        mark = "" if entries else f":{self._clock.now().isoformat()}"
        await self._mailbox.post(
            [
                Letter(
                    user_id=wallet.user_id,
                    event=WALLET_UPDATED,
                    payload={"wallet": wallet_on_the_wire(wallet)},
                    key=f"wallet:{wallet.key}:{wallet.version}{mark}" if durable else None,
                )
                for wallet in wallets
            ]
        )
