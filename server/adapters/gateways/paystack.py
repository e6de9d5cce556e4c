"""Paystack (Africa): checkout, payouts and refunds, counted in kobo and their like.

Rules of the service: https://paystack.com/docs/api. What is not obvious there:

- ``abandoned`` is said of a payment that was only opened; it may still be paid. No notification tells of a failure.
- A notification is signed with HMAC-SHA512 over its very bytes, with the secret key itself.
- A payout goes to a recipient that is made first, and needs the recipient's code; to make one twice is no harm.
- A refund has no reference of ours: it is kept in the merchant's note, and looked for there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime
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
    PayState,
    RefundAsk,
    RefundSeen,
    Terms,
)
from models.ports import Clock
from server.adapters.gateways.http import (
    Answer,
    Http,
    fact_id,
    mailbox,
    mapping,
    notice_object,
    text,
)
from server.adapters.gateways.paystack_words import (
    about_of,
    instant,
    payment_seen,
    payout_seen,
    refund_seen,
)
from server.config import Config

log = structlog.get_logger(__name__)

URL = "https://api.paystack.co"
# The least that is taken, by currency.
LEAST_MINOR = {"NGN": 50_00, "GHS": 10, "ZAR": 1_00, "KES": 3_00, "USD": 2_00}
# How an account is called where payouts to banks need no more than its number.
ACCOUNTS = {"NGN": "nuban", "GHS": "ghipss"}
BANK_PAGES_MAX = 20

_UNKNOWN = re.compile(r"not found|could ?n.t be found|invalid transfer|does not exist", re.I)
_TAKEN = re.compile(r"duplicate.{0,40}reference|reference.{0,20}(?:already|exist)", re.I)
# Of an account that no bank knows.
_NOBODY = re.compile(r"could not resolve|not resolve account|invalid account", re.I)


def make(config: Config, clock: Clock, db: Database) -> Paystack | None:
    """The gateway of this configuration; None without its key."""
    key = config.money.paystack_secret_key
    return Paystack(secret_key=key, url=config.money.paystack_url) if key else None


class Paystack:
    """``models.payments.gateway.Gateway``."""

    name = "paystack"
    terms = Terms(currencies=frozenset(LEAST_MINOR), payouts=frozenset(ACCOUNTS), least_minor=LEAST_MINOR)

    def __init__(self, *, secret_key: str, url: str | None = None, http: Http | None = None) -> None:
        if not secret_key:
            raise ValueError("Paystack needs its secret key")
        self._secret = secret_key
        self._http = http or Http(self.name, url or URL)

    async def checkout(self, ask: Checkout) -> Opened:
        body = {
            "email": mailbox(ask),
            "amount": ask.amount_minor,
            "currency": ask.currency,
            "reference": ask.reference,
            "callback_url": ask.return_url,
            "metadata": {"cancel_action": ask.return_url},
        }
        said = self._done(await self._ask("/transaction/initialize", body))
        address = text(said.get("authorization_url"), 2000)
        if address is None:
            raise GatewayAway("an opened payment without an address")
        return Opened(checkout_url=address)

    async def query(self, reference: str, gateway_reference: str | None) -> PaymentSeen | None:
        said = self._known(await self._read(f"/transaction/verify/{quote(reference, safe='')}"))
        if said is None:
            return None
        seen = payment_seen(said, reference)
        if seen.state is not PayState.PAID:
            return seen
        # The payment itself says only when all of it has gone back.
        return payment_seen(said, reference, await self._refunds_of(said))

    def parse(self, raw: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """A notification. Raises ``NoticeInvalid``."""
        signature = headers.get("x-paystack-signature", "").strip().lower().encode(errors="replace")
        right = hmac.new(self._secret.encode(), raw, hashlib.sha512).hexdigest().encode()
        if not hmac.compare_digest(signature, right):
            raise NoticeInvalid("the signature is missing or wrong")
        told = notice_object(raw)
        word, data = text(told.get("event")), mapping(told.get("data"))
        if word is None:
            raise NoticeInvalid("no event")
        about, reference = about_of(word, data)
        theirs = text(data.get("transfer_code")) if about is About.PAYOUT else None
        at = instant(data.get("paid_at") or data.get("updatedAt") or data.get("createdAt"))
        return Notice(
            id=fact_id(word, data.get("id"), reference, theirs, data.get("status"), data.get("amount"), at),
            about=about,
            word=word,
            reference=reference,
            gateway_reference=theirs,
            at=at,
        )

    async def refund(self, ask: RefundAsk) -> RefundSeen:
        body = {
            "transaction": ask.payment_reference,
            "amount": ask.amount_minor,
            "currency": ask.currency,
            "merchant_note": ask.reference,
            "customer_note": ask.reason[:200],
        }
        return refund_seen(self._done(await self._ask("/refund", body)), ask.reference)

    async def refund_status(self, ask: RefundAsk, gateway_reference: str | None) -> RefundSeen | None:
        if gateway_reference is not None:
            said = self._known(await self._read(f"/refund/{quote(gateway_reference, safe='')}"))
            return None if said is None else refund_seen(said, ask.reference)
        paid = self._known(await self._read(f"/transaction/verify/{quote(ask.payment_reference, safe='')}"))
        if paid is None:
            return None
        for one in await self._refunds_of(paid):
            if one.get("merchant_note") == ask.reference:
                return refund_seen(one, ask.reference)
        return None

    async def banks(self, currency: str) -> list[Bank]:
        if currency not in ACCOUNTS:
            return []
        made: list[Bank] = []
        after = ""
        for _ in range(BANK_PAGES_MAX):
            params = {"currency": currency, "use_cursor": "true", "perPage": "100"}
            page = self._envelope(await self._read("/bank", params | ({"next": after} if after else {})))
            found = page.get("data")
            if not isinstance(found, list):
                raise GatewayAway("a list of banks that is none")
            made += [
                Bank(code=str(one["code"]), name=str(one["name"]))
                for one in found
                if isinstance(one, dict) and one.get("code") and one.get("name")
            ]
            after = text(mapping(page.get("meta")).get("next")) or ""
            if not after:
                break
        return made

    async def account_name(self, account: BankAccount, currency: str) -> str | None:
        where = {"account_number": account.account_number, "bank_code": account.bank_code}
        answer = await self._read("/bank/resolve", where)
        said = answer.said
        if said.get("status") is False and (
            answer.status in (404, 422) or _NOBODY.search(str(said.get("message")))
        ):
            return None
        return text(self._done(answer).get("account_name"))

    async def pay_out(self, ask: PayoutAsk) -> PayoutSeen:
        if ask.currency not in ACCOUNTS:
            raise GatewayNo("no-payouts", f"no payouts in {ask.currency}")
        body = {
            "source": "balance",
            "amount": ask.amount_minor,
            "currency": ask.currency,
            "recipient": await self._recipient(ask),
            "reference": ask.reference,
            "reason": ask.narration,
        }
        return payout_seen(self._done(await self._ask("/transfer", body)), ask.reference)

    async def payout_status(self, reference: str, gateway_reference: str | None) -> PayoutSeen | None:
        said = self._known(await self._read(f"/transfer/verify/{quote(reference, safe='')}"))
        return None if said is None else payout_seen(said, reference)

    async def authorize_payout(
        self, reference: str, gateway_reference: str | None, password: str
    ) -> PayoutSeen:
        code = gateway_reference or await self._code_of(reference)
        body = {"transfer_code": code, "otp": password}
        return payout_seen(self._done(await self._ask("/transfer/finalize_transfer", body)), reference)

    async def resend_password(self, reference: str, gateway_reference: str | None) -> None:
        code = gateway_reference or await self._code_of(reference)
        self._envelope(await self._ask("/transfer/resend_otp", {"transfer_code": code, "reason": "transfer"}))

    async def close(self) -> None:
        await self._http.close()

    # --- the way there

    async def _read(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        return self._heard(path, await self._http.read(path, headers=self._key(), params=params))

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Answer:
        """A request that may move money: sent once."""
        return self._heard(path, await self._http.once("POST", path, headers=self._key(), body=body))

    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._secret}"}

    def _heard(self, path: str, answer: Answer) -> Answer:
        if answer.status in (401, 403):
            log.error("gateway refuses our key", gateway=self.name, status=answer.status)
            raise GatewayAway(f"{path}: HTTP {answer.status}", sent=False)
        return answer

    async def _recipient(self, ask: PayoutAsk) -> str:
        """Whom it goes to, in Paystack's books. Nothing has been paid when this fails."""
        body = {
            "type": ACCOUNTS[ask.currency],
            "name": ask.to.account_name,
            "account_number": ask.to.account_number,
            "bank_code": ask.to.bank_code,
            "currency": ask.currency,
        }
        path = "/transferrecipient"
        try:
            answer = await self._http.repeated("POST", path, headers=self._key(), body=body)
            code = text(self._done(self._heard(path, answer)).get("recipient_code"))
            if code is None:
                raise GatewayAway("a recipient without a code")
        except GatewayAway as away:
            raise GatewayAway(str(away), sent=False) from None
        return code

    async def _refunds_of(self, paid: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The refunds of a payment, by Paystack's number of it."""
        params = {"transaction": str(paid.get("id")), "perPage": "100"}
        found = self._envelope(await self._read("/refund", params)).get("data")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    async def _code_of(self, reference: str) -> str:
        seen = await self.payout_status(reference, None)
        if seen is None or seen.gateway_reference is None:
            raise GatewayNo("payout-unknown", "the gateway knows no such payout")
        return seen.gateway_reference

    # --- envelopes

    def _envelope(self, answer: Answer) -> Mapping[str, Any]:
        """The whole answer. Raises ``GatewayNo`` for a refusal in Paystack's words, ``GatewayAway`` for the rest."""
        said = answer.said
        fine = said.get("status")
        if not isinstance(fine, bool):
            raise GatewayAway(f"HTTP {answer.status} that cannot be read")
        if fine and answer.status < 300:
            return said
        why, code = str(said.get("message"))[:200], str(said.get("code") or f"http-{answer.status}")[:60]
        raise GatewayNo(code, why, taken="duplicate" in code or _TAKEN.search(why) is not None)

    def _done(self, answer: Answer) -> Mapping[str, Any]:
        found = self._envelope(answer).get("data")
        if not isinstance(found, dict):
            raise GatewayAway("an answer without its data")
        return found

    def _known(self, answer: Answer) -> Mapping[str, Any] | None:
        """The data of an answer to "how does it stand"; None when it is not known."""
        if answer.said.get("status") is False and (
            answer.status == 404
            or "not_found" in str(answer.said.get("code"))
            or _UNKNOWN.search(str(answer.said.get("message")))
        ):
            return None
        return self._done(answer)
