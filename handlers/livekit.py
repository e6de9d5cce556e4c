"""LiveKit: what it tells, and the jobs that ask it. Its token is part of the answer to joining (``rooms.py``)."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from handlers.context import Context
from handlers.registry import job, route
from handlers.services import Services
from handlers.shapes import Shape
from models.errors import Refusal


class Heard(Shape):
    """A notification was taken."""

    received = fields.Boolean(required=True)


@route(
    "POST",
    "/api/livekit/webhook",
    gives=Heard,
    public=True,
    limit="none",
    body="raw",
    refuses=["WEBHOOK_INVALID", "ROUTE_UNKNOWN", "SERVER_BUSY"],
)
async def livekit_webhook(ctx: Context, ask: dict[str, Any]) -> dict[str, Any]:
    """For LiveKit alone: its notifications, as ``application/webhook+json`` with its signature in ``Authorization``.

    Answered once what follows from it is stored; LiveKit repeats what was answered with 5xx. Where no LiveKit is
    configured there is no such route.
    """
    if ctx.services.livekit is None:
        raise Refusal("ROUTE_UNKNOWN")
    await ctx.services.livekit.heard(body=ctx.raw, authorization=ctx.headers.get("authorization", ""))
    return {"received": True}


@job("livekit_removals", every_seconds=2.0, anywhere=True)
async def livekit_removals(services: Services) -> None:
    """Cut off at LiveKit whoever is no longer in our room."""
    if services.livekit is not None:
        await services.livekit.run_removals()


@job("livekit_attendance", every_seconds=5.0, anywhere=True)
async def livekit_attendance(services: Services) -> None:
    """Find who has left LiveKit without our having been told."""
    if services.livekit is not None:
        await services.livekit.run_attendance()
