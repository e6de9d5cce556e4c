"""What a push says of messages, as they are at the moment at which it goes out."""

from __future__ import annotations

from dataclasses import replace

from handlers.chat_views import preview_of, sender_view
from models.chat.service import Chat
from models.notify.messages.bundle import Bundle, News
from models.presence.service import Presence


class ChatNews:
    """``models.notify.messages.service.Fresh``: bundles of messages, read anew."""

    def __init__(self, *, chat: Chat, presence: Presence) -> None:
        self._chat = chat
        self._presence = presence

    async def now(self, bundle: Bundle) -> Bundle | None:
        """The bundle as it may be told by now; None when nothing of it may."""
        found = await self._chat.unheard(bundle.user_id, bundle.conversation_id, bundle.seqs)
        if found is None:
            return None
        message = found.newest.message
        news = News(
            message_id=message.id,
            seq=message.seq,
            sender=sender_view(found.newest, self._presence),
            preview=preview_of(message),
            title=found.conversation.name,
        )
        return replace(bundle, newest=news, count=found.count)
