"""The figures as tables, the targets, and how far both may be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from tests.bench.cells import median, percent, span

# More than this of a core for other programs makes figures of this one doubtful.
OTHERS_SHARE = 0.1
# Issue 5: this server against another one, and the most that is allowed.
CPU_OF_NODE, CPU_OF_AIOHTTP, P99_OF_NODE, MEMORY_OF_NODE = 0.6, 1.3, 1.0, 1.5
OURS, NODE, AIOHTTP = "ringmeter", "node", "aiohttp"

Results = Mapping[str, Mapping[str, Any]]


def show(console: Console, about: Mapping[str, Any], results: Results, warnings: Sequence[str]) -> None:
    """Print everything."""
    machine, titles = about["machine"], about["titles"]
    console.print(
        f"\n[bold]Relayed ICE candidates, side by side[/]: {escape(str(machine['processor']))}, "
        f"{machine['cores']} cores, Python {machine['python']}"
    )
    console.print(
        f"{about['cores']}; load before {about['load_before']:.1f}; {about['seconds']:.0f} s in all. Medians of the "
        "rounds, with the lowest and highest round behind them.\n"
    )
    rates = [f"at_{rate}" for rate in about["plan"]["rates"]]
    if any("flat_out" in one for one in results.values()):
        console.print(_relay(results, titles, rates))
        console.print(_acked(results, titles))
    if any("idle" in one for one in results.values()):
        console.print(_idle(results, titles))
    for line in targets(results, rates):
        console.print(line, markup=False)
    for line in (*doubts(results, titles), *faults(results, titles)):
        console.print(f"• {line}", markup=False, style="yellow")
    for line in warnings[:5]:
        console.print(f"server: {line[:300]}", markup=False, style="yellow")


def targets(results: Results, rates: Sequence[str]) -> list[str]:
    """This server against the others, as ratios of medians."""
    wanted = [
        ("CPU per message, flat out, of Node's", "flat_out", "cpu_us", NODE, CPU_OF_NODE),
        ("CPU per message, flat out, of bare aiohttp's", "flat_out", "cpu_us", AIOHTTP, CPU_OF_AIOHTTP),
        *((f"p99 {_at(rate)}, of Node's", rate, "taken_us_p99", NODE, P99_OF_NODE) for rate in rates),
        ("memory per idle connection, of Node's", "idle", "memory_kb", NODE, MEMORY_OF_NODE),
    ]
    said = []
    for what, measure, figure, other, most in wanted:
        ours, theirs = _figure(results, OURS, measure, figure), _figure(results, other, measure, figure)
        if ours is not None and theirs:
            ratio = ours / theirs
            verdict = "met" if ratio <= most else "MISSED"
            said.append(f"{verdict:6} {what}: {ratio:.2f} ({ours:.1f} to {theirs:.1f}; at most {most})")
    return said


def doubts(results: Results, titles: Mapping[str, str]) -> Iterator[str]:
    """Which rounds do not say what they seem to. They are not in the medians where others are."""
    for name, one in results.items():
        for measure, part in one.items():
            for number, doubt in enumerate(part["doubts"], 1):
                if doubt is not None:
                    yield f"{titles[name]}, {_words(measure)}, round {number}: {doubt}."
    shares = sorted(
        figures["others_share"]
        for one in results.values()
        for part in one.values()
        for figures in part["each"]
        if "others_share" in figures
    )
    if shares and shares[-1] > OTHERS_SHARE:
        yield (
            f"other programs (MongoDB among them) took up to {percent(shares[-1])} of a core meanwhile, "
            f"{percent(shares[len(shares) // 2])} in the median round: read the figures with care."
        )


def faults(results: Results, titles: Mapping[str, str]) -> Iterator[str]:
    """What did not arrive or came instead."""
    for name, one in results.items():
        for measure, part in one.items():
            for what, count in part["faults"].items():
                yield f"{titles[name]}, {_words(measure)}: {count} × {what}"


def picture(about: Mapping[str, Any], results: Results) -> str:
    """Bars of the CPU per message, as SVG."""
    bars = [
        (about["titles"][name], value)
        for name in results
        if (value := _figure(results, name, "flat_out", "cpu_us")) is not None
    ]
    most = max((value for _, value in bars), default=1.0)
    height = 44 + 30 * len(bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="720" height="{height}" fill="#fff"/>',
        '<text x="12" y="22" font-weight="bold">Server CPU per relayed ICE candidate, µs (less is better)</text>',
    ]
    for place, (title, value) in enumerate(bars):
        y, width = 38 + 30 * place, 390 * value / most
        colour = "#2563eb" if place == 0 else "#94a3b8"
        lines += [
            f'<text x="12" y="{y + 15}">{title}</text>',
            f'<rect x="240" y="{y}" width="{width:.1f}" height="20" rx="3" fill="{colour}"/>',
            f'<text x="{248 + width:.1f}" y="{y + 15}">{value:.1f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _relay(results: Results, titles: Mapping[str, str], rates: Sequence[str]) -> Table:
    columns = ["server", "CPU µs/message", "messages/s", "server / generator"]
    table = Table(*(Column(name, justify="left" if name == "server" else "right") for name in columns))
    table.title = "relayed, flat out and at fixed rates"
    for rate in rates:
        table.add_column(f"{_at(rate)}: CPU µs", justify="right")
        table.add_column("p50 / p99 µs", justify="right")
    for name, one in results.items():
        if "flat_out" not in one:
            continue
        flat = one["flat_out"]
        cells = [span(flat, "cpu_us"), span(flat, "messages_per_s", 0), _shares(flat)]
        for rate in rates:
            p50, p99 = (median(one[rate], f"taken_us_{p}") for p in ("p50", "p99"))
            cells += [span(one[rate], "cpu_us"), "–" if p50 is None else f"{p50:,.0f} / {p99:,.0f}"]
        table.add_row(titles[name], *cells)
    return table


def _acked(results: Results, titles: Mapping[str, str]) -> Table:
    columns = ["server", "CPU µs/message", "messages/s", "server / generator"]
    table = Table(*(Column(name, justify="left" if name == "server" else "right") for name in columns))
    table.title = "relayed and acked, flat out"
    for name, one in results.items():
        if "acked" in one:
            part = one["acked"]
            table.add_row(titles[name], span(part, "cpu_us"), span(part, "messages_per_s", 0), _shares(part))
    return table


def _idle(results: Results, titles: Mapping[str, str]) -> Table:
    columns = ["server", "connections", "KB each", "CPU µs per connect", "connects/s", "idle CPU of a core"]
    table = Table(*(Column(name, justify="left" if name == "server" else "right") for name in columns))
    table.title = "idle connections"
    for name, one in results.items():
        if "idle" in one:
            part = one["idle"]
            share = median(part, "idle_share")
            table.add_row(
                titles[name],
                f"{median(part, 'connections') or 0:,.0f}",
                span(part, "memory_kb"),
                span(part, "connect_us", 0),
                span(part, "connects_per_s", 0),
                "–" if share is None else f"{share * 100:.2f} %",
            )
    return table


def _figure(results: Results, name: str, measure: str, figure: str) -> float | None:
    part = results.get(name, {}).get(measure)
    return None if part is None else median(part, figure)


def _at(rate: str) -> str:
    return f"at {int(rate[3:]):,}/s"


def _words(measure: str) -> str:
    return _at(measure) if measure.startswith("at_") else measure.replace("_", " ")


def _shares(part: Mapping[str, Any]) -> str:
    return f"{percent(median(part, 'server_share'))} / {percent(median(part, 'generator_share'))}"
