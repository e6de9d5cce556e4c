"""Receipts: they say what happened, they are signed, and whatever is altered in one is found."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from handlers.receipt_shapes import ReceiptView
from models.billing import rules
from models.billing.receipt import adds_up, ready, receipt_of
from models.billing.receipt_check import verify
from models.billing.signing import Signer, canonical, decoded, encoded
from models.calls import tariff
from models.calls.call import (
    Call,
    Charge,
    Interval,
    Leg,
    Party,
    Price,
    Reason,
    Role,
    Segment,
    Stage,
    State,
)
from models.ledger.journal import Sealed, Wallet
from models.ledger.rules import post
from tests.rules.test_tariff import VECTORS

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIGNER = Signer("a secret of thirty-two bytes or more")
PER_SECOND = Price(rate_per_minute_minor=6000, first_block_seconds=1, block_seconds=1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def wallet(user_id: str, **balances: int) -> Wallet:
    return Wallet(
        key=f"{user_id}:NGN",
        id=f"w-{user_id}",
        credits_id=f"c-{user_id}",
        user_id=user_id,
        currency="NGN",
        created_at=START,
        **balances,
    )


@dataclass
class Books:
    """A call with its wallets and entries, moved by the meter's own rules; no database."""

    call: Call
    wallets: dict[str, Wallet]
    entries: list[Sealed] = field(default_factory=list)

    def write(self, plan: rules.Plan, **changes: Any) -> None:
        sealed, after = post(self.wallets, plan.entries)
        self.entries += sealed
        self.wallets = after
        self.call = replace(self.call, charge=plan.charge, **changes)

    def refund(self, amount: int, seconds: float, key: str) -> None:
        plan = rules.refund(
            self.call, amount, self.wallets["bob:NGN"], key=key, note="sorry", now=at(seconds)
        )
        self.write(plan, cost_minor=self.call.cost_minor - amount)

    def clear(self, seconds: float) -> None:
        self.write(rules.clear(self.call, self.wallets["bob:NGN"], at(seconds)))

    def signed(self, role: Role = Role.CALLER) -> dict[str, Any]:
        return SIGNER.signed(receipt_of(self.call, self.entries, role))


def talked(
    *spans_ms: int,
    price: Price = PER_SECOND,
    credits: int = 700,
    primary: int = 100_000_000,
    earlier: tuple[Segment, ...] = (),
) -> Books:
    """A paid call that has ended and is settled, after conversation in spans of so many milliseconds."""
    ann, bob = (Party(user_id=name, username=f"the {name}", display_name=name) for name in ("ann", "bob"))
    paid = Charge(wallet="ann:NGN", share_bps=3000)
    begun = Call(
        id="01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e",
        type="audio",
        state=State.ACTIVE,
        version=1,
        caller=ann,
        callee=bob,
        caller_leg=Leg(device_id="d"),
        created_at=START,
        accepted_at=at(3),
        active_at=at(4),
        price=price,
        charge=paid,
    )
    books = Books(
        begun, {"ann:NGN": wallet("ann", primary=primary, credits=credits), "bob:NGN": wallet("bob")}
    )
    books.write(rules.reserve(books.call, books.wallets["ann:NGN"], START))
    intervals: list[Interval] = []
    now = at(4)
    for span in spans_ms:
        end = now + timedelta(milliseconds=span)
        intervals.append(Interval(now, end))
        books.call = replace(books.call, intervals=tuple(intervals))
        books.write(rules.reserve(books.call, books.wallets["ann:NGN"], end))
        now = end + timedelta(seconds=2)
    if earlier:
        books.call = replace(books.call, earlier=earlier, type="video")
        books.write(rules.reserve(books.call, books.wallets["ann:NGN"], now))
    over = replace(books.call, state=State.ENDED, ended_at=now, end_reason=Reason.COMPLETED, ended_by="ann")
    books.call = replace(over, cost_minor=tariff.cost(over))
    books.write(rules.capture(books.call))
    if books.call.charge is not None and books.call.charge.stage is Stage.CAPTURED:
        books.write(rules.settle(books.call, "bob:NGN"))
    return books


