"""The verbs of chat: append → tell.

A message is durable before anybody hears of it, and untold until its letters are in the mailboxes of both. Whoever
dies in between is followed by the sender's retry (the same ``opId`` finds the message) or by a job; letters have the
message's key, so that none is posted twice.

Within a process the messages of one conversation go one at a time, in the order in which they arrived, until they are
told: the log of every member then has them in the order of their numbers. Between processes only the numbers are in
order, which is what a client sorts by.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from models.chat import rules
from models.chat.message import Conversation, Message
from models.chat.store import ChatStore
from models.errors import Refusal
from models.ports import Clock, Device, Ids
from models.users.service import Profile, Users

# Messages that one turn of the job tells.
RETELL_MAX = 200


@dataclass(frozen=True, slots=True)
class Written:
    """A message and its sender as they are now."""

    message: Message
    sender: Profile


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a conversation, newest first; ``more`` when there are older messages."""

    items: list[Written]
    more: bool


class Announcer(Protocol):
    """Says messages aloud."""

    async def announce(self, conversation: Conversation, written: Written, *, again: bool) -> None:
        """Tell a message to its conversation's members; ``again`` when somebody may have told it before."""
        ...


class Chat:
    """One per process. ``announcer`` is set by the wiring."""

    def __init__(self, *, store: ChatStore, users: Users, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._users = users
        self._clock = clock
        self._ids = ids
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.announcer: Announcer

    async def send(
        self,
        device: Device,
        *,
        text: str,
        op_id: str,
        to: str | None = None,
        conversation_id: str | None = None,
    ) -> Written:
        """Write to a person (``to``) or into a conversation; exactly one of the two.

        The same ``op_id`` again answers with the first message. Refuses with ``SELF_NOT_ALLOWED``, ``USER_UNKNOWN``,
        ``USER_BLOCKED``, ``USER_UNAVAILABLE``, ``CONVERSATION_UNKNOWN``, ``PAYLOAD_TOO_LARGE`` (more than 8 KiB) and
        ``IDEMPOTENCY_MISMATCH`` (the ``op_id`` belongs to another message).
        """
        rules.checked_text(text)
        if to == device.user_id:
            raise Refusal("SELF_NOT_ALLOWED")
        if conversation_id is None:
            assert to is not None, "the shape asks for one of the two"
            conversation_id = rules.pair_id(device.user_id, to)
        # Nothing is awaited before the place in this queue is taken: arrival order is message order.
        turn = self._turns.setdefault(conversation_id, asyncio.Lock())
        async with turn:
            known = await self._store.by_op(device.user_id, op_id)
            if known is None:
                other_id = to or await self._other_in(conversation_id, device.user_id)
                meeting = await self._users.meet(device.user_id, other_id)
                rules.reachable(meeting)
                conversation = Conversation(
                    id=conversation_id, members=tuple(sorted((device.user_id, other_id)))
                )
                await self._begun(conversation)
                message = await self._append(conversation, device, text, op_id)
                if message is not None:
                    written = Written(message, meeting.caller)
                    await self._tell(conversation, written, again=False)
                    return written
                known = await self._store.by_op(device.user_id, op_id)
                assert known is not None, "its opId stood in the way"
            return await self._sent_before(known, conversation_id, text)

    async def history(self, user_id: str, other_id: str, *, before: int | None, limit: int) -> Page:
        """What the two have written to each other, newest first, below number ``before``.

        Blocks and deletions hide nothing of it. Refuses with ``SELF_NOT_ALLOWED`` and ``USER_UNKNOWN``.
        """
        if other_id == user_id:
            raise Refusal("SELF_NOT_ALLOWED")
        people = await self._users.profiles([user_id, other_id])
        if len(people) < 2:
            raise Refusal("USER_UNKNOWN")
        found = await self._store.history(rules.pair_id(user_id, other_id), before=before, most=limit + 1)
        items = [Written(message, people[message.sender_id]) for message in found[:limit]]
        return Page(items, more=len(found) > limit)

    async def tell_untold(self) -> int:
        """Tell messages that their sender's process has left untold; how many. Safe in any number of processes."""
        told = 0
        while told < RETELL_MAX:
            message = await self._store.claim_untold(self._clock.now())
            if message is None:
                break
            await self._tell_again(message)
            told += 1
        return told

    async def _other_in(self, conversation_id: str, user_id: str) -> str:
        """The other one of a pair's conversation. Refuses with ``CONVERSATION_UNKNOWN``, also when it is others'."""
        conversation = await self._store.conversation(conversation_id)
        if conversation is None or user_id not in conversation.members:
            raise Refusal("CONVERSATION_UNKNOWN")
        return next(member for member in conversation.members if member != user_id)

    async def _begun(self, conversation: Conversation) -> None:
        if await self._store.conversation(conversation.id) is None:
            await self._store.begin(conversation, self._clock.now())

    async def _append(
        self, conversation: Conversation, device: Device, text: str, op_id: str
    ) -> Message | None:
        return await self._store.append(
            conversation.id,
            message_id=self._ids.new(),
            sender_id=device.user_id,
            device_id=device.device_id,
            op_id=op_id,
            text=text,
            now=self._clock.now(),
        )

    async def _sent_before(self, message: Message, conversation_id: str, text: str) -> Written:
        """The first answer again, after making good what the first try may have left undone."""
        if message.conversation_id != conversation_id or message.text != text:
            raise Refusal("IDEMPOTENCY_MISMATCH")
        if not await self._store.is_told(message):
            return await self._tell_again(message)
        return await self._written(message)

    async def _tell_again(self, message: Message) -> Written:
        conversation = await self._store.conversation(message.conversation_id)
        assert conversation is not None, "it is kept before its first message"
        written = await self._written(message)
        await self._tell(conversation, written, again=True)
        return written

    async def _tell(self, conversation: Conversation, written: Written, *, again: bool) -> None:
        await self.announcer.announce(conversation, written, again=again)
        await self._store.told(written.message)

    async def _written(self, message: Message) -> Written:
        sender = await self._users.profile(message.sender_id)
        assert sender is not None, "a deleted user stays as a tombstone"
        return Written(message, sender)
