"""Pushes: the jobs that send them and ask what became of them."""

from __future__ import annotations

from handlers.registry import job
from handlers.services import Services


@job("pushes", every_seconds=0.5, anywhere=True)
async def send_pushes(services: Services) -> None:
    """Send rings and what takes them back to the push providers when it is due, and try again what failed."""
    await services.pushes.rings.run_sounding()


@job("missed_pushes", every_seconds=0.5, anywhere=True)
async def send_missed_pushes(services: Services) -> None:
    """Send missed calls that are due, apart from the rings: those wait for no provider that is slow with these."""
    await services.pushes.rings.run_missed()


@job("message_pushes", every_seconds=0.5, anywhere=True)
async def send_message_pushes(services: Services) -> None:
    """Send what people were written while they were away, one notification per conversation."""
    await services.pushes.messages.run_due()


@job("invite_pushes", every_seconds=1, anywhere=True)
async def send_invite_pushes(services: Services) -> None:
    """Send invitations to rooms."""
    await services.pushes.invites.run_due()


@job("push_receipts", every_seconds=60, anywhere=True)
async def read_push_receipts(services: Services) -> None:
    """Ask what became of pushes that were taken a quarter of an hour ago, and forget tokens that are dead."""
    await services.pushes.receipts.run_due()
