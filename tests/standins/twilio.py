"""Twilio's Messages API on loopback, as its documentation describes it.

``POST /2010-04-01/Accounts/{sid}/Messages.json`` takes a form and answers 201 with the message, ``GET`` lists those to
a number, the newest first. ``mode`` picks for each POST by its number from 1: ``ok``, ``too_many`` (429 with
``retry_after``), ``down`` (503), ``taken_down`` (taken, and 500 all the same), ``cut`` (taken, and cut off), ``lost``
(cut off before it was taken), ``nonsense`` (400 that is not JSON), or one of Twilio's own codes, such as ``21211``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from aiohttp import web

ACCOUNT, TOKEN, NUMBER = "AC0123456789abcdef0123456789abcdef", "an auth token", "+15005550006"
_SENTENCES = {21211: "Invalid 'To' Phone Number", 21610: "Attempt to send to unsubscribed recipient"}


class TwilioStandIn:
    """``messages`` are those that were taken, the oldest first. ``listing``: whether they can be listed now."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.asked = 0
        self.listed = 0
        self.mode: str | int | Callable[[int], str | int] = "ok"
        self.listing = True
        self.prefix = ""
        self.retry_after: str | None = None
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port; ``url`` is then for ``TWILIO_URL``."""
        app = web.Application()
        path = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
        app.router.add_post(path, self._send)
        app.router.add_get(path, self._list)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _send(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if not _known(request):
            return _refused(401, 20003, "Authenticate")
        mode = self.mode(self.asked) if callable(self.mode) else self.mode
        form = await request.post()
        message = {name.lower(): str(form[name]) for name in ("To", "From", "Body")}
        message["body"] = self.prefix + message["body"]
        if isinstance(mode, int):
            return _refused(400, mode, _SENTENCES.get(mode, "Refused"))
        if mode == "too_many":
            answer = _refused(429, 20429, "Too Many Requests")
            if self.retry_after is not None:
                answer.headers["Retry-After"] = self.retry_after
            return answer
        if mode == "down":
            return _refused(503, 20503, "Service unavailable")
        if mode == "nonsense":
            return web.Response(status=400, text="<html>")
        if mode != "lost":
            self.messages.append(message)
        if mode == "taken_down":
            return _refused(500, 20500, "Internal Server Error")
        if mode in ("cut", "lost"):
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(
            {"sid": f"SM{len(self.messages):032d}", "status": "queued", **message}, status=201
        )

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.listed += 1
        if not _known(request):
            return _refused(401, 20003, "Authenticate")
        if not self.listing:
            return _refused(503, 20503, "Service unavailable")
        to = request.query.get("To")
        found = [one for one in reversed(self.messages) if to in (None, one["to"])]
        page: dict[str, Any] = {"messages": found[: int(request.query["PageSize"])]}
        return web.json_response(page)


def _known(request: web.Request) -> bool:
    want = "Basic " + b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    return request.headers.get("Authorization") == want


def _refused(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message, "status": status}, status=status)
