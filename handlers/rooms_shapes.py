"""Wire shapes of rooms: what requests carry and how a room looks from outside."""

from __future__ import annotations

from marshmallow import fields, validate

from handlers.calls_shapes import Description, PriceView
from handlers.shapes import NUMBER_MAX, Id, Instant, PageQuery, PublicUser, Shape, Text
from handlers.users import RATE_MINOR_MAX
from models.rooms.room import Access

ROOM_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
USER_ID = "01985c3e-0000-7000-8000-00000000b0b0"
NAME_MAX = 120
OP_ID_MAX = 128
# The most that a room can have where a media server carries the media; without one the server says its own limit.
CAPACITY_MAX = 100
# People invited at a time: each gets an event and a push.
INVITED_AT_ONCE_MAX = 50
# Far above what a message may have in bytes, so that it is its own refusal that says so; a frame has no more.
TEXT_CHARACTERS_MAX = 128 * 1024


class RoomRef(Shape):
    """A room by its id."""

    room_id = Id(required=True)
    example = {"roomId": ROOM_ID}


class CreateRoom(Shape):
    """A new room."""

    name = Text(load_default=None, allow_none=True, most=NAME_MAX)
    type = fields.String(load_default="video", validate=validate.OneOf(["audio", "video"]))
    access = fields.Enum(
        Access,
        by_value=fields.String,
        load_default=Access.OPEN,
        metadata={"description": "`open`: whoever knows the id may join. `invite`: only who was invited."},
    )
    capacity = fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(min=2, max=CAPACITY_MAX),
        metadata={"description": "Without it what this server's mesh can carry; more needs LiveKit."},
    )
    rate_per_minute_minor = fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(min=0, max=RATE_MINOR_MAX),
        metadata={"description": "What each participant pays to you for a minute, in your currency."},
    )
    op_id = Text(load_default=None, allow_none=True, least=1, most=OP_ID_MAX)
    example = {"name": "Monday", "type": "video", "access": "invite", "capacity": 4}


class InviteToRoom(RoomRef):
    """Whom to invite."""

    user_ids = fields.List(Id(), required=True, validate=validate.Length(min=1, max=INVITED_AT_ONCE_MAX))
    example = {"roomId": ROOM_ID, "userIds": [USER_ID]}


class KickFromRoom(RoomRef):
    """Whom to show out."""

    user_id = Id(required=True)
    example = {"roomId": ROOM_ID, "userId": USER_ID}


class RoomSignal(RoomRef):
    """For whom; without a target for everybody else in the room."""

    target_user_id = Id(load_default=None, allow_none=True)


class RoomOffer(RoomSignal):
    """An offer."""

    offer = Description(required=True)
    example = {"roomId": ROOM_ID, "targetUserId": USER_ID, "offer": {"type": "offer", "sdp": "v=0\r\n"}}


class RoomAnswer(RoomSignal):
    """An answer."""

    answer = Description(required=True)
    example = {"roomId": ROOM_ID, "targetUserId": USER_ID, "answer": {"type": "answer", "sdp": "v=0\r\n"}}


class RoomCandidate(RoomSignal):
    """A candidate; ``null`` and ``""`` are the end of candidates."""

    candidate = fields.Raw(required=True, allow_none=True)
    example = {
        "roomId": ROOM_ID,
        "targetUserId": USER_ID,
        "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0"},
    }


class SayInRoom(RoomRef):
    """Something to say to everybody in the room, at most 8 KiB of UTF-8."""

    message = Text(required=True, least=1, most=TEXT_CHARACTERS_MAX)
    op_id = Text(load_default=None, allow_none=True, least=1, most=OP_ID_MAX)
    example = {"roomId": ROOM_ID, "message": "Can everybody hear me?", "opId": "b7a0c1de-5a"}


class RoomsQuery(PageQuery):
    """Which stretch of the list."""


