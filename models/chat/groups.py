"""Groups: founding, naming, who is in and who leads.

A change is one transaction with its note, a message of the server's own at the next number. So it has its place
between the messages: who is added sees what comes after it, who is removed sees nothing after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from models.chat import rules
from models.chat.conversations.conversation import Conversation
from models.chat.conversations.store import ConversationStore
from models.chat.message import Message
from models.chat.rows import Place, Rows
from models.chat.sending import meeting_of
from models.chat.store import ChatStore
from models.chat.telling import Telling
from models.db import Session
from models.errors import Refusal
from models.once import fingerprint
from models.ports import Clock, Device, Ids
from models.users.service import Users

Decide = Callable[[Conversation], rules.Change | None]


class Groups:
    """The verbs of groups. One per process."""

    def __init__(
        self,
        *,
        messages: ChatStore,
        conversations: ConversationStore,
        rows: Rows,
        telling: Telling,
        users: Users,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._messages = messages
        self._conversations = conversations
        self._rows = rows
        self._telling = telling
        self._users = users
        self._clock = clock
        self._ids = ids

    async def found(
        self, device: Device, *, name: str, user_ids: Collection[str], op_id: str | None
    ) -> Conversation:
        """A new group of these people, owned by who founds it. The same ``op_id`` again answers with the first one.

        Refuses with ``VALIDATION_FAILED`` (name), ``GROUP_FULL``, ``USER_UNKNOWN``, ``USER_BLOCKED``,
        ``USER_UNAVAILABLE`` (``details.userIds`` says who) and ``IDEMPOTENCY_MISMATCH``.
        """
        user_id = device.user_id
        change = rules.founded(self._ids.new(), by=user_id, name=rules.checked_name(name), user_ids=user_ids)
        op_print = fingerprint({"name": change.after.name, "members": sorted(change.after.members)})
        known = await self._conversations.founded(user_id, op_id) if op_id is not None else None
        if known is None:
            await self._welcome(user_id, change.came)
            note, now = self._note(change, device, seq=1), self._clock.now()

            async def also(session: Session) -> None:
                await self._messages.put(note, session)

            if await self._conversations.found(change, now, op_id=op_id, op_print=op_print, also=also):
                self._rows.keep(Place(change.after, 1))
                await self._tell(change, note)
                return change.after
            assert op_id is not None, "nothing else of a new group can be there already"
            known = await self._conversations.founded(user_id, op_id)
            assert known is not None, "its opId stood in the way"
        group, first_print = known
        if first_print != op_print:
            raise Refusal("IDEMPOTENCY_MISMATCH")
        return group  # a job tells what the first try has left untold

    async def rename(self, device: Device, group_id: str, name: str) -> Conversation:
        """Another name, by the owner or an admin. Refuses with ``CONVERSATION_UNKNOWN`` and ``FORBIDDEN``."""
        name = rules.checked_name(name)
        return await self._change(
            device, group_id, lambda group: rules.renamed(group, by=device.user_id, name=name)
        )

    async def add(self, device: Device, group_id: str, user_ids: Collection[str]) -> Conversation:
        """More members, by the owner or an admin; who is in already stays.

        Refuses with ``CONVERSATION_UNKNOWN``, ``FORBIDDEN``, ``GROUP_FULL``, ``USER_UNKNOWN``, ``USER_BLOCKED`` and
        ``USER_UNAVAILABLE`` (``details.userIds`` says who).
        """
        return await self._change(
            device, group_id, lambda group: rules.added(group, by=device.user_id, user_ids=user_ids)
        )

    async def remove(self, device: Device, group_id: str, user_id: str) -> Conversation:
        """One member less: oneself, or another by the owner or an admin. Safe to repeat.

        Refuses with ``CONVERSATION_UNKNOWN`` and ``FORBIDDEN``.
        """
        if user_id == device.user_id:
            return await self.leave(device, group_id)
        return await self._change(
            device, group_id, lambda group: rules.removed(group, by=device.user_id, user_id=user_id)
        )

    async def leave(self, device: Device, group_id: str) -> Conversation:
        """Without oneself. Refuses with ``CONVERSATION_UNKNOWN``, also who has left already."""
        return await self._change(device, group_id, lambda group: rules.left(group, user_id=device.user_id))

    async def appoint(self, device: Device, group_id: str, user_id: str, role: str) -> Conversation:
        """Make a member an ``admin``, or an admin a ``member``, by the owner.

        Refuses with ``CONVERSATION_UNKNOWN``, ``FORBIDDEN`` and ``USER_UNKNOWN`` (no member).
        """
        return await self._change(
            device,
            group_id,
            lambda group: rules.appointed(group, by=device.user_id, user_id=user_id, role=role),
        )

    async def _change(self, device: Device, group_id: str, decide: Decide) -> Conversation:
        """Decide on the group as it is at its newest number, and take the next one for the change."""
        async with self._rows.turn(group_id).lock:
            while True:
                self._rows.forget(
                    group_id
                )  # a decision is made on what is, not on what this process remembers
                place = await self._rows.place(group_id)
                group = place.conversation if place else None
                if place is None or group is None or not group.is_group or not group.has([device.user_id]):
                    raise Refusal("CONVERSATION_UNKNOWN")
                change = decide(group)
                if change is None:
                    return group
                if change.came:
                    await self._welcome(device.user_id, change.came)
                if await self._made(group, change, device, place.head + 1):
                    return change.after

    async def _made(self, before: Conversation, change: rules.Change, device: Device, seq: int) -> bool:
        note = self._note(change, device, seq=seq)

        async def also(session: Session) -> None:
            await self._messages.put(note, session)

        if not await self._conversations.change(before, change, seq, note.created_at, also=also):
            return False
        self._rows.keep(Place(change.after, seq))
        await self._tell(change, note)
        return True

    async def _tell(self, change: rules.Change, note: Message) -> None:
        readers = (*change.after.members, *change.went)
        written = await self._telling.written(note, readers=readers)
        await self._telling.tell(change.after, [written])

    async def _welcome(self, by: str, came: Collection[str]) -> None:
        """Refuse unless all who come can be reached by who lets them in."""
        people, blocks = await asyncio.gather(
            self._users.profiles({by, *came}), self._users.blocks_among([by], came)
        )
        no: dict[str, list[str]] = {}
        for user_id in came:
            if user_id == by:
                continue
            try:
                rules.reachable(meeting_of(by, user_id, people, blocks))
            except Refusal as refusal:
                no.setdefault(refusal.code, []).append(user_id)
        for code, user_ids in no.items():
            raise Refusal(code, userIds=user_ids)

    def _note(self, change: rules.Change, device: Device, *, seq: int) -> Message:
        note_id = self._ids.new()
        return Message(
            id=note_id,
            conversation_id=change.after.id,
            seq=seq,
            sender_id=device.user_id,
            device_id="",
            op_id=f"note:{note_id}",
            text=None,
            note=change.note,
            created_at=self._clock.now(),
        )
