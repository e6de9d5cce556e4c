"""Apple's APNs on loopback: HTTP/2 over TLS, as its documentation describes it.

``POST /3/device/{token}`` is answered with 200 and nothing, or with a status and ``{"reason": …}``. A test says what
goes wrong by ``mode`` (every push), ``errors`` (single tokens: reasons), ``unregistered`` (tokens with the instant
since which they are dead, in milliseconds), ``expired_before`` (provider tokens made earlier) and ``hold``.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import jwt
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)

from models.ports import Clock
from tests.standins.keys import Tls, p256_key

PAYLOAD_BYTES_MAX = 5120  # of a VoIP push
TOKEN_LIFE_SECONDS = 3600

# Reasons with their status.
REASONS = {
    "BadDeviceToken": 400,
    "DeviceTokenNotForTopic": 400,
    "BadTopic": 400,
    "PayloadEmpty": 400,
    "BadExpirationDate": 400,
    "BadPriority": 400,
    "BadMessageId": 400,
    "InvalidPushType": 400,
    "ExpiredProviderToken": 403,
    "InvalidProviderToken": 403,
    "MissingProviderToken": 403,
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}


@dataclass
class Pushed:
    """A push that was taken."""

    token: str
    headers: dict[str, str]
    payload: dict[str, Any]


class ApnsStandIn:
    """Everything that was asked of it, and how it is to behave. ``mode`` is ``ok``, a reason, ``malformed``, or a
    function of the request's number from 1."""

    def __init__(self, clock: Clock, tls: Tls, *, topic: str = "com.example.app") -> None:
        self.clock = clock
        self.topic = f"{topic}.voip"
        self.pushed: list[Pushed] = []
        self.provider_tokens: list[str] = []
        self.connections = 0
        self.asked = 0
        self.mode: str | Callable[[int], str] = "ok"
        self.errors: dict[str, str] = {}
        self.unregistered: dict[str, int] = {}
        self.expired_before: float | None = None
        self.retry_after: str | None = None
        self.hold: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self.url = ""
        self.tls = tls
        self._server: asyncio.Server | None = None
        self.open: set[_Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", 0, ssl=self.tls.server
        )
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{port}"

    async def stop(self) -> None:
        if self.hold is not None:
            self.hold.set()
        if self._server is not None:
            self._server.close()
        self.hang_up()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def hang_up(self) -> None:
        """Close every connection, as Apple does with old ones."""
        for connection in list(self.open):
            connection.bye()

    async def judge(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any] | None]:
        """The answer to a request: its status and what is said."""
        self.asked += 1
        number = self.asked
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        mode = self.mode(number) if callable(self.mode) else self.mode
        device = headers[":path"].removeprefix("/3/device/")
        reason = self._fault_of(headers, body, device) or self.errors.get(device) or mode
        if device in self.unregistered and reason == "ok":
            return 410, {"reason": "Unregistered", "timestamp": self.unregistered[device]}
        if reason == "malformed":
            return 500, None
        if reason != "ok":
            return REASONS[reason], {"reason": reason}
        self.pushed.append(Pushed(device, headers, json.loads(body)))
        return 200, None

    def _fault_of(self, headers: dict[str, str], body: bytes, device: str) -> str | None:
        """What Apple would find wrong with a request, in its order as far as it is known."""
        if headers[":method"] != "POST":
            return "MethodNotAllowed"
        if not headers[":path"].startswith("/3/device/"):
            return "BadPath"
        fault = self._fault_of_provider(headers.get("authorization", ""))
        if fault is not None:
            return fault
        if not re.fullmatch(r"[0-9a-f]{16,}", device):
            return "BadDeviceToken"
        if headers.get("apns-push-type") != "voip":
            return "InvalidPushType"
        if headers.get("apns-topic") != self.topic:
            return "BadTopic"
        if headers.get("apns-priority") not in (None, "10", "5", "1"):
            return "BadPriority"
        if not re.fullmatch(r"\d{1,10}", headers.get("apns-expiration", "0")):
            return "BadExpirationDate"
        if str(uuid.UUID(headers["apns-id"])) != headers["apns-id"]:
            return "BadMessageId"
        if len(body) > PAYLOAD_BYTES_MAX:
            return "PayloadTooLarge"
        return None if body else "PayloadEmpty"

    def _fault_of_provider(self, authorization: str) -> str | None:
        if not authorization.startswith("bearer "):
            return "MissingProviderToken"
        token = authorization.removeprefix("bearer ")
        try:
            head = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                p256_key().public_key(),
                algorithms=["ES256"],
                issuer="TEAM123456",
                options={"require": ["iss", "iat"], "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return "InvalidProviderToken"
        if head.get("kid") != "KEY1234567" or set(claims) != {"iss", "iat"}:
            return "InvalidProviderToken"
        now = self.clock.now().timestamp()
        earliest = max(now - TOKEN_LIFE_SECONDS, self.expired_before or 0)
        if claims["iat"] < earliest:
            return "ExpiredProviderToken"
        if token not in self.provider_tokens:
            self.provider_tokens.append(token)
        return None


@dataclass
class _Request:
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


class _Connection(asyncio.Protocol):
    """One HTTP/2 connection."""

    def __init__(self, apns: ApnsStandIn) -> None:
        self._apns = apns
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._streams: dict[int, _Request] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's classes
        self._apns.connections += 1
        self._apns.open.add(self)
        self._h2.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._apns.open.discard(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            match event:
                case RequestReceived():
                    self._streams[event.stream_id] = _Request(dict(event.headers))  # type: ignore[arg-type]
                case DataReceived():
                    self._streams[event.stream_id].body.extend(event.data)
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case StreamEnded():
                    task = asyncio.create_task(self._answer(event.stream_id))
                    self._apns.tasks.add(task)
                    task.add_done_callback(self._apns.tasks.discard)
                case StreamReset():
                    self._streams.pop(event.stream_id, None)
                case ConnectionTerminated() | WindowUpdated():
                    pass
        self._flush()

    def bye(self) -> None:
        """GOAWAY, and closed."""
        if self._transport is not None:
            self._h2.close_connection()
            self._flush()
            self._transport.close()

    async def _answer(self, stream_id: int) -> None:
        request = self._streams[stream_id]
        status, said = await self._apns.judge(request.headers, bytes(request.body))
        if self._streams.pop(stream_id, None) is None or self._transport is None:
            return  # nobody waits any more
        headers = [(":status", str(status)), ("apns-id", request.headers.get("apns-id", ""))]
        if self._apns.retry_after is not None and status in (429, 503):
            headers.append(("retry-after", self._apns.retry_after))
        self._h2.send_headers(stream_id, headers, end_stream=said is None)
        if said is not None:
            self._h2.send_data(stream_id, json.dumps(said).encode(), end_stream=True)
        self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)
