"""The trail: what administrators have done, searched, verified and taken away as a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from aiohttp import hdrs, web

from models.errors import Refusal
from models.trail.rules import ACTS, Act, Malformed, Target, Verdict, anchor_of, line_of
from server.admin.nav import Entry
from server.admin.visit import BASE, HEADERS, Page, Visit

SHOWN = 50
# The last day that there is has no day after it.
DAYS_END = datetime(9999, 1, 1, tzinfo=UTC)
EXPORT_CHUNK = 64 * 1024
# The groups of acts, by what they are about.
GROUPS = tuple(dict.fromkeys(act.partition(".")[0] for act in ACTS))


async def trail(
    visit: Visit, verdict: Verdict | None = None, no: Refusal | None = None
) -> web.StreamResponse:
    """Rows that match, the newest first."""
    wanted = {name: visit.query(name) for name in ("text", "actor", "act", "target", "since", "until")}
    if wanted["act"] not in ACTS and wanted["act"] not in GROUPS:
        wanted["act"] = ""
    since, until = _day(wanted["since"]), _day(wanted["until"])
    before = visit.query("before", 15)
    services = visit.services
    page = await services.trail.search(
        text=wanted["text"] or None,
        actor=wanted["actor"] or None,
        act=wanted["act"] or None,
        target=wanted["target"] or None,
        since=since,
        until=until + timedelta(days=1) if until else None,
        before=int(before) if before.isdecimal() else None,
        limit=SHOWN,
    )
    query = {name: value for name, value in wanted.items() if value}
    older = f"{BASE}/trail?{urlencode({**query, 'before': page.before})}" if page.before else ""
    return await visit.render(
        "trail.html",
        status=no.status if no else 200,
        rows=page.rows,
        wanted=wanted,
        narrowed=bool(query),
        acts=ACTS,
        groups=GROUPS,
        older=older,
        head=await services.trail.head(),
        verdict=verdict,
        anchor=visit.sent("anchor", 100),
        problem=no,
    )


async def verify(visit: Visit) -> web.StreamResponse:
    """Walk all rows; with what a log outside has kept, also whether the end was cut off."""
    text = visit.sent("anchor", 100)
    try:
        anchor = anchor_of(text) if text else None
    except ValueError:
        return await trail(visit, no=Refusal("VALIDATION_FAILED", anchor=["A number and a hash: 17:9f86…"]))
    return await trail(visit, verdict=await visit.services.trail.verify(anchor))


async def export(visit: Visit) -> web.StreamResponse:
    """All rows as JSON lines, the oldest first, for whoever keeps or verifies them elsewhere."""
    await visit.admin.door.note(
        Act(
            actor=visit.actor,
            act="trail.export",
            target=Target("trail", "trail"),
            reason="downloaded from the administrators' pages",
        )
    )
    answer = web.StreamResponse(headers=HEADERS)
    answer.content_type = "application/x-ndjson"
    name = f"trail-{visit.now:%Y%m%dT%H%M%SZ}.jsonl"
    answer.headers[hdrs.CONTENT_DISPOSITION] = f'attachment; filename="{name}"'
    await answer.prepare(visit.request)
    lines: list[str] = []
    size = 0
    async for row in visit.services.trail.lines():
        if isinstance(row, Malformed):
            break  # what is behind it proves nothing; ``verify`` says where it is
        lines.append(line_of(row) + "\n")
        size += len(lines[-1])
        if size >= EXPORT_CHUNK:
            await answer.write("".join(lines).encode())
            lines, size = [], 0
    await answer.write("".join(lines).encode())
    await answer.write_eof()
    return answer


def _day(text: str) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return day if day < DAYS_END else None


ENTRY = Entry("Trail", "/trail", "trail")
PAGES = [
    Page(method="GET", path="/trail", handler=trail),
    Page(method="POST", path="/trail/verify", handler=verify),
    Page(method="POST", path="/trail/export", handler=export),
]
