"""Paystack on loopback, as its documentation describes it: kobo, envelopes, recipients, one-time passwords."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any

from aiohttp import web

from models.ports import Clock
from tests.standins.gatewaykit import Hook, Paid, Sent, StandIn

SECRET_KEY = "sk_test_standin0of0paystack"
OTP = "928783"
# What a bank is called in the list, by two pages.
PAGE = 2


class PaystackStandIn(StandIn):
    """``otp`` asks the operator for a password with every payout."""

    name = "paystack"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.otp = False
        self.immediate: str | None = None
        self.recipients: dict[str, dict[str, Any]] = {}
        self.refunds: list[dict[str, Any]] = []

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/transaction/initialize", self._initialize, name="initialize"),
            web.get("/transaction/verify/{reference}", self._verify, name="verify"),
            web.post("/transferrecipient", self._recipient, name="recipient"),
            web.post("/transfer", self._transfer, name="transfer"),
            web.get("/transfer/verify/{reference}", self._verify_transfer, name="verify-transfer"),
            web.post("/transfer/finalize_transfer", self._finalize, name="finalize"),
            web.post("/transfer/resend_otp", self._resend, name="resend-otp"),
            web.post("/refund", self._refund, name="refund"),
            web.get("/refund", self._refunds, name="refunds"),
            web.get("/refund/{id}", self._refund_status, name="refund-status"),
            web.get("/bank", self._banks, name="banks"),
            web.get("/bank/resolve", self._resolve, name="resolve"),
        ]

    # --- the hand of the payer, of the bank, of the operator

    async def pay(self, reference: str, amount_minor: int | None = None, currency: str | None = None) -> None:
        """The payer pays so much (all that was asked for), once more if called again."""
        one = self.payments[reference]
        one.paid_minor += one.asked_minor if amount_minor is None else amount_minor
        one.paid_currency = currency or one.currency
        one.state = "success"
        await self.tell(self.hook("charge.success", self._told(one)))

    async def end(self, reference: str, state: str) -> None:
        """Not paid (``failed``; no hook tells of it), or ``REVERSED`` afterwards."""
        one = self.payments[reference]
        one.state = state.lower()
        if one.state == "reversed":
            one.reversed_minor = one.paid_minor
            data = {"status": "processed", "transaction_reference": reference, "amount": str(one.paid_minor)}
            await self.tell(self.hook("refund.processed", data))

    async def settle(self, reference: str, state: str) -> None:
        """The bank has answered: ``SUCCESS``, ``FAILED`` or, later, ``REVERSED``."""
        one = self.payouts[reference]
        one.state = state.lower()
        await self.tell(self.hook(f"transfer.{one.state}", self._payout(one)))

    def hook(self, event: str, data: dict[str, Any]) -> Hook:
        """A notification as Paystack writes it."""
        raw = json.dumps({"event": event, "data": data}, separators=(",", ":")).encode()
        return self.sign(raw, str(data.get("reference") or data.get("transaction_reference") or ""))

    def sign(self, raw: bytes, about: str) -> Hook:
        signature = hmac.new(SECRET_KEY.encode(), raw, hashlib.sha512).hexdigest()
        return Hook(raw, {"x-paystack-signature": signature, "Content-Type": "application/json"}, about)

    # --- envelopes

    def unauthorized(self, status: int) -> web.Response:
        return refused(status, "Invalid key", "invalid_Key")

    def _stranger(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") != f"Bearer {SECRET_KEY}"

    # --- payments

    async def _initialize(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json()
        if not re.fullmatch(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+", body.get("email", "")):
            return refused(400, "Invalid Email Address Passed", "invalid_email_address")
        if not re.fullmatch(r"[0-9A-Za-z.=-]+", body["reference"]):
            return refused(400, "Invalid characters in reference", "invalid_params")
        amount = body["amount"]
        if isinstance(amount, bool) or not isinstance(amount, int) or amount <= 0:
            return refused(400, "Invalid Amount Sent", "invalid_amount")
        reference = body["reference"]
        if reference in self.payments:
            return refused(400, "Duplicate Transaction Reference", "duplicate_reference")
        one = Paid(reference, str(self.number()), amount, body["currency"], "abandoned")
        self.payments[reference] = one
        if self.hook_first:
            await self.pay(reference)
        return fine(
            "Authorization URL created",
            {
                "authorization_url": f"{self.url}/pay/{one.theirs}",
                "access_code": f"code{one.theirs}",
                "reference": reference,
            },
        )

    async def _verify(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        one = self.payments.get(request.match_info["reference"])
        if one is None:
            return refused(404, "Transaction reference not found.", "transaction_not_found")
        return fine("Verification successful", self._told(one) | one.more.get("answer", {}))

    def _told(self, one: Paid) -> dict[str, Any]:
        paid = one.state in ("success", "reversed")
        return {
            "id": int(one.theirs),
            "domain": "test",
            "status": one.state,
            "reference": one.reference,
            "amount": one.paid_minor if paid else one.asked_minor,
            "requested_amount": one.asked_minor,
            "currency": one.paid_currency or one.currency,
            "fees": 150 if paid else None,
            "paid_at": self.clock.now().isoformat().replace("+00:00", "Z") if paid else None,
            "authorization": one.more.get("card", {}),
            "customer": {"email": "somebody@example.org"},
            "metadata": "",
        }

    # --- payouts

    async def _recipient(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json()
        if self.accounts.get((body["bank_code"], body["account_number"])) is None or body["type"] != "nuban":
            return refused(400, "Account details are invalid", "invalid_bank_details")
        # The same again for the same account.
        code = f"RCP_{body['bank_code']}{body['account_number']}"
        self.recipients[code] = body
        return fine("Transfer recipient created successfully", {"recipient_code": code, "active": True})

    async def _transfer(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json()
        if body["source"] != "balance" or body["recipient"] not in self.recipients:
            return refused(400, "Recipient specified is invalid", "invalid_recipient")
        if not re.fullmatch(r"[a-z0-9_-]{16,50}", body["reference"]):
            return refused(400, "The reference is not one", "invalid_params")
        if body["reference"] in self.payouts:
            why = "Please provide a unique reference. Reference already exists on a transfer"
            return refused(400, why, "duplicate_transfer_reference")
        state = self.immediate or ("otp" if self.otp else "pending")
        account = self.recipients[body["recipient"]]["account_number"]
        theirs = f"TRF_{self.number():012d}"
        one = Sent(body["reference"], theirs, body["amount"], body["currency"], account, state)
        self.payouts[one.reference] = one
        if self.hook_first:
            await self.settle(one.reference, "SUCCESS")
        return fine("Transfer requires OTP to continue", self._payout(one))

    async def _verify_transfer(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        one = self.payouts.get(request.match_info["reference"])
        if one is None:
            return refused(404, "Transfer not found", "not_found")
        return fine("Transfer retrieved", self._payout(one))

    async def _finalize(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json()
        found = [one for one in self.payouts.values() if one.theirs == body["transfer_code"]]
        if not found or found[0].state != "otp" or body["otp"] != OTP:
            return refused(400, "Transfer is not currently awaiting OTP", "invalid_params")
        found[0].state = "pending"
        return fine("Transfer has been queued", self._payout(found[0]))

    async def _resend(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json()
        if body["transfer_code"] not in [one.theirs for one in self.payouts.values()]:
            return refused(400, "Transfer code is invalid", "invalid_params")
        return web.json_response({"status": True, "message": "OTP has been resent"})

    def _payout(self, one: Sent) -> dict[str, Any]:
        return {
            "id": int(one.theirs.removeprefix("TRF_")),
            "reference": one.reference,
            "transfer_code": one.theirs,
            "amount": one.amount_minor,
            "currency": one.currency,
            "source": "balance",
            "status": one.state,
            "updatedAt": self.clock.now().isoformat().replace("+00:00", "Z"),
        }

    # --- banks, refunds

    async def _banks(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        codes = sorted({bank for bank, _ in self.accounts})
        begin = int(request.query.get("next", "0"))
        page = [{"name": f"Bank {code}", "code": code} for code in codes[begin : begin + PAGE]]
        after = str(begin + PAGE) if begin + PAGE < len(codes) else None
        said = {"status": True, "message": "Banks retrieved", "data": page, "meta": {"next": after}}
        return web.json_response(said)

    async def _resolve(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        number, bank = request.query["account_number"], request.query["bank_code"]
        name = self.accounts.get((bank, number))
        if name is None:
            return refused(422, "Could not resolve account name. Check parameters or try again.", "invalid")
        return fine("Account number resolved", {"account_number": number, "account_name": name, "bank_id": 9})

    async def _refund(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        body = await request.json()
        one = self.payments.get(body["transaction"])
        if one is None or one.state != "success" or body["amount"] > one.paid_minor:
            return refused(400, "Transaction has not been paid, or not so much", "invalid_params")
        refund = {
            "id": self.number(),
            "transaction": int(one.theirs),
            "amount": body["amount"],
            "currency": body["currency"],
            "merchant_note": body["merchant_note"],
            "customer_note": body["customer_note"],
            "status": "pending",
        }
        self.refunds.append(refund)
        return fine("Refund has been queued for processing", refund)

    async def _refunds(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        which = request.query["transaction"]
        return fine("Refunds retrieved", [one for one in self.refunds if str(one["transaction"]) == which])

    async def _refund_status(self, request: web.Request) -> web.Response:
        if self._stranger(request):
            return self.unauthorized(401)
        found = [one for one in self.refunds if str(one["id"]) == request.match_info["id"]]
        return fine("Refund retrieved", found[0]) if found else refused(404, "Refund not found", "not_found")


def fine(message: str, data: Any) -> web.Response:
    return web.json_response({"status": True, "message": message, "data": data})


def refused(status: int, why: str, code: str) -> web.Response:
    said = {"status": False, "message": why, "type": "validation_error", "code": code, "meta": {}}
    return web.json_response(said, status=status)
