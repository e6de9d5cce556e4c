"""Bans and roles in MongoDB, and finding the people that they are about.

A change that is there already is none: nothing is written, and nothing joins it.
"""

from __future__ import annotations

from datetime import datetime

from models.also import Also
from models.auth.session import Revocation
from models.auth.sessions.store import SessionStore
from models.db import Database, Document
from models.db import Session as Transaction
from models.errors import Refusal
from models.users.profile import ACTIVE, ADMIN, BANNED, DELETED, Account
from models.users.rules import LAST_CHARACTER
from models.users.store import USERS, account_of


class StandingStore:
    """``StandingStore(db)``."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._users = db[USERS]
        self._sessions = SessionStore(db)

    async def people(self, limit: int) -> list[Account]:
        """Accounts, newest first."""
        return [account_of(d) async for d in self._users.find(sort=[("_id", -1)]).limit(limit)]

    async def found(
        self,
        begins: str,
        *,
        exact: tuple[str, str] | None,
        user_id: str,
        status: str | None,
        role: str | None,
        before: str | None,
        most: int,
    ) -> list[Account]:
        """Accounts, newest first, below an id: of that key or id, or whose folded names begin so ("": all)."""
        query: Document = {}
        if begins:
            span = {"$gte": begins, "$lt": begins + LAST_CHARACTER}
            ways: list[Document] = [{"username_key": span}, {"display_key": span}, {"_id": user_id}]
            if exact is not None:
                ways.append({exact[0]: exact[1]})
            query["$or"] = ways
        for name, value in (("status", status), ("role", role)):
            if value is not None:
                query[name] = {"$eq": value}
        if before is not None:
            query = {"$and": [query, {"_id": {"$lt": before}}]}
        return [account_of(d) async for d in self._users.find(query, sort=[("_id", -1)]).limit(most)]

    async def ban(self, note: Revocation, also: Also | None = None) -> bool:
        """Ban a user who is not deleted, and leave the note; False without one. Their sessions wait for an unban."""

        async def change(transaction: Transaction) -> None:
            await self._sessions.note(note, transaction)

        return await self._set_status(note.user_id, BANNED, note.at, change, also)

    async def unban(self, user_id: str, code: str, now: datetime, also: Also | None = None) -> bool:
        """Make a user active again and take back the notes of ``code``, or they would close the next sockets too."""

        async def change(transaction: Transaction) -> None:
            await self._sessions.take_back(user_id, code, transaction)

        return await self._set_status(user_id, ACTIVE, now, change, also)

    async def set_role(self, user_id: str, role: str, now: datetime, also: Also | None = None) -> bool:
        """Give a user who is not deleted a role; False without one. ``also`` joins the transaction of a change.

        Refuses with ``FORBIDDEN`` to take the role from the last administrator who may act.
        """

        async def body(transaction: Transaction) -> bool:
            found = await self._users.find_one(
                {"_id": user_id}, {"status": 1, "role": 1}, session=transaction
            )
            if found is None or found["status"] == DELETED:
                return False
            if found["role"] == role:
                return True
            changes = {"$set": {"role": role, "updated_at": now}}
            await self._users.update_one({"_id": user_id}, changes, session=transaction)
            if also is not None:
                await also(transaction)
            if role != ADMIN:
                # Two who take it from each other at once both write the trail: one of them comes here again.
                left = {"role": ADMIN, "status": ACTIVE}
                if await self._users.find_one(left, {"_id": 1}, session=transaction) is None:
                    raise Refusal("FORBIDDEN", reason="the last administrator")
            return True

        return await self._db.transaction(body)

    async def _set_status(
        self, user_id: str, status: str, now: datetime, change: Also, also: Also | None
    ) -> bool:
        async def body(transaction: Transaction) -> bool:
            found = await self._users.find_one({"_id": user_id}, {"status": 1}, session=transaction)
            if found is None or found["status"] == DELETED:
                return False
            if found["status"] == status:
                return True
            changes = {"$set": {"status": status, "updated_at": now}}
            await self._users.update_one({"_id": user_id}, changes, session=transaction)
            await change(transaction)
            if also is not None:
                await also(transaction)
            return True

        return await self._db.transaction(body)
