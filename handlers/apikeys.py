"""API keys: how another server acts for an account, within scopes."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from handlers.auth_shapes import CODE_LENGTH_MAX
from handlers.context import Context
from handlers.registry import route
from handlers.second_factor import WRONG_FACTOR
from handlers.shapes import Id, Instant, Page, Shape, Text
from models.auth.apikeys.rules import (
    DAYS_DEFAULT,
    DAYS_MAX,
    NAME_LENGTH_MAX,
    PER_MINUTE_DEFAULT,
    PER_MINUTE_MAX,
    SCOPES,
)
from models.auth.rules import PASSWORD_LENGTH_MAX

_ID = "mfrggzdfmztwq2lk"


class MakeApiKey(Shape):
    """What the key is for and what it may, with the account's password."""

    name = Text(required=True, least=1, most=NAME_LENGTH_MAX)
    scopes = fields.List(
        fields.String(validate=validate.OneOf(SCOPES)),
        required=True,
        validate=validate.Length(min=1, max=len(SCOPES)),
    )
    per_minute = fields.Integer(
        strict=True,
        load_default=PER_MINUTE_DEFAULT,
        validate=validate.Range(min=1, max=PER_MINUTE_MAX),
        metadata={"description": "Requests a minute, over all processes."},
    )
    expires_in_days = fields.Integer(
        strict=True, load_default=DAYS_DEFAULT, validate=validate.Range(min=1, max=DAYS_MAX)
    )
    password = Text(required=True, least=1, most=PASSWORD_LENGTH_MAX)
    totp = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX)
    recovery_code = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX)
    example = {"name": "Reports", "scopes": ["calls:read"], "password": "correct horse battery"}


class ApiKeyRef(Shape):
    """One of your API keys by its id."""

    id = Id(required=True)
    example = {"id": _ID}


class ApiKeyView(Shape):
    """An API key, without its secret."""

    id = fields.String(required=True, metadata={"description": "Also in the key's text, after `rk_`."})
    name = fields.String(required=True)
    scopes = fields.List(fields.String(validate=validate.OneOf(SCOPES)), required=True)
    per_minute = fields.Integer(required=True)
    uses = fields.Integer(required=True, metadata={"description": "Requests that it was let in with."})
    created_at = Instant(required=True)
    expires_at = Instant(required=True)
    last_used_at = Instant(required=True, allow_none=True)


class NewApiKeyView(Shape):
    """A new API key with its text, which is shown this once."""

    api_key = fields.Nested(ApiKeyView, required=True)
    key = fields.String(
        required=True, metadata={"description": "For `Authorization: Bearer rk_…`; it cannot be shown again."}
    )


@route(
    "POST",
    "/api/auth/api-keys",
    takes=MakeApiKey,
    gives=NewApiKeyView,
    status=201,
    limit="auth",
    refuses=["PASSWORD_WRONG", *WRONG_FACTOR, "TOO_MANY_KEYS", "RATE_LIMITED", "SERVER_BUSY"],
)
async def make_api_key(ctx: Context, ask: dict[str, Any]) -> Any:
    """Make a key with which another server acts for you, at the routes that name one of its scopes."""
    accounts = ctx.services.accounts
    await accounts.check_password(ctx.user_id, ask["password"])
    await accounts.fresh_factor(ctx.user_id, totp=ask["totp"], recovery_code=ask["recovery_code"])
    key, text = await accounts.api_keys.make(
        ctx.user_id,
        name=ask["name"],
        scopes=ask["scopes"],
        per_minute=ask["per_minute"],
        days=ask["expires_in_days"],
    )
    return {"api_key": key, "key": text}


@route("GET", "/api/auth/api-keys", gives=ApiKeyView, many=True)
async def api_keys(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your API keys, newest first; all of them on one page."""
    return Page(items=await ctx.services.accounts.api_keys.keys(ctx.user_id))


@route("DELETE", "/api/auth/api-keys/{id}", takes=ApiKeyRef)
async def revoke_api_key(ctx: Context, ask: dict[str, Any]) -> None:
    """Have a key be good for nothing, at once. Safe to repeat."""
    await ctx.services.accounts.api_keys.revoke(ctx.user_id, ask["id"])
