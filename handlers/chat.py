"""Chat: the events and routes of CONTRACT §2.2 and §3.3 about messages, and its timed jobs. Groups are next door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from handlers.chat_shapes import (
    EditMessage,
    HistoryQuery,
    MarkerView,
    MarkMessages,
    MessageRef,
    MessageSearch,
    MessagesQuery,
    MessageView,
    SendMessage,
    TypingIn,
)
from handlers.chat_views import message_view
from handlers.context import Context
from handlers.registry import event, job, route
from handlers.services import Services
from handlers.shapes import Page, decode_cursor, encode_cursor
from models.chat.message import Ciphertext, Draft
from models.chat.reading import Page as Stretch
from models.chat.service import Written
from models.errors import Refusal
from models.ports import Device

_SEND = [
    "SELF_NOT_ALLOWED",
    "USER_UNKNOWN",
    "USER_BLOCKED",
    "USER_UNAVAILABLE",
    "CONVERSATION_UNKNOWN",
    "MESSAGE_UNKNOWN",
    "ATTACHMENT_UNKNOWN",
    "DEVICES_MISMATCH",
    "PAYLOAD_TOO_LARGE",
    "IDEMPOTENCY_MISMATCH",
]
_EDIT = [
    "MESSAGE_UNKNOWN",
    "MESSAGE_DELETED",
    "FORBIDDEN",
    "USER_BLOCKED",
    "USER_UNAVAILABLE",
    "USER_UNKNOWN",
    "PAYLOAD_TOO_LARGE",
    "VALIDATION_FAILED",
]
_MARK = ["MESSAGE_UNKNOWN", "CONVERSATION_UNKNOWN"]
_TYPE = ["SELF_NOT_ALLOWED", "CONVERSATION_UNKNOWN", "USER_UNKNOWN", "USER_BLOCKED", "USER_UNAVAILABLE"]


def device_of(ctx: Context) -> Device:
    """The device that asks."""
    return Device(
        user_id=ctx.user_id, device_id=ctx.device_id, session_id=ctx.session_id, process=ctx.process
    )


# ------------------------------------------------------------------------------------------------------------ messages


# Not ``once``: the message itself is the record of its opId, for longer than a day. No lane: the service queues by
# the conversation, which has one name from either side.
@event("CHAT_MESSAGE", takes=SendMessage, gives=MessageView, refuses=_SEND)
@route(
    "POST",
    "/api/chat/messages",
    scope="chat:write",
    takes=SendMessage,
    gives=MessageView,
    wraps="message",
    status=201,
    refuses=_SEND,
)
async def chat_message(ctx: Context, ask: dict[str, Any]) -> dict[str, Any]:
    """Send a message. The same ``opId`` again answers with the first one and sends nothing."""
    draft = Draft(
        op_id=ask["op_id"],
        text=ask["text"],
        reply_to=ask["reply_to"],
        attachment_id=ask["attachment_id"],
        ciphertexts=tuple(Ciphertext(**one) for one in ask["ciphertexts"] or ()),
    )
    written = await ctx.services.chat.send(
        device_of(ctx), draft, to=ask.get("to"), conversation_id=ask.get("conversation_id")
    )
    return _seen(ctx, written)


@event("MESSAGE_EDIT", takes=EditMessage, gives=MessageView, refuses=_EDIT)
@route(
    "PATCH",
    "/api/chat/messages/{messageId}",
    takes=EditMessage,
    gives=MessageView,
    wraps="message",
    refuses=_EDIT,
)
async def message_edit(ctx: Context, ask: dict[str, Any]) -> dict[str, Any]:
    """Other words for a message of yours. Safe to repeat. Encrypted messages are not edited."""
    return _seen(ctx, await ctx.services.chat.edit(ctx.user_id, ask["message_id"], ask["text"]))


@event("MESSAGE_DELETE", takes=MessageRef, gives=MessageView, refuses=["MESSAGE_UNKNOWN", "FORBIDDEN"])
@route(
    "DELETE",
    "/api/chat/messages/{messageId}",
    takes=MessageRef,
    gives=MessageView,
    wraps="message",
    refuses=["MESSAGE_UNKNOWN", "FORBIDDEN"],
)
async def message_delete(ctx: Context, ask: dict[str, Any]) -> dict[str, Any]:
    """Delete a message of yours, for everybody: it keeps its place and nothing else. Safe to repeat."""
    return _seen(ctx, await ctx.services.chat.delete(ctx.user_id, ask["message_id"]))


# ------------------------------------------------------------------------------------------------- markers and typing


@event("MESSAGE_DELIVERED", takes=MarkMessages, gives=MarkerView, refuses=_MARK)
@route("POST", "/api/chat/delivered", takes=MarkMessages, gives=MarkerView, wraps="marker", refuses=_MARK)
async def message_delivered(ctx: Context, ask: dict[str, Any]) -> Any:
    """This device has all messages up to this one. Where the marker is after it: it only goes forward.

    The other members hear of it, in groups of up to 32.
    """
    return await ctx.services.chat.markers.delivered(device_of(ctx), **ask)


@event("MESSAGE_READ", takes=MarkMessages, gives=MarkerView, refuses=_MARK)
@route("POST", "/api/chat/read", takes=MarkMessages, gives=MarkerView, wraps="marker", refuses=_MARK)
async def message_read(ctx: Context, ask: dict[str, Any]) -> Any:
    """You have read all messages up to this one, and so have got them. Where the marker is after it.

    Your other devices hear of it, and the other members, in groups of up to 32.
    """
    return await ctx.services.chat.markers.read(device_of(ctx), **ask)


@event("CHAT_TYPING", takes=TypingIn, refuses=_TYPE)
async def chat_typing(ctx: Context, ask: dict[str, Any]) -> None:
    """You type, for the next 6 seconds: say it again while you do."""
    await ctx.services.chat.typing.begin(device_of(ctx), _conversation(ctx, ask), to=ask.get("to"))


@event("CHAT_STOP_TYPING", takes=TypingIn, refuses=["SELF_NOT_ALLOWED"])
async def chat_stop_typing(ctx: Context, ask: dict[str, Any]) -> None:
    """You type no longer. A message says so, too."""
    await ctx.services.chat.typing.end(_conversation(ctx, ask), ctx.user_id)


# ------------------------------------------------------------------------------------------------------------- reading


@route(
    "GET",
    "/api/chat/history/{userId}",
    takes=HistoryQuery,
    gives=MessageView,
    many=True,
    refuses=["SELF_NOT_ALLOWED", "USER_UNKNOWN", "VALIDATION_FAILED"],
)
async def chat_history(ctx: Context, ask: dict[str, Any]) -> Page:
    """Messages between this person and you: newest first, below ``before`` if given; oldest first, above ``after``."""
    way, last = _direction(ask)
    number = number_in([last]) if isinstance(last, str) else last
    page = await ctx.services.chat.history(
        ctx.user_id, ask["user_id"], **{"before": None, way: number}, limit=ask["limit"]
    )
    return await _page(ctx, page, lambda last: encode_cursor(way, str(last.message.seq)))


@route(
    "GET",
    "/api/chat/conversations/{conversationId}/messages",
    scope="chat:read",
    takes=MessagesQuery,
    gives=MessageView,
    many=True,
    refuses=["CONVERSATION_UNKNOWN", "VALIDATION_FAILED"],
)
async def conversation_messages(ctx: Context, ask: dict[str, Any]) -> Page:
    """Messages of a conversation: newest first, below ``before`` if it is given; or oldest first, above ``after``.

    After ``gap: true`` in ``SYNC``, ``after`` is the last number that the device has.
    """
    way, last = _direction(ask)
    number = number_in([last]) if isinstance(last, str) else last
    page = await ctx.services.chat.messages(
        ctx.user_id, ask["conversation_id"], **{way: number}, limit=ask["limit"]
    )
    return await _page(ctx, page, lambda last: encode_cursor(way, str(last.message.seq)))


@route(
    "GET",
    "/api/chat/search",
    takes=MessageSearch,
    gives=MessageView,
    many=True,
    refuses=["CONVERSATION_UNKNOWN", "VALIDATION_FAILED"],
)
async def search_messages(ctx: Context, ask: dict[str, Any]) -> Page:
    """Messages in which each word of ``query`` is the beginning of a word; case does not matter.

    Newest first, older than the message ``before`` if given; or oldest first, newer than the message ``after``. In one
    conversation, or in the 1,000 of yours that were active last. Encrypted and deleted messages are not found.
    """
    way, last = _direction(ask)
    page = await ctx.services.chat.search(
        ctx.user_id,
        ask["query"],
        conversation_id=ask.get("conversation_id"),
        **{way: last},
        limit=ask["limit"],
    )
    return await _page(ctx, page, lambda last: encode_cursor(way, last.message.id))


def _direction(ask: dict[str, Any]) -> tuple[str, Any]:
    """``before`` or ``after`` what a list is to go on: by its cursor, else as it was asked for.

    A cursor of one part is from before the lists had directions. Refuses with ``VALIDATION_FAILED``.
    """
    parts = decode_cursor(ask["cursor"])
    if parts is None:
        return ("after", ask["after"]) if "after" in ask else ("before", ask.get("before"))
    if len(parts) == 1:
        parts = ["before", *parts]
    if len(parts) != 2 or parts[0] not in ("before", "after"):
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    return parts[0], parts[1]


def _conversation(ctx: Context, ask: dict[str, Any]) -> str:
    return ctx.services.chat.conversation_id(
        ctx.user_id, to=ask.get("to"), conversation_id=ask.get("conversation_id")
    )


def _seen(ctx: Context, written: Written) -> dict[str, Any]:
    return message_view(written, ctx.services.presence, viewer_id=ctx.user_id, device_id=ctx.device_id)


async def _page(ctx: Context, page: Stretch, cursor: Callable[[Written], str]) -> Page:
    presence = await ctx.services.presence.seen_by(ctx.user_id, {one.sender.user_id for one in page.items})
    items = [
        message_view(one, presence, viewer_id=ctx.user_id, device_id=ctx.device_id) for one in page.items
    ]
    return Page(items, cursor(page.items[-1]) if page.more else None)


def number_in(parts: list[str] | None) -> int | None:
    """The number in a cursor of a history. Refuses with ``VALIDATION_FAILED``."""
    if parts is None:
        return None
    if not (parts[0].isascii() and parts[0].isdigit() and len(parts[0]) <= 15):
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    return int(parts[0])


# ---------------------------------------------------------------------------------------------------------------- jobs


@job("chat_untold", every_seconds=5, anywhere=True)
async def tell_untold_messages(services: Services) -> None:
    """Tell messages and markers whose process ended between keeping and telling them."""
    await services.chat.tell_untold()


@job("chat_typing", every_seconds=1)
async def end_typing(services: Services) -> None:
    """Tell that those who have not said for 6 seconds that they type do so no longer."""
    await services.chat.typing.expire()
