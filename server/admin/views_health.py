"""Health: what this server stands on, and what is due and not done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from models.backlog.store import OVERDUE_MAX
from server.admin.nav import Entry
from server.admin.visit import Page, Visit
from server.health import VERSION

# As the servers themselves take a process for dead.
DEAD_AFTER_SECONDS = 15
# Due so long without being done says that something stands still.
LATE = timedelta(minutes=5)
# What waits for a person waits for days and is no fault of the server.
FOR_PEOPLE = {"payouts_review", "payouts_approval"}


@dataclass(frozen=True, slots=True)
class Line:
    """One queue. ``age_ms`` is since when its oldest is due; ``number`` None: it cannot be read."""

    name: str
    number: int | None
    age_ms: int
    late: bool
    people: bool
    more: bool


async def health(visit: Visit) -> web.StreamResponse:
    """All of it, as it is now."""
    return await visit.render("health.html", **await _seen(visit))


async def health_now(visit: Visit) -> web.StreamResponse:
    """The same, in the place of what the page shows."""
    return await visit.render("health_now.html", **await _seen(visit))


async def _seen(visit: Visit) -> dict[str, Any]:
    services, config, now = visit.services, visit.config, visit.now
    living = await services.desk.calls.processes(now - timedelta(seconds=DEAD_AFTER_SECONDS))
    head = await services.trail.head()
    gateways = sorted(visit.admin.wired.money.gateways)
    return {
        "version": VERSION,
        "processes": sorted(living.items()),
        "redis": ("up" if services.courier.reaches else "away") if config.redis_url else "not configured",
        "gateways": gateways,
        "audit": await services.desk.figures.last_audit(),
        "head": head,
        "live": await services.desk.calls.live_number(),
        "queues": await _queues(visit, now),
    }


async def _queues(visit: Visit, now: datetime) -> list[Line]:
    lines = []
    for name, found in (await visit.admin.wired.backlogs.look()).items():
        age = now - found.since if found is not None and found.since is not None else timedelta()
        people = name in FOR_PEOPLE
        lines.append(
            Line(
                name=name,
                number=found.number if found is not None else None,
                age_ms=round(age / timedelta(milliseconds=1)),
                late=age > LATE and not people,
                people=people,
                more=found is not None and found.number >= OVERDUE_MAX,
            )
        )
    return lines


ENTRY = Entry("Health", "/health", "health")
PAGES = [
    Page(method="GET", path="/health", handler=health),
    Page(method="GET", path="/health/now", handler=health_now, quiet=True),
]
