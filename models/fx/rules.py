"""Pure rules of conversions: what currencies are worth, what a conversion gives, what it posts.

Every currency has one worth within a table, and each rate is the quotient of two of them. So a rate there and the rate
back cancel out exactly, over whatever currencies the way leads, and what is rounded is rounded in favour of the
platform: no sequence of conversions at one table ends with more than it began with. Rates are exact fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from fractions import Fraction

from models.errors import Refusal
from models.ledger.journal import (
    EXCHANGE_POOL,
    EXCHANGE_SPREAD,
    Entry,
    Kind,
    Leg,
    Pocket,
    account_of,
    wallet_key,
)
from models.money import AMOUNT_MAX, BPS, exponent

# (from, to, how many of "to" one of "from" is), in major units.
Pair = tuple[str, str, Decimal | Fraction]

# See ``Table``.
Worth = Mapping[str, tuple[str, Fraction]]

# How far a rate that follows from others may be from what it was given as: more is a mistake and not rounding.
CONTRADICTION_BPS = 100
# Digits of a rate that people and programs are shown.
SHOWN = Context(prec=12)


@dataclass(frozen=True, slots=True)
class Table:
    """What currencies are worth, as of one instant.

    ``worth``: for each currency the island of currencies that are tied to each other, by its first one, and how many
    of it one of that first one is.
    """

    worth: Worth
    as_of: datetime

    def rate(self, source: str, target: str) -> Fraction | None:
        """How many major units of ``target`` one of ``source`` is; None when nothing ties the two."""
        return _rate(self.worth, source, target)


def worth_of(pairs: Iterable[Pair]) -> Worth:
    """The worth of currencies by rates: their inverses, and cross rates through common currencies, follow from it.

    Each pair ties two currencies, or two islands of them. One that closes a circle says nothing new and is left out:
    what it says a little differently would be a gain for whoever goes round.
    """
    worth: dict[str, tuple[str, Fraction]] = {}
    for source, target, value in pairs:
        rate = Fraction(value)
        assert rate > 0, "a currency is worth something"
        one = worth.setdefault(source, (source, Fraction(1)))
        other = worth.setdefault(target, (target, Fraction(1)))
        if one[0] == other[0]:
            continue
        # The island of ``target`` joins that of ``source``: all of it by the same factor.
        factor = one[1] * rate / other[1]
        for name, (island, units) in list(worth.items()):
            if island == other[0]:
                worth[name] = (one[0], units * factor)
    return worth


def _rate(worth: Worth, source: str, target: str) -> Fraction | None:
    one, other = worth.get(source), worth.get(target)
    if one is None or other is None or one[0] != other[0]:
        return None
    return other[1] / one[1]


def contradictions(pairs: Iterable[Pair]) -> list[str]:
    """Those pairs, like ``USD/NGN``, that say something else than follows from the ones before them."""
    known: list[Pair] = []
    found = []
    for source, target, value in pairs:
        follows = _rate(worth_of(known), source, target)
        if follows is None:
            known.append((source, target, value))
        elif abs(Fraction(value) - follows) * BPS > follows * CONTRADICTION_BPS:
            found.append(f"{source}/{target}")
    return found


def shown(rate: Fraction) -> str:
    """A rate as decimal text: ``1600``, ``0.000625``."""
    value = SHOWN.divide(Decimal(rate.numerator), Decimal(rate.denominator)).normalize(SHOWN)
    return f"{value:f}"


# ------------------------------------------------------------------------------------------------------- quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """An offer to convert, good until ``expires_at`` and used once.

    ``amount_minor`` of ``source`` is worth ``worth_minor`` of ``target``, of which ``spread_minor`` stays here and
    ``receives_minor`` is given out. ``rate`` is the rate before the spread, as text; ``used_key`` is the idempotency
    key of the request that used it.
    """

    id: str
    user_id: str
    source: str
    target: str
    amount_minor: int
    worth_minor: int
    spread_minor: int
    rate: str
    rate_at: datetime
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    used_key: str | None = None

    @property
    def receives_minor(self) -> int:
        """What the person gets, in minor units of ``target``."""
        return self.worth_minor - self.spread_minor


def worth(amount_minor: int, rate: Fraction, *, source: str, target: str) -> int:
    """What an amount is in minor units of ``target``, rounded down."""
    exact = amount_minor * rate * Fraction(10) ** (exponent(target) - exponent(source))
    return exact.numerator // exact.denominator


def converted(
    amount_minor: int, rate: Fraction, *, source: str, target: str, spread_bps: int
) -> tuple[int, int]:
    """(what an amount is worth in minor units of ``target``, what of that is the spread).

    The worth is rounded down and the spread up. Refuses with ``VALIDATION_FAILED`` what would come to nothing and
    with ``AMOUNT_TOO_LARGE`` what no wallet can hold.
    """
    value = worth(amount_minor, rate, source=source, target=target)
    spread = -(-value * spread_bps // BPS)
    if value - spread < 1:
        raise Refusal(
            "VALIDATION_FAILED", amountMinor=[f"Too small: nothing of it would arrive in {target}."]
        )
    if value > AMOUNT_MAX:
        raise Refusal("AMOUNT_TOO_LARGE")
    return value, spread


def entry_id(quote_id: str) -> str:
    """The idempotency key of a conversion: a quote is used once, ever."""
    return f"fx:{quote_id}"


def conversion(quote: Quote, now: datetime) -> Entry:
    """What using a quote posts. The exchange pool takes one currency in and gives the other out.

    What the conversion earns, beside the rounding that stays in the pool, is a leg of its own.
    """
    mine, theirs = wallet_key(quote.user_id, quote.source), wallet_key(quote.user_id, quote.target)
    legs = [
        Leg(account_of(mine, Pocket.PRIMARY), -quote.amount_minor, quote.source),
        Leg(EXCHANGE_POOL, quote.amount_minor, quote.source),
        Leg(EXCHANGE_POOL, -quote.worth_minor, quote.target),
        Leg(account_of(theirs, Pocket.PRIMARY), quote.receives_minor, quote.target),
    ]
    if quote.spread_minor:
        legs.append(Leg(EXCHANGE_SPREAD, quote.spread_minor, quote.target))
    return Entry(
        id=entry_id(quote.id),
        kind=Kind.EXCHANGE,
        at=now,
        legs=tuple(legs),
        note=f"1 {quote.source} = {quote.rate} {quote.target}",
    )
