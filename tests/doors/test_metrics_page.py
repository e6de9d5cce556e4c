"""``/metrics`` of a real server, and what is made of it: every figure on the dashboard and in an alert is there."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.admin.views_health import FOR_PEOPLE
from server.app import WIRED
from server.wiring import catalogue
from tests.doors.conftest import House, open_house
from tests.doors.serverprocess import eventually
from tests.house.promql import read

ROOT = Path(__file__).parents[2]
# Given by Prometheus to what it scrapes, and by several processes at one port.
GIVEN = {"instance", "job", "process"}
DASHBOARD = json.loads((ROOT / "deploy/grafana/ringmeter.json").read_text())
ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in ALERTS),
    *(
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in PANELS
        for target in panel["targets"]
    ),
]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def page_of(house: House) -> str:
    reply = await house.send("GET", "/metrics")
    assert reply.status == 200
    return str(reply.body)


def samples(page: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name].append((sample.labels, sample.value))
    return found


def value(page: str, name: str, /, **labels: str) -> float:
    return sum(number for has, number in samples(page)[name] if labels.items() <= has.items())


def known(page: str) -> dict[str, set[str] | None]:
    """Every series that the page names: its labels, or None where a metric has had no value yet."""
    found: dict[str, set[str] | None] = {"up": set()}
    for family in text_string_to_metric_families(page):
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        for end in ends:
            found[f"{family.name}{end}"] = None
        for sample in family.samples:
            found[sample.name] = (found.get(sample.name) or set()) | set(sample.labels)
    return found


@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_asks_for_series_and_labels_that_the_server_has(rest: House, query: str) -> None:
    there = known(await page_of(rest))
    asked, grouped = read(query.replace("$instance", "x"))
    assert asked
    labels: set[str] = set(GIVEN)
    for one in asked:
        assert one.metric in there, one.metric
        own = there[one.metric]
        if own is not None:
            assert {label for label, _, _ in one.matchers} <= own | GIVEN, one
        labels |= own if own is not None else grouped
    assert grouped <= labels


async def test_every_door_job_and_kind_of_entry_is_there_before_its_first_use(rest: House) -> None:
    page = await page_of(rest)
    there = samples(page)
    doors = {labels["door"] for labels, _ in there["ringmeter_requests_total"]}
    assert {*catalogue.events, *(f"{route.method} {route.path}" for route in catalogue.routes)} <= doors
    jobs = {labels["name"] for labels, _ in there["ringmeter_job_runs_total"]}
    assert {*catalogue.jobs, "tokens", "backlogs"} <= jobs
    assert {labels["kind"] for labels, _ in there["ringmeter_ledger_entries_total"]} >= {"deposit", "hold"}
    assert value(page, "ringmeter_database_in_flight_max") == 90
    assert value(page, "ringmeter_info", version="0.1.0") == 1


async def test_a_job_that_ran_says_when_and_how_long(rest: House) -> None:
    async def ran() -> Any:
        page = await page_of(rest)
        return value(page, "ringmeter_job_runs_total", name="deadlines", outcome="ok") and page

    page = await eventually(ran)
    # In seconds since 1970, by the house's clock.
    now = rest.clock.now().timestamp()
    assert (
        abs(now - value(page, "ringmeter_job_last_success_timestamp_seconds", name="deadlines"))
        < 86_400 * 3650
    )
    assert value(page, "ringmeter_job_every_seconds", name="deadlines") == 1
    assert value(page, "ringmeter_job_seconds_count", name="deadlines") >= 1


async def test_backlogs_are_read_from_the_database(rest: House) -> None:
    await rest.app[WIRED].backlogs.read(True)
    page = await page_of(rest)
    queues = {labels["queue"] for labels, _ in samples(page)["ringmeter_backlog"]}
    assert {"pushes", "message_pushes", "invite_pushes", "push_receipts"} <= queues


async def test_a_refusal_before_the_door_is_counted_at_the_door(rest: House) -> None:
    door = "GET /api/calls/history"
    before = value(await page_of(rest), "ringmeter_requests_total", door=door, outcome="TOKEN_MISSING")
    (await rest.send("GET", "/api/calls/history")).error(401, "TOKEN_MISSING")
    after = value(await page_of(rest), "ringmeter_requests_total", door=door, outcome="TOKEN_MISSING")
    assert after == before + 1


async def test_what_strangers_make_up_makes_no_new_series(rest: House) -> None:
    async def series() -> int:
        return sum(len(rows) for rows in samples(await page_of(rest)).values())

    await rest.send("GET", "/never-was/0")
    await rest.send("POST", "/api/auth/login", {"identifier": "nobody", "password": "x" * 12})
    before = await series()
    for number in range(1, 20):
        await rest.send("GET", f"/never-was/{number}")
        await rest.send("GET", f"/metrics/{number}")
        await rest.send("POST", "/api/auth/login", {"identifier": f"nobody{number}", "password": "x" * 12})
    assert await series() == before


async def test_a_posting_that_is_refused_is_counted_by_its_code(mongo_uri: str) -> None:
    async with open_house(mongo_uri, CALL_RATE_MINOR="1000") as house:
        ann, bob = await house.person("ann"), await house.person("bob")
        before = value(await page_of(house), "ringmeter_ledger_refusals_total", code="INSUFFICIENT_FUNDS")
        answer = await ann.post("/api/calls/initiate", {"to": bob.id, "type": "audio"})
        answer.error(402, "INSUFFICIENT_FUNDS")
        page = await page_of(house)
        assert value(page, "ringmeter_ledger_refusals_total", code="INSUFFICIENT_FUNDS") == before + 1


async def test_every_figure_and_every_alert_is_in_the_guide(rest: House) -> None:
    guide = (ROOT / "docs/guides/operations.md").read_text()
    for family in text_string_to_metric_families(await page_of(rest)):
        if family.name.startswith("ringmeter_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert re.search(rf"`{name}\b", guide), name
    for rule in ALERTS:
        assert f"`{rule['alert']}`" in guide, rule["alert"]


async def test_alerts_say_who_wakes_up_and_what_to_look_at() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    for rule in ALERTS:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        _, grouped = read(rule["expr"])
        shown = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
        assert shown <= grouped | {"instance"}, rule["alert"]


async def test_what_people_work_off_has_a_day_and_what_jobs_do_five_minutes(house: House) -> None:
    await house.app[WIRED].backlogs.read(True)
    reads = {rule["alert"]: rule["expr"] for rule in ALERTS}
    queues = {labels["queue"] for labels, _ in samples(await page_of(house))["ringmeter_backlog"]}
    assert queues > FOR_PEOPLE
    for queue in queues:
        watching = {name for name, expr in reads.items() if watches(expr, queue)}
        assert watching == {"RingmeterReviewWaits" if queue in FOR_PEOPLE else "RingmeterBacklog"}, queue


def watches(expr: str, queue: str) -> bool:
    """Whether the alert is about how long the oldest of that queue has waited."""
    asked = re.search(r'ringmeter_backlog_oldest_seconds\{queue(!~|=~)"([^"]+)"\}', expr)
    return asked is not None and (re.fullmatch(asked[2], queue) is not None) is (asked[1] == "=~")


async def test_the_dashboard_is_one_that_grafana_takes() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = set()
    for panel in DASHBOARD["panels"]:
        box = panel["gridPos"]
        assert box["x"] + box["w"] <= 24
        cells = {(box["x"] + i, box["y"] + j) for i in range(box["w"]) for j in range(box["h"])}
        assert not cells & places, f"{panel['title']} covers another panel"
        places |= cells
    for panel in PANELS:
        assert panel["description"]
        for target in panel["targets"]:
            _, grouped = read(target["expr"].replace("$instance", "x"))
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= grouped | GIVEN
