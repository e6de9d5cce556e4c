"""People: one's own profile, finding others, and wanting nothing of some."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from handlers.auth_shapes import NAME_LENGTH_MAX, Named, OwnUser
from handlers.context import Context
from handlers.registry import route
from handlers.shapes import Id, Page, PageQuery, PublicUser, Shape, Text, decode_cursor, encode_cursor
from models.presence.service import Presence
from models.users.profile import Account, Profile

RATE_MINOR_MAX = 100_000_000
URL_LENGTH_MAX = 2048
USER_ID = "01985c3e-0000-7000-8000-00000000b0b0"


class Search(PageQuery):
    """The beginning of a username or display name; empty for everybody."""

    query = Text(load_default="", most=64)
    example = {"query": "ada", "limit": 20}


class UserRef(Shape):
    """A person by id."""

    id = Id(required=True)
    example = {"id": USER_ID}


class ChangeProfile(Named):
    """What one may change of one's profile; what is missing stays."""

    username = Text()
    display_name = Text(most=NAME_LENGTH_MAX)
    avatar_url = Text(
        allow_none=True,
        most=URL_LENGTH_MAX,
        # Others' apps load it: nothing but the web, or it would be a way to make them open something else.
        validate=validate.URL(schemes={"http", "https"}, require_tld=False),
    )
    rate_per_minute_minor = fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(min=0, max=RATE_MINOR_MAX),
        metadata={"description": "What a minute with you costs; null for the server's rate."},
    )
    video_rate_per_minute_minor = fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(min=0, max=RATE_MINOR_MAX),
        metadata={"description": "The same with video; null for as without."},
    )
    currency = Text(
        most=3, metadata={"description": "ISO 4217 code of the currency that these rates are in."}
    )
    example = {"displayName": "Ada Obi", "avatarUrl": "https://example.com/ada.png"}


@route(
    "GET",
    "/api/auth/profile",
    also=["/api/user/profile", "/users/me"],
    gives=OwnUser,
    wraps="user",
    scope="profile:read",
)
async def profile(ctx: Context, ask: dict[str, Any]) -> Any:
    """Your own account."""
    return own_user(ctx, await ctx.services.users.account(ctx.user_id))


@route(
    "PUT",
    "/api/user/profile",
    takes=ChangeProfile,
    gives=OwnUser,
    wraps="user",
    refuses=["VALIDATION_FAILED", "ACCOUNT_EXISTS"],
)
async def change_profile(ctx: Context, ask: dict[str, Any]) -> Any:
    """Change your profile. A username that somebody has is refused with ``ACCOUNT_EXISTS``."""
    return own_user(ctx, await ctx.services.users.change_profile(ctx.user_id, ask))


@route("GET", "/api/users", takes=Search, gives=PublicUser, many=True, scope="users:read")
async def search_users(ctx: Context, ask: dict[str, Any]) -> Page:
    """People whose username begins with ``query``, then those whose display name does.

    You are not among them, nor are those who have blocked you.
    """
    after = decode_cursor(ask["cursor"], parts=3)
    people = await ctx.services.users.search(
        ctx.user_id, ask["query"], limit=ask["limit"], after=(after[0], after[1], after[2]) if after else None
    )
    presence = await ctx.services.presence.seen_by(ctx.user_id, [person.user_id for person in people.items])
    return Page(
        items=[public_user(presence, person) for person in people.items],
        next_cursor=encode_cursor(*people.last) if people.last else None,
    )


@route(
    "GET",
    "/api/users/{id}",
    takes=UserRef,
    gives=PublicUser,
    wraps="user",
    refuses=["USER_UNKNOWN"],
    scope="users:read",
)
async def user_by_id(ctx: Context, ask: dict[str, Any]) -> Any:
    """A person as others see them."""
    person = await ctx.services.users.seen_by(ctx.user_id, ask["id"])
    return public_user(await ctx.services.presence.seen_by(ctx.user_id, [person.user_id]), person)


@route("PUT", "/api/users/{id}/block", takes=UserRef, refuses=["USER_UNKNOWN", "SELF_NOT_ALLOWED"])
async def block_user(ctx: Context, ask: dict[str, Any]) -> None:
    """Want nothing more of somebody: no calls, no messages; a live call between you two ends. Safe to repeat."""
    await ctx.services.users.block(ctx.user_id, ask["id"])
    ctx.services.presence.changed(ctx.user_id, ask["id"])


@route("DELETE", "/api/users/{id}/block", takes=UserRef)
async def unblock_user(ctx: Context, ask: dict[str, Any]) -> None:
    """Take a block back. Safe to repeat."""
    await ctx.services.users.unblock(ctx.user_id, ask["id"])
    ctx.services.presence.changed(ctx.user_id, ask["id"])


def public_user(asker: Context | Presence, person: Profile) -> dict[str, Any]:
    """``PublicUser`` in snake_case, with the person's presence now."""
    presence = asker.services.presence if isinstance(asker, Context) else asker
    return {
        "id": person.user_id,
        "username": person.username,
        "display_name": person.display_name,
        "avatar_url": person.avatar_url,
        "presence": presence.state_of(person.user_id),
        "rate_per_minute_minor": person.rate_per_minute_minor,
        "video_rate_per_minute_minor": person.video_rate_per_minute_minor,
        "currency": person.currency,
    }


def own_user(ctx: Context, account: Account) -> dict[str, Any]:
    """``OwnUser`` in snake_case."""
    return {
        **public_user(ctx, account.profile),
        "email": account.email,
        "phone": account.phone,
        "email_verified": account.email_verified,
        "phone_verified": account.phone_verified,
        "two_factor": account.second_factor,
        "role": account.profile.role,
        "status": account.profile.status,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }
