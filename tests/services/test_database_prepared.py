"""A server that starts where another one was killed: what is prepared already is left alone."""

from __future__ import annotations

from typing import Any

from models.db import REGISTERED, Database
from models.ledger.store import WALLETS
from tests import databases
from tests.commands import Commands


async def changed_by_a_start(uri: str, name: str) -> list[str]:
    """The collections of which the next start changes the validator."""
    commands = Commands()
    next_one = Database(uri, name, listeners=[commands])
    try:
        await next_one.prepare()
    finally:
        await next_one.close()
    return [event.command["collMod"] for event in commands.asked if event.command_name == "collMod"]


async def test_a_start_changes_no_validator_that_is_there_already(mongo_uri: str, db: Database) -> None:
    """Such a change waits for each open transaction, and that of a killed server stays open for long."""
    assert await changed_by_a_start(mongo_uri, db.db.name) == []


async def test_a_validator_that_has_changed_is_put_right_and_no_other(mongo_uri: str, db: Database) -> None:
    databases.SPOILED.add(db.db.name)
    other: dict[str, Any] = {"$jsonSchema": {"bsonType": "object"}}
    await db.db.command("collMod", WALLETS, validator=other)
    assert await changed_by_a_start(mongo_uri, db.db.name) == [WALLETS]
    (found,) = await (await db.db.list_collections(filter={"name": WALLETS})).to_list()
    assert found["options"]["validator"] == REGISTERED[WALLETS].validator
