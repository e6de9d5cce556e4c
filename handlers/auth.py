"""Accounts: coming in, staying in, going; the devices that are signed in; the token of a live socket."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from handlers.auth_shapes import (
    ChangePassword,
    DeleteAccount,
    Expiring,
    GivePushToken,
    Login,
    NewToken,
    PushDeviceView,
    PushTokenRef,
    Refresh,
    Register,
    SessionRef,
    SessionView,
    SignedInView,
    TokensView,
)
from handlers.context import Context
from handlers.registry import event, job, notice, route
from handlers.second_factor import WRONG_FACTOR
from handlers.services import Services
from handlers.shapes import Page
from handlers.users import own_user
from models.auth.service import Session, SignedIn, SignInDevice
from models.errors import Refusal

AUTH_EXPIRING = notice(
    "AUTH_EXPIRING",
    Expiring,
    "The socket's access token expires soon: send ``AUTH_REFRESH`` with a fresh one, or the socket is closed 25 s "
    "after the expiry.",
)


@route(
    "POST",
    "/api/auth/register",
    also=["/register", "/users/register"],
    takes=Register,
    gives=SignedInView,
    status=201,
    public=True,
    limit="auth",
    refuses=["VALIDATION_FAILED", "ACCOUNT_EXISTS", "RATE_LIMITED", "SERVER_BUSY"],
)
async def register(ctx: Context, ask: dict[str, Any]) -> Any:
    """Make an account, and sign in to it.

    ``ACCOUNT_EXISTS`` names in ``details.field`` what somebody has already: ``email``, ``phone`` or ``username``.
    """
    device = device_of(ctx, ask.pop("device"))
    return signed_in_view(ctx, await ctx.services.accounts.register(**ask, device=device))


@route(
    "POST",
    "/api/auth/login",
    also=["/login", "/auth/login"],
    takes=Login,
    gives=SignedInView,
    public=True,
    limit="auth",
    refuses=["CREDENTIALS_WRONG", "ACCOUNT_BANNED", *WRONG_FACTOR, "RATE_LIMITED", "SERVER_BUSY"],
)
async def login(ctx: Context, ask: dict[str, Any]) -> Any:
    """Sign in by username, e-mail address or phone number.

    ``TOTP_REQUIRED``: the password was right, and a second factor is on: ask again with ``totp`` or ``recoveryCode``.
    """
    identifier = ask["identifier"] or ask["email"] or ask["username"] or ask["phone"]
    device = device_of(ctx, ask["device"])
    signed_in = await ctx.services.accounts.login(
        identifier=identifier,
        password=ask["password"],
        device=device,
        totp=ask["totp"],
        recovery_code=ask["recovery_code"],
        device_token=ask["device_token"],
        address=ctx.address,
    )
    return signed_in_view(ctx, signed_in)


@route(
    "POST",
    "/api/auth/refresh-token",
    also=["/auth/refresh"],
    takes=Refresh,
    gives=TokensView,
    public=True,
    limit="auth",
    refuses=["REFRESH_INVALID", "REFRESH_REUSED", "ACCOUNT_BANNED", "ACCOUNT_DELETED", "RATE_LIMITED"],
)
async def refresh_token(ctx: Context, ask: dict[str, Any]) -> Any:
    """New tokens for a refresh token, which is used up by it.

    Asked again with the same one within 10 s (the answer was lost), the refresh token in the answer is the same.
    Later reuse means that it was stolen: the sign-in ends, ``REFRESH_REUSED``.
    """
    return await ctx.services.accounts.refresh(ask["refresh_token"])


@route("POST", "/api/auth/logout")
async def logout(ctx: Context, ask: dict[str, Any]) -> None:
    """Sign this device out. Its push tokens go too, and its sockets close."""
    await ctx.services.accounts.logout(ctx.user_id, ctx.session_id)


@route("POST", "/api/auth/logout-all")
async def logout_all(ctx: Context, ask: dict[str, Any]) -> None:
    """Sign all your devices out, this one too."""
    await ctx.services.accounts.logout_all(ctx.user_id)


@route(
    "POST",
    "/api/auth/change-password",
    takes=ChangePassword,
    limit="auth",
    refuses=["PASSWORD_WRONG", "VALIDATION_FAILED", "RATE_LIMITED", "SERVER_BUSY"],
)
async def change_password(ctx: Context, ask: dict[str, Any]) -> None:
    """Set another password. All your other devices are signed out."""
    await ctx.services.accounts.change_password(
        ctx.user_id, ctx.session_id, current=ask["current_password"], new=ask["new_password"]
    )


@route(
    "DELETE",
    "/api/user/account",
    takes=DeleteAccount,
    limit="auth",
    refuses=["PASSWORD_WRONG", "RATE_LIMITED", "SERVER_BUSY", "WALLET_NOT_EMPTY"],
)
async def delete_account(ctx: Context, ask: dict[str, Any]) -> None:
    """Delete your account for good. A live call ends; in others' histories you are a deleted account.

    While there is money in a wallet it takes ``forfeitBalance: true``: nobody can get at it afterwards.
    """
    if not ask["forfeit_balance"]:
        await ctx.services.wallets.refuse_unless_empty(ctx.user_id)
    await ctx.services.accounts.delete(ctx.user_id, password=ask["password"])


@route("GET", "/api/auth/sessions", gives=SessionView, many=True)
async def sessions(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your devices that are signed in, most recently used first; all of them on one page."""
    now = ctx.services.clock.now()
    found = await ctx.services.accounts.sessions(ctx.user_id)
    return Page(items=[_session(session, ctx, now) for session in found])


