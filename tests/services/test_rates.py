"""Rates over HTTP: asked for rarely, exact, and never traded by when they are old or wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from models.fx.ports import RatesAway
from server.adapters import rates as adapter
from server.adapters.rates import FixedRates, HttpRates, rates_of
from tests.fakes import VirtualClock
from tests.standins.rates import StandIn, rates_service


@pytest.fixture
async def service() -> AsyncIterator[StandIn]:
    async with rates_service() as stand_in:
        yield stand_in


@pytest.fixture
async def rates(service: StandIn, clock: VirtualClock) -> AsyncIterator[HttpRates]:
    source = HttpRates(service.url, clock=clock)
    yield source
    await source.close()


async def away(rates: HttpRates) -> bool:
    try:
        await rates.table()
    except RatesAway:
        return True
    return False


async def test_a_table_is_read_exactly_as_it_is_written(rates: HttpRates, service: StandIn) -> None:
    table = await rates.table()
    assert table.rate("USD", "NGN") == Fraction(16005, 10)
    assert table.rate("EUR", "NGN") == Fraction(16005, 10) / Fraction(92, 100)
    assert table.rate("KWD", "JPY") == 150 / Fraction(307, 1000)
    assert table.rate("NGN", "ZZZ") is None
    assert service.asked == ["USD"]


async def test_it_is_asked_for_once_in_five_minutes_also_by_many_at_once(
    rates: HttpRates, service: StandIn, clock: VirtualClock
) -> None:
    tables = await asyncio.gather(*(rates.table() for _ in range(20)))
    assert len(service.asked) == 1
    assert len({id(table) for table in tables}) == 1
    clock.pass_(299)
    await rates.table()
    assert len(service.asked) == 1
    service.rates["NGN"] = 1700
    clock.pass_(1)
    assert (await rates.table()).rate("USD", "NGN") == 1700
    assert len(service.asked) == 2


async def test_e103_while_the_service_is_away_the_last_table_does_for_an_hour_and_no_longer(
    rates: HttpRates, service: StandIn, clock: VirtualClock
) -> None:
    before = await rates.table()
    service.status = 503
    clock.pass_(3599)
    assert await rates.table() is before
    clock.pass_(1)
    assert await away(rates)
    service.status = 200
    assert await away(rates), "after a failure there is a pause"
    clock.pass_(10)
    assert (await rates.table()).rate("USD", "JPY") == 150


async def test_after_a_failure_nobody_waits_for_the_next_one_at_once(
    rates: HttpRates, service: StandIn, clock: VirtualClock
) -> None:
    service.status = 500
    assert await away(rates)
    assert await away(rates)
    assert len(service.asked) == 1
    clock.pass_(10)
    assert await away(rates)
    assert len(service.asked) == 2


async def test_e103_a_service_that_never_answers_is_waited_for_for_a_bounded_time(
    rates: HttpRates, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "ANSWER_SECONDS", 0.05)
    service.hangs = True
    async with asyncio.timeout(5):
        assert await away(rates)


async def test_nobody_at_the_address_is_the_same_as_no_answer(clock: VirtualClock) -> None:
    source = HttpRates("http://127.0.0.1:9/{base}", clock=clock)
    assert await away(source)
    await source.close()


def whole(**says: Any) -> bytes:
    return json.dumps({"base": "USD", "rates": {"NGN": 1600}, **says}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"not json",
        b'{"base": "USD"}',
        b'{"base": "USD", "rates": []}',
        b'{"base": "USD", "rates": {}}',
        b'{"base": "USD", "rates": {"NGN": NaN}}',
        b'{"base": "USD", "rates": {"NGN": Infinity}}',
        b'{"base": "USD", "rates": {"NGN": 0}}',
        b'{"base": "USD", "rates": {"NGN": -5}}',
        b'{"base": "USD", "rates": {"NGN": "1600"}}',
        b'{"base": "USD", "rates": {"NGN": true}}',
        b'{"base": "USD", "rates": {"NGN": 1e999999999}}',
        b'{"base": "USD", "rates": {"NGN": 1e-999999999}}',
        b'{"base": "USD", "rates": {"NGN": 1' + b"0" * 5000 + b"}}",
        b'{"base": "USD", "rates": ' + b"[" * 100_000 + b"}",
        whole(base="EUR"),
        whole(base="XXXX"),
        whole(base=None),
        whole(base=["USD"]),
        whole(timestamp="now"),
        whole(timestamp=-1),
        whole(timestamp=10**30),
        whole(date="yesterday"),
        whole(date="2026-13-40"),
        b" " * (600 * 1024),
    ],
    ids=lambda body: repr(body[:48]),
)
async def test_e103_what_is_no_table_is_as_good_as_no_answer(
    rates: HttpRates, service: StandIn, body: bytes
) -> None:
    service.body = body
    assert await away(rates)


@pytest.mark.parametrize("status", [204, 301, 302, 400, 401, 404, 429, 500])
async def test_no_other_answer_than_200_is_read(rates: HttpRates, service: StandIn, status: int) -> None:
    service.status = status
    assert await away(rates)
    assert service.asked == ["USD"], "and no other address is followed"


async def test_e103_rates_that_are_old_by_the_services_own_word_are_not_traded_by(
    rates: HttpRates, service: StandIn, clock: VirtualClock
) -> None:
    now = int(clock.now().timestamp())
    for seconds, good in ((0, True), (47 * 3600, True), (49 * 3600, False), (-49 * 3600, False)):
        for name in ("timestamp", "time_last_update_unix"):
            service.says = {name: now - seconds}
            source = HttpRates(service.url, clock=clock)
            assert await away(source) is not good, (name, seconds)
            await source.close()
    # Friday's of a central bank are good until after Easter.
    for day, good in (("2026-03-01", True), ("2026-02-24", True), ("2026-02-22", False)):
        service.says = {"date": day}
        source = HttpRates(service.url, clock=clock)
        assert await away(source) is not good, day
        await source.close()


async def test_the_time_of_the_rates_is_that_of_the_service(service: StandIn, clock: VirtualClock) -> None:
    service.says = {
        "base": None,
        "base_code": "USD",
        "time_last_update_unix": int(clock.now().timestamp()) - 60,
    }
    source = HttpRates(service.url, clock=clock)
    assert (clock.now() - (await source.table()).as_of).total_seconds() == 60
    await source.close()


async def test_an_address_without_a_place_for_the_base_may_say_which_it_is(
    service: StandIn, clock: VirtualClock
) -> None:
    service.rates = {"NGN": 1850, "USD": 1.1}
    source = HttpRates(service.url.replace("{base}", "EUR"), clock=clock)
    assert (await source.table()).rate("USD", "NGN") == Fraction(1850) / Fraction("1.1")
    await source.close()


async def test_a_fixed_rate_goes_before_that_of_the_service_and_all_still_agree(
    service: StandIn, clock: VirtualClock
) -> None:
    source = rates_of([("USD", "NGN", Decimal(2000))], service.url, clock)
    assert source is not None
    table = await source.table()
    assert table.rate("USD", "NGN") == 2000
    assert table.rate("NGN", "JPY") == Fraction(150, 2000)
    await source.close()


async def test_a_fixed_table_is_always_of_now(clock: VirtualClock) -> None:
    source = rates_of([("USD", "NGN", Decimal(1600))], None, clock)
    assert isinstance(source, FixedRates)
    clock.pass_(10**6)
    table = await source.table()
    assert (table.rate("NGN", "USD"), table.as_of) == (Fraction(1, 1600), clock.now())
    assert rates_of([], None, clock) is None


async def test_how_often_the_service_was_asked_and_how_it_went_is_counted(
    service: StandIn, clock: VirtualClock
) -> None:
    outcomes: list[str] = []
    source = HttpRates(service.url, clock=clock, count=outcomes.append)
    await source.table()
    service.status = 500
    clock.pass_(300)
    await source.table()
    await source.table()
    assert outcomes == ["ok", "failed"]
    await source.close()