def long_one() -> Books:
    """Renewed, paid from both accounts, interrupted, upgraded, refunded twice, before and after the payout."""
    first = Segment(type="audio", price=PER_SECOND, talk_ms=90_500)
    after = replace(tariff.following(PER_SECOND), rate_per_minute_minor=12_000)
    books = talked(70_250, 60_000, price=after, earlier=(first,))
    books.refund(501, 200, "1")
    books.clear(90_000)
    books.refund(999, 95_000, "2")
    return books


COPIES = {"payer": Role.CALLER, "payee": Role.CALLEE}


@pytest.fixture(params=list(COPIES))
def receipt(request: pytest.FixtureRequest) -> dict[str, Any]:
    return long_one().signed(COPIES[request.param])


# -------------------------------------------------------------------------------------------------------- what it says


def test_it_lists_what_was_talked_and_what_was_charged() -> None:
    books = long_one()
    payer, payee = books.signed(Role.CALLER), books.signed(Role.CALLEE)
    assert verify(payer, SIGNER.public_key) == []
    assert verify(payee, SIGNER.public_key) == []
    assert payer["intervals"] == [
        {"start": "2026-03-01T12:00:04.000Z", "end": "2026-03-01T12:01:14.250Z"},
        {"start": "2026-03-01T12:01:16.250Z", "end": "2026-03-01T12:02:16.250Z"},
    ]
    one, other = payer["segments"]
    assert (one["type"], one["talkMs"], one["billedSeconds"], one["amountMinor"]) == (
        "audio",
        90_500,
        90,
        9000,
    )
    assert (other["type"], other["talkMs"], other["billedSeconds"]) == ("video", 39_750, 39)
    assert other["amountMinor"] == 7800
    assert (payer["totalMinor"], payer["refundedMinor"]) == (16_800 - 1500, 1500)
    assert -sum(charge["amountMinor"] for charge in payer["charges"]) == payer["totalMinor"]
    assert {charge["account"] for charge in payer["charges"]} == {"primary", "call_credits"}
    assert payer["reservedMinor"] - payer["releasedMinor"] == 16_800
    assert payer["issuedAt"] == "2026-03-02T14:23:20.000Z"
    assert payee["earnedMinor"] == 15_300 * 7 // 10
    assert payer["segments"] == payee["segments"]
    assert (payer["endReason"], payer["endedAt"]) == ("completed", "2026-03-01T12:02:18.250Z")


def test_each_side_sees_only_its_own_part() -> None:
    books = long_one()
    payer, payee = books.signed(Role.CALLER), books.signed(Role.CALLEE)
    assert {"reservedMinor", "releasedMinor"} == payer.keys() - payee.keys()
    assert {"platformShareBps", "earnedMinor"} == payee.keys() - payer.keys()
    assert all("account" not in charge for charge in payee["charges"])


def test_it_is_the_same_each_time_and_a_refund_makes_a_new_one() -> None:
    books = talked(30_000)
    first = books.signed()
    assert books.signed() == first
    assert first["issuedAt"] == first["endedAt"]
    books.clear(90_000)
    assert books.signed() == first, "the payout is nothing of the payer's"
    books.refund(7, 100_000, "1")
    again = books.signed()
    assert again != first
    assert verify(again, SIGNER.public_key) == []
    assert (again["totalMinor"], again["refundedMinor"]) == (first["totalMinor"] - 7, 7)


def test_there_is_none_before_the_money_is_settled() -> None:
    call = talked(30_000).call
    assert call.charge is not None
    assert ready(call)
    assert not ready(replace(call, state=State.ACTIVE))
    for stage in (Stage.OPEN, Stage.CAPTURED):
        assert not ready(replace(call, charge=replace(call.charge, stage=stage)))
    assert ready(replace(call, charge=None))


def test_a_call_read_on_the_other_side_of_a_refund_does_not_add_up() -> None:
    books = talked(30_000)
    before = books.call
    books.refund(7, 100_000, "1")
    assert not adds_up(receipt_of(before, books.entries, Role.CALLER))
    assert adds_up(receipt_of(books.call, books.entries, Role.CALLER))


