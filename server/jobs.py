"""The turns of timed jobs, counted: how often, how long, with what outcome, and when the last one went well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from handlers.registry import Job
from handlers.services import Services
from models.ports import Clock
from server.clock import SystemClock
from server.metrics import JOB_EVERY, JOB_LAST_SUCCESS, JOB_RUNS, JOB_SECONDS
from server.tracing import Traces
from server.turns import Turns

Turn = Callable[[], Awaitable[Any]]


def turn_of(job: Job, services: Services, turns: Turns, traces: Traces | None = None) -> Turn:
    """A turn of ``job``: its work when it is this process's, and counted then."""
    work = counted(job.name, job.every_seconds, lambda: job.handler(services), services.clock, traces)

    async def turn() -> None:
        if turns.mine(job):
            await work()

    return turn


def counted(name: str, every_seconds: float, work: Turn, clock: Clock, traces: Traces | None = None) -> Turn:
    """``work`` with its outcome in the metrics. A fault goes on to the caller, who logs it."""
    if traces is not None:
        work = _traced(name, work, traces)
    JOB_EVERY.labels(name).set(every_seconds)
    ok, failed = JOB_RUNS.labels(name, "ok"), JOB_RUNS.labels(name, "failed")
    seconds, last = JOB_SECONDS.labels(name), JOB_LAST_SUCCESS.labels(name)

    async def turn() -> None:
        began = SystemClock.monotonic()
        try:
            await work()
        except Exception:
            failed.inc()
            raise
        finally:
            seconds.observe(SystemClock.monotonic() - began)
        ok.inc()
        last.set(clock.now().timestamp())

    return turn


def _traced(name: str, work: Turn, traces: Traces) -> Turn:
    async def turn() -> None:
        with traces.span(f"job {name}", door="job") as span:
            try:
                await work()
            except Exception:
                span.outcome("failed")
                raise
            span.outcome("ok")

    return turn
