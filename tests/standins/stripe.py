"""Stripe on loopback, as its documentation describes it: forms, sessions, intents, idempotency keys, signed events."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from models.ports import Clock
from tests.standins.gatewaykit import Hook, Paid, StandIn

SECRET_KEY = "sk_test_standin0of0stripe"
WEBHOOK_SECRET = "whsec_standin0of0stripe"
KEPT = timedelta(hours=24)


class StripeStandIn(StandIn):
    """``secrets`` sign the events, each; ``slow`` names a way to pay that takes days: complete, and not yet paid."""

    name = "stripe"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.secrets = [WEBHOOK_SECRET]
        self.refunds: list[dict[str, Any]] = []
        self.disputes: list[dict[str, Any]] = []
        self.kept: dict[str, tuple[str, int, bytes, datetime]] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/checkout/sessions", self._create, name="create"),
            web.get("/v1/checkout/sessions", self._list, name="sessions"),
            web.get("/v1/checkout/sessions/{id}", self._retrieve, name="retrieve"),
            web.get("/v1/payment_intents/search", self._search, name="search"),
            web.get("/v1/payment_intents/{id}", self._retrieve_intent, name="intent"),
            web.post("/v1/refunds", self._refund, name="refund"),
            web.get("/v1/refunds", self._refunds, name="refunds"),
            web.get("/v1/refunds/{id}", self._refund_status, name="refund-status"),
            web.get("/v1/disputes", self._disputed, name="disputes"),
        ]

    # --- the hand of the payer and of the bank

    async def pay(self, reference: str, amount_minor: int | None = None, currency: str | None = None) -> None:
        """The payer pays so much (all that was asked for), once more if called again."""
        one = self.payments[reference]
        late = one.state == "complete/unpaid"
        one.paid_minor += one.asked_minor if amount_minor is None else amount_minor
        one.paid_currency = currency or one.currency
        one.state = "complete/paid"
        one.more["intent"] = "succeeded"
        word = "async_payment_succeeded" if late else "completed"
        await self.tell(self.event(f"checkout.session.{word}", self._session(one)))

    async def slow(self, reference: str) -> None:
        """The payer has done his part with a way to pay that takes days."""
        one = self.payments[reference]
        one.state = "complete/unpaid"
        one.more["intent"] = "processing"
        await self.tell(self.event("checkout.session.completed", self._session(one)))

    async def end(self, reference: str, state: str) -> None:
        """``EXPIRED``, ``FAILED`` (a slow way to pay), or ``REVERSED`` afterwards."""
        one = self.payments[reference]
        if state == "REVERSED":
            one.reversed_minor = one.paid_minor
            await self.tell(self.event("charge.refunded", self._charge(one)))
        elif state == "FAILED":
            one.state = "complete/unpaid"
            one.more["intent"] = "requires_payment_method"
            await self.tell(self.event("checkout.session.async_payment_failed", self._session(one)))
        else:
            one.state = "expired/unpaid"
            await self.tell(self.event("checkout.session.expired", self._session(one)))

    async def dispute(self, reference: str, amount_minor: int, status: str = "needs_response") -> None:
        """The payer's bank takes money back."""
        one = self.payments[reference]
        charge = f"ch_{one.theirs}"
        self.disputes.append(
            {
                "id": f"du_{self.number()}",
                "charge": charge,
                "payment_intent": f"pi_{one.theirs}",
                "metadata": {},
                "amount": amount_minor,
                "status": status,
            }
        )
        await self.tell(self.event("charge.dispute.created", {"object": "dispute", **self.disputes[-1]}))

    def event(self, word: str, thing: dict[str, Any]) -> Hook:
        """An event as Stripe writes it."""
        body = {
            "id": f"evt_{self.number()}",
            "object": "event",
            "api_version": "2025-01-01",
            "created": int(self.clock.now().timestamp()),
            "data": {"object": thing},
            "livemode": False,
            "pending_webhooks": 1,
            "type": word,
        }
        about = thing.get("client_reference_id") or thing.get("metadata", {}).get("reference") or ""
        return self.sign(json.dumps(body, indent=2).encode(), about)

    def sign(self, raw: bytes, about: str, *, at: int | None = None) -> Hook:
        stamp = int(self.clock.now().timestamp()) if at is None else at
        signed = [
            hmac.new(secret.encode(), f"{stamp}.".encode() + raw, hashlib.sha256).hexdigest()
            for secret in self.secrets
        ]
        header = ",".join([f"t={stamp}", *(f"v1={one}" for one in signed)])
        return Hook(raw, {"Stripe-Signature": header, "Content-Type": "application/json"}, about)

    # --- errors, idempotency

    def unauthorized(self, status: int) -> web.Response:
        return refused(status, "invalid_request_error", "Invalid API Key provided: sk_test_***", "api_key")

    def _fault_of(self, request: web.Request) -> web.Response | None:
        right = request.headers.get("Authorization") == f"Bearer {SECRET_KEY}"
        return None if right else self.unauthorized(401)

    async def _keyed(self, request: web.Request, do: Any) -> web.Response:
        """A POST under its key: the first answer again for a day, a fault included; other parameters are refused."""
        stranger = self._fault_of(request)
        if stranger is not None:
            return stranger
        assert request.content_type == "application/x-www-form-urlencoded", request.content_type
        raw = (await request.read()).decode()
        key = request.headers["Idempotency-Key"]
        before = self.kept.get(key)
        if before is not None and self.clock.now() - before[3] < KEPT:
            if before[0] != raw:
                return refused(
                    400, "idempotency_error", "Keys for idempotent requests can only be used with…"
                )
            return web.Response(
                status=before[1],
                body=before[2],
                content_type="application/json",
                headers={"Idempotent-Replayed": "true"},
            )
        answer: web.Response = await do(form(raw))
        if answer.status < 400:
            assert isinstance(answer.body, bytes)
            self.kept[key] = (raw, answer.status, answer.body, self.clock.now())
        return answer

    async def _after(self, request: web.Request, answer: web.Response, fault: str) -> web.Response:
        faulty = await super()._after(request, answer, fault)
        key = request.headers.get("Idempotency-Key")
        if fault == "500_after" and key in self.kept:
            told = json.dumps({"error": {"type": "api_error", "message": "Something went wrong"}}).encode()
            self.kept[key] = (self.kept[key][0], 500, told, self.clock.now())
        return faulty

    # --- sessions

    async def _create(self, request: web.Request) -> web.Response:
        return await self._keyed(request, self._created)

    async def _created(self, asked: dict[str, Any]) -> web.Response:
        price = asked["line_items"]["0"]["price_data"]
        if not price["unit_amount"].isdigit() or asked["mode"] != "payment" or not asked["success_url"]:
            return refused(400, "invalid_request_error", "Invalid integer", "parameter_invalid_integer")
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", asked.get("customer_email", "x@y")):
            return refused(400, "invalid_request_error", "Invalid email address", "email_invalid")
        if asked["payment_intent_data"]["metadata"] != asked["metadata"]:
            return refused(400, "invalid_request_error", "The intent is not named", "parameter_missing")
        reference, theirs = asked["client_reference_id"], f"{self.number():08d}"
        amount, currency = int(price["unit_amount"]), price["currency"].upper()
        one = Paid(reference, theirs, amount, currency, "open/unpaid", more={"intent": None})
        self.payments[reference] = one
        if self.hook_first:
            await self.pay(reference)
        return web.json_response(self._session(one))

    def _session(self, one: Paid, *, expanded: bool = False) -> dict[str, Any]:
        status, paying = one.state.split("/")
        intent: Any = None if one.more["intent"] is None else f"pi_{one.theirs}"
        if intent is not None and expanded:
            intent = self._intent(one)
        return {
            "id": f"cs_test_{one.theirs}",
            "object": "checkout.session",
            "amount_total": one.asked_minor,
            "client_reference_id": one.reference,
            "created": int(self.clock.now().timestamp()),
            "currency": one.currency.lower(),
            "metadata": {"reference": one.reference},
            "payment_intent": intent,
            "payment_status": paying,
            "status": status,
            "url": f"{self.url}/c/pay/cs_test_{one.theirs}",
        } | one.more.get("answer", {})

    def _intent(self, one: Paid) -> dict[str, Any]:
        return {
            "id": f"pi_{one.theirs}",
            "object": "payment_intent",
            "amount": one.asked_minor,
            "amount_received": one.paid_minor,
            "currency": (one.paid_currency or one.currency).lower(),
            "latest_charge": self._charge(one) if one.paid_minor else None,
            "metadata": {"reference": one.reference},
            "status": one.more["intent"],
        } | one.more.get("intent_answer", {})

    def _charge(self, one: Paid) -> dict[str, Any]:
        charge = f"ch_{one.theirs}"
        currency = (one.paid_currency or one.currency).lower()
        return {
            "id": charge,
            "object": "charge",
            "amount": one.paid_minor,
            "amount_refunded": one.reversed_minor,
            "balance_transaction": {
                "id": "txn",
                "object": "balance_transaction",
                "fee": 59,
                "currency": currency,
            },
            "currency": currency,
            "disputed": any(dispute["charge"] == charge for dispute in self.disputes),
            "metadata": {"reference": one.reference},
            "payment_intent": f"pi_{one.theirs}",
        }

    async def _retrieve(self, request: web.Request) -> web.Response:
        stranger = self._fault_of(request)
        if stranger is not None:
            return stranger
        theirs = request.match_info["id"].removeprefix("cs_test_")
        found = [one for one in self.payments.values() if one.theirs == theirs]
        if not found:
            return refused(404, "invalid_request_error", "No such checkout.session", "resource_missing")
        expand = [value for name, value in request.query.items() if name.startswith("expand")]
        return web.json_response(self._session(found[0], expanded=bool(expand)))

    async def _list(self, request: web.Request) -> web.Response:
        intent = request.query["payment_intent"]
        return listed([self._session(one) for one in self.payments.values() if f"pi_{one.theirs}" == intent])

    async def _search(self, request: web.Request) -> web.Response:
        named = re.fullmatch(r"metadata\['reference'\]:'([^'\\]*)'", request.query["query"])
        assert named is not None, request.query["query"]
        tried = [one for one in self.payments.values() if one.more["intent"] is not None]
        return listed([self._intent(one) for one in tried if one.reference == named[1]])

    async def _retrieve_intent(self, request: web.Request) -> web.Response:
        stranger = self._fault_of(request)
        if stranger is not None:
            return stranger
        theirs = request.match_info["id"].removeprefix("pi_")
        found = [one for one in self.payments.values() if one.theirs == theirs and one.more["intent"]]
        if not found:
            return refused(404, "invalid_request_error", "No such payment_intent", "resource_missing")
        return web.json_response(self._intent(found[0]))

    # --- refunds, disputes

    async def _refund(self, request: web.Request) -> web.Response:
        return await self._keyed(request, self._refunded)

    async def _refunded(self, asked: dict[str, Any]) -> web.Response:
        found = [one for one in self.payments.values() if f"pi_{one.theirs}" == asked["payment_intent"]]
        if not found or int(asked["amount"]) > found[0].paid_minor - found[0].reversed_minor:
            why = "Refund amount is greater than unrefunded amount on charge"
            return refused(400, "invalid_request_error", why, "charge_already_refunded")
        found[0].reversed_minor += int(asked["amount"])
        refund = {
            "id": f"re_{self.number()}",
            "object": "refund",
            "amount": int(asked["amount"]),
            "metadata": asked["metadata"],
            "payment_intent": asked["payment_intent"],
            "status": "pending",
        }
        self.refunds.append(refund)
        return web.json_response(refund)

    async def _refunds(self, request: web.Request) -> web.Response:
        intent = request.query["payment_intent"]
        return listed([one for one in self.refunds if one["payment_intent"] == intent])

    async def _refund_status(self, request: web.Request) -> web.Response:
        found = [one for one in self.refunds if one["id"] == request.match_info["id"]]
        if not found:
            return refused(404, "invalid_request_error", "No such refund", "resource_missing")
        return web.json_response(found[0])

    async def _disputed(self, request: web.Request) -> web.Response:
        charge = request.query["charge"]
        return listed([one for one in self.disputes if one["charge"] == charge])


def listed(found: list[dict[str, Any]]) -> web.Response:
    return web.json_response({"object": "list", "data": found, "has_more": False, "url": "/v1/x"})


def refused(status: int, kind: str, why: str, code: str | None = None) -> web.Response:
    error = {"type": kind, "message": why} | ({"code": code} if code else {})
    return web.json_response({"error": error}, status=status)


def form(raw: str) -> dict[str, Any]:
    """A form with names such as ``a[b][0]`` as nested objects."""
    made: dict[str, Any] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        *path, last = re.findall(r"[^\[\]]+", name)
        at = made
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    return made
