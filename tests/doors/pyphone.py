"""A phone in Python, for servers that come and go: it reconnects by itself and remembers what it was told."""

from __future__ import annotations

import itertools
from collections import Counter
from types import TracebackType
from typing import Any

import aiohttp
import socketio
from socketio.exceptions import SocketIOError

from tests.doors.serverprocess import eventually

PASSWORD = "correct horse battery staple"
_numbers = itertools.count(1)
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
)
OFFER = {"type": "offer", "sdp": SDP}
ANSWER = {"type": "answer", "sdp": SDP.replace("actpass", "active")}


class Refused(Exception):
    """An ack, or an answer by HTTP, that says no."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: str = error["code"]
        self.retry_after_ms: int | None = error.get("retryAfterMs")


class PyPhone:
    """One device of one person.

    ``heard`` is everything it was told, in order; ``since`` the last number of its log that it has handled.
    """

    def __init__(self, address: str, *, device: str = "phone") -> None:
        self.address = address
        self.device = device
        self.token = ""
        self.id = ""
        self.username = f"py{next(_numbers)}"
        self.since: int | None = None
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.numbers: list[int] = []
        self.connects = 0
        self.http = aiohttp.ClientSession()
        self.sio = self._new_socket()

    def _new_socket(self) -> socketio.AsyncClient:
        sio = socketio.AsyncClient(
            reconnection_delay=0.1, reconnection_delay_max=0.3, randomization_factor=0, http_session=self.http
        )
        sio.on("*", self._told)
        sio.on("connect", self._connected)
        return sio

    async def __aenter__(self) -> PyPhone:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.away()
        await self.http.close()

    def _connected(self) -> None:
        self.connects += 1

    def _told(self, event: str, payload: dict[str, Any]) -> None:
        number = payload.get("logSeq")
        if number is not None:
            self.numbers.append(number)
            self.since = max(self.since or 0, number)
        elif event == "SYNC" and (self.since is None or not payload["missed"]):
            self.since = payload["seq"]
        self.heard.append((event, payload))

    # By HTTP

    async def rest(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self.http.request(method, self.address + path, json=body, headers=headers) as answer:
            said: dict[str, Any] = await answer.json() if answer.status != 204 else {}
            if answer.status >= 400:
                raise Refused(said["error"])
            return said

    async def register(self) -> PyPhone:
        body = {"username": self.username, "email": f"{self.username}@example.org", "password": PASSWORD}
        said = await self.rest("POST", "/api/auth/register", body)
        self.token, self.id = said["accessToken"], said["user"]["id"]
        return self

    # The socket

    async def connect(self) -> PyPhone:
        """Connect, and be greeted."""
        synced = len(self.all("SYNC"))
        await self.sio.connect(
            self.address,
            transports=["websocket"],
            auth=lambda: {"token": self.token, "deviceId": self.device, "since": self.since},
        )
        await eventually(lambda: len(self.all("SYNC")) > synced)
        return self

    async def away(self) -> None:
        """Be gone and stay away, until ``connect``."""
        await self.sio.shutdown()
        self.sio = self._new_socket()

    async def back(self, after: int, *, within: float = 20.0) -> None:
        """Wait until it has been greeted for the time after ``after``."""
        await eventually(lambda: len(self.all("SYNC")) > after, within=within, what="the phone comes back")

    async def ask(self, event: str, *, within: float = 20.0, **payload: Any) -> dict[str, Any]:
        """Send an event: the ack's data. ``Refused`` when it says no."""
        ack = await self.sio.call(event, payload, timeout=within)
        if not ack["ok"]:
            raise Refused(ack["error"])
        data: dict[str, Any] = ack["data"]
        return data

    async def insist(self, event: str, **payload: Any) -> dict[str, Any]:
        """As ``ask``, again and again while the server is away or says "later": what an app does with an ``opId``."""

        async def answered() -> dict[str, Any] | None:
            try:
                return {"data": await self.ask(event, within=2.0, **payload)}
            except SocketIOError:  # not connected, or no answer in time
                return None
            except Refused as no:
                if no.retry_after_ms is None and no.code != "IDEMPOTENCY_IN_FLIGHT":
                    raise
                return None

        found: dict[str, Any] = await eventually(answered, within=40.0, what=f"{event} is answered")
        return dict(found["data"])

    def all(self, event: str, call_id: str | None = None) -> list[dict[str, Any]]:
        """What it was told under that name, about that call."""
        return [p for name, p in self.heard if name == event and call_id in (None, _call_id(p))]

    async def told(self, event: str, call_id: str | None = None, *, within: float = 20.0) -> dict[str, Any]:
        """The newest of these, once there is one."""
        await eventually(lambda: self.all(event, call_id), within=within, what=f"{event} for {self.username}")
        return self.all(event, call_id)[-1]

    async def call_now(self, call_id: str) -> dict[str, Any]:
        """The call as the server has it."""
        call: dict[str, Any] = (await self.rest("GET", f"/api/calls/{call_id}"))["call"]
        return call

    def assert_each_once(self) -> None:
        """Every number of its log came once and in order, and no fact of a call under two numbers."""
        assert self.numbers == sorted(set(self.numbers)), self.numbers
        once = {"CALL_REQUEST", "CALL_RINGING", "CALL_ACCEPT", "CALL_REJECT", "CALL_TIMEOUT", "CALL_ENDED"}
        facts = Counter((name, _call_id(p)) for name, p in self.heard if name in once and "logSeq" in p)
        assert [fact for fact, times in facts.items() if times > 1] == []


def _call_id(payload: dict[str, Any]) -> str | None:
    found: str | None = payload.get("callId") or payload.get("call", {}).get("id")
    return found


class Pair:
    """Caller and callee, and the call between them."""

    def __init__(self, address: str) -> None:
        self.caller, self.callee = PyPhone(address), PyPhone(address)
        self.call_id = ""

    @property
    def both(self) -> tuple[PyPhone, PyPhone]:
        return self.caller, self.callee

    async def arrive(self) -> Pair:
        for phone in self.both:
            await phone.register()
            await phone.connect()
        return self

    async def bring_to(self, state: str) -> Pair:
        """``unheard`` (rings, no device has said so), ``ringing``, ``accepted``, ``active``, ``reconnecting``."""
        caller, callee = self.both
        call = await caller.ask("CALL_REQUEST", to=callee.id, type="audio", offer=OFFER, reportsMedia=True)
        self.call_id = call["id"]
        await callee.told("CALL_REQUEST", self.call_id)
        if state == "unheard":
            return self
        await callee.ask("CALL_RINGING", callId=self.call_id)
        await caller.told("CALL_RINGING", self.call_id)
        if state == "ringing":
            return self
        await callee.ask("CALL_ACCEPT", callId=self.call_id, answer=ANSWER, reportsMedia=True)
        await caller.told("CALL_ACCEPT", self.call_id)
        if state == "accepted":
            return self
        await self.connect_media()
        if state == "reconnecting":
            await callee.away()
            await eventually(self.is_("reconnecting"), what="the call misses the callee")
        return self

    async def connect_media(self) -> None:
        for phone in self.both:
            await phone.ask("CALL_CONNECTED", callId=self.call_id)
        await eventually(self.is_("active"), what="the call is active")

    def is_(self, state: str) -> Any:
        async def reached() -> bool:
            return bool((await self.caller.call_now(self.call_id))["state"] == state)

        return reached

    async def leave(self) -> None:
        for phone in self.both:
            await phone.__aexit__(None, None, None)
