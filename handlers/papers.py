"""Papers: a wallet's statement as a file, and where its money came from and went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.blobs import Blob, whole
from handlers.context import Context
from handlers.papers_shapes import AnalyticsAsked, AnalyticsView, StatementAsked
from handlers.registry import route
from models.papers.rules import Flow

_TYPES = {"csv": "text/csv; charset=utf-8", "pdf": "application/pdf"}
_WHICH = ["WALLET_UNKNOWN", "CURRENCY_MISMATCH"]


@route(
    "GET",
    "/api/wallet/statement",
    takes=StatementAsked,
    blob=True,
    refuses=[*_WHICH, "SERVER_BUSY", "RANGE_NOT_SATISFIABLE"],
)
async def statement(ctx: Context, ask: dict[str, Any]) -> Blob:
    """Your statement of whole days, as CSV or PDF to be saved. It has an ``ETag``, which is the same while it is.

    The lines are in the order in which they were booked. In the CSV what people have written never is a formula.
    """
    made, content = await ctx.services.papers.file(
        ctx.user_id,
        format=ask["format"],
        first=ask["first"],
        last=ask["last"],
        zone=ask["time_zone"],
        currency=ask["currency"],
    )
    period = made.period
    name = f"statement-{made.wallet.currency}-{period.first}-{period.last}.{ask['format']}"
    return whole(content, content_type=_TYPES[ask["format"]], filename=name)


@route(
    "GET",
    "/api/wallet/analytics",
    takes=AnalyticsAsked,
    gives=AnalyticsView,
    wraps="analytics",
    refuses=_WHICH,
    etag=True,
)
async def analytics(ctx: Context, ask: dict[str, Any]) -> Any:
    """What came into your wallet and went out of it, by kind and month."""
    found = await ctx.services.papers.analytics(
        ctx.user_id, months=ask["months"], zone=ask["time_zone"], currency=ask["currency"]
    )
    whole_time: dict[str, Flow] = {}
    for kinds in found.months.values():
        for kind, flow in kinds.items():
            whole_time[kind] = whole_time.get(kind, Flow()) + flow
    return {
        **_flows(whole_time),
        "currency": found.wallet.currency,
        "time_zone": found.zone,
        "months": [{"month": month, **_flows(kinds)} for month, kinds in found.months.items()],
    }


def _flows(kinds: Mapping[str, Flow]) -> dict[str, Any]:
    everything = sum(kinds.values(), Flow())
    return {
        "income_minor": everything.income_minor,
        "spending_minor": everything.spending_minor,
        "kinds": [
            {
                "kind": kind,
                "income_minor": flow.income_minor,
                "spending_minor": flow.spending_minor,
                "count": flow.count,
            }
            for kind, flow in sorted(kinds.items())
        ],
    }
