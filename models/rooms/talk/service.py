"""The verbs of what is written in rooms: append → tell.

A message is durable before anybody hears of it, and untold until it has been told; whoever dies in between is followed
by the sender's retry or by a job. Within a process the messages of one room go one at a time, so all hear them in the
order of their numbers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from models.errors import Refusal
from models.ports import Clock, Device, Ids
from models.rooms import rules
from models.rooms.room import Room
from models.rooms.service import Rooms
from models.rooms.talk.store import Line, TalkStore
from models.users.profile import Profile
from models.users.service import Users

# Messages that one turn of the job tells.
RETELL_MAX = 200


@dataclass(frozen=True, slots=True)
class Said:
    """A message and its sender as they are now."""

    line: Line
    sender: Profile


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of what was said in a room; ``more`` when it goes on."""

    items: list[Said]
    more: bool


class Speaker(Protocol):
    """Says messages aloud."""

    async def say(self, room: Room, said: Said, *, again: bool) -> None:
        """Tell a message to who is in the room; ``again`` when somebody may have told it before."""
        ...


class Talk:
    """One per process. ``speaker`` is set by the wiring."""

    def __init__(self, *, store: TalkStore, rooms: Rooms, users: Users, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._rooms = rooms
        self._users = users
        self._clock = clock
        self._ids = ids
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.speaker: Speaker

    async def say(self, device: Device, room_id: str, text: str, *, op_id: str | None = None) -> Said:
        """Say something in a room that this device is in. The same ``op_id`` again answers with the first message.

        Refuses with ``ROOM_UNKNOWN``, ``ROOM_CLOSED``, ``ROOM_NOT_JOINED``, ``PAYLOAD_TOO_LARGE`` (more than 8 KiB)
        and ``IDEMPOTENCY_MISMATCH``.
        """
        if len(text.encode()) > rules.TEXT_BYTES_MAX:
            raise Refusal("PAYLOAD_TOO_LARGE", maxBytes=rules.TEXT_BYTES_MAX)
        turn = self._turns.setdefault(room_id, asyncio.Lock())
        async with turn:
            if op_id is not None:
                known = await self._store.by_op(room_id, device.user_id, op_id)
                if known is not None:
                    return await self._said_before(known, text)
            room = await self._rooms.present(room_id)
            me = rules.member(room, user_id=device.user_id, device_id=device.device_id)
            line = await self._store.append(
                Line(
                    id=self._ids.new(),
                    room_id=room_id,
                    seq=0,
                    sender_id=device.user_id,
                    device_id=device.device_id,
                    text=text,
                    op_id=op_id,
                    hidden_from=await self._rooms.parted_from(room, me),
                    created_at=self._clock.now(),
                )
            )
            if line is None:
                assert op_id is not None, "only that can be there already"
                known = await self._store.by_op(room_id, device.user_id, op_id)
                assert known is not None
                return await self._said_before(known, text)
            # Looked at again: whoever has come meanwhile has not read it in the history.
            return await self._tell(await self._rooms.present(room_id), line, again=False)

    async def _said_before(self, line: Line, text: str) -> Said:
        if line.text != text:
            raise Refusal("IDEMPOTENCY_MISMATCH")
        if line.told:
            return await self._said(line)
        return await self._tell(await self._rooms.truth(line.room_id), line, again=True)

    async def page(
        self, user_id: str, room_id: str, *, before: int | None, after: int | None, limit: int
    ) -> Page:
        """What was said, for who is or was in the room or owns it: newest first below ``before``, or oldest first
        above ``after``. Nothing by those between whom and them a block stands now, or stood then. Refuses with
        ``ROOM_UNKNOWN``, ``USER_BLOCKED``, ``ROOM_KICKED`` and ``ROOM_NOT_JOINED``.
        """
        await self._rooms.may_read(user_id, room_id)
        apart = set[str]()
        while True:
            found = await self._store.page(
                room_id, user_id, before=before, after=after, most=limit + 1, without=apart
            )
            senders = {line.sender_id for line in found}
            blocks = await self._users.blocks_among([user_id], senders - {user_id})
            if not blocks:
                break
            apart |= {one for block in blocks for one in block} - {user_id}
        people = await self._users.profiles(senders)
        return Page([Said(line, people[line.sender_id]) for line in found[:limit]], len(found) > limit)

    async def tell_untold(self) -> int:
        """Tell what a process has written down and not lived to tell; how many."""
        for done in range(RETELL_MAX):
            line = await self._store.claim_untold(self._clock.now())
            if line is None:
                return done
            await self._tell(await self._rooms.truth(line.room_id), line, again=True)
        return RETELL_MAX

    async def _tell(self, room: Room, line: Line, *, again: bool) -> Said:
        said = await self._said(line)
        await self.speaker.say(room, said, again=again)
        await self._store.told(line.id)
        return said

    async def _said(self, line: Line) -> Said:
        sender = (await self._users.profiles([line.sender_id])).get(line.sender_id)
        assert sender is not None, "a deleted user stays as a tombstone"
        return Said(line, sender)
