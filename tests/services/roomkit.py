"""A house with rooms, people, phones and processes on one database, for the tests of rooms.

Time is virtual, sockets and pushes are recorded, money is counted; the verbs, the log and the database are the real
ones. A process may be made to die at the n-th call to the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from handlers.rooms_views import RoomTeller, existing_users
from models.calls.processes.store import ProcessStore
from models.db import Database
from models.errors import Refusal
from models.live import Together
from models.mailbox.service import Mailbox
from models.mailbox.store import MailboxStore
from models.ports import Device, Letter
from models.presence.service import Presence
from models.rooms.engine import Seen
from models.rooms.logs.store import CallLog
from models.rooms.room import Access, Gone, Participant, Room, Timers
from models.rooms.service import Rooms, Tools
from models.rooms.store import ROOMS, RoomStore
from models.rooms.talk.service import Said, Talk
from models.rooms.talk.store import TalkStore
from models.users.service import Users
from models.users.store import UserStore
from tests.fakes import CountingIds, FakeAlarms, FakeDoors, VirtualClock
from tests.services.callkit import Mortal, Town

DEAD_AFTER_SECONDS = 8


@dataclass
class Till:
    """Where the stays are paid, durable as a database: what is running, and how each ended."""

    poor: set[str] = field(default_factory=set)
    running: dict[str, str] = field(default_factory=dict)
    ended: dict[str, tuple[datetime, Gone]] = field(default_factory=dict)
    # A process that dies here, after the money was taken.
    dies_after_begin: Mortal | None = None

    async def begin(self, room: Room, participant: Participant) -> str:
        """``models.rooms.ports.Stays``."""
        assert participant.stay_id is not None
        if participant.stay_id in self.ended:
            raise Refusal("ROOM_NOT_JOINED")
        if participant.user_id in self.poor:
            raise Refusal("INSUFFICIENT_FUNDS")
        self.running[participant.stay_id] = participant.user_id
        if self.dies_after_begin is not None:
            self.dies_after_begin.dies_at = 0
            self.dies_after_begin.breathe()
        return participant.stay_id

    async def end(self, stay_id: str, *, at: datetime, reason: Gone) -> None:
        """``models.rooms.ports.Stays``."""
        self.running.pop(stay_id, None)
        self.ended.setdefault(stay_id, (at, reason))


@dataclass
class Invitations:
    """What would be pushed: (room id, user id)."""

    sent: list[tuple[str, str]] = field(default_factory=list)

    async def room_invited(
        self, *, room_id: str, room_name: str | None, by: Mapping[str, Any], user_id: str
    ) -> None:
        """``models.rooms.ports.RoomPusher``; the same again within a minute is one, as it says."""
        if (room_id, user_id) not in self.sent:
            self.sent.append((room_id, user_id))


class Process:
    """One server process: its rooms, its sockets, its alarms."""

    def __init__(self, house: RoomHouse, name: str) -> None:
        self.house, self.name = house, name
        self.life = Mortal(house.db)
        db: Any = self.life
        self.doors, self.alarms = FakeDoors(), FakeAlarms()
        self.others = False
        self.users = Users(store=UserStore(db), clock=house.clock)
        self.mailbox = Mailbox(MailboxStore(db, name), self.doors, house.clock)
        self.beats = ProcessStore(db)
        self.rooms = Rooms(
            Tools(
                store=RoomStore(db),
                users=self.users,
                processes=self.beats,
                clock=house.clock,
                ids=house.ids,
                alarms=self.alarms,
                doors=self.doors,
                timers=house.timers,
                process=name,
                others_live=lambda: self.others,
            ),
            capacity=house.capacity,
            capacity_max=house.capacity_max,
        )
        self.users.bind(Together(self.rooms))
        self.presence = Presence(self.doors, self.rooms.board.in_room)
        self.rooms.stays = house.till
        self.talk = Talk(
            store=TalkStore(db), rooms=self.rooms, users=self.users, clock=house.clock, ids=house.ids
        )
        self.rooms.announcer = self.talk.speaker = RoomTeller(
            mailbox=self.mailbox,
            presence=self.presence,
            others_live=lambda: self.others,
            pusher=house.invitations,
        )

    async def beat(self) -> None:
        """Say that this process lives, and see who else does."""
        await self.beats.beat(self.name, self.house.clock.now())

    async def jobs(self) -> None:
        """One turn of every timed job of the rooms."""
        await self.beat()
        await self.rooms.refresh()
        await self.hear()
        await self.rooms.run_leases()
        await self.rooms.run_orphaned(DEAD_AFTER_SECONDS)
        await self.rooms.run_due()
        await self.rooms.run_untold()
        await self.talk.tell_untold()

    async def hear(self) -> None:
        """What other processes have posted reaches the devices here."""
        await self.mailbox.fetch()


@dataclass
class Phone:
    """A person's device with a socket at a process, or a client without a socket (``rest``)."""

    process: Process
    user_id: str
    device_id: str
    rest: bool = False

    @property
    def device(self) -> Device:
        process = None if self.rest else self.process.name
        return Device(user_id=self.user_id, device_id=self.device_id, session_id="s", process=process)

    async def join(self, room_id: str) -> Seen:
        """By ``join-room`` or by REST."""
        seen = await self.process.rooms.join(self.device, room_id)
        if not self.rest:
            await self.process.mailbox.post([existing_users(seen, self.device, self.process.presence)])
        return seen

    async def leave(self, room_id: str) -> Seen:
        return await self.process.rooms.leave(self.device, room_id)

    async def say(self, room_id: str, text: str, op_id: str | None = None) -> Said:
        return await self.process.talk.say(self.device, room_id, text, op_id=op_id)

    async def to(self, room_id: str, target: str | None = None) -> list[str]:
        """Whom a signal of this phone reaches."""
        found = await self.process.rooms.route(self.device, room_id, target)
        return [one.user_id for one in found]

    async def drop(self) -> None:
        """The socket is gone."""
        self.process.doors.disconnect(self.user_id, self.device_id)
        now = self.process.house.clock.now()
        await self.process.rooms.lost(self.user_id, self.device_id, self.process.name, now)

    async def back(self, process: Process | None = None) -> Phone:
        """The app connects again, here or at another process."""
        self.process = process or self.process
        self.process.doors.connect(self.user_id, self.device_id)
        await self.process.rooms.attached(self.user_id, self.device_id, self.process.name)
        return self

    @property
    def inbox(self) -> list[Letter]:
        return self.process.doors.devices.get((self.user_id, self.device_id), [])

    def told_once(self, since: int, room_id: str) -> list[Letter]:
        """What it was told of a room; a letter that comes again under its number is one, as the sockets see to it."""
        about = [x for x in self.inbox[since:] if x.payload.get("roomId") == room_id]
        return list({x.seq if x.seq is not None else id(x): x for x in about}.values())

    def heard(self, event: str) -> list[dict[str, Any]]:
        """The payloads of the events of that name."""
        return [dict(letter.payload) for letter in self.inbox if letter.event == event]

    def comings_and_goings(self) -> list[str]:
        """Of whom it heard, in order: ``+bob``, ``-bob``."""
        signs = {"user-connected": "+", "user-disconnected": "-"}
        return [signs[x.event] + x.payload["userId"] for x in self.inbox if x.event in signs]


