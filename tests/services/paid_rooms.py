"""What the tests of paid rooms share: a town with prices and rooms, whose books are read anew by the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from handlers.stays import StayTeller
from models.calls.call import Call, State
from models.calls.documents import call_of
from models.calls.store import CALLS
from models.ports import Device
from models.rooms.engine import Seen
from models.rooms.pricing import RoomStays
from models.rooms.room import Fact, Gone, Room, Timers
from models.rooms.service import Rooms, Tools
from models.rooms.store import RoomStore
from models.users.profile import Profile
from tests.services.billing_house import MINUTE, PaidTown
from tests.services.callkit import DEAD_AFTER_SECONDS, Process, Raced

# What is asked of a participant for a minute; as in a call of this town, every second shows.
RATE = MINUTE


@dataclass
class Said:
    """What a process has said aloud of its rooms, in order."""

    facts: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    async def announce(
        self, room: Room, people: Mapping[str, Profile], facts: Sequence[Fact], *, again: bool
    ) -> None:
        self.facts += [(fact.kind, fact.data) for fact in facts]

    async def returned(self, room: Room, people: Mapping[str, Profile], user_id: str, device_id: str) -> None:
        """Nobody asks."""

    def of(self, user_id: str) -> list[str]:
        """What was said of somebody: joined, or why they are gone."""
        about = [(kind, data) for kind, data in self.facts if data.get("user_id") == user_id]
        return [data["reason"] if kind == "left" else kind for kind, data in about]


class House(Process):
    """A process with rooms in it."""

    def __init__(self, town: PaidTown, name: str, *, raced: bool = False) -> None:
        super().__init__(town, name, raced=raced)
        db: Any = self.life
        store: Any = RoomStore(db)
        self.rooms = Rooms(
            Tools(
                store=Raced(store) if raced else store,
                users=self.users,
                processes=self.calls._store.processes,
                clock=town.clock,
                ids=town.ids,
                alarms=self.alarms,
                doors=self.doors,
                timers=Timers(),
                process=name,
                others_live=lambda: self.calls.others_live,
            )
        )
        self.said = Said()
        self.rooms.announcer = self.said
        self.stays = RoomStays(calls=self.calls, users=self.users, meter=self.meter)
        self.rooms.stays, self.rooms.price_of = self.stays, self.stays.price_of
        self.calls.announcer = StayTeller(calls=self.calls.announcer, rooms=self.rooms, mailbox=self.mailbox)

    async def jobs(self) -> None:
        """One turn of every timed job, those of the rooms after those of the calls."""
        await super().jobs()
        await self.rooms.run_leases()
        await self.rooms.run_orphaned(DEAD_AFTER_SECONDS)
        await self.rooms.run_due()
        await self.rooms.run_untold()
        await self.rooms.refresh()


class RoomTown(PaidTown):
    """A town whose processes have rooms."""

    def process(self, name: str, *, raced: bool = False) -> House:
        made = House(self, name, raced=raced)
        self.processes.append(made)
        return made

    async def guest(self, house: House, user_id: str, money: int = 0, device_id: str = "") -> Guest:
        """Somebody with money and a phone at a process."""
        if money:
            await self.pay_in(house, user_id, money)
        return Guest(house, user_id, device_id or f"{user_id}-phone").connect()

    async def stays(self, *user_ids: str) -> list[Call]:
        """All stays, or those that these people have paid, in their order."""
        query: dict[str, Any] = {"room_id": {"$type": "string"}}
        if user_ids:
            query["caller.user_id"] = {"$in": user_ids}
        return [call_of(row) async for row in self.db[CALLS].find(query, sort=[("_id", 1)])]

    async def stay(self, user_id: str) -> Call:
        """Somebody's only stay."""
        (stay,) = await self.stays(user_id)
        return stay

    async def room(self, room_id: str) -> Room:
        """A room as it stands in the database."""
        found = await RoomStore(self.db).load(room_id)
        assert found is not None
        return found

    async def nobody_pays(self) -> None:
        """No stay runs, nothing is held, and the books agree."""
        assert [stay.id for stay in await self.stays() if stay.state is not State.ENDED] == []
        for stay in await self.stays():
            wallet = await self.wallet(stay.caller.user_id)
            assert (wallet.primary_held, wallet.credits_held) == (0, 0)
        await self.books()

    async def settled(self) -> None:
        """Time passes until all earnings are paid out."""
        self.clock.pass_(self.dispute_seconds + 1)
        fresh = self.process(f"clearing{len(self.processes)}")
        while await fresh.calls.run_money():
            pass


@dataclass
class Guest:
    """Somebody's device with a socket at a process, or a client without one (``rest``)."""

    house: House
    user_id: str
    device_id: str
    rest: bool = False

    @property
    def device(self) -> Device:
        process = None if self.rest else self.house.name
        return Device(user_id=self.user_id, device_id=self.device_id, session_id="s", process=process)

    def connect(self) -> Guest:
        self.house.doors.connect(self.user_id, self.device_id)
        return self

    def at(self, house: House, device_id: str = "") -> Guest:
        """The same person with a device at another process."""
        return Guest(house, self.user_id, device_id or self.device_id).connect()

    async def create(self, rate: int | None = RATE, **more: Any) -> Room:
        return (await self.house.rooms.create(self.user_id, rate_per_minute_minor=rate, **more)).room

    async def join(self, room: Room) -> Seen:
        return await self.house.rooms.join(self.device, room.id)

    async def leave(self, room: Room) -> Seen:
        return await self.house.rooms.leave(self.device, room.id)

    async def drop(self, *, seen_at: datetime | None = None) -> None:
        """The socket is gone."""
        self.house.doors.disconnect(self.user_id, self.device_id)
        await self.house.rooms.lost(
            self.user_id, self.device_id, self.house.name, seen_at or self.house.town.clock.now()
        )

    def letters(self, event: str) -> list[dict[str, Any]]:
        inbox = self.house.doors.devices.get((self.user_id, self.device_id), [])
        return [dict(x.payload) for x in inbox if x.event == event]


def gone(house: House, user_id: str) -> list[Gone]:
    """Why somebody has gone from rooms, as this process said it."""
    return [Gone(word) for word in house.said.of(user_id) if word != "joined"]
