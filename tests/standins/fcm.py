"""Google's token endpoint and FCM HTTP v1 on loopback, as their documentation describes them.

A test says what goes wrong by ``mode`` (every message), ``errors`` (single tokens: FCM's own error codes), ``denied``
(the service account gets no token), ``revoked`` (access tokens that are not taken any more) and ``hold``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import jwt
from aiohttp import web

from models.ports import Clock
from tests.standins.keys import account_json, rsa_key

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFE_SECONDS = 3600
DATA_BYTES_MAX = 4096

# Error codes of FCM with the HTTP status and the general status that go with them.
ERRORS = {
    "UNREGISTERED": (404, "NOT_FOUND"),
    "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT"),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED"),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED"),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED"),
    "UNAVAILABLE": (503, "UNAVAILABLE"),
    "INTERNAL": (500, "INTERNAL"),
}


class FcmStandIn:
    """Everything that was asked of it, and how it is to behave.

    ``pushed`` has every message that was taken, ``assertions`` the claims of every request for an access token.
    ``mode`` is ``ok``, one of the error codes, ``malformed``, ``html`` or ``no_project``, or a function of the
    request's number.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.pushed: list[dict[str, Any]] = []
        self.assertions: list[dict[str, Any]] = []
        self.asked = 0
        self.mode: str | Callable[[int], str] = "ok"
        self.errors: dict[str, str] = {}
        self.bad_tokens: set[str] = set()
        self.retry_after: str | None = None
        self.denied = False
        self.revoked: set[str] = set()
        self.hold: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self.url = ""
        self._issued: dict[str, float] = {}
        self._runner: web.AppRunner | None = None

    @property
    def account(self) -> str:
        """The service account's file."""
        return account_json(f"{self.url}/token")

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_post("/v1/projects/{project}/messages:send", self._send)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self.hold is not None:
            self.hold.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        now = self._clock.now().timestamp()
        if form.get("grant_type") != GRANT:
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        try:
            claims = jwt.decode(
                str(form["assertion"]),
                rsa_key().public_key(),
                algorithms=["RS256"],
                audience=f"{self.url}/token",
                issuer="push@ringmeter-test.iam.gserviceaccount.com",
                options={
                    "require": ["iss", "aud", "iat", "exp", "scope"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError as fault:
            return web.json_response({"error": "invalid_grant", "error_description": str(fault)}, status=400)
        self.assertions.append(claims)
        in_time = claims["iat"] <= now + 60 and now < claims["exp"] <= claims["iat"] + 3600
        if self.denied or not in_time or claims["scope"] != SCOPE:
            return web.json_response({"error": "invalid_grant"}, status=400)
        access = f"ya29.access-{len(self.assertions)}"
        self._issued[access] = now + LIFE_SECONDS
        return web.json_response({"access_token": access, "expires_in": LIFE_SECONDS, "token_type": "Bearer"})

    async def _send(self, request: web.Request) -> web.Response:
        self.asked += 1
        number = self.asked
        body = await request.json()
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        access = request.headers.get("Authorization", "").removeprefix("Bearer ")
        until = self._issued.get(access, 0.0)
        if access in self.revoked or self._clock.now().timestamp() >= until:
            return self._refused(401, "UNAUTHENTICATED")
        if request.match_info["project"] != "ringmeter-test":
            return self._refused(404, "NOT_FOUND")
        message = body["message"]
        mode = self.mode(number) if callable(self.mode) else self.mode
        mode = self.errors.get(message["token"], mode)
        if mode == "malformed":
            return web.Response(text="{'name'", content_type="application/json")
        if mode == "html":
            return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
        if mode == "no_project":
            return self._refused(404, "NOT_FOUND")
        if message["token"] in self.bad_tokens:
            return self._refused(400, "INVALID_ARGUMENT", code="INVALID_ARGUMENT", field="message.token")
        data = message["data"]
        if any(not isinstance(value, str) for value in data.values()):
            return self._refused(400, "INVALID_ARGUMENT", code="INVALID_ARGUMENT", field="message.data")
        if sum(len(name.encode()) + len(value.encode()) for name, value in data.items()) > DATA_BYTES_MAX:
            return self._refused(400, "INVALID_ARGUMENT", code="INVALID_ARGUMENT", field="message")
        if mode in ERRORS:
            return self._refused(*ERRORS[mode], code=mode)
        self.pushed.append(message)
        return web.json_response({"name": f"projects/ringmeter-test/messages/0:{number}"})

    def _refused(
        self, status: int, general: str, *, code: str | None = None, field: str | None = None
    ) -> web.Response:
        details: list[dict[str, Any]] = []
        if code is not None:
            kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
            details.append({"@type": kind, "errorCode": code})
        if field is not None:
            kind = "type.googleapis.com/google.rpc.BadRequest"
            violation = {"field": field, "description": "Invalid value"}
            details.append({"@type": kind, "fieldViolations": [violation]})
        error = {"code": status, "message": "said at length", "status": general, "details": details}
        headers = {"Retry-After": self.retry_after} if self.retry_after and status in (429, 503) else {}
        return web.json_response({"error": error}, status=status, headers=headers)
