"""Money: minor units and the ways to them, exact in every currency."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.money import AMOUNT_MAX, BPS, exponent, half_even, major_of, minor_of, split, spoken

MINOR = st.integers(-AMOUNT_MAX, AMOUNT_MAX)
CURRENCIES = ("NGN", "JPY", "KWD")


@pytest.mark.parametrize(
    ("currency", "decimals"), [("NGN", 2), ("USD", 2), ("JPY", 0), ("KWD", 3), ("BHD", 3)]
)
def test_currencies_have_the_decimals_of_iso_4217(currency: str, decimals: int) -> None:
    assert exponent(currency) == decimals


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("10", "NGN", 1000),
        ("10.5", "NGN", 1050),
        ("10.50", "NGN", 1050),
        ("10.500000", "NGN", 1050),
        ("0.01", "NGN", 1),
        ("-0.01", "NGN", -1),
        (10, "NGN", 1000),
        (Decimal("1e2"), "NGN", 10_000),
        ("10", "JPY", 10),
        ("10.0", "JPY", 10),
        ("1.234", "KWD", 1234),
        ("90071992547409.91", "NGN", AMOUNT_MAX),
        ("9007199254740991", "JPY", AMOUNT_MAX),
        ("0", "NGN", 0),
        ("0e999999999", "NGN", 0),
        ("0e-999999999", "NGN", 0),
        ("1.000000000000000000000000000000", "KWD", 1000),
        ("9007199254740.991", "KWD", AMOUNT_MAX),
    ],
)
def test_a_decimal_becomes_minor_units_exactly(
    amount: str | int | Decimal, currency: str, minor: int
) -> None:
    assert minor_of(amount, currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("10.005", "NGN"),
        ("0.001", "NGN"),
        ("10.5", "JPY"),
        ("1.2345", "KWD"),
        ("90071992547409.92", "NGN"),
        ("9007199254740992", "JPY"),
        ("1e999999999", "NGN"),
        ("1e-999999999", "NGN"),
        ("10.00000000000000000000000000001", "NGN"),
        ("NaN", "NGN"),
        ("sNaN", "NGN"),
        ("Infinity", "NGN"),
        ("-inf", "NGN"),
        ("ten", "NGN"),
        ("", "NGN"),
        ("1,000", "NGN"),
    ],
)
def test_what_cannot_be_said_in_the_currency_is_refused_and_never_rounded(amount: str, currency: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        minor_of(amount, currency)


@given(MINOR, st.sampled_from(CURRENCIES))
def test_minor_units_survive_the_way_to_major_ones_and_back(minor: int, currency: str) -> None:
    assert minor_of(str(major_of(minor, currency)), currency) == minor
    assert minor_of(major_of(minor, currency), currency) == minor


def test_the_precision_of_the_context_cuts_nothing() -> None:
    with localcontext() as context:
        context.prec = 28
        assert minor_of(major_of(AMOUNT_MAX, "KWD"), "KWD") == AMOUNT_MAX


@given(st.integers(-(10**18), 10**18), st.integers(1, 10**6))
def test_half_even_is_the_rounding_of_exact_fractions(numerator: int, denominator: int) -> None:
    assert half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@pytest.mark.parametrize(
    ("numerator", "denominator", "result"),
    [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (1, 3, 0), (2, 3, 1), (0, 7, 0)],
)
def test_halves_go_to_the_even_neighbour(numerator: int, denominator: int, result: int) -> None:
    assert half_even(numerator, denominator) == result


@given(st.integers(0, AMOUNT_MAX), st.integers(0, BPS))
def test_the_two_parts_of_a_split_add_up(amount: int, share_bps: int) -> None:
    share, rest = split(amount, share_bps)
    assert share + rest == amount
    assert share >= 0
    assert rest >= 0
    assert share == amount * share_bps // BPS


def test_splits_of_the_price_vectors() -> None:
    assert split(5083, 7000) == (3558, 1525)
    assert split(1, 7000) == (0, 1)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(123_450, "NGN", "1,234.50"), (1234, "JPY", "1,234"), (1234, "KWD", "1.234"), (-5, "NGN", "0.05")],
)
def test_people_read_it_with_its_decimals(minor: int, currency: str, text: str) -> None:
    assert text in spoken(minor, currency)
