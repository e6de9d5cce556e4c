"""What Prometheus can ask (``GET /metrics``)."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from handlers.registry import Catalogue
from models.calls.call import Call, Fact
from models.calls.engine import Announcer
from models.calls.switchboard import Forward
from models.db import Database
from models.ledger.journal import EXCHANGE_POOL, EXCHANGE_SPREAD, Entry, Kind, Wallet
from models.notices.notice import Outcome as NoticeOutcome
from models.notify.ports import Outcome
from server.bus.bus import Bus

# When a series began: as many series again as there are, which nothing of ours asks for.
disable_created_metrics()
REGISTRY = CollectorRegistry()
# Memory, processor time and open files of this process, where the platform tells them, and which Python it is.
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

# What comes to no door: an event or a route that does not exist, a frame that is no event.
NO_DOOR = "none"

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
CONNECTS = Counter(
    "ringmeter_connects",
    "Socket.IO connections that were asked for, by outcome.",
    ["outcome"],
    registry=REGISTRY,
)
SOCKETS = Gauge("ringmeter_sockets", "Connected devices.", registry=REGISTRY)
LIVE_CALLS = Gauge(
    "ringmeter_live_calls", "Calls that have not ended, as this process knows them.", registry=REGISTRY
)
CALLS_ENDED = Counter("ringmeter_calls_ended", "Calls that ended, by reason.", ["reason"], registry=REGISTRY)
# By "name", since "job" is a label that Prometheus gives to what it asks.
JOB_RUNS = Counter("ringmeter_job_runs", "Turns of timed jobs.", ["name", "outcome"], registry=REGISTRY)
JOB_SECONDS = Histogram(
    "ringmeter_job_seconds",
    "How long the turns of timed jobs take.",
    ["name"],
    registry=REGISTRY,
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30),
)
JOB_LAST_SUCCESS = Gauge(
    "ringmeter_job_last_success_timestamp_seconds",
    "When a timed job last came to its end in this process; 0 when it has not.",
    ["name"],
    registry=REGISTRY,
)
JOB_EVERY = Gauge("ringmeter_job_every_seconds", "How often a timed job is due.", ["name"], registry=REGISTRY)
BACKLOG = Gauge(
    "ringmeter_backlog",
    "To-dos in the database that are due and not done, as the process sees them whose turn it is.",
    ["queue"],
    registry=REGISTRY,
)
BACKLOG_AGE = Gauge(
    "ringmeter_backlog_oldest_seconds",
    "For how long the first of them has been due.",
    ["queue"],
    registry=REGISTRY,
)
DATABASE_IN_FLIGHT = Gauge(
    "ringmeter_database_in_flight", "Exchanges with the database that run just now.", registry=REGISTRY
)
DATABASE_IN_FLIGHT_MAX = Gauge("ringmeter_database_in_flight_max", "How many of them may.", registry=REGISTRY)
DATABASE_WAITING = Gauge(
    "ringmeter_database_waiting", "Exchanges that wait for their place before the pool.", registry=REGISTRY
)
DATABASE_UP = Gauge("ringmeter_database_up", "1 while the database answers.", registry=REGISTRY)
TRANSACTIONS = Counter(
    "ringmeter_transactions", "Transactions of the database that were begun.", registry=REGISTRY
)
TRANSACTION_RETRIES = Counter(
    "ringmeter_transaction_retries", "How often a transaction had to be run again.", registry=REGISTRY
)
LEDGER_ENTRIES = Counter(
    "ringmeter_ledger_entries", "Entries posted by this process, by kind.", ["kind"], registry=REGISTRY
)
LEDGER_REFUSALS = Counter(
    "ringmeter_ledger_refusals", "Postings that were refused, by code.", ["code"], registry=REGISTRY
)
EXCHANGED = Counter(
    "ringmeter_exchanged_minor",
    "Minor units of a currency that conversions of this process took in, gave out, and earned as spread.",
    ["currency", "way"],
    registry=REGISTRY,
)
RATE_TABLES = Counter(
    "ringmeter_rate_tables", "Tables of rates that were asked for over HTTP.", ["outcome"], registry=REGISTRY
)
GATEWAY_REQUESTS = Counter(
    "ringmeter_gateway_requests",
    "What payment gateways were asked, by verb and by what came of it: ok, no (it refused), away (no answer), fault.",
    ["gateway", "verb", "outcome"],
    registry=REGISTRY,
)
GATEWAY_SECONDS = Histogram(
    "ringmeter_gateway_seconds",
    "How long payment gateways take to answer.",
    ["gateway"],
    registry=REGISTRY,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
RENEWALS = Counter("ringmeter_renewals", "Holds for calls that go on, after their first.", registry=REGISTRY)
PUSHES = Counter(
    "ringmeter_pushes",
    "Pushes handed to a provider, by its answer.",
    ["provider", "outcome"],
    registry=REGISTRY,
)
PUSH_RECEIPTS = Counter(
    "ringmeter_push_receipts",
    "What became of pushes that were taken, by what the provider says later.",
    ["provider", "outcome"],
    registry=REGISTRY,
)

NOTICES = Counter(
    "ringmeter_notices",
    "Notices of account activity that were tried, by the carrier's answer.",
    ["way", "outcome"],
    registry=REGISTRY,
)

BUS_UP = Gauge(
    "ringmeter_bus_connected", "1 while other processes are reached through Redis.", registry=REGISTRY
)
BUS_PUBLISHED = Counter(
    "ringmeter_bus_published", "Messages to other processes, by what they are.", ["kind"], registry=REGISTRY
)
BUS_RECEIVED = Counter(
    "ringmeter_bus_received", "Messages from other processes, by what they are.", ["kind"], registry=REGISTRY
)
BUS_DROPPED = Counter(
    "ringmeter_bus_dropped", "Messages not sent, since Redis did not take them.", registry=REGISTRY
)

LIMITS_SHARED = Gauge(
    "ringmeter_limits_shared",
    "1 while limits of addresses, accounts and pairs are counted in Redis; 0 while each process counts for itself.",
    registry=REGISTRY,
)

GATE_REFUSALS = Counter(
    "ringmeter_gate_refusals",
    "Requests of blocked addresses, which came to no door. Handshakes are among ringmeter_connects.",
    ["code"],
    registry=REGISTRY,
)

MONEY = Counter(
    "ringmeter_gateway_facts",
    "What happened with payment gateways, by gateway and what; `review` and `left` need a person.",
    ["gateway", "what"],
    registry=REGISTRY,
)
INFO = Gauge("ringmeter_info", "1, with the version of this server.", ["version"], registry=REGISTRY)
DRAINING = Gauge("ringmeter_draining", "1 while this process sends everybody away.", registry=REGISTRY)
UPTIME = Gauge("ringmeter_uptime_seconds", "How long this process has served.", registry=REGISTRY)
LOOP_TURN = Gauge(
    "ringmeter_loop_turn_seconds",
    "How long the event loop took to come round when the figures were asked for.",
    registry=REGISTRY,
)

# The facts that an end is told by; what is told of a call after that is no end of its own.
_ENDS = frozenset({"ended", "rejected", "timed_out"})


def declare_doors(catalogue: Catalogue) -> None:
    """Every door from the first page on: what begins at its first use has no rate for a while."""
    for name in catalogue.events:
        REQUESTS.labels(name, "ok")
    for route in catalogue.routes:
        REQUESTS.labels(f"{route.method} {route.path}", "ok")
    for code in ("INSUFFICIENT_FUNDS", "WALLET_FROZEN", "SERVER_BUSY"):
        LEDGER_REFUSALS.labels(code)
    for kind in Kind:
        LEDGER_ENTRIES.labels(kind.value)
    CONNECTS.labels("ok")
    GATE_REFUSALS.labels("ADDRESS_BLOCKED")


class RelayCount:
    """Relayed events that were answered with ok at once, counted without a lock and carried over at each scrape."""

    def __init__(self) -> None:
        self.relayed: dict[str, int] = {}

    def carry(self) -> None:
        """Add what has come since the last time."""
        for door, count in self.relayed.items():
            REQUESTS.labels(door, "ok").inc(count)
        self.relayed.clear()


class BusCount:
    """What a bus counts, carried over to the counters of this process at each scrape."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._published: Counts[str] = Counts()
        self._received: Counts[str] = Counts()
        self._dropped = 0

    def carry(self) -> None:
        """Add what has come since the last time."""
        bus = self._bus
        BUS_UP.set(1 if bus.reaches else 0)
        for kind, count in (bus.published - self._published).items():
            BUS_PUBLISHED.labels(kind).inc(count)
        for kind, count in (bus.received - self._received).items():
            BUS_RECEIVED.labels(kind).inc(count)
        BUS_DROPPED.inc(bus.dropped - self._dropped)
        self._published, self._received = bus.published.copy(), bus.received.copy()
        self._dropped = bus.dropped


