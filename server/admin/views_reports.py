"""Reports: what people have complained of, and what came of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from models.errors import Refusal
from models.reports.report import Resolution, State
from models.trail.rules import checked_reason
from server.admin.nav import Entry
from server.admin.visit import BASE, Page, Visit

SHOWN = 50
# Above this the menu says "that many and more" by showing this number.
COUNTED_MAX = 100


async def reports(visit: Visit) -> web.StreamResponse:
    """Those that are open, or closed; without those of oneself."""
    wanted = visit.query("state")
    state = {"closed": State.CLOSED, "all": None}.get(wanted, State.OPEN)
    page = await visit.services.reports.some(
        state, before=visit.query("before", 64) or None, limit=SHOWN, reader_id=visit.user_id
    )
    shown = state.value if state else "all"
    query = urlencode({"state": shown, "before": page.items[-1].report.id if page.more else ""})
    return await visit.render(
        "reports.html", found=page.items, state=shown, older=f"{BASE}/reports?{query}" if page.more else ""
    )


async def report(visit: Visit, failed: dict[str, Any] | None = None, status: int = 200) -> web.StreamResponse:
    """One report with what was reported."""
    filed = await visit.services.reports.one(visit.part("id"), reader_id=visit.user_id)
    closing = filed.report.closing
    closer = await visit.services.users.profile(closing.by) if closing and closing.by else None
    return await visit.render(
        "report.html",
        status=status,
        report=filed.report,
        reporter=filed.people.get(filed.report.reporter_id),
        reported=filed.people.get(filed.report.reported_id),
        closer=closer,
        failed=failed,
    )


async def resolve(visit: Visit) -> web.StreamResponse:
    """Close it, and do what was decided."""
    report_id, chosen, version = visit.part("id"), visit.sent("resolution"), visit.sent("version", 9)
    await visit.services.reports.one(report_id, reader_id=visit.user_id)  # not of oneself
    try:
        if chosen not in set(Resolution):
            raise Refusal("VALIDATION_FAILED", resolution=["Choose what is to come of it."])
        filed = await visit.services.reports.close(
            visit.user_id,
            report_id,
            version=int(version) if version.isdecimal() else 0,
            resolution=Resolution(chosen),
            note=checked_reason(visit.sent("reason")),
            actor=visit.actor,
        )
    except Refusal as no:
        if no.code == "REPORT_UNKNOWN":
            raise
        return await report(visit, failed=visit.failed("resolve", no), status=no.status)
    reported = filed.people.get(filed.report.reported_id)
    name = reported.display_name if reported else "Somebody"
    said = {
        Resolution.BANNED: f"The report is closed, and {name} is banned.",
        Resolution.WARNED: f"The report is closed: {name} is warned.",
        Resolution.DISMISSED: "The report is dismissed.",
    }
    return visit.to("/reports", said[Resolution(chosen)])


async def count(visit: Visit) -> int:
    """How many are open, for the menu."""
    page = await visit.services.reports.some(
        State.OPEN, before=None, limit=COUNTED_MAX, reader_id=visit.user_id
    )
    return len(page.items)


ENTRY = Entry("Reports", "/reports", "flag", count)
PAGES = [
    Page(method="GET", path="/reports", handler=reports),
    Page(method="GET", path="/reports/{id}", handler=report),
    Page(method="POST", path="/reports/{id}/resolve", handler=resolve),
]
