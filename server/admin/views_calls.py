"""Calls: those that go on, with their money running; one call's page; ending one."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from models.calls.call import Call
from models.errors import Refusal
from server.admin.nav import Entry
from server.admin.visit import Page, Visit

# More than anybody looks through; the newest are shown.
LIVE_SHOWN = 100


async def _live(visit: Visit) -> dict[str, Any]:
    desk = visit.services.desk.calls
    return {"live": await desk.live(LIVE_SHOWN), "number": await desk.live_number()}


async def calls(visit: Visit) -> web.StreamResponse:
    """Those that go on."""
    return await visit.render("calls.html", **await _live(visit))


async def calls_live(visit: Visit) -> web.StreamResponse:
    """The same, for the page to show in the place of what it shows."""
    return await visit.render("calls_live.html", **await _live(visit))


async def find(visit: Visit) -> web.StreamResponse:
    """A call by its id, as it stands in a complaint or a log."""
    call = await visit.services.desk.calls.one(visit.query("id", 64))
    return visit.to(f"/calls/{call.id}")


async def call(visit: Visit, failed: dict[str, Any] | None = None, status: int = 200) -> web.StreamResponse:
    """One call, whoever is in it."""
    one = await visit.services.desk.calls.live_one(visit.part("id"))
    back = await _refundable(visit, one.call)
    return await visit.render("call.html", status=status, one=one, call=one.call, failed=failed, back=back)


async def call_now(visit: Visit) -> web.StreamResponse:
    """How it stands, for its page."""
    one = await visit.services.desk.calls.live_one(visit.part("id"))
    return await visit.render(
        "call_now.html", one=one, call=one.call, back=await _refundable(visit, one.call)
    )


async def end(visit: Visit) -> web.StreamResponse:
    """End it; both sides are told."""
    call_id = visit.part("id")
    try:
        after = await visit.services.desk.calls.end(call_id, by=visit.actor, reason=visit.sent("reason"))
    except Refusal as no:
        if no.code == "CALL_UNKNOWN":
            raise
        return await call(visit, failed=visit.failed("end", no), status=no.status)
    return visit.to(f"/calls/{after.id}", f"The call of {_names(after)} has ended.")


async def _refundable(visit: Visit, one: Call) -> int:
    """What of an ended call's cost can still be given back, in minor units."""
    if one.live or one.charge is None:
        return 0
    return one.cost_minor  # less what has gone back already


def _names(one: Call) -> str:
    return f"{one.caller.display_name} and {one.callee.display_name}"


async def count(visit: Visit) -> int:
    """How many go on, for the menu."""
    return await visit.services.desk.calls.live_number()


ENTRY = Entry("Calls", "/calls", "calls", count)
PAGES = [
    Page(method="GET", path="/calls", handler=calls),
    Page(method="GET", path="/calls/live", handler=calls_live, quiet=True),
    Page(method="GET", path="/calls/find", handler=find),
    Page(method="GET", path="/calls/{id}", handler=call),
    Page(method="GET", path="/calls/{id}/now", handler=call_now, quiet=True),
    Page(method="POST", path="/calls/{id}/end", handler=end),
]
