"""Pushes: the job that sends them."""

from __future__ import annotations

from handlers.registry import job
from handlers.services import Services


@job("pushes", every_seconds=0.5)
async def send_pushes(services: Services) -> None:
    """Send rings, missed calls and cancels that are due to the push providers, and try again what failed."""
    await services.pushes.run_due()
