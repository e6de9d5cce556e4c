"""What gateways tell: stored before it is answered, worked off once, and never believed."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from models.db import Database
from models.payments import rules
from models.payments.gateway import GatewayAway
from models.payments.inbox.service import UNMATCHED_TRIES
from models.payments.payment import Status
from tests.fakes import CountingIds, VirtualClock
from tests.services.payments_house import ANN, BOB, SIGNED, House
from tests.services.wallet_house import code_of

HOUR = 3600


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    built = House(db, clock, ids)
    await built.people(ANN, BOB)
    return built


async def rows(house: House) -> list[dict[str, Any]]:
    return [row async for row in house.db["inbox"].find({}, sort=[("_id", 1)])]


async def test_a_notification_is_stored_by_its_very_bytes_and_worked_off_later(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    raw = b'{ "about":"payment",\n "id":"e1", "reference":"%s", "amount":1e9}' % payment.reference.encode()
    await house.one.inbox.take("till", raw, SIGNED)
    [row] = await rows(house)
    assert (row["_id"], bytes(row["raw"]), row["stage"]) == ("till:e1", raw, "new")
    assert house.till.asked["query"] == 0, "the gateway waits for its answer"
    assert await house.money() == (0, 0)
    await house.process().inbox.run()
    assert await house.money() == (1000, 0)
    assert (await rows(house))[0]["stage"] == "done"
    await house.books()


async def test_what_is_not_signed_or_cannot_be_read_is_not_stored(house: House) -> None:
    payment = await house.deposit()
    raw = house.till.tells(payment.reference)
    for headers in ({}, {"till-signature": ""}, {"till-signature": "bad"}):
        assert await code_of(house.one.inbox.take("till", raw, headers)) == "WEBHOOK_INVALID"
    for bad in (b"", b"[]", b"\xff", b'{"id":1}', b'{"id":"x","about":"stars"}', b"x" * 300_000):
        assert await code_of(house.one.inbox.take("till", bad, SIGNED)) == "WEBHOOK_INVALID"
    assert await code_of(house.one.inbox.take("nobody", raw, SIGNED)) == "ROUTE_UNKNOWN"
    assert await rows(house) == []
    assert house.counts["invalid"] == 9


async def test_twelve_deliveries_are_one_row_and_one_question(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    raw = house.till.tells(payment.reference)
    processes = [house.one, house.process()]
    await asyncio.gather(*(processes[n % 2].inbox.take("till", raw, SIGNED) for n in range(12)))
    await asyncio.gather(*(process.inbox.run() for process in processes))
    for _ in range(3):
        await house.tell(raw)
    [row] = await rows(house)
    assert (row["deliveries"], row["stage"]) == (15, "done")
    assert house.till.asked["query"] == 1
    assert await house.money() == (1000, 0)


async def test_one_fact_told_under_two_ids_is_credited_once(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    for _ in range(2):
        await house.one.inbox.take("till", house.till.tells(payment.reference), SIGNED)
    await asyncio.gather(house.one.inbox.run(), house.process().inbox.run())
    assert len(await rows(house)) == 2
    assert await house.money() == (1000, 0)
    await house.books()


async def test_in_whatever_order_they_come_the_end_is_the_same(house: House) -> None:
    for seed in range(6):
        payment = await house.deposit()
        told = [house.till.tells(payment.reference, word="pending")]
        house.till.pays(payment.reference, 400)
        told.append(house.till.tells(payment.reference, word="part"))
        house.till.pays(payment.reference)
        told.append(house.till.tells(payment.reference, word="paid"))
        random.Random(seed).shuffle(told)
        for raw in told:
            await house.tell(raw)
        assert (await house.fresh(payment)).paid_minor == 1000
    assert await house.money() == (6000, 0)
    await house.books()


async def test_an_event_before_the_answer_to_our_own_request_is_credited(house: House) -> None:
    checkout = house.till.checkout
    early: list[int] = []

    async def paid_at_once(ask: Any) -> Any:
        opened = await checkout(ask)
        house.till.pays(ask.reference)
        await house.tell(house.till.tells(ask.reference))
        early.append((await house.money())[0])
        return opened

    house.till.checkout = paid_at_once  # type: ignore[method-assign]
    payment = await house.deposit(key="k")
    assert early == [1000]
    assert (payment.status, payment.paid_minor) == (Status.COMPLETED, 1000)
    assert payment.checkout_url is not None
    assert payment.asked[0].gateway_reference == "T|1"
    await house.books()


async def test_an_event_that_comes_before_the_gateway_knows_it_is_looked_at_again_soon(house: House) -> None:
    payment = await house.deposit()
    house.clock.pass_(10 * HOUR)
    await house.one.jobs()
    await house.tell(house.till.tells(payment.reference))
    house.till.pays(payment.reference)
    house.clock.pass_(rules.ECHO_SECONDS)
    await house.one.jobs()
    assert (await house.fresh(payment)).status is Status.COMPLETED


@pytest.mark.parametrize(
    "said",
    [
        {"amount": 10**9, "paidMinor": 10**9, "status": "PAID"},
        {"currency": "USD"},
        {"user": BOB, "email": "bob@x.test", "into": "call_credits"},
        {"word": "SUCCESS"},
    ],
)
async def test_what_a_notification_says_of_the_money_is_not_believed(
    house: House, said: dict[str, Any]
) -> None:
    payment = await house.deposit()
    await house.tell(house.till.tells(payment.reference, **said))
    assert (await house.fresh(payment)).status is Status.PENDING
    house.till.pays(payment.reference, 700)
    await house.tell(house.till.tells(payment.reference, **said))
    assert (await house.money(ANN), await house.money(BOB)) == ((700, 0), (0, 0))
    await house.books()


async def test_a_notification_by_what_the_gateway_calls_it_finds_the_payment(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    await house.tell(json.dumps({"id": "e", "about": "payment", "gatewayReference": "T|1"}).encode())
    assert (await house.fresh(payment)).status is Status.COMPLETED


async def test_what_is_about_nothing_we_know_is_tried_a_while_and_left_to_a_person(house: House) -> None:
    raw = house.till.tells("no-such")
    await house.tell(raw)
    for _ in range(UNMATCHED_TRIES):
        assert (await rows(house))[0]["stage"] == "new"
        house.clock.pass_(HOUR)
        await house.one.jobs()
    assert (await rows(house))[0]["stage"] == "unmatched"
    assert house.counts["unmatched"] == 1
    house.clock.pass_(HOUR)
    assert await house.one.inbox.run() == 0
    await house.one.inbox.take("till", raw, SIGNED)
    assert [(row["stage"], row["deliveries"]) for row in await rows(house)] == [("new", 2)]
    assert await house.one.inbox.run() == 1, "told once more, it is tried once more"


async def test_another_gateways_payment_is_none_of_this_ones(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    await house.db["payments"].update_one({"_id": payment.id}, {"$set": {"gateway": "other"}})
    await house.tell(house.till.tells(payment.reference))
    assert house.till.asked["query"] == 0
    assert await house.money() == (0, 0)


async def test_what_we_have_no_use_for_is_stored_and_done(house: House) -> None:
    for about in ("other", "payout"):
        await house.tell(house.till.tells("x", about=about, word="SETTLEMENT"))
    assert [row["stage"] for row in await rows(house)] == ["done", "done"]
    assert house.counts["other"] == 2


async def test_while_the_gateway_is_away_a_notification_waits(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    house.till.fail("query", GatewayAway("timeout"))
    await house.tell(house.till.tells(payment.reference))
    assert (await rows(house))[0]["stage"] == "new"
    house.clock.pass_(60)
    await house.one.inbox.run()
    assert (await rows(house))[0]["stage"] == "done"
    assert await house.money() == (1000, 0)


async def test_one_whose_gateway_never_comes_back_is_given_up_and_said(house: House) -> None:
    payment = await house.deposit()
    house.till.down = True
    await house.tell(house.till.tells(payment.reference))
    for _ in range(80):
        house.clock.pass_(HOUR)
        await house.one.inbox.run()
    assert (await rows(house))[0]["stage"] == "left"
    assert house.counts["left"] == 1


async def test_one_that_was_taken_by_a_process_that_died_is_taken_by_another(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    await house.one.inbox.take("till", house.till.tells(payment.reference), SIGNED)
    now = house.clock.now()
    assert await house.one.inbox.store.claim(now, now.replace(minute=2)) is not None
    assert await house.process().inbox.run() == 0
    house.clock.pass_(121)
    assert await house.process().inbox.run() == 1
    assert await house.money() == (1000, 0)


async def test_an_id_of_any_length_is_one_event(house: House) -> None:
    payment = await house.deposit()
    for event in ("x" * 5000, "x" * 5000, "y" * 5000, "\U0001f4b8" * 3000):
        await house.one.inbox.take("till", house.till.tells(payment.reference, event=event), SIGNED)
    assert len(await rows(house)) == 3
