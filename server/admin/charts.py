"""Charts as figures for SVG: bars over days, with an axis. Pure; the template draws them, and a table says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 8, 84, 16, 28
TICKS = 4
DAYS_NAMED = 6
GAP = 0.28


@dataclass(frozen=True, slots=True)
class Bar:
    """One day: where its bar stands, and what it says. ``below``: less than nothing."""

    x: float
    y: float
    width: float
    height: float
    below: bool
    day: str
    said: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the axis, or a name under it."""

    at: float
    said: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template needs to draw one."""

    name: str
    total: str
    bars: tuple[Bar, ...]
    lines: tuple[Tick, ...]
    days: tuple[Tick, ...]
    nothing: float


def chart(
    name: str,
    points: Sequence[tuple[str, int]],
    *,
    said: Callable[[int], str],
    axis: Callable[[int], str] | None = None,
    total: str | None = None,
    most: int | None = None,
    least: int = TICKS,
) -> Chart:
    """A chart of days and numbers; ``said`` is how a number is read, ``axis`` the same where there is little room.

    The axis reaches ``most`` if that is given, else as far as it has to, and at least to ``least``.
    """
    values = [value for _, value in points]
    named = axis or said
    # The axis goes in whole steps, so that nothing is one of its lines.
    unit = (most or _nice(max([least, *map(abs, values)]))) // TICKS
    top = most or unit * max(1, -(-max([0, *values]) // unit))
    bottom = unit * (min([0, *values]) // unit)
    plot = HEIGHT - TOP - BOTTOM

    def height_of(value: float) -> float:
        return round(TOP + plot * (top - value) / (top - bottom), 2)

    wide = (WIDTH - LEFT - RIGHT) / max(1, len(points))
    bars = []
    for number, (day, value) in enumerate(points):
        ends, zero = height_of(value), height_of(0)
        bars.append(
            Bar(
                x=round(LEFT + number * wide + wide * GAP / 2, 2),
                y=min(ends, zero),
                width=round(wide * (1 - GAP), 2),
                height=round(abs(zero - ends), 2),
                below=value < 0,
                day=day,
                said=said(value),
            )
        )
    lines = tuple(Tick(height_of(at), named(at)) for at in range(bottom, top + 1, unit))
    every = max(1, -(-len(points) // DAYS_NAMED))
    days = tuple(
        Tick(round(LEFT + number * wide + wide / 2, 2), f"{int(day[8:])}.{int(day[5:7])}.")
        for number, (day, _) in enumerate(points)
        if (len(points) - 1 - number) % every == 0
    )
    return Chart(name, total or said(sum(values)), tuple(bars), lines, days, height_of(0))


def _nice(most: int) -> int:
    """The least of 4, 8, 20, 40, 80, 200 … that is not below: its quarters are whole numbers."""
    if most <= 0:
        return 0
    size = 1
    while True:
        for step in (4, 8, 20):
            if step * size >= most:
                return step * size
        size *= 10


def short(number: float) -> str:
    """A number where there is little room: ``950``, ``1.2k``, ``30M``."""
    size = abs(number)
    for bound, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= bound:
            return f"{number / bound:.3g}{name}"
    return f"{number:g}"
