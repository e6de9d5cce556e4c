"""Withdrawals, bank accounts and cards by REST (CONTRACT §3.2), and the operator's command, with the sandbox's bank."""

from __future__ import annotations

import io
import itertools
from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from models.ledger.journal import Entry, Kind, Leg, Pocket, account_of, clearing, wallet_key
from models.mailbox.store import LETTERS
from server import cli_payouts
from server.config import load_config
from tests.doors.conftest import PASSWORD, House, Person, open_house
from tests.doors.serverprocess import eventually
from tests.doors.test_rest_second_factor import turned_on
from tests.fakes import VirtualClock
from tests.services.wallet_house import PIN, WRONG

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = {"WITHDRAWAL_FEE_MINOR": "50", "WITHDRAWAL_MINOR_MIN": "100", "WITHDRAWAL_DAILY_MINOR_MAX": "500000"}
ACCOUNTS, CARDS, PAYOUTS = "/api/wallet/bank-accounts", "/api/wallet/cards", "/api/wallet/payouts"
WITHDRAW = "/api/wallet/withdraw"
PAYOUT = {
    *("id", "reference", "amountMinor", "feeMinor", "currency", "status", "reason", "bankAccount", "version"),
    *("createdAt", "updatedAt"),
}
ACCOUNT = {"id", "currency", "bankCode", "bankName", "accountName", "last4", "createdAt"}
GOOD, FAILS, ASKS, UNKNOWN, RETURNS = (f"1234567{end}" for end in ("890", "001", "002", "003", "004"))
KEYS = (f"payout-{number}" for number in itertools.count(1))


