"""Monnify on loopback, as its documentation describes it: naira as text, envelopes, tokens that end, signed hooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from models.ports import Clock
from tests.standins.gatewaykit import Hook, Paid, Sent, StandIn

API_KEY = "MK_TEST_STANDIN000"
SECRET_KEY = "SECRET0OF0THE0STANDIN0OF0MONNIFY"
CONTRACT = "5867418298"
ACCOUNT = "3934178936"
TOKEN_SECONDS = 3600
OTP = "491763"
WAT = timezone(timedelta(hours=1))


class MonnifyStandIn(StandIn):
    """``otp`` asks the operator for a password with every payout; ``forms`` picks the form of times in hooks."""

    name = "monnify"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.otp = False
        self.immediate: str | None = None  # a payout's state at once, instead of PENDING
        self.tokens: dict[str, datetime] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self._recent: dict[tuple[str, int], datetime] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/auth/login", self._login, name="login"),
            web.post("/api/v1/merchant/transactions/init-transaction", self._init, name="init"),
            web.get("/api/v2/transactions/{reference}", self._status, name="status"),
            web.get("/api/v2/merchant/transactions/query", self._query, name="query"),
            web.get("/api/v1/banks", self._banks, name="banks"),
            web.get("/api/v1/disbursements/account/validate", self._validate, name="validate"),
            web.post("/api/v2/disbursements/single", self._transfer, name="transfer"),
            web.post("/api/v2/disbursements/single/validate-otp", self._authorize, name="validate-otp"),
            web.post("/api/v2/disbursements/single/resend-otp", self._resend, name="resend-otp"),
            web.get("/api/v2/disbursements/single/summary", self._summary, name="summary"),
            web.post("/api/v1/refunds/initiate-refund", self._refund, name="refund"),
            web.get("/api/v1/refunds/{reference}", self._refund_status, name="refund-status"),
        ]

    # --- the hand of the payer, of the bank, of the operator

    async def pay(self, reference: str, amount_minor: int | None = None, currency: str = "NGN") -> None:
        """The payer pays so much (all that was asked for), once more if called again."""
        one = self.payments[reference]
        one.paid_minor += one.asked_minor if amount_minor is None else amount_minor
        one.paid_currency = currency
        one.state = "PAID"
        if one.paid_minor != one.asked_minor:
            one.state = "OVERPAID" if one.paid_minor > one.asked_minor else "PARTIALLY_PAID"
        await self.tell(self.hook("SUCCESSFUL_TRANSACTION", self._told(one)))

    async def end(self, reference: str, state: str) -> None:
        """Not paid: ``FAILED``, ``CANCELLED``, ``ABANDONED``, ``EXPIRED``; or ``REVERSED`` afterwards."""
        one = self.payments[reference]
        one.state = state
        if state == "REVERSED":
            one.reversed_minor = one.paid_minor

    async def settle(self, reference: str, state: str) -> None:
        """The bank has answered: ``SUCCESS``, ``FAILED`` or, later, ``REVERSED``."""
        one = self.payouts[reference]
        one.state = state
        await self.tell(self._hook_of(one))

    def hook(self, event: str, data: dict[str, Any]) -> Hook:
        """A notification, in compact JSON as Monnify writes it."""
        raw = json.dumps({"eventType": event, "eventData": data}, separators=(",", ":")).encode()
        return self.sign(raw, data.get("paymentReference") or data.get("reference") or "")

    def sign(self, raw: bytes, about: str) -> Hook:
        signature = hmac.new(SECRET_KEY.encode(), raw, hashlib.sha512).hexdigest()
        return Hook(raw, {"monnify-signature": signature, "Content-Type": "application/json"}, about)

    # --- tokens and envelopes

    def unauthorized(self, status: int) -> web.Response:
        return refused(status, 99, "Invalid token, access denied")

    async def _login(self, request: web.Request) -> web.Response:
        right = base64.b64encode(f"{API_KEY}:{SECRET_KEY}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {right}":
            return refused(401, 99, "Invalid username/password")
        token = f"token-{self.number()}"
        self.tokens[token] = self.clock.now() + timedelta(seconds=TOKEN_SECONDS)
        return fine({"accessToken": token, "expiresIn": TOKEN_SECONDS - 1})

    def _stranger(self, request: web.Request) -> bool:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return token not in self.tokens or self.tokens[token] <= self.clock.now()

    # --- payments

    async def _init(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json(loads=exactly)
        wanted = ("amount", "customerEmail", "paymentReference", "currencyCode", "contractCode")
        if any(not body.get(name) for name in wanted) or body["contractCode"] != CONTRACT:
            return refused(422, "99", "A field is missing")
        amount = naira(body["amount"])
        if amount is None or amount < 2000:
            return refused(400, "99", "The amount must be 20.00 or more")
        if body["paymentReference"] in self.payments:
            return refused(422, "99", "Duplicate payment reference")
        reference = body["paymentReference"]
        theirs = f"MNFY|04|{self.clock.now():%Y%m%d%H%M%S}|{self.number():06d}"
        self.payments[reference] = Paid(reference, theirs, amount, body["currencyCode"], "PENDING")
        self.payments[reference].more = {"customer": body["customerEmail"]}
        if self.hook_first:
            await self.pay(reference)
        return fine(
            {
                "transactionReference": theirs,
                "paymentReference": reference,
                "merchantName": "The stand-in",
                "apiKey": API_KEY,
                "enabledPaymentMethod": ["ACCOUNT_TRANSFER", "CARD"],
                "checkoutUrl": f"{self.url}/checkout/{theirs.replace('|', '-')}",
            }
        )

    async def _status(self, request: web.Request) -> web.Response:
        if "|" in request.raw_path:
            return web.Response(status=400, text="a bare | in the path")
        theirs = unquote(request.match_info["reference"])
        return self._answer(request, lambda one: one.theirs == theirs)

    async def _query(self, request: web.Request) -> web.Response:
        reference = request.query.get("paymentReference")
        return self._answer(request, lambda one: one.reference == reference)

    def _answer(self, request: web.Request, is_it: Any) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        found = [one for one in self.payments.values() if is_it(one)]
        if not found:
            return refused(404, "99", "There's no transaction matching supplied reference")
        one = found[0]
        paid = f"{Decimal(one.paid_minor) / 100:.2f}"
        settled = max(0, one.paid_minor - 1000)
        said = {
            "transactionReference": one.theirs,
            "paymentReference": one.reference,
            "amountPaid": paid,
            "totalPayable": f"{Decimal(one.asked_minor) / 100:.2f}",
            "settlementAmount": f"{Decimal(settled) / 100:.2f}",
            "paidOn": f"{self.clock.now().astimezone(WAT):%d/%m/%Y %I:%M:%S %p}",
            "paymentStatus": one.state,
            "currency": one.paid_currency or one.currency,
            "paymentMethod": "CARD",
            "product": {"type": "API_NOTIFICATION", "reference": one.reference},
            "cardDetails": one.more.get("card", {}),
            "accountPayments": [],
            "customer": {"email": one.more["customer"], "name": "Somebody"},
            "metaData": {},
        }
        return fine(said | one.more.get("answer", {}))

    def _told(self, one: Paid) -> dict[str, Any]:
        """A payment as a hook tells it: another type of number and another form of time with every one."""
        number, now = self.number(), self.clock.now().astimezone(WAT)
        paid = Decimal(one.paid_minor) / 100
        hour = now.hour % 12 or 12
        times = (
            f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d}",
            f"{now:%d/%m/%Y} {hour}:{now:%M:%S %p}",
            f"{now:%d/%m/%Y %I:%M:%S %p}",
        )
        source = {"amountPaid": float(paid), "accountName": "A PAYER", "bankCode": "232"}
        return {
            "product": {"reference": one.reference, "type": "API_NOTIFICATION"},
            "transactionReference": one.theirs,
            "paymentReference": one.reference,
            "paidOn": times[number % 3],
            "paymentDescription": "a deposit",
            "metaData": {},
            "paymentSourceInformation": [source] if number % 2 else {},
            "destinationAccountInformation": {},
            "amountPaid": int(paid) if paid == int(paid) else float(paid),
            "totalPayable": float(Decimal(one.asked_minor) / 100),
            "cardDetails": {},
            "paymentMethod": "ACCOUNT_TRANSFER",
            "currency": one.paid_currency or one.currency,
            "settlementAmount": f"{paid:.2f}" if number % 2 else float(paid),
            "paymentStatus": one.state,
            "customer": {"name": "Somebody", "email": one.more["customer"]},
        }

    # --- payouts

    async def _banks(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        codes = sorted({bank for bank, _ in self.accounts})
        return fine([{"name": f"Bank {code}", "code": code, "ussdTemplate": None} for code in codes])

    async def _validate(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        bank, number = request.query["bankCode"], request.query["accountNumber"]
        name = self.accounts.get((bank, number))
        if name is None:
            return refused(404, "99", "Could not validate account number")
        return fine({"accountNumber": number, "accountName": name, "bankCode": bank})

    async def _transfer(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json(loads=exactly)
        if not body.get("destinationAccountName"):
            return refused(400, "D01", "destinationAccountName is required")
        if "currencyCode" in body or body.get("currency") != "NGN" or body["sourceAccountNumber"] != ACCOUNT:
            return refused(400, "D02", "A field is wrong")
        if body["reference"] in self.payouts:
            return refused(400, "D03", "Duplicate reference: a transfer with this reference exists")
        amount, account = naira(body["amount"]), body["destinationAccountNumber"]
        assert amount is not None
        last = self._recent.get((account, amount))
        if last is not None and self.clock.now() - last < timedelta(minutes=2):
            return refused(400, "D07", "Transaction seems to be a duplicate")
        if self.accounts.get((body["destinationBankCode"], account)) != body["destinationAccountName"]:
            return refused(400, "D08", "The name is not that of the account")
        self._recent[account, amount] = self.clock.now()
        theirs = f"MFDS{self.number():024d}"
        state = self.immediate or ("PENDING_AUTHORIZATION" if self.otp else "PENDING")
        one = Sent(body["reference"], theirs, amount, "NGN", account, state)
        one.more = {"bank": body["destinationBankCode"], "name": body["destinationAccountName"]}
        self.payouts[one.reference] = one
        if self.hook_first:
            await self.settle(one.reference, "SUCCESS")
        return fine(self._payout(one))

    async def _authorize(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json()
        one = self.payouts.get(body["reference"])
        if one is None:
            return refused(404, "99", "Could not find transaction")
        if one.state != "PENDING_AUTHORIZATION" or body["authorizationCode"] != OTP:
            return refused(400, "99", "The authorization code is wrong or has expired")
        one.state = "PENDING"
        return fine(self._payout(one))

    async def _resend(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        if (await request.json())["reference"] not in self.payouts:
            return refused(404, "99", "Could not find transaction")
        return fine({"message": "Authorization code will be processed and sent to predefined email"})

    async def _summary(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        one = self.payouts.get(request.query["reference"])
        if one is None:
            return refused(404, "99", "Could not find disbursement transaction")
        return fine(self._payout(one))

    def _payout(self, one: Sent) -> dict[str, Any]:
        return {
            "amount": float(Decimal(one.amount_minor) / 100),
            "reference": one.reference,
            "transactionReference": one.theirs,
            "status": one.state,
            "dateCreated": self.clock.now().isoformat(),
            "totalFee": 35.0,
            "destinationAccountName": one.more["name"],
            "destinationBankCode": one.more["bank"],
            "destinationAccountNumber": one.account,
        }

    def _hook_of(self, one: Sent) -> Hook:
        kind = {"SUCCESS": "SUCCESSFUL", "FAILED": "FAILED", "REVERSED": "REVERSED"}[one.state]
        data = {
            "amount": float(Decimal(one.amount_minor) / 100),
            "transactionReference": one.theirs,
            "fee": 35,
            "destinationAccountNumber": one.account,
            "sessionId": "",
            "createdOn": "17/03/2021 3:23:32 AM",
            "completedOn": f"{self.clock.now().astimezone(WAT):%d/%m/%Y %I:%M:%S %p}",
            "reference": one.reference,
            "destinationBankCode": one.more["bank"],
            "currency": one.currency,
            "status": one.state,
        }
        return self.hook(f"{kind}_DISBURSEMENT", data)

    # --- refunds

    async def _refund(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json(loads=exactly)
        amount = naira(body.get("refundAmount"))
        paid = [one for one in self.payments.values() if one.theirs == body.get("transactionReference")]
        if amount is None or not paid or len(body["refundReason"]) > 64 or len(body["customerNote"]) > 16:
            return refused(400, "99", "A field is missing or too long")
        if body["refundReference"] in self.refunds:
            return refused(422, "99", "Duplicate refund reference")
        self.refunds[body["refundReference"]] = {
            "refundReference": body["refundReference"],
            "transactionReference": body["transactionReference"],
            "refundAmount": str(body["refundAmount"]),
            "refundStatus": "PENDING",
        }
        # It may say so already now.
        return fine(self.refunds[body["refundReference"]] | {"refundStatus": "COMPLETED"})

    async def _refund_status(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        one = self.refunds.get(request.match_info["reference"])
        return refused(404, "99", "Refund not found") if one is None else fine(one)


def fine(body: Any) -> web.Response:
    said = {"requestSuccessful": True, "responseMessage": "success", "responseCode": "0"}
    return web.json_response({**said, "responseBody": body})


def refused(status: int, code: int | str, why: str) -> web.Response:
    said = {"requestSuccessful": False, "responseMessage": why, "responseCode": code}
    return web.json_response(said, status=status)


def exactly(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def naira(value: Any) -> int | None:
    """Naira as kobo; None for text, and for more than two decimals."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    kobo = value * 100
    return int(kobo) if kobo == int(kobo) else None
