"""What the tests share: a real mongod for the session, a database for each test, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import server.wiring  # noqa: F401 - declares every collection
from models.db import Database
from server.mongod import EmbeddedMongod
from tests.fakes import CountingIds, FakeAlarms, FakeDoors, VirtualClock


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One mongod for each worker of the run."""
    folder: Path = tmp_path_factory.mktemp("mongod")
    mongod = EmbeddedMongod(folder, fast=True)
    uri = asyncio.run(mongod.start())
    yield uri
    asyncio.run(mongod.stop())


@pytest.fixture
async def db(mongo_uri: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An empty database of this test's own."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    database = Database(mongo_uri, name)
    await database.prepare()
    yield database
    await database.client.drop_database(name)
    await database.close()


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
