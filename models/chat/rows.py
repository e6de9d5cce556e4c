"""The row of numbers of each conversation, as this process knows it.

A message is inserted with the number after the newest one, and a change of a group takes a number too. So whoever has
read the newest number and *then* the conversation, and gets the next number, knows that the conversation was still
what they had read: a process that sends again and again reads neither of them anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from models.chat.conversations.conversation import Conversation
from models.chat.conversations.store import ConversationStore
from models.chat.store import ChatStore

# Messages that one turn of a conversation takes along, so that nobody waits for a row without an end.
BATCH_MAX = 100
# Conversations remembered, least recently used ones go first: a group has up to 256 ids of members.
PLACES_MAX = 5_000


@dataclass(eq=False)
class Turn:
    """What happens in one conversation happens one after the other here; ``waiting`` is who wants to send."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[Any] = field(default_factory=list)

    def take(self, mine: Any) -> list[Any]:
        """Those who wait longest, ``mine`` among them, to be served together."""
        if mine not in self.waiting:
            return [mine]  # somebody had taken it along and was cancelled
        batch, self.waiting = self.waiting[:BATCH_MAX], self.waiting[BATCH_MAX:]
        assert mine in batch, "the lock is given in the order of arrival"
        return batch


@dataclass(frozen=True, slots=True)
class Place:
    """The newest number of a conversation, and the conversation as it is with it."""

    conversation: Conversation
    head: int


class Rows:
    """Turns and places, by conversation."""

    def __init__(self, messages: ChatStore, conversations: ConversationStore) -> None:
        self._messages = messages
        self._conversations = conversations
        self._turns: WeakValueDictionary[str, Turn] = WeakValueDictionary()
        self._places: OrderedDict[str, Place | None] = OrderedDict()

    def turn(self, conversation_id: str) -> Turn:
        """The turn of a conversation; it is there for as long as somebody holds it."""
        return self._turns.setdefault(conversation_id, Turn())

    def knows(self, conversation_id: str) -> bool:
        """Whether this process has dealt with the conversation before."""
        return conversation_id in self._places

    async def place(self, conversation_id: str, *, of: Collection[str] = ()) -> Place | None:
        """Where the conversation's row has got to, perhaps by now further. None: it has not begun.

        ``of`` are people who say that they are in it: if they are not as far as this process knows, it looks again.
        """
        known = self._places.get(conversation_id)
        if known is not None and known.conversation.has(of):
            return known
        head = await self._messages.head(conversation_id)
        conversation = await self._conversations.find(conversation_id)  # never before the number
        if conversation is None:
            return None
        place = Place(conversation, head)
        self.keep(place)
        return place

    def keep(self, place: Place) -> None:
        """Remember how far the row has got."""
        self._places[place.conversation.id] = place
        self._places.move_to_end(place.conversation.id)
        if len(self._places) > PLACES_MAX:
            self._places.popitem(last=False)

    def forget(self, conversation_id: str) -> None:
        """Somebody else has taken a number."""
        if conversation_id in self._places:
            self._places[conversation_id] = None
