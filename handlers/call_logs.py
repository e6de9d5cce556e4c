"""Logs of room calls: the routes of CONTRACT §3.3."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from handlers.context import Context
from handlers.registry import route
from handlers.rooms_shapes import RoomRef
from handlers.shapes import Instant, Page, PageQuery, PublicUser, Shape, decode_cursor, encode_cursor
from handlers.users import public_user
from models.presence.service import Presence
from models.rooms.logs.store import CallLog
from models.rooms.service import LogPage

# People named on one line of a list; how many there were stands beside them.
NAMED_MAX = 100


class CallLogsQuery(PageQuery):
    """Which stretch of the list."""


class CallLogView(Shape):
    """One use of a room, from the first who came to the last who left."""

    id = fields.String(required=True)
    room_id = fields.String(required=True)
    room_name = fields.String(required=True, allow_none=True)
    type = fields.String(required=True, validate=validate.OneOf(["audio", "video"]))
    status = fields.String(required=True, validate=validate.OneOf(["active", "completed"]))
    owner = fields.Nested(PublicUser, required=True)
    participants = fields.List(fields.Nested(PublicUser), required=True)
    participant_count = fields.Integer(required=True)
    started_at = Instant(required=True)
    ended_at = Instant(required=True, allow_none=True)
    duration_seconds = fields.Integer(required=True, metadata={"description": "0 while it is active."})


class CallStatsView(Shape):
    """Your room calls, added up. Durations are those of the completed ones."""

    total_calls = fields.Integer(required=True)
    completed_calls = fields.Integer(required=True)
    active_calls = fields.Integer(required=True)
    total_duration_seconds = fields.Integer(required=True)
    average_duration_seconds = fields.Integer(required=True)


async def _views(ctx: Context, page: LogPage) -> list[dict[str, Any]]:
    presence = await ctx.services.presence.seen_by(ctx.user_id, page.people)
    return [_view(presence, log, page) for log in page.items]


def _view(presence: Presence, log: CallLog, page: LogPage) -> dict[str, Any]:
    named = [page.people[one] for one in log.user_ids[:NAMED_MAX] if one in page.people]
    return {
        "id": log.id,
        "room_id": log.room_id,
        "room_name": log.room_name,
        "type": log.type,
        "status": "active" if log.ended_at is None else "completed",
        "owner": public_user(presence, page.people[log.owner_id]),
        "participants": [public_user(presence, one) for one in named],
        "participant_count": len(log.user_ids),
        "started_at": log.started_at,
        "ended_at": log.ended_at,
        "duration_seconds": log.duration_seconds,
    }


@route("GET", "/api/call-logs", takes=CallLogsQuery, gives=CallLogView, many=True, scope="calls:read")
async def call_logs(ctx: Context, ask: dict[str, Any]) -> Page:
    """Room calls that you were in, the newest first."""
    cursor = decode_cursor(ask["cursor"], parts=1)
    page = await ctx.services.rooms.logs(
        ctx.user_id, before=cursor[0] if cursor else None, limit=ask["limit"]
    )
    return Page(await _views(ctx, page), encode_cursor(page.items[-1].id) if page.more else None)


@route("GET", "/api/call-logs/stats", gives=CallStatsView, scope="calls:read")
async def call_log_stats(ctx: Context, ask: dict[str, Any]) -> Any:
    """Your room calls, added up."""
    totals = await ctx.services.rooms.log_totals(ctx.user_id)
    return {
        "total_calls": totals.calls,
        "completed_calls": totals.completed,
        "active_calls": totals.calls - totals.completed,
        "total_duration_seconds": totals.seconds,
        "average_duration_seconds": totals.seconds // totals.completed if totals.completed else 0,
    }


@route(
    "POST",
    "/api/call-logs",
    takes=RoomRef,
    gives=CallLogView,
    wraps="callLog",
    status=201,
    lane="room_id",
    refuses=[
        "ROOM_UNKNOWN",
        "USER_BLOCKED",
        "ROOM_CLOSED",
        "ROOM_INVITE_ONLY",
        "ROOM_KICKED",
        "ROOM_NOT_JOINED",
        "SERVER_BUSY",
    ],
)
async def begin_call_log(ctx: Context, ask: dict[str, Any]) -> Any:
    """The running call of a room. It begins by itself with the first who joins, so this is safe to repeat."""
    page = await ctx.services.rooms.begin_log(ctx.user_id, ask["room_id"])
    (view,) = await _views(ctx, page)
    return view


@route(
    "PUT",
    "/api/call-logs/{roomId}/end",
    takes=RoomRef,
    gives=CallLogView,
    wraps="callLog",
    lane="room_id",
    refuses=["ROOM_UNKNOWN", "ROOM_NOT_OWNER", "CALL_UNKNOWN", "SERVER_BUSY"],
)
async def end_call_log(ctx: Context, ask: dict[str, Any]) -> Any:
    """End the running call of a room in the logs: the owner's to do, or of who alone is left. Safe to repeat.

    It ends by itself when the last one leaves. People stay in the room; who comes next begins another.
    """
    page = await ctx.services.rooms.end_log(ctx.user_id, ask["room_id"])
    (view,) = await _views(ctx, page)
    return view
