"""Reports in MongoDB.

Two unique keys say what else would be a race: one open report of the same thing by the same person (``open_key``, gone
when it is closed), and numbers 0, 1, 2 … for a person's reports of a day, of which there are only so many.

``tell_at`` is there until the administrators are told, ``act_at`` until what was decided is done: then, at the latest,
somebody else is to do it.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from models.also import Also
from models.db import Database, Document, DuplicateKeyError, Session, collection, index, taken
from models.reports import rules
from models.reports.report import Closing, Evidence, Reason, Report, Resolution, State

_TEXT = {"bsonType": "string"}
_DATE = {"bsonType": "date"}

REPORTS = collection(
    "reports",
    index("open_key", unique=True, where={"open_key": {"$exists": True}}),
    index("reporter_id", "day", "n", unique=True),
    index("state", "-_id"),
    index("tell_at", where={"tell_at": {"$exists": True}}),
    index("act_at", where={"act_at": {"$exists": True}}),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "reporter_id", "reported_id", "day", "n", "reason", "state", "created_at"],
            "properties": {
                "_id": _TEXT,
                "reporter_id": _TEXT,
                "reported_id": _TEXT,
                "n": {"bsonType": ["int", "long"], "minimum": 0, "maximum": rules.PER_DAY_MAX - 1},
                "reason": {"enum": [reason.value for reason in Reason]},
                "state": {"enum": [state.value for state in State]},
                "created_at": _DATE,
            },
            # Open and findable as such, or closed with what came of it.
            "oneOf": [
                {"properties": {"state": {"enum": ["open"]}}, "required": ["open_key"]},
                {
                    "properties": {"state": {"enum": ["closed"]}},
                    "required": ["closing"],
                    "not": {"required": ["open_key"]},
                },
            ],
        }
    },
)

# More than a request may take: until then the one who has it in hand is at it.
LEASE_SECONDS = 10


class ReportStore:
    """``ReportStore(db)``."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._reports = db[REPORTS]

    async def file(self, report: Report) -> Report | None:
        """Keep a report; the open one that there is of the same thing, or None when this person's day is full."""
        day = rules.day_of(report.created_at)
        row = _row(report) | {"day": day, "tell_at": report.created_at + timedelta(seconds=LEASE_SECONDS)}
        while True:
            known = await self.open_of(report.reporter_id, report.subject)
            if known is not None:
                return known
            row["n"] = await self._next(report.reporter_id, day)
            if row["n"] >= rules.PER_DAY_MAX:
                return None
            try:
                await self._reports.insert_one(row)
            except DuplicateKeyError as error:
                if taken(error) not in ("open_key", "reporter_id"):
                    raise
                continue  # another request of theirs was first: look again
            return report

    async def _next(self, reporter_id: str, day: str) -> int:
        query = {"reporter_id": reporter_id, "day": day}
        newest = await self._reports.find_one(query, {"n": 1}, sort=[("n", -1)])
        return int(newest["n"]) + 1 if newest else 0

    async def open_of(self, reporter_id: str, subject: str) -> Report | None:
        """The open report of that subject by that person."""
        row = await self._reports.find_one({"open_key": f"{reporter_id}:{subject}"})
        return _report(row) if row else None

    async def by_id(self, report_id: str) -> Report | None:
        """A report."""
        row = await self._reports.find_one({"_id": report_id})
        return _report(row) if row else None

    async def some(
        self, state: State | None, *, before: str | None, most: int, but_of: str | None = None
    ) -> list[Report]:
        """Reports of a state (None: of any) below an id, newest first, without those of one person."""
        query: Document = {} if state is None else {"state": state.value}
        if but_of is not None:
            query["reported_id"] = {"$ne": but_of}
        if before is not None:
            query["_id"] = {"$lt": before}
        return [_report(row) async for row in self._reports.find(query, sort=[("_id", -1)]).limit(most)]

    async def close(self, after: Report, also: Also) -> bool:
        """Close an open report that nobody has changed; False when somebody has. A ban is due from then on.

        ``also`` joins the transaction.
        """
        closing = after.closing
        assert closing is not None, "that is what closes it"
        change: Document = {"state": State.CLOSED.value, "version": after.version, "closing": asdict(closing)}
        if closing.resolution is Resolution.BANNED:
            change["act_at"] = closing.at + timedelta(seconds=LEASE_SECONDS)
        query = {"_id": after.id, "state": State.OPEN.value, "version": after.version - 1}

        async def body(session: Session) -> bool:
            result = await self._reports.update_one(
                query, {"$set": change, "$unset": {"open_key": ""}}, session=session
            )
            if result.modified_count == 1:
                await also(session)
            return result.modified_count == 1

        return await self._db.transaction(body)

    # ------------------------------------------------------------------------------------------------------ what is due

    async def told(self, report_id: str) -> None:
        """The administrators are told."""
        await self._reports.update_one({"_id": report_id}, {"$unset": {"tell_at": ""}})

    async def acted(self, report_id: str) -> None:
        """What was decided is done."""
        await self._reports.update_one({"_id": report_id}, {"$unset": {"act_at": ""}})

    async def is_untold(self, report_id: str) -> bool:
        """Whether the administrators may not have been told."""
        return await self._has(report_id, "tell_at")

    async def is_unacted(self, report_id: str) -> bool:
        """Whether what was decided may not be done."""
        return await self._has(report_id, "act_at")

    async def claim_untold(self, now: datetime) -> Report | None:
        """A report that nobody has told of in time; others leave it to the caller for ``LEASE_SECONDS``."""
        return await self._claim("tell_at", now)

    async def claim_unacted(self, now: datetime) -> Report | None:
        """A closed report of which the decision is not done; others leave it to the caller for ``LEASE_SECONDS``."""
        return await self._claim("act_at", now)

    async def _has(self, report_id: str, mark: str) -> bool:
        query = {"_id": report_id, mark: {"$exists": True}}
        return await self._reports.find_one(query, {"_id": 1}) is not None

    async def _claim(self, mark: str, now: datetime) -> Report | None:
        row = await self._reports.find_one_and_update(
            {mark: {"$lte": now}},
            {"$set": {mark: now + timedelta(seconds=LEASE_SECONDS)}},
            sort=[(mark, 1), ("_id", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _report(row) if row else None


def _row(report: Report) -> Document:
    return {
        "_id": report.id,
        "open_key": f"{report.reporter_id}:{report.subject}",
        "reporter_id": report.reporter_id,
        "reported_id": report.reported_id,
        "reason": report.reason.value,
        "comment": report.comment,
        "evidence": asdict(report.evidence) if report.evidence else None,
        "state": State.OPEN.value,
        "created_at": report.created_at,
        "version": report.version,
    }


def _report(row: Document) -> Report:
    closing = row.get("closing")
    return Report(
        id=row["_id"],
        reporter_id=row["reporter_id"],
        reported_id=row["reported_id"],
        reason=Reason(row["reason"]),
        comment=row["comment"],
        evidence=Evidence(**row["evidence"]) if row["evidence"] else None,
        created_at=row["created_at"],
        version=row["version"],
        closing=Closing(**{**closing, "resolution": Resolution(closing["resolution"])}) if closing else None,
    )
