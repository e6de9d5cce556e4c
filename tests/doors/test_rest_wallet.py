"""Wallets and payments by REST (CONTRACT §3.2): every route, its other names, its shapes and its refusals."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
from argparse import ArgumentParser
from typing import Any

import pytest
import structlog
from rich.console import Console

from server import cli_wallets
from server.config import load_config
from server.logs import configure_logs
from tests.doors.conftest import PASSWORD, House, Person, open_house
from tests.fakes import VirtualClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIN, OTHER_PIN, WRONG = "4071", "8253", "9146"
WALLET = {
    *(
        "id",
        "currency",
        "exponent",
        "availableMinor",
        "heldMinor",
        "callCredits",
        "pendingEarningsMinor",
        "owedMinor",
    ),
    *("frozen", "version", "createdAt"),
}
ACCOUNT = {
    *("id", "kind", "walletId", "currency", "availableMinor", "heldMinor", "frozen", "createdAt"),
}
LINE = {
    *("id", "kind", "account", "amountMinor", "currency", "balanceAfterMinor", "note", "createdAt"),
}
KEYS = (f"key-{number}" for number in itertools.count(1))


def key(text: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": text or next(KEYS)}


async def rich(rest: House, minor: int = 10_000, currency: str = "NGN", name: str = "rich") -> Person:
    """Somebody with a wallet and money in it."""
    person = await rest.person(name)
    made = await person.post("/api/wallet/create", {"pin": PIN, "currency": currency})
    assert made.status == 201, made.body
    if minor:
        await person.pay_in(minor, currency=currency)
    return person


async def balance(person: Person) -> int:
    return int((await person.get("/api/wallet")).body["wallet"]["availableMinor"])


# ------------------------------------------------------------------------------------------------------------ wallets


@pytest.mark.parametrize("field", ["pin", "transactionPin"])
async def test_a_wallet_is_made_with_a_pin_and_shown(rest: House, field: str) -> None:
    ann = await rest.person("ann")
    (await ann.get("/api/wallet")).error(404, "WALLET_UNKNOWN")
    assert (await ann.get("/api/wallets")).body == {"items": [], "nextCursor": None}
    made = await ann.post("/api/wallet/create", {field: PIN})
    assert (made.status, set(made.body), set(made.body["wallet"])) == (201, {"wallet"}, WALLET)
    wallet = made.body["wallet"]
    assert set(wallet["callCredits"]) == {"id", "availableMinor", "heldMinor"}
    assert (wallet["currency"], wallet["availableMinor"], wallet["heldMinor"], wallet["frozen"]) == (
        *("NGN", 0, 0, False),
    )
    (await ann.post("/api/wallet/create", {field: PIN})).error(409, "WALLET_EXISTS")
    for path in ("/api/wallet", "/wallet", "/api/wallet?currency=NGN"):
        assert (await ann.get(path)).body == {"wallet": wallet}
    (await ann.get("/api/wallet?currency=JPY")).error(409, "CURRENCY_MISMATCH")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "pin"),
        ({"pin": 4071}, "pin"),
        ({"pin": "12"}, "pin"),
        ({"pin": "1234"}, "pin"),
        ({"pin": "x" * 33}, "pin"),
        ({"pin": PIN, "currency": "naira"}, "currency"),
        ({"pin": PIN, "currency": 566}, "currency"),
    ],
)
async def test_what_no_wallet_can_be_made_of_is_refused_by_field(rest: House, body: Any, field: str) -> None:
    ann = await rest.person("ann")
    details = (await ann.post("/api/wallet/create", body)).error(400, "VALIDATION_FAILED")["details"]
    assert list(details) == [field]


async def test_accounts_are_listed_and_shown_to_their_owner(rest: House) -> None:
    ann, bob = await rich(rest, 500), await rich(rest, 0)
    for path in ("/api/wallets", "/wallets"):
        items = (await ann.get(path)).body["items"]
        assert [item["kind"] for item in items] == ["primary", "call_credits"]
        for item in items:
            assert set(item) == ACCOUNT
            assert (await ann.get(f"{path}/{item['id']}")).body == {"wallet": item}
            (await bob.get(f"{path}/{item['id']}")).error(404, "WALLET_UNKNOWN")
    wallet = (await ann.get("/api/wallet")).body["wallet"]
    assert [item["id"] for item in items] == [wallet["id"], wallet["callCredits"]["id"]]
    assert [item["availableMinor"] for item in items] == [500, 0]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", "/api/wallet"), ("GET", "/api/wallets"), ("GET", "/api/wallet/transactions")),
        *(("POST", "/api/wallet/transfer"), ("POST", "/api/wallet/deposit"), ("GET", "/api/payments")),
    ],
)
async def test_wallets_are_for_those_who_are_signed_in(rest: House, method: str, path: str) -> None:
    (await rest.send(method, path, {} if method == "POST" else None)).error(401, "TOKEN_MISSING")


# ---------------------------------------------------------------------------------------------------------- transfers


@pytest.mark.parametrize("path", ["/api/wallet/transfer", "/wallet/transfer"])
async def test_a_transfer_moves_money_and_stands_in_both_statements(rest: House, path: str) -> None:
    ann, bob = await rich(rest, 10_000), await rest.person("bob")
    sent = await ann.post(path, {"to": bob.id, "amount": 10.5, "pin": PIN, "note": "lunch"}, headers=key())
    assert (sent.status, set(sent.body)) == (201, {"transfer", "wallet"})
    transfer = sent.body["transfer"]
    assert set(transfer) == {"id", "to", "amountMinor", "currency", "note", "createdAt"}
    assert (transfer["to"]["id"], transfer["amountMinor"], transfer["note"]) == (bob.id, 1050, "lunch")
    assert (set(sent.body["wallet"]), sent.body["wallet"]["availableMinor"]) == (WALLET, 8950)
    assert await balance(bob) == 1050, "a wallet was made for who is paid"
    for person, other, amount, after in ((ann, bob, -1050, 8950), (bob, ann, 1050, 1050)):
        for statement in ("/api/wallet/transactions", "/transactions"):
            line = (await person.get(f"{statement}?limit=1")).body["items"][0]
            assert set(line) == LINE | {"counterparty"}
            assert (line["amountMinor"], line["balanceAfterMinor"], line["kind"]) == (
                *(amount, after, "transfer"),
            )
            assert (line["counterparty"]["id"], line["id"]) == (other.id, transfer["id"])
    by_name = {"to": bob.username, "amountMinor": 1, "transactionPin": PIN}
    assert (await ann.post(path, by_name, headers=key())).body["transfer"]["to"]["id"] == bob.id
    assert (await bob.post("/api/wallet/create", {"pin": OTHER_PIN})).status == 201, "now it is his own"


async def test_every_refusal_of_a_transfer(rest: House) -> None:
    ann, bob, eve = await rich(rest, 1000), await rest.person("bob"), await rest.person("eve")

    async def sent(person: Person = ann, headers: Any = None, **changes: Any) -> Any:
        body = {"to": bob.id, "amountMinor": 100, "pin": PIN, **changes}
        return await person.post("/api/wallet/transfer", body, headers=headers or key())

    bare = await ann.post("/api/wallet/transfer", {"to": bob.id, "amountMinor": 100, "pin": PIN})
    bare.error(400, "IDEMPOTENCY_KEY_REQUIRED")
    (await sent(to=ann.id)).error(400, "SELF_NOT_ALLOWED")
    (await sent(to=ann.username)).error(400, "SELF_NOT_ALLOWED")
    (await sent(to="nobody-at-all")).error(404, "USER_UNKNOWN")
    (await sent(amountMinor=1001)).error(402, "INSUFFICIENT_FUNDS")
    (await sent(currency="JPY")).error(409, "CURRENCY_MISMATCH")
    (await sent(bob, to=ann.id)).error(404, "WALLET_UNKNOWN")
    wrong = (await sent(pin=WRONG)).error(403, "PIN_WRONG")
    assert wrong["details"] == {"triesLeft": 4}
    await ann.send("PUT", f"/api/users/{eve.id}/block")
    (await sent(to=eve.id)).error(403, "USER_BLOCKED")
    await bob.send("PUT", f"/api/users/{ann.id}/block")
    (await sent()).error(403, "USER_UNAVAILABLE")
    await bob.send("DELETE", f"/api/users/{ann.id}/block")
    await rest.services.wallets.freeze(ann.id, frozen=True)
    (await sent()).error(403, "WALLET_FROZEN")
    assert (await ann.get("/api/wallet")).body["wallet"]["frozen"] is True
    await rest.services.wallets.freeze(ann.id, frozen=False)
    assert await balance(ann) == 1000
    assert (await sent()).status == 201
    (await sent(bob, to=ann.id)).error(409, "PIN_UNSET")


async def test_a_retry_moves_nothing_again_and_a_pin_may_be_typed_again(rest: House) -> None:
    ann, bob = await rich(rest, 1000), await rest.person("bob")
    body = {"to": bob.id, "amountMinor": 100, "pin": PIN}
    mine = key("mine")
    for left in (4, 3):
        no = await ann.post("/api/wallet/transfer", {**body, "pin": WRONG}, headers=mine)
        assert no.error(403, "PIN_WRONG")["details"] == {"triesLeft": left}
    first = await ann.post("/api/wallet/transfer", body, headers=mine)
    assert first.status == 201
    again = await asyncio.gather(*(ann.post("/api/wallet/transfer", body, headers=mine) for _ in range(5)))
    assert {reply.status for reply in again} == {201}
    assert all(reply.body == first.body for reply in again)
    other = await ann.post("/api/wallet/transfer", {**body, "amountMinor": 101}, headers=mine)
    other.error(422, "IDEMPOTENCY_MISMATCH")
    # Once the first answers are thrown away, the journal knows.
    await rest.db["once"].delete_many({})
    late = await ann.post("/api/wallet/transfer", body, headers=mine)
    assert late.body["transfer"] == first.body["transfer"]
    other = await ann.post("/api/wallet/transfer", {**body, "note": "more"}, headers=mine)
    other.error(422, "IDEMPOTENCY_MISMATCH")
    assert (await balance(ann), await balance(bob)) == (900, 100)


async def test_a_lock_is_no_answer_to_keep(rest: House) -> None:
    ann, bob = await rich(rest, 1000), await rest.person("bob")
    body = {"to": bob.id, "amountMinor": 100, "pin": WRONG}
    mine = key("mine")
    for _ in range(5):
        (await ann.post("/api/wallet/transfer", body, headers=mine)).error(403, "PIN_WRONG")
    locked = await ann.post("/api/wallet/transfer", {**body, "pin": PIN}, headers=mine)
    assert locked.error(429, "PIN_LOCKED")["details"] == {"resetNeeded": False}
    assert 0 < int(locked.headers["Retry-After"]) <= 15 * 60
    assert isinstance(rest.clock, VirtualClock)
    reset = await ann.post("/api/wallet/reset-pin", {"password": PASSWORD, "newPin": OTHER_PIN})
    assert reset.status == 204
    done = await ann.post("/api/wallet/transfer", {**body, "pin": OTHER_PIN}, headers=mine)
    assert done.status == 201


# --------------------------------------------------------------------------------------------------------------- PINs


async def test_a_pin_is_checked_changed_and_reset(rest: House) -> None:
    ann = await rest.person("ann")
    (await ann.post("/api/wallet/validate-pin", {"pin": PIN})).error(409, "PIN_UNSET")
    refused = await ann.post("/api/wallet/reset-pin", {"password": PASSWORD, "newPin": PIN})
    refused.error(409, "PIN_UNSET")
    assert (await ann.post("/api/wallet/create", {"pin": PIN})).status == 201
    for field in ("pin", "transactionPin"):
        good = await ann.post("/api/wallet/validate-pin", {field: PIN})
        assert (good.status, good.body) == (200, {"valid": True, "triesLeft": 5})
    bad = await ann.post("/api/wallet/validate-pin", {"pin": WRONG})
    assert (bad.status, bad.body) == (200, {"valid": False, "triesLeft": 4})
    change = "/api/wallet/change-pin"
    (await ann.post(change, {"currentPin": WRONG, "newPin": OTHER_PIN})).error(403, "PIN_WRONG")
    (await ann.post(change, {"currentPin": PIN, "newPin": "1111"})).error(400, "VALIDATION_FAILED")
    (await ann.post(change, {"newPin": OTHER_PIN})).error(400, "VALIDATION_FAILED")
    assert (await ann.post(change, {"oldPin": PIN, "newPin": OTHER_PIN})).status == 204
    wrong = {"password": "not the password", "newPin": PIN}
    (await ann.post("/api/wallet/reset-pin", wrong)).error(403, "PASSWORD_WRONG")
    assert (await ann.post("/api/wallet/reset-pin", {"password": PASSWORD, "newPin": PIN})).status == 204
    assert (await ann.post("/api/wallet/validate-pin", {"pin": PIN})).body["valid"] is True


async def test_fifty_guesses_at_once_lock_after_five(rest: House) -> None:
    ann = await rich(rest, 0)
    replies = await asyncio.gather(
        *(ann.post("/api/wallet/validate-pin", {"pin": f"{n:04d}"}) for n in range(3000, 3050))
    )
    assert sorted(reply.body["triesLeft"] for reply in replies if reply.status == 200) == [0, 1, 2, 3, 4]
    for reply in replies:
        if reply.status != 200:
            assert reply.error(429, "PIN_LOCKED")["retryAfterMs"] > 0
    (await ann.post("/api/wallet/validate-pin", {"pin": PIN})).error(429, "PIN_LOCKED")


async def test_guesses_at_the_password_for_a_reset_are_limited(mongo_uri: str) -> None:
    async with open_house(mongo_uri, AUTH_PER_MINUTE="10") as house:
        ann = await house.person("ann")
        await ann.post("/api/wallet/create", {"pin": PIN})
        body = {"password": "not the password", "newPin": OTHER_PIN}
        for _ in range(10):
            (await ann.post("/api/wallet/reset-pin", body)).error(403, "PASSWORD_WRONG")
        (await ann.post("/api/wallet/reset-pin", {**body, "password": PASSWORD})).error(429, "RATE_LIMITED")


async def test_a_lock_survives_a_restart(mongo_uri: str) -> None:
    async with open_house(mongo_uri) as first:
        ann = await first.person("ann")
        await ann.post("/api/wallet/create", {"pin": PIN})
        for _ in range(5):
            assert (await ann.post("/api/wallet/validate-pin", {"pin": WRONG})).body["valid"] is False
        async with open_house(mongo_uri, clock=first.clock, database=first.db.db.name) as second:
            again = Person(second, ann.username, ann.signed_in)
            (await again.post("/api/wallet/validate-pin", {"pin": PIN})).error(429, "PIN_LOCKED")
            assert isinstance(first.clock, VirtualClock)
            first.clock.pass_(15 * 60)
            again = await again.login()
            assert (await again.post("/api/wallet/validate-pin", {"pin": PIN})).body["valid"] is True


# ---------------------------------------------------------------------------------------------------------- statements


async def test_a_statement_is_read_by_cursor_and_adds_up(rest: House) -> None:
    ann, bob = await rich(rest, 10_000), await rest.person("bob")
    for n in range(4):
        body = {"to": bob.id, "amountMinor": 10 + n, "pin": PIN}
        assert (await ann.post("/api/wallet/transfer", body, headers=key())).status == 201
    await ann.pay_in(77, into="call_credits")
    found: list[Any] = []
    cursor = ""
    while cursor is not None:
        page = (await ann.get(f"/api/wallet/transactions?limit=2&cursor={cursor}")).body
        found += page["items"]
        cursor = page["nextCursor"]
    whole = (await ann.get("/api/wallet/transactions")).body
    assert whole == {"items": found, "nextCursor": None}
    assert len(found) == 6
    assert found[0]["account"] == "call_credits"
    assert set(found[0]) == LINE | {"paymentId"}
    assert sum(line["amountMinor"] for line in found if line["account"] == "primary") == await balance(ann)
    accounts = (await ann.get("/api/wallets")).body["items"]
    for account in accounts:
        for name in (account["kind"], account["id"]):
            lines = (await ann.get(f"/api/wallet/transactions?account={name}")).body["items"]
            assert lines == [line for line in found if line["account"] == account["kind"]]
            assert sum(line["amountMinor"] for line in lines) == account["availableMinor"]


async def test_a_statement_that_cannot_be_read(rest: House) -> None:
    ann, bob = await rich(rest, 5), await rich(rest, 5)
    for query in ("limit=0", "limit=201", "limit=x", "cursor=xyz", "cursor=WyJhIl0", "account=" + "x" * 65):
        no = await ann.get(f"/api/wallet/transactions?{query}")
        assert list(no.error(400, "VALIDATION_FAILED")["details"]) == [query.split("=")[0]]
    theirs = (await bob.get("/api/wallets")).body["items"][0]["id"]
    (await ann.get(f"/api/wallet/transactions?account={theirs}")).error(404, "WALLET_UNKNOWN")
    (await ann.get("/api/wallet/transactions?currency=JPY")).error(409, "CURRENCY_MISMATCH")
    nobody = await rest.person()
    (await nobody.get("/api/wallet/transactions")).error(404, "WALLET_UNKNOWN")


# ------------------------------------------------------------------------------------------------------- told, secrets


async def test_no_line_of_the_log_no_metric_and_no_document_has_a_pin_in_it(mongo_uri: str) -> None:
    pin, new = "739146", "852963"
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logs("debug", production=True, stream=stream)
    try:
        async with open_house(mongo_uri) as house:
            ann, bob = await house.person("ann"), await house.person("bob")
            said = []
            for path, body in (
                ("/api/wallet/create", {"transactionPin": pin}),
                ("/api/wallet/deposit", {"amountMinor": 500, "pin": pin}),
                ("/api/wallet/transfer", {"to": bob.id, "amountMinor": 5, "pin": pin}),
                ("/api/wallet/transfer", {"to": bob.id, "amountMinor": 5000, "pin": pin}),
                ("/api/wallet/transfer", {"to": [], "pin": pin}),
                ("/api/wallet/validate-pin", {"pin": pin}),
                ("/api/wallet/change-pin", {"currentPin": pin, "newPin": new}),
                ("/api/wallet/reset-pin", {"password": PASSWORD, "newPin": pin}),
            ):
                said.append((await ann.post(path, body, headers=key())).body)
            said.append((await house.send("GET", "/metrics")).body)
            for name in await house.db.db.list_collection_names():
                said += [row async for row in house.db.db[name].find({})]
    finally:
        root.handlers = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    text = stream.getvalue() + json.dumps(said, default=str)
    assert "/api/wallet/transfer" in text
    assert pin not in text
    assert new not in text
    assert PASSWORD not in text


# --------------------------------------------------------------------------------------------------------- command line


async def test_the_command_line_lists_shows_and_freezes(mongo_uri: str) -> None:
    async with open_house(mongo_uri) as house:
        ann, bob = await rich(house, 123_450, name="ann"), await house.person("bob")
        body = {"to": bob.id, "amountMinor": 50, "pin": PIN, "note": "[red]thanks[/red]"}
        await ann.post("/api/wallet/transfer", body, headers=key())
        config = load_config({"MONGO_URI": mongo_uri, "MONGO_DATABASE": house.db.db.name})

        async def command(*words: str) -> tuple[int, str]:
            parser = ArgumentParser()
            cli_wallets.add_parser(parser.add_subparsers(dest="command"))
            out = io.StringIO()
            args = parser.parse_args(["wallets", *words])
            status = await cli_wallets.run(args, config, Console(file=out, width=400))
            return status, out.getvalue()

        status, table = await command("list")
        assert status == 0
        assert ann.username in table
        assert bob.username in table
        assert "1,234.00" in table
        status, shown = await command("show", ann.username)
        assert status == 0
        for part in ("PIN: set.", "[red]thanks[/red]", "transfer", "deposit", "0.50", "open"):
            assert part in shown
        frozen = (0, f"The NGN wallet of {ann.username} is frozen.\n")
        assert await command("freeze", f"{ann.username}@example.org") == frozen
        assert await command("freeze", ann.id, "--currency", "NGN") == frozen
        (await ann.post("/api/wallet/transfer", body, headers=key())).error(403, "WALLET_FROZEN")
        assert "frozen" in (await command("list", "--limit", "5"))[1]
        status, said = await command("unfreeze", ann.username)
        assert (status, said) == (0, f"The NGN wallet of {ann.username} is open.\n")
        assert (await ann.post("/api/wallet/transfer", body, headers=key())).status == 201
        for _ in range(5):
            await ann.post("/api/wallet/validate-pin", {"pin": WRONG})
        assert "PIN: locked until" in (await command("show", ann.username))[1]
        assert "PIN: not set." in (await command("show", bob.username))[1]
        nobody = await house.person()
        assert await command("show", "nobody") == (1, "There is no such user.\n")
        for verb in ("show", "freeze", "unfreeze"):
            assert (await command(verb, nobody.username))[0] == 1
        assert (await command("freeze", ann.username, "--currency", "JPY"))[0] == 1
        for wrong in ([], ["freeze"], ["list", "--limit", "0"], ["burn", "ann"]):
            with pytest.raises(SystemExit) as end:
                await command(*wrong)
            assert end.value.code == 2


async def test_the_command_line_says_so_when_there_is_no_server(tmp_path: Any) -> None:
    parser = ArgumentParser()
    cli_wallets.add_parser(parser.add_subparsers(dest="command"))
    out = io.StringIO()
    config = load_config({"DATA_DIR": str(tmp_path)})
    status = await cli_wallets.run(
        parser.parse_args(["wallets", "list"]), config, Console(file=out, width=200)
    )
    assert (status, "start it" in out.getvalue()) == (1, True)


async def test_an_account_with_money_is_deleted_only_by_somebody_who_says_so(rest: House) -> None:
    ann = await rich(rest, 2_500)
    no = await ann.send("DELETE", "/api/user/account", {"password": PASSWORD})
    assert no.error(409, "WALLET_NOT_EMPTY")["details"] == {"amountMinor": {"NGN": 2_500}}
    assert (
        await ann.send("DELETE", "/api/user/account", {"password": PASSWORD, "forfeitBalance": True})
    ).status == 204
    poor = await rich(rest, 0, name="poor")
    assert (await poor.send("DELETE", "/api/user/account", {"password": PASSWORD})).status == 204
