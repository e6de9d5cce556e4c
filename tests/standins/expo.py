"""Expo's push service on loopback, as its documentation describes it.

``POST /--/api/v2/push/send`` takes a message or a list of at most 100 for one project and answers with a ticket for
each; ``POST /--/api/v2/push/getReceipts`` says of at most 1000 tickets what became of them, as far as it is known.
A test says what goes wrong by ``mode`` (every request), ``dead`` and ``ticket_errors`` (single tokens),
``receipt_errors`` and ``silent`` (receipts), ``projects`` (tokens of other projects), ``spoiled`` (messages that are
refused with all beside them) and ``hold`` (answers wait).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

MESSAGES_MAX = 100
RECEIPTS_MAX = 1000


class ExpoStandIn:
    """Everything that was asked of it, and how it is to behave.

    ``requests`` has one entry per request that was taken, ``pushed`` every message of those. ``mode`` is ``ok``,
    ``down`` (500), ``too_many`` (429), ``malformed`` (not JSON), ``nonsense`` (JSON of another shape), ``unsigned``
    (another access token is wanted), or a function that picks one of these for each request by its number from 1.
    """

    def __init__(self) -> None:
        self.requests: list[list[dict[str, Any]]] = []
        self.authorizations: list[str | None] = []
        self.asked = 0
        self.mode: str | Callable[[int], str] = "ok"
        self.dead: set[str] = set()
        self.ticket_errors: dict[str, str] = {}
        self.projects: dict[str, str] = {}
        self.spoiled: set[str] = set()
        self.hold: asyncio.Event | None = None
        self.holds: str | None = None  # only requests for this type of data wait
        self.arrived = asyncio.Event()
        self.url = ""
        self.retry_after: str | None = None
        # What became of a push: an error by its ticket's id, or by its token; what is in neither got through.
        self.receipt_errors: dict[str, str] = {}
        self.silent = False
        self.receipts_asked: list[list[str]] = []
        self.tickets: dict[str, str] = {}
        self._runner: web.AppRunner | None = None

    @property
    def pushed(self) -> list[dict[str, Any]]:
        """Every message that was taken, in order."""
        return [message for request in self.requests for message in request]

    async def start(self) -> None:
        """Listen on a free port; ``url`` is then the address for ``EXPO_URL``."""
        app = web.Application()
        app.router.add_post("/--/api/v2/push/send", self._send)
        app.router.add_post("/--/api/v2/push/getReceipts", self._receipts)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self.hold is not None:
            self.hold.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _send(self, request: web.Request) -> web.Response:
        self.asked += 1
        number = self.asked
        body = await request.json()
        self.arrived.set()
        messages = body if isinstance(body, list) else [body]
        if self.hold is not None and self.holds in (None, messages[0]["data"]["type"]):
            await self.hold.wait()
        fault = self._fault(number)
        if fault is not None:
            return fault
        if len(messages) > MESSAGES_MAX:
            return _refused(400, "PUSH_TOO_MANY_NOTIFICATIONS")
        if any(not isinstance(m.get("to"), str) or m["to"] in self.spoiled for m in messages):
            return _refused(400, "VALIDATION_ERROR")
        by_project: dict[str, list[str]] = {}
        for message in messages:
            by_project.setdefault(self.projects.get(message["to"], "@us/app"), []).append(message["to"])
        if len(by_project) > 1:
            return _refused(400, "PUSH_TOO_MANY_EXPERIENCE_IDS", details=by_project)
        self.requests.append(messages)
        self.authorizations.append(request.headers.get("Authorization"))
        return web.json_response({"data": [self._ticket(message) for message in messages]})

    def _fault(self, number: int) -> web.Response | None:
        mode = self.mode(number) if callable(self.mode) else self.mode
        match mode:
            case "down":
                return web.Response(
                    status=500, text="<html>Internal Server Error</html>", content_type="text/html"
                )
            case "too_many":
                refused = _refused(429, "TOO_MANY_REQUESTS")
                if self.retry_after is not None:
                    refused.headers["Retry-After"] = self.retry_after
                return refused
            case "malformed":
                return web.Response(text="{'data'", content_type="application/json")
            case "nonsense":
                return web.json_response({"data": None})
            case "unsigned":
                return _refused(401, "UNAUTHORIZED")
        return None

    async def _receipts(self, request: web.Request) -> web.Response:
        self.asked += 1
        fault = self._fault(self.asked)
        if fault is not None:
            return fault
        ids = (await request.json())["ids"]
        if len(ids) > RECEIPTS_MAX:
            return _refused(400, "PUSH_TOO_MANY_RECEIPTS")
        self.receipts_asked.append(ids)
        self.authorizations.append(request.headers.get("Authorization"))
        known = {} if self.silent else {one: self._receipt(one) for one in ids if one in self.tickets}
        return web.json_response({"data": known})

    def _receipt(self, ticket: str) -> dict[str, Any]:
        error = self.receipt_errors.get(ticket) or self.receipt_errors.get(self.tickets[ticket])
        if error is None:
            return {"status": "ok"}
        return {"status": "error", "message": "it did not get through", "details": {"error": error}}

    def _ticket(self, message: dict[str, Any]) -> dict[str, Any]:
        token = message["to"]
        error = "DeviceNotRegistered" if token in self.dead else self.ticket_errors.get(token)
        if error is None:
            ticket = f"00000000-0000-4000-8000-{len(self.tickets):012d}"
            self.tickets[ticket] = token
            return {"status": "ok", "id": ticket}
        return {"status": "error", "message": f'"{token}" was not taken', "details": {"error": error}}


def _refused(status: int, code: str, **more: Any) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": code, **more}]}, status=status)
