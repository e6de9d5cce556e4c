"""A phone of the load: the official client, as the app of the guide holds it, with all that it is told written down."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from server.clock import Tasks
from tests.bench.people import Person
from tests.doors.phones import Exchange, Happening, PhoneFault

# An ack that has not come by then is asked for again, by the same opId.
ACK_SECONDS = 3.0
LATER = {"IDEMPOTENCY_IN_FLIGHT", "SERVER_BUSY", "SERVER_DRAINING", "DATABASE_AWAY", "RATE_LIMITED"}
# The call is not what it was when the phone asked: the phone hears of that, or knows.
OVERTAKEN = {"CALL_ENDED", "CALL_WRONG_STATE", "CALL_UNKNOWN"}
COMING_BACK = {"reconnection": True, "reconnectionDelay": 100, "reconnectionDelayMax": 400, "timeout": 5000}
TALKS = ("accepted", "active", "reconnecting")


class Stuck(Exception):
    """What had to come within a deadline has not."""


class Denied(Exception):
    """A refusal that nothing in the story explains."""

    def __init__(self, event: str, error: dict[str, Any]) -> None:
        super().__init__(f"{event}: {error['code']} {error.get('details', '')}")
        self.code: str = error["code"]


@dataclass(frozen=True, slots=True)
class Told:
    """A durable event as it came."""

    number: int
    event: str
    call_id: str | None


class ChaosPhone:
    """One device of one person. ``told`` is every durable event in the order of its coming."""

    def __init__(self, exchange: Exchange, person: Person, urls: Sequence[str], tasks: Tasks) -> None:
        self._exchange, self._tasks = exchange, tasks
        self._urls = list(urls)
        self.person, self.id = person, person.user_id
        self.name = f"chaos/{person.username}"
        self.device = f"phone-{person.username}"
        self.connected = self.leaving = False
        self.connects = self.asking = 0
        self.first: int | None = None
        self.told: list[Told] = []
        self.calls: dict[str, dict[str, Any]] = {}
        self.written: dict[str, int] = {}
        self.read: list[tuple[int, str]] = []
        self.candidates: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._news = asyncio.Event()
        exchange.add(self.name, self._hear)

    @property
    def since(self) -> int:
        """The highest number handled."""
        return max((one.number for one in self.told), default=self.first or 0)

    # ------------------------------------------------------------------------------------------- coming and going

    async def open(self) -> None:
        """Connect; back once it was greeted."""
        options = {
            "auth": {"token": self.person.token, "deviceId": self.device},
            "urls": self._urls,
            **COMING_BACK,
        }
        await self._exchange.ask("open", phone=self.name, url=self._urls[0], options=options)
        await self.wait(lambda: self.first is not None, "the first greeting")

    def begins_at(self, url: str) -> bool:
        """Whether this is the address that it tries first."""
        return self._urls[0] == url

    async def elsewhere(self) -> None:
        """Lose the network for a moment; back once it was greeted at the next address."""
        before = self.connects
        await self._exchange.ask("kill", phone=self.name)
        await self.wait(lambda: self.connects > before, "a greeting elsewhere")

    async def away(self) -> None:
        """Lose the network and do not look for it."""
        self.leaving = True
        await self._exchange.ask("away", phone=self.name)

    async def back(self) -> None:
        """Look for the network again; back once it was greeted."""
        self.leaving = False
        before = self.connects
        await self._exchange.ask("back", phone=self.name)
        await self.wait(lambda: self.connects > before, "a greeting")

    async def forget(self) -> None:
        """Done with."""
        self.leaving = True
        self._exchange.remove(self.name)
        await self._exchange.ask("forget", phone=self.name)

    # -------------------------------------------------------------------------------------------------- listening

    def _hear(self, happening: Happening) -> None:
        event, args = happening
        said = args[0] if args and isinstance(args[0], dict) else {}
        if event == "*disconnect":
            self.connected = False
        elif event == "error":
            self.errors[said["error"]["code"]] += 1
        if "logSeq" in said:
            self.told.append(Told(said["logSeq"], event, _call_id(said)))
        if isinstance(said.get("call"), dict):
            self.learn(said["call"])
        if event == "SYNC":
            self._greeted(said)
        elif event == "CHAT_MESSAGE":
            self.read.append((said["seq"], said["text"]))
        elif event == "ICE_CANDIDATE":
            self.candidates[said["callId"]] += 1
        self._news.set()

    def _greeted(self, sync: dict[str, Any]) -> None:
        self.connected = True
        self.connects += 1
        if self.first is None:
            self.first = sync["seq"]
        for call in sync["calls"]:
            self.learn(call)
            if call["state"] in TALKS and self.connects > 1 and not self.leaving:
                self._tasks.spawn(self._resume(call["id"]), f"{self.name} resumes")

    async def _resume(self, call_id: str) -> None:
        for event in ("CALL_RESUME", "CALL_CONNECTED"):
            if not self.over(call_id):
                await self.try_(event, callId=call_id)

    def learn(self, call: dict[str, Any]) -> None:
        """A snapshot; an older one than that which is known changes nothing."""
        if call["version"] >= self.calls.get(call["id"], call)["version"]:
            self.calls[call["id"]] = call

    def state(self, call_id: str) -> str | None:
        """The call's state as this phone knows it."""
        return str(self.calls[call_id]["state"]) if call_id in self.calls else None

    def over(self, call_id: str) -> bool:
        return self.state(call_id) == "ended"

    async def wait(self, condition: Callable[[], bool], what: str, *, within: float = 60.0) -> None:
        """Until what this phone is told makes the condition true. ``Stuck`` when nothing does."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise Stuck(f"{self.name}: not within {within:g} s: {what}") from None

    # ---------------------------------------------------------------------------------------------------- talking

    async def ask(self, event: str, *, seconds: float = ACK_SECONDS, **payload: Any) -> dict[str, Any]:
        """Send once; the ack's data. ``PhoneFault`` without an ack, ``Denied`` when it says no."""
        self.asking += 1
        try:
            (ack,) = await self._exchange.ask(
                "emit", phone=self.name, event=event, args=[payload], withinMs=round(seconds * 1000)
            )
        finally:
            self.asking -= 1
        if not ack["ok"]:
            raise Denied(event, ack["error"])
        data: dict[str, Any] = ack["data"]
        return data

    async def insist(self, event: str, *, within: float = 60.0, **payload: Any) -> dict[str, Any]:
        """As ``ask``, again and again while no ack comes or the server says "later"."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        while True:
            try:
                return await self.ask(event, **payload)
            except PhoneFault:
                why = "no ack"
            except Denied as no:
                if no.code not in LATER:
                    raise
                why = no.code
                await asyncio.sleep(0.3)
            if loop.time() > until:
                raise Stuck(f"{self.name}: {event} not answered within {within:g} s: {why}")

    async def try_(self, event: str, **payload: Any) -> dict[str, Any] | None:
        """As ``insist`` about a call; None when the call has gone on without it."""
        try:
            data = await self.insist(event, **payload)
        except Denied as no:
            if no.code not in OVERTAKEN:
                raise
            return None
        if "version" in data and "state" in data:
            self.learn(data)
        return data


def _call_id(said: dict[str, Any]) -> str | None:
    found: str | None = said.get("callId") or (said.get("call") or {}).get("id")
    return found
