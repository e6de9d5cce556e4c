"""What the tests share: a real mongod for the session, a database for each test, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

import server.wiring  # noqa: F401 - declares every collection
from models.db import Database
from server.cli_run import event_loop_factory
from tests import databases
from tests.fakes import CountingIds, FakeAlarms, FakeDoors, VirtualClock
from tests.patience import be_patient
from tests.shared_mongod import SharedMongod

be_patient()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the server runs on."""
    return {"loop": event_loop_factory() or asyncio.new_event_loop}


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One mongod for each worker of the run."""
    folder: Path = tmp_path_factory.mktemp("mongod")
    mongod = SharedMongod(folder, fast=True)
    uri = asyncio.run(mongod.start())
    databases.keep(uri)
    yield uri
    databases.forget(uri)
    asyncio.run(mongod.stop())


@pytest.fixture
async def db(mongo_uri: str) -> AsyncIterator[Database]:
    """An empty database of this test's own."""
    name, prepared = databases.take(mongo_uri)
    database = Database(mongo_uri, name)
    if not prepared:
        await database.prepare()
    yield database
    await databases.give_back(mongo_uri, name, database.client)
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
