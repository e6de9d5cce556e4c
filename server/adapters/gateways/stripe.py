"""Stripe, through its official library: checkout sessions, refunds, signed events. It pays nothing out to others.

Rules of the service: https://docs.stripe.com/api. What is not obvious there:

- Our reference is the ``Idempotency-Key`` of what is made by it: to ask twice is to get the first answer again.
- What Stripe calls a payment is the session's id. When the answer with it was lost, the payment is looked for by the
  metadata of its payment intent, which exists as soon as somebody has tried to pay.
- A session may be ``complete`` and ``unpaid``: some ways to pay take days. Only ``paid`` counts.
- The library refuses notifications that are too old, by its own clock; here those from the future are refused too, by
  ours. It repeats nothing here: what is safe to repeat is repeated by the adapter.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

import aiohttp
import stripe
import structlog

from models.db import Database
from models.payments.gateway import (
    Bank,
    BankAccount,
    Checkout,
    GatewayAway,
    GatewayNo,
    Notice,
    NoticeInvalid,
    Opened,
    PaymentSeen,
    PayoutAsk,
    PayoutSeen,
    RefundAsk,
    RefundSeen,
    Terms,
)
from models.ports import Clock
from server.adapters.gateways.http import (
    ANSWER_SECONDS,
    BACKOFF_SECONDS,
    CONNECT_SECONDS,
    Sleep,
    mapping,
    notice_object,
    text,
    whole_minor,
)
from server.adapters.gateways.stripe_words import (
    HARMLESS,
    about_of,
    data_of,
    instant,
    payment_seen,
    refund_seen,
    to_stripe,
)
from server.config import Config

log = structlog.get_logger(__name__)

# How far the time of a signature may be from ours, to both sides (Stripe's own figure).
SIGNED_SECONDS_MAX = 300
# The least that is taken, by currency; the currencies that are offered.
LEAST_MINOR = {
    "USD": 50, "EUR": 50, "GBP": 30, "CAD": 50, "AUD": 50, "NZD": 50, "CHF": 50, "SEK": 300, "NOK": 300, "DKK": 250,
    "PLN": 200, "JPY": 50, "SGD": 50, "HKD": 400, "INR": 50, "BRL": 50, "MXN": 1000, "AED": 200, "NGN": 0, "KES": 0,
    "GHS": 0, "ZAR": 0, "KWD": 0,
}  # fmt: skip
_OURS = re.compile(r"[A-Za-z0-9-]{1,100}")
_INTENT = re.compile(r"pi_[A-Za-z0-9_]{1,100}")
_SESSION_EXPAND = ["payment_intent.latest_charge.balance_transaction"]


def make(config: Config, clock: Clock, db: Database) -> Stripe | None:
    """The gateway of this configuration; None without its keys."""
    money = config.money
    if not (money.stripe_secret_key and money.stripe_webhook_secrets):
        return None
    return Stripe(
        secret_key=money.stripe_secret_key,
        webhook_secrets=money.stripe_webhook_secrets,
        url=money.stripe_url,
    )


class Stripe:
    """``models.payments.gateway.Gateway``. Several ``webhook_secrets`` are good at once while one is replaced."""

    name = "stripe"
    terms = Terms(
        currencies=frozenset(LEAST_MINOR),
        least_minor={currency: least for currency, least in LEAST_MINOR.items() if least},
    )

    def __init__(
        self,
        *,
        secret_key: str,
        webhook_secrets: Sequence[str],
        url: str | None = None,
        sleep: Sleep = asyncio.sleep,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        if not secret_key or not webhook_secrets or not all(webhook_secrets):
            raise ValueError("Stripe needs its secret key and the secrets of its notifications")
        self._key, self._secrets, self._url = secret_key, tuple(webhook_secrets), url
        self._sleep = sleep
        self._timeout = aiohttp.ClientTimeout(total=answer_seconds, connect=CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None
        self._client: stripe.StripeClient | None = None

    async def checkout(self, ask: Checkout) -> Opened:
        named = {"reference": ask.reference}
        product = {"name": ask.description[:200]}
        price = {
            "currency": ask.currency.lower(),
            "unit_amount": to_stripe(ask.amount_minor, ask.currency),
            "product_data": product,
        }
        params: Any = {
            "mode": "payment",
            "client_reference_id": ask.reference,
            "metadata": named,
            "payment_intent_data": {"metadata": named, "description": ask.description[:200]},
            "line_items": [{"price_data": price, "quantity": 1}],
            "success_url": ask.return_url,
            "cancel_url": ask.return_url,
        }
        if ask.payer_email:
            params["customer_email"] = ask.payer_email
        sessions = self._open().v1.checkout.sessions
        said = await self._once(sessions.create_async(params, {"idempotency_key": ask.reference}))
        address, session = text(said.get("url"), 4000), text(said.get("id"))
        if address is None or session is None:
            raise GatewayAway("an opened session without an address")
        return Opened(checkout_url=address, gateway_reference=session)

    async def query(self, reference: str, gateway_reference: str | None) -> PaymentSeen | None:
        session = gateway_reference or await self._session_of(reference)
        if session is None:
            return None
        sessions = self._open().v1.checkout.sessions
        said = await self._read(lambda: sessions.retrieve_async(session, {"expand": _SESSION_EXPAND}))
        if said is None:
            return None
        if said.get("client_reference_id") != reference:
            raise GatewayAway("an answer about another payment")
        charge = mapping(mapping(said.get("payment_intent")).get("latest_charge"))
        return payment_seen(said, reference, await self._disputed(charge))

    def parse(self, raw: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """An event. Raises ``NoticeInvalid``."""
        header = headers.get("stripe-signature", "")
        if not any(_signed(raw, header, secret) for secret in self._secrets):
            raise NoticeInvalid("the signature is missing or wrong")
        stamp = next((part[2:] for part in header.split(",") if part.startswith("t=")), "")
        if not stamp.isdecimal() or abs(now.timestamp() - int(stamp[:15])) > SIGNED_SECONDS_MAX:
            raise NoticeInvalid("signed too long ago, or in the future")
        told = notice_object(raw)
        event, word = text(told.get("id")), text(told.get("type"))
        if event is None or word is None:
            raise NoticeInvalid("no event")
        about, reference, session = about_of(word, mapping(mapping(told.get("data")).get("object")))
        return Notice(
            id=event,
            about=about,
            word=word,
            reference=reference,
            gateway_reference=session,
            at=instant(told.get("created")),
        )

    async def reference_of(self, gateway_reference: str) -> str | None:
        """Of a payment intent, by which a dispute calls a payment."""
        if not _INTENT.fullmatch(gateway_reference):
            return None
        intents = self._open().v1.payment_intents
        said = await self._read(lambda: intents.retrieve_async(gateway_reference))
        return None if said is None else text(mapping(said.get("metadata")).get("reference"))

    async def refund(self, ask: RefundAsk) -> RefundSeen:
        try:
            intent = await self._intent_of(ask)
        except GatewayAway as away:
            raise GatewayAway(str(away), sent=False) from None
        if intent is None:
            raise GatewayNo("payment-unknown", "the gateway knows no such payment")
        params: Any = {
            "payment_intent": intent,
            "amount": to_stripe(ask.amount_minor, ask.currency),
            "metadata": {"reference": ask.reference},
        }
        refunds = self._open().v1.refunds
        said = await self._once(refunds.create_async(params, {"idempotency_key": ask.reference}))
        return refund_seen(said, ask.reference)

    async def refund_status(self, ask: RefundAsk, gateway_reference: str | None) -> RefundSeen | None:
        refunds = self._open().v1.refunds
        if gateway_reference is not None:
            said = await self._read(lambda: refunds.retrieve_async(gateway_reference))
            return None if said is None else refund_seen(said, ask.reference)
        intent = await self._intent_of(ask)
        if intent is None:
            return None
        found = await self._read(lambda: refunds.list_async({"payment_intent": intent, "limit": 100}))
        for one in data_of(found):
            if mapping(one.get("metadata")).get("reference") == ask.reference:
                return refund_seen(one, ask.reference)
        return None

    async def banks(self, currency: str) -> list[Bank]:
        return []

    async def account_name(self, account: BankAccount, currency: str) -> str | None:
        return None

    async def pay_out(self, ask: PayoutAsk) -> PayoutSeen:
        return _no_payouts()

    async def payout_status(self, reference: str, gateway_reference: str | None) -> PayoutSeen | None:
        return None

    async def authorize_payout(
        self, reference: str, gateway_reference: str | None, password: str
    ) -> PayoutSeen:
        return _no_payouts()

    async def resend_password(self, reference: str, gateway_reference: str | None) -> None:
        _no_payouts()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    # --- the way there

    def _open(self) -> stripe.StripeClient:
        if self._client is None:
            # It would tell Stripe of this machine and of how long earlier requests took.
            stripe.enable_telemetry = False
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            http: Any = stripe.AIOHTTPClient(timeout=None, session=_Straight(self._session, self._timeout))
            self._client = stripe.StripeClient(
                self._key,
                http_client=http,
                base_addresses={"api": self._url} if self._url else None,
                max_network_retries=0,
            )
        return self._client

    async def _once(self, asked: Awaitable[Any]) -> Mapping[str, Any]:
        """One request. Raises ``GatewayNo`` for a refusal in Stripe's words, ``GatewayAway`` for the rest."""
        try:
            return mapping((await asked).to_dict())
        except stripe.APIConnectionError as error:
            cause = error.__cause__
            unsent = isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            raise GatewayAway(type(cause).__name__, sent=not unsent) from None
        except stripe.RateLimitError:
            raise GatewayAway("too many requests", sent=False) from None
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            log.error("gateway refuses our key", gateway=self.name, status=error.http_status)
            raise GatewayAway(f"HTTP {error.http_status}", sent=False) from None
        except stripe.IdempotencyError as error:
            raise GatewayNo("idempotency_error", str(error.user_message)[:200], taken=True) from None
        except (stripe.InvalidRequestError, stripe.CardError) as error:
            code = str(error.code or type(error).__name__)
            raise GatewayNo(code, str(error.user_message)[:200]) from None
        except stripe.StripeError as error:
            unsent = error.http_status == 429  # said by something before Stripe, in words of its own
            raise GatewayAway(f"HTTP {error.http_status} {type(error).__name__}", sent=not unsent) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            raise GatewayAway(type(error).__name__) from None

    async def _read(self, ask: Callable[[], Awaitable[Any]]) -> Mapping[str, Any] | None:
        """A question, asked again with back-off; None for what Stripe does not know."""
        for wait in (*BACKOFF_SECONDS, None):
            try:
                return await self._once(ask())
            except GatewayNo as no:
                if no.code == "resource_missing":
                    return None
                raise
            except GatewayAway as away:
                if wait is None:
                    raise
                log.info("gateway asked again", gateway=self.name, error=str(away), seconds=wait)
            await self._sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _session_of(self, reference: str) -> str | None:
        """The session of a payment that only its payment intent names."""
        if not _OURS.fullmatch(reference):
            return None
        client = self._open()
        by_name: Any = {"query": f"metadata['reference']:'{reference}'", "limit": 1}
        for intent in data_of(await self._read(lambda: client.v1.payment_intents.search_async(by_name))):
            of_intent: Any = {"payment_intent": str(intent.get("id")), "limit": 1}
            found = await self._read(partial(client.v1.checkout.sessions.list_async, of_intent))
            return next((text(one.get("id")) for one in data_of(found)), None)
        return None

    async def _intent_of(self, ask: RefundAsk) -> str | None:
        session = ask.payment_gateway_reference or await self._session_of(ask.payment_reference)
        if session is None:
            return None
        sessions = self._open().v1.checkout.sessions
        said = await self._read(lambda: sessions.retrieve_async(session))
        if said is None:
            return None
        if said.get("client_reference_id") != ask.payment_reference:
            raise GatewayAway("an answer about another payment")
        return text(said.get("payment_intent"))

    async def _disputed(self, charge: Mapping[str, Any]) -> int:
        """What the payer's bank has taken back of a charge, in Stripe's minor units."""
        if charge.get("disputed") is not True:
            return 0
        of_charge: Any = {"charge": str(charge.get("id")), "limit": 100}
        found = await self._read(lambda: self._open().v1.disputes.list_async(of_charge))
        return sum(
            whole_minor(one.get("amount")) for one in data_of(found) if one.get("status") not in HARMLESS
        )


class _Straight:
    """The library's way to aiohttp, which follows no redirects: the key goes to the address that was configured."""

    def __init__(self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> None:
        self._session, self._timeout = session, timeout

    async def request(self, method: str, url: str, **more: Any) -> aiohttp.ClientResponse:
        """One request."""
        return await self._session.request(
            method, url, allow_redirects=False, **{**more, "timeout": self._timeout}
        )


def _signed(raw: bytes, header: str, secret: str) -> bool:
    try:
        # Without its own look at the time: that is by ours.
        return stripe.WebhookSignature.verify_header(raw, header, secret, None)
    except (stripe.SignatureVerificationError, ValueError, TypeError):
        return False


def _no_payouts() -> NoReturn:
    raise GatewayNo("no-payouts", "this gateway pays nothing out")
