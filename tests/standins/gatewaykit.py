"""What the stand-ins of the payment gateways share: a server on loopback with faults on demand, and notifications.

A stand-in keeps its own books (``model``), does its own signing with ``hmac`` and knows nothing of the adapters. A test
says what goes wrong for the next requests to an endpoint: ``standin.stumble("transfer", "500_after")``.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from models.ports import Clock

# What can go wrong with a request. Those that end in "after" have done what was asked, and only the answer is lost.
FAULTS = (
    "500",
    "503",
    "cut",
    "429",
    "redirect",
    "500_after",
    "cut_after",
    "half_after",
    "html_after",
    "late_after",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that arrived."""

    endpoint: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Hook:
    """A notification as it goes over the wire, and which reference it is really about."""

    raw: bytes
    headers: dict[str, str]
    about: str


@dataclass(slots=True)
class Paid:
    """A payment in the stand-in's books, in minor units. ``theirs`` is the stand-in's own reference."""

    reference: str
    theirs: str
    asked_minor: int
    currency: str
    state: str
    paid_minor: int = 0
    reversed_minor: int = 0
    paid_currency: str = ""
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Sent:
    """A payout in the stand-in's books."""

    reference: str
    theirs: str
    amount_minor: int
    currency: str
    account: str
    state: str
    more: dict[str, Any] = field(default_factory=dict)


class StandIn:
    """A gateway on loopback. ``hooks`` are the notifications that it has for us; ``deliver`` sends them.

    ``post`` is how one is sent (a test's client, or the receiving function). With ``hook_first`` the notification of
    what was just asked for is sent before the answer. ``asked`` has every request.
    """

    name = ""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.url = ""
        self.asked: list[Asked] = []
        self.hooks: list[Hook] = []
        self.payments: dict[str, Paid] = {}
        self.payouts: dict[str, Sent] = {}
        self.accounts: dict[tuple[str, str], str] = {}
        self.post: Callable[[Hook], Awaitable[int]] | None = None
        self.hook_first = False
        self.numbers = 0
        self.released = asyncio.Event()
        self._faults: dict[str, deque[str]] = {}
        self._runner: web.AppRunner | None = None

    # --- serving

    def routes(self) -> list[web.RouteDef]:
        """Its endpoints; a route's name is what ``stumble`` calls it."""
        raise NotImplementedError

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(middlewares=[self._middleware])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Let go of who waits, and close."""
        self.released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def stumble(self, endpoint: str, *faults: str) -> None:
        """What goes wrong with the next requests to an endpoint, in order; ``ok`` is nothing."""
        assert all(one in (*FAULTS, "ok", "401", "403") for one in faults), faults
        self._faults.setdefault(endpoint, deque()).extend(faults)

    def recover(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()

    def count(self, endpoint: str) -> int:
        """How many requests to an endpoint arrived."""
        return sum(one.endpoint == endpoint for one in self.asked)

    def last(self, endpoint: str) -> Asked:
        """The newest request to an endpoint."""
        return [one for one in self.asked if one.endpoint == endpoint][-1]

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        endpoint = request.match_info.route.name or "?"
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(endpoint, request.raw_path, headers, await request.read()))
        waiting = self._faults.get(endpoint)
        fault = waiting.popleft() if waiting else "ok"
        if not fault.endswith("_after"):
            refused = await self._before(request, fault)
            if refused is not None:
                return refused
        answer: web.Response = await handler(request)
        return await self._after(request, answer, fault)

    async def _before(self, request: web.Request, fault: str) -> web.Response | None:
        match fault:
            case "ok":
                return None
            case "cut":
                cut(request)
                return web.Response()
            case "429":
                return web.Response(status=429, text="slower", headers={"Retry-After": "2"})
            case "redirect":
                return web.Response(status=307, headers={"Location": "http://127.0.0.1:9/elsewhere"})
            case "401" | "403":
                return self.unauthorized(int(fault))
        return web.Response(status=int(fault), text="<html>Bad gateway</html>", content_type="text/html")

    async def _after(self, request: web.Request, answer: web.Response, fault: str) -> web.Response:
        match fault:
            case "500_after":
                return web.Response(status=500, text="{}")
            case "cut_after":
                cut(request)
            case "half_after":
                # The head promises more than comes.
                assert request.transport is not None
                body = answer.body if isinstance(answer.body, bytes) else b"{}"
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                request.transport.write(head.encode() + body[: len(body) // 2])
                request.transport.close()
            case "html_after":
                return web.Response(text="<html>one moment</html>", content_type="text/html")
            case "late_after":
                await self.released.wait()
        return answer

    def unauthorized(self, status: int) -> web.Response:
        """How it says that it does not know the key."""
        raise NotImplementedError

    # --- notifications

    def number(self) -> int:
        """The next number of anything."""
        self.numbers += 1
        return self.numbers

    async def tell(self, hook: Hook) -> None:
        """A notification is due: kept for ``deliver``, and with ``hook_first`` sent at once."""
        self.hooks.append(hook)
        if self.hook_first and self.post is not None:
            await self.post(hook)

    async def deliver(self, *, times: int = 1, chance: random.Random | None = None) -> list[int]:
        """Send all that is due, each so often, in an order by ``chance``; the answers' statuses."""
        assert self.post is not None, "nobody listens"
        due = [hook for hook in self.hooks for _ in range(times)]
        self.hooks.clear()
        if chance is not None:
            chance.shuffle(due)
        return [await self.post(hook) for hook in due]

    def sign(self, raw: bytes, about: str) -> Hook:
        """A notification with this very body, signed rightly."""
        raise NotImplementedError

    def paid_total(self) -> dict[str, int]:
        """What was paid and not taken back, by reference (payments in the currency that was asked for only)."""
        return {
            one.reference: one.paid_minor - one.reversed_minor
            for one in self.payments.values()
            if one.paid_currency in ("", one.currency)
        }


def cut(request: web.Request) -> None:
    """Hang up."""
    assert request.transport is not None
    request.transport.abort()


def broken(hook: Hook, chance: random.Random) -> Hook:
    """The same body, and one digit of the signature is another."""
    headers = dict(hook.headers)
    name = next(one for one in headers if "signature" in one.lower())
    value = headers[name]
    places = [n for n, digit in enumerate(value) if digit in "0123456789abcdef" and n > value.rfind("=")]
    place = chance.choice(places)
    other = chance.choice([digit for digit in "0123456789abcdef" if digit != value[place]])
    headers[name] = value[:place] + other + value[place + 1 :]
    return replace(hook, headers=headers)


def rewritten(hook: Hook) -> Hook:
    """The same JSON in other bytes under the old signature, as a proxy that is too clever writes it."""
    return replace(hook, raw=json.dumps(json.loads(hook.raw), indent=1).encode())


def unsigned(hook: Hook) -> Hook:
    """Without a signature."""
    kept = {name: value for name, value in hook.headers.items() if "signature" not in name.lower()}
    return replace(hook, headers=kept)


def changed(standin: StandIn, hook: Hook, **values: Any) -> Hook:
    """A notification with other values (of any depth, by name) that is signed rightly: the gateway itself is wrong."""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: values[key] if key in values else walk(one) for key, one in node.items()}
        return [walk(one) for one in node] if isinstance(node, list) else node

    return standin.sign(json.dumps(walk(json.loads(hook.raw)), separators=(",", ":")).encode(), hook.about)
