"""What is due of some to-dos and not done, counted. Any collection with an index over the field that says when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import ASCENDING
from pymongo.asynchronous.collection import AsyncCollection

from models.db import Document

# A longer backlog is counted as so many: what it says is clear by then, and counting stays cheap.
OVERDUE_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Overdue:
    """What is due of some to-dos and not done: how many (at most ``OVERDUE_MAX``), and since when the first is."""

    number: int
    since: datetime | None


async def overdue(
    rows: AsyncCollection[Document],
    now: datetime,
    *,
    by: str = "due_at",
    where: Mapping[str, Any] | None = None,
) -> Overdue:
    """What of ``rows`` is due at ``now`` by the field ``by``, which has an index: of its own, or after ``where``."""
    due = {by: {"$lte": now}, **(where or {})}
    first = await rows.find_one(due, {by: 1}, sort=[(by, ASCENDING)])
    if first is None:
        return Overdue(0, None)
    return Overdue(await rows.count_documents(due, limit=OVERDUE_MAX), first[by])