class TransactionCount:
    """What a database connection counts, carried over to the counters of this process at each scrape."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._begun = 0
        self._retries = 0

    def carry(self) -> None:
        """Add what has come since the last time."""
        begun, retries = self._db.transactions, self._db.transaction_retries
        TRANSACTIONS.inc(begun - self._begun)
        TRANSACTION_RETRIES.inc(retries - self._retries)
        self._begun, self._retries = begun, retries


def count_ledger_refusal(code: str) -> None:
    """Told by the ledger."""
    LEDGER_REFUSALS.labels(code).inc()


async def count_entries(wallets: Sequence[Wallet], entries: Sequence[Entry]) -> None:
    """A listener of the ledger."""
    for entry in entries:
        LEDGER_ENTRIES.labels(entry.kind.value).inc()
        if entry.kind is Kind.HOLD and not entry.id.endswith(":h:0"):
            RENEWALS.inc()
        if entry.kind is Kind.EXCHANGE:
            _count_exchange(entry)


def _count_exchange(entry: Entry) -> None:
    for leg in entry.legs:
        if leg.account == EXCHANGE_SPREAD:
            EXCHANGED.labels(leg.currency, "spread").inc(leg.amount_minor)
        elif leg.account == EXCHANGE_POOL:
            way = "taken" if leg.amount_minor > 0 else "given"
            EXCHANGED.labels(leg.currency, way).inc(abs(leg.amount_minor))


def count_rates(outcome: str) -> None:
    """A listener of the rates: a table was asked for."""
    RATE_TABLES.labels(outcome).inc()


def count_push(kind: str, outcome: Outcome) -> None:
    """A listener of the pushes: one was answered, of this kind of token."""
    PUSHES.labels(kind.lower(), outcome.sent.value).inc()


def count_receipt(kind: str, outcome: Outcome) -> None:
    """A listener of the receipts: one was read. Failures go by the provider's word, of which there are few."""
    PUSH_RECEIPTS.labels(kind.lower(), outcome.reason or outcome.sent.value).inc()


def count_notice(way: str, outcome: NoticeOutcome) -> None:
    """A listener of the notices: one was tried by this way."""
    NOTICES.labels(way, outcome.sent.value).inc()


def count_money(gateway: str, what: str) -> None:
    """A listener of payments and payouts: something happened with this gateway."""
    MONEY.labels(gateway, what).inc()


class CountedEnds:
    """An announcer that counts the calls whose end it tells, by reason: cut-offs are ``insufficient_funds``."""

    def __init__(self, inner: Announcer) -> None:
        self._inner = inner

    async def announce(self, call: Call, facts: Sequence[Fact], *, again: bool) -> None:
        """Count once, and pass on."""
        if call.end_reason is not None and not again and any(fact.kind in _ENDS for fact in facts):
            CALLS_ENDED.labels(call.end_reason.value).inc()
        await self._inner.announce(call, facts, again=again)

    async def cut(self, call: Call) -> None:
        """Pass on; what could not be written is counted when it is."""
        await self._inner.cut(call)

    async def forward(self, call: Call, forwards: Sequence[Forward]) -> None:
        """Pass on."""
        await self._inner.forward(call, forwards)
