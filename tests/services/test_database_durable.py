"""What is acknowledged has been written to the disk of a majority: as the server is shipped, for whatever it writes."""

from __future__ import annotations

from typing import Any

from pymongo.monitoring import CommandListener, CommandStartedEvent

from models.calls.store import LOCKS
from models.db import Database, Session
from tests.patience import as_shipped

DURABLE = {"w": "majority", "j": True}


class Said(CommandListener):
    """The write concern of each command that has one, by its name."""

    def __init__(self) -> None:
        self.concerns: dict[str, Any] = {}

    def started(self, event: CommandStartedEvent) -> None:
        if "writeConcern" in event.command:
            self.concerns[event.command_name] = dict(event.command["writeConcern"])

    def succeeded(self, event: object) -> None:
        """Nothing to note."""

    def failed(self, event: object) -> None:
        """Nothing to note."""


async def test_each_write_waits_for_the_disks_of_a_majority(mongo_uri: str, db: Database) -> None:
    said = Said()
    with as_shipped():
        shipped = Database(mongo_uri, db.db.name, listeners=[said])
    try:
        await shipped[LOCKS].insert_one({"_id": "u1"})
        await shipped[LOCKS].update_one({"_id": "u1"}, {"$set": {"seen": True}})
        await shipped[LOCKS].find_one_and_update({"_id": "u1"}, {"$set": {"seen": False}})

        async def body(session: Session) -> None:
            await shipped[LOCKS].delete_one({"_id": "u1"}, session=session)

        await shipped.transaction(body)
    finally:
        await shipped.close()
    written = ("insert", "update", "findAndModify", "commitTransaction")
    assert said.concerns == dict.fromkeys(written, DURABLE)
