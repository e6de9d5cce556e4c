"""Pure rules of wallets: what is asked, what is posted, what a statement shows; and what a fingerprint leaves out."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.payments_shapes import Deposit
from handlers.wallet_shapes import CreateWallet, MakeTransfer
from models.errors import Refusal
from models.ledger.journal import Kind, Wallet
from models.money import AMOUNT_MAX
from models.once import fingerprint
from models.wallet import rules
from models.wallet.rules import LOCKS, TRIES_MAX, Amount, PinState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PAYER = Wallet(key="ann:NGN", id="w-1", credits_id="c-1", user_id="ann", currency="NGN", created_at=NOW)


def refusal(work: Any, *args: Any) -> Refusal:
    with pytest.raises(Refusal) as no:
        work(*args)
    return no.value


@pytest.mark.parametrize("pin", ["4071", "40712", "407123", "0001", "1235", "1122"])
def test_four_to_six_digits_are_a_pin(pin: str) -> None:
    assert rules.checked_pin(pin) == pin


@pytest.mark.parametrize(
    "pin",
    [
        "",
        "407",
        "4071234",
        "40 71",
        "-407",
        "4o71",
        "٤٠٧١",
        "4071\n",
        "0000",
        "111111",
        "1234",
        "7890",
        "654321",
    ],
)
def test_other_text_and_what_is_guessed_first_is_no_pin(pin: str) -> None:
    no = refusal(rules.checked_pin, pin)
    assert (no.code, list(no.details)) == ("VALIDATION_FAILED", ["pin"])
    assert not pin or pin not in repr(no.details)


@pytest.mark.parametrize("currency", ["NGN", "JPY", "KWD", "USD"])
def test_a_currency_is_a_code_of_iso_4217(currency: str) -> None:
    assert rules.checked_currency(currency) == currency
    for wrong in (currency.lower(), currency[:2], f"{currency} ", "AAA"):
        assert refusal(rules.checked_currency, wrong).details["currency"]


@pytest.mark.parametrize(
    ("value", "decimal"),
    [
        ("10.50", "10.50"),
        ("0", "0"),
        (10, "10"),
        (10.5, "10.5"),
        (0.1, "0.1"),
        (1e-7, "1e-7"),
        (-3, "-3"),
        (999_999_999_999.99, "999999999999.99"),
    ],
)
def test_an_amount_is_what_was_written(value: object, decimal: str) -> None:
    assert rules.major_asked(value) == Decimal(decimal)


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, None, [], {}, "", "1e3", "1_000", "1,000", "-5", "+5", ".5", "5.", " 5", "5\n"),
        *("NaN", "0x10", "１０", "1" * 17, "0.123456789", float("nan"), float("inf"), 1e12, 10**12, -1e300),
    ],
)
def test_what_is_no_plain_decimal_is_no_amount(value: object) -> None:
    assert rules.major_asked(value) is None


@given(st.integers(0, 10**15 - 1), st.sampled_from([0, 2, 3]))
def test_a_json_number_below_the_bound_means_what_its_digits_say(minor: int, decimals: int) -> None:
    written = Decimal(minor).scaleb(-decimals)
    asked = rules.major_asked(float(str(written)))
    assert asked == written if written < rules.NUMBER_AMOUNT_MAX else asked is None


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (Amount(minor=7), "JPY", 7),
        (Amount(major=Decimal("10.5")), "NGN", 1050),
        (Amount(major=Decimal("10.0")), "JPY", 10),
        (Amount(major=Decimal("0.001")), "KWD", 1),
        (Amount(minor=AMOUNT_MAX), "NGN", AMOUNT_MAX),
    ],
)
def test_amounts_in_minor_units(amount: Amount, currency: str, minor: int) -> None:
    assert amount.minor_in(currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "field"),
    [
        (Amount(minor=0), "NGN", "amountMinor"),
        (Amount(minor=-1), "NGN", "amountMinor"),
        (Amount(minor=AMOUNT_MAX + 1), "NGN", "amountMinor"),
        (Amount(major=Decimal("0.00")), "NGN", "amount"),
        (Amount(major=Decimal("10.005")), "NGN", "amount"),
        (Amount(major=Decimal("10.5")), "JPY", "amount"),
        (Amount(major=Decimal("0.0001")), "KWD", "amount"),
        (Amount(major=Decimal("1e400")), "NGN", "amount"),
    ],
)
def test_amounts_that_are_refused_by_their_field(amount: Amount, currency: str, field: str) -> None:
    no = refusal(amount.minor_in, currency)
    assert (no.code, list(no.details)) == ("VALIDATION_FAILED", [field])


def test_locks_grow_and_the_last_one_stays() -> None:
    assert (timedelta(minutes=15), timedelta(hours=24), None) == LOCKS
    open_ = PinState(hash="h", tries=2, locks=1, locked_until=None, changed_at=NOW)
    assert (open_.locked(NOW), open_.tries_left) == (False, 3)
    shut = replace(open_, tries=TRIES_MAX, locked_until=NOW + timedelta(seconds=1))
    assert (shut.locked(NOW), shut.locked_for_ms(NOW), shut.tries_left) == (True, 1000, 0)
    assert not shut.locked(NOW + timedelta(seconds=1))
    for_good = replace(open_, locks=len(LOCKS))
    assert for_good.locked(NOW + timedelta(days=1000))
    assert for_good.locked_for_ms(NOW) is None


def test_a_transfer_is_balanced_and_names_both() -> None:
    entry = rules.transfer(PAYER, "bob", key="k", amount_minor=5, note="n", now=NOW)
    assert (entry.id, entry.kind) == ("tr:ann:k", Kind.TRANSFER)
    assert [(leg.account, leg.amount_minor) for leg in entry.legs] == [
        ("wallet:ann:NGN:primary", -5),
        ("wallet:bob:NGN:primary", 5),
    ]
    assert entry.counterparties == {"ann:NGN": "bob", "bob:NGN": "ann"}
    later = rules.transfer(PAYER, "bob", key="k", amount_minor=5, note="n", now=NOW + timedelta(days=1))
    assert rules.same_content(entry, later)
    for other in (
        rules.transfer(PAYER, "bob", key="k", amount_minor=6, note="n", now=NOW),
        rules.transfer(PAYER, "eve", key="k", amount_minor=5, note="n", now=NOW),
        rules.transfer(PAYER, "bob", key="k", amount_minor=5, note=None, now=NOW),
    ):
        assert not rules.same_content(entry, other)


def test_a_lines_id_is_a_uuid_of_its_time_and_tells_nothing_of_the_key() -> None:
    entry = rules.transfer(PAYER, "bob", key="k", amount_minor=5, note=None, now=NOW)
    found = uuid.UUID(rules.line_id(entry, "primary"))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == int(NOW.timestamp() * 1000)
    assert found != uuid.UUID(rules.line_id(entry, "call_credits"))
    assert rules.line_id(replace(entry, id="tr:ann:l"), "primary") != str(found)


# ------------------------------------------------------------------------------------------------------------- shapes

TRANSFER = {"to": "bob", "amountMinor": 5, "pin": "4071"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": 1}, "amountMinor"),
        ({"amountMinor": None}, "amountMinor"),
        ({"amountMinor": 0}, "amountMinor"),
        ({"amountMinor": -5}, "amountMinor"),
        ({"amountMinor": 5.5}, "amountMinor"),
        ({"amountMinor": 5.0}, "amountMinor"),
        ({"amountMinor": "5"}, "amountMinor"),
        ({"amountMinor": True}, "amountMinor"),
        ({"amountMinor": 2**53}, "amountMinor"),
        ({"amountMinor": None, "amount": True}, "amount"),
        ({"amountMinor": None, "amount": float("nan")}, "amount"),
        ({"amountMinor": None, "amount": "1e3"}, "amount"),
        ({"amountMinor": None, "amount": []}, "amount"),
        ({"pin": 4071}, "pin"),
        ({"pin": None}, "pin"),
        ({"to": ""}, "to"),
        ({"note": "x" * 141}, "note"),
        ({"currency": "NAIRA"}, "currency"),
    ],
)
def test_what_is_asked_wrongly_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    assert MakeTransfer().validate(TRANSFER) == {}
    assert list(MakeTransfer().validate({**TRANSFER, **change})) == [field]


def test_other_names_of_the_pin_are_understood() -> None:
    for name in ("pin", "transactionPin", "transaction_pin"):
        assert CreateWallet().load({name: "4071"})["pin"] == "4071"
    asked = {"to": "bob", "amount": "1.50", "transactionPin": "4071", "description": "hi"}
    loaded = MakeTransfer().load(asked)
    assert (loaded["pin"], loaded["amount"], loaded["note"]) == ("4071", Decimal("1.50"), "hi")
    assert Deposit().load({"amount": 10.5})["into"] == "primary"


def test_a_fingerprint_has_no_secret_in_it_and_all_the_rest() -> None:
    asked = {"to": "bob", "amountMinor": 5, "note": "pin"}
    for name in ("pin", "PIN", "transactionPin", "transaction_pin", "newPin", "oldPin", "currentPin"):
        assert fingerprint({**asked, name: "4071"}) == fingerprint(asked)
    for name in ("password", "currentPassword", "new_password"):
        assert fingerprint({**asked, name: "secret"}) == fingerprint(asked)
    for other in ({"to": "eve"}, {"amountMinor": 6}, {"note": None}, {"pinned": True}):
        assert fingerprint({**asked, **other}) != fingerprint(asked)
