"""Reading: histories, searches, and the list of one's conversations."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.chat import rules
from models.chat.conversations.conversation import Conversation, Membership
from models.chat.conversations.store import ConversationStore
from models.chat.inbox.store import InboxRow, InboxStore
from models.chat.message import Message
from models.chat.ports import Written
from models.chat.store import ChatStore
from models.errors import Refusal
from models.users.profile import Profile
from models.users.service import Users

# Of a group's members, so many stand in a list; all of them in the group's own page.
MEMBERS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of messages; ``more`` when the same way on there are others."""

    items: list[Written]
    more: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """A conversation as one of its members sees it. ``markers`` are those of the other one of a pair."""

    conversation: Conversation
    people: Mapping[str, Profile]
    shown: Sequence[str]
    mine: Membership
    last: Written | None
    unread: int
    markers: Sequence[Membership]


@dataclass(frozen=True, slots=True)
class Overviews:
    """A stretch of somebody's list; ``more`` when there are others behind it."""

    items: list[Overview]
    more: bool


@dataclass(frozen=True, slots=True)
class Unheard:
    """What somebody who is not here is to be told of: the newest of ``count`` messages in a conversation."""

    conversation: Conversation
    newest: Written
    count: int


class Reading:
    """What people read. Changes nothing."""

    def __init__(
        self,
        *,
        messages: ChatStore,
        conversations: ConversationStore,
        inbox: InboxStore,
        users: Users,
    ) -> None:
        self._messages = messages
        self._conversations = conversations
        self._inbox = inbox
        self._users = users

    async def with_user(
        self, user_id: str, other_id: str, *, before: int | None, after: int | None, limit: int
    ) -> Page:
        """See ``Chat.history``."""
        if other_id == user_id:
            raise Refusal("SELF_NOT_ALLOWED")
        people = await self._users.profiles([user_id, other_id])
        if len(people) < 2:
            raise Refusal("USER_UNKNOWN")
        mine = Membership(conversation_id=rules.pair_id(user_id, other_id), user_id=user_id)
        found = await self._messages.history(mine, before=before, after=after, most=limit + 1)
        items = [Written(message, people[message.sender_id]) for message in found[:limit]]
        return Page(items, more=len(found) > limit)

    async def messages(
        self, user_id: str, conversation_id: str, *, before: int | None, after: int | None, limit: int
    ) -> Page:
        """See ``Chat.messages``."""
        mine = await self._conversations.membership(conversation_id, user_id)
        if mine is None:
            raise Refusal("CONVERSATION_UNKNOWN")
        found = await self._messages.history(mine, before=before, after=after, most=limit + 1)
        return Page(await self._written(found[:limit]), more=len(found) > limit)

    async def unheard(self, user_id: str, conversation_id: str, seqs: Collection[int]) -> Unheard | None:
        """See ``Chat.unheard``."""
        conversation, mine, found = await asyncio.gather(
            self._conversations.find(conversation_id),
            self._conversations.membership(conversation_id, user_id),
            self._messages.numbered(conversation_id, seqs),
        )
        if conversation is None or mine is None or mine.left_seq is not None or mine.muted:
            return None
        blocks = await self._users.blocks_among([user_id], {message.sender_id for message in found})
        apart = rules.apart(user_id, blocks)
        told = [
            message
            for message in found
            if mine.sees(message.seq)
            and user_id not in message.hidden_from
            and message.sender_id not in apart
            and message.deleted_at is None
        ]
        if not told:
            return None
        return Unheard(conversation, (await self._written(told[-1:]))[0], len(told))

    async def search(
        self,
        user_id: str,
        query: str,
        *,
        conversation_id: str | None,
        before: str | None,
        after: str | None,
        limit: int,
    ) -> Page:
        """See ``Chat.search``."""
        words = rules.query_words(query)
        if conversation_id is None:
            places = await self._inbox.places(user_id)
        else:
            mine = await self._conversations.membership(conversation_id, user_id)
            if mine is None:
                raise Refusal("CONVERSATION_UNKNOWN")
            places = [mine]
        found = await self._messages.search(places, words, before=before, after=after, most=limit + 1)
        return Page(await self._written(found[:limit]), more=len(found) > limit)

    async def conversations(
        self, user_id: str, *, after: tuple[datetime, str] | None, limit: int
    ) -> Overviews:
        """See ``Chat.conversations``."""
        rows = await self._inbox.inbox(user_id, after=after, most=limit + 1)
        return Overviews(
            await self._overviews(user_id, rows[:limit], shown=MEMBERS_SHOWN), more=len(rows) > limit
        )

    async def conversation(self, user_id: str, conversation_id: str) -> Overview:
        """See ``Chat.conversation``."""
        row = await self._inbox.inbox_row(user_id, conversation_id)
        if row is None:
            raise Refusal("CONVERSATION_UNKNOWN")
        return (await self._overviews(user_id, [row], shown=rules.MEMBERS_MAX))[0]

    async def _written(self, messages: Sequence[Message]) -> list[Written]:
        people = await self._users.profiles({message.sender_id for message in messages})
        return [Written(message, people[message.sender_id]) for message in messages]

    async def _overviews(self, user_id: str, rows: Sequence[InboxRow], *, shown: int) -> list[Overview]:
        pairs = {
            row.conversation.id: row.conversation.other_than(user_id)
            for row in rows
            if not row.conversation.is_group
        }
        wanted = {member for row in rows for member in row.conversation.members[:shown]}
        wanted |= {row.last.sender_id for row in rows if row.last is not None}
        people, blocks, places = await asyncio.gather(
            self._users.profiles(wanted),
            self._users.blocks_among([user_id], set(pairs.values())),
            self._inbox.all_of(list(pairs.items())),
        )
        apart = rules.apart(user_id, blocks)
        return [
            Overview(
                row.conversation,
                people,
                [member for member in row.conversation.members[:shown] if member in people],
                row.mine,
                Written(row.last, people[row.last.sender_id]) if row.last is not None else None,
                row.unread,
                # No receipt passes a block, not by this way either.
                [
                    places[pair]
                    for pair in [(row.conversation.id, pairs.get(row.conversation.id, ""))]
                    if pair in places and pair[1] not in apart
                ],
            )
            for row in rows
        ]
