"""How much is measured and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# What a phase calls to say how far it is: a share from 0 to 1.
Told = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Rates per second, lengths in seconds."""

    rounds: int = 3
    starts: int = 3
    pairs: int = 500
    call_rate: float = 40.0
    call_seconds: float = 10.0
    flat_out_calls: int = 20  # at the same time
    flat_out_seconds: float = 5.0
    relay_rate: float = 2000.0
    relay_seconds: float = 4.0
    in_flight: int = 4  # candidates of each device, flat out
    login_users: int = 16
    login_seconds: float = 5.0
    login_workers: int = 4
    alike_tries: int = 20  # sign-ins of each kind, one at a time
    flood_rate: float = 40.0
    flood_seconds: float = 4.0
    idle_seconds: float = 4.0
    money_rounds: int = 3
    money_lanes: int = 32  # calls at the same time
    money_seconds: float = 4.0
    live_calls: int = 2000
    live_rounds: int = 5
    live_settling_seconds: float = 5.0  # until every call has had a tick in its own time
    renewal_seconds: float = 12.0
    cut_offs: int = 200
    cut_off_rate: float = 50.0
    cut_offs_away: int = 40  # while the database does not answer
    chat_rounds: int = 3
    chat_rate: float = 150.0
    chat_seconds: float = 4.0
    chat_at_once: int = 32  # messages on their way, over all pairs
    group_members: int = 50
    group_at_once: int = 8
    missed: int = 10_000
    presence_people: int = 500
    presence_watchers: int = 25
    presence_changes: int = 5000
    process_counts: tuple[int, ...] = (2, 4, 8)
    process_pairs: int = 40
    process_rates: tuple[float, ...] = (200.0, 2000.0, 0.0)  # the last is flat out
    process_seconds: float = 4.0
    process_flood_seconds: float = 0.5  # in which no device comes to the end of what it may send at once
    process_rest_seconds: float = 4.0
    process_rounds: int = 3


QUICK = Plan(
    starts=2,
    pairs=100,
    call_seconds=2.0,
    flat_out_seconds=1.2,
    relay_seconds=1.2,
    login_users=4,
    login_seconds=1.5,
    alike_tries=6,
    flood_seconds=1.5,
    idle_seconds=1.0,
    money_rounds=1,
    money_seconds=1.0,
    live_calls=300,
    live_rounds=1,
    live_settling_seconds=0.5,
    renewal_seconds=2.5,
    cut_offs=40,
    cut_offs_away=20,
    chat_rounds=1,
    chat_seconds=1.5,
    missed=2000,
    presence_people=200,
    presence_watchers=10,
    presence_changes=400,
    process_counts=(2, 8),
    process_pairs=24,
    process_rates=(200.0, 1000.0, 0.0),
    process_seconds=2.0,
    process_flood_seconds=0.3,
    process_rest_seconds=2.0,
    process_rounds=1,
)
