"""The meter as two phones with the official client hear it run, and the end of the money, also without a database."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime
from typing import Any

import pytest

from models.audit.service import audit
from server.clock import SystemClock
from tests.doors.conftest import PASSWORD, House, Person, open_house
from tests.doors.line import DatabaseLine
from tests.doors.phones import Exchange, Phone
from tests.doors.serverprocess import eventually
from tests.doors.talk import PRICE_FIELDS, pair, ring

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

# 100 minor units for every second.
HOUSE = {
    "CALL_RATE_MINOR": "6000",
    "CALL_FIRST_BLOCK_SECONDS": "1",
    "CALL_BLOCK_SECONDS": "1",
    "CALL_MINIMUM_MINOR": "0",
}
PIN = "4071"
# How late a busy machine may be in telling; how late it is on a quiet one is for the bench to say.
LATE_SECONDS = 1.0
_KEYS = (f"billing-{number}" for number in itertools.count(1))


async def pay_in(person: Person, minor: int) -> None:
    """Money into a wallet that is made for it."""
    made = await person.post("/api/wallet/create", {"pin": PIN})
    assert made.status in (201, 409), made.body
    await person.pay_in(minor)


async def books(house: House) -> None:
    report = await audit(house.db, house.clock.now())
    assert report.clean, str(report)


async def test_the_money_of_a_call_runs_on_both_phones(house: House) -> None:
    ada, a, bob, b = await pair(house)
    await pay_in(ada, 10_000)
    asked = await ada.get(f"/api/calls/price?to={bob.id}")
    assert set(asked.body) == {"price", "availableMinor", "affordableSeconds"}
    assert set(asked.body["price"]) == PRICE_FIELDS
    assert (asked.body["availableMinor"], asked.body["affordableSeconds"]) == (10_000, 100)

    call_id = await ring(a, b, bob)
    held = await a.happens("WALLET_UPDATED", lambda told: told["wallet"]["heldMinor"] > 0)
    assert (held["wallet"]["availableMinor"], held["wallet"]["heldMinor"]) == (0, 10_000)
    call = await b.ask("CALL_ACCEPT", callId=call_id)
    assert (call["price"], call["costMinor"], call["endsInMs"]) == (asked.body["price"], 0, 100_000)

    tick = {
        "callId": call_id,
        "chargedMinor": 0,
        "currency": "NGN",
        "remainingSeconds": 100,
        "remainingMs": 100_000,
    }
    mine, theirs = await a.happens("BILLING_TICK"), await b.happens("BILLING_TICK")
    assert {**tick, "availableMinor": 0}.items() <= mine.items()
    assert tick.items() <= theirs.items()
    assert "availableMinor" not in theirs, "what the payer has is the payer's business"
    await house.pass_(41)
    said = await a.happens("BILLING_TICK", lambda told: told["chargedMinor"] > 0)
    assert (said["chargedMinor"], said["remainingSeconds"]) == (4_100, 59)
    assert await a.happens("BILLING_LOW_BALANCE") == {"callId": call_id, "remainingSeconds": 59}
    await house.pass_(46)
    assert (await a.happens("BILLING_LOW_BALANCE"))["remainingSeconds"] == 13
    await b.happens("BILLING_TICK", lambda told: told["chargedMinor"] == 8_700)

    # Money that comes now counts at once.
    await pay_in(ada, 5_000)
    more = await a.happens("BILLING_TICK", lambda told: told["remainingSeconds"] > 13)
    assert (more["remainingSeconds"], more["availableMinor"]) == (63, 0)
    going = (await ada.get(f"/api/calls/{call_id}")).body["call"]
    assert (going["costMinor"], going["endsInMs"]) == (8_700, 63_000)

    await b.ask("CALL_ENDED", callId=call_id)
    for phone in (a, b):
        over = await phone.happens("CALL_ENDED")
        assert over["cost"] == {"amountMinor": 8_700, "currency": "NGN"}
        assert (over["call"]["costMinor"], over["call"]["endsInMs"]) == (8_700, None)
        assert (over["durationSeconds"], over["call"]["billedSeconds"]) == (87, 87)
    left = await a.happens(
        "WALLET_UPDATED",
        lambda told: told["wallet"]["heldMinor"] == 0 < told["wallet"]["availableMinor"] == 6_300,
    )
    assert left["wallet"]["currency"] == "NGN"
    earned = await b.happens("WALLET_UPDATED")
    assert (earned["wallet"]["pendingEarningsMinor"], earned["wallet"]["availableMinor"]) == (6_960, 0)
    assert "BILLING_LOW_BALANCE" not in b.names()
    for person in (ada, bob):
        seen = (await person.get(f"/api/calls/{call_id}")).body["call"]
        assert (seen["costMinor"], len(seen["intervals"])) == (8_700, 1)
    await books(house)


async def test_who_cannot_pay_is_refused_by_socket_and_by_rest_before_anything_rings(house: House) -> None:
    ada, a, bob, b = await pair(house)
    ask = {"to": bob.id, "type": "audio"}
    nothing = {"requiredMinor": 100, "availableMinor": 0, "currency": "NGN"}
    no = await a.refused("CALL_REQUEST", ask)
    assert (no["code"], no["details"]) == ("INSUFFICIENT_FUNDS", nothing)
    for path in ("/api/calls/initiate", "/calls"):
        assert (await ada.post(path, ask)).error(402, "INSUFFICIENT_FUNDS")["details"] == nothing
    await pay_in(ada, 99)
    assert (await a.refused("CALL_REQUEST", ask))["details"] == {**nothing, "availableMinor": 99}
    await pay_in(ada, 1)
    changed = await a.refused("CALL_REQUEST", {**ask, "maxRatePerMinuteMinor": 5_999})
    assert (changed["code"], changed["details"]["ratePerMinuteMinor"]) == ("PRICE_CHANGED", 6_000)
    await b.settled()
    assert "CALL_REQUEST" not in b.names()
    assert (await bob.get("/api/calls/history")).body["items"] == []
    await a.ask("CALL_REQUEST", {**ask, "maxRatePerMinuteMinor": 6_000})
    await b.happens("CALL_REQUEST")


async def test_e50_a_payee_who_deletes_the_account_in_mid_call_ends_it_and_is_paid_for_what_was_talked(
    house: House,
) -> None:
    ada, a, bob, b = await pair(house)
    await pay_in(ada, 10_000)
    call_id = await ring(a, b, bob)
    await b.ask("CALL_ACCEPT", callId=call_id)
    await house.pass_(20)
    assert (await bob.send("DELETE", "/api/user/account", {"password": PASSWORD})).status == 204
    over = await a.happens("CALL_ENDED")
    assert (over["reason"], over["cost"]["amountMinor"]) == ("policy", 2_000)
    back = await a.happens("WALLET_UPDATED", lambda told: told["wallet"]["availableMinor"] == 8_000)
    assert back["wallet"]["heldMinor"] == 0

    async def settled() -> bool:
        theirs = await house.services.ledger.wallet(bob.id, "NGN")
        return theirs is not None and theirs.pending == 1_600

    await eventually(settled)
    await books(house)


async def told_the_end_in_time(phone: Phone, ends_at: float) -> dict[str, Any]:
    over: dict[str, Any] = await phone.happens("CALL_ENDED")
    late = asyncio.get_running_loop().time() - ends_at
    assert -0.2 < late < LATE_SECONDS, f"{late:.3f} s"
    return over


async def test_the_call_ends_when_its_money_does_by_the_clock_on_the_wall(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with open_house(mongo_uri, exchange, clock=SystemClock(), **HOUSE) as house:
        ada, a, bob, b = await pair(house)
        await pay_in(ada, 200)
        call_id = await ring(a, b, bob)
        call = await b.ask("CALL_ACCEPT", callId=call_id)
        ends_at = asyncio.get_running_loop().time() + call["endsInMs"] / 1000
        for phone in (a, b):
            over = await told_the_end_in_time(phone, ends_at)
            assert (over["reason"], over["endedBy"], over["cost"]["amountMinor"]) == (
                "insufficient_funds",
                None,
                200,
            )
        await books(house)


async def test_the_end_of_the_money_comes_on_time_while_the_database_is_away_and_is_written_down_afterwards(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with (
        DatabaseLine(mongo_uri) as line,
        open_house(line.uri, exchange, clock=SystemClock(), **HOUSE) as house,
    ):
        ada, a, bob, b = await pair(house)
        await pay_in(ada, 200)
        call_id = await ring(a, b, bob)
        call = await b.ask("CALL_ACCEPT", callId=call_id)
        ends_at = asyncio.get_running_loop().time() + call["endsInMs"] / 1000
        line.cut()
        for phone in (a, b):
            over = await told_the_end_in_time(phone, ends_at)
            assert (over["reason"], over["cost"]["amountMinor"]) == ("insufficient_funds", 200)
            assert "logSeq" not in over, "it could not be kept"
        line.mend()

        async def kept() -> Any:
            said = await ada.get(f"/api/calls/{call_id}")
            return said.status == 200 and said.body["call"]["state"] == "ended" and said.body["call"]

        over = await eventually(kept, within=30)
        assert (over["endReason"], over["costMinor"]) == ("insufficient_funds", 200)
        began, ended = (datetime.fromisoformat(over[name]) for name in ("activeAt", "endedAt"))
        assert (ended - began).total_seconds() == 2, "at exactly the end of what was paid for"
        for phone in (a, b):
            await phone.happens("CALL_ENDED", lambda told: "logSeq" in told)

        async def paid() -> bool:
            wallet = (await bob.get("/api/wallet")).body
            return bool(wallet.get("wallet", {}).get("pendingEarningsMinor") == 160)

        await eventually(paid, within=20)
        await books(house)
