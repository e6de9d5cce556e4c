"""Apps that write end-to-end encrypted: each a node process with Signal's own library, as an object to await."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from asyncio.subprocess import PIPE, Process
from typing import Any

from tests.doors.conftest import Person
from tests.doors.phones import JS, WITHIN_SECONDS, PhoneFault, missing


class SignalApp:
    """One device of ``person``. What it reads is in ``heard``, in order."""

    def __init__(self, person: Person, device_id: str) -> None:
        self.person = person
        self.device_id = device_id
        self.heard: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._news = asyncio.Event()
        self._process: Process
        self._reader: asyncio.Task[None]

    async def begin(self, *, one_time: int = 5) -> SignalApp:
        """Start the app: it makes its keys, uploads them and connects."""
        node = shutil.which("node")
        if node is None:
            missing("node is missing: apt-get install nodejs npm")
        if not (JS / "node_modules" / "@signalapp" / "libsignal-client").exists():
            missing("@signalapp/libsignal-client is missing: npm ci in tests/js")
        program = str(JS / "signal.mjs")
        self._process = await asyncio.create_subprocess_exec(str(node), program, stdin=PIPE, stdout=PIPE)
        self._reader = asyncio.create_task(self._read())
        await self.ask(
            "begin",
            url=self.person.house.url,
            token=self.person.token,
            userId=self.person.id,
            deviceId=self.device_id,
            oneTime=one_time,
        )
        return self

    async def ask(self, verb: str, **with_: Any) -> Any:
        """One command of signal.mjs; its value. ``PhoneFault`` when it says error."""
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "do": verb, **with_}).encode() + b"\n")
        async with asyncio.timeout(WITHIN_SECONDS + 5):
            said = await self._asked[number]
        if "error" in said:
            raise PhoneFault(f"{verb}: {said['error']}")
        return said["value"]

    async def send(self, to: Person, text: str, op_id: str) -> dict[str, Any]:
        """Write to somebody's devices and one's own others."""
        return dict(await self.ask("send", to=to.id, text=text, opId=op_id))

    async def reads(self, text: str) -> dict[str, Any]:
        """Wait for the next message, which has to be this one."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not self.heard:
                self._news.clear()
                await self._news.wait()
        said = self.heard.pop(0)
        assert (said["event"], said.get("text")) == ("read", text), said
        return said

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "id" in said:
                self._asked.pop(said["id"]).set_result(said)
            else:
                self.heard.append(said)
                self._news.set()

    async def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reader
