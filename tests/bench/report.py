"""The figures as tables, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from tests.bench import report_chat, report_money, targets
from tests.bench.cells import both, median, percent, span

# A process at this share of its core has no time left.
FULL_SHARE = 0.9
# More than this of a core for other programs makes figures of this one doubtful.
OTHERS_SHARE = 0.1
# An open loop that sends later than this is behind its own schedule.
LATE_MS = 1.0

_TITLES = ("calls", "relay", "chat", "presence", "money", "live", "cut_offs", "logins")
_OTHERS = (("relay", "flat_out"), ("chat", "flat_out"), ("chat", "group_flat_out"), ("logins", "flat_out"))
_CALLS = (
    ("request → ring → accept → caller told", "set_up_ms"),
    ("  request → callee's phone", "ring_ms"),
    ("  accept → caller told", "accept_ms"),
    ("hang up → both told", "end_ms"),
)


def show(
    console: Console, about: Mapping[str, Any], results: Mapping[str, Any], warnings: Sequence[str]
) -> None:
    """Print everything."""
    _head(console, about)
    console.print(_rest(results["rest"]))
    console.print(_calls(results["calls"], "free calls", ""))
    console.print(_calls(results["calls"], "paid calls", "paid_"))
    console.print(_relay(results["relay"]))
    for table in (*report_chat.tables(results), *report_money.tables(results)):
        console.print(table)
    console.print(_logins(results["logins"]))
    if "processes" in results:
        console.print(_processes(results["processes"]))
    for line in (*verdicts(results), *targets.lines(results, about["plan"])):
        console.print(f"• {line}", markup=False)
    for line in warnings[:5]:
        console.print(f"server: {line[:300]}", markup=False, style="yellow")
    if len(warnings) > 5:
        console.print(f"server: and {len(warnings) - 5} lines more", style="yellow")


def show_figures(console: Console, about: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Print the figures of some parts, as they are."""
    _head(console, about)
    for title, parts in results.items():
        table = Table(Column(title, no_wrap=True), "figure", Column("median", justify="right"), "span")
        for name, part in parts.items():
            if "figures" not in part:
                continue  # no rounds: counts, and what the start took
            for figure, value in _figures({name: part}):
                low, middle, high = (value[which] for which in ("least", "median", "most"))
                if middle is not None:
                    table.add_row(name, figure, f"{middle:,.3f}", f"{low:,.3f} to {high:,.3f}")
        if table.row_count:
            console.print(table)
    if "processes" in results:
        console.print(_processes(results["processes"]))
    for line in targets.lines(results, about["plan"]):
        console.print(f"• {line}", markup=False)


def _head(console: Console, about: Mapping[str, Any]) -> None:
    machine = about["machine"]
    console.print(
        f"\n[bold]Ringmeter on this machine[/]: {escape(str(machine['processor']))}, {machine['cores']} cores, "
        f"Python {machine['python']}"
    )
    console.print(
        f"{about['cores']}; load before {about['load_before']:.1f}; {about['seconds']:.0f} s in all."
    )
    console.print("Medians of the rounds, with the lowest and highest round behind them.\n")


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """What limits the figures: the server (then they are its own), or the generator, a limit, a fault."""
    said = []
    for title, name in (*(("calls", kind) for kind in ("flat_out", "paid_flat_out")), *_OTHERS):
        part = results[title][name]
        server, generator = median(part, "server_cpu_share"), median(part, "generator_cpu_share")
        shares = f"server {percent(server)} of its core, generator {percent(generator)}"
        why = _bottleneck(server, generator, median(part, "others_cpu_share"))
        said.append(f"{title}, {name.replace('_', ' ')}: {shares}: {why}.")
    others = max(
        figure["most"] or 0
        for title in _TITLES
        for name, figure in _figures(results[title])
        if name == "others_cpu_share"
    )
    if others > OTHERS_SHARE:
        said.append(
            f"other programs took up to {percent(others)} of a core meanwhile: read the figures with care."
        )
    late = median(results["relay"]["steady"], "generator_late_ms_p99")
    if late is not None:
        kept = "kept its schedule" if late < LATE_MS else "fell behind its own schedule"
        said.append(f"relay, steady: the generator {kept} (late by {late:.3f} ms at p99).")
    said += report_chat.verdicts(results)
    said += report_money.verdicts(results)
    for title in _TITLES:
        for name, part in results[title].items():
            if part["faults"] and name != "flood":
                counts = ", ".join(f"{count} × {code}" for code, count in part["faults"].items())
                where = f"{title.replace('_', ' ')}, {name.replace('_', ' ')}"
                said.append(f"{where}: not all went well: {counts}.")
    return said


