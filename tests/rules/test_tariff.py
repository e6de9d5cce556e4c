"""What a call costs: every vector of the design, and the laws that hold for all tariffs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from models.calls import tariff
from models.calls.call import Call, Interval, Leg, Party, Price, Segment, State
from models.money import BPS, split

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MS = timedelta(milliseconds=1)


def price(
    first: int, block: int, *, rate: int = 5000, fee: int = 0, minimum: int = 0, currency: str = "NGN"
) -> Price:
    return Price(
        rate_per_minute_minor=rate,
        currency=currency,
        first_block_seconds=first,
        block_seconds=block,
        connect_fee_minor=fee,
        minimum_minor=minimum,
    )


def talk(*spans_ms: int, tariff_now: Price, earlier: tuple[Segment, ...] = ()) -> Call:
    """A call whose conversation came in spans of so many milliseconds, with a second of silence between them."""
    intervals, at = [], START
    for span in spans_ms:
        intervals.append(Interval(at, at + span * MS))
        at += (span + 1000) * MS
    person = Party(user_id="a", username="a", display_name="A")
    return Call(
        id="c",
        type="audio",
        state=State.ACTIVE,
        version=1,
        caller=person,
        callee=person,
        caller_leg=Leg(device_id="d"),
        created_at=START,
        intervals=tuple(intervals),
        price=tariff_now,
        earlier=earlier,
    )


# ------------------------------------------------------------------------------------------------- the vectors, by name

VECTORS = {
    "60/60": (price(60, 60), {0.4: 5000, 60.999: 5000, 61: 10_000, 121: 15_000}),
    "30/6": (price(30, 6), {30: 2500, 31: 3000, 61: 5500, 121: 10_500}),
    "6/6": (price(6, 6), {1: 500, 31: 3000, 61: 5500}),
    "1/1": (price(1, 1), {1: 83, 31: 2583, 61: 5083, 119: 9917}),
    "fee 500, minimum 2500, 1/1": (
        price(1, 1, fee=500, minimum=2500),
        {1: 2500, 24: 2500, 30: 3000, 61: 5583},
    ),
    "rate 3333, 1/1": (price(1, 1, rate=3333), {1: 56, 2: 111, 3: 167, 59: 3277, 61: 3389}),
}


@pytest.mark.parametrize(
    ("tariff_", "seconds", "cost"),
    [
        pytest.param(of, seconds, cost, id=f"{name}: {seconds} s")
        for name, (of, costs) in VECTORS.items()
        for seconds, cost in costs.items()
    ],
)
def test_so_long_costs_so_much(tariff_: Price, seconds: float, cost: int) -> None:
    assert tariff.cost_of(tariff_, round(seconds * 1000)) == cost


@pytest.mark.parametrize(
    ("tariff_", "money", "seconds"),
    [
        pytest.param(price(60, 60), 10_000, 120, id="10000 at 60/60"),
        pytest.param(price(60, 60), 9_999, 60, id="9999 at 60/60"),
        pytest.param(price(60, 60), 4_999, 0, id="4999 at 60/60"),
        pytest.param(price(1, 1), 4_999, 59, id="4999 at 1/1"),
        pytest.param(price(60, 60, rate=4), 1, 0, id="1 at 4 a minute in blocks of 60"),
    ],
)
def test_so_much_lasts_so_long(tariff_: Price, money: int, seconds: int) -> None:
    assert tariff.affordable_seconds(tariff_, money) == seconds


@pytest.mark.parametrize(("cost", "earned", "commission"), [(5083, 3558, 1525), (1, 0, 1)])
def test_seventy_percent_of_it_is_the_payees(cost: int, earned: int, commission: int) -> None:
    assert split(cost, 7_000) == (earned, commission)


def test_a_call_that_never_connected_and_a_free_one_cost_nothing() -> None:
    assert tariff.cost_of(price(60, 60, fee=500, minimum=2500), 0) == 0
    free = price(60, 60, rate=0, fee=500, minimum=2500)
    assert tariff.cost_of(free, 3_600_000) == 0
    assert tariff.affordable_seconds(free, 0) is None


# -------------------------------------------------------------------------------------------------------------- laws

TARIFFS = st.builds(
    price,
    st.integers(1, 600),
    st.integers(1, 600),
    rate=st.one_of(st.integers(1, 200), st.integers(1, 10_000_000)),
    fee=st.integers(0, 100_000),
    minimum=st.integers(0, 100_000),
)
TALK = st.integers(0, 14_400_000)


@given(TARIFFS, st.lists(st.tuples(st.integers(0, 600_000), st.integers(0, 600_000)), max_size=12))
def test_any_partition_into_intervals_ticks_and_captures_gives_the_same_total(
    tariff_: Price, spans: list[tuple[int, int]]
) -> None:
    """Each span is talked in one go, but looked at (and captured) somewhere in the middle of it."""
    captures: list[int] = []
    for n, (span, looked_at) in enumerate(spans):
        whole = talk(*(one for one, _ in spans[:n]), span, tariff_now=tariff_)
        *closed, last = whole.intervals
        running = replace(whole, intervals=(*closed, Interval(last.start)))
        captures.append(tariff.cost(running, last.start + min(span, looked_at) * MS) - sum(captures))
    ended = talk(*(span for span, _ in spans), tariff_now=tariff_)
    captures.append(tariff.cost(ended) - sum(captures))
    assert min(captures) >= 0, "nothing is ever captured too early"
    assert sum(captures) == tariff.cost_of(tariff_, sum(span for span, _ in spans))


@given(TARIFFS, st.integers(0, 100_000_000))
def test_what_can_be_afforded_is_the_exact_inverse_of_the_price(tariff_: Price, money: int) -> None:
    seconds = tariff.affordable_seconds(tariff_, money)
    assert seconds is not None
    if seconds:
        assert tariff.cost_of(tariff_, seconds * 1000) <= money
        assert tariff.cost_of(tariff_, seconds * 1000 + 999) <= money, (
            "the second has begun with its price paid"
        )
    assert tariff.cost_of(tariff_, (seconds + 1) * 1000) > money
    if seconds:
        over = seconds - tariff_.first_block_seconds
        assert over >= 0
        assert over % tariff_.block_seconds == 0, "at the end of a block"


@given(TARIFFS, st.integers(0, 2000))
def test_the_price_of_any_number_of_seconds_affords_at_least_these(tariff_: Price, seconds: int) -> None:
    afforded = tariff.affordable_seconds(tariff_, tariff.cost_of(tariff_, seconds * 1000))
    assert afforded is not None
    assert afforded >= seconds


@given(TARIFFS, TALK, TALK)
def test_a_longer_call_never_costs_less(tariff_: Price, one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    assert tariff.cost_of(tariff_, shorter) <= tariff.cost_of(tariff_, longer)
    assert tariff.billed_seconds(tariff_, shorter) <= tariff.billed_seconds(tariff_, longer)


@given(TARIFFS, st.integers(1, 14_400_000))
def test_a_begun_block_is_charged_whole_and_a_begun_second_is_not_charged_twice(
    tariff_: Price, talk_ms: int
) -> None:
    seconds = max(1, talk_ms // 1000)
    billed = tariff.billed_seconds(tariff_, talk_ms)
    assert seconds <= billed < seconds + max(tariff_.first_block_seconds, tariff_.block_seconds)
    assert tariff.cost_of(tariff_, talk_ms) == tariff.cost_of(tariff_, max(1000, talk_ms // 1000 * 1000))


@given(TARIFFS, TALK)
def test_the_price_is_within_half_a_unit_of_the_exact_one(tariff_: Price, talk_ms: int) -> None:
    assume(talk_ms > 0)
    cost, billed = tariff.cost_of(tariff_, talk_ms), tariff.billed_seconds(tariff_, talk_ms)
    exact = 60 * tariff_.connect_fee_minor + tariff_.rate_per_minute_minor * billed
    assert cost >= tariff_.minimum_minor
    assert cost == tariff_.minimum_minor or abs(60 * cost - exact) <= 30


@given(st.integers(0, 2**53 - 1), st.integers(0, BPS))
def test_the_shares_add_up(amount: int, share: int) -> None:
    part, rest = split(amount, share)
    assert part + rest == amount
    assert min(part, rest) >= 0
    assert part * BPS <= amount * share < (part + 1) * BPS


@example([(price(1, 1, rate=1), 0)], 16_666_667)
@given(st.lists(st.tuples(TARIFFS, st.integers(0, 600_000)), min_size=1, max_size=4), st.integers(0, 10**8))
def test_segments_are_priced_each_by_itself_and_money_reaches_over_all_of_them(
    parts: list[tuple[Price, int]], money: int
) -> None:
    priced = [one if n == 0 else tariff.following(one) for n, (one, _) in enumerate(parts)]
    spans = [span for _, span in parts]
    earlier = tuple(
        Segment(type="audio", price=one, talk_ms=span)
        for one, span in zip(priced[:-1], spans[:-1], strict=True)
    )
    call = talk(sum(spans), tariff_now=priced[-1], earlier=earlier)
    assert tariff.cost(call) == sum(
        tariff.cost_of(one, span) for one, span in zip(priced, spans, strict=True)
    )
    before = tariff.earlier_cost(call)
    reach = tariff.reach_ms(call, before + money)
    assert reach is not None
    reached = talk(max(1, reach), tariff_now=priced[-1], earlier=earlier)
    if reach > tariff.earlier_ms(call):
        assert tariff.cost(reached) <= before + money
    if reach == tariff.earlier_ms(call) + 1000 * tariff.REACH_SECONDS_MAX:
        return  # longer than anybody talks, and no longer, however much money there is
    further = talk(reach + 1000, tariff_now=priced[-1], earlier=earlier)
    assert tariff.cost(further) > before + money


def test_what_is_billed_is_whole_blocks_of_each_segment_and_plain_seconds_where_it_is_free() -> None:
    paid, free = price(30, 6), Price(currency="NGN")
    audio = Segment(type="audio", price=price(60, 60), talk_ms=61_000)
    assert tariff.billed(talk(31_000, tariff_now=paid)) == 36
    assert tariff.billed(talk(61_000, 31_000, tariff_now=paid, earlier=(audio,))) == 120 + 36
    assert tariff.billed(talk(61_000, 31_500, tariff_now=free, earlier=(audio,))) == 120 + 31
    assert tariff.billed(talk(tariff_now=paid)) == 0
