"""Sends hostile frames over a WebSocket by hand, and looks at each answer."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from server.wiring import catalogue
from tests.doors.phones import check_ack, check_error
from tests.fuzz.payloads import Sent

PASSWORD = "correct horse battery staple"
# An answer comes in so many seconds. They are counted in turns, so that those do not count in which the machine stood
# still and nobody could have answered.
ANSWER_SECONDS = 8.0
TURN_SECONDS = 0.1
FIRST_NUMBER = 100
_NEVER = frozenset({"INTERNAL", "DATABASE_AWAY", "SERVER_DRAINING", "RATE_LIMITED"})
# How often one may ring somebody is no matter of configuration.
_COUNTED = "CALL_REQUEST"


async def heard(*waiting: asyncio.Future[Any], first: bool = False) -> None:
    """Wait for all of these, or for the ``first`` of them, as long as an answer may take."""
    when = asyncio.FIRST_COMPLETED if first else asyncio.ALL_COMPLETED
    for _ in range(round(ANSWER_SECONDS / TURN_SECONDS)):
        done, pending = await asyncio.wait(waiting, timeout=TURN_SECONDS, return_when=when)
        if not pending or (first and done):
            return


class Line:
    """A WebSocket with the acks it waits for. What else comes is looked at and forgotten."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.waits: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self.told: Counter[str] = Counter()
        self.fault: BaseException | None = None
        self._reader = asyncio.create_task(self._read())

    @property
    def closed(self) -> bool:
        return self._reader.done()

    async def send(self, frame: str | bytes) -> None:
        """Any frame; one that a closed connection does not take is lost."""
        try:
            await (self._socket.send_str(frame) if isinstance(frame, str) else self._socket.send_bytes(frame))
        except (ConnectionError, aiohttp.ClientError):
            await heard(self._reader)

    def wants(self, number: int, name: str) -> asyncio.Future[Any]:
        """The ack of that number."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waits[number] = (name, answer)
        return answer

    async def ask(self, number: int, name: str, payload: Any = None) -> Any:
        """An honest event; its ack."""
        answer = self.wants(number, name)
        await self.send(f"42{number}{json.dumps([name, payload or {}])}")
        await heard(answer, self._reader, first=True)
        return answer.result() if answer.done() else None

    async def close(self) -> None:
        await self._socket.close()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        try:
            async for got in self._socket:
                if got.type is aiohttp.WSMsgType.TEXT:
                    await self._heard(got.data)
        except BaseException as fault:
            self.fault = fault

    async def _heard(self, text: str) -> None:
        if text == "2":
            await self._socket.send_str("3")
        elif text.startswith("43"):
            body = text.index("[")
            number = int(text[2:body])
            if number < FIRST_NUMBER:
                return  # of a frame below the events, whose id is not ours
            assert number in self.waits, f"a second ack, or one that nobody asked for: {text[:300]}"
            name, answer = self.waits.pop(number)
            (ack,) = json.loads(text[body:])
            check_ack(ack)
            if not answer.done():
                answer.set_result(ack)
        elif text.startswith("42"):
            name, *args = json.loads(text[2:])
            assert name in catalogue.notices, text[:300]
            self.told[name] += 1
            if name == "error":
                check_error(args[0]["error"])
                assert args[0]["error"]["code"] not in _NEVER, args


@dataclass
class Attack:
    """Ada attacks; Bob is whom she calls, writes to and shares a room with, and who must not suffer from it."""

    url: str
    http: aiohttp.ClientSession
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(FIRST_NUMBER))
    answers: Counter[str] = field(default_factory=Counter)
    by_event: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    reconnects: int = 0
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    line: Line | None = None
    bob: Line | None = None

    async def begin(self) -> None:
        """Two people who know each other, with both on the line."""
        for name in ("ada", "bob"):
            body = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
            async with self.http.post(f"{self.url}/api/auth/register", json=body) as answer:
                said = await answer.json()
                assert answer.status == 201, said
            self.tokens[name], self.ids[name] = said["accessToken"], said["user"]["id"]
        self.bob, self.line = await self._connect("bob"), await self._connect("ada")
        await self.settle()

    async def settle(self) -> None:
        """A call, a conversation, a message and a room that there are: the payloads are about these."""
        assert self.bob is not None
        line = await self._alive()
        to = {"to": self.ids["bob"]}
        said = await line.ask(
            next(self.numbers), "CHAT_MESSAGE", {**to, "text": "x", "opId": f"n{next(self.numbers)}"}
        )
        ringing = await line.ask(next(self.numbers), "CALL_REQUEST", {**to, "type": "audio"})
        found = {**to, "userId": to["to"], "targetUserId": to["to"], "userIds": to["to"]}
        if said and said["ok"]:
            found |= {"messageId": said["data"]["id"], "conversationId": said["data"]["conversationId"]}
        error = (ringing or {}).get("error", {})
        call_id = (
            ringing["data"]["id"] if ringing and ringing["ok"] else error.get("details", {}).get("callId")
        )
        if call_id:
            found["callId"] = call_id
            await self.bob.ask(next(self.numbers), "CALL_ACCEPT", {"callId": call_id})
        if "roomId" not in self.ids:
            head = {"Authorization": f"Bearer {self.tokens['ada']}"}
            async with self.http.post(
                f"{self.url}/api/room/create", json={"type": "audio"}, headers=head
            ) as made:
                found["roomId"] = (await made.json())["room"]["id"]
        room = {"roomId": found.get("roomId", self.ids.get("roomId"))}
        for one in (line, self.bob):
            await one.ask(next(self.numbers), "join-room", room)
        self.ids |= found

    async def send(self, frames: Sequence[Sent]) -> None:
        """Send the frames without waiting in between, then look at every answer."""
        line = await self._alive()
        wanted: list[tuple[Sent, asyncio.Future[Any]]] = []
        for frame in frames:
            line = await self._alive()
            self.sent += 1
            self.by_event[frame.name] += 1
            if frame.bare:
                await self._bare(line, frame)
                continue
            number = next(self.numbers)
            wanted.append((frame, line.wants(number, frame.name)))
            await line.send(f"{frame.head}{number}{frame.tail}")
            for attached in frame.attached:
                await line.send(attached)
        if wanted:
            await heard(*(answer for _, answer in wanted))
        for frame, answer in wanted:
            assert answer.done(), (
                f"no ack: {frame.head!r} {frame.tail[:300]} (closed: {line.closed}, {line.fault})"
            )
            ack = answer.result()
            code = "ok" if ack["ok"] else ack["error"]["code"]
            rung_too_often = code == "RATE_LIMITED" and frame.name == _COUNTED
            assert code not in _NEVER or rung_too_often, (code, frame.head, frame.tail[:300])
            self.answers[code] += 1
        self._sound(line)

    async def _bare(self, line: Line, frame: Sent) -> None:
        """A frame after which the connection either answers as before, or is closed."""
        waiting = [answer for _, answer in line.waits.values()]
        if waiting:
            await heard(*waiting)  # they were asked for before
        await line.send(frame.head)
        ack = await line.ask(next(self.numbers), "CALL_SYNC")
        if ack is not None:
            self.answers["as if nothing were"] += 1
        else:
            assert line.closed, f"neither answered nor closed: {frame.head!r}"
            line.waits.clear()
            self.answers["closed"] += 1
        self._sound(line)

    def _sound(self, line: Line) -> None:
        for one in (line, self.bob):
            assert one is not None
            if one.fault is not None:
                raise one.fault
        assert self.bob is not None
        assert not self.bob.closed, "whoever is called, written to and met does not suffer from it"

    async def _alive(self) -> Line:
        if self.line is None or self.line.closed:
            self.reconnects += 1
            self.line = await self._connect("ada")
        return self.line

    async def _connect(self, name: str) -> Line:
        url = f"{self.url}/socket.io/?EIO=4&transport=websocket"
        socket = await self.http.ws_connect(url, max_msg_size=0)
        await socket.send_str("40" + json.dumps({"token": self.tokens[name], "deviceId": f"{name}-phone"}))
        line = Line(socket)
        assert await line.ask(next(self.numbers), "CALL_SYNC") is not None, "connected anew"
        return line

    async def healthy(self) -> Mapping[str, Any]:
        """What ``/health`` says, which has to be well."""
        async with self.http.get(f"{self.url}/health") as answer:
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())

    async def end(self) -> None:
        for one in (self.line, self.bob):
            if one is not None:
                await one.close()
        await self.http.close()
