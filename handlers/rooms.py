"""Rooms: the events and routes of CONTRACT §2.2 and §3.3."""

from __future__ import annotations

from typing import Any, Literal

from handlers.context import Context
from handlers.registry import event, route
from handlers.rooms_shapes import (
    CreateRoom,
    InviteToRoom,
    JoinedRoom,
    KickFromRoom,
    RoomAndPeople,
    RoomAnswer,
    RoomCandidate,
    RoomMessage,
    RoomMessagesQuery,
    RoomOffer,
    RoomRef,
    RoomsQuery,
    RoomView,
    SayInRoom,
)
from handlers.rooms_views import existing_users, message_view, room_view, signal_letters
from handlers.shapes import Page, decode_cursor, encode_cursor
from models.errors import Refusal
from models.ports import Device, Letter
from models.rooms.engine import Seen

_SEE = ["ROOM_UNKNOWN", "USER_BLOCKED", "ROOM_CLOSED", "ROOM_INVITE_ONLY", "ROOM_KICKED"]
_FUNDS = ["INSUFFICIENT_FUNDS", "CURRENCY_MISMATCH", "WALLET_FROZEN"]
_JOIN = [*_SEE, "ROOM_FULL", "TOO_MANY_ROOMS", *_FUNDS, "SERVER_BUSY"]
_OWN = ["ROOM_UNKNOWN", "ROOM_NOT_OWNER", "ROOM_CLOSED", "SERVER_BUSY"]
_SIGNAL = ["ROOM_UNKNOWN", "ROOM_CLOSED", "ROOM_NOT_JOINED", "TARGET_UNKNOWN"]
_SDP = ["SDP_INVALID", "SDP_TOO_LARGE"]
Kind = Literal["offer", "answer", "candidate"]


def _device(ctx: Context) -> Device:
    return Device(
        user_id=ctx.user_id, device_id=ctx.device_id, session_id=ctx.session_id, process=ctx.process
    )


def _view(ctx: Context, seen: Seen) -> dict[str, Any]:
    return room_view(seen, ctx.user_id, ctx.services.presence)


def _with_people(ctx: Context, seen: Seen) -> dict[str, Any]:
    view = _view(ctx, seen)
    return {"room": view, "participants": view["participants"]}


async def _joined(ctx: Context, seen: Seen) -> dict[str, Any]:
    """The room, with a ticket for its media where a media server carries them."""
    found, media = _with_people(ctx, seen), ctx.services.rooms.media
    ticket = await media.ticket(seen.room, seen.people.get(ctx.user_id), ctx.device_id) if media else None
    return found if ticket is None else {**found, "livekit": ticket}


# ------------------------------------------------------------------------------------------------------------ rooms


@route(
    "POST",
    "/api/room/create",
    takes=CreateRoom,
    gives=RoomView,
    wraps="room",
    status=201,
    once=True,
    refuses=["TOO_MANY_ROOMS", "VALIDATION_FAILED", "IDEMPOTENCY_MISMATCH", "IDEMPOTENCY_IN_FLIGHT"],
)
async def create_room(ctx: Context, ask: dict[str, Any]) -> Any:
    """Open a room of your own. Nobody is in it before they join, neither are you."""
    return _view(ctx, await ctx.services.rooms.create(ctx.user_id, **ask))


@route("GET", "/api/rooms", takes=RoomsQuery, gives=RoomView, many=True)
async def my_rooms(ctx: Context, ask: dict[str, Any]) -> Page:
    """Rooms that you own, were invited to or have been in, the newest first."""
    cursor = decode_cursor(ask["cursor"], parts=1)
    rooms, more = await ctx.services.rooms.mine(
        ctx.user_id, before=cursor[0] if cursor else None, limit=ask["limit"]
    )
    return Page([_view(ctx, one) for one in rooms], encode_cursor(rooms[-1].room.id) if more else None)


@route("GET", "/api/room/{roomId}", takes=RoomRef, gives=RoomView, wraps="room", refuses=_SEE)
async def get_room(ctx: Context, ask: dict[str, Any]) -> Any:
    """A room that you may join, or that is yours to see."""
    return _view(ctx, await ctx.services.rooms.get(ctx.user_id, ask["room_id"]))


# --------------------------------------------------------------------------------------------------- coming and going


@event(
    "join-room",
    takes=RoomRef,
    gives=RoomAndPeople,
    lane="room_id",
    positional=["roomId"],
    refuses=_JOIN,
)
async def join_room(ctx: Context, ask: dict[str, Any]) -> Any:
    """Come into a room with this device. ``existing-users`` says who is there: make each of them an offer.

    Safe to repeat. A device whose connection was lost is back in its rooms by itself for 15 seconds.
    """
    seen = await ctx.services.rooms.join(_device(ctx), ask["room_id"])
    await ctx.services.mailbox.post([existing_users(seen, _device(ctx), ctx.services.presence)])
    return await _joined(ctx, seen)


