"""Figures out of samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` (0 to 1) of them do not exceed; NaN without samples."""
    if not samples:
        return math.nan
    rank = max(1, math.ceil(share * len(samples)))
    return sorted(samples)[rank - 1]


def arrivals(rate: float, seconds: float) -> Iterator[float]:
    """When each arrival of a steady rate is due, in seconds from the start."""
    return (number / rate for number in range(round(rate * seconds)))


@dataclass(slots=True)
class Round:
    """What one round measured: figures by name, and what went wrong how often."""

    figures: dict[str, float]
    faults: Counter[str] = field(default_factory=Counter)


def spread(name: str, samples: Sequence[float]) -> dict[str, float]:
    """``{name}_p50`` and ``{name}_p99``."""
    return {f"{name}_p50": percentile(samples, 0.5), f"{name}_p99": percentile(samples, 0.99)}


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Each figure's median with its lowest and highest round, and all faults together."""
    names = dict.fromkeys(name for one in rounds for name in one.figures)
    faults: Counter[str] = Counter()
    for one in rounds:
        faults.update(one.faults)
    return {
        "rounds": len(rounds),
        "figures": {name: _three([one.figures.get(name, math.nan) for one in rounds]) for name in names},
        "faults": dict(faults),
    }


def _three(values: Sequence[float]) -> Mapping[str, float | None]:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"median": None, "least": None, "most": None}
    return {"median": median(known), "least": min(known), "most": max(known)}
