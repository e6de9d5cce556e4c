"""Points for paid calls, and call credits for points."""

from __future__ import annotations

from typing import Any

from handlers.context import Context
from handlers.registry import job, route
from handlers.rewards_shapes import Redeem, RedeemedView, RewardsView
from handlers.services import Services
from handlers.shapes import PageQuery, decode_cursor, encode_cursor
from handlers.wallet import wallet_view
from models.errors import Refusal
from models.ledger.journal import REWARDS
from models.money import AMOUNT_MAX
from models.rewards.rules import Fact
from models.wallet.rules import line_id


@route(
    "GET",
    "/api/wallet/rewards",
    takes=PageQuery,
    gives=RewardsView,
    wraps="rewards",
    refuses=["SERVER_BUSY"],
    etag=True,
)
async def rewards(ctx: Context, ask: dict[str, Any]) -> Any:
    """Your points, for each minute charged of the calls that you have paid for, and their history.

    What is refunded of a call takes its share of the points back, as far as they are still there.
    """
    verbs, limit = ctx.services.rewards, ask["limit"]
    tally = await verbs.tally(ctx.user_id)
    found = await verbs.history(ctx.user_id, below=_number(ask["cursor"]), most=limit + 1)
    return {
        "points": tally.points,
        "worth_minor": min(AMOUNT_MAX, tally.points * verbs.point_minor),
        "currency": verbs.currency,
        "point_minor": verbs.point_minor,
        "points_per_minute": verbs.per_minute,
        "history": [_fact(fact) for _, fact in found[:limit]],
        "next_cursor": encode_cursor(str(found[limit - 1][0])) if len(found) > limit else None,
    }


@route(
    "POST",
    "/api/wallet/rewards/redeem",
    takes=Redeem,
    gives=RedeemedView,
    status=201,
    once=True,
    refuses=["IDEMPOTENCY_KEY_REQUIRED", "POINTS_INSUFFICIENT", "AMOUNT_TOO_LARGE", "SERVER_BUSY"],
)
async def redeem_points(ctx: Context, ask: dict[str, Any]) -> Any:
    """Turn points into call credits. Needs an ``Idempotency-Key``, which redeems them once, ever."""
    done = await ctx.services.rewards.redeem(ctx.user_id, key=ask["op_id"], points=ask["points"])
    amount = next(-leg.amount_minor for leg in done.entry.legs if leg.account == REWARDS)
    made = {
        "id": line_id(done.entry, "call_credits"),
        "points": done.points,
        "amount_minor": amount,
        "currency": done.wallet.currency,
        "created_at": done.entry.at,
    }
    return {"redemption": made, "points": done.tally.points, "wallet": wallet_view(done.wallet)}


@job("rewards", every_seconds=30)
async def count_points(services: Services) -> None:
    """Count the points of those whose calls this process has settled; whoever looks has them counted anyway."""
    await services.rewards.run_wanted()


def _fact(fact: Fact) -> dict[str, Any]:
    view = {"id": fact.id, "kind": fact.kind.value, "points": fact.points, "created_at": fact.at}
    named = {"call_id": fact.call_id, "amount_minor": fact.amount_minor, "currency": fact.currency}
    return view | {name: value for name, value in named.items() if value is not None}


def _number(cursor: str | None) -> int | None:
    parts = decode_cursor(cursor, parts=1)
    if parts is None:
        return None
    if not (parts[0].isascii() and parts[0].isdigit() and len(parts[0]) <= 15):
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    return int(parts[0])
