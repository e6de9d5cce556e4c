"""Bank accounts in MongoDB. They go with their owner's account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass
from datetime import datetime

from models.db import Database, Document, DuplicateKeyError, Session, collection, index

_TEXT = {"bsonType": "string", "minLength": 1}

BANK_ACCOUNTS = collection(
    "bank_accounts",
    index("user_id", "currency", "bank_code", "account_number", unique=True),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [
                *("_id", "user_id", "currency", "gateway", "bank_code", "bank_name", "account_number"),
                *("account_name", "created_at"),
            ],
            "properties": {
                **dict.fromkeys(("_id", "user_id", "gateway", "bank_code", "account_number"), _TEXT),
                **dict.fromkeys(("account_name", "bank_name"), _TEXT),
                "currency": {"bsonType": "string", "pattern": "^[A-Z]{3}$"},
                "created_at": {"bsonType": "date"},
            },
        }
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAccount:
    """A bank account as its owner keeps it. ``gateway`` is the one that has found its name, and pays to it."""

    id: str
    user_id: str
    currency: str
    gateway: str
    bank_code: str
    bank_name: str
    account_number: str
    account_name: str
    created_at: datetime

    @property
    def last4(self) -> str:
        """What is shown of the number."""
        return self.account_number[-4:]


# What else is written when one is kept, in the same transaction.
Beside = Callable[[SavedAccount, Session], Awaitable[None]]


class BankAccountStore:
    """``BankAccountStore(db)``. As belongings of an account it is given to the store of accounts."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._accounts = db[BANK_ACCOUNTS]
        self.beside: Beside | None = None

    async def add(self, account: SavedAccount) -> bool:
        """Keep one; False when the user has it already."""
        row = asdict(account)
        row["_id"] = row.pop("id")

        async def body(session: Session) -> None:
            await self._accounts.insert_one(row, session=session)
            if self.beside is not None:
                await self.beside(account, session)

        try:
            await self._db.transaction(body)
        except DuplicateKeyError:
            return False
        return True

    async def of_user(self, user_id: str) -> list[SavedAccount]:
        """A user's accounts, the oldest first."""
        found = self._accounts.find({"user_id": user_id}, sort=[("_id", 1)]).limit(100)
        return [_account(row) async for row in found]

    async def find(self, account_id: str) -> SavedAccount | None:
        """An account by its id."""
        row = await self._accounts.find_one({"_id": account_id})
        return _account(row) if row else None

    async def touch(self, user_id: str, session: Session) -> bool:
        """Write all of a user's accounts, so that the transaction conflicts with others that do; False: none."""
        done = await self._accounts.update_many(
            {"user_id": user_id}, {"$inc": {"withdrawals": 1}}, session=session
        )
        return bool(done.matched_count)

    async def remove(self, user_id: str, account_id: str) -> bool:
        """Forget one; False when the user has none of this id."""
        done = await self._accounts.delete_one({"_id": account_id, "user_id": user_id})
        return bool(done.deleted_count)

    # ----------------------------------------------------------------------------- belongings of accounts (models/auth)

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """They do not go with a sign-in."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Forget all of a user, whose account is deleted."""
        await self._accounts.delete_many({"user_id": user_id}, session=transaction)


def _account(row: Document) -> SavedAccount:
    fields = {name: value for name, value in row.items() if name not in ("_id", "withdrawals")}
    return SavedAccount(id=row["_id"], **fields)