class RoomHouse:
    """Everything on one database."""

    def __init__(self, db: Database, clock: VirtualClock, ids: CountingIds) -> None:
        self.db, self.clock, self.ids = db, clock, ids
        self.timers = Timers()
        self.capacity = self.capacity_max = 8
        self.till, self.invitations = Till(), Invitations()
        self.store = RoomStore(db)
        self.processes: list[Process] = []

    async def people(self, *names: str) -> None:
        """Active users whose ids are their names."""
        await Town(self.db, self.clock, self.ids).people(*names)

    async def set_status(self, name: str) -> None:
        """The person called ``banned`` is, and ``deleted`` has left a tombstone."""
        personal = ("email", "email_key", "username_key", "display_key", "password_hash")
        change: dict[str, Any] = {"$set": {"status": name}}
        if name == "deleted":
            change["$unset"] = dict.fromkeys(personal, "")
        await self.db["users"].update_one({"_id": name}, change)

    async def process(self, name: str) -> Process:
        """A process that lives; those that live by now know of one another."""
        made = Process(self, name)
        await made.beat()
        self.processes.append(made)
        for one in self.processes:
            one.others = len(self.processes) > 1
        await made.rooms.refresh()
        return made

    def phone(self, process: Process, user_id: str, device_id: str = "", *, rest: bool = False) -> Phone:
        phone = Phone(process, user_id, device_id or f"{user_id}-phone", rest)
        if not rest:
            process.doors.connect(phone.user_id, phone.device_id)
        return phone

    async def room(self, process: Process, owner: str = "ada", **fields: Any) -> str:
        """A new room; its id."""
        return (await process.rooms.create(owner, **fields)).room.id

    async def invite_only(self, process: Process, owner: str = "ada", **fields: Any) -> str:
        return await self.room(process, owner, access=Access.INVITE, **fields)

    async def truth(self, room_id: str) -> Room:
        """The room as it stands in the database."""
        found = await self.store.load(room_id)
        assert found is not None
        return found

    async def present(self, room_id: str) -> list[str]:
        return [one.user_id for one in (await self.truth(room_id)).present]

    async def logs(self, room_id: str) -> list[CallLog]:
        """The call logs of a room, oldest first."""
        rows = self.db["call_logs"].find({"room_id": room_id}, sort=[("_id", 1)])
        found = [await self.store.logs.find(row["_id"]) async for row in rows]
        return [one for one in found if one is not None]

    async def pass_(self, seconds: float, *processes: Process, step: float = 2) -> None:
        """Let time pass while the jobs of the given processes run."""
        left = seconds
        while left > 0:
            self.clock.pass_(min(step, left))
            left -= step
            for process in processes:
                await process.jobs()

    async def audit(self, *, sessions: bool = True) -> None:
        """What must hold once nothing is under way: places, sessions, logs and stays agree, and all is told.

        Without ``sessions`` somebody has ended one by hand, with people in the room.
        """
        staying: set[str] = set()
        open_sessions: set[str] = set()
        async for row in self.db[ROOMS].find():
            room = await self.truth(row["_id"])
            assert len(room.participants) <= room.capacity
            assert bool(room.session) == bool(room.present) or not sessions
            assert (room.emptied_at is None) == (bool(room.participants) or not room.open)
            assert not any(one.pending for one in room.participants)
            assert room.untold == ()
            staying |= {one.stay_id for one in room.participants if one.stay_id}
            if room.session:
                open_sessions.add(room.session.id)
        running = {row["_id"] async for row in self.db["call_logs"].find({"ended_at": None})}
        assert running == open_sessions
        assert set(self.till.running) == staying
