"""The tables of messages and presence, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Column, Table

from models.presence.rules import FOREGROUND_AFTER
from tests.bench.cells import both, median, span


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Everything about messages and presence."""
    yield _messages(results["chat"])
    yield _catch_up(results["chat"]["catch_up"])
    yield _presence(results["presence"])


def verdicts(results: Mapping[str, Any]) -> Iterator[str]:
    """Whether what was missed has come, and what the debounce has kept back."""
    caught = results["chat"]["catch_up"]
    faults = ", ".join(f"{count} × {name}" for name, count in caught["faults"].items()) or "in order and once"
    yield f"catch-up: {median(caught, 'missed') or 0:,.0f} messages by since, {faults}."
    flaps = results["presence"]["flaps"]
    yield (
        f"presence: of {median(flaps, 'changes') or 0:,.0f} changes taken back at once "
        f"{median(flaps, 'notices') or 0:,.0f} notices came of it."
    )


def _messages(part: Mapping[str, Any]) -> Table:
    rate = median(part["steady"], "asked_per_s") or 0
    table = Table(Column("messages, stored and acked and delivered", no_wrap=True))
    kinds = (
        (f"pairs, {rate:.0f}/s", "steady"),
        ("pairs, flat out", "flat_out"),
        ("one group, flat out", "group_flat_out"),
    )
    for title, _ in kinds:
        table.add_column(title, justify="right")
    rows = (
        ("messages per second", "messages_per_s", 0),
        ("deliveries per second", "deliveries_per_s", 0),
        ("server CPU ms per message", "server_cpu_ms_per_message", 2),
        ("server CPU share", "server_cpu_share", 2),
    )
    times = (
        ("acked, p50 / p99 ms", "acked_ms"),
        ("first receiver has it, p50 / p99 ms", "delivered_ms"),
        ("last receiver has it, p50 / p99 ms", "all_delivered_ms"),
    )
    for title, name in times:
        table.add_row(
            title, *(both(part[kind], name) for _, kind in kinds), end_section=title == times[-1][0]
        )
    for title, name, digits in rows:
        table.add_row(title, *(span(part[kind], name, digits) for _, kind in kinds))
    return table


def _catch_up(part: Mapping[str, Any]) -> Table:
    table = Table(f"one phone catches up on {median(part, 'missed') or 0:,.0f} messages", "figure")
    rows = (
        ("connect → SYNC, ms", "sync_ms", 1),
        ("connect → first message, ms", "first_ms", 1),
        ("connect → last message, s", "last_s", 2),
        ("messages per second", "messages_per_s", 0),
        ("server CPU µs per message", "server_cpu_us_per_message", 0),
    )
    for title, name, digits in rows:
        table.add_row(title, span(part, name, digits))
    return table


def _presence(part: Mapping[str, Any]) -> Table:
    table = Table(Column("presence, each person watched by 5", no_wrap=True))
    wait = FOREGROUND_AFTER.total_seconds()
    rate = median(part["changes"], "asked_per_s") or 0
    kinds = (
        ("they connect", "arrivals"),
        (f"background and back, {rate:.0f}/s", "changes"),
        (f"taken back within {wait:g} s", "flaps"),
    )
    for title, _ in kinds:
        table.add_column(title, justify="right")
    table.add_row("changes", *(span(part[kind], "changes", 0) for _, kind in kinds))
    table.add_row("watchers told", *(span(part[kind], "notices", 0) for _, kind in kinds))
    waits = ("", f"{wait:g} s of debounce in it", "")
    table.add_row("change → watcher told, p50 / p99 ms", *(both(part[kind], "told_ms") for _, kind in kinds))
    table.add_row("", *waits)
    cpu = "server_cpu_us_per_change"
    table.add_row("server CPU µs per change", *(span(part[kind], cpu, 0) for _, kind in kinds))
    table.add_row("server CPU share", *(span(part[kind], "server_cpu_share", 2) for _, kind in kinds))
    return table
