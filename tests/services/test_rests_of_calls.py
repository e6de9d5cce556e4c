"""When the jobs of calls and their money rest, and when they are wanted: by what is on their agendas."""

from __future__ import annotations

import pytest
from pymongo.errors import ConnectionFailure

from models.calls.renewals import EARLY_SECONDS
from models.db import Database
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import Stage, opened


@pytest.fixture
async def stage(db: Database, clock: VirtualClock, ids: CountingIds) -> Stage:
    return await opened(db, clock, ids, money=50_000)


async def test_what_has_been_told_is_written_down_soon_and_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stage.here.calls
    assert stage.here.rests(calls.unwritten)
    await stage.ann.request(stage.bob)
    assert not stage.here.rests(calls.unwritten)

    async def away(told: object) -> None:
        raise ConnectionFailure("away")

    with monkeypatch.context() as broken:
        broken.setattr(calls._store, "told", away)
        with pytest.raises(ConnectionFailure):
            await calls.flush_told()
    assert not stage.here.rests(calls.unwritten), "it is still to be written"
    await calls.flush_told()
    assert stage.here.rests(calls.unwritten)


async def test_renewals_are_looked_at_ten_seconds_before_the_first_is_due(
    stage: Stage, clock: VirtualClock
) -> None:
    board = stage.here.calls.board
    assert stage.here.rests(board.renewals)
    call = board.call((await stage.talk()).id)
    assert call is not None
    assert call.renew_at is not None
    clock.pass_((call.renew_at - clock.now()).total_seconds() - EARLY_SECONDS - 0.001)
    assert stage.here.rests(board.renewals)
    clock.pass_(0.001)
    assert not stage.here.rests(board.renewals)
    await stage.ann.end(call)
    assert stage.here.rests(board.renewals)


async def test_ticks_are_wanted_as_soon_as_a_call_runs_and_then_when_the_next_is_due(
    stage: Stage, clock: VirtualClock
) -> None:
    agenda = stage.here.billing.agenda
    assert stage.here.rests(agenda)
    call = await stage.talk()
    assert not stage.here.rests(agenda)
    await stage.here.jobs()
    assert stage.here.rests(agenda)
    clock.pass_(4.5)
    assert not stage.here.rests(agenda)
    await stage.ann.end(call)
    assert stage.here.rests(agenda)
