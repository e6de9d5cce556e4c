"""The timed jobs of calls: what any process does for all of them."""

from __future__ import annotations

from handlers.registry import job
from handlers.services import Services

# A process that has not beaten for this long is dead; its sockets' legs are lost.
BEAT_SECONDS = 2.0
DEAD_AFTER_SECONDS = 8.0


@job("deadlines", every_seconds=1.0, anywhere=True)
async def deadlines(services: Services) -> None:
    """Rings that time out, connections that do not come back, calls that are over: what no local alarm has done."""
    await services.calls.run_due()


@job("leases", every_seconds=BEAT_SECONDS)
async def leases(services: Services) -> None:
    """Beat, learn who lives, and find the legs here whose socket went without a word."""
    await services.calls.run_leases(DEAD_AFTER_SECONDS)


@job("orphaned", every_seconds=BEAT_SECONDS, anywhere=True)
async def orphaned(services: Services) -> None:
    """Find the legs whose socket went with its process."""
    await services.calls.run_orphaned(DEAD_AFTER_SECONDS)


@job("untold", every_seconds=2.0, anywhere=True)
async def untold(services: Services) -> None:
    """Tell what a process has written and not lived to tell."""
    await services.calls.run_untold()


@job("told", every_seconds=0.25, agenda=lambda services: services.calls.unwritten)
async def told(services: Services) -> None:
    """Write down what has been told."""
    await services.calls.flush_told()
