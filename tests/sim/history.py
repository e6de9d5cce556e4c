"""A seed as the beginning of a history: people, tariffs, money, and what may go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from models.billing.tariffs import Tariffs
from models.calls.call import Timers

BLOCKS = ((1, 1), (6, 6), (30, 6), (60, 60), (60, 1), (1, 60), (7, 13))
NAMES = ("ann", "bob", "cat", "dan")
# How a history goes wrong, and its share of the seeds.
KINDS = {"calm": 30, "raced": 25, "crashing": 25, "flaky": 20}
_ODDS = {
    "calm": {},
    "raced": {"conflict": 0.02},
    "crashing": {"crash": 0.02, "away": 0.003},
    "flaky": {"conflict": 0.04, "lost": 0.04, "aborted": 0.15, "away": 0.02, "crash": 0.004},
}
# What a history begins with before its random walk, and its share of the seeds.
THEMES = {"walk": 50, "to the end": 25, "upgrade": 12, "debt": 13}
_FAULTS_MAX = {"calm": 0, "raced": 4, "crashing": 4, "flaky": 8}


@dataclass(frozen=True)
class Setup:
    """Where a history begins. Money in minor units by the pocket it is paid into."""

    seed: int
    kind: str
    theme: str
    people: tuple[str, ...]
    rest: frozenset[str]
    without_wallet: frozenset[str]
    tariffs: Tariffs
    rates: dict[str, dict[str, int | None]]
    money: dict[str, dict[str, int]]
    share_bps: int
    dispute_seconds: int
    timers: Timers
    steps: int
    odds: dict[str, float]
    faults: int

    def tariff_of(self, user: str, kind: str) -> tuple[int, int, int, int, int]:
        """What calling ``user`` costs: rate, first block, block, fee, minimum."""
        own = self.rates[user]
        rate = own["rate_per_minute_minor"]
        if kind == "video" and own["video_rate_per_minute_minor"] is not None:
            rate = own["video_rate_per_minute_minor"]
        if rate is None:
            video = self.tariffs.video_rate_minor
            rate = video if kind == "video" and video is not None else self.tariffs.rate_minor
        fee, least = (self.tariffs.connect_fee_minor, self.tariffs.minimum_minor) if rate else (0, 0)
        return rate, self.tariffs.first_block_seconds, self.tariffs.block_seconds, fee, least


def setup(seed: int, kind: str | None = None) -> Setup:
    """The beginning that belongs to a seed. ``kind`` overrules the dice."""
    dice = Random(f"setup {seed}")
    drawn = dice.choices(list(KINDS), list(KINDS.values()))[0]
    kind = kind or drawn
    theme = dice.choices(list(THEMES), list(THEMES.values()))[0]
    people = NAMES[: dice.choice((2, 2, 2, 3, 3, 4))]
    first, block = dice.choice(BLOCKS)
    rate = dice.choice((1, 59, 100, 1000, 3333, 5000, 6000, dice.randint(1, 20_000)))
    tariffs = Tariffs(
        rate_minor=rate,
        video_rate_minor=dice.choice((None, None, 0, 2 * rate, dice.randint(1, 20_000))),
        first_block_seconds=first,
        block_seconds=block,
        minimum_minor=dice.choice((0, 0, 0, rate, dice.randint(0, 2 * rate + 1))),
        connect_fee_minor=dice.choice((0, 0, rate // 2, dice.randint(0, rate + 1))),
    )
    rates = {
        user: {
            "rate_per_minute_minor": dice.choice((None, None, None, 0, dice.randint(1, 20_000))),
            "video_rate_per_minute_minor": dice.choice((None, None, None, 0, dice.randint(1, 30_000))),
        }
        for user in people
    }
    money = {user: _money(dice, max(rate, 100)) for user in people}
    if theme != "walk":
        # The first one calls and can pay for it, though not for long.
        own, fee = (
            rates[people[1]]["rate_per_minute_minor"],
            tariffs.connect_fee_minor + tariffs.minimum_minor,
        )
        least = fee + max(rate, own or 0) * max(first, 1) // 60
        money[people[0]] = {"primary": least + dice.randint(0, 4 * max(rate, own or 0)), "call_credits": 0}
        if dice.random() < 0.3:
            money[people[0]]["call_credits"] = dice.randint(1, max(rate, 1))
    return Setup(
        seed=seed,
        kind=kind,
        theme=theme,
        people=people,
        rest=frozenset(user for user in people if dice.random() < 0.15),
        without_wallet=frozenset(user for user in people[1:] if dice.random() < 0.2),
        tariffs=tariffs,
        rates=rates,
        money=money,
        share_bps=dice.choice((0, 1, 2_000, 2_000, 3_333, 10_000)),
        dispute_seconds=dice.choice((0, 60, 86_400)),
        timers=Timers(longest=dice.choice((120, 600, 14_400))),
        steps=dice.randint(4, 12) if theme == "walk" else dice.randint(1, 7),
        odds=_ODDS[kind],
        faults=dice.randint(1, _FAULTS_MAX[kind]) if _FAULTS_MAX[kind] else 0,
    )


def _money(dice: Random, rate: int) -> dict[str, int]:
    """Enough for nothing, for seconds, for minutes or for as long as anybody talks."""
    seconds = dice.choice((dice.randint(0, 60), dice.randint(30, 200), dice.randint(60, 900), 5_000, 100_000))
    primary = rate * seconds // 60 + dice.randint(0, 60)
    credits = dice.choice((0, 0, 0, rate * dice.randint(0, 120) // 60 + dice.randint(0, 9)))
    return {"primary": primary, "call_credits": credits}
