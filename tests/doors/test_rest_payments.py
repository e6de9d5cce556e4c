"""Payments by REST: begun, paid on the sandbox's page or at a gateway that can be told anything, told to the phones."""

from __future__ import annotations

import asyncio
import io
import itertools
from argparse import ArgumentParser
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from models.audit.service import audit
from models.payments.gateway import GatewayAway, GatewayNo
from server import cli_payments
from server.app import WIRED
from server.config import load_config
from tests.doors.conftest import House, Person, open_house
from tests.fakes import VirtualClock
from tests.services.payments_house import SIGNED, Till
from tests.standins import payer

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIN = "4071"
PAYMENT = {
    *("id", "reference", "gateway", "amountMinor", "paidMinor", "reversedMinor", "currency", "into"),
    *("status", "checkoutUrl", "version", "createdAt"),
}
KEYS = (f"key-{number}" for number in itertools.count(1))


def key(text: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": text or next(KEYS)}


@pytest.fixture
def till(house: House) -> Till:
    """A gateway of this house that can be told anything."""
    gateways = house.app[WIRED].money.gateways
    made = Till()
    gateways[made.name] = made  # type: ignore[index]
    return made


async def holder(house: House, name: str = "ann", currency: str = "NGN") -> Person:
    """Somebody with an empty wallet."""
    person = await house.person(name)
    assert (await person.post("/api/wallet/create", {"pin": PIN, "currency": currency})).status == 201
    return person


async def begin(person: Person, path: str = "/api/wallet/deposit", **body: Any) -> dict[str, Any]:
    done = await person.post(path, {"amountMinor": 5000, **body}, headers=key())
    assert done.status == 201, done.body
    return dict(done.body["payment"])


async def balance(person: Person) -> tuple[int, int]:
    wallet = (await person.get("/api/wallet")).body["wallet"]
    return wallet["availableMinor"], wallet["callCredits"]["availableMinor"]


@pytest.mark.parametrize("path", ["/api/wallet/deposit", "/api/wallet/add-funds", "/wallet/add-funds"])
async def test_a_deposit_is_paid_on_a_page_and_credited(house: House, path: str) -> None:
    ann = await holder(house)
    made = await ann.post(path, {"amount": "12.34"}, headers=key())
    assert (made.status, set(made.body), set(made.body["payment"])) == (201, {"payment"}, PAYMENT)
    payment = made.body["payment"]
    assert (payment["amountMinor"], payment["paidMinor"], payment["status"], payment["gateway"]) == (
        *(1234, 0, "pending", "sandbox"),
    )
    assert payment["checkoutUrl"].startswith("http")
    assert await balance(ann) == (0, 0)
    await payer.press(house.http, payment["checkoutUrl"])
    verified = await ann.post("/api/wallet/verify-deposit", {"reference": payment["reference"]})
    assert set(verified.body) == {"payment", "wallet"}
    after = verified.body["payment"]
    assert (after["status"], after["paidMinor"], after["checkoutUrl"]) == ("completed", 1234, None)
    assert verified.body["wallet"]["availableMinor"] == 1234
    bob = await holder(house, "bob")
    for start in ("/api/payments", "/payments"):
        assert (await ann.get(f"{start}/{payment['id']}")).body == {"payment": after}
        assert (await ann.post(f"{start}/verify/{payment['reference']}")).body == {"payment": after}
        assert (await ann.get(f"{start}?limit=1")).body == {"items": [after], "nextCursor": None}
        (await bob.get(f"{start}/{payment['id']}")).error(404, "PAYMENT_UNKNOWN")
        (await bob.post(f"{start}/verify/{payment['reference']}")).error(404, "PAYMENT_UNKNOWN")
    refused = await bob.post("/api/wallet/verify-deposit", {"reference": payment["reference"]})
    refused.error(404, "PAYMENT_UNKNOWN")


@pytest.mark.parametrize(("button", "paid"), [("underpaid", 2500), ("overpaid", 6000), ("paid", 5000)])
async def test_the_phones_see_the_money_come_without_asking(house: House, button: str, paid: int) -> None:
    ann = await holder(house)
    phone, other = await ann.phone("a1"), await ann.phone("a2")
    payment = await begin(ann)
    await payer.press(house.http, payment["checkoutUrl"], button)
    for one in (phone, other):
        told = await one.happens("PAYMENT_UPDATED", lambda x: x["payment"]["status"] == "completed")
        assert (told["payment"]["reference"], told["payment"]["paidMinor"]) == (payment["reference"], paid)
        wallet = await one.happens("WALLET_UPDATED", lambda x: x["wallet"]["availableMinor"] > 0)
        assert wallet["wallet"]["availableMinor"] == paid


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "amountMinor"),
        ({"amountMinor": 5, "amount": "5"}, "amountMinor"),
        ({"amountMinor": 0}, "amountMinor"),
        ({"amountMinor": -5}, "amountMinor"),
        ({"amountMinor": 5.5}, "amountMinor"),
        ({"amountMinor": "5"}, "amountMinor"),
        ({"amountMinor": True}, "amountMinor"),
        ({"amountMinor": 10_000_000_001}, "amountMinor"),
        ({"amountMinor": 99, "gateway": "till"}, "amountMinor"),
        ({"amount": "0"}, "amount"),
        ({"amount": "1.005"}, "amount"),
        ({"amount": 1.005}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": 1e300}, "amount"),
        ({"amount": {"$gt": 0}}, "amount"),
        ({"amountMinor": 5, "into": "pocket"}, "into"),
        ({"amountMinor": 5, "gateway": "x" * 33}, "gateway"),
    ],
)
async def test_what_is_no_amount_is_refused_by_field(house: House, till: Till, body: Any, field: str) -> None:
    ann = await holder(house)
    refused = (await ann.post("/api/wallet/deposit", body, headers=key())).error(400, "VALIDATION_FAILED")
    assert list(refused["details"]) == [field]
    assert (await ann.get("/api/payments")).body["items"] == []


