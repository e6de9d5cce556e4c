"""What is acknowledged has been written to the disk of a majority: as the server is shipped, for whatever it writes."""

from __future__ import annotations

from models.calls.store import LOCKS
from models.db import Database, Session
from tests.commands import Commands
from tests.patience import as_shipped

DURABLE = {"w": "majority", "j": True}


async def test_each_write_waits_for_the_disks_of_a_majority(mongo_uri: str, db: Database) -> None:
    commands = Commands()
    with as_shipped():
        shipped = Database(mongo_uri, db.db.name, listeners=[commands])
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
    concerns = {
        event.command_name: event.command["writeConcern"]
        for event in commands.asked
        if "writeConcern" in event.command
    }
    assert concerns == dict.fromkeys(written, DURABLE)