@route("DELETE", "/api/auth/sessions/{id}", takes=SessionRef, refuses=["SESSION_UNKNOWN"])
async def end_session(ctx: Context, ask: dict[str, Any]) -> None:
    """Sign one of your devices out. Safe to repeat."""
    await ctx.services.accounts.end_session(ctx.user_id, ask["id"])


@route(
    "POST",
    "/api/auth/expo-push-token",
    takes=GivePushToken,
    gives=PushDeviceView,
    wraps="device",
    refuses=["VALIDATION_FAILED"],
)
async def give_push_token(ctx: Context, ask: dict[str, Any]) -> Any:
    """Say where this device can be woken; send it at every start of the app, since tokens change.

    The token is this device's until it signs out. Native tokens for call pushes go beside it, with their ``kind``.
    """
    push = await ctx.services.accounts.keep_push_token(
        ctx.user_id,
        ctx.session_id,
        device_id=ask["device_id"] or _own_device_id(ctx),
        kind=ask["kind"],
        token=ask["expo_push_token"],
        platform=ask["platform"],
    )
    return {
        "id": push.device_id,
        "kind": push.kind,
        "platform": push.platform,
        "updated_at": push.updated_at,
    }


@route("DELETE", "/api/auth/expo-push-token", takes=PushTokenRef)
async def drop_push_token(ctx: Context, ask: dict[str, Any]) -> None:
    """Wake this device no more: forget the token, or without one all of the device. Safe to repeat."""
    await ctx.services.accounts.drop_push_token(
        ctx.user_id,
        ctx.session_id,
        token=ask["expo_push_token"],
        device_id=ask["device_id"] or _own_device_id(ctx),
    )


@event(
    "AUTH_REFRESH",
    takes=NewToken,
    gives=Expiring,
    refuses=["TOKEN_EXPIRED", "TOKEN_INVALID", "ACCOUNT_BANNED", "ACCOUNT_DELETED", "FORBIDDEN"],
)
async def auth_refresh(ctx: Context, ask: dict[str, Any]) -> Any:
    """Show a fresh access token of the same person, so that the socket may stay."""
    identity = await ctx.services.accounts.authenticate(ask["token"])
    if identity.user_id != ctx.user_id:
        raise Refusal("FORBIDDEN")
    ctx.services.doors.renew(ctx.user_id, ctx.device_id, identity.expires_at)
    return {"expires_in_ms": _ms_until(identity.expires_at, ctx.services.clock.now())}


@job("accounts.revocations", every_seconds=0.5)
async def watch_revocations(services: Services) -> None:
    """Close the sockets of people who were banned, deleted or signed out, by whatever process."""
    await services.accounts.watch_revocations()


@job("accounts.tidy", every_seconds=60, anywhere=True)
async def tidy(services: Services) -> None:
    """Remove sign-ins that have expired, and finish deletions that a crash has interrupted."""
    await services.accounts.tidy()


def device_of(ctx: Context, said: dict[str, Any] | None) -> SignInDevice:
    """What is kept of the device that signs in."""
    said = said or {}
    return SignInDevice(
        id=said.get("id") or None,
        name=said.get("name") or ctx.extra.get("user_agent") or None,
        platform=said.get("platform") or None,
    )


def _own_device_id(ctx: Context) -> str | None:
    """The id that the request brought; None when the hinge made one up from the session."""
    return None if ctx.device_id.startswith("session:") else ctx.device_id


def signed_in_view(ctx: Context, signed_in: SignedIn) -> dict[str, Any]:
    """``SignedInView`` in snake_case."""
    return {**asdict(signed_in.tokens), "user": own_user(ctx, signed_in.account)}


def _session(session: Session, ctx: Context, now: datetime) -> dict[str, Any]:
    return {
        "id": session.id,
        "device": asdict(session.device),
        "current": session.id == ctx.session_id,
        "created_at": session.created_at,
        "last_seen_at": session.seen_at,
        "expires_in_ms": _ms_until(session.expires_at, now),
    }


def _ms_until(at: datetime, now: datetime) -> int:
    return max(0, round((at - now).total_seconds() * 1000))
