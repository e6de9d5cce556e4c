"""Signing in with Google and Facebook."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from handlers.auth import device_of, signed_in_view
from handlers.auth_shapes import CODE_LENGTH_MAX, DeviceShape, SignedInView, Synonyms
from handlers.context import Context
from handlers.registry import route
from handlers.second_factor import WRONG_FACTOR
from handlers.shapes import Instant, Page, Shape, Text
from models.auth.oauth.rules import TOKEN_LENGTH_MAX
from models.auth.rules import PASSWORD_LENGTH_MAX

PROVIDERS = ("google", "facebook")
_TOKEN = {"description": "The ID token that the provider's SDK gave the app; `id_token` is understood too."}
_NONCE = {"description": "The nonce that the app had put in when it asked for the token, if it had."}
_EXAMPLE = "eyJhbGciOiJSUzI1NiJ9.e30.x"
_REFUSED = ("PROVIDER_UNAVAILABLE", "PROVIDER_AWAY", "ID_TOKEN_INVALID", "ACCOUNT_EXISTS")
_ENTRY = (
    *(*_REFUSED, "VALIDATION_FAILED", "ACCOUNT_BANNED", "ACCOUNT_DELETED"),
    *(*WRONG_FACTOR, "RATE_LIMITED", "SERVER_BUSY"),
)


class OAuthSignIn(Synonyms):
    """An ID token; a code as well, where the account has a second factor."""

    id_token = Text(required=True, least=1, most=TOKEN_LENGTH_MAX, metadata=_TOKEN)
    nonce = Text(load_default=None, allow_none=True, most=512, metadata=_NONCE)
    totp = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX)
    recovery_code = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX)
    device = fields.Nested(DeviceShape, load_default=None, allow_none=True)
    synonyms = {"id_token": "idToken"}
    example = {"idToken": _EXAMPLE, "device": DeviceShape.example}


class LinkProvider(Synonyms):
    """An ID token, and the account's password."""

    id_token = Text(required=True, least=1, most=TOKEN_LENGTH_MAX, metadata=_TOKEN)
    nonce = Text(load_default=None, allow_none=True, most=512, metadata=_NONCE)
    provider = fields.String(required=True, validate=validate.OneOf(PROVIDERS))
    password = Text(required=True, least=1, most=PASSWORD_LENGTH_MAX)
    totp = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX)
    recovery_code = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX)
    synonyms = {"id_token": "idToken"}
    example = {"provider": "google", "idToken": _EXAMPLE, "password": "correct horse battery"}


class ProviderRef(Shape):
    """One of the providers."""

    provider = fields.String(required=True, validate=validate.OneOf(PROVIDERS))
    example = {"provider": "google"}


class UnlinkProvider(ProviderRef):
    """One of the providers, and the password unless this device has signed in within the last ten minutes."""

    password = Text(load_default=None, allow_none=True, most=PASSWORD_LENGTH_MAX)


class OAuthLinkView(Shape):
    """A provider that opens your account."""

    provider = fields.String(required=True, validate=validate.OneOf(PROVIDERS))
    email = fields.String(required=True, allow_none=True)
    linked_at = Instant(required=True)


@route(
    "POST",
    "/api/auth/oauth/google",
    takes=OAuthSignIn,
    gives=SignedInView,
    public=True,
    limit="auth",
    refuses=_ENTRY,
)
async def sign_in_google(ctx: Context, ask: dict[str, Any]) -> Any:
    """Sign in with Google, or register.

    ``ACCOUNT_EXISTS``: the e-mail address has an account here, and one side has not verified that it is yours. Sign in
    with the password (or set one anew by ``forgot-password``), and then link Google.
    """
    return await _sign_in(ctx, "google", ask)


@route(
    "POST",
    "/api/auth/oauth/facebook",
    takes=OAuthSignIn,
    gives=SignedInView,
    public=True,
    limit="auth",
    refuses=_ENTRY,
)
async def sign_in_facebook(ctx: Context, ask: dict[str, Any]) -> Any:
    """Sign in with Facebook (Limited Login), or register. Refused as with Google."""
    return await _sign_in(ctx, "facebook", ask)


@route("GET", "/api/auth/oauth", gives=OAuthLinkView, many=True)
async def oauth_links(ctx: Context, ask: dict[str, Any]) -> Page:
    """The providers that open your account; all of them on one page."""
    return Page(items=await ctx.services.accounts.oauth.links(ctx.user_id))


@route(
    "POST",
    "/api/auth/oauth/{provider}/link",
    takes=LinkProvider,
    limit="auth",
    refuses=[*_REFUSED, "PASSWORD_WRONG", *WRONG_FACTOR, "RATE_LIMITED", "SERVER_BUSY"],
)
async def link_provider(ctx: Context, ask: dict[str, Any]) -> None:
    """Have Google or Facebook open your account too. Safe to repeat."""
    accounts = ctx.services.accounts
    await accounts.check_password(ctx.user_id, ask["password"])
    await accounts.fresh_factor(ctx.user_id, totp=ask["totp"], recovery_code=ask["recovery_code"])
    await accounts.oauth.link(ctx.user_id, ask["provider"], ask["id_token"], nonce=ask["nonce"])


@route(
    "DELETE",
    "/api/auth/oauth/{provider}",
    takes=UnlinkProvider,
    limit="auth",
    refuses=["PASSWORD_REQUIRED", "PASSWORD_WRONG", "RATE_LIMITED", "SERVER_BUSY"],
)
async def unlink_provider(ctx: Context, ask: dict[str, Any]) -> None:
    """Have it open your account no more. Safe to repeat. ``PASSWORD_REQUIRED``: as with ``2fa/setup``."""
    await ctx.services.accounts.prove_fresh(ctx.user_id, ctx.session_id, ask["password"])
    await ctx.services.accounts.oauth.unlink(ctx.user_id, ask["provider"])


async def _sign_in(ctx: Context, provider: str, ask: dict[str, Any]) -> Any:
    signed_in = await ctx.services.accounts.oauth.sign_in(
        provider,
        ask["id_token"],
        nonce=ask["nonce"],
        device=device_of(ctx, ask["device"]),
        totp=ask["totp"],
        recovery_code=ask["recovery_code"],
    )
    return signed_in_view(ctx, signed_in)
