"""The tables of paid calls, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Column, Table

from tests.bench.cells import both, median, percent, span

# What the issue of the meter asks for.
RETRIES_MAX = 0.01
PROMISED_MS = 100.0


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Everything about money."""
    yield _whole(results["money"])
    yield _commands(results["commands"])
    yield _postings(results["money"])
    yield _live(results["live"])
    yield _cut_offs(results["cut_offs"])


def verdicts(results: Mapping[str, Any]) -> Iterator[str]:
    """Whether the targets were met."""
    retries = {
        f"{title}, {name.replace('_', ' ')}": share
        for title in ("calls", "money", "live")
        for name, part in results[title].items()
        if (share := median(part, "retries_per_transaction")) is not None
    }
    worst = max(retries, key=lambda name: retries[name])
    kept = "under" if retries[worst] < RETRIES_MAX else "NOT under"
    yield f"retries per transaction: {retries[worst]:.4f} at most ({worst}), {kept} {RETRIES_MAX}."
    for name, part in results["cut_offs"].items():
        share = median(part, "kept_share")
        if share is not None:
            said = "all" if share == 1 else percent(share)
            yield f"cut-offs, {name}: {said} told within {PROMISED_MS:.0f} ms of the end of the money."


def _whole(part: Mapping[str, Any]) -> Table:
    free, paid = part["free"], part["paid"]
    table = Table(Column("whole calls in one process, no sockets", no_wrap=True))
    for title in ("free: p50 ms", "p99 ms", "paid: p50 ms", "p99 ms"):
        table.add_column(title, justify="right")
    steps = (
        ("request", "request_ms"),
        ("accept", "accept_ms"),
        ("end (paid: until it is settled)", "end_ms"),
    )
    for title, name in steps:
        cells = (span(one, f"{name}_{p}") for one in (free, paid) for p in ("p50", "p99"))
        table.add_row(title, *cells, end_section=name == "end_ms")
    rows = (
        ("calls per second", "calls_per_s", 0),
        ("CPU ms per call", "server_cpu_ms_per_call", 2),
        ("retries per transaction", "retries_per_transaction", 4),
        ("CPU share", "server_cpu_share", 2),
    )
    for title, name, digits in rows:
        table.add_row(title, span(free, name, digits), "", span(paid, name, digits), "")
    return table


def _commands(part: Mapping[str, Any]) -> Table:
    table = Table("database commands of one call", "request", "accept", "end", "together")
    for kind in ("free", "paid"):
        steps = part[kind]["steps"]
        sums = (sum(steps[step].values()) for step in ("request", "accept", "end"))
        table.add_row(kind, *(f"{total:.1f}" for total in sums), f"{part[kind]['total']:.1f}")
    return table


def _postings(part: Mapping[str, Any]) -> Table:
    table = Table(Column("postings alone, no letters", no_wrap=True))
    kinds = (("many callees", "many"), ("one callee", "one"), ("renewals only", "renewals"))
    for title, _ in kinds:
        table.add_column(title, justify="right")
    rows = (
        ("holds + captures per second", "holds_and_captures_per_s", 0),
        ("postings per second", "postings_per_s", 0),
        ("transactions per second", "transactions_per_s", 0),
        ("retries per transaction", "retries_per_transaction", 4),
        ("CPU µs per posting", "server_cpu_us_per_posting", 0),
        ("CPU share", "server_cpu_share", 2),
    )
    for title, name, digits in rows:
        table.add_row(title, *(span(part[kind], name, digits) for _, kind in kinds))
    for title, name in (("open", "open_ms"), ("renew", "renew_ms"), ("close", "close_ms")):
        table.add_row(f"{title}, p50 / p99 ms", *(both(part[kind], name) for _, kind in kinds))
    return table


def _live(part: Mapping[str, Any]) -> Table:
    real, burst = part["real_rate"], part["burst"]
    count = median(burst, "burst_renewals") or 0
    table = Table(f"{count:.0f} live paid calls, all jobs running", "over the minute", "all at once")
    rows = (
        ("renewals per second", "renewals_per_s", 0),
        ("one renewal, p50 ms", "renewal_ms_p50", 1),
        ("one renewal, p99 ms", "renewal_ms_p99", 1),
        ("done after it was due, p50 ms", "late_ms_p50", 0),
        ("done after it was due, p99 ms", "late_ms_p99", 0),
        ("all renewed after, s", "burst_s", 1),
        ("longest from tick to tick, ms", "tick_gap_ms_most", 0),
        ("lag of the loop, p99 ms", "lag_ms_p99", 1),
        ("longest stall of the loop, ms", "stall_ms", 1),
        ("CPU share", "server_cpu_share", 2),
        ("kept from the machine by its host", "stolen_cpu_share", 2),
        ("retries per transaction", "retries_per_transaction", 4),
    )
    for title, name, digits in rows:
        table.add_row(title, *(span(one, name, digits) for one in (real, burst)))
    return table


def _cut_offs(part: Mapping[str, Any]) -> Table:
    table = Table("end of the money → phone told, ms", "p50", "p99", "latest", "within 100 ms")
    titles = {
        "alone": "nothing else to do",
        "busy": "other calls being set up",
        "away": "the database says nothing",
    }
    for name, title in titles.items():
        one = part[name]
        cells = (span(one, f"late_ms_{p}") for p in ("p50", "p99", "most"))
        table.add_row(title, *cells, percent(median(one, "kept_share")))
    return table
