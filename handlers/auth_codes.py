"""A forgotten password, and addresses that are shown to be read: codes by e-mail and SMS."""

from __future__ import annotations

from typing import Any

from handlers.auth_shapes import CODE_LENGTH_MAX, OwnUser, Synonyms, device_token_field
from handlers.context import Context
from handlers.registry import job, route
from handlers.services import Services
from handlers.shapes import Text
from handlers.users import own_user
from models.auth.codes.rules import Purpose
from models.auth.rules import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN

_NAMES = {"email": "identifier", "phone": "identifier", "username": "identifier", "phoneNumber": "identifier"}


class Forgot(Synonyms):
    """Whose password: a username, e-mail address or phone number (``email``, ``phone`` are understood too)."""

    identifier = Text(required=True, least=1)
    device_token = device_token_field()
    synonyms = _NAMES
    example = {"identifier": "ada@example.com"}


class ResetPassword(Synonyms):
    """Whose password, the code that was sent, and what the password shall be."""

    identifier = Text(required=True, least=1)
    code = Text(required=True, least=1, most=CODE_LENGTH_MAX)
    new_password = Text(required=True, least=PASSWORD_LENGTH_MIN, most=PASSWORD_LENGTH_MAX)
    device_token = device_token_field()
    synonyms = {**_NAMES, "password": "newPassword"}
    example = {"identifier": "ada@example.com", "code": "48213907", "newPassword": "correct horse battery"}


class ShowCode(Synonyms):
    """The code that was sent."""

    code = Text(required=True, least=1, most=CODE_LENGTH_MAX)
    example = {"code": "48213907"}


@route(
    "POST",
    "/api/auth/forgot-password",
    takes=Forgot,
    status=202,
    public=True,
    limit="address",
    refuses=["RATE_LIMITED"],
)
async def forgot_password(ctx: Context, ask: dict[str, Any]) -> None:
    """Send a code to the account's e-mail address or phone, if there is such an account: the answer is the same.

    A code is good for ten minutes, and only the last one sent. One a minute is sent at most. With the ``deviceToken``
    of an earlier sign-in the code is this device's own, whatever strangers ask for meanwhile.
    """
    await ctx.services.accounts.codes.forgot(
        ask["identifier"], device_token=ask["device_token"], address=ctx.address
    )


@route(
    "POST",
    "/api/auth/reset-password",
    takes=ResetPassword,
    public=True,
    limit="address",
    refuses=["CODE_WRONG", "VALIDATION_FAILED", "RATE_LIMITED", "SERVER_BUSY"],
)
async def reset_password(ctx: Context, ask: dict[str, Any]) -> None:
    """Set another password with the code that was sent. All devices are signed out; a second factor stays on."""
    await ctx.services.accounts.reset_password(
        ask["identifier"],
        ask["code"],
        new=ask["new_password"],
        address=ctx.address,
        device_token=ask["device_token"],
    )


@route(
    "POST",
    "/api/auth/verify-email/send",
    status=202,
    limit="auth",
    refuses=["VALIDATION_FAILED", "RATE_LIMITED"],
)
async def send_email_code(ctx: Context, ask: dict[str, Any]) -> None:
    """Send a code to your e-mail address, unless it is verified. One a minute is sent at most."""
    await ctx.services.accounts.codes.send_verification(ctx.user_id, Purpose.EMAIL)


@route(
    "POST",
    "/api/auth/verify-phone/send",
    status=202,
    limit="auth",
    refuses=["VALIDATION_FAILED", "RATE_LIMITED"],
)
async def send_phone_code(ctx: Context, ask: dict[str, Any]) -> None:
    """Send a code to your phone, unless its number is verified. One a minute is sent at most."""
    await ctx.services.accounts.codes.send_verification(ctx.user_id, Purpose.PHONE)


@route(
    "POST",
    "/api/auth/verify-email",
    takes=ShowCode,
    gives=OwnUser,
    wraps="user",
    limit="auth",
    refuses=["CODE_WRONG", "RATE_LIMITED"],
)
async def verify_email(ctx: Context, ask: dict[str, Any]) -> Any:
    """Show with the code that your e-mail address is yours. Safe to repeat."""
    return own_user(ctx, await ctx.services.accounts.codes.verify(ctx.user_id, Purpose.EMAIL, ask["code"]))


@route(
    "POST",
    "/api/auth/verify-phone",
    takes=ShowCode,
    gives=OwnUser,
    wraps="user",
    limit="auth",
    refuses=["CODE_WRONG", "RATE_LIMITED"],
)
async def verify_phone(ctx: Context, ask: dict[str, Any]) -> Any:
    """Show with the code that your phone number is yours. Safe to repeat."""
    return own_user(ctx, await ctx.services.accounts.codes.verify(ctx.user_id, Purpose.PHONE, ask["code"]))


@job("auth_codes", every_seconds=1, anywhere=True)
async def send_codes(services: Services) -> None:
    """Send the codes that were asked for."""
    await services.accounts.codes.run_due()
