"""How far somebody has got and read: markers that mean "up to and including", and only go forward."""

from __future__ import annotations

from models.chat.changing import Changing
from models.chat.conversations.conversation import Membership
from models.chat.conversations.store import ConversationStore
from models.chat.ports import DELIVERED, READ, Marker
from models.chat.store import ChatStore
from models.chat.telling import Telling, marker_of
from models.errors import Refusal
from models.ports import Clock, Device


class Markers:
    """The verbs of markers. One per process."""

    def __init__(
        self,
        *,
        messages: ChatStore,
        conversations: ConversationStore,
        telling: Telling,
        changing: Changing,
        clock: Clock,
    ) -> None:
        self._messages = messages
        self._conversations = conversations
        self._telling = telling
        self._changing = changing
        self._clock = clock

    async def delivered(self, device: Device, **upto: str | int | None) -> Marker:
        """A device of mine has everything up to a message; see ``_mark``."""
        return await self._mark(device, DELIVERED, **upto)  # type: ignore[arg-type]

    async def read(self, device: Device, **upto: str | int | None) -> Marker:
        """I have read everything up to a message, so my devices have it, too; see ``_mark``."""
        return await self._mark(device, READ, **upto)  # type: ignore[arg-type]

    async def _mark(
        self,
        device: Device,
        what: str,
        *,
        message_id: str | None = None,
        conversation_id: str | None = None,
        seq: int = 0,
    ) -> Marker:
        """Move a marker to a message (``message_id``) or to a number of a conversation; where it is after that.

        It never goes back and never beyond the newest message. Refuses with ``MESSAGE_UNKNOWN`` and
        ``CONVERSATION_UNKNOWN``.
        """
        if message_id is not None:
            message = await self._changing.seen(device.user_id, message_id)
            conversation_id, seq = message.conversation_id, message.seq
        assert conversation_id is not None, "the shape asks for one of the two"
        place = await self._conversations.membership(conversation_id, device.user_id)
        if place is None:
            raise Refusal("CONVERSATION_UNKNOWN")
        if message_id is None:
            seq = place.clamped(seq, await self._messages.head(conversation_id))
        async with self._telling.marking(conversation_id, device.user_id):
            moved = await self._moved(place, what, seq)
            if moved is None:
                # Nothing of it was forward; the one that had moved it may have died before it said so.
                moved = await self._conversations.membership(conversation_id, device.user_id) or place
                if moved.untold:
                    await self._telling.tell_markers(moved, except_device=device.device_id)
            else:
                # With what somebody may have died over before: by this telling, all counts as told.
                also = None if moved.untold else what
                await self._telling.tell_markers(moved, what=also, except_device=device.device_id)
        return marker_of(moved, what)

    async def _moved(self, place: Membership, what: str, seq: int) -> Membership | None:
        return await self._conversations.mark(
            place,
            delivered_seq=seq,
            read_seq=seq if what == READ else None,
            now=self._clock.now(),
        )
