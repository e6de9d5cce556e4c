"""Prepared databases with which tests take turns: to make one takes longer than most tests.

Whoever takes one gives it back; what is in it then is taken out. One that a test has changed beyond its contents
(collections, validators, indexes) is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from models.db import REGISTERED
from tests.patience import PATIENT_MS

# Databases whose indexes or validators a test has changed: no other test gets them.
SPOILED: set[str] = set()
# The names of those that no test uses just now, by the mongod of the session; of other ones nothing is kept.
_FREE: dict[str, list[str]] = {}


def keep(uri: str) -> None:
    """From now on the databases of this mongod are kept for others."""
    _FREE[uri] = []


def forget(uri: str) -> None:
    """It is gone, and they with it."""
    del _FREE[uri]


def take(uri: str) -> tuple[str, bool]:
    """The name of an empty database, and whether it is a prepared one."""
    free = _FREE.get(uri)
    return (free.pop(), True) if free else (f"t{uuid4().hex[:12]}", False)


async def give_back(uri: str, name: str, client: AsyncMongoClient[Any]) -> None:
    """For the end of a test that has used a database, after it was prepared and when nobody writes to it any more."""
    if uri in _FREE and await _emptied(client[name]):
        _FREE[uri].append(name)
    else:
        await client.drop_database(name)


@asynccontextmanager
async def lent(uri: str) -> AsyncIterator[str]:
    """A database for servers of other processes, which all end before it is given back, and none by a kill."""
    name, _ = take(uri)
    yield name
    async with AsyncMongoClient[Any](uri, serverSelectionTimeoutMS=PATIENT_MS) as client:
        await give_back(uri, name, client)


async def _emptied(database: AsyncDatabase[Any]) -> bool:
    """Take everything out of a database; whether it is as ``prepare`` makes it, and not changed by a test."""
    own = {name for name in await database.list_collection_names() if not name.startswith("system.")}
    if own != set(REGISTERED) or database.name in SPOILED:
        return False
    await asyncio.gather(*(database[name].delete_many({}) for name in await _filled(database)))
    return True


async def _filled(database: AsyncDatabase[Any]) -> list[str]:
    """The collections in which there is something, by one question."""
    first, *others = sorted(REGISTERED)
    pipeline: list[dict[str, Any]] = [*_any_of(first)]
    pipeline += [{"$unionWith": {"coll": name, "pipeline": _any_of(name)}} for name in others]
    return [found["name"] async for found in await database[first].aggregate(pipeline)]


def _any_of(name: str) -> list[dict[str, Any]]:
    return [{"$limit": 1}, {"$project": {"_id": 0, "name": {"$literal": name}}}]
