"""What a request costs of the database: how many commands, and that each finds what it seeks by an index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
import structlog
from pymongo import monitoring
from pymongo.errors import OperationFailure

from handlers.registry import catalogue
from server.app import TASKS, WIRED
from tests.doors.conftest import House, Person, open_house
from tests.doors.phones import Exchange, Phone
from tests.doors.talk import answer, candidate, offer, pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SESSION = {
    "lsid",
    "txnNumber",
    "$db",
    "$clusterTime",
    "$readPreference",
    "startTransaction",
    "autocommit",
    "readConcern",
    "writeConcern",
}
_SEEKS = {"find", "findAndModify", "update", "delete", "aggregate", "count", "distinct"}


class Heard(monitoring.CommandListener):
    """The commands that go to the database, with whether they are of a request: those have a user in their context."""

    def __init__(self) -> None:
        self.commands: list[tuple[bool, str, dict[str, Any]]] | None = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.commands is not None:
            asked = "user_id" in structlog.contextvars.get_contextvars()
            self.commands.append((asked, event.command_name, dict(event.command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Of no interest."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Of no interest."""

    @contextmanager
    def listening(self) -> Iterator[list[tuple[bool, str, dict[str, Any]]]]:
        self.commands = found = []
        try:
            yield found
        finally:
            self.commands = None


@pytest.fixture(scope="module")
def heard() -> Heard:
    listener = Heard()
    monitoring.register(listener)  # of clients made from here on; quiet outside ``listening``
    return listener


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(mongo_uri: str, exchange: Exchange, heard: Heard) -> AsyncIterator[House]:
    async with open_house(mongo_uri, exchange) as opened:
        yield opened


async def story(house: House, heard: Heard) -> tuple[dict[str, list[str]], Person, Phone, Person, Phone]:
    """A call and two messages; the commands of each request by its name."""
    ada, a, bob, b = await pair(house)
    cost: dict[str, list[str]] = {}

    async def ask(name: str, phone: Phone, event: str, **payload: Any) -> Any:
        with heard.listening() as commands:
            said = await phone.ask(event, payload)
            # What was asked for is answered when it is durable; telling goes on after that.
            await settled(house)
        cost[name] = [f"{what} {command[what]}" for asked, what, command in commands if asked]
        return said

    for round_ in ("first", "second"):  # the first one makes conversations, and looks up where logs end
        call = await ask("request", a, "CALL_REQUEST", to=bob.id, type="audio", offer=offer())
        await ask("ringing", b, "CALL_RINGING", callId=call["id"])
        await ask("accept", b, "CALL_ACCEPT", callId=call["id"], answer=answer())
        await ask("candidate", a, "ICE_CANDIDATE", callId=call["id"], candidate=candidate(1))
        await ask("description", a, "SESSION_DESCRIPTION", callId=call["id"], description=offer("cccc"))
        await ask("end", a, "CALL_ENDED", callId=call["id"])
        sent = await ask("message", a, "CHAT_MESSAGE", to=bob.id, text="hello", opId=f"{round_}")
        await ask("read", b, "MESSAGE_READ", conversationId=sent["conversationId"], seq=sent["seq"])
    return cost, ada, a, bob, b


async def settled(house: House) -> None:
    """What requests have begun is done."""
    while running := [task for task in house.app[TASKS]._running if not task.get_name().startswith("replay")]:
        await asyncio.wait(running, timeout=5)


async def scans(house: House, what: str, command: dict[str, Any]) -> set[str]:
    """The collection that a command reads from end to end, if it does."""
    plain = {key: value for key, value in command.items() if key not in _SESSION}
    asked = [plain]
    if what in ("update", "delete"):  # explained one by one
        field = "updates" if what == "update" else "deletes"
        asked = [{**plain, field: [one]} for one in plain[field]]
    found = set()
    for one in asked:
        try:
            plan = await house.db.db.command("explain", one, verbosity="queryPlanner")
        except OperationFailure as fault:
            pytest.fail(f"{one}: {fault}")
        if "COLLSCAN" in str(plan["queryPlanner"] if "queryPlanner" in plan else plan["stages"][0]):
            found.add(f"{plain[what]}: {one}"[:400])
    return found


async def test_each_request_takes_this_many_commands_and_no_more(house: House, heard: Heard) -> None:
    cost, *_ = await story(house, heard)
    assert cost == {
        # two people, blocks, locks | the lock and the call, together | what the callee is told, and whom a push wakes
        "request": [
            *("find users", "find blocks", "find call_locks"),
            *("insert call_locks", "insert calls", "commitTransaction 1"),
            *("insert letters", "find push_tokens"),
        ],
        "ringing": ["update calls", "insert letters"],
        "accept": ["update calls", "insert letters", "find push_tokens"],
        "candidate": [],
        "description": ["update calls"],
        "end": ["update calls", "delete call_locks", "commitTransaction 1", "insert letters"],
        "message": [
            *("find users", "find blocks", "insert messages"),
            *(
                "find memberships",
                "update conversations",
                "insert letters",
                "find push_tokens",
                "update messages",
            ),
        ],
        "read": cost["read"],
    }
    assert len(cost["read"]) <= 10


async def test_every_command_finds_what_it_seeks_by_an_index(house: House, heard: Heard) -> None:
    with heard.listening() as commands:
        ada, a, bob, b = await pair(house)
        call = await a.ask("CALL_REQUEST", to=bob.id, type="audio", offer=offer())
        await b.ask("CALL_ACCEPT", callId=call["id"], answer=answer())
        await a.ask("CALL_ENDED", callId=call["id"])
        sent = await a.ask("CHAT_MESSAGE", to=bob.id, text="hello", opId="1")
        await b.ask("MESSAGE_READ", conversationId=sent["conversationId"], seq=sent["seq"])
        await ada.post("/api/room", {"name": "a room"})
        await ada.get("/api/chat/conversations")
        await ada.get("/api/calls/history")
        await ada.get(f"/api/chat/history/{bob.id}")
        for job in catalogue.jobs.values():
            await job.handler(house.services)
        assert None not in (await house.app[WIRED].backlogs.look()).values()
    assert await scans(house, "find", {"find": "calls", "filter": {"no index": 1}})
    assert len(commands) > 50
    scanned = set()
    for _, what, command in commands:
        if what in _SEEKS:
            scanned |= await scans(house, what, command)
    assert scanned == set()
