"""A wallet as the phones of its owner hear of it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from tests.doors.conftest import House, open_house
from tests.doors.phones import Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIN = "4071"
KEYS = (f"wire-{number}" for number in itertools.count(1))


async def test_every_phone_of_both_hears_of_a_transfer(house: House) -> None:
    ann, bob = await house.person("ann"), await house.person("bob")
    for person in (ann, bob):
        assert (await person.post("/api/wallet/create", {"pin": PIN})).status == 201
    a1, a2, b = await asyncio.gather(ann.phone("a1"), ann.phone("a2"), bob.phone("b"))
    await ann.pay_in(1000)
    for phone in (a1, a2):
        assert (await phone.happens("WALLET_UPDATED"))["wallet"]["availableMinor"] == 1000
    body = {"to": bob.username, "amountMinor": 300, "pin": PIN}
    done = await ann.post("/api/wallet/transfer", body, headers={"Idempotency-Key": next(KEYS)})
    for phone in (a1, a2):
        assert await phone.happens("WALLET_UPDATED") == {"wallet": done.body["wallet"]}
    assert (await b.happens("WALLET_UPDATED"))["wallet"]["availableMinor"] == 300
    await b.settled()
    assert b.names().count("WALLET_UPDATED") == 1, "Ann's balance is not Bob's business"
    await house.services.wallets.freeze(bob.id, frozen=True)
    assert (await b.happens("WALLET_UPDATED"))["wallet"]["frozen"] is True


async def test_a_phone_that_connects_is_greeted_with_the_wallet(house: House) -> None:
    ann = await house.person("ann")
    first = await ann.dial("first")
    assert (await first.happens("SYNC"))["wallet"] is None
    await ann.post("/api/wallet/create", {"pin": PIN})
    await ann.pay_in(250)
    second = await ann.dial("second")
    wallet = (await ann.get("/api/wallet")).body["wallet"]
    assert (await second.happens("SYNC"))["wallet"] == wallet
    assert wallet["availableMinor"] == 250


async def test_a_phone_at_another_process_hears_of_it_too(mongo_uri: str, exchange: Exchange) -> None:
    async with (
        open_house(mongo_uri, exchange) as one,
        open_house(mongo_uri, exchange, clock=one.clock, database=one.db.db.name) as two,
    ):
        for house in (one, two):
            await house.services.calls.run_leases(5)
        ann = await one.person("ann")
        await ann.post("/api/wallet/create", {"pin": PIN})
        there = await replace(ann, house=two).phone("there")
        for total in (100, 200):
            await ann.pay_in(100)
            await two.services.mailbox.fetch()
            assert (await there.happens("WALLET_UPDATED"))["wallet"]["availableMinor"] == total
        await there.settled()
        assert there.names().count("WALLET_UPDATED") == 2
