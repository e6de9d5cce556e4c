"""Conversions as numbers: rates that follow from others, rounding, and that nobody gains by going round."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import Refusal
from models.fx import rules
from models.fx.rules import Quote, Table, contradictions, converted, shown, worth_of
from models.ledger.rules import check
from models.money import AMOUNT_MAX, exponent

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def table(*pairs: str) -> Table:
    """A table of pairs like ``USD/NGN=1600``, in their order."""
    return Table(worth_of(parsed(pairs)), NOW)


def parsed(pairs: tuple[str, ...]) -> list[rules.Pair]:
    return [(text[:3], text[4:7], Decimal(text[8:])) for text in pairs]


# ------------------------------------------------------------------------------------------------------------- rates


def test_a_rate_has_its_inverse_and_currencies_meet_through_others() -> None:
    rates = table("USD/NGN=1600", "EUR/NGN=1850", "USD/KES=130", "KES/UGX=28.5")
    assert rates.rate("USD", "NGN") == 1600
    assert rates.rate("NGN", "USD") == Fraction(1, 1600)
    assert rates.rate("EUR", "USD") == Fraction(1850, 1600)
    assert rates.rate("UGX", "EUR") == 1 / (Fraction(1850, 1600) * 130 * Fraction("28.5"))
    assert rates.rate("NGN", "NGN") == 1


def test_islands_that_a_later_pair_joins_are_one() -> None:
    apart = ("USD/NGN=1600", "EUR/CHF=0.9", "CHF/SEK=12")
    assert table(*apart).rate("SEK", "NGN") is None
    assert table(*apart).rate("EUR", "SEK") == Fraction("10.8")
    joined = table(*apart, "SEK/USD=0.1")
    assert joined.rate("SEK", "NGN") == 160
    assert joined.rate("EUR", "NGN") == 1728
    assert joined.rate("NGN", "CHF") == Fraction(1, 1920)


def test_what_nothing_is_said_of_has_no_rate() -> None:
    rates = table("USD/NGN=1600")
    assert (rates.rate("USD", "EUR"), rates.rate("EUR", "NGN"), rates.rate("EUR", "EUR")) == (None,) * 3


def test_e102_a_pair_that_closes_a_circle_says_nothing_so_that_nobody_gains_by_going_round() -> None:
    rates = table("USD/NGN=1600", "NGN/USD=0.0007", "EUR/NGN=1850", "EUR/USD=1.2")
    assert rates.rate("NGN", "USD") == Fraction(1, 1600)
    assert rates.rate("EUR", "USD") == Fraction(1850, 1600)


def test_a_pair_that_contradicts_the_ones_before_it_is_named_and_a_rounded_one_is_not() -> None:
    assert contradictions(parsed(("USD/NGN=1600", "NGN/USD=0.000625", "EUR/NGN=1850", "EUR/USD=1.156"))) == []
    assert contradictions(parsed(("USD/NGN=1600", "NGN/USD=0.0007", "EUR/NGN=1850", "EUR/USD=1.2"))) == [
        *("NGN/USD", "EUR/USD"),
    ]


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Fraction(1600), "1600"),
        (Fraction(1, 1600), "0.000625"),
        (Fraction(1, 3), "0.333333333333"),
        (Fraction(2, 3) * 10**9, "666666666.667"),
        (Fraction(1, 10**15), "0.000000000000001"),
        (Fraction(10**15), "1000000000000000"),
    ],
)
def test_a_rate_is_shown_as_a_plain_decimal(rate: Fraction, text: str) -> None:
    assert shown(rate) == text


# ----------------------------------------------------------------------------------------------------------- amounts


@pytest.mark.parametrize(
    ("amount", "source", "target", "rate", "bps", "worth", "spread"),
    [
        (1_600_00, "NGN", "USD", Fraction(1, 1600), 100, 100, 1),
        (1_600_00, "NGN", "USD", Fraction(1, 1600), 0, 100, 0),
        (100, "USD", "NGN", Fraction(1600), 100, 160_000, 1_600),
        # A fraction of a minor unit is not given out, and the spread takes the whole of one.
        (1_999_99, "NGN", "USD", Fraction(1, 1600), 1, 124, 1),
        # Yen have no decimals, dinars three.
        (100, "USD", "JPY", Fraction(150), 0, 150, 0),
        (150, "JPY", "USD", Fraction(1, 150), 0, 100, 0),
        (100, "USD", "KWD", Fraction(307, 1000), 0, 307, 0),
        (307, "KWD", "JPY", Fraction(1000, 307) * 150, 0, 150, 0),
        (1, "KWD", "JPY", Fraction(490), 0, 0, 0),
    ],
)
def test_amounts_by_the_exponents_of_both(
    amount: int, source: str, target: str, rate: Fraction, bps: int, worth: int, spread: int
) -> None:
    if worth == 0:
        with pytest.raises(Refusal) as no:
            converted(amount, rate, source=source, target=target, spread_bps=bps)
        assert (no.value.code, list(no.value.details)) == ("VALIDATION_FAILED", ["amountMinor"])
        return
    assert converted(amount, rate, source=source, target=target, spread_bps=bps) == (worth, spread)


def test_what_the_spread_would_eat_whole_is_too_small() -> None:
    with pytest.raises(Refusal) as no:
        converted(1600, Fraction(1, 1600), source="NGN", target="USD", spread_bps=1)
    assert no.value.code == "VALIDATION_FAILED"


def test_what_no_wallet_can_hold_is_refused() -> None:
    with pytest.raises(Refusal) as no:
        converted(AMOUNT_MAX, Fraction(1600), source="USD", target="NGN", spread_bps=0)
    assert no.value.code == "AMOUNT_TOO_LARGE"


# ------------------------------------------------------------------------------------------------------- properties

CURRENCIES = ["NGN", "USD", "JPY", "KWD", "EUR", "KES", "BHD", "XOF"]
rate_values = st.decimals(min_value="0.000001", max_value="5000000", places=6, allow_nan=False)
pairs = st.tuples(st.sampled_from(CURRENCIES), st.sampled_from(CURRENCIES), rate_values).filter(
    lambda one: one[0] != one[1]
)


@given(
    st.lists(pairs, min_size=1, max_size=14),
    st.lists(st.sampled_from(CURRENCIES), min_size=2, max_size=12),
    st.integers(1, 10**12),
    st.sampled_from([0, 0, 1, 37, 100, 5000]),
)
@settings(max_examples=400, deadline=None)
def test_e102_no_sequence_of_conversions_ever_gains(
    given_pairs: list[rules.Pair], way: list[str], amount: int, bps: int
) -> None:
    """Whatever the table says, contradictions and all: what is left is never worth more than what was before."""
    rates = Table(worth_of(given_pairs), NOW)
    began = {way[0]: amount}
    at, have = way[0], amount
    for target in [*way[1:], way[0]]:
        rate = rates.rate(at, target)
        if target == at or rate is None:
            continue
        try:
            worth, spread = converted(have, rate, source=at, target=target, spread_bps=bps)
        except Refusal:
            continue  # too small or too large: it stays as it is
        exact = Fraction(have, 10 ** exponent(at)) * rate
        assert 0 <= spread < worth
        assert Fraction(worth, 10 ** exponent(target)) <= exact
        assert spread * 10_000 >= worth * bps
        at, have = target, worth - spread
        # Coming by a currency again, with more of it than ever before, would be a gain.
        assert have <= began.setdefault(at, have)


@given(st.integers(1, 10**12), rate_values, st.integers(0, 5000), st.permutations(CURRENCIES))
@settings(max_examples=200, deadline=None)
def test_what_a_conversion_posts_adds_up_in_both_currencies(
    amount: int, value: Decimal, bps: int, names: list[str]
) -> None:
    source, target = names[0], names[1]
    try:
        worth, spread = converted(amount, Fraction(value), source=source, target=target, spread_bps=bps)
    except Refusal:
        return
    quote = replace(QUOTE, source=source, target=target, amount_minor=amount)
    quote = replace(quote, worth_minor=worth, spread_minor=spread)
    entry = rules.conversion(quote, NOW)
    check(entry)
    legs = {(leg.account, leg.currency): leg.amount_minor for leg in entry.legs}
    assert legs[f"wallet:ann:{source}:primary", source] == -amount
    assert legs[f"wallet:ann:{target}:primary", target] == quote.receives_minor == worth - spread
    assert legs["platform:exchange", source] == amount
    assert legs["platform:exchange", target] == -worth
    assert legs.get(("platform:exchange_spread", target), 0) == spread


QUOTE = Quote(
    id="q",
    user_id="ann",
    source="NGN",
    target="USD",
    amount_minor=160_000,
    worth_minor=100,
    spread_minor=1,
    rate="0.000625",
    rate_at=NOW,
    created_at=NOW,
    expires_at=NOW + timedelta(seconds=60),
)
