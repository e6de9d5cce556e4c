"""Blocked networks in MongoDB. A row stays for a week after its end, so that the next automatic one is longer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from models.also import Also
from models.blocks.rules import AUTOMATIC, REMEMBERED_FOR, automatic_length
from models.db import Database, Document, DuplicateKeyError, Session, collection, index

_DATE = {"bsonType": "date"}
# _id is the network as text. Not "blocks": those are between people.
ADDRESS_BLOCKS = collection(
    "address_blocks",
    index("changed_at"),
    index("until"),
    index("purge_at", ttl_seconds=0),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "until", "reason", "by", "made_at", "changed_at", "purge_at"],
            "properties": {
                "until": _DATE,
                "made_at": _DATE,
                "changed_at": _DATE,
                "purge_at": _DATE,
                "times": {"bsonType": ["int", "long"], "minimum": 0},
            },
        }
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A network that is kept out. ``times``: how often in a row that was done by itself."""

    network: str
    until: datetime
    reason: str
    by: str
    made_at: datetime
    changed_at: datetime
    times: int = 0

    @property
    def automatic(self) -> bool:
        """Whether nobody has asked for it."""
        return self.times > 0


class BlockStore:
    """Reads and writes blocks."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._rows = db[ADDRESS_BLOCKS]

    async def put(self, block: Block, also: Also) -> None:
        """Keep a block in place of the one there was, and ``also`` with it."""
        row = {
            "until": block.until,
            "reason": block.reason,
            "by": block.by,
            "made_at": block.made_at,
            "changed_at": block.changed_at,
            "times": block.times,
            "purge_at": block.until + REMEMBERED_FOR,
        }

        async def body(session: Session) -> None:
            await self._rows.replace_one({"_id": block.network}, row, upsert=True, session=session)
            await also(session)

        await self._db.transaction(body)

    async def end(self, network: str, now: datetime, also: Also) -> bool:
        """End a block that holds, and ``also`` with it; False without one."""

        async def body(session: Session) -> bool:
            changes = {"$set": {"until": now, "changed_at": now, "times": 0}}
            query = {"_id": network, "until": {"$gt": now}}
            if not (await self._rows.update_one(query, changes, session=session)).modified_count:
                return False
            await also(session)
            return True

        return await self._db.transaction(body)

    async def add_automatic(self, network: str, reason: str, by: str, now: datetime) -> Block | None:
        """Block for as long as is due after the blocks before; None: it is blocked already."""
        times = {"$add": [{"$ifNull": ["$times", 0]}, 1]}
        lengths = [
            {"case": {"$eq": ["$times", number]}, "then": now + automatic_length(number)}
            for number in range(1, len(AUTOMATIC))
        ]
        change: list[Document] = [
            {
                "$set": {
                    "times": times,
                    "reason": {"$literal": reason},
                    "by": {"$literal": by},
                    "made_at": now,
                    "changed_at": now,
                }
            },
            {"$set": {"until": {"$switch": {"branches": lengths, "default": now + AUTOMATIC[-1]}}}},
            {"$set": {"purge_at": {"$add": ["$until", REMEMBERED_FOR.total_seconds() * 1000]}}},
        ]
        try:
            row = await self._rows.find_one_and_update(
                {"_id": network, "until": {"$not": {"$gt": now}}}, change, upsert=True, return_document=True
            )
        except DuplicateKeyError:
            return None  # another process was first, or somebody has blocked it
        return _block(row) if row else None

    async def live(self, now: datetime) -> list[Block]:
        """The blocks that hold, the last made first."""
        cursor = self._rows.find({"until": {"$gt": now}}, sort=[("made_at", -1), ("_id", 1)])
        return [_block(row) async for row in cursor]

    async def changed_after(self, at: datetime) -> list[Block]:
        """What has been blocked or let in since."""
        return [_block(row) async for row in self._rows.find({"changed_at": {"$gt": at}})]


def _block(row: Document) -> Block:
    return Block(
        network=row["_id"],
        until=row["until"],
        reason=row["reason"],
        by=row["by"],
        made_at=row["made_at"],
        changed_at=row["changed_at"],
        times=row.get("times", 0),
    )
