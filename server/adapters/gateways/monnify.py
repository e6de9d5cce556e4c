"""Monnify (Nigeria): checkout, payouts and refunds in naira.

Rules of the service: https://developers.monnify.com/api. What is not obvious there:

- Amounts are naira with at most two decimals, numbers in some answers and text in others.
- A notification is signed with HMAC-SHA512 over its very bytes. (The page writes of a plain SHA-512; its own example
  is an HMAC.) It has no time, so a copy is as good as the original: only its reference is taken from it.
- Answers come in an envelope ``{requestSuccessful, responseMessage, responseCode, responseBody}``.
- ``D07`` says that an equal amount went to the same account within two minutes. Nothing was done, and later it is.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import structlog

from models.db import Database
from models.payments.gateway import (
    About,
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
    RefundState,
    Terms,
)
from models.ports import Clock
from server.adapters.gateways.http import (
    Answer,
    Http,
    fact_id,
    mailbox,
    major,
    mapping,
    notice_object,
    text,
)
from server.adapters.gateways.monnify_words import (
    ABOUT,
    CURRENCY,
    instant,
    payment_seen,
    payout_seen,
    refund_seen,
)
from server.config import Config

log = structlog.get_logger(__name__)

URL_LIVE = "https://api.monnify.com"
URL_TEST = "https://sandbox.monnify.com"
LEAST_MINOR = 20_00
# A token is replaced before it ends: a request may take a while to arrive.
RENEW_BEFORE = timedelta(seconds=60)
# All tries for one together.
LOGIN_SECONDS = 8.0

_UNKNOWN = re.compile(r"not (?:be )?found|could not find|does ?n.t exist|no (?:such )?transaction", re.I)
_TAKEN = re.compile(r"duplicate.{0,40}reference|reference.{0,40}(?:already|exist|duplicate)", re.I)
_SAME_AGAIN = "D07"


def make(config: Config, clock: Clock, db: Database) -> Monnify | None:
    """The gateway of this configuration; None without its keys."""
    money = config.money
    if not (money.monnify_api_key and money.monnify_secret_key and money.monnify_contract_code):
        return None
    return Monnify(
        api_key=money.monnify_api_key,
        secret_key=money.monnify_secret_key,
        contract_code=money.monnify_contract_code,
        account=money.monnify_account,
        url=money.monnify_url,
        clock=clock,
    )


class Monnify:
    """``models.payments.gateway.Gateway``. ``account`` is the wallet there that payouts leave.

    Without an account it pays nothing out.
    """

    name = "monnify"

    def __init__(
        self,
        *,
        api_key: str,
        secret_key: str,
        contract_code: str,
        account: str | None = None,
        url: str | None = None,
        clock: Clock,
        http: Http | None = None,
    ) -> None:
        if not (api_key and secret_key and contract_code):
            raise ValueError("Monnify needs its API key, its secret key and its contract code")
        self._api_key, self._secret, self._contract = api_key, secret_key, contract_code
        self._account = account
        self._clock = clock
        self._http = http or Http(
            self.name, url or (URL_LIVE if api_key.startswith("MK_PROD_") else URL_TEST)
        )
        self._token: tuple[str, datetime] | None = None
        self._renewing = asyncio.Lock()
        self.terms = Terms(
            currencies=frozenset((CURRENCY,)),
            payouts=frozenset((CURRENCY,)) if account else frozenset(),
            least_minor={CURRENCY: LEAST_MINOR},
        )

    async def checkout(self, ask: Checkout) -> Opened:
        body = {
            "amount": major(ask.amount_minor, CURRENCY),
            "customerName": ask.payer_name,
            "customerEmail": mailbox(ask),
            "paymentReference": ask.reference,
            "paymentDescription": ask.description,
            "currencyCode": ask.currency,
            "contractCode": self._contract,
            "redirectUrl": ask.return_url,
        }
        said = self._done(await self._ask("/api/v1/merchant/transactions/init-transaction", body))
        address = text(said.get("checkoutUrl"), 2000)
        if address is None:
            raise GatewayAway("an opened payment without an address")
        return Opened(checkout_url=address, gateway_reference=text(said.get("transactionReference")))

    async def query(self, reference: str, gateway_reference: str | None) -> PaymentSeen | None:
        if gateway_reference is not None:
            found = await self._read(f"/api/v2/transactions/{quote(gateway_reference, safe='')}")
        else:
            found = await self._read("/api/v2/merchant/transactions/query", {"paymentReference": reference})
        said = self._known(found)
        return None if said is None else payment_seen(said, reference)

    def parse(self, raw: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """A notification. Raises ``NoticeInvalid``."""
        signature = headers.get("monnify-signature", "").strip().lower().encode(errors="replace")
        right = hmac.new(self._secret.encode(), raw, hashlib.sha512).hexdigest().encode()
        if not hmac.compare_digest(signature, right):
            raise NoticeInvalid("the signature is missing or wrong")
        told = notice_object(raw)
        word, data = text(told.get("eventType")), mapping(told.get("eventData"))
        if word is None:
            raise NoticeInvalid("no event")
        about = ABOUT.get(word, About.OTHER)
        ours = {About.PAYMENT: "paymentReference", About.REFUND: "refundReference"}.get(about, "reference")
        happened = data.get("paidOn") or data.get("completedOn") or data.get("createdOn")
        at = instant(happened)
        status = data.get("paymentStatus") or data.get("status") or data.get("refundStatus")
        amount = data.get("amountPaid", data.get("amount", data.get("refundAmount")))
        reference, theirs = text(data.get(ours)), text(data.get("transactionReference"))
        return Notice(
            id=fact_id(word, theirs, reference, status, amount, at and at.replace(microsecond=0)),
            about=about,
            word=word,
            reference=reference,
            gateway_reference=theirs,
            at=at,
        )

    async def refund(self, ask: RefundAsk) -> RefundSeen:
        theirs = ask.payment_gateway_reference
        if theirs is None:
            theirs = await self._before(self._reference_of(ask.payment_reference))
        body = {
            "transactionReference": theirs,
            "refundReference": ask.reference,
            "refundAmount": major(ask.amount_minor, CURRENCY),
            "refundReason": ask.reason[:64],
            "customerNote": ask.reason[:16],
        }
        said = self._done(await self._ask("/api/v1/refunds/initiate-refund", body))
        seen = refund_seen(said, ask.reference)
        # The first answer may say COMPLETED of what is still on its way: only a later look may.
        state = RefundState.PENDING if seen.state is RefundState.DONE else seen.state
        return RefundSeen(
            reference=ask.reference, state=state, gateway_reference=seen.gateway_reference, word=seen.word
        )

    async def refund_status(self, ask: RefundAsk, gateway_reference: str | None) -> RefundSeen | None:
        said = self._known(await self._read(f"/api/v1/refunds/{quote(ask.reference, safe='')}"))
        return None if said is None else refund_seen(said, ask.reference)

    async def banks(self, currency: str) -> list[Bank]:
        if currency not in self.terms.currencies:
            return []
        answer = await self._read("/api/v1/banks")
        found = self._envelope(answer)
        if not isinstance(found, list):
            raise GatewayAway("a list of banks that is none")
        return [
            Bank(code=str(one["code"]), name=str(one["name"]))
            for one in found
            if isinstance(one, dict) and one.get("code") and one.get("name")
        ]

    async def account_name(self, account: BankAccount, currency: str) -> str | None:
        where = {"accountNumber": account.account_number, "bankCode": account.bank_code}
        answer = await self._read("/api/v1/disbursements/account/validate", where)
        if answer.status in (400, 404, 422) and answer.said.get("requestSuccessful") is False:
            return None
        return text(self._done(answer).get("accountName"))

    async def pay_out(self, ask: PayoutAsk) -> PayoutSeen:
        if self._account is None:
            raise GatewayNo("no-account", "no wallet is configured that payouts leave")
        body = {
            "amount": major(ask.amount_minor, CURRENCY),
            "reference": ask.reference,
            "narration": ask.narration,
            "destinationBankCode": ask.to.bank_code,
            "destinationAccountNumber": ask.to.account_number,
            "destinationAccountName": ask.to.account_name,
            "currency": ask.currency,
            "sourceAccountNumber": self._account,
        }
        return payout_seen(self._done(await self._ask("/api/v2/disbursements/single", body)), ask.reference)

    async def payout_status(self, reference: str, gateway_reference: str | None) -> PayoutSeen | None:
        found = await self._read("/api/v2/disbursements/single/summary", {"reference": reference})
        said = self._known(found)
        return None if said is None else payout_seen(said, reference)

    async def authorize_payout(
        self, reference: str, gateway_reference: str | None, password: str
    ) -> PayoutSeen:
        body = {"reference": reference, "authorizationCode": password}
        said = self._done(await self._ask("/api/v2/disbursements/single/validate-otp", body))
        return payout_seen(said, reference)

    async def resend_password(self, reference: str, gateway_reference: str | None) -> None:
        self._done(await self._ask("/api/v2/disbursements/single/resend-otp", {"reference": reference}))

    async def close(self) -> None:
        await self._http.close()

    # --- the way there

    async def _read(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        return await self._signed("GET", path, params=params)

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Answer:
        """A request that may move money: sent once. Only a 401, which did nothing, lets it be sent with a new token."""
        return await self._signed("POST", path, body=body)

    async def _signed(self, method: str, path: str, **more: Any) -> Answer:
        send = self._http.repeated if method == "GET" else self._http.once
        token = await self._before(self._bearer())
        answer = await send(method, path, headers={"Authorization": f"Bearer {token}"}, **more)
        if answer.status == 401:
            token = await self._before(self._bearer(refused=token))
            answer = await send(method, path, headers={"Authorization": f"Bearer {token}"}, **more)
        if answer.status in (401, 403):
            log.error("gateway refuses our key", gateway=self.name, status=answer.status)
            raise GatewayAway(f"{path}: HTTP {answer.status}", sent=False)
        return answer

    async def _before(self, step: Awaitable[str]) -> str:
        """A step before the request itself: when it fails, that one has not left."""
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                return await step
        except TimeoutError:
            raise GatewayAway("too slow before the request itself", sent=False) from None
        except GatewayAway as away:
            raise GatewayAway(str(away), sent=False) from None

    async def _bearer(self, refused: str | None = None) -> str:
        """The token; another one than ``refused``. One renewal serves all who wait for it."""
        async with self._renewing:
            if self._token is not None:
                token, until = self._token
                if token != refused and self._clock.now() < until - RENEW_BEFORE:
                    return token
            self._token = None
            basic = base64.b64encode(f"{self._api_key}:{self._secret}".encode()).decode()
            answer = await self._http.repeated(
                "POST", "/api/v1/auth/login", headers={"Authorization": f"Basic {basic}"}
            )
            said = mapping(answer.said.get("responseBody"))
            fresh, lives = said.get("accessToken"), said.get("expiresIn")
            if answer.status != 200 or not isinstance(fresh, str) or not isinstance(lives, int):
                log.error("gateway refuses our key", gateway=self.name, status=answer.status)
                raise GatewayAway(f"login: HTTP {answer.status}, code {answer.said.get('responseCode')}")
            self._token = (fresh, self._clock.now() + timedelta(seconds=lives))
            return fresh

    async def _reference_of(self, reference: str) -> str:
        seen = await self.query(reference, None)
        if seen is None or seen.gateway_reference is None:
            raise GatewayNo("payment-unknown", "the gateway knows no such payment")
        return seen.gateway_reference

    # --- envelopes

    def _envelope(self, answer: Answer) -> Any:
        """What is inside. Raises ``GatewayNo`` for a refusal in Monnify's words, ``GatewayAway`` for anything else."""
        said = answer.said
        fine = said.get("requestSuccessful")
        if not isinstance(fine, bool):
            raise GatewayAway(f"HTTP {answer.status} that cannot be read")
        if fine and answer.status < 300:
            return said.get("responseBody")
        code, why = str(said.get("responseCode"))[:40], str(said.get("responseMessage"))[:200]
        raise GatewayNo(code, why, taken=_TAKEN.search(why) is not None, later=code == _SAME_AGAIN)

    def _done(self, answer: Answer) -> Mapping[str, Any]:
        found = self._envelope(answer)
        if not isinstance(found, dict):
            raise GatewayAway("an answer without its object")
        return found

    def _known(self, answer: Answer) -> Mapping[str, Any] | None:
        """What is inside of an answer to "how does it stand"; None when it is not known."""
        if answer.said.get("requestSuccessful") is False and (
            answer.status == 404 or _UNKNOWN.search(str(answer.said.get("responseMessage")))
        ):
            return None
        return self._done(answer)