async def test_not_a_number_is_no_json(house: House) -> None:
    ann = await holder(house)
    for text in ("NaN", "Infinity"):
        sent = await ann.post("/api/wallet/deposit", data=f'{{"amount": {text}}}', headers=key())
        sent.error(400, "BAD_JSON")


async def test_every_currency_has_its_decimals(house: House) -> None:
    ann = await holder(house, currency="JPY")
    await ann.post("/api/wallet/create", {"pin": PIN, "currency": "KWD"})
    for currency, good, minor, bad in (("JPY", "100", 100, "100.5"), ("KWD", 1.234, 1234, "1.2345")):
        paid = await ann.post("/api/wallet/deposit", {"amount": good, "currency": currency}, headers=key())
        assert (paid.status, paid.body["payment"]["amountMinor"]) == (201, minor)
        no = await ann.post("/api/wallet/deposit", {"amount": bad, "currency": currency}, headers=key())
        assert list(no.error(400, "VALIDATION_FAILED")["details"]) == ["amount"]
    no = await ann.post("/api/wallet/deposit", {"amount": 1, "currency": "USD"}, headers=key())
    no.error(409, "CURRENCY_MISMATCH")


async def test_the_same_key_is_the_same_deposit(house: House, till: Till) -> None:
    ann = await holder(house)
    body = {"amountMinor": 700, "gateway": "till"}
    first = await ann.post("/api/wallet/deposit", body, headers=key("mine"))
    again = await ann.post("/api/wallet/deposit", body, headers=key("mine"))
    by_body = await ann.post("/api/wallet/deposit", {**body, "opId": "mine"})
    assert first.body == again.body == by_body.body
    other = await ann.post("/api/wallet/deposit", {**body, "amountMinor": 701}, headers=key("mine"))
    other.error(422, "IDEMPOTENCY_MISMATCH")
    assert len(till.opened) == 1


async def test_a_gateway_that_is_away_or_says_no_is_said_clearly(house: House, till: Till) -> None:
    ann = await holder(house)
    body = {"amountMinor": 700, "gateway": "till"}
    till.fail("checkout", GatewayAway("timeout: secret-word"), after=True)
    away = await ann.post("/api/wallet/deposit", body, headers=key("k"))
    error = away.error(503, "GATEWAY_AWAY")
    assert "secret-word" not in str(away.body)
    assert error["retryAfterMs"] > 0
    again = await ann.post("/api/wallet/deposit", body, headers=key("k"))
    assert (again.status, again.body["payment"]["status"]) == (201, "pending")
    assert again.body["payment"]["checkoutUrl"]
    till.fail("checkout", GatewayNo("bad", "secret-word"))
    no = await ann.post("/api/wallet/deposit", body, headers=key())
    no.error(422, "GATEWAY_REFUSED")
    assert "secret-word" not in str(no.body)


