"""Pure rules of points: how many a call gives, what a refund takes back, what redeeming posts.

Points follow from the journal. The entries of a wallet have dense versions in the order of their commits, so a number
for each wallet says how far they have been looked at, and looking again changes nothing: however late it happens, and
whatever dies meanwhile, no call is counted twice and none is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from models.calls import tariff
from models.calls.call import Call, Stage
from models.errors import Refusal
from models.ledger.journal import REWARDS, Entry, Kind, Leg, Pocket, account_of, wallet_key
from models.money import AMOUNT_MAX, BPS, split


class FactKind(StrEnum):
    """What has changed somebody's points."""

    EARNED = "earned"
    TAKEN_BACK = "taken_back"
    REDEEMED = "redeemed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One change of somebody's points. ``key`` names it for good, so that it happens once.

    ``points`` are signed. ``due`` is what was asked back: more than was taken when there was less. ``per_minute`` is
    what a minute gave when the call was looked at, and ``point_minor`` what a point was worth then (None: nobody
    looked at that); ``amount_minor`` is what points were redeemed for.
    """

    key: str
    id: str
    kind: FactKind
    points: int
    at: datetime
    call_id: str | None = None
    per_minute: int | None = None
    point_minor: int | None = None
    due: int | None = None
    amount_minor: int | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Somebody's points. ``seen`` is the version of each wallet (by currency) up to which its entries are counted;
    ``pending`` are calls among them that are not settled yet. ``count`` is the number of facts.
    """

    user_id: str
    points: int = 0
    count: int = 0
    version: int = 0
    seen: Mapping[str, int] = field(default_factory=dict)
    pending: Collection[str] = ()


def earned_key(call_id: str) -> str:
    """The name of a call's points."""
    return f"call:{call_id}"


def back_key(refund_id: str) -> str:
    """The name of what a refund takes back; ``refund_id`` is its entry's."""
    return f"back:{refund_id}"


def refund_of(fact_key: str) -> str:
    """The name of the entry that a fact follows from, where it does: a refund's, or the redemption's own."""
    return fact_key.removeprefix("back:")


def redeem_id(user_id: str, key: str) -> str:
    """The idempotency key of a redemption's entry, and the name of its fact."""
    return f"rw:{user_id}:{key}"


def settled(call: Call) -> bool:
    """Whether a call's price is final and shared."""
    return call.charge is not None and call.charge.stage in (Stage.SETTLED, Stage.CLEARED)


def paid_seconds(call: Call) -> int:
    """The seconds that were charged, over all segments that cost something."""
    here = (call.price, call.talk_ms() - tariff.earlier_ms(call))
    parts = [*((segment.price, segment.talk_ms) for segment in call.earlier), here]
    return sum(tariff.billed_seconds(price, ms) for price, ms in parts if not price.free)


def full_cost(call: Call) -> int:
    """What a call has cost before any refund, in minor units."""
    return call.cost_minor + (call.charge.refunded.total if call.charge is not None else 0)


def commission_of(call: Call) -> int:
    """What the platform has earned with a settled call, before any refund, in minor units."""
    assert call.charge is not None
    return split(full_cost(call), BPS - call.charge.share_bps)[1]


def points_of(call: Call, per_minute: int, point_minor: int | None = None) -> int:
    """The points of a settled call, before any refund: for each minute charged, rounded down.

    Never worth more than the platform has earned with it (in another currency than that of points by the number of
    minor units): else two who talk for next to nothing would be paid for it.
    """
    cost = full_cost(call)
    points = paid_seconds(call) * per_minute // 60 if cost else 0
    return points if point_minor is None else min(points, commission_of(call) // point_minor)


def kept(points: int, cost_minor: int, refunded_minor: int) -> int:
    """What is left of a call's points after refunds: their share of what is left of its cost, rounded down."""
    return points * (cost_minor - refunded_minor) // cost_minor


def given_back(entry: Entry, wallet: str) -> int:
    """What a refund's entry gives back to its payer, whose wallet this is."""
    pockets = {account_of(wallet, pocket) for pocket in (Pocket.CREDITS, Pocket.PRIMARY)}
    return sum(leg.amount_minor for leg in entry.legs if leg.account in pockets)


def worth(points: int, point_minor: int) -> int:
    """What points are worth as call credits. Refuses with ``AMOUNT_TOO_LARGE`` what no wallet can hold."""
    amount = points * point_minor
    if amount > AMOUNT_MAX:
        raise Refusal("AMOUNT_TOO_LARGE")
    return amount


def redemption(user_id: str, key: str, *, amount_minor: int, currency: str, now: datetime) -> Entry:
    """Call credits for points."""
    credits = account_of(wallet_key(user_id, currency), Pocket.CREDITS)
    return Entry(
        id=redeem_id(user_id, key),
        kind=Kind.REWARD,
        at=now,
        legs=(Leg(REWARDS, -amount_minor, currency), Leg(credits, amount_minor, currency)),
    )
