"""Backlogs: what is due and not done, read by the one process whose turn it is; and jobs whose turns are counted."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from models.backlog.store import Overdue, overdue
from models.db import Database
from models.payments.gateway import GatewayAway, GatewayNo
from server.backlogs import Backlogs
from server.counted_gateways import VERBS, count_gateway
from server.health import together
from server.jobs import counted
from server.metrics import REGISTRY
from tests.fakes import VirtualClock


def shown(name: str, /, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"ringmeter_{name}", labels)


class Queue:
    """To-dos of a test."""

    def __init__(self, number: int = 0, since: datetime | None = None) -> None:
        self.found = Overdue(number, since)
        self.fault: Exception | None = None

    async def overdue(self, now: datetime) -> Overdue:
        if self.fault is not None:
            raise self.fault
        return self.found


async def test_what_is_due_is_counted_from_the_first_that_is(db: Database, clock: VirtualClock) -> None:
    rows = db["push_invites"]
    assert await overdue(rows, clock.now()) == Overdue(0, None)
    for number, seconds in enumerate((-90, -30, 30)):
        await rows.insert_one({"_id": str(number), "due_at": clock.now() + timedelta(seconds=seconds)})
    await rows.insert_one({"_id": "done"})
    assert await overdue(rows, clock.now()) == Overdue(2, clock.now() - timedelta(seconds=90))
    assert (await overdue(rows, clock.now(), where={"_id": {"$ne": "0"}})).number == 1


async def test_a_queue_is_shown_with_its_age(clock: VirtualClock) -> None:
    backlogs, queue = Backlogs(clock), Queue(3, clock.now() - timedelta(seconds=42))
    backlogs.add("webhooks_here", queue.overdue)
    await backlogs.read(True)
    assert shown("backlog", queue="webhooks_here") == 3
    assert shown("backlog_oldest_seconds", queue="webhooks_here") == 42
    queue.found = Overdue(0, None)
    await backlogs.read(True)
    assert shown("backlog", queue="webhooks_here") == 0
    assert shown("backlog_oldest_seconds", queue="webhooks_here") == 0


async def test_who_has_not_the_turn_shows_nothing_so_that_nothing_old_stays(clock: VirtualClock) -> None:
    backlogs = Backlogs(clock)
    backlogs.add("payouts_here", Queue(3).overdue)
    await backlogs.read(False)
    assert shown("backlog", queue="payouts_here") is None
    await backlogs.read(True)
    await backlogs.read(False)
    assert shown("backlog", queue="payouts_here") is None
    assert shown("backlog_oldest_seconds", queue="payouts_here") is None


async def test_a_queue_that_cannot_be_read_hides_only_itself(clock: VirtualClock) -> None:
    backlogs, broken = Backlogs(clock), Queue(1)
    backlogs.add("broken_here", broken.overdue)
    backlogs.add("whole_here", Queue(2).overdue)
    await backlogs.read(True)
    broken.fault = RuntimeError("away")
    with pytest.raises(RuntimeError, match="away"):
        await backlogs.read(True)
    assert shown("backlog", queue="broken_here") is None
    assert shown("backlog", queue="whole_here") == 2


@pytest.mark.parametrize("name", ["", "Webhooks", "web hooks", 'a"b', "x" * 41, "twice"])
async def test_a_queue_has_a_name_of_its_own_that_prometheus_takes(name: str, clock: VirtualClock) -> None:
    backlogs = Backlogs(clock)
    backlogs.add("twice", Queue().overdue)
    with pytest.raises(ValueError, match="backlog"):
        backlogs.add(name, Queue().overdue)


async def test_a_turn_is_counted_with_its_outcome_and_its_time(clock: VirtualClock) -> None:
    async def well() -> None:
        pass

    async def badly() -> None:
        raise RuntimeError("no")

    await counted("well here", 2.0, well, clock)()
    clock.pass_(60)
    with pytest.raises(RuntimeError):
        await counted("badly here", 3.0, badly, clock)()
    assert shown("job_runs_total", name="well here", outcome="ok") == 1
    assert shown("job_runs_total", name="well here", outcome="failed") == 0
    assert shown("job_last_success_timestamp_seconds", name="well here") == clock.now().timestamp() - 60
    assert shown("job_every_seconds", name="well here") == 2
    assert shown("job_runs_total", name="badly here", outcome="failed") == 1
    assert shown("job_last_success_timestamp_seconds", name="badly here") == 0
    assert shown("job_seconds_count", name="badly here") == 1


class Bank:
    """A gateway of a test."""

    name = "bank here"

    def __init__(self) -> None:
        self.fault: Exception | None = None

    async def _answer(self, *args: object) -> object:
        if self.fault is not None:
            raise self.fault
        return args

    checkout = query = refund = refund_status = banks = account_name = _answer
    pay_out = payout_status = authorize_payout = resend_password = _answer


async def test_a_gateway_is_counted_by_verb_and_outcome_and_says_what_it_says() -> None:
    bank = gateway = Bank()
    count_gateway(gateway)  # type: ignore[arg-type]
    for verb in VERBS:
        assert await getattr(gateway, verb)(1, 2) == (1, 2)
    for fault, outcome in ((GatewayNo("x"), "no"), (GatewayAway("x"), "away"), (RuntimeError("x"), "fault")):
        bank.fault = fault
        with pytest.raises(type(fault)):
            await gateway.pay_out(1)
        assert shown("gateway_requests_total", gateway="bank here", verb="pay_out", outcome=outcome) == 1
    assert shown("gateway_requests_total", gateway="bank here", verb="pay_out", outcome="ok") == 1
    assert shown("gateway_seconds_count", gateway="bank here") == len(VERBS) + 3


def test_the_pages_of_several_processes_become_one_that_names_each_metric_once() -> None:
    first = '# HELP a About a.\n# TYPE a gauge\na 1.0\n# HELP b About b.\n# TYPE b counter\nb_total{x="y z"} 2.0\n'
    second = (
        '# HELP b About b.\n# TYPE b counter\nb_total{x="}"} 3.0\n# HELP a About a.\n# TYPE a gauge\na 4.0\n'
    )
    assert together({1: first, 7: second}) == (
        '# HELP a About a.\n# TYPE a gauge\na{process="1"} 1.0\na{process="7"} 4.0\n'
        "# HELP b About b.\n# TYPE b counter\n"
        'b_total{x="y z",process="1"} 2.0\nb_total{x="}",process="7"} 3.0\n'
    )
