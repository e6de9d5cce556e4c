"""What a call costs: a pure function of how long the two have talked, in integers.

    secs   = talk_ms // 1000, at least 1 once they have talked at all
    billed = first_block, or first_block + whole blocks for the rest
    cost   = max(minimum, connect_fee + half_even(rate × billed / 60))

It is always computed on the total of a segment and never added up tick by tick, so that it does not depend on when
anybody looked, on crashes or on retries: what is captured at any moment is ``cost(so far) − captured``. A call that
never connected costs nothing. ``affordable_seconds`` is the exact inverse, of the same function: a call is granted
just the seconds whose price is secured.

A call has several segments when its type was changed at another price. Each segment is priced by itself; the ones
after the first come without connection fee and minimum.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from models.calls.call import Call, Price
from models.money import half_even

# Thirty years: nobody talks longer, and milliseconds of it are kept exactly by MongoDB and by JSON.
REACH_SECONDS_MAX = 10**9


def billed_seconds(price: Price, talk_ms: int) -> int:
    """The seconds that are charged for ``talk_ms`` of conversation: whole blocks."""
    if talk_ms <= 0:
        return 0
    seconds = max(1, talk_ms // 1000)
    if seconds <= price.first_block_seconds:
        return price.first_block_seconds
    blocks = -(-(seconds - price.first_block_seconds) // price.block_seconds)
    return price.first_block_seconds + blocks * price.block_seconds


def cost_of(price: Price, talk_ms: int) -> int:
    """The price of one segment, in minor units. Never falls as ``talk_ms`` grows."""
    if talk_ms <= 0 or price.free:
        return 0
    return _cost_of_billed(price, billed_seconds(price, talk_ms))


def _cost_of_billed(price: Price, billed: int) -> int:
    by_time = half_even(price.rate_per_minute_minor * billed, 60)
    return max(price.minimum_minor, price.connect_fee_minor + by_time)


def affordable_seconds(price: Price, money_minor: int) -> int | None:
    """The most seconds whose price is at most ``money_minor``; 0 when not even the first is, None without end."""
    if price.free:
        return None
    if _cost_of_billed(price, price.first_block_seconds) > money_minor:
        return 0
    # The price of k further blocks is proportional to k but for one rounding, so the quotient is off by one at most.
    per_minute = money_minor - price.connect_fee_minor
    seconds = 60 * per_minute // price.rate_per_minute_minor
    blocks = max(0, (seconds - price.first_block_seconds) // price.block_seconds)
    while (
        _cost_of_billed(price, price.first_block_seconds + (blocks + 1) * price.block_seconds) <= money_minor
    ):
        blocks += 1
    while (
        blocks
        and _cost_of_billed(price, price.first_block_seconds + blocks * price.block_seconds) > money_minor
    ):
        blocks -= 1
    return price.first_block_seconds + blocks * price.block_seconds


def following(price: Price) -> Price:
    """A tariff as it is for a segment that follows another one."""
    return replace(price, connect_fee_minor=0, minimum_minor=0)


def earlier_ms(call: Call) -> int:
    """The conversation in the segments before the present one."""
    return sum(segment.talk_ms for segment in call.earlier)


def earlier_cost(call: Call) -> int:
    """The price of the segments before the present one."""
    return sum(cost_of(segment.price, segment.talk_ms) for segment in call.earlier)


def same_rate(one: Price, other: Price) -> bool:
    """Whether the time costs the same under both tariffs."""
    return following(one) == following(other)


def cost(call: Call, now: datetime | None = None) -> int:
    """The price of a call so far: of its closed intervals, and of the running one up to ``now`` where it is given."""
    return earlier_cost(call) + cost_of(call.price, call.talk_ms(now) - earlier_ms(call))


def billed(call: Call, now: datetime | None = None) -> int:
    """The seconds that are charged, over all segments; those of a free one as they were talked."""
    here = (call.price, call.talk_ms(now) - earlier_ms(call))
    parts = [*((segment.price, segment.talk_ms) for segment in call.earlier), here]
    return sum(ms // 1000 if price.free else billed_seconds(price, ms) for price, ms in parts)


def reach_ms(call: Call, money_minor: int) -> int | None:
    """How much conversation, over all segments, is paid by ``money_minor``; None without end."""
    seconds = affordable_seconds(call.price, money_minor - earlier_cost(call))
    return None if seconds is None else earlier_ms(call) + 1000 * min(seconds, REACH_SECONDS_MAX)
