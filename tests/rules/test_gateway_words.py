"""What gateways count and say, read exactly: amounts, JSON without floats, one id for one fact."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.payments.gateway import GatewayAway, NoticeInvalid
from server.adapters.gateways.http import (
    fact_id,
    json_bytes,
    loads,
    major,
    major_minor,
    notice_object,
    whole_minor,
)
from server.adapters.gateways.stripe_words import of_stripe, to_stripe

AMOUNTS = st.integers(min_value=0, max_value=2**53 - 1)


@given(AMOUNTS, st.sampled_from(["NGN", "USD", "JPY", "KWD"]))
def test_an_amount_comes_back_from_major_units_as_it_went(minor: int, currency: str) -> None:
    there = json_bytes({"amount": major(minor, currency)})
    assert major_minor(loads(there)["amount"], currency) == minor
    assert major_minor(str(major(minor, currency)), currency) == minor


@given(AMOUNTS.filter(lambda minor: minor < 2**40), st.sampled_from(["NGN", "USD", "JPY", "KWD", "UGX"]))
def test_an_amount_comes_back_from_stripe_as_it_went(minor: int, currency: str) -> None:
    assert of_stripe(to_stripe(minor, currency), currency) == minor


@given(
    st.one_of(
        st.none(), st.booleans(), st.floats(), st.text(max_size=8), st.lists(st.integers()), st.binary()
    )
)
def test_what_is_no_amount_is_refused_or_read_exactly_and_never_breaks(value: Any) -> None:
    for read in (lambda: major_minor(value, "NGN"), lambda: whole_minor(value)):
        try:
            got = read()
        except GatewayAway:
            continue
        assert isinstance(value, str)
        assert got >= 0


@pytest.mark.parametrize(
    "value", ["0.001", Decimal("10.005"), "1e-3", "-0.01", Decimal("NaN"), "1e400", 2**60]
)
def test_more_decimals_than_the_currency_has_are_not_rounded(value: Any) -> None:
    with pytest.raises(GatewayAway):
        major_minor(value, "NGN")


def test_numbers_with_decimals_are_read_by_their_digits() -> None:
    assert loads(b'{"a": 0.1, "b": 1e2, "c": 90071992547409.91}') == {
        "a": Decimal("0.1"),
        "b": Decimal("1e2"),
        "c": Decimal("90071992547409.91"),
    }
    for raw in (b"NaN", b"-Infinity", b"[" * 200_000, b"1" * 5_000, b"\xff", b""):
        with pytest.raises(NoticeInvalid):
            notice_object(raw)


def test_one_fact_has_one_id_however_its_numbers_are_written() -> None:
    raw = ['{"amount": 3000}', '{"amount": 3000.0}', '{"amount": "3000.00"}', '{"amount": 3e3}']
    assert len({fact_id("PAID", loads(one.encode())["amount"]) for one in raw}) == 1
    assert fact_id("a", "b") != fact_id("ab") != fact_id("a", None, "b")
    assert fact_id("1", 1) == fact_id(1, "1")
    assert fact_id(True) != fact_id(1)


@given(
    st.dictionaries(
        st.text(max_size=5), st.one_of(st.text(max_size=9), st.integers(), st.none(), st.booleans())
    )
)
def test_a_body_is_json(body: dict[str, Any]) -> None:
    assert json.loads(json_bytes(body)) == body