async def test_in_production_there_is_no_sandbox(mongo_uri: str) -> None:
    async with open_house(mongo_uri, ENV="production") as house:
        ann = await holder(house)
        for gateway in ({}, {"gateway": "sandbox"}):
            no = await ann.post("/api/wallet/deposit", {"amountMinor": 5, **gateway}, headers=key())
            no.error(403, "GATEWAY_UNAVAILABLE")
        no = await house.send("POST", "/api/payments/webhooks/sandbox", data=b"{}")
        no.error(404, "ROUTE_UNKNOWN")
        assert await balance(ann) == (0, 0)


async def test_a_gateway_that_is_not_here_is_refused(house: House) -> None:
    ann = await holder(house)
    no = await ann.post("/api/wallet/deposit", {"amountMinor": 5, "gateway": "monnify"}, headers=key())
    no.error(403, "GATEWAY_UNAVAILABLE")
    no = await (await house.person()).post("/api/wallet/deposit", {"amountMinor": 5}, headers=key())
    no.error(404, "WALLET_UNKNOWN")


@pytest.mark.parametrize("path", ["/api/payments", "/payments"])
async def test_call_credits_are_bought_from_the_wallet_or_by_a_gateway(house: House, path: str) -> None:
    ann = await holder(house)
    await ann.pay_in(5000)
    bought = await ann.post(path, {"amount": "20", "method": "wallet"}, headers=key("w"))
    assert (bought.status, bought.body["payment"]["status"]) == (201, "completed")
    assert (bought.body["payment"]["gateway"], bought.body["payment"]["into"]) == ("wallet", "call_credits")
    assert await balance(ann) == (3000, 2000)
    again = await ann.post(path, {"amount": "20", "method": "wallet"}, headers=key("w"))
    assert again.body == bought.body
    (await ann.post(path, {"amount": "20", "method": "wallet"})).error(400, "IDEMPOTENCY_KEY_REQUIRED")
    no = await ann.post(path, {"amount": "31", "method": "wallet"}, headers=key())
    needed = {"requiredMinor": 3100, "availableMinor": 3000, "currency": "NGN"}
    assert no.error(402, "INSUFFICIENT_FUNDS")["details"] == needed
    payment = await begin(ann, path, gateway="sandbox")
    await payer.press(house.http, payment["checkoutUrl"])
    await ann.post("/api/wallet/verify-deposit", {"reference": payment["reference"]})
    assert await balance(ann) == (3000, 7000)
    kinds = [line["kind"] for line in (await ann.get("/api/wallet/transactions")).body["items"]]
    assert kinds == ["deposit", "call_credits", "call_credits", "deposit"]


# ---------------------------------------------------------------------------------------------------------- webhooks


async def test_a_webhook_is_taken_by_its_bytes_and_credits_once(house: House, till: Till) -> None:
    ann = await holder(house)
    payment = await begin(ann, gateway="till")
    till.pays(payment["reference"])
    raw = b" " + till.tells(payment["reference"], amount=10**12)
    path = "/api/payments/webhooks/till"
    for _ in range(12):
        taken = await house.send("POST", path, data=raw, headers=SIGNED)
        assert (taken.status, taken.body) == (200, {"received": True})
    await house.services.inbox.run()
    assert await balance(ann) == (5000, 0)
    assert till.asked["query"] == 1
    row = await house.db["inbox"].find_one({"reference": payment["reference"]})
    assert row is not None
    assert (bytes(row["raw"]), row["deliveries"]) == (raw, 12)


async def test_a_webhook_without_its_signature_is_refused(house: House, till: Till) -> None:
    payment = await begin(await holder(house), gateway="till")
    raw = till.tells(payment["reference"])
    path = "/api/payments/webhooks/till"
    for headers in ({}, {"till-signature": "bad"}, {"authorization": "good"}):
        (await house.send("POST", path, data=raw, headers=headers)).error(401, "WEBHOOK_INVALID")
    for body in (b"", b"\xff\xfe", b"[]", b"{" * 1000):
        (await house.send("POST", path, data=body, headers=SIGNED)).error(401, "WEBHOOK_INVALID")
    (await house.send("POST", "/api/payments/webhooks/none", data=raw)).error(404, "ROUTE_UNKNOWN")
    found = await house.send("POST", "/api/payments/webhooks/" + "x" * 50, data=raw)
    found.error(400, "VALIDATION_FAILED")
    assert await house.db["inbox"].count_documents({"reference": payment["reference"]}) == 0