def _bottleneck(server: float | None, generator: float | None, others: float | None) -> str:
    if server is None or generator is None:
        return "no figures of CPU time on this system"
    if server >= FULL_SHARE:
        return "the server was the bottleneck"
    if generator >= FULL_SHARE:
        return "the generator was the bottleneck: the server can do more"
    if others is not None and others > OTHERS_SHARE:
        return f"neither was full: other programs took {percent(others)} of a core away"
    return "neither was full: waiting (the database, or a limit) was the bottleneck"


def _rest(part: Mapping[str, float]) -> Table:
    table = Table("start and rest", "figure")
    starts = f"{part['first_start_s']:.2f} s on an empty folder, {part['later_start_s']:.2f} s later"
    table.add_row("start until /health is ok, with the embedded database", starts)
    table.add_row("memory at rest", f"server {part['server_mb']:.0f} MB, database {part['mongod_mb']:.0f} MB")
    table.add_row("CPU at rest", percent(part["idle_cpu_share"]))
    return table


def _calls(part: Mapping[str, Any], title: str, prefix: str) -> Table:
    steady, flat = part[f"{prefix}steady"], part[f"{prefix}flat_out"]
    rate = median(steady, "asked_per_s") or 0
    table = Table(Column(title, no_wrap=True))
    for title in (f"steady {rate:.0f}/s: p50 ms", "p99 ms", "flat out: p50 ms", "p99 ms"):
        table.add_column(title, justify="right")
    for title, name in _CALLS:
        figures = (span(one, f"{name}_{p}") for one in (steady, flat) for p in ("p50", "p99"))
        table.add_row(title, *figures)
    ended = span(steady, "ended_calls", 0)
    table.add_row("calls ended per round", ended, "", "", "", end_section=True)
    table.add_row("calls per second", "", "", span(flat, "calls_per_s", 0), "")
    table.add_row("server CPU ms per call", "", "", span(flat, "server_cpu_ms_per_call"), "")
    table.add_row("server CPU share", span(steady, "server_cpu_share", 2), "", "", "")
    return table


def _relay(part: Mapping[str, Any]) -> Table:
    steady, flat = part["steady"], part["flat_out"]
    rate = median(steady, "asked_per_s") or 0
    table = Table("relayed ICE candidates", f"steady {rate:.0f}/s", "flat out")
    table.add_row("per second", "", span(flat, "messages_per_s", 0))
    cpu = "server_cpu_us_per_message"
    table.add_row("server CPU µs per message", span(steady, cpu), span(flat, cpu))
    for name in ("p50", "p99"):
        table.add_row(f"phone to phone, {name} ms", span(steady, f"taken_ms_{name}", 3), "")
    table.add_row("server CPU share", span(steady, "server_cpu_share", 2), span(flat, "server_cpu_share", 2))
    return table


def _logins(part: Mapping[str, Any]) -> Table:
    flat, flood = part["flat_out"], part["flood"]
    rate = median(flood, "asked_per_s") or 0
    table = Table("logins, bcrypt cost 12", "figure", "answered after p50 / p99 ms")
    table.add_row("per second, flat out", span(flat, "logins_per_s"), both(flat, "login_ms"))
    codes = ", ".join(f"{count} × {code}" for code, count in flood["faults"].items())
    table.add_row(f"a flood of {rate:.0f}/s was answered", codes, "")
    for title, name in (("signed in", "signed_in"), ("refused", "refused")):
        table.add_row(f"  {title}", span(flood, name, 0), both(flood, f"{name}_ms"))
    table.add_row("  /health/live meanwhile", "", both(flood, "bystander_ms"))
    alike = part["alike"]
    for verb, title in (("login", "a wrong password"), ("forgot", "a forgotten password")):
        for who in ("nobody", "known", "second_factor"):
            of = {"nobody": "nobody's", "known": "somebody's", "second_factor": "with a second factor"}[who]
            ratio = "" if who == "nobody" else f"{span(alike, f'{verb}_{who}_ratio', 3)} of nobody's"
            table.add_row(f"{title}, {of}: p50 ms", span(alike, f"{verb}_{who}_ms", 2), ratio)
    return table


def _processes(part: Mapping[str, Any]) -> Table:
    table = Table(Column("a candidate from process to process", no_wrap=True))
    titles = (
        "messages/s",
        "CPU µs of all, Redis too",
        "without their rest",
        "published",
        "processes woken",
        "p50 / p99 ms",
    )
    for title in titles:
        table.add_column(title, justify="right")
    for one in part.values():
        count, rate = (median(one, name) or 0 for name in ("processes", "asked_per_s"))
        table.add_row(
            f"{count:.0f} processes, {f'{rate:.0f}/s' if rate else 'flat out'}",
            span(one, "passed_per_s"),
            span(one, "cpu_us_per_message"),
            span(one, "cpu_us_beyond_rest"),
            span(one, "published_per_message", 3),
            span(one, "woken_per_message", 3),
            both(one, "taken_ms"),
        )
    return table


def _figures(parts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float | None]]]:
    return ((name, figure) for part in parts.values() for name, figure in part["figures"].items())
