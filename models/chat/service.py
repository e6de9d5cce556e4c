"""The verbs of chat: append → tell.

A message is durable before anybody hears of it, and untold until its letters are in the mailboxes of all. Whoever
dies in between is followed by the sender's retry (the same ``opId`` finds the message) or by a job; letters have the
message's key, so that none is posted twice.

Within a process the messages of one conversation go one after the other, in the order in which they arrived, until
they are told: the log of every member then has them in the order of their numbers. Between processes only the numbers
are in order, which is what a client sorts by.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from models.chat import rules
from models.chat.changing import Changing
from models.chat.conversations.store import ConversationStore
from models.chat.groups import Groups
from models.chat.inbox.store import InboxStore
from models.chat.markers import Markers
from models.chat.message import Draft, Message
from models.chat.ports import Announcer, Attachments, KeyDevices, Written
from models.chat.reading import Overview, Overviews, Page, Reading, Unheard
from models.chat.rows import Rows
from models.chat.sending import Sending
from models.chat.store import ChatStore
from models.chat.telling import Telling
from models.chat.typing import Typing
from models.db import Database
from models.errors import Refusal
from models.ports import Clock, Device, Ids
from models.users.service import Users

__all__ = ["Chat", "ChatStores", "Overview", "Overviews", "Page", "Written"]


class ChatStores:
    """What chat keeps in one database."""

    def __init__(self, db: Database) -> None:
        self.messages = ChatStore(db)
        self.conversations = ConversationStore(db)
        self.inbox = InboxStore(db)


class Chat:
    """One per process. ``announcer`` is set by the wiring; ``groups``, ``markers`` and ``typing`` have more verbs."""

    def __init__(
        self,
        *,
        stores: ChatStores,
        users: Users,
        clock: Clock,
        ids: Ids,
        attachments: Attachments | None = None,
        key_devices: KeyDevices | None = None,
    ) -> None:
        messages, conversations = stores.messages, stores.conversations
        self._conversations = conversations
        rows = Rows(messages, conversations)
        self._telling = telling = Telling(
            messages=messages, conversations=conversations, users=users, clock=clock
        )
        self._sending = Sending(
            messages=messages,
            conversations=conversations,
            rows=rows,
            telling=telling,
            users=users,
            clock=clock,
            ids=ids,
            attachments=attachments,
            key_devices=key_devices,
        )
        self._changing = Changing(
            messages=messages,
            conversations=conversations,
            rows=rows,
            telling=telling,
            users=users,
            clock=clock,
            attachments=attachments,
        )
        self._reading = Reading(
            messages=messages, conversations=conversations, inbox=stores.inbox, users=users
        )
        self._inbox, self._messages = stores.inbox, stores.messages
        self.groups = Groups(
            messages=messages,
            conversations=conversations,
            rows=rows,
            telling=telling,
            users=users,
            clock=clock,
            ids=ids,
        )
        self.markers = Markers(
            messages=messages,
            conversations=conversations,
            telling=telling,
            changing=self._changing,
            clock=clock,
        )
        self.typing = Typing(conversations=conversations, telling=telling, users=users, clock=clock)

    @property
    def announcer(self) -> Announcer:
        """Who says things aloud."""
        return self._telling.announcer

    @announcer.setter
    def announcer(self, announcer: Announcer) -> None:
        self._telling.announcer = announcer

    # ------------------------------------------------------------------------------------------------------- writing

    async def send(
        self, device: Device, draft: Draft, *, to: str | None = None, conversation_id: str | None = None
    ) -> Written:
        """Write to a person (``to``) or into a conversation; exactly one of the two.

        The same ``op_id`` again answers with the first message. Refuses with ``SELF_NOT_ALLOWED``, ``USER_UNKNOWN``,
        ``USER_BLOCKED``, ``USER_UNAVAILABLE``, ``CONVERSATION_UNKNOWN``, ``MESSAGE_UNKNOWN`` (replied to something
        that is not there), ``ATTACHMENT_UNKNOWN``, ``DEVICES_MISMATCH``, ``PAYLOAD_TOO_LARGE`` (text over 8 KiB) and
        ``IDEMPOTENCY_MISMATCH`` (the ``op_id`` belongs to another message).
        """
        rules.checked(draft)
        conversation_id = self.conversation_id(device.user_id, to=to, conversation_id=conversation_id)
        written = await self._sending.send(device, draft, conversation_id=conversation_id, to=to)
        await self.typing.end(conversation_id, device.user_id)
        return written

    async def edit(self, user_id: str, message_id: str, text: str) -> Written:
        """Other words for one's own message. Safe to repeat.

        Refuses with ``MESSAGE_UNKNOWN``, ``FORBIDDEN`` (another's), ``MESSAGE_DELETED``, ``PAYLOAD_TOO_LARGE``,
        ``VALIDATION_FAILED`` (it is encrypted), and with ``USER_BLOCKED`` and ``USER_UNAVAILABLE`` in a pair.
        """
        return await self._changing.edit(user_id, message_id, text)

    async def delete(self, user_id: str, message_id: str) -> Written:
        """Take everything out of one's own message but its place. Safe to repeat.

        Refuses with ``MESSAGE_UNKNOWN`` and ``FORBIDDEN`` (another's). It reaches also those whom one has blocked.
        """
        return await self._changing.delete(user_id, message_id)

    async def mute(self, user_id: str, conversation_id: str, muted: bool) -> Overview:
        """Want no push for a conversation, or want them again. Refuses with ``CONVERSATION_UNKNOWN``."""
        if not await self.is_member(user_id, conversation_id):
            raise Refusal("CONVERSATION_UNKNOWN")
        await self._conversations.mute(conversation_id, user_id, muted)
        return await self.conversation(user_id, conversation_id)

    async def tell_untold(self) -> int:
        """Tell what dead processes have left untold; how much. Safe in any number of processes."""
        return await self._telling.tell_untold()

    # ------------------------------------------------------------------------------------------------------- reading

    async def history(
        self, user_id: str, other_id: str, *, before: int | None, after: int | None = None, limit: int
    ) -> Page:
        """What the two have written to each other: newest first below number ``before``, or oldest first above
        ``after``.

        Blocks and deletions of people hide nothing of it. Refuses with ``SELF_NOT_ALLOWED`` and ``USER_UNKNOWN``.
        """
        return await self._reading.with_user(user_id, other_id, before=before, after=after, limit=limit)

    async def messages(
        self,
        user_id: str,
        conversation_id: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int,
    ) -> Page:
        """A conversation's messages, as far as they are one's own to see: newest first below ``before``, or oldest
        first above ``after``. Refuses with ``CONVERSATION_UNKNOWN``.
        """
        return await self._reading.messages(user_id, conversation_id, before=before, after=after, limit=limit)

    async def search(
        self,
        user_id: str,
        query: str,
        *,
        conversation_id: str | None = None,
        before: str | None = None,
        after: str | None = None,
        limit: int,
    ) -> Page:
        """Messages with words that begin with each of the query's: newest first, older than the one with id
        ``before``, or oldest first, newer than the one with id ``after``. In one conversation, or in those that were
        active last. Refuses with ``CONVERSATION_UNKNOWN`` and ``VALIDATION_FAILED`` (no word).
        """
        return await self._reading.search(
            user_id, query, conversation_id=conversation_id, before=before, after=after, limit=limit
        )

    async def conversations(
        self, user_id: str, *, after: tuple[datetime, str] | None = None, limit: int
    ) -> Overviews:
        """One's conversations, the latest activity first, behind ``after`` (an instant and an id)."""
        return await self._reading.conversations(user_id, after=after, limit=limit)

    async def conversation(self, user_id: str, conversation_id: str) -> Overview:
        """One of one's conversations, with all members. Refuses with ``CONVERSATION_UNKNOWN``."""
        return await self._reading.conversation(user_id, conversation_id)

    async def unread(self, user_id: str) -> tuple[int, int]:
        """How many messages one has not read, and in how many conversations."""
        return await self._inbox.unread(user_id)

    # -------------------------------------------------------------------------------------------- for other features

    async def written_by(self, user_id: str, *, after: str | None, limit: int) -> list[Message]:
        """All that somebody has written anywhere, page by page; ``after`` is the ``op_id`` at the last page's end."""
        return await self._messages.written_by(user_id, after=after, most=limit)

    async def evidence(self, user_id: str, message_id: str) -> Message:
        """A message that ``user_id`` may see, for who reports it. Refuses with ``MESSAGE_UNKNOWN``."""
        return await self._changing.seen(user_id, message_id)

    async def unheard(self, user_id: str, conversation_id: str, seqs: Collection[int]) -> Unheard | None:
        """What of the messages with these numbers may be pushed to somebody at this moment, as it is by now.

        Nothing to who is out or wants no push, nothing that is deleted, nothing over a block.
        """
        return await self._reading.unheard(user_id, conversation_id, seqs)

    async def is_member(self, user_id: str, conversation_id: str) -> bool:
        """Whether somebody is in a conversation now."""
        place = await self._conversations.membership(conversation_id, user_id)
        return place is not None and place.left_seq is None

    async def members(self, conversation_id: str) -> tuple[str, ...]:
        """Who is in a conversation now; nobody when it has not begun."""
        found = await self._conversations.find(conversation_id)
        return found.members if found else ()

    @staticmethod
    def conversation_id(user_id: str, *, to: str | None, conversation_id: str | None) -> str:
        """The conversation that is meant. Refuses with ``SELF_NOT_ALLOWED``."""
        if to == user_id:
            raise Refusal("SELF_NOT_ALLOWED")
        if conversation_id is not None:
            return conversation_id
        assert to is not None, "the shape asks for one of the two"
        return rules.pair_id(user_id, to)