@pytest.mark.parametrize("role", [Role.CALLER, Role.CALLEE])
def test_calls_that_cost_nothing_have_one_too(role: Role) -> None:
    free = talked(61_000, price=Price(rate_per_minute_minor=0))
    assert verify(free.signed(role), SIGNER.public_key) == []
    assert free.signed(role)["totalMinor"] == 0
    silent = talked()
    nobody = replace(silent.call, accepted_at=None, active_at=None, end_reason=Reason.NO_ANSWER, charge=None)
    receipt = SIGNER.signed(receipt_of(nobody, (), role))
    assert verify(receipt, SIGNER.public_key) == []
    assert (receipt["charges"], receipt["activeAt"]) == ([], None)


@pytest.mark.parametrize(
    ("price", "seconds", "cost"),
    [
        pytest.param(of, seconds, cost, id=f"{name}: {seconds} s")
        for name, (of, costs) in VECTORS.items()
        for seconds, cost in costs.items()
    ],
)
def test_the_price_vectors_on_paper(price: Price, seconds: float, cost: int) -> None:
    receipt = talked(round(seconds * 1000), price=price).signed(Role.CALLEE)
    assert verify(receipt, SIGNER.public_key) == []
    assert receipt["totalMinor"] == cost
    assert receipt["earnedMinor"] == cost * 7 // 10


@given(
    st.lists(st.integers(0, 200_000), min_size=1, max_size=6),
    st.builds(
        Price,
        rate_per_minute_minor=st.integers(1, 100_000),
        first_block_seconds=st.integers(1, 90),
        block_seconds=st.integers(1, 90),
        connect_fee_minor=st.integers(0, 10_000),
        minimum_minor=st.integers(0, 10_000),
    ),
    st.integers(0, 1_000_000),
)
def test_whatever_is_talked_at_whatever_price_its_receipt_is_right(
    spans: list[int], price: Price, credits: int
) -> None:
    books = talked(*spans, price=price, credits=credits)
    for role in Role.CALLER, Role.CALLEE:
        assert verify(books.signed(role), SIGNER.public_key) == []


def test_the_shape_of_the_documents_has_every_field(receipt: dict[str, Any]) -> None:
    read = ReceiptView().load(receipt)
    assert len(read) == len(receipt)
    assert ReceiptView().dump(read) == receipt