def key(text: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": text or next(KEYS)}


async def rich(rest: House, minor: int = 100_000) -> Person:
    """Somebody with a PIN and money from nowhere in particular."""
    person = await rest.person("saver")
    assert (await person.post("/api/wallet/create", {"pin": PIN})).status == 201
    name = wallet_key(person.id, "NGN")
    legs = (Leg(clearing("test"), -minor, "NGN"), Leg(account_of(name, Pocket.PRIMARY), minor, "NGN"))
    entry = Entry(id=f"pay:test:{next(KEYS)}", kind=Kind.DEPOSIT, at=rest.clock.now(), legs=legs)
    await rest.services.ledger.post([name], lambda _: [entry])
    return person


async def account(person: Person, number: str = GOOD) -> dict[str, Any]:
    made = await person.post(ACCOUNTS, {"bankCode": "001", "accountNumber": number})
    assert made.status == 201, made.body
    return dict(made.body["bankAccount"])


async def withdraw(person: Person, to: dict[str, Any], minor: int = 1_000, **changes: Any) -> dict[str, Any]:
    body = {"bankAccountId": to["id"], "amountMinor": minor, "pin": PIN, **changes}
    asked = await person.post(WITHDRAW, body, headers=key())
    assert asked.status == 202, asked.body
    assert set(asked.body["payout"]) == PAYOUT
    return dict(asked.body["payout"])


async def becomes(rest: House, person: Person, payout: dict[str, Any], status: str) -> dict[str, Any]:
    """The withdrawal once it has this status; time passes until then."""

    async def there() -> Any:
        assert isinstance(rest.clock, VirtualClock)
        rest.clock.pass_(15)
        await rest.services.payouts.work.run_due()
        found = (await person.get(f"{PAYOUTS}/{payout['id']}")).body["payout"]
        return found if found["status"] == status else None

    return dict(await eventually(there, what=f"the withdrawal is {status}"))


async def balances(person: Person) -> tuple[int, int]:
    wallet = (await person.get("/api/wallet")).body["wallet"]
    return wallet["availableMinor"], wallet["heldMinor"]


async def command(rest: House, mongo_uri: str, *words: str) -> tuple[int, str]:
    """``python main.py payouts …`` beside the house."""
    parser = ArgumentParser()
    cli_payouts.add_parser(parser.add_subparsers())
    said = io.StringIO()
    env = {
        "MONGO_URI": mongo_uri,
        "MONGO_DATABASE": rest.db.db.name,
        "JWT_SECRET": "a secret of the tests, long enough for HS256",
        **HOUSE,
    }
    console = Console(file=said, width=300)
    code = await cli_payouts.run(parser.parse_args(["payouts", *words]), load_config(env), console)
    return code, said.getvalue()


# -------------------------------------------------------------------------------------------------------- withdrawals


async def test_a_withdrawal_is_taken_held_and_arrives(rest: House) -> None:
    ann = await rich(rest)
    to = await account(ann)
    payout = await withdraw(ann, to, 2_000)
    assert (payout["status"], payout["amountMinor"], payout["feeMinor"]) == ("pending", 2_000, 50)
    assert payout["bankAccount"] == {
        "id": to["id"],
        "bankName": "First Sandbox Bank",
        "accountName": to["accountName"],
        "last4": "7890",
    }
    assert await balances(ann) == (97_950, 2_050)
    done = await becomes(rest, ann, payout, "completed")
    assert done["version"] > payout["version"]
    assert done["reason"] is None
    assert await balances(ann) == (97_950, 0)
    line = (await ann.get("/api/wallet/transactions")).body["items"][0]
    assert (line["kind"], line["amountMinor"], line["payoutId"]) == ("withdrawal", -2_050, payout["id"])
    assert line["note"] == "First Sandbox Bank 7890"
    letters = await rest.db[LETTERS].find({"user_id": ann.id, "event": "PAYOUT_UPDATED"}).to_list()
    told = [one["payload"]["payout"] for one in letters]
    assert [one["status"] for one in told] == ["pending", "processing", "completed"]
    assert all(set(one) == PAYOUT for one in told)


async def test_a_withdrawal_that_fails_is_back_in_the_wallet(rest: House) -> None:
    ann = await rich(rest)
    payout = await withdraw(ann, await account(ann, FAILS))
    done = await becomes(rest, ann, payout, "failed")
    assert done["reason"] == "failed"
    assert await balances(ann) == (100_000, 0)


async def test_e84_one_that_the_bank_sends_back_later_is_reversed(rest: House) -> None:
    ann = await rich(rest)
    payout = await withdraw(ann, await account(ann, RETURNS))
    await becomes(rest, ann, payout, "completed")
    assert await balances(ann) == (98_950, 0)
    rest.clock.pass_(86_400)  # type: ignore[attr-defined]
    ann = await ann.login()
    await becomes(rest, ann, payout, "reversed")
    assert await balances(ann) == (100_000, 0)


async def test_e82_what_is_asked_again_is_answered_again_and_moves_nothing(rest: House) -> None:
    ann = await rich(rest)
    to, headers = await account(ann), key()
    body = {"accountId": to["id"], "amount": "10.00", "transactionPin": PIN}
    first = await ann.post(WITHDRAW, body, headers=headers)
    assert first.status == 202, first.body
    assert (await ann.post("/wallet/withdraw", body, headers=headers)).body == first.body
    assert (await ann.post(WITHDRAW, {**body, "amount": "11.00"}, headers=headers)).error(
        422, "IDEMPOTENCY_MISMATCH"
    )
    # Also when the first answer is forgotten.
    await rest.db["once"].delete_many({})
    assert (await ann.post(WITHDRAW, body, headers=headers)).body["payout"]["id"] == first.body["payout"][
        "id"
    ]
    assert await balances(ann) == (98_950, 1_050)


async def test_the_refusals_of_a_withdrawal(rest: House) -> None:
    ann = await rich(rest, 10_000)
    to = await account(ann)
    body = {"bankAccountId": to["id"], "amountMinor": 1_000, "pin": PIN}
    (await ann.post(WITHDRAW, body)).error(400, "IDEMPOTENCY_KEY_REQUIRED")
    for changes, status, code in (
        ({"bankAccountId": "other"}, 404, "BANK_ACCOUNT_UNKNOWN"),
        ({"currency": "KES"}, 409, "CURRENCY_MISMATCH"),
        ({"amountMinor": 99}, 409, "PAYOUT_LIMIT"),
        ({"amountMinor": 500_001}, 409, "PAYOUT_LIMIT"),
        ({"amountMinor": 9_951}, 402, "INSUFFICIENT_FUNDS"),
        ({"pin": WRONG}, 403, "PIN_WRONG"),
        ({"amountMinor": 0}, 400, "VALIDATION_FAILED"),
        ({"amountMinor": None}, 400, "VALIDATION_FAILED"),
        ({"pin": None}, 400, "VALIDATION_FAILED"),
    ):
        (await ann.post(WITHDRAW, {**body, **changes}, headers=key())).error(status, code)
    bob = await rich(rest)
    (await bob.post(WITHDRAW, body, headers=key())).error(404, "BANK_ACCOUNT_UNKNOWN")
    await rest.services.wallets.freeze(ann.id, frozen=True)
    (await ann.post(WITHDRAW, body, headers=key())).error(403, "WALLET_FROZEN")
    assert await balances(ann) == (10_000, 0)


async def test_ones_own_withdrawals_page_by_page(rest: House) -> None:
    ann, bob = await rich(rest), await rich(rest)
    to = await account(ann)
    made = [(await withdraw(ann, to))["id"] for _ in range(3)]
    first = (await ann.get(f"{PAYOUTS}?limit=2")).body
    rest_of = (await ann.get(f"{PAYOUTS}?limit=2&cursor={first['nextCursor']}")).body
    assert [one["id"] for one in first["items"] + rest_of["items"]] == made[::-1]
    assert rest_of["nextCursor"] is None
    assert (await bob.get(PAYOUTS)).body["items"] == []
    (await bob.get(f"{PAYOUTS}/{made[0]}")).error(404, "PAYOUT_UNKNOWN")
    (await ann.get(f"{PAYOUTS}?cursor=nonsense")).error(400, "VALIDATION_FAILED")


async def test_e88_an_account_with_an_open_withdrawal_is_not_deleted_in_passing(rest: House) -> None:
    ann = await rich(rest, 1_050)
    await withdraw(ann, await account(ann))
    assert await balances(ann) == (0, 1_050)
    no = (await ann.send("DELETE", "/api/user/account", {"password": PASSWORD})).error(
        409, "WALLET_NOT_EMPTY"
    )
    assert no["details"] == {"amountMinor": {"NGN": 1_050}}


# ------------------------------------------------------------------------------------------------------ bank accounts


async def test_bank_accounts_are_kept_shown_and_forgotten(rest: House) -> None:
    ann = await rich(rest)
    banks = (await ann.get("/api/wallet/banks?currency=NGN")).body
    assert {"code": "001", "name": "First Sandbox Bank"} in banks["items"]
    assert (await ann.get("/api/wallet/banks")).body == banks
    kept = await account(ann)
    assert set(kept) == ACCOUNT
    assert kept["last4"] == "7890"
    assert GOOD not in str(kept)
    assert (await ann.get(ACCOUNTS)).body == {"items": [kept], "nextCursor": None}
    body = {"bank_code": "001", "account_number": GOOD}
    no = (await ann.post(ACCOUNTS, body)).error(409, "BANK_ACCOUNT_EXISTS")
    assert no["details"] == {"bankAccountId": kept["id"]}
    (await ann.post(ACCOUNTS, {**body, "account_number": UNKNOWN})).error(422, "BANK_ACCOUNT_REFUSED")
    (await ann.post(ACCOUNTS, {**body, "bank_code": "777"})).error(400, "VALIDATION_FAILED")
    (await ann.post(ACCOUNTS, {**body, "currency": "XXZ"})).error(400, "VALIDATION_FAILED")
    assert (await ann.send("DELETE", f"{ACCOUNTS}/{kept['id']}")).status == 204
    (await ann.send("DELETE", f"{ACCOUNTS}/{kept['id']}")).error(404, "BANK_ACCOUNT_UNKNOWN")


async def test_without_a_wallet_a_currency_is_asked_for(rest: House) -> None:
    bob = await rest.person("bob")
    (await bob.get("/api/wallet/banks")).error(404, "WALLET_UNKNOWN")
    assert (await bob.get("/api/wallet/banks?currency=NGN")).status == 200


async def test_a_card_needs_a_payment_of_ones_own(rest: House) -> None:
    ann = await rich(rest)
    assert (await ann.get(CARDS)).body == {"items": [], "nextCursor": None}
    (await ann.post(CARDS, {"reference": "nothing"})).error(404, "PAYMENT_UNKNOWN")
    (await ann.post(CARDS, {"number": "4111111111111111"})).error(400, "VALIDATION_FAILED")
    (await ann.send("DELETE", f"{CARDS}/nothing")).error(404, "CARD_UNKNOWN")


# --------------------------------------------------------------------------------------------------------- the operator


async def test_e85_the_operator_lists_shows_and_authorizes(rest: House, mongo_uri: str) -> None:
    ann = await rich(rest)
    payout = await withdraw(ann, await account(ann, ASKS))
    await becomes(rest, ann, payout, "processing")
    code, said = await command(rest, mongo_uri, "list", "--state", "otp")
    assert (code, payout["id"] in said, ann.username in said, ASKS in said) == (0, True, True, False)
    code, said = await command(rest, mongo_uri, "show", payout["reference"])
    assert (code, "hold" in said, "…8002" in said or "…7002" in said) == (0, True, True)
    code, said = await command(rest, mongo_uri, "otp", payout["id"], "000000")
    assert (code, "password" in said) == (1, True)
    assert (await command(rest, mongo_uri, "resend", payout["id"]))[0] == 0
    assert (await command(rest, mongo_uri, "void", payout["id"]))[0] == 1, "the gateway has it"
    code, said = await command(rest, mongo_uri, "otp", payout["id"], "123456")
    assert (code, said.startswith("NGN 10.00 to First Sandbox Bank 7002:")) == (0, True), said
    await becomes(rest, ann, payout, "completed")
    assert (await command(rest, mongo_uri, "resend", payout["id"]))[0] == 1
    assert (await command(rest, mongo_uri, "show", "nothing"))[0] == 1
    assert (await command(rest, mongo_uri, "list", "--state", "review"))[0] == 0
    assert payout["id"] in (await command(rest, mongo_uri, "list", "--state", "paid"))[1]


async def test_a_withdrawal_takes_a_fresh_second_factor_where_one_is_on(rest: House) -> None:
    saver = await rich(rest)
    to = await account(saver)
    app, recovery = await turned_on(rest, saver)
    body, mine = {"bankAccountId": to["id"], "amountMinor": 1_000, "pin": PIN}, key()
    (await saver.post(WITHDRAW, body, headers=mine)).error(401, "TOTP_REQUIRED")
    (await saver.post(WITHDRAW, {**body, "totp": "000"}, headers=mine)).error(403, "TOTP_WRONG")
    wrong = {**body, "pin": WRONG, "recoveryCode": recovery[0]}
    (await saver.post(WITHDRAW, wrong, headers=mine)).error(403, "PIN_WRONG")
    asked = {**body, "recoveryCode": recovery[0]}  # which the wrong PIN has not used up
    made = await saver.post(WITHDRAW, asked, headers=mine)
    assert made.status == 202, made.body
    # An answer that was lost: the same code again, and the same withdrawal.
    assert (await saver.post(WITHDRAW, asked, headers=mine)).body == made.body
    await rest.db["once"].delete_many({})
    assert (await saver.post(WITHDRAW, asked, headers=mine)).body["payout"]["id"] == made.body["payout"]["id"]
    (await saver.post(WITHDRAW, asked, headers=key())).error(403, "TOTP_WRONG")
    code = await app.code()
    assert (await saver.post(WITHDRAW, {**body, "totp": code}, headers=key())).status == 202


async def test_after_a_second_factor_is_turned_off_nothing_goes_out_for_some_time(mongo_uri: str) -> None:
    async with open_house(mongo_uri, **HOUSE, WITHDRAWAL_COOL_OFF_SECONDS="3600") as rest:
        saver = await rich(rest)
        to = await account(saver)
        _, recovery = await turned_on(rest, saver)
        rest.clock.pass_(3600)  # type: ignore[attr-defined]
        saver = replace(saver, signed_in=await _signed_in(rest, saver, recovery[0]))
        body = {"bankAccountId": to["id"], "amountMinor": 1_000, "pin": PIN}
        asked = {**body, "recoveryCode": recovery[1]}
        assert (await saver.post(WITHDRAW, asked, headers=key())).status == 202
        off = {"password": PASSWORD, "recoveryCode": recovery[2]}
        assert (await saver.post("/api/auth/2fa/disable", off)).status == 204
        refused = await saver.post(WITHDRAW, body, headers=key())
        assert refused.error(403, "PAYOUT_COOLING_OFF")["retryAfterMs"] == 3_600_000


async def _signed_in(rest: House, person: Person, recovery_code: str) -> dict[str, Any]:
    body = {"identifier": person.username, "password": PASSWORD, "recoveryCode": recovery_code}
    answer = await rest.send("POST", "/api/auth/login", body)
    assert answer.status == 200, answer.body
    return dict(answer.body)
