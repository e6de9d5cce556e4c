"""The second factor: codes of an authenticator app (RFC 6238), with recovery codes for when it is lost."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import segno
from marshmallow import ValidationError, fields, validates_schema

from handlers.auth_shapes import CODE_LENGTH_MAX, Synonyms
from handlers.context import Context
from handlers.registry import route
from handlers.shapes import Shape, Text
from models.auth.rules import PASSWORD_LENGTH_MAX

_CODE = {"description": "What the authenticator app shows now; each code is taken once."}
_RECOVERY = {"description": "A recovery code instead; each is taken once."}
# What every door that takes a code refuses with.
WRONG_FACTOR = ("TOTP_REQUIRED", "TOTP_WRONG", "TOTP_LOCKED")


class SetupView(Shape):
    """What an authenticator app needs: to be scanned, to be opened on this phone, or to be typed."""

    secret = fields.String(required=True, metadata={"description": "Base32, to be typed."})
    otpauth_uri = fields.String(required=True)
    qr_svg = fields.String(required=True, metadata={"description": "The address as a QR code, an SVG image."})


class SetUpFactor(Shape):
    """The password, unless this device has signed in within the last ten minutes."""

    password = Text(load_default=None, allow_none=True, most=PASSWORD_LENGTH_MAX)
    example = {"password": "correct horse battery"}


class EnableFactor(Synonyms):
    """The first code that the app shows."""

    code = Text(required=True, least=1, most=CODE_LENGTH_MAX, metadata=_CODE)
    synonyms = {"totp": "code"}
    example = {"code": "492039"}


class RecoveryCodesView(Shape):
    """Codes for when the app is lost: shown this once."""

    recovery_codes = fields.List(fields.String(), required=True)


class ProveFactor(Synonyms):
    """The password with a code of the app, or with a recovery code."""

    password = Text(required=True, least=1, most=PASSWORD_LENGTH_MAX)
    code = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX, metadata=_CODE)
    recovery_code = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX, metadata=_RECOVERY)
    synonyms = {"totp": "code"}
    example = {"password": "correct horse battery", "code": "492039"}

    @validates_schema
    def _some_code(self, data: Mapping[str, Any], **_: Any) -> None:
        if not data.get("code") and not data.get("recovery_code"):
            raise ValidationError("A code of the app, or a recovery code, is needed.", "code")


@route(
    "POST",
    "/api/auth/2fa/setup",
    takes=SetUpFactor,
    gives=SetupView,
    limit="auth",
    refuses=["PASSWORD_REQUIRED", "PASSWORD_WRONG", "TOTP_ENABLED", "RATE_LIMITED", "SERVER_BUSY"],
)
async def set_up_factor(ctx: Context, ask: dict[str, Any]) -> Any:
    """Begin with an authenticator app. Nothing is asked for until ``2fa/enable`` has shown that the app works.

    ``PASSWORD_REQUIRED``: this device has signed in more than ten minutes ago, so the password is asked for, or
    another sign-in: who has stolen a token must not lock the owner out.
    """
    await ctx.services.accounts.prove_fresh(ctx.user_id, ctx.session_id, ask["password"])
    setup = await ctx.services.accounts.set_up_factor(ctx.user_id)
    svg = io.BytesIO()
    # A quiet zone of four modules and a light ground, or a phone in dark mode shows what no camera reads.
    segno.make(setup.uri, error="m").save(svg, kind="svg", xmldecl=False, scale=4, border=4, light="#fff")
    return {"secret": setup.secret, "otpauth_uri": setup.uri, "qr_svg": svg.getvalue().decode().strip()}


@route(
    "POST",
    "/api/auth/2fa/enable",
    takes=EnableFactor,
    gives=RecoveryCodesView,
    limit="auth",
    refuses=["TOTP_WRONG", "TOTP_ENABLED", "TOTP_NOT_SET_UP", "RATE_LIMITED"],
)
async def enable_factor(ctx: Context, ask: dict[str, Any]) -> Any:
    """Ask for a code at every sign-in from now on. The recovery codes are shown this once: have them kept."""
    return {"recovery_codes": await ctx.services.accounts.factors.enable(ctx.user_id, ask["code"])}


@route(
    "POST",
    "/api/auth/2fa/disable",
    takes=ProveFactor,
    limit="auth",
    refuses=[
        *("PASSWORD_WRONG", "TOTP_WRONG", "TOTP_LOCKED", "TOTP_NOT_SET_UP"),
        *("RATE_LIMITED", "SERVER_BUSY"),
    ],
)
async def disable_factor(ctx: Context, ask: dict[str, Any]) -> None:
    """Ask for no codes any more."""
    await ctx.services.accounts.disable_factor(
        ctx.user_id, password=ask["password"], totp=ask["code"], recovery_code=ask["recovery_code"]
    )


@route(
    "POST",
    "/api/auth/2fa/recovery-codes",
    takes=ProveFactor,
    gives=RecoveryCodesView,
    limit="auth",
    refuses=[
        *("PASSWORD_WRONG", "TOTP_WRONG", "TOTP_LOCKED", "TOTP_NOT_SET_UP"),
        *("RATE_LIMITED", "SERVER_BUSY"),
    ],
)
async def renew_recovery_codes(ctx: Context, ask: dict[str, Any]) -> Any:
    """Other recovery codes; those there were are no longer taken."""
    codes = await ctx.services.accounts.renew_recovery(
        ctx.user_id, password=ask["password"], totp=ask["code"], recovery_code=ask["recovery_code"]
    )
    return {"recovery_codes": codes}
