"""Conversions by REST, and the refusals that lead to them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.doors.conftest import House, Person
from tests.services.wallet_house import PIN, WRONG

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = {
    "FX_RATES": "USD/NGN=1600,USD/JPY=150",
    "FX_SPREAD_BPS": "100",
    "CALL_RATE_MINOR": "1000",
}
QUOTE, CONVERT = "/api/wallet/fx/quote", "/api/wallet/fx/convert"
QUOTE_FIELDS = {
    *("id", "from", "to", "amountMinor", "receivesMinor", "spreadMinor", "rate", "rateAt", "createdAt"),
    "expiresInMs",
}
CONVERSION = (QUOTE_FIELDS - {"rateAt", "expiresInMs"}) | {"quoteId"}
KEYS = (f"fx-{number}" for number in itertools.count(1))


async def rich(rest: House, minor: int = 1_000_000, currency: str = "NGN") -> Person:
    """Somebody with a PIN and money."""
    person = await rest.person("fx")
    made = await person.post("/api/wallet/create", {"pin": PIN, "currency": currency})
    assert made.status == 201, made.body
    if minor:
        await fund(rest, person, minor, currency)
    return person


async def fund(rest: House, person: Person, minor: int, currency: str) -> None:
    """Money from nowhere in particular."""
    from models.ledger.journal import Entry, Kind, Leg, Pocket, account_of, clearing, wallet_key

    key = wallet_key(person.id, currency)
    entry = Entry(
        id=f"pay:test:{next(KEYS)}",
        kind=Kind.DEPOSIT,
        at=rest.clock.now(),
        legs=(
            Leg(clearing("test"), -minor, currency),
            Leg(account_of(key, Pocket.PRIMARY), minor, currency),
        ),
    )
    await rest.services.ledger.post([key], lambda _: [entry])


async def quoted(person: Person, **changes: Any) -> dict[str, Any]:
    answer = await person.post(QUOTE, {"from": "NGN", "to": "USD", "amountMinor": 160_000, **changes})
    assert answer.status == 201, answer.body
    return dict(answer.body["quote"])


async def test_a_quote_is_made_and_used(rest: House) -> None:
    ann = await rich(rest)
    quote = await quoted(ann)
    assert set(quote) == QUOTE_FIELDS
    assert (quote["from"], quote["to"], quote["rate"], quote["expiresInMs"]) == (
        *("NGN", "USD", "0.000625", 60_000),
    )
    assert (quote["amountMinor"], quote["receivesMinor"], quote["spreadMinor"]) == (160_000, 99, 1)
    key = {"Idempotency-Key": next(KEYS)}
    done = await ann.post(CONVERT, {"quoteId": quote["id"], "pin": PIN}, headers=key)
    assert (done.status, set(done.body)) == (201, {"conversion", "wallet", "targetWallet"})
    assert set(done.body["conversion"]) == CONVERSION
    assert done.body["wallet"]["availableMinor"] == 840_000
    assert done.body["targetWallet"] == (await ann.get("/api/wallet?currency=USD")).body["wallet"]
    assert done.body["targetWallet"]["availableMinor"] == 99
    for currency in ("NGN", "USD"):
        line = (await ann.get(f"/api/wallet/transactions?currency={currency}")).body["items"][0]
        assert (line["id"], line["kind"]) == (done.body["conversion"]["id"], "exchange")
    again = await ann.post(CONVERT, {"quoteId": quote["id"], "pin": PIN}, headers=key)
    assert (again.status, again.body) == (201, done.body)
    (await ann.post(CONVERT, {"quoteId": quote["id"], "pin": PIN})).error(409, "QUOTE_USED")


async def test_the_same_request_after_the_first_answer_was_lost_is_answered_alike(rest: House) -> None:
    """As when the process died between the posting and keeping its answer."""
    ann = await rich(rest)
    quote, key = await quoted(ann), {"Idempotency-Key": next(KEYS)}
    done = await ann.post(CONVERT, {"quoteId": quote["id"], "pin": PIN}, headers=key)
    await rest.db["once"].delete_many({})
    again = await ann.post(CONVERT, {"quoteId": quote["id"], "pin": PIN}, headers=key)
    assert (again.status, again.body) == (201, done.body)


async def test_amounts_in_major_units_are_understood(rest: House) -> None:
    ann = await rich(rest)
    assert (await quoted(ann, amountMinor=None, amount="1600"))["receivesMinor"] == 99


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "from"),
        ({"from": "NGN"}, "to"),
        ({"from": "NGN", "to": "NGN", "amountMinor": 5}, "to"),
        ({"from": "NGN", "to": "USD"}, "amountMinor"),
        ({"from": "NGN", "to": "USD", "amountMinor": 1, "amount": "5"}, "amountMinor"),
        ({"from": "NGN", "to": "USD", "amountMinor": 1}, "amountMinor"),
        ({"from": "NGN", "to": "JPY", "amount": "1.555"}, "amount"),
        ({"from": "NAIRA", "to": "JPY", "amountMinor": 5}, "from"),
        ({"from": "NGN", "to": 4, "amountMinor": 5}, "to"),
    ],
)
async def test_what_cannot_be_quoted_is_refused_by_field(rest: House, body: Any, field: str) -> None:
    ann = await rest.person("ann")
    details = (await ann.post(QUOTE, body)).error(400, "VALIDATION_FAILED")["details"]
    assert field in details


async def test_refusals_of_conversions(rest: House) -> None:
    ann, bob = await rich(rest), await rich(rest)
    quote = await quoted(ann)
    use = {"quoteId": quote["id"], "pin": PIN}
    (await bob.post(CONVERT, use)).error(404, "QUOTE_UNKNOWN")
    (await ann.post(CONVERT, {**use, "quoteId": "none"})).error(404, "QUOTE_UNKNOWN")
    (await ann.post(CONVERT, {**use, "pin": WRONG})).error(403, "PIN_WRONG")
    (await ann.post(CONVERT, {"quoteId": quote["id"]})).error(400, "VALIDATION_FAILED")
    (await ann.post(QUOTE, {"from": "NGN", "to": "EUR", "amountMinor": 5})).error(409, "FX_UNAVAILABLE")
    dear = await quoted(ann, amountMinor=1_000_001)
    (await ann.post(CONVERT, {"quoteId": dear["id"], "pin": PIN})).error(402, "INSUFFICIENT_FUNDS")
    await rest.pass_(61)
    (await ann.post(CONVERT, use)).error(409, "QUOTE_EXPIRED")
    for path in (QUOTE, CONVERT):
        (await rest.send("POST", path, {})).error(401, "TOKEN_MISSING")


# --------------------------------------------------------------------------- where another currency is what is missing


async def payee_in_dollars(rest: House) -> Person:
    person = await rest.person("dollars")
    changed = await person.send("PUT", "/api/user/profile", {"ratePerMinuteMinor": 100, "currency": "USD"})
    assert (changed.status, changed.body["user"]["currency"]) == (200, "USD")
    return person


async def test_e108_a_call_in_a_currency_that_one_has_no_wallet_in_names_the_way_to_a_quote(
    rest: House,
) -> None:
    ann, bob = await rich(rest), await payee_in_dollars(rest)
    no = await ann.post("/api/calls/initiate", {"to": bob.id, "type": "audio"})
    assert no.error(409, "CURRENCY_MISMATCH")["details"] == {"currency": "USD", "quoteRoute": QUOTE}
    # Then it goes as it says.
    quote = await quoted(ann, amountMinor=800_000)
    done = await ann.post(no.body["error"]["details"]["quoteRoute"].replace("quote", "convert"), {
        "quoteId": quote["id"], "pin": PIN,
    })  # fmt: skip
    assert done.status == 201, done.body
    call = await ann.post("/api/calls/initiate", {"to": bob.id, "type": "audio"})
    assert (call.status, call.body["call"]["price"]["currency"]) == (201, "USD")


async def test_whoever_has_no_wallet_at_all_is_only_short_of_money(rest: House) -> None:
    ann, bob = await rest.person("ann"), await payee_in_dollars(rest)
    no = await ann.post("/api/calls/initiate", {"to": bob.id, "type": "audio"})
    assert no.error(402, "INSUFFICIENT_FUNDS")["details"]["currency"] == "USD"


async def test_a_paid_room_in_another_currency_names_it_too(rest: House) -> None:
    ann, bob = await rich(rest), await payee_in_dollars(rest)
    made = await bob.post("/api/room/create", {"name": "dollars", "type": "audio", "ratePerMinuteMinor": 100})
    assert made.status == 201, made.body
    no = await ann.post(f"/api/room/join/{made.body['room']['id']}")
    assert no.error(409, "CURRENCY_MISMATCH")["details"]["quoteRoute"] == QUOTE


async def test_a_transfer_in_a_currency_that_one_does_not_have_names_it_too(rest: House) -> None:
    ann, bob = await rich(rest), await rich(rest)
    body = {"to": bob.id, "amountMinor": 5, "currency": "USD", "pin": PIN}
    no = await ann.post("/api/wallet/transfer", body, headers={"Idempotency-Key": next(KEYS)})
    assert no.error(409, "CURRENCY_MISMATCH")["details"] == {"currency": "NGN", "quoteRoute": QUOTE}