async def test_a_reversal_freezes_and_is_told(house: House, till: Till) -> None:
    ann = await holder(house)
    phone = await ann.phone("a")
    payment = await begin(ann, gateway="till")
    till.pays(payment["reference"])
    await ann.post("/api/wallet/verify-deposit", {"reference": payment["reference"]})
    till.now(payment["reference"], reversed_minor=5000)
    raw = till.tells(payment["reference"])
    await house.send("POST", "/api/payments/webhooks/till", data=raw, headers=SIGNED)
    await house.services.inbox.run()
    told = await phone.happens("PAYMENT_UPDATED", lambda x: x["payment"]["status"] == "reversed")
    assert told["payment"]["reversedMinor"] == 5000
    frozen = await phone.happens("WALLET_UPDATED", lambda x: x["wallet"]["availableMinor"] == 0)
    assert frozen["wallet"]["frozen"] is True
    no = await ann.post("/api/payments", {"amountMinor": 5, "method": "wallet"}, headers=key())
    no.error(403, "WALLET_FROZEN")


async def test_who_was_away_is_told_of_the_payment_when_they_come_back(house: House, till: Till) -> None:
    ann = await holder(house)
    phone = await ann.phone("a")
    await phone.close()
    payment = await begin(ann, gateway="till")
    till.pays(payment["reference"])
    await house.services.payments.looking.look(
        await house.services.payments.store.by_reference(payment["reference"])
    )
    back = await ann.dial("a", since=0)
    told = await back.happens("PAYMENT_UPDATED")
    assert told["payment"]["status"] == "completed"


# ------------------------------------------------------------------------------------------------------- command line


async def test_the_command_line_lists_shows_and_refunds(mongo_uri: str) -> None:
    async with open_house(mongo_uri) as house:
        ann = await holder(house)
        payment = await begin(ann)
        async with aiohttp.ClientSession() as http:
            await payer.press(http, payment["checkoutUrl"])
        reference = payment["reference"]
        await ann.post("/api/wallet/verify-deposit", {"reference": reference})
        env = {"MONGO_URI": mongo_uri, "MONGO_DATABASE": house.db.db.name}
        config = load_config({**env, "JWT_SECRET": "a secret of the tests, long enough for HS256"})

        async def command(*words: str) -> tuple[int, str]:
            parser = ArgumentParser()
            cli_payments.add_parser(parser.add_subparsers(dest="command"))
            out = io.StringIO()
            args = parser.parse_args(["payments", *words])
            status = await cli_payments.run(args, config, Console(file=out, width=400))
            return status, out.getvalue()

        status, table = await command("list", "--status", "completed")
        assert (status, reference in table, ann.username in table) == (0, True, True)
        assert reference not in (await command("list", "--status", "failed"))[1]
        status, shown = await command("show", reference)
        assert status == 0
        for part in ("NGN 50.00", "card: Play …4242", f"checkout {reference}", "next look"):
            assert part in shown
        assert (await command("look", reference))[0] == 0
        assert (await command("show", "nothing"))[0] == 1
        assert await command("review") == (0, "Nothing needs a person.\n")

        status, said = await command("refund", reference, "--amount", "20.00", "--reason", "twice")
        assert (status, "of NGN 20.00: done" in said) == (0, True)
        assert await balance(ann) == (3000, 0)
        assert (await command("refund", reference, "--amount", "1.005"))[0] == 1
        assert (await command("refund", reference, "--amount", "30.01"))[0] == 1
        assert (await command("refund", reference))[0] == 0
        assert await balance(ann) == (0, 0)
        after = (await ann.get(f"/api/payments/{payment['id']}")).body["payment"]
        assert (after["status"], after["reversedMinor"]) == ("reversed", 5000)
        assert "refund ref-" in (await command("show", reference))[1]

        await house.db["payments"].update_one({"reference": reference}, {"$set": {"review": "odd"}})
        assert (await command("review")) == (0, f"payment {reference}: odd\n")
        assert (await command("review", reference))[0] == 0
        assert (await command("review"))[1] == "Nothing needs a person.\n"
        assert (await command("review", "ref-x", "--refund", "done"))[0] == 1
        assert isinstance(house.clock, VirtualClock)
        report = await audit(house.db, house.clock.now())
        assert report.clean, str(report)
        await asyncio.gather(house.services.payments.run_looks(), house.services.refunds.run())
