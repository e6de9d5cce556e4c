"""Money: integers in a currency's minor unit, and the ways in which text and fractions become them.

The exponents are ISO 4217's (babel carries CLDR's table: JPY 0, NGN 2, KWD 3). Nothing here is ever a float, and no
amount is ever rounded silently: more decimals than the currency has is a refusal. A fraction of a minor unit arises
in one place only, where a price per minute meets a number of seconds, and there it is rounded half to even.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from babel.numbers import format_currency, get_currency_precision

# The greatest amount: every JSON reader keeps it exactly (RFC 8259 §6), and MongoDB's 64 bits hold sums of it.
AMOUNT_MAX = 2**53 - 1
BPS = 10_000
# Where to ask for another currency; a refusal because of the currency names it.
QUOTE_ROUTE = "/api/wallet/fx/quote"


def exponent(currency: str) -> int:
    """How many decimals the currency has (ISO 4217): 2 for NGN, 0 for JPY, 3 for KWD."""
    return get_currency_precision(currency)


def minor_of(amount: str | int | Decimal, currency: str) -> int:
    """A decimal amount in major units as minor units: ``minor_of("10.5", "NGN")`` is 1050.

    Raises ``ValueError`` for what is no finite number, has more decimals than the currency, or is out of bounds.
    """
    try:
        value = Decimal(amount)
    except (InvalidOperation, TypeError) as error:
        raise ValueError("not a decimal number") from error
    if not value.is_finite():
        raise ValueError("not a finite number")
    # Before anything is multiplied out: 1E+999999 is short to write and long to count.
    if not value:
        return 0
    if value.adjusted() > 15:
        raise ValueError("larger than any amount")
    # By its digits: decimal's own arithmetic rounds to 28 of them, and to nothing what is very small.
    sign, digits, power = value.as_tuple()
    assert isinstance(power, int), "it is finite"
    shift = power + exponent(currency)
    if -shift > len(digits):
        raise ValueError(f"more decimals than {currency} has")
    number: int = int("".join(map(str, digits)))
    unit: int = 10 ** abs(shift)
    if shift < 0:
        if number % unit:
            raise ValueError(f"more decimals than {currency} has")
        number //= unit
    else:
        number *= unit
    if number > AMOUNT_MAX:
        raise ValueError("larger than any amount")
    return -number if sign else number


def major_of(amount_minor: int, currency: str) -> Decimal:
    """Minor units as an exact decimal in major units."""
    return Decimal(amount_minor).scaleb(-exponent(currency))


def spoken(amount_minor: int, currency: str) -> str:
    """For people: ``NGN 1,234.50``, ``JPY 5``. The ISO code and not a sign, which several currencies share."""
    return format_currency(major_of(amount_minor, currency), currency, "¤¤ #,##0.00", locale="en")


def half_even(numerator: int, denominator: int) -> int:
    """``numerator / denominator`` as an integer, halves to the even neighbour (IEEE 754's default); no floats."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def split(amount_minor: int, share_bps: int) -> tuple[int, int]:
    """``amount`` as (the share of ``share_bps`` ten-thousandths, rounded down; the rest). They always add up."""
    share = amount_minor * share_bps // BPS
    return share, amount_minor - share
