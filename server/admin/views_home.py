"""The first page: what goes on, and what waits for somebody."""

from __future__ import annotations

from aiohttp import web

from server.admin.nav import Entry
from server.admin.views_payouts import count as withdrawals
from server.admin.views_reports import count as open_reports
from server.admin.visit import Page, Visit

ACTS_SHOWN = 8
CALLS_SHOWN = 5


async def home(visit: Visit) -> web.StreamResponse:
    """The overview."""
    desk = visit.services.desk
    done = await visit.services.trail.search(limit=ACTS_SHOWN)
    newest = await desk.people.search("", limit=5)
    return await visit.render(
        "home.html",
        number=await desk.calls.live_number(),
        live=await desk.calls.live(CALLS_SHOWN),
        reports=await open_reports(visit),
        newest=newest.items,
        done=done.rows,
        withdrawals=await withdrawals(visit),
    )


ENTRY = Entry("Overview", "/", "home")
PAGES = [Page(method="GET", path="/", handler=home)]
