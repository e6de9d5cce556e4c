"""What Prometheus can ask (``GET /metrics``)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

REQUESTS = Counter(
    "ringmeter_requests",
    "Events and REST requests by door and outcome.",
    ["door", "outcome"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "ringmeter_request_seconds",
    "Time from arrival to answer.",
    ["door"],
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
SOCKETS = Gauge("ringmeter_sockets", "Connected devices.", registry=REGISTRY)
LIVE_CALLS = Gauge(
    "ringmeter_live_calls", "Calls that have not ended, as this process knows them.", registry=REGISTRY
)
CALLS_ENDED = Counter("ringmeter_calls_ended", "Calls that ended, by reason.", ["reason"], registry=REGISTRY)
JOB_RUNS = Counter("ringmeter_job_runs", "Turns of timed jobs.", ["job", "outcome"], registry=REGISTRY)
DATABASE_UP = Gauge("ringmeter_database_up", "1 while the database answers.", registry=REGISTRY)
