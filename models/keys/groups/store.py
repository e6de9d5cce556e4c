"""Commits of encrypted groups in MongoDB.

The order is one guarded update: whoever moves the group from epoch ``n`` to ``n + 1`` has made the one commit of
``n``, and keeps it in the same transaction. A unique key says so once more. A new beginning is a step like a commit:
it moves the group to the next generation, in which nothing has happened.

``tell_at`` is there until the step's letters are posted: then, at the latest, somebody else is to post them.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from models.db import Database, Document, DuplicateKeyError, Session, collection, index
from models.keys.groups.step import BEGINNING, State, Step, Welcome

# _id is the conversation's.
GROUPS = collection("mls_groups")
STEPS = collection(
    "mls_steps",
    index("conversation_id", "generation", "epoch", unique=True),
    index("sender_id", "op_id", unique=True),
    index("tell_at", where={"tell_at": {"$exists": True}}),
)

# More than a request may take: until then the one who has taken the step is at it.
TELL_SECONDS = 10
# Of one group. A device further behind is added anew; at 64 KiB at most that is 64 MiB, at a usual 2 KiB two.
COMMITS_KEPT = 1000


class GroupStore:
    """``GroupStore(db)``."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._groups = db[GROUPS]
        self._steps = db[STEPS]

    async def state(self, conversation_id: str) -> State:
        """Where a group stands; at its very beginning when nothing has happened."""
        row = await self._groups.find_one({"_id": conversation_id})
        return State(row["generation"], row["epoch"]) if row else State()

    async def by_op(self, sender_id: str, op_id: str) -> Step | None:
        """The step that was taken with this ``opId``."""
        row = await self._steps.find_one({"sender_id": sender_id, "op_id": op_id})
        return _step(row) if row else None

    async def take(self, step: Step) -> bool:
        """Take a step from where it begins; False when the group stands elsewhere, or its ``opId`` was used."""
        await self._begun(step.conversation_id)
        place: Document = {"_id": step.conversation_id}
        if step.epoch == BEGINNING:
            place |= {"generation": step.generation - 1}
        else:
            place |= {"generation": step.generation, "epoch": step.epoch}
        after = {"generation": step.after.generation, "epoch": step.after.epoch}

        async def body(session: Session) -> bool:
            moved = await self._groups.update_one(place, {"$set": after}, session=session)
            if moved.matched_count:
                await self._steps.insert_one(_row(step), session=session)
            return bool(moved.matched_count)

        try:
            return await self._db.transaction(body)
        except DuplicateKeyError:
            return False

    async def _begun(self, conversation_id: str) -> None:
        first = {"generation": State().generation, "epoch": State().epoch}
        with contextlib.suppress(DuplicateKeyError):  # two at once: the other has
            await self._groups.update_one({"_id": conversation_id}, {"$setOnInsert": first}, upsert=True)

    async def commits(self, conversation_id: str, generation: int, *, after: int, most: int) -> list[Step]:
        """The commits of a generation made in later epochs than ``after``, in order."""
        query = {
            "conversation_id": conversation_id,
            "generation": generation,
            "epoch": {"$gt": max(after, BEGINNING)},
        }
        cursor = self._steps.find(query, sort=[("epoch", 1)]).limit(most)
        return [_step(row) async for row in cursor]

    async def is_told(self, step: Step) -> bool:
        """Whether the letters of a step are posted."""
        query = {"_id": step.id, "tell_at": {"$exists": True}}
        return await self._steps.find_one(query, {"_id": 1}) is None

    async def told(self, step: Step) -> None:
        """The letters of a step are posted; what is too old by it goes."""
        old: list[Document] = [{"generation": {"$lt": step.generation}}]
        if step.epoch >= COMMITS_KEPT:
            old.append({"generation": step.generation, "epoch": {"$lte": step.epoch - COMMITS_KEPT}})
        untold = {"tell_at": {"$exists": False}}
        await self._steps.delete_many({"conversation_id": step.conversation_id, **untold, "$or": old})
        await self._steps.update_one({"_id": step.id}, {"$unset": {"tell_at": ""}})

    async def claim_untold(self, now: datetime) -> Step | None:
        """A step whose letters nobody has posted in time; others leave it to the caller for ``TELL_SECONDS``."""
        row = await self._steps.find_one_and_update(
            {"tell_at": {"$lte": now}},
            {"$set": {"tell_at": now + timedelta(seconds=TELL_SECONDS)}},
            sort=[("tell_at", 1), ("_id", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _step(row) if row else None


def _row(step: Step) -> Document:
    return {
        "_id": step.id,
        "conversation_id": step.conversation_id,
        "generation": step.generation,
        "epoch": step.epoch,
        "commit": step.commit,
        "welcomes": [
            {"user_id": one.user_id, "device_id": one.device_id, "body": one.body} for one in step.welcomes
        ],
        "sender_id": step.sender_id,
        "device_id": step.device_id,
        "op_id": step.op_id,
        "at": step.at,
        "tell_at": step.at + timedelta(seconds=TELL_SECONDS),
    }


def _step(row: Document) -> Step:
    return Step(
        id=row["_id"],
        conversation_id=row["conversation_id"],
        generation=row["generation"],
        epoch=row["epoch"],
        commit=row["commit"],
        welcomes=tuple(Welcome(**one) for one in row["welcomes"]),
        sender_id=row["sender_id"],
        device_id=row["device_id"],
        op_id=row["op_id"],
        at=row["at"],
    )
