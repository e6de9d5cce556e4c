"""How a room changes: one move at a time, guarded by its version, and told after it is durable.

Every verb may be repeated and may be cut off between any two awaits. What has been swapped carries its untold facts;
whoever has told them, and has ended the stays of those who left, says so, and a job does it for those who did not
live to. Within a process the moves of one room go one at a time; between processes the version guards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

import structlog

from models.db import out_of_reach
from models.errors import Refusal
from models.ports import Alarms, Clock, Courier, Doors, Ids, NoCourier
from models.rooms import rules
from models.rooms.board import Board
from models.rooms.ports import Announcer, NoStays, Processes, Stays
from models.rooms.room import Fact, Gone, Room, Timers
from models.rooms.rules import Step
from models.rooms.store import RoomStore
from models.users.profile import Profile
from models.users.service import Users

log = structlog.get_logger(__name__)

# Tries of one move against other processes, each of which loses to somebody who got on: with two processes and twenty
# people at one door in each, nobody has ever needed half of them.
TRIES_MAX = 50
# Facts that nobody has told for this long are told by the job.
UNTOLD_AFTER_SECONDS = 3
# Before a room's id in the key of its local timer, among those of the calls.
ALARM = "room:"

Move = Callable[[Room, datetime], Step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the parts of the rooms work with. ``others_live`` says whether other processes serve the same database."""

    store: RoomStore
    users: Users
    processes: Processes
    clock: Clock
    ids: Ids
    alarms: Alarms
    doors: Doors
    timers: Timers
    process: str
    others_live: Callable[[], bool]
    courier: Courier = field(default_factory=NoCourier)


@dataclass(frozen=True, slots=True)
class Seen:
    """A room, and the people in it and its owner as they are now, by id.

    ``apart`` are those of them between whom and the viewer a block stands, where that was asked.
    """

    room: Room
    people: dict[str, Profile]
    apart: frozenset[str] = frozenset()


class Engine:
    """Load → rules → guarded swap → tell. The verbs are built on ``_apply``."""

    def __init__(self, tools: Tools) -> None:
        self._store = tools.store
        self._users = tools.users
        self._processes = tools.processes
        self._clock = tools.clock
        self._ids = tools.ids
        self._alarms = tools.alarms
        self._doors = tools.doors
        self._timers = tools.timers
        self._process = tools.process
        self._others_live = tools.others_live
        self._courier = tools.courier
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.board = Board()
        # Set by the wiring: who tells, who charges, and who wants to know that somebody is in a room or no longer.
        self.announcer: Announcer
        self.stays: Stays = NoStays()
        self.busy_changed: Callable[..., None] = lambda *user_ids: None

    async def _apply(self, room_id: str, move: Move) -> Room:
        """Make a move, whatever else is going on; the room after it. What is overdue is done before."""
        turn = self._turns.setdefault(room_id, asyncio.Lock())
        async with turn:
            for attempt in range(TRIES_MAX):
                known = self.board.room(room_id) if attempt == 0 else None
                room = known or await self._loaded(room_id)
                now = self._clock.now()
                step = rules.tick(room, now, self._timers)
                overdue = step.room is not room
                try:
                    if not overdue:
                        step = move(room, now)
                except Refusal:
                    if known is not None:
                        continue  # what is in memory may be old; a no needs the truth
                    raise
                if step.room is room:
                    if known is not None and self._others_live():
                        continue
                    self._learn(room)
                    return room
                due = rules.deadline(step.room, self._timers)
                if await self._store.swap(room, step, deadline_at=due, now=now):
                    await self._tell(step.room, step.facts)
                    if not overdue:
                        return step.room
        raise Refusal("SERVER_BUSY")

    async def tick(self, room_id: str) -> None:
        """Do what is due for one room; called by its alarm and by ``run_due``."""
        await self._apply(room_id, lambda room, now: Step(room))

    async def _tell(self, room: Room, facts: Sequence[Fact], *, again: bool = False) -> None:
        """Commit first, tell after: the swap is durable. What fails here is done by ``run_untold``."""
        before = self.board.room(room.id)
        self._learn(room)
        # To those with a seat in it, and to those who had one: what a process believes of its own seats goes by it.
        seats = [seat for x in (before, room) if x for one in x.participants for seat in one.seats]
        self._courier.changed(
            "room", room.id, room.version, processes=sorted({seat.process for seat in seats if seat.process})
        )
        if not facts:
            return
        try:
            await self.announcer.announce(room, await self._people(room, facts), facts, again=again)
            for fact in facts:
                if fact.kind == "left" and fact.data["stay_id"] is not None:
                    await self.stays.end(
                        fact.data["stay_id"], at=fact.data["at"], reason=Gone(fact.data["reason"])
                    )
            await self._store.told(room.id, {fact.version for fact in facts})
        except Exception as error:
            log.warning("told later", room_id=room.id, error=repr(error))

    async def run_untold(self) -> int:
        """Tell what was swapped and never told; how many rooms."""
        late = self._clock.now() - timedelta(seconds=UNTOLD_AFTER_SECONDS)
        room_ids = await self._store.untold(late)
        await self._each(room_ids, self._tell_untold)
        return len(room_ids)

    async def _tell_untold(self, room_id: str) -> None:
        """Tell what still holds of a room as it is now: nobody hears late of a coming after the going."""
        turn = self._turns.setdefault(room_id, asyncio.Lock())
        async with turn:
            room = await self._loaded(room_id)
            await self._tell(replace(room, untold=()), room.untold, again=True)

    def _learn(self, room: Room) -> None:
        """Take over a version, whoever has made it: membership, the timer, and presence."""
        for user_id in self.board.update(room):
            self.busy_changed(user_id)
        due = rules.deadline(room, self._timers)
        # An empty room's end may be a turn of the job late; nobody waits for it.
        if due is not None and room.participants:
            self._alarms.set(ALARM + room.id, due)
        else:
            self._alarms.clear(ALARM + room.id)

    async def heard(self, room_id: str, version: int) -> None:
        """Another process has made this version of a room, and says so."""
        known = self.board.room(room_id)
        if known is None or known.version < version:
            self._learn(await self._loaded(room_id))

    async def _people(self, room: Room, facts: Iterable[Fact] = ()) -> dict[str, Profile]:
        """The owner, who is in the room, and whom the facts are about."""
        ids = {room.owner_id, *(one.user_id for one in room.participants)}
        ids |= {fact.data["user_id"] for fact in facts if "user_id" in fact.data}
        ids |= {user_id for fact in facts for user_id in fact.data.get("user_ids", ())}
        return await self._users.profiles(ids)

    async def _seen(self, room: Room) -> Seen:
        return Seen(room, await self._people(room))

    async def _loaded(self, room_id: str) -> Room:
        room = await self._store.load(room_id)
        if room is None:
            raise Refusal("ROOM_UNKNOWN")
        return room

    async def _each(self, room_ids: Collection[str], work: Callable[[str], Awaitable[Any]]) -> None:
        """A job's work on several rooms: one that cannot be done keeps no other waiting."""
        for room_id in room_ids:
            try:
                await work(room_id)
            except Exception as error:
                if out_of_reach(error):
                    raise  # the others would fail as well, each after its wait
                log.error("a room is left as it is", room_id=room_id, exc_info=error)
