"""The timed jobs of rooms: what any process does for all of them."""

from __future__ import annotations

from handlers.calls_jobs import BEAT_SECONDS, DEAD_AFTER_SECONDS
from handlers.registry import job
from handlers.services import Services


@job("rooms_elsewhere", every_seconds=0.5)
async def rooms_elsewhere(services: Services) -> None:
    """Take over who is in which room, at the start and while other processes change it."""
    await services.rooms.refresh()


@job("room_deadlines", every_seconds=1.0, anywhere=True)
async def room_deadlines(services: Services) -> None:
    """Lost connections that do not come back, places that nobody came to, empty rooms."""
    await services.rooms.run_due()


@job("room_leases", every_seconds=BEAT_SECONDS)
async def room_leases(services: Services) -> None:
    """Find the devices in rooms whose socket here went without a word."""
    await services.rooms.run_leases()


@job("rooms_orphaned", every_seconds=BEAT_SECONDS, anywhere=True)
async def rooms_orphaned(services: Services) -> None:
    """Find the devices in rooms whose socket went with its process."""
    await services.rooms.run_orphaned(DEAD_AFTER_SECONDS, living=services.calls.living)


@job("rooms_untold", every_seconds=2.0, anywhere=True)
async def rooms_untold(services: Services) -> None:
    """Tell what a process has written of a room and not lived to tell."""
    await services.rooms.run_untold()


@job("room_messages_untold", every_seconds=5.0, anywhere=True)
async def room_messages_untold(services: Services) -> None:
    """Tell messages whose sender's process ended between keeping and telling them."""
    await services.talk.tell_untold()
