"""A slice of ``make sim``: histories of each kind, a crash at every exchange of one, and faults that it must find."""

from __future__ import annotations

import pytest

from models.billing.meter import WalletMeter
from models.db import Database
from tests.sim.broken import BROKEN
from tests.sim.history import KINDS
from tests.sim.walk import Failed, play
from tests.sim.workers import Played, one, sweep

EACH = 25
# A short calm history with a paid call; its sweep is about as long as it has exchanges.
SWEPT_SEED = 23


@pytest.mark.parametrize("kind", KINDS)
async def test_histories_come_out_as_the_model_says(db: Database, kind: str) -> None:
    for seed in range(EACH):
        await play(db, seed, kind=kind)


async def test_a_process_may_die_after_any_exchange(db: Database) -> None:
    played: list[Played] = []
    assert await sweep(db, SWEPT_SEED, played.append) > 30, "the history of this seed is not swept"
    assert [one.failure for one in played if one.failure] == []
    assert all(one.faults["crash"] == 1 for one in played[1:])


async def test_a_seed_replays_exactly(db: Database) -> None:
    for kind in KINDS:
        for seed in range(3):
            assert await play(db, seed, kind=kind) == await play(db, seed, kind=kind)


async def test_careless_meters_are_found(db: Database) -> None:
    for broken, (kind, most) in BROKEN.items():
        assert await _found(db, broken, kind, most), f"{broken.__name__} is not found in {most} histories"


async def _found(db: Database, broken: type[WalletMeter], kind: str, most: int) -> bool:
    for seed in range(most):
        try:
            await play(db, seed, kind=kind, meter=broken)
        except Failed:
            return True
    return False


async def test_a_broken_history_says_how_to_replay_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.billing.rules._shares", lambda cost_minor, share_bps: (0, cost_minor))
    seed = 0
    while not (played := await one(db, seed)).failure:
        seed += 1
    assert played.replay == f"SEED={seed} RUNS=1"
    assert (await one(db, seed)).failure == played.failure
