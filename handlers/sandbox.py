"""The sandbox: the job that tells what happens there."""

from __future__ import annotations

from handlers.registry import job
from handlers.services import Services


@job("sandbox", every_seconds=1, anywhere=True)
async def tell_of_the_sandbox(services: Services) -> None:
    """Send the sandbox's notifications that are due, as a payment gateway would; in production there is none."""
    if services.sandbox is not None:
        await services.sandbox.tell_due()
