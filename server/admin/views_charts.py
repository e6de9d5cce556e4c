"""Charts: what the platform has earned, and how much was talked, by day."""

from __future__ import annotations

from aiohttp import web

from models.figures.service import SPANS
from models.money import exponent, spoken
from server.admin.charts import chart, short
from server.admin.nav import Entry
from server.admin.visit import Page, Visit


async def charts(visit: Visit) -> web.StreamResponse:
    """The last 7, 30 or 90 days."""
    asked = visit.query("days", 3)
    span = int(asked) if asked in {str(one) for one in SPANS} else 30
    days = await visit.services.desk.figures.days(span)
    currencies = sorted({one.currency for day in days for one in day.revenue}) or [visit.config.currency]

    def amount(currency: str) -> list[tuple[str, int]]:
        return [(day.day, day.revenue_in(currency).total_minor) for day in days]

    money = [
        (
            currency,
            chart(
                f"Earned, {currency}",
                amount(currency),
                said=lambda minor, currency=currency: spoken(minor, currency),  # type: ignore[misc]
                axis=lambda minor, currency=currency: short(minor / 10 ** exponent(currency)),  # type: ignore[misc]
                least=4 * 10 ** exponent(currency),
            ),
            [day.revenue_in(currency) for day in days],
        )
        for currency in currencies
    ]
    calls, talked = sum(day.calls for day in days), sum(day.talked for day in days)
    share = f"{round(100 * talked / calls)} %" if calls else "none"
    usage = [
        chart("Calls", [(day.day, day.calls) for day in days], said=_whole, axis=short),
        chart("Minutes talked", [(day.day, day.seconds // 60) for day in days], said=_whole, axis=short),
        chart(
            "Calls with an answer, of 100",
            [(day.day, round(100 * day.talked / day.calls) if day.calls else 0) for day in days],
            said=_whole,
            total=share,
            most=100,
        ),
        chart("New people", [(day.day, day.new_users) for day in days], said=_whole, axis=short),
        chart(
            "People who paid",
            [(day.day, day.payers) for day in days],
            said=_whole,
            total=f"{_whole(max(day.payers for day in days))} at most",
        ),
    ]
    return await visit.render("charts.html", span=span, spans=SPANS, days=days, money=money, usage=usage)


def _whole(number: int) -> str:
    return f"{number:,}"


ENTRY = Entry("Charts", "/charts", "chart")
PAGES = [Page(method="GET", path="/charts", handler=charts)]
