"""First answers kept by key, so that a retry gets the first answer again instead of doing the thing twice.

A claim is inserted before the work and completed with the answer after it. A claim whose worker died is taken over
(its process is gone, or it is older than any request can be); the verbs guard themselves by unique keys as well, so
a take-over finds what the first try had done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from models.db import Database, DuplicateKeyError, collection, index
from models.errors import Refusal

ONCE = collection("once", index("expires_at", ttl_seconds=0))

# CONTRACT §1: the first answer again for 24 h.
KEPT_HOURS = 24
# Longer than any request may run (the database's own bound is 8 s).
CLAIM_SECONDS = 15


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What was answered the first time: an ack or REST body."""

    body: Any


class Once:
    """Claims and first answers in MongoDB."""

    def __init__(self, db: Database, process: str) -> None:
        self._rows = db[ONCE]
        self._process = process

    async def claim(
        self, user_id: str, key: str, ask: Mapping[str, Any], now: datetime
    ) -> FirstAnswer | None:
        """None: the work is yours, finish with ``answer`` or ``forget``. Otherwise the first answer.

        Refuses with ``IDEMPOTENCY_MISMATCH`` (same key, other payload) and ``IDEMPOTENCY_IN_FLIGHT``.
        """
        row_id, print_ = f"{user_id}:{key}", fingerprint(ask)
        row = {
            "_id": row_id,
            "print": print_,
            "process": self._process,
            "claimed_at": now,
            "expires_at": now + timedelta(hours=KEPT_HOURS),
        }
        try:
            await self._rows.insert_one(row)
            return None
        except DuplicateKeyError:
            pass
        found = await self._rows.find_one({"_id": row_id})
        if found is None:
            raise Refusal("IDEMPOTENCY_IN_FLIGHT")
        if found["print"] != print_:
            raise Refusal("IDEMPOTENCY_MISMATCH")
        if "answer" in found:
            return FirstAnswer(found["answer"])
        if found["claimed_at"] > now - timedelta(seconds=CLAIM_SECONDS):
            raise Refusal("IDEMPOTENCY_IN_FLIGHT")
        taken = await self._rows.update_one(
            {"_id": row_id, "claimed_at": found["claimed_at"], "answer": {"$exists": False}},
            {"$set": {"claimed_at": now, "process": self._process}},
        )
        if not taken.modified_count:
            raise Refusal("IDEMPOTENCY_IN_FLIGHT")
        return None

    async def answer(self, user_id: str, key: str, body: Any) -> None:
        """Keep the answer of a claim."""
        await self._rows.update_one({"_id": f"{user_id}:{key}"}, {"$set": {"answer": body}})

    async def forget(self, user_id: str, key: str) -> None:
        """Give a claim back: the work was not done and may be tried again with the same key."""
        await self._rows.delete_one({"_id": f"{user_id}:{key}", "answer": {"$exists": False}})


# Not part of a fingerprint, by their names without case, _ and -: the digest of a payload with a PIN of four digits is
# the PIN for who tries ten thousand of them. Typed wrong and then right, it is the same request.
# A code of a second factor is another one when the same request is sent again with a fresh one.
_SECRETS = frozenset(
    "pin newpin oldpin currentpin transactionpin newtransactionpin currenttransactionpin password newpassword "
    "currentpassword oldpassword totp recoverycode".split()
)


def fingerprint(ask: Mapping[str, Any]) -> str:
    """A digest of a payload that does not depend on the order of its fields, nor on the secrets in it."""
    said = {name: value for name, value in ask.items() if not _secret(name)}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _secret(name: str) -> bool:
    return name.lower().replace("_", "").replace("-", "") in _SECRETS
