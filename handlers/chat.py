"""Chat: the events and routes of CONTRACT §2.2 and §3.3, how a message looks from outside, and its timed job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from handlers.context import Context
from handlers.registry import event, job, notice, route
from handlers.services import Services
from handlers.shapes import (
    Id,
    Instant,
    Page,
    PageQuery,
    PublicUser,
    Shape,
    Text,
    decode_cursor,
    encode_cursor,
)
from models.chat.message import Conversation
from models.chat.service import Written
from models.errors import Refusal
from models.mailbox.service import Mailbox
from models.ports import Device, Letter
from models.presence.service import Presence

OP_ID_MAX = 128
# Far above what a message may have in bytes, so that it is its own refusal that says so; a frame has no more.
TEXT_CHARACTERS_MAX = 128 * 1024

_EXAMPLE_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"


class SendMessage(Shape):
    """A message to a person (``to``) or into a conversation; exactly one of the two. At most 8 KiB of UTF-8."""

    to = Id()
    conversation_id = Id()
    text = Text(required=True, least=1, most=TEXT_CHARACTERS_MAX)
    op_id = Text(required=True, least=1, most=OP_ID_MAX)
    example = {"to": _EXAMPLE_ID, "text": "Good morning!", "opId": "b7a0c1de-5a"}

    @validates_schema
    def one_address(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse none and both."""
        if ("to" in data) == ("conversation_id" in data):
            raise ValidationError({"to": ["Exactly one of to and conversationId."]})


class HistoryQuery(PageQuery):
    """Whose messages with oneself."""

    user_id = Id(required=True)
    example = {"userId": _EXAMPLE_ID, "limit": 50}


class MessageView(Shape):
    """A message. ``seq`` counts in its conversation; ``opId`` is told to the sender's own devices only."""

    id = fields.String(required=True)
    conversation_id = fields.String(required=True)
    seq = fields.Integer(required=True, metadata={"description": "Place in the conversation: 1, 2, 3 …"})
    sender = fields.Nested(PublicUser, required=True)
    text = fields.String(required=True, allow_none=True)
    attachment = fields.Dict(required=True, allow_none=True)
    reply_to = fields.String(required=True, allow_none=True)
    created_at = Instant(required=True)
    edited_at = Instant(required=True, allow_none=True)
    deleted_at = Instant(required=True, allow_none=True)
    op_id = fields.String()


class MessageNotice(MessageView):
    """A message as it is told to a device."""

    log_seq = fields.Integer(
        metadata={"description": "Your own rising number; the last one handled is `since`."}
    )


CHAT_MESSAGE = notice(
    "CHAT_MESSAGE", MessageNotice, "To both, on every device but the sending one: a message."
)

_MESSAGE = MessageView()


def message_view(written: Written, presence: Presence, *, viewer_id: str) -> dict[str, Any]:
    """A message as ``viewer_id`` sees it, for ``MessageView`` to dump."""
    message, sender = written.message, written.sender
    view = {
        "id": message.id,
        "conversation_id": message.conversation_id,
        "seq": message.seq,
        "sender": {
            "id": sender.user_id,
            "username": sender.username,
            "display_name": sender.display_name,
            "avatar_url": sender.avatar_url,
            "presence": presence.state_of(sender.user_id),
            "rate_per_minute_minor": sender.rate_per_minute_minor,
            "video_rate_per_minute_minor": sender.video_rate_per_minute_minor,
            "currency": sender.currency,
        },
        "text": message.text,
        "attachment": None,
        "reply_to": None,
        "created_at": message.created_at,
        "edited_at": None,
        "deleted_at": None,
    }
    return {**view, "op_id": message.op_id} if viewer_id == message.sender_id else view


class ChatTeller:
    """``models.chat.service.Announcer``: messages become letters."""

    def __init__(self, *, mailbox: Mailbox, presence: Presence) -> None:
        self._mailbox = mailbox
        self._presence = presence

    async def announce(self, conversation: Conversation, written: Written, *, again: bool) -> None:
        """Keep and tell the letters to all members; the sending device has the message from its answer."""
        message = written.message
        await self._mailbox.post(
            [
                Letter(
                    user_id=member,
                    event=CHAT_MESSAGE,
                    payload=dict(_MESSAGE.dump(message_view(written, self._presence, viewer_id=member))),
                    key=f"msg:{message.id}",
                    except_device=message.device_id if member == message.sender_id else None,
                )
                for member in conversation.members
            ],
            again=again,
        )


# Not ``once``: the message itself is the record of its opId, for longer than a day. No lane: the service queues by
# the conversation, which has one name from either side.
@event(
    "CHAT_MESSAGE",
    takes=SendMessage,
    gives=MessageView,
    refuses=[
        "SELF_NOT_ALLOWED",
        "USER_UNKNOWN",
        "USER_BLOCKED",
        "USER_UNAVAILABLE",
        "CONVERSATION_UNKNOWN",
        "PAYLOAD_TOO_LARGE",
        "IDEMPOTENCY_MISMATCH",
    ],
)
async def chat_message(ctx: Context, ask: dict[str, Any]) -> dict[str, Any]:
    """Send a message. The same ``opId`` again answers with the first one and sends nothing."""
    device = Device(
        user_id=ctx.user_id, device_id=ctx.device_id, session_id=ctx.session_id, process=ctx.process
    )
    written = await ctx.services.chat.send(
        device,
        text=ask["text"],
        op_id=ask["op_id"],
        to=ask.get("to"),
        conversation_id=ask.get("conversation_id"),
    )
    return message_view(written, ctx.services.presence, viewer_id=ctx.user_id)


@route(
    "GET",
    "/api/chat/history/{userId}",
    takes=HistoryQuery,
    gives=MessageView,
    many=True,
    refuses=["SELF_NOT_ALLOWED", "USER_UNKNOWN"],
)
async def chat_history(ctx: Context, ask: dict[str, Any]) -> Page:
    """Messages between this person and you, newest first."""
    page = await ctx.services.chat.history(
        ctx.user_id, ask["user_id"], before=before_number(ask["cursor"]), limit=ask["limit"]
    )
    items = [message_view(item, ctx.services.presence, viewer_id=ctx.user_id) for item in page.items]
    return Page(items, encode_cursor(str(page.items[-1].message.seq)) if page.more else None)


def before_number(cursor: str | None) -> int | None:
    """The number in a cursor of a history. Refuses with ``VALIDATION_FAILED``."""
    parts = decode_cursor(cursor, parts=1)
    if parts is None:
        return None
    if not (parts[0].isascii() and parts[0].isdigit() and len(parts[0]) <= 15):
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    return int(parts[0])


@job("chat_untold", every_seconds=5)
async def tell_untold_messages(services: Services) -> None:
    """Tell messages whose sender's process ended between keeping and telling them."""
    await services.chat.tell_untold()
