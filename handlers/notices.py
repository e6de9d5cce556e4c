"""Notices of account activity: which of them somebody wants, and the job that sends them."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from handlers.context import Context
from handlers.registry import job, route
from handlers.services import Services
from handlers.shapes import Shape


class NoticeSettings(Shape):
    """By which ways you are told of what happens to your money."""

    email = fields.Boolean(required=True, metadata={"description": "To your e-mail address."})
    sms = fields.Boolean(required=True, metadata={"description": "To your phone number."})
    example = {"email": True, "sms": False}


class SetNotices(Shape):
    """What is missing stays as it was."""

    email = fields.Boolean(load_default=None)
    sms = fields.Boolean(load_default=None)
    example = {"sms": True}


@route("GET", "/api/user/notices", gives=NoticeSettings, wraps="notices")
async def notice_settings(ctx: Context, ask: dict[str, Any]) -> Any:
    """Which notices of account activity you get: money in, withdrawals, a changed PIN, a new bank account.

    They go to an address and a number that you have verified.
    """
    return await ctx.services.notices.settings(ctx.user_id)


@route("PUT", "/api/user/notices", takes=SetNotices, gives=NoticeSettings, wraps="notices")
async def set_notice_settings(ctx: Context, ask: dict[str, Any]) -> Any:
    """Choose which notices of account activity you get. By e-mail is usual, by SMS is not."""
    return await ctx.services.notices.change(ctx.user_id, email=ask["email"], sms=ask["sms"])


@job("notices", every_seconds=1, anywhere=True)
async def send_notices(services: Services) -> None:
    """Send notices of account activity by e-mail and SMS, and try again what was not taken."""
    await services.notices.run_due()
