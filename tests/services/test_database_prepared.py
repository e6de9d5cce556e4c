"""A server that starts where another one was killed: what is prepared already is left alone."""

from __future__ import annotations

from typing import Any

from pymongo.monitoring import CommandListener, CommandStartedEvent

from models.db import REGISTERED, Database
from models.ledger.store import WALLETS
from tests import databases


class Changes(CommandListener):
    """The collections of which the validator was changed."""

    def __init__(self) -> None:
        self.of: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "collMod":
            self.of.append(event.command["collMod"])

    def succeeded(self, event: object) -> None:
        """Nothing to note."""

    def failed(self, event: object) -> None:
        """Nothing to note."""


async def test_a_start_changes_no_validator_that_is_there_already(mongo_uri: str, db: Database) -> None:
    """Such a change waits for each open transaction, and that of a killed server stays open for long."""
    changes = Changes()
    next_one = Database(mongo_uri, db.db.name, listeners=[changes])
    try:
        await next_one.prepare()
    finally:
        await next_one.close()
    assert changes.of == []


async def test_a_validator_that_has_changed_is_put_right_and_no_other(mongo_uri: str, db: Database) -> None:
    databases.SPOILED.add(db.db.name)
    other: dict[str, Any] = {"$jsonSchema": {"bsonType": "object"}}
    await db.db.command("collMod", WALLETS, validator=other)
    changes = Changes()
    next_one = Database(mongo_uri, db.db.name, listeners=[changes])
    try:
        await next_one.prepare()
    finally:
        await next_one.close()
    assert changes.of == [WALLETS]
    (found,) = await (await db.db.list_collections(filter={"name": WALLETS})).to_list()
    assert found["options"]["validator"] == REGISTERED[WALLETS].validator
