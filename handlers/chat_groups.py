"""Conversations: one's list of them, and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handlers.chat import device_of
from handlers.chat_shapes import (
    AddMembers,
    AppointMember,
    ConversationRef,
    ConversationView,
    FoundGroup,
    GroupMember,
    MuteConversation,
    RenameGroup,
    UnreadView,
)
from handlers.chat_views import overview
from handlers.context import Context
from handlers.registry import route
from handlers.shapes import Page, PageQuery, cursor_instant, decode_cursor, encode_cursor
from models.chat.service import Overview

_WHO = ["USER_UNKNOWN", "USER_BLOCKED", "USER_UNAVAILABLE"]
_GROUP = ["CONVERSATION_UNKNOWN", "FORBIDDEN"]


@route(
    "GET", "/api/chat/conversations", takes=PageQuery, gives=ConversationView, many=True, scope="chat:read"
)
async def conversations(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your conversations, those with the latest activity first."""
    parts = decode_cursor(ask["cursor"])
    after = (cursor_instant(parts[0]), parts[1]) if parts else None
    page = await ctx.services.chat.conversations(ctx.user_id, after=after, limit=ask["limit"])
    cursor = None
    if page.more:
        last = page.items[-1].conversation
        assert last.active_at is not None, "it has begun"
        cursor = encode_cursor(last.active_at.isoformat(), last.id)
    return Page(await _views(ctx, page.items), cursor)


@route("GET", "/api/chat/unread", gives=UnreadView)
async def unread(ctx: Context, ask: dict[str, Any]) -> Any:
    """What you have not read, in the 1,000 of your conversations that were active last."""
    messages, in_conversations = await ctx.services.chat.unread(ctx.user_id)
    return {"unread": messages, "conversations": in_conversations}


@route(
    "GET",
    "/api/chat/conversations/{id}",
    takes=ConversationRef,
    gives=ConversationView,
    wraps="conversation",
    refuses=["CONVERSATION_UNKNOWN"],
)
async def conversation(ctx: Context, ask: dict[str, Any]) -> Any:
    """One of your conversations, with all of its members."""
    return await _now(ctx, ask["id"])


@route(
    "PUT",
    "/api/chat/conversations/{id}/mute",
    takes=MuteConversation,
    gives=ConversationView,
    wraps="conversation",
    refuses=["CONVERSATION_UNKNOWN"],
)
async def mute_conversation(ctx: Context, ask: dict[str, Any]) -> Any:
    """Want no push for a conversation, or want them again."""
    return await _view(ctx, await ctx.services.chat.mute(ctx.user_id, ask["id"], ask["muted"]))


@route(
    "POST",
    "/api/chat/groups",
    takes=FoundGroup,
    gives=ConversationView,
    wraps="conversation",
    status=201,
    once=True,
    refuses=[*_WHO, "GROUP_FULL", "VALIDATION_FAILED", "IDEMPOTENCY_MISMATCH"],
)
async def found_group(ctx: Context, ask: dict[str, Any]) -> Any:
    """Found a group, which you own. With ``opId`` or an Idempotency-Key a retry gets the first one."""
    group = await ctx.services.chat.groups.found(
        device_of(ctx), name=ask["name"], user_ids=ask["member_ids"], op_id=ask["op_id"]
    )
    return await _now(ctx, group.id)


@route(
    "PATCH",
    "/api/chat/groups/{id}",
    takes=RenameGroup,
    gives=ConversationView,
    wraps="conversation",
    refuses=[*_GROUP, "VALIDATION_FAILED"],
)
async def rename_group(ctx: Context, ask: dict[str, Any]) -> Any:
    """Give a group another name, as its owner or an admin."""
    await ctx.services.chat.groups.rename(device_of(ctx), ask["id"], ask["name"])
    return await _now(ctx, ask["id"])


@route(
    "POST",
    "/api/chat/groups/{id}/members",
    takes=AddMembers,
    gives=ConversationView,
    wraps="conversation",
    refuses=[*_GROUP, *_WHO, "GROUP_FULL"],
)
async def add_members(ctx: Context, ask: dict[str, Any]) -> Any:
    """Add people to a group, as its owner or an admin: all or none. They see what comes from then on.

    Safe to repeat.
    """
    await ctx.services.chat.groups.add(device_of(ctx), ask["id"], ask["member_ids"])
    return await _now(ctx, ask["id"])


@route("DELETE", "/api/chat/groups/{id}/members/{userId}", takes=GroupMember, refuses=_GROUP)
async def remove_member(ctx: Context, ask: dict[str, Any]) -> None:
    """Remove somebody from a group, as its owner or an admin, or yourself. Safe to repeat.

    Admins are removed by the owner only.
    """
    await ctx.services.chat.groups.remove(device_of(ctx), ask["id"], ask["user_id"])


@route(
    "PUT",
    "/api/chat/groups/{id}/members/{userId}",
    takes=AppointMember,
    gives=ConversationView,
    wraps="conversation",
    refuses=[*_GROUP, "USER_UNKNOWN"],
)
async def appoint_member(ctx: Context, ask: dict[str, Any]) -> Any:
    """Make a member of your group an admin, or an admin a member. Safe to repeat."""
    await ctx.services.chat.groups.appoint(device_of(ctx), ask["id"], ask["user_id"], ask["role"])
    return await _now(ctx, ask["id"])


@route("POST", "/api/chat/groups/{id}/leave", takes=ConversationRef, refuses=["CONVERSATION_UNKNOWN"])
async def leave_group(ctx: Context, ask: dict[str, Any]) -> None:
    """Leave a group. An owner's place goes to the first admin, else to whoever has been there longest."""
    await ctx.services.chat.groups.leave(device_of(ctx), ask["id"])


async def _now(ctx: Context, conversation_id: str) -> dict[str, Any]:
    return await _view(ctx, await ctx.services.chat.conversation(ctx.user_id, conversation_id))


async def _view(ctx: Context, one: Overview) -> dict[str, Any]:
    (view,) = await _views(ctx, [one])
    return view


async def _views(ctx: Context, found: Sequence[Overview]) -> list[dict[str, Any]]:
    presence = await ctx.services.presence.seen_by(ctx.user_id, {who for one in found for who in one.people})
    return [overview(one, presence, viewer_id=ctx.user_id, device_id=ctx.device_id) for one in found]
