"""What keeps rooms true without anybody asking: sockets that come and go, policy, money, deadlines, dead processes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from models.rooms import rules
from models.rooms.engine import ALARM, Engine
from models.rooms.ports import Media
from models.rooms.room import Closed, Gone, Room
from models.rooms.rules import Step

# How far a look at other processes' changes goes back: more than the job's turn, a stalled loop and the clocks'
# difference together (as in the mailbox).
LOOK_BACK_SECONDS = 10
# What one person can be in or own, with room to spare for what slips in at the same moment.
MINE_MAX = 200


class Upkeep(Engine):
    """The verbs of the server itself and of its jobs."""

    # Set by the wiring where a media server carries the media.
    media: Media | None = None
    _loaded_all = False

    # ------------------------------------------------------------------------------------------------------ sockets

    async def attached(self, user_id: str, device_id: str, process: str) -> None:
        """A device's socket is here: the seats that it has are kept, and it is told what they are like now."""
        for room_id in await self._store.with_person(user_id, MINE_MAX):
            room = await self._apply(
                room_id,
                lambda room, now: rules.back(room, user_id=user_id, device_id=device_id, process=process),
            )
            one = room.participant(user_id)
            if one is not None and one.here and one.seat(device_id) is not None:
                people = await self._people(room)
                await self.announcer.returned(room, people, user_id, device_id)

    async def lost(self, user_id: str, device_id: str, process: str, seen_at: datetime) -> None:
        """A device's socket is gone. Its seats are kept for the grace; what fails here the leases find."""
        for room_id in self.board.rooms_of(user_id):
            await self._lose(room_id, user_id, device_id, process, seen_at)

    async def _lose(
        self, room_id: str, user_id: str, device_id: str, process: str | None, seen_at: datetime
    ) -> None:
        def lose(room: Room, now: datetime) -> Step:
            return rules.lose(
                room, user_id=user_id, device_id=device_id, process=process, seen_at=min(now, seen_at)
            )

        await self._apply(room_id, lose)

    # ------------------------------------------------------------------------------------------- by other means

    async def left(self, *, room_id: str, user_id: str, device_id: str, at: datetime) -> None:
        """A device that came by ``entered`` has left the room, at ``at``; nothing happens when it was not there."""

        def leave(room: Room, now: datetime) -> Step:
            one = room.participant(user_id)
            if one is None or one.seat(device_id) is None:
                return Step(room)
            return rules.leave(room, user_id=user_id, device_id=device_id, now=min(at, now))

        await self._apply(room_id, leave)

    # ------------------------------------------------------------------------------------------- policy and money

    async def removed(self, room_id: str, user_id: str, *, reason: Gone, stay_id: str | None = None) -> None:
        """Take somebody out of a room, and tell them why: their money is over, they were banned. Safe to repeat.

        With ``stay_id`` only who is there by this stay: they may have come back by another.
        """

        def remove(room: Room, now: datetime) -> Step:
            one = room.participant(user_id)
            if one is None or stay_id not in (None, one.stay_id):
                return Step(room)
            return rules.remove(room, user_id=user_id, reason=reason, now=now)

        await self._apply(room_id, remove)

    async def end_all(self, user_id: str) -> None:
        """Take a person out of all rooms, and close those of their own, which would earn on: banned, deleted."""
        for room_id in await self._store.with_person(user_id, MINE_MAX):
            await self.removed(room_id, user_id, reason=Gone.POLICY)
        for room_id in await self._store.owned_open(user_id, MINE_MAX):
            await self._apply(room_id, lambda room, now: rules.close(room, reason=Closed.POLICY, now=now))

    async def end_between(self, user_id: str, other_id: str) -> None:
        """One of the two has blocked the other: nothing passes between them, in whichever room both are."""
        theirs = await self._store.with_person(other_id, MINE_MAX)
        for room_id in dict.fromkeys([*await self._store.with_person(user_id, MINE_MAX), *theirs]):
            await self._severed(room_id, user_id, other_id)

    async def _severed(self, room_id: str, user_id: str, other_id: str) -> Room:
        mixed = self.media is not None
        return await self._apply(
            room_id, lambda room, now: rules.sever(room, user_id, other_id, now=now, mixed=mixed)
        )

    async def forget(self, user_id: str) -> None:
        """Close the rooms of somebody whose account is deleted."""
        await self.end_all(user_id)

    # --------------------------------------------------------------------------------------------------------- jobs

    async def run_due(self) -> int:
        """Do what is due for every room, whoever should have; how many there were."""
        due = await self._store.due(self._clock.now())
        await self._each(due, self.tick)
        return len(due)

    async def alarm(self, key: str) -> None:
        """A local timer of ours has rung."""
        room_id = key.removeprefix(ALARM)
        if self.board.room(room_id) is not None:
            await self.tick(room_id)

    async def run_leases(self) -> None:
        """Find the seats here whose socket is gone without anybody having said so."""
        await self._each([room.id for room in self.board.rooms()], self._lose_here)

    async def run_orphaned(self, dead_after_seconds: float, *, living: Collection[str] | None = None) -> None:
        """Find the seats whose socket went with its process; for all processes, so one of them is enough.

        ``living``: who lived a moment ago, where that is known; no seat is lost without another look.
        """
        outside = (
            await self._store.with_seats_outside({*living, self._process}) if living is not None else None
        )
        if outside is None or outside:
            horizon = self._clock.now() - timedelta(seconds=dead_after_seconds)
            alive = {*await self._processes.living(horizon), self._process}

            async def lose_outside(room_id: str) -> None:
                await self._lose_seats(await self._loaded(room_id), alive, horizon)

            await self._each(await self._store.with_seats_outside(alive), lose_outside)

    async def _lose_seats(self, room: Room, alive: Collection[str], horizon: datetime) -> None:
        """The seats at processes that are dead were last alive with their process's last beat."""
        lost = [
            (one, seat)
            for one in room.participants
            for seat in one.seats
            if seat.process is not None and seat.process not in alive and seat.lost_at is None
        ]
        beats = await self._processes.last_beats({seat.process for _, seat in lost if seat.process})
        for one, seat in lost:
            beat_at = beats.get(seat.process or "")
            if beat_at is None or beat_at < horizon:  # or else it has begun since it was asked who lives
                seen = max(beat_at or one.joined_at, one.joined_at)
                await self._lose(room.id, one.user_id, seat.device_id, seat.process, seen)

    async def _lose_here(self, room_id: str) -> None:
        """The seats that are said to be at this process and have no socket in it."""
        room = self.board.room(room_id)
        for one in room.participants if room else ():
            for seat in one.seats:
                if seat.process != self._process:
                    continue
                here = self._doors.connected(one.user_id, seat.device_id)
                if here and seat.lost_at is not None:
                    # Others took this process for dead, while it or the database stood still.
                    await self.attached(one.user_id, seat.device_id, self._process)
                elif not here and seat.lost_at is None:
                    await self._lose(room_id, one.user_id, seat.device_id, seat.process, self._clock.now())

    async def refresh(self) -> None:
        """Take over what other processes have made of the rooms; the first time all that anybody is in."""
        if not self._loaded_all:
            for room in await self._store.occupied():
                self._learn(room)
            self._loaded_all = True
        elif self._others_live() and not self._courier.may_wait("rooms"):
            since = self._clock.now() - timedelta(seconds=LOOK_BACK_SECONDS)
            for room in await self._store.changed_since(since):
                self._learn(room)
