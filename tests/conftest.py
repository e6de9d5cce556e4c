"""What the tests share: a real mongod for the session, a database for each test, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import server.wiring  # noqa: F401 - declares every collection
from models.db import REGISTERED, Database
from server.mongod import EmbeddedMongod
from tests.fakes import CountingIds, FakeAlarms, FakeDoors, VirtualClock
from tests.patience import SPOILED, be_patient

be_patient()


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One mongod for each worker of the run."""
    folder: Path = tmp_path_factory.mktemp("mongod")
    mongod = EmbeddedMongod(folder, fast=True)
    uri = asyncio.run(mongod.start())
    yield uri
    asyncio.run(mongod.stop())


@pytest.fixture(scope="session")
def databases() -> list[str]:
    """The names of prepared databases that no test uses just now: to make one takes longer than most tests."""
    return []


@pytest.fixture
async def db(mongo_uri: str, databases: list[str]) -> AsyncIterator[Database]:
    """An empty database of this test's own."""
    known = databases.pop() if databases else None
    database = Database(mongo_uri, known or f"t{uuid4().hex[:12]}")
    if known is None:
        await database.prepare()
    yield database
    if await _emptied(database):
        databases.append(database.db.name)
    await database.close()


async def _emptied(database: Database) -> bool:
    """Take everything out of a database; whether it is as ``prepare`` makes it, and not changed by a test."""
    present = {one["name"]: one async for one in await database.db.list_collections()}
    own = {name for name in present if not name.startswith("system.")}
    if own != set(REGISTERED) or database.db.name in SPOILED:
        await database.client.drop_database(database.db.name)
        return False
    await asyncio.gather(*(database.db[name].delete_many({}) for name in await _filled(database)))
    return True


async def _filled(database: Database) -> list[str]:
    """The collections in which there is something, by one question."""
    first, *others = sorted(REGISTERED)
    pipeline: list[dict[str, Any]] = [*_any_of(first)]
    pipeline += [{"$unionWith": {"coll": name, "pipeline": _any_of(name)}} for name in others]
    return [found["name"] async for found in await database.db[first].aggregate(pipeline)]


def _any_of(name: str) -> list[dict[str, Any]]:
    return [{"$limit": 1}, {"$project": {"_id": 0, "name": {"$literal": name}}}]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def ids() -> CountingIds:
    return CountingIds()


@pytest.fixture
def alarms() -> FakeAlarms:
    return FakeAlarms()


@pytest.fixture
def doors() -> FakeDoors:
    return FakeDoors()
