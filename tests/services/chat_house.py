"""People who write to each other, and processes on one database, for the tests of chat.

Time is virtual, sockets and pushes are recorded; the verbs, the log, the letters and the database are the real ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from handlers.chat_views import ChatTeller
from models.chat.message import Draft
from models.chat.service import Chat, ChatStores, Written
from models.db import Database
from models.errors import Refusal
from models.mailbox.service import Mailbox
from models.mailbox.store import MailboxStore
from models.ports import Device, Letter
from models.presence.memory import Presence
from models.users.service import Users
from models.users.store import UserStore
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.callkit import Mortal

ANN, BOB, EVE = (f"01950000-0000-7000-8000-0000000000a{n}" for n in range(3))
NOBODY = "01950000-0000-7000-8000-0000000000ff"


@dataclass
class FakeMessagePusher:
    """What would be pushed, in order."""

    said: list[dict[str, Any]] = field(default_factory=list)
    read: list[tuple[str, str, int]] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)

    async def message(self, *, recipients: Collection[str], **more: Any) -> None:
        self.said.append({"recipients": sorted(recipients), **more})

    async def message_changed(self, **more: Any) -> None:
        self.changed.append(more)

    async def message_read(self, *, user_id: str, conversation_id: str, seq: int) -> None:
        self.read.append((user_id, conversation_id, seq))


class Spoken(Chat):
    """The chat of one process, with a shorter way to say something."""

    async def say(
        self,
        device: Device,
        *,
        text: str | None,
        op_id: str,
        to: str | None = None,
        conversation_id: str | None = None,
        **more: Any,
    ) -> Written:
        draft = Draft(text=text, op_id=op_id, **more)
        return await self.send(device, draft, to=to, conversation_id=conversation_id)


class Process:
    """One server process: its chat, its sockets, its own way to the database, which may die."""

    def __init__(self, world: World, name: str, **ports: Any) -> None:
        self.name, self.life, self.doors = name, Mortal(world.db), FakeDoors()
        db: Any = self.life
        self.users = Users(store=UserStore(db), clock=world.clock)
        self.mailbox = Mailbox(MailboxStore(db, name), self.doors, world.clock)
        self.chat = Spoken(stores=ChatStores(db), users=self.users, clock=world.clock, ids=world.ids, **ports)
        self.chat.announcer = ChatTeller(
            mailbox=self.mailbox,
            presence=Presence(self.doors, lambda user_id: False),
            users=self.users,
            pusher=world.pusher,
        )


@dataclass
class World:
    """A database with three people, and processes on it."""

    db: Database
    clock: VirtualClock
    ids: CountingIds
    doors: FakeDoors

    def __post_init__(self) -> None:
        self.users = Users(store=UserStore(self.db), clock=self.clock)
        self.mailbox = Mailbox(MailboxStore(self.db), self.doors, self.clock)
        self.presence = Presence(self.doors, lambda user_id: False)
        self.pusher = FakeMessagePusher()

    def teller(self, mailbox: Any = None) -> ChatTeller:
        return ChatTeller(
            mailbox=mailbox or self.mailbox, presence=self.presence, users=self.users, pusher=self.pusher
        )

    def process(self, announcer: Any = None, **ports: Any) -> Spoken:
        """The chat of another process, whose sockets are all ``doors``."""
        chat = Spoken(stores=ChatStores(self.db), users=self.users, clock=self.clock, ids=self.ids, **ports)
        chat.announcer = announcer or self.teller()
        return chat

    def machine(self, name: str, **ports: Any) -> Process:
        """A process with sockets of its own."""
        return Process(self, name, **ports)

    async def add_user(self, user_id: str, name: str) -> None:
        row = {"_id": user_id, "username": name, "username_key": name, "display_name": name.title()}
        row |= {"display_key": name, "email": f"{name}@x.test", "email_key": f"{name}@x.test"}
        row |= {"password_hash": "-", "avatar_url": None, "rate_per_minute_minor": None, "currency": "NGN"}
        row |= {"role": "user", "status": "active"}
        now = self.clock.now()
        await self.db["users"].insert_one({**row, "created_at": now, "updated_at": now})

    async def crowd(self, n: int) -> list[str]:
        """``n`` more people."""
        ids = [f"01950000-0000-7000-8000-0000000c{number:04x}" for number in range(n)]
        for number, user_id in enumerate(ids):
            await self.add_user(user_id, f"person{number}")
        return ids

    async def set_status(self, user_id: str, status: str) -> None:
        personal = dict.fromkeys(("email", "email_key", "username_key", "display_key", "password_hash"), "")
        change: dict[str, Any] = {"$set": {"status": status}}
        if status == "deleted":
            change["$unset"] = personal
        await self.db["users"].update_one({"_id": user_id}, change)

    async def log(self, user_id: str) -> list[Letter]:
        """All letters of a person, in order."""
        return await MailboxStore(self.db).since(user_id, 0)

    async def numbers(self, conversation_id: str) -> list[int]:
        """The numbers of a conversation, in order."""
        query = {"conversation_id": conversation_id}
        return [row["seq"] async for row in self.db["messages"].find(query, {"seq": 1}, sort=[("seq", 1)])]


def device(user_id: str, name: str = "phone") -> Device:
    return Device(user_id=user_id, device_id=name, session_id=f"s-{user_id}-{name}", process="p1")


async def refused(work: Awaitable[Any]) -> str:
    with pytest.raises(Refusal) as no:
        await work
    return no.value.code


def told(letters: Collection[Letter], event: str) -> list[Mapping[str, Any]]:
    """The payloads of the letters of one event, in order."""
    return [letter.payload for letter in letters if letter.event == event]


async def build(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    """The world of the fixtures."""
    built = World(db, clock, ids, doors)
    for user_id, name in ((ANN, "ann"), (BOB, "bob"), (EVE, "eve")):
        await built.add_user(user_id, name)
    return built


Verb = Callable[[Process], Awaitable[Any]]
