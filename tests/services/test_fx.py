"""Conversions: quotes, their end, their one use, and what is posted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from models.audit.service import audit
from models.db import Database
from models.errors import Refusal
from models.fx.ports import Rates, RatesAway
from models.fx.rules import Quote, Table
from models.fx.service import Conversion, Fx
from models.fx.store import QuoteStore
from models.ledger.journal import Pocket
from models.wallet.rules import Amount
from server.adapters.rates import FixedRates
from server.metrics import REGISTRY, count_entries
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.wallet_house import (
    ANN,
    BOB,
    PIN,
    WRONG,
    House,
    Process,
    books_agree,
    journal_sums,
    refused,
)

PAIRS = [("USD", "NGN", Decimal(1600)), ("USD", "JPY", Decimal(150)), ("USD", "KWD", Decimal("0.307"))]
# Calls to the driver of one conversion, with much to spare.
STEPS_MAX = 40


class NoRates:
    """A source that does not answer."""

    async def table(self) -> Table:
        raise RatesAway


@dataclass
class Bureau:
    """A house with rates."""

    house: House
    fx: Fx

    async def quote(self, minor: int = 160_000, source: str = "NGN", target: str = "USD") -> Quote:
        return await self.fx.quote(ANN, source=source, target=target, amount=Amount(minor=minor))

    async def convert(self, quote: Quote, fx: Fx | None = None, **changes: Any) -> Conversion:
        ask: dict[str, Any] = {"user_id": ANN, "quote_id": quote.id, "key": "k", "pin": PIN, **changes}
        return await (fx or self.fx).convert(ask.pop("user_id"), **ask)


def fx_of(house: House, process: Process, *, rates: Rates | None = None, bps: int = 100) -> Fx:
    return Fx(
        ledger=process.ledger,
        store=QuoteStore(process.db),
        rates=rates or FixedRates(PAIRS, house.clock),
        pins=process.wallets.pins,
        clock=house.clock,
        ids=house.ids,
        spread_bps=bps,
        quote_seconds=60,
    )


@pytest.fixture
async def bureau(db: Database, clock: VirtualClock, ids: CountingIds) -> Bureau:
    """Ann with 10,000 naira."""
    house = House(db, clock, ids)
    await house.add_user(ANN, "ann")
    await house.rich(ANN, 1_000_000)
    return Bureau(house, fx_of(house, house.one))


# ------------------------------------------------------------------------------------------------------------ quotes


async def test_a_quote_says_what_arrives_and_moves_nothing(bureau: Bureau, clock: VirtualClock) -> None:
    quote = await bureau.quote(160_000)
    assert (quote.worth_minor, quote.spread_minor, quote.receives_minor) == (100, 1, 99)
    assert quote.rate == "0.000625"
    assert (quote.expires_at - clock.now()).total_seconds() == 60
    assert await bureau.house.balance(ANN) == 1_000_000
    assert await bureau.house.one.ledger.wallet(ANN, "USD") is None


@pytest.mark.parametrize(
    ("minor", "source", "target", "code"),
    [
        (100, "NGN", "NGN", "VALIDATION_FAILED"),
        (1, "NGN", "USD", "VALIDATION_FAILED"),
        (0, "NGN", "USD", "VALIDATION_FAILED"),
        (100, "ngn", "USD", "VALIDATION_FAILED"),
        (100, "NGN", "ABC", "VALIDATION_FAILED"),
        (100, "NGN", "EUR", "FX_UNAVAILABLE"),
        (2**53 - 1, "USD", "NGN", "AMOUNT_TOO_LARGE"),
    ],
)
async def test_what_cannot_be_quoted_is_refused(
    bureau: Bureau, minor: int, source: str, target: str, code: str
) -> None:
    assert (await refused(bureau.quote(minor, source, target))).code == code


async def test_a_quote_of_major_units_keeps_to_the_decimals_of_its_currency(bureau: Bureau) -> None:
    ask = {"source": "JPY", "target": "NGN"}
    quote = await bureau.fx.quote(ANN, amount=Amount(major=Decimal(15)), **ask)
    assert (quote.amount_minor, quote.worth_minor) == (15, 16_000)
    no = await refused(bureau.fx.quote(ANN, amount=Amount(major=Decimal("15.5")), **ask))
    assert no.code == "VALIDATION_FAILED"


async def test_without_rates_there_are_no_quotes(bureau: Bureau) -> None:
    house = bureau.house
    bureau.fx = fx_of(house, house.one, rates=NoRates())
    assert (await refused(bureau.quote())).code == "FX_AWAY"
    bureau.fx._rates = None
    assert (await refused(bureau.quote())).code == "FX_UNAVAILABLE"


# -------------------------------------------------------------------------------------------------------- conversions


async def test_a_conversion_takes_one_currency_gives_the_other_and_books_the_spread_by_itself(
    bureau: Bureau, db: Database
) -> None:
    done = await bureau.convert(await bureau.quote(160_000))
    assert (done.wallet.currency, done.wallet.primary) == ("NGN", 840_000)
    assert (done.target_wallet.currency, done.target_wallet.primary) == ("USD", 99)
    (entry,) = [d async for d in db["journal"].find({"kind": "exchange"})]
    assert entry["_id"] == f"fx:{done.quote.id}"
    legs = {(leg["account"], leg["currency"]): leg["amount"] for leg in entry["legs"]}
    assert legs == {
        (f"wallet:{ANN}:NGN:primary", "NGN"): -160_000,
        ("platform:exchange", "NGN"): 160_000,
        ("platform:exchange", "USD"): -100,
        (f"wallet:{ANN}:USD:primary", "USD"): 99,
        ("platform:exchange_spread", "USD"): 1,
    }
    await books_agree(db)


async def test_both_wallets_have_a_line_in_their_statements(bureau: Bureau) -> None:
    done = await bureau.convert(await bureau.quote(160_000))
    for currency, amount, after in (("NGN", -160_000, 840_000), ("USD", 99, 99)):
        page = await bureau.house.wallets.statement(ANN, currency=currency, limit=5)
        line = page.lines[0]
        assert (line.kind, line.amount_minor, line.balance_after_minor) == ("exchange", amount, after)
        assert line.note == "1 NGN = 0.000625 USD"
        assert line.created_at == done.entry.at


async def test_what_the_rates_do_after_the_quote_changes_nothing(bureau: Bureau) -> None:
    quote = await bureau.quote(160_000)
    dearer = fx_of(
        bureau.house, bureau.house.one, rates=FixedRates([("USD", "NGN", Decimal(9999))], bureau.house.clock)
    )
    assert (await bureau.convert(quote, dearer)).target_wallet.primary == 99


async def test_a_quote_holds_until_its_end_and_not_a_millisecond_longer(
    bureau: Bureau, clock: VirtualClock
) -> None:
    first, second = await bureau.quote(), await bureau.quote()
    clock.pass_(59.999)
    await bureau.convert(first)
    clock.pass_(0.001)
    assert (await refused(bureau.convert(second))).code == "QUOTE_EXPIRED"


async def test_e101_a_quote_that_ends_while_the_pin_is_looked_at_is_not_used(
    bureau: Bureau, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    quote, pins = await bureau.quote(), bureau.house.wallets.pins
    looked = pins.check

    async def slow(user_id: str, pin: str) -> str:
        clock.pass_(61)
        return await looked(user_id, pin)

    monkeypatch.setattr(pins, "check", slow)
    assert (await refused(bureau.convert(quote))).code == "QUOTE_EXPIRED"
    assert await bureau.house.balance(ANN) == 1_000_000


async def test_a_quote_is_used_once_and_the_same_request_gets_the_same_answer(bureau: Bureau) -> None:
    quote = await bureau.quote()
    first = await bureau.convert(quote, key="a")
    bureau.house.clock.pass_(3600)
    again = await bureau.convert(quote, key="a", pin=WRONG)
    assert (again.entry, again.wallet, again.target_wallet) == (
        first.entry,
        first.wallet,
        first.target_wallet,
    )
    for key in ("b", None):
        assert (await refused(bureau.convert(quote, key=key))).code == "QUOTE_USED"


async def test_two_requests_without_a_key_are_two(bureau: Bureau) -> None:
    quote = await bureau.quote()
    await bureau.convert(quote, key=None)
    assert (await refused(bureau.convert(quote, key=None))).code == "QUOTE_USED"


async def test_a_quote_is_its_owners_alone(bureau: Bureau) -> None:
    house = bureau.house
    await house.add_user(BOB, "bob")
    await house.rich(BOB, 1_000_000)
    quote = await bureau.quote()
    assert (await refused(bureau.convert(quote, user_id=BOB))).code == "QUOTE_UNKNOWN"
    assert (
        await refused(bureau.fx.convert(ANN, quote_id="nothing", key="k", pin=PIN))
    ).code == "QUOTE_UNKNOWN"


async def test_what_is_not_there_or_frozen_is_refused_and_the_quote_stays_good(bureau: Bureau) -> None:
    house = bureau.house
    poor = await refused(bureau.convert(await bureau.quote(1_000_001)))
    assert (poor.code, poor.details["availableMinor"]) == ("INSUFFICIENT_FUNDS", 1_000_000)
    assert (await refused(bureau.convert(await bureau.quote(100, "USD", "NGN")))).code == "WALLET_UNKNOWN"
    quote = await bureau.quote()
    assert (await refused(bureau.convert(quote, pin=WRONG))).code == "PIN_WRONG"
    await house.wallets.freeze(ANN, frozen=True)
    assert (await refused(bureau.convert(quote))).code == "WALLET_FROZEN"
    await house.wallets.freeze(ANN, frozen=False)
    assert (await bureau.convert(quote)).wallet.primary == 840_000


async def test_call_credits_are_not_converted(bureau: Bureau) -> None:
    await bureau.house.fund(ANN, 50_000_000, pocket=Pocket.CREDITS)
    assert (await refused(bureau.convert(await bureau.quote(1_000_001)))).code == "INSUFFICIENT_FUNDS"


# ------------------------------------------------------------------------------------------------- races and crashes


async def test_e100_of_many_conversions_of_one_quote_in_two_processes_one_happens(
    bureau: Bureau, db: Database
) -> None:
    house = bureau.house
    desks = [bureau.fx, fx_of(house, house.process())]
    for turn in range(6):
        quote = await bureau.quote(3_200)
        keys = [f"{turn}:{n % 3}" for n in range(8)]
        done = await asyncio.gather(
            *(bureau.convert(quote, desks[n % 2], key=key) for n, key in enumerate(keys)),
            return_exceptions=True,
        )
        good = [one for one in done if isinstance(one, Conversion)]
        codes = {one.code for one in done if isinstance(one, Refusal)}
        assert len(good) + sum(isinstance(one, Refusal) for one in done) == len(done)
        assert good
        assert codes <= {"QUOTE_USED"}
        assert len({one.entry.id for one in good}) == 1
    assert await db["journal"].count_documents({"kind": "exchange"}) == 6
    assert await house.balance(ANN) == 1_000_000 - 6 * 3_200
    await books_agree(db)


async def test_of_many_quotes_at_once_no_more_is_converted_than_is_there(
    bureau: Bureau, db: Database
) -> None:
    house = bureau.house
    desks = [bureau.fx, fx_of(house, house.process())]
    quotes = [await bureau.quote(300_000) for _ in range(8)]
    done = await asyncio.gather(
        *(bureau.convert(quote, desks[n % 2]) for n, quote in enumerate(quotes)), return_exceptions=True
    )
    assert sum(isinstance(one, Conversion) for one in done) == 3
    assert {one.code for one in done if isinstance(one, Refusal)} == {"INSUFFICIENT_FUNDS"}
    assert await house.balance(ANN) == 100_000
    await books_agree(db)


async def test_e100_wherever_the_process_dies_the_quote_is_used_with_its_posting_or_not_at_all(
    bureau: Bureau, db: Database
) -> None:
    house, died = bureau.house, 0
    for step in range(1, STEPS_MAX):
        doomed: Any = Mortal(db)
        process = house.process(doomed)
        quote = await bureau.quote(3_200)
        before = await house.balance(ANN)
        doomed.dies_at = doomed.calls + step
        try:
            await bureau.convert(quote, fx_of(house, process))
        except Killed:
            died += 1
        else:
            break
        await books_agree(db)
        kept = await QuoteStore(db).find(quote.id)
        assert kept is not None
        posted = await db["journal"].find_one({"_id": f"fx:{quote.id}"})
        assert (kept.used_at is not None) == (posted is not None)
        # Whoever got no answer asks again, and it has happened once.
        await bureau.convert(quote)
        assert await house.balance(ANN) == before - 3_200
    assert died > 5
    await books_agree(db)


async def test_e102_there_and_back_again_and_again_only_ever_loses(bureau: Bureau, db: Database) -> None:
    house, chance = bureau.house, Random(6)
    free = fx_of(house, house.one, bps=0)
    for _ in range(60):
        held = {one.currency: one.primary for one in await house.one.ledger.store.wallets_of(ANN)}
        source = chance.choice([name for name, minor in held.items() if minor])
        target = chance.choice([name for name in ("NGN", "USD", "JPY", "KWD") if name != source])
        try:
            quote = await free.quote(
                ANN, source=source, target=target, amount=Amount(minor=chance.randint(1, held[source]))
            )
        except Refusal:
            continue  # too small
        await bureau.convert(quote, free)
    # All back into naira.
    for source in ("USD", "JPY", "KWD"):
        if minor := await house.balance(ANN, source):
            try:
                await bureau.convert(
                    await free.quote(ANN, source=source, target="NGN", amount=Amount(minor=minor)), free
                )
            except Refusal:
                continue
    assert 900_000 < await house.balance(ANN) <= 1_000_000
    sums = await journal_sums(db)
    assert sums.get("platform:exchange_spread", 0) == 0
    await books_agree(db)


# ------------------------------------------------------------------------------------------------------------- audit


async def said(bureau: Bureau) -> set[str]:
    """The rows of which the audit says that the exchange does not agree."""
    report = await audit(bureau.house.db, bureau.house.clock.now())
    return {one.row for one in report.findings if one.invariant == "I14"}


async def test_the_audit_compares_the_pool_with_the_quotes_that_were_used(
    bureau: Bureau, db: Database
) -> None:
    done = await bureau.convert(await bureau.quote(160_000))
    other = await bureau.convert(await bureau.quote(50, "USD", "JPY"))
    await bureau.quote(160_000)
    assert await said(bureau) == set()
    quote = done.quote.id
    await db["fx_quotes"].update_one({"_id": quote}, {"$set": {"spread": 3}})
    assert await said(bureau) == {quote, "platform:exchange_spread"}
    await db["fx_quotes"].update_one({"_id": quote}, {"$set": {"spread": 1, "amount": 150_000}})
    assert await said(bureau) == {quote, "platform:exchange"}
    await db["fx_quotes"].update_one({"_id": quote}, {"$set": {"amount": 160_000, "used_at": None}})
    assert await said(bureau) == {f"fx:{quote}", "platform:exchange", "platform:exchange_spread"}
    await db["fx_quotes"].update_one({"_id": quote}, {"$set": {"used_at": done.entry.at}})
    assert await said(bureau) == set()
    await db["fx_quotes"].delete_one({"_id": other.quote.id})
    assert f"fx:{other.quote.id}" in await said(bureau)


async def test_conversions_are_counted_by_currency_and_way(bureau: Bureau) -> None:
    def counted(currency: str, way: str) -> float:
        labels = {"currency": currency, "way": way}
        return REGISTRY.get_sample_value("ringmeter_exchanged_minor_total", labels) or 0

    ways = (("NGN", "taken", 160_000), ("USD", "given", 100), ("USD", "spread", 1))
    before = [counted(currency, way) for currency, way, _ in ways]
    bureau.house.one.ledger.listeners.append(count_entries)
    await bureau.convert(await bureau.quote(160_000))
    for (currency, way, minor), was in zip(ways, before, strict=True):
        assert counted(currency, way) - was == minor
