"""The sandbox as a gateway: for development, where nobody pays with real money. Not there with ENV=production.

It keeps to the port like the others, so that all that an app and this server do with a gateway can be tried: its
payments are paid on a page of this server (``server/sandbox_pages.py``), its notifications are signed and come through
the same door. Its bank accounts have ten digits, whose last three decide: …001 fails, …002 waits for the operator's
one-time password 123456, …003 is known to no bank, …004 is paid and comes back later; all others are paid.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property

import orjson
from babel import Locale

from models.db import Database
from models.payments.gateway import (
    About,
    Bank,
    BankAccount,
    CardToken,
    Checkout,
    GatewayNo,
    Notice,
    NoticeInvalid,
    Opened,
    PaymentSeen,
    PayoutAsk,
    PayoutSeen,
    PayoutState,
    PayState,
    RefundAsk,
    RefundSeen,
    RefundState,
    Terms,
)
from models.ports import Clock
from models.sandbox import rules
from models.sandbox.rules import Step, Thing
from models.sandbox.service import Sandbox
from models.sandbox.store import SandboxStore
from server.config import Config

NAME = "sandbox"
SIGNATURE = "x-sandbox-signature"

# Takes a notification as it came, by its bytes and headers; raises when it could not be stored.
Hear = Callable[[bytes, Mapping[str, str]], Awaitable[object]]


async def _deaf(raw: bytes, headers: Mapping[str, str]) -> None:
    """Bound by the wiring."""
    raise RuntimeError("nobody hears the sandbox")


def make(config: Config, clock: Clock, db: Database) -> SandboxGateway | None:
    """The sandbox, in development."""
    if config.production:
        return None
    assert config.jwt_secret is not None
    secret = hmac.digest(config.jwt_secret.encode(), b"ringmeter sandbox v1", "sha256")
    sandbox = Sandbox(store=SandboxStore(db), clock=clock)
    return SandboxGateway(sandbox, clock, secret, public_url=config.money.public_url, port=config.port)


class SandboxGateway:
    """One per process. ``address`` is where browsers reach this server; ``fixed`` when the configuration says it.

    ``hear`` is our own door for notifications.
    """

    name = NAME

    def __init__(
        self, sandbox: Sandbox, clock: Clock, secret: bytes, *, public_url: str | None, port: int
    ) -> None:
        self.sandbox = sandbox
        self.fixed = public_url is not None
        self.address = public_url or f"http://127.0.0.1:{port}"
        self.now = clock.now
        self.hear: Hear = _deaf
        self._secret = secret
        sandbox.tell = self._tell

    @cached_property
    def terms(self) -> Terms:
        """Play money comes in every currency that there is. Their table is read when somebody asks."""
        every = frozenset(Locale("en").currencies)
        return Terms(currencies=every, payouts=every)

    # ------------------------------------------------------------------------------------------------------- payments

    async def checkout(self, ask: Checkout) -> Opened:
        """A page of this server."""
        opened = await self.sandbox.open(
            ask.reference,
            amount_minor=ask.amount_minor,
            currency=ask.currency,
            who=ask.payer_name,
            about=ask.description,
            return_url=ask.return_url,
        )
        if not opened:
            raise GatewayNo("taken", "this reference was opened before", taken=True)
        return Opened(checkout_url=f"{self.address}/sandbox/checkout/{ask.reference}")

    async def query(self, reference: str, gateway_reference: str | None) -> PaymentSeen | None:
        """How a payment stands."""
        found = await self.sandbox.payment(reference)
        if found is None:
            return None
        now = found.at(self.now())
        card = CardToken(token=f"sandbox-{reference}", last4="4242", brand="Play", expires="12/2030")
        return PaymentSeen(
            reference=reference,
            gateway_reference=None,
            state=PayState(now.state),
            currency=found.currency,
            paid_minor=now.paid_minor,
            reversed_minor=now.reversed_minor,
            card=card if now.state == PayState.PAID else None,
            word=now.state,
        )

    async def refund(self, ask: RefundAsk) -> RefundSeen:
        """Done at once."""
        paid = await self.sandbox.payment(ask.payment_reference)
        if paid is None or paid.at(self.now()).paid_minor < ask.amount_minor:
            raise GatewayNo("not_paid", "so much was not paid")
        if not await self.sandbox.give_back(
            ask.reference, amount_minor=ask.amount_minor, currency=ask.currency, reason=ask.reason
        ):
            raise GatewayNo("taken", "this reference was refunded before", taken=True)
        return RefundSeen(reference=ask.reference, state=RefundState.DONE, word="done")

    async def refund_status(self, ask: RefundAsk, gateway_reference: str | None) -> RefundSeen | None:
        """How a refund stands."""
        found = await self.sandbox.refund(ask.reference)
        if found is None:
            return None
        return RefundSeen(reference=ask.reference, state=RefundState.DONE, word="done")

    # -------------------------------------------------------------------------------------------------------- payouts

    async def banks(self, currency: str) -> list[Bank]:
        """Its three banks."""
        return list(rules.BANKS)

    async def account_name(self, account: BankAccount, currency: str) -> str | None:
        """Somebody, for every number but …003."""
        return self.sandbox.holder(account)

    async def pay_out(self, ask: PayoutAsk) -> PayoutSeen:
        """Taken; what becomes of it the account's number decides."""
        if not await self.sandbox.pay_out(ask):
            raise GatewayNo("taken", "this reference was submitted before", taken=True)
        return await self._payout(ask.reference)

    async def payout_status(self, reference: str, gateway_reference: str | None) -> PayoutSeen | None:
        """How a payout stands."""
        found = await self.sandbox.payout(reference)
        return None if found is None else self._seen(found)

    async def authorize_payout(
        self, reference: str, gateway_reference: str | None, password: str
    ) -> PayoutSeen:
        """Its one-time password is always the same."""
        found = await self.sandbox.payout(reference)
        if found is None or not await self.sandbox.authorize(found, password):
            raise GatewayNo("password", "the password is wrong, or nothing waits for one")
        return await self._payout(reference)

    async def resend_password(self, reference: str, gateway_reference: str | None) -> None:
        """Nothing is sent: it is in the guide."""
        found = await self.sandbox.payout(reference)
        if found is None or found.steps[-1].state != PayoutState.OTP:
            raise GatewayNo("password", "nothing waits for one")

    async def _payout(self, reference: str) -> PayoutSeen:
        found = await self.sandbox.payout(reference)
        assert found is not None, "it was kept before it was answered"
        return self._seen(found)

    def _seen(self, payout: Thing) -> PayoutSeen:
        now = payout.at(self.now())
        return PayoutSeen(
            reference=payout.reference,
            gateway_reference=None,
            state=PayoutState(now.state),
            amount_minor=payout.amount_minor,
            currency=payout.currency,
            word=now.state,
        )

    # -------------------------------------------------------------------------------------------------- notifications

    def notification(self, thing: Thing, number: int, step: Step) -> tuple[bytes, dict[str, str]]:
        """What is told of the fact ``number`` of a payment or payout: the bytes, and the headers that sign them."""
        about, _, reference = thing.id.partition(":")
        body = {
            "id": f"{thing.id}:{number}",
            "event": f"{about}.{step.state}",
            "reference": reference,
            "amountMinor": thing.amount_minor,
            "currency": thing.currency,
            "at": step.at.astimezone(UTC).isoformat(),
        }
        raw = orjson.dumps(body)
        return raw, {SIGNATURE: self._sign(raw)}

    async def _tell(self, thing: Thing, number: int, step: Step) -> None:
        raw, headers = self.notification(thing, number, step)
        await self.hear(raw, headers)

    def parse(self, raw: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """A notification of its own."""
        if not hmac.compare_digest(headers.get(SIGNATURE, "").encode(), self._sign(raw).encode()):
            raise NoticeInvalid("the signature does not match")
        try:
            body = orjson.loads(raw)
            word = str(body["event"])
            kind = word.partition(".")[0]
            return Notice(
                id=str(body["id"]),
                about=About(kind) if kind in set(About) else About.OTHER,
                word=word,
                reference=str(body["reference"]),
                at=datetime.fromisoformat(body["at"]),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as fault:
            raise NoticeInvalid("it cannot be read") from fault

    async def close(self) -> None:
        """Nothing is open."""

    def _sign(self, raw: bytes) -> str:
        return hmac.digest(self._secret, raw, "sha512").hex()

    # ------------------------------------------------------------------------------------------------ its page's marks

    def mark(self, reference: str, seen: str) -> str:
        """What makes a form of the checkout page ours: of this payment, as it stood with so many steps."""
        return hmac.digest(self._secret, f"page {reference} {seen}".encode(), "sha256").hex()[:32]

    def marked(self, reference: str, seen: str, mark: str) -> bool:
        """Whether a form carries the mark that it was given."""
        return hmac.compare_digest(self.mark(reference, seen).encode(), mark.encode())
