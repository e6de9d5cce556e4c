"""A slice of ``make sim``: histories of each kind, a crash at every exchange of one, and faults that it must find."""

from __future__ import annotations

import pytest

from models.billing.meter import WalletMeter
from models.db import Database
from tests.sim.broken import BROKEN
from tests.sim.history import KINDS
from tests.sim.model import Broken
from tests.sim.walk import Failed, play
from tests.sim.workers import Played, one

EACH = 20
# How many of them are played again.
AGAIN = 2
# The history with a paid call that is swept here has at most so many exchanges.
SHORT = 80
# Where to look for it first. The ones before it are played whole among the others, and are longer or cost nothing.
LOOK_FROM = 12


@pytest.mark.parametrize("kind", KINDS)
async def test_histories_come_out_as_the_model_says_and_a_seed_replays_exactly(
    db: Database, kind: str
) -> None:
    for seed in range(EACH):
        played = await play(db, seed, kind=kind)
        if seed < AGAIN:
            assert await play(db, seed, kind=kind) == played


async def _short(db: Database) -> Played:
    """A calm history in which somebody pays for a call, whole."""
    seed = LOOK_FROM
    while True:
        whole = await one(db, seed, crash_at=0)
        if whole.counts["paid calls"] and whole.exchanges <= SHORT:
            return whole
        assert not whole.failure
        seed += 1


async def test_a_process_may_die_after_any_exchange_unless_its_steps_are_in_two(db: Database) -> None:
    whole = await _short(db)
    assert len(whole.alike) == whole.exchanges
    # One of those after which a death leaves the same; ``make sim`` plays the others, too, and compares.
    exchanges = sorted(set(whole.alike))
    for exchange in exchanges:
        played = await one(db, whole.seed, crash_at=exchange)
        assert (played.failure, played.faults["crash"]) == ("", 1), played.replay
    # Money moves when a call begins and when it ends: look for these from both sides.
    sides = sorted(exchanges, key=lambda exchange: min(exchange, whole.exchanges - exchange))
    for broken in (broken for broken, most in BROKEN.items() if most is None):
        for exchange in sides:
            if (await one(db, whole.seed, crash_at=exchange, meter=broken)).failure:
                break
        else:
            raise AssertionError(f"{broken.__name__} is not found by any crash")


async def test_careless_meters_are_found(db: Database) -> None:
    for broken, most in BROKEN.items():
        if most is not None:
            assert await _found(db, broken, most), f"{broken.__name__} is not found in {most} histories"


async def _found(db: Database, broken: type[WalletMeter], most: int) -> bool:
    for seed in range(most):
        try:
            await play(db, seed, kind="calm", meter=broken)
        except Failed as failed:
            if not isinstance(failed.fault, Broken | AssertionError):
                raise  # another fault than the one that is meant
            return True
    return False


async def test_a_broken_history_says_how_to_replay_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.billing.rules._shares", lambda cost_minor, share_bps: (0, cost_minor))
    seed = 0
    while not (played := await one(db, seed)).failure:
        seed += 1
    assert played.replay == f"SEED={seed} RUNS=1"
    assert (await one(db, seed)).failure == played.failure
