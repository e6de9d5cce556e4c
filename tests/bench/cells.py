"""Figures as cells of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def median(part: Mapping[str, Any], name: str) -> float | None:
    """A figure's median over the rounds."""
    value: float | None = part["figures"].get(name, {}).get("median")
    return value


def both(part: Mapping[str, Any], name: str) -> str:
    """p50 / p99."""
    halves = (median(part, f"{name}_{p}") for p in ("p50", "p99"))
    return " / ".join("–" if half is None else f"{half:.1f}" for half in halves)


def span(part: Mapping[str, Any], name: str, digits: int = 1) -> str:
    """The median, with the lowest and highest round behind it."""
    figure = part["figures"].get(name)
    if figure is None or figure["median"] is None:
        return "–"
    text = f"[bold]{figure['median']:,.{digits}f}[/]"
    if figure["least"] == figure["most"]:
        return text
    return f"{text} [dim]({figure['least']:,.{digits}f}–{figure['most']:,.{digits}f})[/]"


def percent(share: float | None) -> str:
    """A share as it is read."""
    return "–" if share is None else f"{share * 100:.0f} %"
