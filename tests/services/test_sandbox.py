"""The sandbox behaves as a gateway: its payments, its special accounts, and what it tells of them."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
import pytest

from models.db import Database
from models.payments.gateway import (
    About,
    BankAccount,
    Checkout,
    GatewayNo,
    Notice,
    NoticeInvalid,
    PayoutAsk,
    PayoutState,
    PayState,
    RefundAsk,
    RefundState,
)
from models.sandbox.rules import LATE_SECONDS, PASSWORD, RETURNED_SECONDS, Button, Step
from models.sandbox.service import TELL_AGAIN_SECONDS, Sandbox
from models.sandbox.store import SandboxStore
from server.adapters.gateways.sandbox import SIGNATURE, SandboxGateway
from tests.fakes import VirtualClock

SECRET = b"a secret of the tests"


@dataclass
class Bank:
    """A sandbox, and what its notifications say."""

    clock: VirtualClock
    gateway: SandboxGateway
    heard: list[Notice] = field(default_factory=list)
    deaf: bool = False

    async def hear(self, raw: bytes, headers: Mapping[str, str]) -> None:
        if self.deaf:
            raise ConnectionError
        self.heard.append(self.gateway.parse(raw, headers, self.clock.now()))

    @property
    def words(self) -> list[str]:
        return [notice.word for notice in self.heard]

    async def opened(self, reference: str = "r-1", amount: int = 50_000) -> None:
        ask = Checkout(
            reference=reference,
            amount_minor=amount,
            currency="NGN",
            payer_id="u",
            payer_name="Ada",
            payer_email=None,
            description="Deposit",
            return_url="https://app.example.org/back",
        )
        assert (
            await self.gateway.checkout(ask)
        ).checkout_url == f"http://127.0.0.1:3000/sandbox/checkout/{reference}"

    async def press(self, button: Button, reference: str = "r-1") -> bool:
        payment = await self.gateway.sandbox.payment(reference)
        assert payment is not None
        return await self.gateway.sandbox.press(reference, button, seen=len(payment.steps))

    async def seen(self, reference: str = "r-1") -> tuple[PayState, int, int]:
        found = await self.gateway.query(reference, None)
        assert found is not None
        return found.state, found.paid_minor, found.reversed_minor

    async def paying_out(self, number: str, reference: str = "w-1") -> PayoutState:
        to = BankAccount(bank_code="001", account_number=number, account_name="Ada")
        ask = PayoutAsk(reference=reference, amount_minor=900, currency="NGN", to=to, narration="x")
        return (await self.gateway.pay_out(ask)).state

    async def payout(self, reference: str = "w-1") -> PayoutState:
        found = await self.gateway.payout_status(reference, None)
        assert found is not None
        return found.state

    async def pass_(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        await self.gateway.sandbox.tell_due()


@pytest.fixture
def bank(db: Database, clock: VirtualClock) -> Bank:
    sandbox = Sandbox(store=SandboxStore(db), clock=clock)
    made = Bank(clock, SandboxGateway(sandbox, clock, SECRET, public_url=None, port=3000))
    made.gateway.hear = made.hear
    return made


@pytest.mark.parametrize(
    ("buttons", "stands", "words"),
    [
        ((Button.PAID,), (PayState.PAID, 50_000, 0), ["payment.paid"]),
        ((Button.UNDERPAID,), (PayState.PAID, 25_000, 0), ["payment.paid"]),
        ((Button.UNDERPAID, Button.REST), (PayState.PAID, 50_000, 0), ["payment.paid", "payment.paid"]),
        ((Button.OVERPAID,), (PayState.PAID, 60_000, 0), ["payment.paid"]),
        ((Button.FAILED,), (PayState.FAILED, 0, 0), ["payment.failed"]),
        ((Button.FAILED, Button.PAID), (PayState.PAID, 50_000, 0), ["payment.failed", "payment.paid"]),
        (
            (Button.PAID, Button.REVERSED),
            (PayState.REVERSED, 50_000, 50_000),
            ["payment.paid", "payment.reversed"],
        ),
    ],
)
async def test_a_button_is_what_the_gateway_says_and_tells_at_once(
    bank: Bank, buttons: tuple[Button, ...], stands: tuple[PayState, int, int], words: list[str]
) -> None:
    await bank.opened()
    assert await bank.seen() == (PayState.PENDING, 0, 0)
    for button in buttons:
        assert await bank.press(button)
    assert await bank.seen() == stands
    assert bank.words == words
    assert {(one.about, one.reference) for one in bank.heard} == {(About.PAYMENT, "r-1")}
    assert len({one.id for one in bank.heard}) == len(words), "each fact has an id of its own"
    await bank.pass_(3600)
    assert bank.words == words, "and is told once when it was taken"


async def test_a_late_payment_arrives_by_itself_with_its_notification(bank: Bank) -> None:
    await bank.opened()
    assert await bank.press(Button.LATE)
    assert not await bank.press(Button.PAID), "the money is on its way"
    assert (await bank.seen(), bank.words) == ((PayState.PENDING, 0, 0), [])
    await bank.pass_(LATE_SECONDS - 0.001)
    assert (await bank.seen(), bank.words) == ((PayState.PENDING, 0, 0), [])
    await bank.pass_(0.001)
    assert (await bank.seen(), bank.words) == ((PayState.PAID, 50_000, 0), ["payment.paid"])


async def test_a_button_of_an_older_page_does_nothing(bank: Bank) -> None:
    await bank.opened()
    done = await asyncio.gather(
        *(
            bank.gateway.sandbox.press("r-1", button, seen=1)
            for button in (Button.PAID, Button.OVERPAID, Button.FAILED)
        )
    )
    assert sum(done) == 1, "of three tabs that were open at the same time one counts"
    assert not await bank.gateway.sandbox.press("r-1", Button.REVERSED, seen=1)
    assert not await bank.gateway.sandbox.press("unknown", Button.PAID, seen=1)


async def test_of_two_processes_that_have_seen_the_same_one_goes_on(bank: Bank, db: Database) -> None:
    await bank.opened()
    store, now = SandboxStore(db), bank.clock.now()
    seen = await store.find("payment:r-1")
    assert seen is not None
    paid = Step(at=now, state=PayState.PAID, paid_minor=50_000)
    assert await store.go_on(seen, [paid], tell_at=now)
    assert not await store.go_on(seen, [Step(at=now, state=PayState.FAILED)], tell_at=now)
    assert await bank.seen() == (PayState.PAID, 50_000, 0)


async def test_what_nobody_took_is_told_again_under_the_same_id(bank: Bank) -> None:
    await bank.opened()
    bank.deaf = True
    assert await bank.press(Button.PAID), "the payer's button works whether we hear of it or not"
    bank.deaf = False
    await bank.pass_(TELL_AGAIN_SECONDS - 0.001)
    assert bank.words == []
    await bank.pass_(0.001)
    assert bank.words == ["payment.paid"]
    first = bank.heard[0].id

    await bank.opened("r-2")
    assert await bank.press(Button.PAID, "r-2")
    assert bank.heard[1].id != first, "another payment's fact is another one"


async def test_who_dies_while_telling_leaves_it_to_the_next(
    bank: Bank, db: Database, clock: VirtualClock
) -> None:
    await bank.opened()
    store = SandboxStore(db)
    payment = await store.find("payment:r-1")
    assert payment is not None

    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    bank.gateway.sandbox.tell = dies
    with pytest.raises(asyncio.CancelledError):
        await bank.press(Button.PAID)
    assert await bank.seen() == (PayState.PAID, 50_000, 0)
    other = Sandbox(store=store, clock=clock)
    told = SandboxGateway(other, clock, SECRET, public_url=None, port=1)
    told.hear = bank.hear
    clock.pass_(TELL_AGAIN_SECONDS)
    assert await other.tell_due() == 1
    assert bank.words == ["payment.paid"]


async def test_a_reference_is_opened_submitted_and_refunded_once(bank: Bank) -> None:
    await bank.opened()
    with pytest.raises(GatewayNo) as no:
        await bank.opened(amount=1)
    assert no.value.taken
    assert await bank.press(Button.PAID)
    await bank.paying_out("0000000009")
    with pytest.raises(GatewayNo) as no:
        await bank.paying_out("0000000001")
    assert no.value.taken
    ask = RefundAsk(
        reference="f-1",
        payment_reference="r-1",
        payment_gateway_reference=None,
        amount_minor=50_000,
        currency="NGN",
        reason="x",
    )
    assert await bank.gateway.refund_status(ask, None) is None
    assert (await bank.gateway.refund(ask)).state is RefundState.DONE
    with pytest.raises(GatewayNo) as no:
        await bank.gateway.refund(ask)
    assert no.value.taken
    found = await bank.gateway.refund_status(ask, None)
    assert found is not None
    assert found.state is RefundState.DONE


async def test_what_was_not_paid_is_not_refunded(bank: Bank) -> None:
    await bank.opened()
    assert await bank.press(Button.UNDERPAID)
    ask = RefundAsk(
        reference="f-1",
        payment_reference="r-1",
        payment_gateway_reference=None,
        amount_minor=25_001,
        currency="NGN",
        reason="x",
    )
    with pytest.raises(GatewayNo, match="not_paid"):
        await bank.gateway.refund(ask)


async def test_what_was_never_opened_is_unknown(bank: Bank) -> None:
    assert await bank.gateway.query("r-9", None) is None
    assert await bank.gateway.payout_status("w-9", None) is None


async def test_an_ordinary_account_is_paid_after_a_moment(bank: Bank) -> None:
    assert await bank.paying_out("0123456789") is PayoutState.PENDING
    await bank.pass_(1.999)
    assert (await bank.payout(), bank.words) == (PayoutState.PENDING, [])
    await bank.pass_(0.001)
    assert (await bank.payout(), bank.words) == (PayoutState.PAID, ["payout.paid"])
    assert bank.heard[0].about is About.PAYOUT


async def test_the_special_accounts_do_what_the_guide_says(bank: Bank) -> None:
    assert await bank.paying_out("0000000001", "fails") is PayoutState.PENDING
    assert await bank.paying_out("0000000002", "asks") is PayoutState.OTP
    assert await bank.paying_out("0000000004", "returns") is PayoutState.PENDING
    await bank.pass_(2)
    states = {name: await bank.payout(name) for name in ("fails", "asks", "returns")}
    assert states == {"fails": PayoutState.FAILED, "asks": PayoutState.OTP, "returns": PayoutState.PAID}
    await bank.pass_(RETURNED_SECONDS)
    assert await bank.payout("returns") is PayoutState.REVERSED
    assert sorted(bank.words) == ["payout.failed", "payout.paid", "payout.reversed"]
    unknown = BankAccount(bank_code="001", account_number="0000000003")
    assert await bank.gateway.account_name(unknown, "NGN") is None
    no_bank = BankAccount(bank_code="999", account_number="0123456789")
    assert await bank.gateway.account_name(no_bank, "NGN") is None
    known = BankAccount(bank_code="002", account_number="0123456789")
    assert await bank.gateway.account_name(known, "NGN") == await bank.gateway.account_name(known, "NGN")
    assert await bank.gateway.account_name(known, "NGN")


async def test_a_payout_that_asks_for_the_password_goes_on_with_it_and_only_once(bank: Bank) -> None:
    await bank.paying_out("0000000002")
    await bank.gateway.resend_password("w-1", None)
    with pytest.raises(GatewayNo, match="password"):
        await bank.gateway.authorize_payout("w-1", None, "000000")
    assert await bank.payout() is PayoutState.OTP
    said = await bank.gateway.authorize_payout("w-1", None, PASSWORD)
    assert said.state is PayoutState.PENDING
    for late in (
        bank.gateway.authorize_payout("w-1", None, PASSWORD),
        bank.gateway.resend_password("w-1", None),
    ):
        with pytest.raises(GatewayNo, match="password"):
            await late
    await bank.pass_(2)
    assert (await bank.payout(), bank.words) == (PayoutState.PAID, ["payout.paid"])


async def test_only_what_it_has_signed_itself_is_read(bank: Bank, clock: VirtualClock) -> None:
    await bank.opened()
    payment = await bank.gateway.sandbox.payment("r-1")
    assert payment is not None
    raw, headers = bank.gateway.notification(payment, 1, payment.steps[0])
    assert bank.gateway.parse(raw, headers, clock.now()).reference == "r-1"
    again = orjson.dumps(orjson.loads(raw), option=orjson.OPT_INDENT_2)
    for body, signed in (
        (raw + b" ", headers),
        (again, headers),
        (raw, {}),
        (raw, {SIGNATURE: ""}),
        (raw, {SIGNATURE: "é"}),
        (raw, {SIGNATURE: headers[SIGNATURE].upper()}),
    ):
        with pytest.raises(NoticeInvalid):
            bank.gateway.parse(body, signed, clock.now())
    for junk in (b"", b"[]", b"{}", b"nul", b'{"event":1,"id":2,"reference":3,"at":4}'):
        mark = hmac.digest(SECRET, junk, "sha512").hex()
        with pytest.raises(NoticeInvalid):
            bank.gateway.parse(junk, {SIGNATURE: mark}, clock.now())
