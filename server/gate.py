"""What every HTTP request comes by first: blocked addresses, floods of handshakes, and strangers who do not stop.

An address that keeps being refused is blocked for a while, longer each time. Counted is what strangers are refused for
coming too often; never what a signed-in device is refused, which has limits of its own, so that no account can have the
network blocked from which it comes. And the more devices are connected from an address, the more it takes.

Whoever floods may share the address with a thousand others, or be a page in their browsers. So such a block is for
strangers: who brings a token that we have made comes by, sockets stay, and new ones are bounded as always.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from models.blocks.rules import network_of, spared
from models.blocks.service import Blocks
from models.errors import Refusal
from models.ports import Clock
from server.addresses import client_address
from server.admission import Admission
from server.clock import Tasks
from server.funnel import Answer
from server.limits import KEYS_MAX, TokenBucket
from server.metrics import CONNECTS, GATE_REFUSALS
from server.rest import STRANGER, answer_with

SOCKETS_PATH = "/socket.io/"
# By these, apps come to the next token, which shows that they are no strangers; nobody guesses one.
REFRESH_PATHS = frozenset(("/api/auth/refresh-token", "/auth/refresh"))
# Strangers who show no token, or none that is good, from one address: a second, and at once. An app whose token has
# just expired is not meant, nor are the many of one office.
STRANGERS_RATE, STRANGERS_BURST = 20, 400
# In which the refusals of an address are counted.
STRIKES_SECONDS = 600.0
_NO_TOKEN = frozenset({"TOKEN_MISSING", "TOKEN_INVALID"})


class Strikes:
    """How often strangers of each address were refused lately. ``most`` of them, and as many again for each connection
    from there, are too many; 0: never.
    """

    def __init__(self, most: int, *, connected: Callable[[str], int], clock: Clock) -> None:
        self._most = most
        self._connected = connected
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, address: str) -> bool:
        """Count one; whether it was one too many, with which the count begins anew."""
        if not self._most or spared(address):
            return False
        key, now = network_of(address), self._clock.now().timestamp()
        began, count = self._counts.pop(key, (now, 0))
        if now - began >= STRIKES_SECONDS:
            began, count = now, 0
        count += 1
        if count >= self._most * (1 + self._connected(address)):
            return True
        self._counts[key] = (began, count)
        if len(self._counts) > KEYS_MAX:
            self._counts.popitem(last=False)
        return False


class Gate:
    """``Gate(…).middleware`` goes right behind the one that names requests."""

    def __init__(
        self,
        *,
        blocks: Blocks,
        admission: Admission,
        block_after: int,
        proxy_hops: int,
        clock: Clock,
        tasks: Tasks,
        made_by_us: Callable[[str], bool],
    ) -> None:
        self._made_by_us = made_by_us
        self._blocks = blocks
        self._admission = admission
        self._proxy_hops = proxy_hops
        self._clock = clock
        self._tasks = tasks
        self._strangers = TokenBucket(STRANGERS_RATE, STRANGERS_BURST)
        self._strikes = Strikes(block_after, connected=admission.open_at, clock=clock)

    @property
    def middleware(self) -> Middleware:
        """For ``app.middlewares``."""

        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            address = client_address(request, self._proxy_hops)
            handshake = request.path == SOCKETS_PATH and "sid" not in request.query
            no = self._refused(request, address, handshake=handshake)
            if no is not None:
                (CONNECTS if handshake else GATE_REFUSALS).labels(no.code).inc()
                return answer_with(Answer(refusal=no), request)
            answer = await handler(request)
            if answer.status < 400:
                return answer
            late = self._after(request, answer, address)
            return answer if late is None else answer_with(Answer(refusal=late), request)

        return gate

    def _refused(self, request: web.Request, address: str, *, handshake: bool) -> Refusal | None:
        no = self._blocks.refusal(address)
        if no is not None and not self._is_stranger(request):
            no = self._blocks.refusal(address, stranger=False)
        if no is not None or not handshake:
            return no
        no = self._admission.handshake(address)
        if no is not None:
            self._strike(address)
        return no

    def _is_stranger(self, request: web.Request) -> bool:
        """Sockets say who they are later on, and have some seconds for it (``Admission``)."""
        if request.path == SOCKETS_PATH or request.path in REFRESH_PATHS:
            return False
        kind, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        return kind.lower() != "bearer" or not self._made_by_us(token.strip())

    def _after(self, request: web.Request, answer: web.StreamResponse, address: str) -> Refusal | None:
        """What was refused is counted; a refusal in place of the answer, when that was too much."""
        code = request.get(STRANGER)
        if code in _NO_TOKEN and not spared(address):
            wait = self._strangers.take(network_of(address), self._clock.now().timestamp())
            if wait:
                self._strike(address)
                return Refusal("RATE_LIMITED", retry_after_ms=wait)
        elif code == "RATE_LIMITED" or (request.path == SOCKETS_PATH and answer.status == 400):
            self._strike(address)  # also who tries ids of transports that there are not
        return None

    def _strike(self, address: str) -> None:
        if self._strikes.add(address):
            self._tasks.spawn(self._blocks.add_automatic(address), "block an address")
