"""Conversions between one's own wallets in different currencies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from handlers.context import Context
from handlers.fx_shapes import AskQuote, Convert, ConvertedView, QuoteView
from handlers.registry import route
from handlers.wallet import wallet_view
from handlers.wallet_shapes import amount_of
from models.fx.rules import Quote
from models.wallet.rules import line_id

_MS = timedelta(milliseconds=1)


@route(
    "POST",
    "/api/wallet/fx/quote",
    takes=AskQuote,
    gives=QuoteView,
    wraps="quote",
    status=201,
    refuses=["FX_UNAVAILABLE", "FX_AWAY", "AMOUNT_TOO_LARGE"],
)
async def fx_quote(ctx: Context, ask: dict[str, Any]) -> Any:
    """What an amount of one currency gives of another. The quote holds for ``expiresInMs`` and is used once.

    What is rounded is rounded down. Nothing is reserved by it.
    """
    quote = await ctx.services.fx.quote(
        ctx.user_id, source=ask["source"], target=ask["target"], amount=amount_of(ask)
    )
    return {
        **_amounts(quote),
        "id": quote.id,
        "rate_at": quote.rate_at,
        "created_at": quote.created_at,
        "expires_in_ms": (quote.expires_at - quote.created_at) // _MS,
    }


@route(
    "POST",
    "/api/wallet/fx/convert",
    takes=Convert,
    gives=ConvertedView,
    status=201,
    once=True,
    refuses=[
        "QUOTE_UNKNOWN",
        "QUOTE_EXPIRED",
        "QUOTE_USED",
        "WALLET_UNKNOWN",
        "WALLET_FROZEN",
        "INSUFFICIENT_FUNDS",
        "AMOUNT_TOO_LARGE",
        "PIN_WRONG",
        "PIN_LOCKED",
        "PIN_UNSET",
        "SERVER_BUSY",
    ],
)
async def fx_convert(ctx: Context, ask: dict[str, Any]) -> Any:
    """Use one of your quotes: out of the primary balance of one wallet, into that of another, made if need be.

    Without an ``Idempotency-Key`` a retry moves nothing twice either, but is answered with ``QUOTE_USED``.
    """
    done = await ctx.services.fx.convert(
        ctx.user_id, quote_id=ask["quote_id"], key=ask["op_id"], pin=ask["pin"]
    )
    made = {
        **_amounts(done.quote),
        "id": line_id(done.entry, "primary"),
        "quote_id": done.quote.id,
        "created_at": done.entry.at,
    }
    return {
        "conversion": made,
        "wallet": wallet_view(done.wallet),
        "target_wallet": wallet_view(done.target_wallet),
    }


def _amounts(quote: Quote) -> dict[str, Any]:
    return {
        "source": quote.source,
        "target": quote.target,
        "amount_minor": quote.amount_minor,
        "receives_minor": quote.receives_minor,
        "spread_minor": quote.spread_minor,
        "rate": quote.rate,
    }
