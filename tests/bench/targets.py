"""What was promised of the speed on two cores, and whether this run has kept it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from tests.bench.cells import median, percent

# Total CPU of a relayed message with the most processes, beside that with the fewest.
CPU_RATIO_MAX = 1.5
# More of a core than this, kept from the machine by its host, and a time says less about the server.
STOLEN_SHARE = 0.02
# Of the messages of a round: beside them one process or the other may have said something else.
ONE = (0.99, 1.02)


@dataclass(frozen=True, slots=True)
class Target:
    """``figure`` of ``part`` (title, name) is to stay under ``below`` milliseconds."""

    said: str
    part: tuple[str, str]
    figure: str
    below: float


TARGETS = (
    Target("set-up of a free call, p99, {phones} phones", ("calls", "steady"), "set_up_ms_p99", 150),
    Target("set-up of a paid call, p99, {phones} phones", ("calls", "paid_steady"), "set_up_ms_p99", 150),
    Target("one renewal, p99, {live} live paid calls", ("live", "real_rate"), "renewal_ms_p99", 25),
    Target(
        "from tick to tick, at most, {live} live paid calls", ("live", "real_rate"), "tick_gap_ms_most", 5000
    ),
    Target("lag of the loop, p99, {live} live paid calls", ("live", "real_rate"), "lag_ms_p99", 20),
)


def lines(results: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterator[str]:
    """A line for each target that this run has a figure for."""
    sizes = {"phones": 2 * plan["pairs"], "live": plan["live_calls"]}
    for target in TARGETS:
        title, name = target.part
        part = results.get(title, {}).get(name)
        value = median(part, target.figure) if part is not None else None
        if value is not None:
            yield (
                f"target: {target.said.format(**sizes)}: {value:.1f} ms, "
                f"{_met(value < target.below)} (under {target.below:.0f} ms{_stolen(part)})."
            )
    yield from _processes(results.get("processes", {}))


def _processes(part: Mapping[str, Any]) -> Iterator[str]:
    """Of a relayed message between processes: how its cost grows, and whom it wakes."""
    for figure, said in (("cpu_us_per_message", ""), ("cpu_us_beyond_rest", " without their rest")):
        by_rate: dict[float, dict[int, float]] = {}
        of: dict[tuple[float, int], Mapping[str, Any]] = {}
        for one in part.values():
            count, rate, cpu = (median(one, name) for name in ("processes", "asked_per_s", figure))
            if count is not None and rate is not None and cpu is not None:
                by_rate.setdefault(rate, {})[int(count)] = cpu
                of[rate, int(count)] = one
        for rate, cpu_of in sorted(by_rate.items(), key=lambda one: one[0] or inf):
            few, many = min(cpu_of), max(cpu_of)
            if few < many and cpu_of[few] > 0:
                ratio = cpu_of[many] / cpu_of[few]
                yield (
                    f"target: CPU of all{said} for a message, {many} processes beside {few}, "
                    f"{f'at {rate:.0f}/s' if rate else 'flat out'}: "
                    f"{ratio:.2f}, {_met(ratio <= CPU_RATIO_MAX)} "
                    f"(at most {CPU_RATIO_MAX}{_stolen(of[rate, few], of[rate, many])})."
                )
    for said, figure in (
        ("published", "published_per_message"),
        ("heard by other processes", "woken_per_message"),
    ):
        values = [value for one in part.values() if (value := median(one, figure)) is not None]
        if values:
            kept = all(ONE[0] <= value <= ONE[1] for value in values)
            yield f"target: a message is {said}: {min(values):.3f} to {max(values):.3f} times, {_met(kept)} (once)."


def _stolen(*parts: Mapping[str, Any]) -> str:
    shares = [share for part in parts if (share := median(part, "stolen_cpu_share")) is not None]
    share = max(shares, default=0.0)
    if not share > STOLEN_SHARE:
        return ""
    return f"; the host of this machine took {percent(share)} of a core from it meanwhile"


def _met(kept: bool) -> str:
    return "met" if kept else "NOT met"
