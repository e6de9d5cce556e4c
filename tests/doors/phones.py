"""Phones: the official JavaScript client in a node process, as objects that a test can await.

Waiting is for events that arrive, never for time. That something does *not* arrive is shown by ``settled``: an ack
that the server sends after whatever it had to say before.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

JS = Path(__file__).parents[1] / "js"
# Longer than anything here takes on a busy machine; only a test that fails waits for it.
WITHIN_SECONDS = 20.0

Happening = tuple[str, list[Any]]


def missing(said: str) -> None:
    """A test needs what this machine lacks: skip, but fail where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)


class Exchange:
    """The node process. Any loop may use it, one after the other: a thread reads what it says."""

    def __init__(self) -> None:
        node = shutil.which("node")
        if node is None:
            missing("node is missing: apt-get install nodejs npm")
        if not (JS / "node_modules" / "socket.io-client").exists():
            missing("socket.io-client is missing: npm ci in tests/js")
        self._process = subprocess.Popen(
            [str(node), str(JS / "phone.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self._phones: dict[str, tuple[asyncio.AbstractEventLoop, Callable[[Happening], None]]] = {}
        self._reader = threading.Thread(target=self._read, name="phones", daemon=True)
        self._reader.start()

    def add(self, name: str, hear: Callable[[Happening], None]) -> None:
        """``hear`` is called in this loop with whatever happens to the phone ``name``."""
        self._phones[name] = (asyncio.get_running_loop(), hear)

    def remove(self, name: str) -> None:
        """What happens to that phone interests nobody any more."""
        self._phones.pop(name, None)

    async def ask(self, verb: str, **with_: Any) -> Any:
        """One command of phone.mjs; its value. ``PhoneFault`` when it says error."""
        assert self._process.stdin is not None
        number, loop = next(self._numbers), asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._asked[number] = (loop, answer)
        self._process.stdin.write(json.dumps({"id": number, "do": verb, **with_}) + "\n")
        self._process.stdin.flush()
        async with asyncio.timeout(WITHIN_SECONDS + 5):
            said = await answer
        if "error" in said:
            raise PhoneFault(f"{verb}: {said['error']}")
        return said["value"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "id" in said:
                loop, answer = self._asked.pop(said["id"])
                call: Callable[[], Any] = lambda a=answer, s=said: a.done() or a.set_result(s)  # noqa: E731
            elif said["phone"] in self._phones:
                loop, hear = self._phones[said["phone"]]
                call = lambda h=hear, s=said: h((s["event"], s["args"]))  # noqa: E731
            else:
                continue
            if not loop.is_closed():
                loop.call_soon_threadsafe(call)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._reader.join(5)
        self._process.stdout.close()


class PhoneFault(Exception):
    """The client could not do it: no ack came, or there is no such phone."""


class Refused(AssertionError):
    """An ack that said no, where the test had expected a yes."""


class Phone:
    """One socket of the official client."""

    def __init__(self, exchange: Exchange, name: str) -> None:
        self._exchange = exchange
        self.name = name
        self.log: list[Happening] = []
        self._taken: set[int] = set()
        self._news = asyncio.Event()
        exchange.add(name, self._hear)

    def _hear(self, happening: Happening) -> None:
        self.log.append(happening)
        self._news.set()

    async def open(self, url: str, **options: Any) -> None:
        """Begin to connect; what comes of it is ``*connect`` or ``*connect_error``."""
        await self._exchange.ask("open", phone=self.name, url=url, options=options)

    # ------------------------------------------------------------------------------------------------- talking

    async def ack(self, event: str, *args: Any, seconds: float = WITHIN_SECONDS) -> Any:
        """Send an event; its one ack. ``PhoneFault`` when none comes."""
        answer = await self._exchange.ask(
            "emit", phone=self.name, event=event, args=list(args), withinMs=round(seconds * 1000)
        )
        assert len(answer) == 1, f"an ack has one argument, not {answer}"
        check_ack(answer[0])
        return answer[0]

    async def ask(self, event: str, payload: Any = None, /, **fields: Any) -> Any:
        """Send an event that is answered well; the data of the ack."""
        ack = await self.ack(event, _payload(payload, fields))
        if not ack["ok"]:
            raise Refused(f"{event}: {ack['error']}")
        return ack["data"]

    async def refused(self, event: str, payload: Any = None, /, **fields: Any) -> dict[str, Any]:
        """Send an event that is refused; the error of the ack."""
        ack = await self.ack(event, _payload(payload, fields))
        assert not ack["ok"], f"{event} was not refused: {ack}"
        return dict(ack["error"])

    async def burst(self, events: Sequence[Sequence[Any]], seconds: float = WITHIN_SECONDS) -> list[Any]:
        """Send ``(event, *args)`` back to back; all acks, in the order of the sending."""
        acks: list[Any] = await self._exchange.ask(
            "burst", phone=self.name, events=[list(e) for e in events], withinMs=round(seconds * 1000)
        )
        for ack in acks:
            check_ack(ack)
        return acks

    async def queued(self, event: str, *args: Any) -> Any:
        """Send by a client with ``retries``; what its queue got as the ack in the end."""
        answer = await self._exchange.ask(
            "emitQueued", phone=self.name, event=event, args=list(args), withinMs=round(WITHIN_SECONDS * 1000)
        )
        return answer[0]

    async def tell(self, event: str, *args: Any) -> None:
        """Send an event and ask for no ack."""
        await self._exchange.ask("emit", phone=self.name, event=event, args=list(args))

    async def frame(self, text: str) -> None:
        """Send an engine message of our own making: ``42["X",NaN]`` is Socket.IO's EVENT."""
        await self._exchange.ask("frame", phone=self.name, text=text)

    # ----------------------------------------------------------------------------------------------- listening

    async def happens(
        self, event: str, where: Callable[[Any], bool] = lambda _: True, *, seconds: float = WITHIN_SECONDS
    ) -> Any:
        """The first argument of the next event of that name that nobody has waited for yet, now or when it comes."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for number, (name, args) in enumerate(self.log):
                        first = args[0] if args else None
                        if name == event and number not in self._taken and where(first):
                            self._taken.add(number)
                            return first
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} did not hear {event}, only {self.names()}") from None

    def names(self) -> list[str]:
        """The names of all that has happened, in order."""
        return [name for name, _ in self.log]

    def heard(self, event: str) -> list[Any]:
        """The payloads of all events of that name so far."""
        return [args[0] if args else None for name, args in self.log if name == event]

    async def settled(self) -> None:
        """Whatever the server had said to this phone before this question has arrived."""
        await self.ack("CALL_SYNC", {})

    # ---------------------------------------------------------------------------------------- coming and going

    async def connect(self) -> None:
        """Connect again, after ``close``."""
        await self._exchange.ask("connect", phone=self.name)

    async def use(self, **auth: Any) -> None:
        """What the next handshake says."""
        await self._exchange.ask("auth", phone=self.name, auth=auth)

    async def close(self) -> None:
        """Hang the socket up, with a goodbye."""
        await self._exchange.ask("close", phone=self.name)
        await self.happens("*disconnect")

    async def kill(self) -> None:
        """Lose the network, without a goodbye."""
        await self._exchange.ask("kill", phone=self.name)
        await self.happens("*disconnect")

    async def forget(self) -> None:
        """Done with."""
        self._exchange.remove(self.name)
        await self._exchange.ask("forget", phone=self.name)


def check_ack(ack: Any) -> None:
    """The one form of an ack (CONTRACT §1)."""
    assert isinstance(ack, dict), ack
    if ack.get("ok") is True:
        assert set(ack) == {"ok", "data"}, ack
        assert isinstance(ack["data"], dict), ack
        return
    assert ack.get("ok") is False, ack
    assert set(ack) == {"ok", "error"}, ack
    check_error(ack["error"])


def check_error(error: Mapping[str, Any]) -> None:
    """The one form of a refusal, in acks, in REST and in ``error``."""
    assert {"code", "message"} <= set(error) <= {"code", "message", "details", "retryAfterMs"}, error
    assert error["code"].isupper(), error
    assert error["message"].endswith("."), error
    assert isinstance(error.get("details", {}), dict), error
    assert error.get("details", 1), "details only where they say something"
    assert isinstance(error.get("retryAfterMs", 0), int), error


def _payload(payload: Any, fields: dict[str, Any]) -> Any:
    return fields if payload is None else payload