class RoomMessagesQuery(PageQuery):
    """Which messages: without a cursor the newest, in ``order`` of their numbers."""

    room_id = Id(required=True)
    order = fields.String(
        load_default="desc",
        validate=validate.OneOf(["desc", "asc"]),
        metadata={"description": "`desc`: newest first. `asc`: oldest first, for catching up."},
    )
    after = fields.Integer(
        load_default=None,
        allow_none=True,
        validate=validate.Range(min=0, max=NUMBER_MAX),
        metadata={"description": "Only messages with a greater `seq`, oldest first: what a phone missed."},
    )
    example = {"roomId": ROOM_ID, "limit": 50}


class RoomView(Shape):
    """A room. A client ignores a snapshot whose ``version`` is older than the one it has."""

    id = fields.String(required=True)
    version = fields.Integer(required=True)
    name = fields.String(required=True, allow_none=True)
    type = fields.String(required=True, validate=validate.OneOf(["audio", "video"]))
    access = fields.String(required=True, validate=validate.OneOf([one.value for one in Access]))
    owner = fields.Nested(PublicUser, required=True)
    capacity = fields.Integer(required=True)
    participants = fields.List(
        fields.Nested(PublicUser), required=True, metadata={"description": "Who is in it, first come first."}
    )
    price = fields.Nested(
        PriceView,
        required=True,
        allow_none=True,
        metadata={
            "description": "What everybody but the owner pays to the owner while in the room; null: free."
        },
    )
    created_at = Instant(required=True)
    closed_at = Instant(required=True, allow_none=True)


class MediaTokenView(Shape):
    """What a device needs to connect to LiveKit, where this server has one."""

    url = fields.String(required=True)
    token = fields.String(required=True)
    expires_in_ms = fields.Integer(required=True)


class JoinedRoom(Shape):
    """The room, and a token for its media where a media server carries them."""

    room = fields.Nested(RoomView, required=True)
    livekit = fields.Nested(
        MediaTokenView,
        metadata={"description": "Only with LiveKit; without it the media go from peer to peer."},
    )


class RoomAndPeople(JoinedRoom):
    """The room, and who is in it."""

    participants = fields.List(fields.Nested(PublicUser), required=True)


class RoomMessage(Shape):
    """Something that was said in a room. ``seq`` counts in the room: 1, 2, 3 …"""

    id = fields.String(required=True)
    room_id = fields.String(required=True)
    seq = fields.Integer(required=True)
    sender_id = fields.String(required=True)
    username = fields.String(required=True)
    message = fields.String(required=True)
    timestamp = Instant(required=True)
    op_id = fields.String(metadata={"description": "Told to the sender alone."})


class RoomNotice(Shape):
    """What every notice about a room carries."""

    room_id = fields.String(required=True)
    log_seq = fields.Integer(
        metadata={"description": "Your own rising number, on notices that are kept for you."}
    )


class ExistingUsers(RoomNotice):
    """Who is in the room already."""

    users = fields.List(fields.Nested(PublicUser), required=True)


class RoomSomebody(RoomNotice):
    """Somebody came or went."""

    user_id = fields.String(required=True)
    user = fields.Nested(PublicUser, required=True)
    room = fields.Nested(RoomView, required=True)


class RoomOfferNotice(RoomNotice):
    """An offer of a participant."""

    sender_id = fields.String(required=True)
    offer = Description(required=True)


class RoomAnswerNotice(RoomNotice):
    """An answer of a participant."""

    sender_id = fields.String(required=True)
    answer = Description(required=True)


class RoomCandidateNotice(RoomNotice):
    """A candidate of a participant."""

    sender_id = fields.String(required=True)
    candidate = fields.Raw(required=True, allow_none=True)


class RoomMessageNotice(RoomMessage):
    """Something that somebody says."""

    log_seq = fields.Integer(
        metadata={"description": "Your own rising number; the last one handled is `since`."}
    )


class RoomUpdated(RoomNotice):
    """The room as it is now."""

    room = fields.Nested(RoomView, required=True)


class RoomInvited(RoomUpdated):
    """You were invited."""

    by = fields.Nested(PublicUser, required=True)


class RoomEnded(RoomNotice):
    """It is over, for one or for all."""

    reason = fields.String(required=True)
