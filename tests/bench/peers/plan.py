"""How much is measured and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Rates per second, lengths in seconds."""

    rounds: int = 5
    pairs: int = 1000
    rates: tuple[int, ...] = (2000, 5000)
    steady_seconds: float = 4.0
    flood_seconds: float = 3.0
    flood_each: int = (
        150  # messages of each device at most: 200 are allowed at once, and they are not quite even
    )
    warm_seconds: float = 1.0
    idle: int = 5000
    idle_rounds: int = 3
    idle_seconds: float = 5.0
    settle_seconds: float = 2.0


QUICK = Plan(
    rounds=2,
    pairs=300,
    steady_seconds=1.5,
    flood_seconds=1.0,
    warm_seconds=0.6,
    idle=1000,
    idle_rounds=1,
    idle_seconds=2.0,
    settle_seconds=1.0,
)