# -------------------------------------------------------------------------------------------------------- tampering


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every text, number and null."""
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        yield path
    for name, item in items:
        yield from leaves(item, (*path, name))


def altered(receipt: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """The receipt with one leaf changed to something else of its kind."""
    found = copy.deepcopy(receipt)
    inner: Any = found
    for name in path[:-1]:
        inner = inner[name]
    value = inner[path[-1]]
    if isinstance(value, int):
        inner[path[-1]] = value + 1
    elif isinstance(value, str) and value.endswith("Z") and value.startswith("20"):
        inner[path[-1]] = value[:-2] + ("1Z" if value[-2] != "1" else "2Z")
    elif value is None:
        inner[path[-1]] = "2026-03-01T12:00:04.000Z"
    else:
        inner[path[-1]] = ("B" if value[0] != "B" else "C") + value[1:]
    return found


def resigned(receipt: dict[str, Any]) -> dict[str, Any]:
    """As whoever has the key would sign it."""
    return SIGNER.signed({name: value for name, value in receipt.items() if name != "signature"})


def test_every_single_altered_field_is_found(receipt: dict[str, Any]) -> None:
    places = list(leaves(receipt))
    assert len(places) >= 50
    for path in places:
        assert verify(altered(receipt, path), SIGNER.public_key), path


# What a server could write on a receipt of its own without contradicting itself: who, when, and names.
_FREE = {
    *("callId", "id", "username", "endReason", "createdAt", "acceptedAt", "activeAt", "endedAt"),
    # Another tariff that comes to the same price.
    *("firstBlockSeconds", "blockSeconds", "minimumMinor"),
    # Of a charge that is no refund; of a segment that is not the last one.
    *("at", "account"),
}


def test_what_follows_from_something_else_is_recomputed_even_if_the_server_signed_it(
    receipt: dict[str, Any],
) -> None:
    for path in leaves(receipt):
        if path[-1] in _FREE or path[0] == "signature":
            continue
        assert verify(resigned(altered(receipt, path)), SIGNER.public_key), path


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("totalMinor",), 15_299, "totalMinor and refundedMinor are 16799, the segments cost 16800."),
        (("refundedMinor",), 1501, "refundedMinor is 1501, 1500 was given back."),
        (("segments", 0, "amountMinor"), 9001, "segments[0].amountMinor is 9001, the tariff says 9000."),
        (("segments", 0, "billedSeconds"), 91, "segments[0].billedSeconds is 91, the tariff says 90."),
        (
            ("segments", 0, "talkMs"),
            90_501,
            "The segments have 130251 ms of conversation, the intervals 130250 ms.",
        ),
        (("segments", 0, "price", "currency"), "KWD", "segments[0].price is in KWD, the receipt in NGN."),
        (
            ("segments", 0, "price", "blockSeconds"),
            0,
            "segments[0].price.firstBlockSeconds, blockSeconds: at least 1.",
        ),
        (("segments", 1, "type"), "audio", "type is not that of the last segment."),
        (("segments",), [], "segments: there is at least one."),
        (("intervals", 0, "end"), "2026-03-01T12:01:20.000Z", "The intervals do not follow one another."),
        (("intervals", 1, "end"), "2026-03-01T13:00:00.000Z", "An interval lies outside of the call."),
        (
            ("intervals", 1, "end"),
            "later",
            "intervals[1].end: not an instant such as 2026-01-31T12:00:00.000Z.",
        ),
        (
            ("intervals", 1, "end"),
            "2026-02-31T12:00:00.000Z",
            "intervals[1].end: not an instant such as 2026-01-31T12:00:00.000Z.",
        ),
        (("activeAt",), None, "There was conversation in a call that never connected."),
        (
            ("endedAt",),
            "2026-03-01T11:00:00.000Z",
            "createdAt, acceptedAt, activeAt, endedAt are not in this order.",
        ),
        (
            ("charges", 0, "kind"),
            "refund",
            "charges[0].kind and amountMinor are not those of a charge or a refund.",
        ),
        (
            ("charges", 0, "amountMinor"),
            True,
            "charges[0].amountMinor: not a whole number from -9007199254740991 to 9007199254740991.",
        ),
        (("charges",), {}, "charges: not a list."),
        (
            ("issuedAt",),
            "2026-03-01T12:02:18.250Z",
            "issuedAt is not when the call ended or the last refund was made.",
        ),
        (("reservedMinor",), 1, "1 was reserved and 103200 released, the call cost 16800."),
        (("payer",), "ann", "payer: not an object."),
        (("endReason",), "bored", "endReason: not one that a call ends with."),
        (("endReason",), ["completed"], "endReason: not a text."),
        (("copy",), ["payer"], "copy: neither payer nor payee."),
        (("version",), 2, "version: only 1 is known here."),
        (("extra",), 1, "extra: not part of a receipt."),
    ],
)
def test_it_says_what_is_wrong(path: tuple[Any, ...], value: Any, said: str) -> None:
    receipt = long_one().signed(Role.CALLER)
    inner: Any = receipt
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    found = verify(receipt, SIGNER.public_key)
    assert said in found, found


def test_a_missing_field_is_named(receipt: dict[str, Any]) -> None:
    for name in receipt:
        less = {one: value for one, value in receipt.items() if one != name}
        assert any(name in said or "signature" in said for said in verify(less, SIGNER.public_key))


def test_a_charge_that_is_there_twice_is_found() -> None:
    receipt = long_one().signed(Role.CALLER)
    receipt["charges"].append(receipt["charges"][0])
    assert f"charges[{len(receipt['charges']) - 1}].id was there before." in verify(resigned(receipt))


def test_a_wrong_share_is_found() -> None:
    receipt = long_one().signed(Role.CALLEE)
    receipt["earnedMinor"] -= 1
    assert verify(resigned(receipt)) == ["earnedMinor is 10709, the share of 15300 is 10710."]
    receipt["platformShareBps"] = 10_001
    assert verify(resigned(receipt)) == ["platformShareBps: more than the whole."]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_anything_at_all_is_answered_with_faults(document: Any) -> None:
    assert verify(document, SIGNER.public_key)


@given(st.data(), JSON)
def test_anything_at_any_place_of_a_receipt_is_answered_with_faults(data: st.DataObject, value: Any) -> None:
    receipt = RECEIPT
    path = data.draw(st.sampled_from(PLACES))
    found = copy.deepcopy(receipt)
    inner: Any = found
    for name in path[:-1]:
        inner = inner[name]
    same = inner[path[-1]] == value and type(inner[path[-1]]) is type(value)
    inner[path[-1]] = value
    assert bool(verify(found, SIGNER.public_key)) is not same


RECEIPT = long_one().signed(Role.CALLER)
PLACES = [*leaves(RECEIPT), *((name,) for name in RECEIPT), ("charges", 0), ("segments", 0, "price")]


# -------------------------------------------------------------------------------------------------------- the signature


def test_a_receipt_of_another_server_is_said_to_be_one() -> None:
    other = Signer("another secret of thirty-two bytes or more")
    body = receipt_of(talked(5_000).call, talked(5_000).entries, Role.CALLER)
    theirs = other.signed(body)
    assert verify(theirs) == []
    assert verify(theirs, other.public_key) == []
    (said,) = verify(theirs, SIGNER.public_key)
    assert said == f"It is signed with the key {other.key_id}: by another server, or with another secret."
    assert other.key_id != SIGNER.key_id


def test_the_key_comes_from_the_secret_alone_by_rfc_5869() -> None:
    """HKDF by hand: extract with a salt of zeros, expand one block."""
    again = Signer("a secret of thirty-two bytes or more")
    assert again.signed({"a": 1}) == SIGNER.signed({"a": 1})
    extracted = hmac.digest(bytes(32), b"a secret of thirty-two bytes or more", "sha256")
    seed = hmac.digest(extracted, b"ringmeter receipt v1" + b"\x01", "sha256")
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert SIGNER.public_key == encoded(public)
    assert SIGNER.key_id == hashlib.sha256(public).hexdigest()[:16]


def test_anybody_can_check_the_signature_with_a_json_library_and_ed25519(receipt: dict[str, Any]) -> None:
    over_the_wire = json.loads(json.dumps(receipt, ensure_ascii=True, indent=3))
    signature = over_the_wire.pop("signature")
    text = json.dumps(over_the_wire, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key, value = decoded(signature["publicKey"], 32), decoded(signature["value"], 64)
    assert key is not None
    assert value is not None
    Ed25519PublicKey.from_public_bytes(key).verify(value, text)


def test_the_canonical_text_is_rfc_8785s() -> None:
    """The escapes of ECMAScript's JSON.stringify, which RFC 8785 §3.2.2.2 prescribes; its example's string."""
    value = {
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, 4],
        "b": {},
        "a": "\u2028\x7f",
    }
    expected = '{"a":"\u2028\x7f","b":{},"literals":[null,4],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    assert canonical(value) == expected.encode()


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        True,
        float("nan"),
        2**53,
        -(2**53),
        {"é": 1},
        ["\ud800"],
        {"a": {"b": [False]}},
        json.loads("[" * 17 + "]" * 17),
    ],
)
def test_what_has_no_one_text_is_not_signed(value: Any) -> None:
    with pytest.raises(ValueError, match=r"number|ASCII|deep|surrogates"):
        canonical(value)


@pytest.mark.parametrize(
    "signature",
    [
        None,
        {},
        "x",
        {"alg": "Ed25519"},
        {"alg": "none", "keyId": "", "publicKey": "", "value": ""},
        {"alg": "Ed25519", "keyId": 1, "publicKey": 2, "value": 3},
        {"alg": "Ed25519", "keyId": "", "publicKey": "ééé", "value": "x"},
    ],
)
def test_no_signature_or_a_broken_one_is_said(signature: Any) -> None:
    receipt = talked(5_000).signed() | {"signature": signature}
    assert "ignature" in verify(receipt)[0]


def test_another_spelling_of_the_same_bytes_is_no_signature() -> None:
    """The last letter of 64 bytes has bits to spare."""
    receipt = talked(5_000).signed()
    value = receipt["signature"]["value"]
    spare = {"A": "B", "Q": "R", "g": "h", "w": "x"}[value[-1]]
    receipt["signature"]["value"] = value[:-1] + spare
    assert verify(receipt) == ["The signature or its key is not base64url of the right length."]
