"""Who types just now: told to who is there, kept nowhere, over by itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from models.chat import rules
from models.chat.conversations.conversation import Conversation
from models.chat.conversations.store import ConversationStore
from models.chat.sending import meeting_of
from models.chat.telling import Telling
from models.errors import Refusal
from models.ports import Clock, Device
from models.users.profile import Profile
from models.users.service import Users

# An app says it again every few seconds while somebody types; one that has died says nothing.
TYPING_SECONDS = 6


@dataclass(frozen=True, slots=True)
class Typist:
    """Somebody who types on one device, those who were told so, and until when it is true without a repeat."""

    device_id: str
    profile: Profile
    readers: Collection[str]
    until: datetime


class Typing:
    """Who types, among the devices connected to this process."""

    def __init__(
        self, *, conversations: ConversationStore, telling: Telling, users: Users, clock: Clock
    ) -> None:
        self._conversations = conversations
        self._telling = telling
        self._users = users
        self._clock = clock
        self._now: dict[tuple[str, str], Typist] = {}

    async def begin(self, device: Device, conversation_id: str, *, to: str | None = None) -> None:
        """``device`` types, for another ``TYPING_SECONDS``. ``to`` is the other one of a pair that may not have begun.

        Refuses with ``CONVERSATION_UNKNOWN``, ``USER_UNKNOWN``, ``USER_BLOCKED`` and ``USER_UNAVAILABLE``.
        """
        conversation = await self._conversations.find(conversation_id)
        if conversation is None and to is not None:
            conversation = Conversation(id=conversation_id, members=(device.user_id, to))
        if conversation is None or not conversation.has([device.user_id]):
            raise Refusal("CONVERSATION_UNKNOWN")
        others = [member for member in conversation.members if member != device.user_id]
        asked = [device.user_id] if conversation.is_group else [device.user_id, *others]
        people = await self._users.profiles(asked)
        blocks = await self._users.blocks_among([device.user_id], others)
        if not conversation.is_group:
            rules.reachable(meeting_of(device.user_id, others[0], people, blocks))
        apart = rules.apart(device.user_id, blocks)
        typist = Typist(
            device.device_id,
            people[device.user_id],
            [member for member in others if member not in apart],
            self._clock.now() + timedelta(seconds=TYPING_SECONDS),
        )
        self._now[conversation_id, device.user_id] = typist
        await self._say(conversation_id, typist, typing=True)

    async def end(self, conversation_id: str, user_id: str) -> None:
        """Somebody types no longer. Safe to repeat: nobody is told of what nobody was told to be."""
        typist = self._now.pop((conversation_id, user_id), None)
        if typist is not None:
            await self._say(conversation_id, typist, typing=False)

    async def gone(self, user_id: str, device_id: str) -> None:
        """A device's socket is gone, and what it typed with it."""
        for (conversation_id, typist_id), typist in list(self._now.items()):
            if (typist_id, typist.device_id) == (user_id, device_id):
                await self.end(conversation_id, user_id)

    async def expire(self) -> None:
        """End what was not repeated in time."""
        now = self._clock.now()
        for (conversation_id, user_id), typist in list(self._now.items()):
            if typist.until <= now:
                await self.end(conversation_id, user_id)

    async def _say(self, conversation_id: str, typist: Typist, *, typing: bool) -> None:
        await self._telling.announcer.announce_typing(
            typist.profile, conversation_id, typist.readers, typing=typing
        )