@route(
    "POST",
    "/api/room/join/{roomId}",
    takes=RoomRef,
    gives=JoinedRoom,
    lane="room_id",
    refuses=_JOIN,
)
async def join_room_by_rest(ctx: Context, ask: dict[str, Any]) -> Any:
    """Take a place in a room, which is held for 60 seconds until a device of yours sends ``join-room``.

    The others hear of you then. Safe to repeat.
    """
    return await _joined(ctx, await ctx.services.rooms.join(_device(ctx), ask["room_id"]))


@event(
    "leave-room",
    takes=RoomRef,
    gives=RoomAndPeople,
    lane="room_id",
    positional=["roomId"],
    refuses=[*_SEE, "SERVER_BUSY"],
)
async def leave_room(ctx: Context, ask: dict[str, Any]) -> Any:
    """Go out of a room with this device, and out of LiveKit; the others hear of it with your last one.

    Safe to repeat.
    """
    return _with_people(ctx, await ctx.services.rooms.leave(_device(ctx), ask["room_id"]))


@route(
    "POST",
    "/api/room/{roomId}/leave",
    takes=RoomRef,
    gives=RoomView,
    wraps="room",
    lane="room_id",
    refuses=[*_SEE, "SERVER_BUSY"],
)
async def leave_room_by_rest(ctx: Context, ask: dict[str, Any]) -> Any:
    """Go out of a room with all your devices. Safe to repeat."""
    return _view(ctx, await ctx.services.rooms.leave(_device(ctx), ask["room_id"]))


# ------------------------------------------------------------------------------------------------------- the owner's


@route(
    "POST",
    "/api/room/{roomId}/invite",
    takes=InviteToRoom,
    gives=RoomView,
    wraps="room",
    lane="room_id",
    refuses=[
        *_OWN,
        "VALIDATION_FAILED",
        "SELF_NOT_ALLOWED",
        "USER_UNKNOWN",
        "USER_BLOCKED",
        "USER_UNAVAILABLE",
    ],
)
async def invite_to_room(ctx: Context, ask: dict[str, Any]) -> Any:
    """Invite people into your room: all of them, or none where one cannot be (``details.userId`` says who)."""
    return _view(ctx, await ctx.services.rooms.invite(ctx.user_id, ask["room_id"], ask["user_ids"]))


@route(
    "POST",
    "/api/room/{roomId}/kick",
    takes=KickFromRoom,
    gives=RoomView,
    wraps="room",
    lane="room_id",
    refuses=[*_OWN, "TARGET_UNKNOWN", "SELF_NOT_ALLOWED", "VALIDATION_FAILED"],
)
async def kick_from_room(ctx: Context, ask: dict[str, Any]) -> Any:
    """Show somebody out of your room, who may not come back unless you invite them again. Safe to repeat."""
    return _view(ctx, await ctx.services.rooms.kick(ctx.user_id, ask["room_id"], ask["user_id"]))


@route(
    "POST",
    "/api/room/{roomId}/close",
    takes=RoomRef,
    gives=RoomView,
    wraps="room",
    lane="room_id",
    refuses=["ROOM_UNKNOWN", "ROOM_NOT_OWNER", "SERVER_BUSY"],
)
async def close_room(ctx: Context, ask: dict[str, Any]) -> Any:
    """Close your room for good; who is in it hears ``room-closed``. Safe to repeat."""
    return _view(ctx, await ctx.services.rooms.close(ctx.user_id, ask["room_id"]))


# --------------------------------------------------------------------------------------------------------- signaling


def _relayed(ctx: Context, ask: dict[str, Any], kind: Kind) -> tuple[dict[str, Any], list[Letter]] | None:
    """A signal at once, by what this process knows; None where that is not enough."""
    rooms = ctx.services.rooms
    to = rooms.addressees(_device(ctx), ask["room_id"], ask["target_user_id"])
    if to is None or rooms.elsewhere(to):
        return None
    body: dict[str, Any] = {kind: rooms.checked(ask["room_id"], kind, ask[kind])}
    return {}, signal_letters(_EVENTS[kind], ask["room_id"], ctx.user_id, body, to, key=None)


