"""Descriptions and candidates for legs without a socket, in MongoDB, until they are polled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from models.calls.call import Role
from models.db import Database, DuplicateKeyError, collection, index

SIGNALS = collection(
    "call_signals", index("call_id", "to", "number", unique=True), index("expires_at", ttl_seconds=0)
)

# They outlive the longest call by a little.
SIGNAL_HOURS = 6
SIGNALS_PER_LEG_MAX = 1024


@dataclass(frozen=True, slots=True)
class Signal:
    """A description or candidate kept for a leg that polls. ``number`` rises by one per leg and call."""

    number: int
    kind: str
    sender: str
    body: Any
    at: datetime


class SignalStore:
    """The signals of a call's two legs."""

    def __init__(self, db: Database) -> None:
        self._signals = db[SIGNALS]

    async def keep(
        self, call_id: str, to: Role, kind: str, sender: str, bodies: Sequence[Any], now: datetime
    ) -> int:
        """Append signals for a leg; how many fitted.

        Numbers are dense per leg. A callee's begin at 2: number 1 is the offer that came with the ring.
        """
        newest = await self._signals.find_one(
            {"call_id": call_id, "to": to.value}, {"number": 1}, sort=[("number", -1)]
        )
        number = newest["number"] if newest else int(to is Role.CALLEE)
        kept = 0
        while kept < len(bodies) and number < SIGNALS_PER_LEG_MAX:
            number += 1
            row = {
                "call_id": call_id,
                "to": to.value,
                "number": number,
                "kind": kind,
                "sender": sender,
                "body": bodies[kept],
                "at": now,
                "expires_at": now + timedelta(hours=SIGNAL_HOURS),
            }
            try:
                await self._signals.insert_one(row)
            except DuplicateKeyError:
                continue  # another process took the number
            kept += 1
        return kept

    async def after(self, call_id: str, to: Role, number: int, most: int) -> list[Signal]:
        """What a leg has not polled yet, in order."""
        cursor = self._signals.find(
            {"call_id": call_id, "to": to.value, "number": {"$gt": number}}, sort=[("number", 1)]
        ).limit(most)
        return [Signal(d["number"], d["kind"], d["sender"], d["body"], d["at"]) async for d in cursor]

    async def drop(self, call_id: str) -> None:
        """Forget the addresses in a call's signals once it is over."""
        await self._signals.delete_many({"call_id": call_id})
