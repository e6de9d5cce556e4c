"""One's own messages, later: other words for them, or nothing but their place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from models.chat import rules
from models.chat.conversations.store import ConversationStore
from models.chat.message import Message
from models.chat.ports import Attachments, Written
from models.chat.rows import Rows
from models.chat.sending import meeting_of
from models.chat.store import ChatStore, edited, erased
from models.chat.telling import Telling
from models.errors import Refusal
from models.ports import Clock
from models.users.service import Users

# The store's write, and the message as it leaves it.
_Write = Callable[[Message], Awaitable[tuple[str, Message]]]


class Changing:
    """Edits and deletions. One per process."""

    def __init__(
        self,
        *,
        messages: ChatStore,
        conversations: ConversationStore,
        rows: Rows,
        telling: Telling,
        users: Users,
        clock: Clock,
        attachments: Attachments | None,
    ) -> None:
        self._messages = messages
        self._conversations = conversations
        self._rows = rows
        self._telling = telling
        self._users = users
        self._clock = clock
        self._attachments = attachments

    async def seen(self, user_id: str, message_id: str) -> Message:
        """A message that ``user_id`` may see. Refuses with ``MESSAGE_UNKNOWN``, also when it is others'."""
        message = await self._messages.by_id(message_id)
        if message is not None:
            place = await self._conversations.membership(message.conversation_id, user_id)
            if place is not None and place.sees(message.seq) and user_id not in message.hidden_from:
                return message
        raise Refusal("MESSAGE_UNKNOWN")

    async def edit(self, user_id: str, message_id: str, text: str) -> Written:
        """See ``Chat.edit``."""
        rules.checked_text(text)
        message = await self._own(user_id, message_id)
        async with self._rows.turn(message.conversation_id).lock:
            while True:
                if message.deleted_at is not None:
                    raise Refusal("MESSAGE_DELETED")
                if message.encrypted:
                    raise Refusal("VALIDATION_FAILED", messageId=["An encrypted message is not edited."])
                if message.text == text:
                    return await self._again(message)
                apart = await self._apart(user_id, message)
                now = self._clock.now()
                was = await self._messages.edit(message, text, apart, now)
                if was != "stale":
                    return await self._told(edited(message, text, apart, now), first_untold=was == "untold")
                message = await self._own(user_id, message_id)

    async def delete(self, user_id: str, message_id: str) -> Written:
        """See ``Chat.delete``."""
        message = await self._own(user_id, message_id)
        async with self._rows.turn(message.conversation_id).lock:
            while message.deleted_at is None:
                now = self._clock.now()
                was = await self._messages.erase(message, now)
                if was != "stale":
                    if message.attachment is not None and self._attachments is not None:
                        # Who dies before this leaves a file without a message, which its own job finds.
                        await self._attachments.detach(message.attachment.id, message.conversation_id)
                    return await self._told(erased(message, now), first_untold=was == "untold")
                message = await self._own(user_id, message_id)
            return await self._again(message)

    async def _own(self, user_id: str, message_id: str) -> Message:
        """One's own message. ``MESSAGE_UNKNOWN`` if it is not to be seen, ``FORBIDDEN`` if it is another's."""
        message = await self.seen(user_id, message_id)
        if message.sender_id != user_id or message.note is not None:
            raise Refusal("FORBIDDEN")
        return message

    async def _apart(self, user_id: str, message: Message) -> Collection[str]:
        """Those who do not hear of the new words. A pair with a block between them hears nothing of one another."""
        conversation = await self._conversations.find(message.conversation_id)
        assert conversation is not None, "it is kept before its first message"
        people, blocks = await asyncio.gather(
            self._users.profiles(conversation.members),
            self._users.blocks_among([user_id], conversation.members),
        )
        if not conversation.is_group:
            other_id = conversation.other_than(user_id)
            rules.reachable(meeting_of(user_id, other_id, people, blocks))
        return rules.apart(user_id, blocks) & set(conversation.members)

    async def _told(self, message: Message, *, first_untold: bool) -> Written:
        if first_untold:  # the message itself, before its change
            deleted = message.deleted_at is not None
            return await (self._telling.tell_deletion if deleted else self._telling.tell_again)(message)
        # A deletion is for all who have the message, new words for those who are still there.
        readers = await self._conversations.readers(
            message.conversation_id, message.seq, still_in=message.deleted_at is None
        )
        written = await self._telling.written(message, readers=readers)
        await self._telling.tell_change(written)
        return written

    async def _again(self, message: Message) -> Written:
        """The answer once more, after making good what the first try may have left undone."""
        if not await self._messages.is_told(message.id):
            return await self._telling.tell_again(message)
        return await self._telling.written(message)
