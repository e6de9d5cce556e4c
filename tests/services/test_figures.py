"""Figures of days: what was earned and talked, by the ledger and the calls, from indexes."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from typing import Any

import pytest

from models.calls.store import CALLS
from models.db import Database
from models.figures.figures import Revenue
from models.figures.service import OPEN_DAYS
from models.figures.store import FIGURES, FigureStore, revenue_of, usage_of
from models.ledger.store import JOURNAL
from models.payouts.payout import Stage
from models.payouts.rules import Order
from server.admin.charts import BOTTOM, HEIGHT, TOP, chart
from tests.fakes import CountingIds, VirtualClock
from tests.services.deskkit import WHY, Office


@pytest.fixture
def office(db: Database, clock: VirtualClock, ids: CountingIds) -> Office:
    return Office(db, clock, ids)


async def test_a_day_says_what_was_earned_and_how_much_was_talked(office: Office) -> None:
    await office.people("ann", "bob", "cid")
    first = await office.call("ann", "bob", 60)
    await office.call("cid", "bob", 30)
    phone, other = office.town.phone(office.here, "ann"), office.town.phone(office.here, "bob")
    await phone.end(await phone.request(other))  # nobody has talked
    [today] = await office.desk.figures.days(1)
    charges = [call.charge for call in [await office.town.call(first)]]
    assert charges[0] is not None
    assert (today.calls, today.talked, today.callers, today.payers) == (3, 2, 2, 2)
    assert (today.seconds, today.new_users) == (90, 3)
    [earned] = today.revenue
    assert (earned.currency, earned.fees_minor, earned.spread_minor) == ("NGN", 0, 0)
    sums = [row async for row in office.db[JOURNAL].find({"kind": "settle"})]
    legs = [leg for row in sums for leg in row["legs"] if leg["account"] == "platform:commission"]
    assert earned.commission_minor == sum(leg["amount"] for leg in legs) > 0


async def test_a_refund_is_less_on_the_day_on_which_it_was_made(office: Office) -> None:
    await office.people("ann", "bob")
    call = await office.call("ann", "bob")
    office.clock.pass_(86_400)
    await office.desk.money.refund_call(call.id, **WHY)
    before, after = await office.desk.figures.days(2)
    assert before.revenue_in("NGN").total_minor > 0
    assert after.revenue_in("NGN").total_minor == -before.revenue_in("NGN").total_minor
    assert after.revenue_in("KES") == Revenue(currency="KES")


async def test_fees_of_withdrawals_are_counted_when_they_are_paid(office: Office) -> None:
    await office.people("ann")
    payout = await office.payout("ann", stage=Stage.WAITING)
    assert (await office.desk.figures.days(1))[0].revenue == ()
    await office.services.payouts.desk.order(payout.id, Order.SUBMIT)
    for _ in range(40):
        office.clock.pass_(30)
        await office.services.payouts.work.run_due()
    paid = (await office.desk.payouts.find(payout.id)).stage
    fees = sum(day.revenue_in("NGN").fees_minor for day in await office.desk.figures.days(7))
    assert (paid, fees) in ((Stage.PAID, 50), (Stage.FAILED, 0))


async def test_days_that_are_over_are_counted_once_and_then_kept(office: Office) -> None:
    await office.people("ann", "bob")
    await office.call("ann", "bob")
    first = (await office.desk.figures.days(7))[-1]
    assert await office.db[FIGURES].count_documents({}) == 7 - 1 - OPEN_DAYS
    office.clock.pass_(86_400 * 5)
    days = await office.desk.figures.days(7)
    assert [day.day for day in days] == sorted(day.day for day in days)
    assert len(days) == 7
    assert days[1] == first
    await office.db[JOURNAL].delete_many({})
    assert (await office.desk.figures.days(7))[1] == first, "it is kept"
    assert (await FigureStore(office.db).made(date.fromisoformat(first.day))).revenue == ()


async def plan_of(db: Database, name: str, pipeline: list[dict[str, Any]]) -> str:
    command = {"aggregate": name, "pipeline": pipeline, "cursor": {}}
    return str(await db.db.command("explain", command, verbosity="queryPlanner"))


async def test_a_day_is_read_from_indexes_and_not_from_all_there_is(office: Office) -> None:
    await office.people("ann", "bob")
    await office.call("ann", "bob")
    today = office.clock.now().astimezone(UTC).date()
    for name, pipeline, wanted in (
        (JOURNAL, revenue_of(today), "'at_1'"),
        (CALLS, usage_of(today), "'ended_at_1'"),
    ):
        plan = await plan_of(office.db, name, pipeline)
        assert "COLLSCAN" not in plan
        assert wanted in plan
    begins = office.clock.now() - timedelta(days=1)
    found = await office.db["users"].find({"created_at": {"$gte": begins}}).explain()
    assert "COLLSCAN" not in str(found["queryPlanner"]["winningPlan"])


async def test_what_the_last_audit_has_found_is_known(office: Office) -> None:
    figures = office.desk.figures
    assert await figures.last_audit() is None
    await figures.keep_audit(clean=False, broken=2)
    await figures.keep_audit(clean=True, broken=0)
    found = await figures.last_audit()
    assert found is not None
    assert (found.clean, found.broken, found.at) == (True, 0, office.clock.now())


@pytest.mark.parametrize(
    "values", [[0], [0] * 90, [1], [7, 0, 3], [-5, 10], [-3, -1], [10**15, 1], [999, 1_001]]
)
def test_a_chart_has_all_its_bars_inside_and_an_axis_that_holds_them(values: list[int]) -> None:
    points = [(f"2026-01-{1 + n % 28:02}", value) for n, value in enumerate(values)]
    drawn = chart("x", points, said=str)
    assert len(drawn.bars) == len(values)
    for bar, value in zip(drawn.bars, values, strict=True):
        assert TOP - 0.01 <= bar.y <= bar.y + bar.height <= HEIGHT - BOTTOM + 0.01
        assert bar.below == (value < 0)
        assert (bar.height == 0) == (value == 0) or abs(value) * 1000 < max(map(abs, values))
    heights = [line.at for line in drawn.lines]
    assert heights == sorted(heights, reverse=True)
    said = [int(line.said) for line in drawn.lines]
    assert said[0] <= min([0, *values])
    assert said[-1] >= max([0, *values])
