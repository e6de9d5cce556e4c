"""The faults of ``make chaos`` in small: three processes of the real server, official clients, and the books."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.books import Books
from tests.chaos.faults import FAULTS
from tests.chaos.play import play
from tests.chaos.story import Plan
from tests.chaos.town import Town, open_town
from tests.doors.phones import Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Every pair talks until the fault is over, and no fault lasts longer than it must.
SMALL = Plan(
    phones=6,
    talk=None,
    calls_before=1,
    talking=1.0,
    candidate_every=0.2,
    message_every=0.2,
    leaves_every=0,
    frozen=None,
    away=0.5,
    audit_beside=False,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    """Three processes, which all have outlived whatever the test before has done to them."""
    async with open_town(tmp_path_factory.mktemp("town"), mongo_uri=mongo_uri) as opened:
        yield opened


async def suffer(name: str, town: Town, exchange: Exchange) -> Books:
    played = await play(name, FAULTS[name], town, SMALL, exchange, lambda stage, share: None)
    books = played.books
    assert books.violations == []
    assert (books.lost, books.doubled, books.audit) == (0, 0, 0)
    assert (books.hit, books.resumed) == (3, 3)
    assert books.events > 0
    return books


@pytest.mark.parametrize("name", ["kill", "freeze", "redis", "roll"])
async def test_whatever_goes_no_call_ends_and_nothing_is_lost_or_told_twice(
    name: str, town: Town, exchange: Exchange
) -> None:
    await suffer(name, town, exchange)


async def test_no_call_ends_and_nothing_is_lost_when_the_primary_steps_down(
    exchange: Exchange, tmp_path: Path
) -> None:
    async with open_town(tmp_path, members=3) as town:
        await suffer("primary", town, exchange)