async def _routed(ctx: Context, ask: dict[str, Any], kind: Kind) -> None:
    """A signal after a look into the database, or to a device at another process."""
    rooms = ctx.services.rooms
    to = await rooms.route(_device(ctx), ask["room_id"], ask["target_user_id"])
    body: dict[str, Any] = {kind: rooms.checked(ask["room_id"], kind, ask[kind])}
    key = rooms.signal_key() if rooms.elsewhere(to) else None
    letters = signal_letters(_EVENTS[kind], ask["room_id"], ctx.user_id, body, to, key=key)
    await ctx.services.mailbox.post(letters)


_EVENTS: dict[str, str] = {"offer": "offer", "answer": "answer", "candidate": "ice-candidate"}


def relay_offer(ctx: Context, ask: dict[str, Any]) -> tuple[dict[str, Any], list[Letter]] | None:
    """An offer from participant to participant, in memory."""
    return _relayed(ctx, ask, "offer")


def relay_answer(ctx: Context, ask: dict[str, Any]) -> tuple[dict[str, Any], list[Letter]] | None:
    """An answer from participant to participant, in memory."""
    return _relayed(ctx, ask, "answer")


def relay_candidate(ctx: Context, ask: dict[str, Any]) -> tuple[dict[str, Any], list[Letter]] | None:
    """A candidate from participant to participant, in memory."""
    return _relayed(ctx, ask, "candidate")


@event(
    "offer",
    takes=RoomOffer,
    lane="room_id",
    limit="relay",
    relay=relay_offer,
    positional=["roomId", "offer", "targetUserId"],
    refuses=[*_SIGNAL, *_SDP],
)
async def offer(ctx: Context, ask: dict[str, Any]) -> None:
    """An offer for one participant, or without ``targetUserId`` for everybody else in the room.

    It goes to all devices that they have in the room, and to nobody else. It is not kept.
    """
    await _routed(ctx, ask, "offer")


@event(
    "answer",
    takes=RoomAnswer,
    lane="room_id",
    limit="relay",
    relay=relay_answer,
    positional=["roomId", "answer", "targetUserId"],
    refuses=[*_SIGNAL, *_SDP],
)
async def answer(ctx: Context, ask: dict[str, Any]) -> None:
    """An answer, by the same way as an ``offer``."""
    await _routed(ctx, ask, "answer")


@event(
    "ice-candidate",
    takes=RoomCandidate,
    lane="room_id",
    limit="relay",
    relay=relay_candidate,
    positional=["roomId", "candidate", "targetUserId"],
    refuses=[*_SIGNAL],
)
async def ice_candidate(ctx: Context, ask: dict[str, Any]) -> None:
    """A candidate, by the same way as an ``offer``. Send it after the description that it belongs to."""
    await _routed(ctx, ask, "candidate")


# -------------------------------------------------------------------------------------------------------------- talk


# Not ``once``: the message itself is the record of its opId, for longer than a day. No lane: the service queues.
@event(
    "chat-message",
    takes=SayInRoom,
    gives=RoomMessage,
    positional=["roomId", "message"],
    refuses=[
        "ROOM_UNKNOWN",
        "ROOM_CLOSED",
        "ROOM_NOT_JOINED",
        "PAYLOAD_TOO_LARGE",
        "IDEMPOTENCY_MISMATCH",
    ],
)
async def say(ctx: Context, ask: dict[str, Any]) -> Any:
    """Say something to everybody in the room; the sending device has its copy from this ack."""
    said = await ctx.services.talk.say(_device(ctx), ask["room_id"], ask["message"], op_id=ask["op_id"])
    return message_view(said, viewer_id=ctx.user_id)


@route(
    "GET",
    "/api/room/{roomId}/messages",
    takes=RoomMessagesQuery,
    gives=RoomMessage,
    many=True,
    refuses=["ROOM_UNKNOWN", "USER_BLOCKED", "ROOM_KICKED", "ROOM_NOT_JOINED"],
)
async def room_messages(ctx: Context, ask: dict[str, Any]) -> Page:
    """What was said in a room that you own, are in or were in: the newest first, or oldest first (``order=asc``).

    A cursor goes on in the direction in which it was given.
    """
    cursor = decode_cursor(ask["cursor"])
    if cursor is not None and not (cursor[0] in ("<", ">") and cursor[1].isdigit() and len(cursor[1]) <= 15):
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    before = after = None
    if cursor is not None:
        before, after = (int(cursor[1]), None) if cursor[0] == "<" else (None, int(cursor[1]))
    elif ask["after"] is not None or ask["order"] == "asc":
        after = ask["after"] or 0
    page = await ctx.services.talk.page(
        ctx.user_id, ask["room_id"], before=before, after=after, limit=ask["limit"]
    )
    items = [message_view(one, viewer_id=ctx.user_id) for one in page.items]
    way = "<" if after is None else ">"
    return Page(items, encode_cursor(way, str(page.items[-1].line.seq)) if page.more else None)
