"""Accounts in MongoDB: the changes that reach over users, sessions, push tokens and revocations.

Each verb is one transaction, so a process that is killed in the middle has changed nothing. Letting somebody in and
what keeps them out (a new password, a ban, a deletion) write to the same user's row on purpose: of two at the same
time one sees the other, and no sign-in made with an old password outlives the change of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from models.also import Also
from models.auth.codes.rules import Way
from models.auth.codes.store import Code
from models.auth.devices.store import DeviceStore
from models.auth.rules import Key
from models.auth.session import Beside, Credentials, PushToken, Revocation, Session
from models.auth.sessions.store import SessionStore
from models.auth.standing.store import StandingStore
from models.db import Database, Document, DuplicateKeyError
from models.db import Session as Transaction
from models.users.profile import ACTIVE, DELETED, Account
from models.users.store import USERS, UserStore, account_of, exists_already

# What a deleted account is called wherever it is still the other side of something.
GONE_USERNAME, GONE_DISPLAY_NAME = "deleted", "Deleted account"
_CREDENTIALS = {"password_hash": 1, "status": 1, "role": 1, "second_factor": 1}
# Expired sessions removed in one transaction.
TIDY_MAX = 500


class Use(Protocol):
    """Uses a code up inside a transaction."""

    async def __call__(self, code: Code, transaction: Transaction) -> bool:
        """False: it was used already."""
        ...


class Belongings(Protocol):
    """What sign-ins bring and take with them when they end, in the same transaction: push tokens, keys."""

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Transaction) -> None:
        """Remove what these sign-ins brought."""
        ...

    async def drop_all(self, user_id: str, transaction: Transaction) -> None:
        """Remove all that the user has, since the account is deleted."""
        ...


class AccountStore:
    """``AccountStore(db, belongings)``. ``sessions``, ``devices`` and ``standing`` are the parts it is made of.

    ``belongings`` are other features' things that end with a sign-in, as push tokens do.
    """

    def __init__(self, db: Database, belongings: Sequence[Belongings] = ()) -> None:
        self._db = db
        self._users = db[USERS]
        self._people = UserStore(db)
        self.sessions = SessionStore(db)
        self.devices = DeviceStore(db)
        self.standing = StandingStore(db)
        self.beside_password: Beside | None = None
        self._belongings: tuple[Belongings, ...] = (self.devices, *belongings)

    # ---------------------------------------------------------------------------------------------------- who is it

    async def door(self, user_id: str, session_id: str) -> tuple[str, str, bool] | None:
        """Status and role of the user and whether the session lives: what every door asks. None without the user."""
        document, lives = await asyncio.gather(
            self._users.find_one({"_id": user_id}, {"status": 1, "role": 1}),
            self.sessions.lives(session_id, user_id),
        )
        return (document["status"], document["role"], lives) if document else None

    async def status(self, user_id: str) -> str | None:
        """The status of a user; None without one."""
        document = await self._users.find_one({"_id": user_id}, {"status": 1})
        return document["status"] if document else None

    async def account(self, user_id: str) -> Account | None:
        """The account of that id."""
        return await self._people.account(user_id)

    async def credentials(self, key: Key, value: str) -> Credentials | None:
        """The account that goes by that key."""
        return _credentials(await self._users.find_one({key.value: value}, _CREDENTIALS))

    async def credentials_of(self, user_id: str) -> Credentials | None:
        """The account of that id; None also for a deleted one."""
        return _credentials(await self._users.find_one({"_id": user_id}, _CREDENTIALS))

    async def taken(self, keys: Mapping[Key, str]) -> Key | None:
        """The first of the keys that somebody has."""
        for key, value in keys.items():
            if await self._users.find_one({key.value: value}, {"_id": 1}) is not None:
                return key
        return None

    # ------------------------------------------------------------------------------------------------------- coming

    async def register(
        self,
        row: Mapping[str, Any],
        session: Session,
        *,
        also: Also | None = None,
    ) -> Account:
        """Keep a new account with its first session, and ``also`` what comes with it.

        Refuses with ``ACCOUNT_EXISTS`` (``field``).
        """

        async def body(transaction: Transaction) -> None:
            await self._users.insert_one(dict(row), session=transaction)
            await self.sessions.insert(session, transaction)
            if also is not None:
                await also(transaction)

        try:
            await self._db.transaction(body)
        except DuplicateKeyError as error:
            raise exists_already(error) from None
        return account_of(dict(row))

    async def add(
        self, row: Mapping[str, Any], also: Callable[[Account, Transaction], Awaitable[None]]
    ) -> Account:
        """Keep a new account without a session, and ``also`` what comes with it. ``ACCOUNT_EXISTS`` (``field``)."""
        account = account_of(dict(row))

        async def body(transaction: Transaction) -> None:
            await self._users.insert_one(dict(row), session=transaction)
            await also(account, transaction)

        try:
            await self._db.transaction(body)
        except DuplicateKeyError as error:
            raise exists_already(error) from None
        return account

    async def sign_in(
        self, seen: Credentials, session: Session, *, note: Revocation, new_hash: str | None = None
    ) -> Account | None:
        """Keep a session for an account that is still as ``seen``; None when it has changed meanwhile.

        ``new_hash`` replaces the password's hash. Sign-ins beyond ``SESSIONS_MAX`` end; ``note`` tells of those.
        """

        async def body(transaction: Transaction) -> Document | None:
            changes = {
                "signed_in_at": session.created_at,
                **({"password_hash": new_hash} if new_hash else {}),
            }
            # Counted, so that the row changes for certain: a write of what is there already conflicts with nobody.
            document = await self._users.find_one_and_update(
                # A factor that was turned on meanwhile is asked for; one that was turned off is not missed.
                {**_as_seen(seen), **({} if seen.second_factor else {"second_factor": {"$exists": False}})},
                {"$set": changes, "$inc": {"sign_ins": 1}},
                return_document=True,
                session=transaction,
            )
            if document is None:
                return None
            await self.sessions.insert(session, transaction)
            await self._end(await self.sessions.surplus(seen.user_id, transaction), note, transaction)
            return document

        document = await self._db.transaction(body)
        return account_of(document) if document else None

    async def keep_push_token(self, push: PushToken) -> bool:
        """Keep a push token; False when its session is over."""

        async def body(transaction: Transaction) -> bool:
            if not await self.sessions.hold(push.session_id, push.user_id, transaction):
                return False
            await self.devices.keep(push, transaction)
            return True

        return await self._db.transaction(body)

    # -------------------------------------------------------------------------------------------------------- going

    async def end_sessions(self, note: Revocation, also: Also | None = None) -> Revocation | None:
        """End the sessions that ``note`` names (None: all of the user's) and leave the note, naming those that ended.

        None when none of them lived. ``also`` joins the transaction when some did.
        """

        async def body(transaction: Transaction) -> Revocation | None:
            ids = note.session_ids
            if ids is None:
                ids = tuple(await self.sessions.live_ids(note.user_id, transaction))
            told = await self._end(ids, note, transaction)
            if told is not None and also is not None:
                await also(transaction)
            return told

        return await self._db.transaction(body)

    async def change_password(
        self, seen: Credentials, new_hash: str, *, keep_session: str, note: Revocation
    ) -> tuple[bool, Revocation | None]:
        """Set a new hash and end all other sessions. ``(False, None)`` when the account has changed meanwhile."""

        async def body(transaction: Transaction) -> tuple[bool, Revocation | None]:
            changes = {"password_hash": new_hash, "password_changed_at": note.at, "updated_at": note.at}
            result = await self._users.update_one(_as_seen(seen), {"$set": changes}, session=transaction)
            if not result.matched_count:
                return False, None
            if self.beside_password is not None:
                await self.beside_password(seen.user_id, note.at, transaction)
            others = [x for x in await self.sessions.live_ids(seen.user_id, transaction) if x != keep_session]
            return True, await self._end(others, note, transaction)

        return await self._db.transaction(body)

    async def reset_password(
        self, code: Code, new_hash: str, *, note: Revocation, use: Use
    ) -> tuple[bool, Revocation | None]:
        """Set a new hash for a code that was shown, which is used up, and end all sessions. ``(False, None)``: not.

        The address that the code went to is verified by it.
        """

        async def body(transaction: Transaction) -> tuple[bool, Revocation | None]:
            changes = {"password_hash": new_hash, "password_changed_at": note.at, "updated_at": note.at}
            if not await use(code, transaction):
                await transaction.abort_transaction()
                return False, None
            query = {"_id": code.user_id, "status": ACTIVE}
            if not (
                await self._users.update_one(query, {"$set": changes}, session=transaction)
            ).matched_count:
                return False, None
            await self._verified(code, note.at, transaction)
            if self.beside_password is not None:
                await self.beside_password(code.user_id, note.at, transaction)
            ids = await self.sessions.live_ids(code.user_id, transaction)
            return True, await self._end(ids, note, transaction)

        return await self._db.transaction(body)

    async def verified(self, code: Code, now: datetime, *, use: Use) -> Account | None:
        """The address that a code went to is its owner's, and the code is used up; None when either was not."""

        async def body(transaction: Transaction) -> Document | None:
            return await self._verified(code, now, transaction) if await use(code, transaction) else None

        document = await self._db.transaction(body)
        return account_of(document) if document else None

    async def _verified(self, code: Code, now: datetime, transaction: Transaction) -> Document | None:
        name = "email" if code.way is Way.EMAIL else "phone"
        return await self._users.find_one_and_update(
            {"_id": code.user_id, "status": ACTIVE, name: code.address},
            {"$set": {f"{name}_verified_at": now, "updated_at": now}},
            return_document=True,
            session=transaction,
        )

    async def delete(self, seen: Credentials, note: Revocation) -> bool:
        """Make a tombstone of an account; its keys are free again. False when it has changed meanwhile."""
        now = note.at
        tombstone = {
            "$set": {
                "status": DELETED,
                "username": GONE_USERNAME,
                "display_name": GONE_DISPLAY_NAME,
                "deleted_at": now,
                "updated_at": now,
                # Their calls have yet to forget the name; taken away by ``forgotten``.
                "forget_owed_at": now,
            },
            "$unset": dict.fromkeys(
                (
                    *(
                        "email",
                        "email_key",
                        "phone",
                        "username_key",
                        "display_key",
                        "password_hash",
                        "avatar_url",
                    ),
                    *(
                        "rate_per_minute_minor",
                        "video_rate_per_minute_minor",
                        "email_verified_at",
                        "phone_verified_at",
                        "signed_in_at",
                        "sign_ins",
                        "second_factor",
                        "factor_off_at",
                    ),
                ),
                "",
            ),
        }

        async def body(transaction: Transaction) -> bool:
            result = await self._users.update_one(_as_seen(seen), tombstone, session=transaction)
            if not result.matched_count:
                return False
            await self._people.forget_blocks(seen.user_id, transaction)
            ids = await self.sessions.live_ids(seen.user_id, transaction)
            await self.sessions.end(ids, note.code, now, transaction)
            await self.sessions.strip(seen.user_id, transaction)
            for belongings in self._belongings:
                await belongings.drop_all(seen.user_id, transaction)
            await self.sessions.note(note, transaction)
            return True

        return await self._db.transaction(body)

    async def forget_owed(self, before: datetime) -> list[str]:
        """Users deleted ``before`` whose calls still know their names, because a process died in the middle."""
        cursor = self._users.find({"forget_owed_at": {"$lt": before}}, {"_id": 1}).limit(TIDY_MAX)
        return [document["_id"] async for document in cursor]

    async def forgotten(self, user_id: str) -> None:
        """The calls have forgotten the deleted user."""
        await self._users.update_one({"_id": user_id}, {"$unset": {"forget_owed_at": ""}})

    async def tidy(self, *, expired_before: datetime, noted_before: datetime) -> int:
        """Remove sessions whose time is up, with their belongings, and old notes; how many sessions."""
        await self.sessions.remove_notes(noted_before)
        ids = await self.sessions.expired(expired_before, TIDY_MAX)

        async def body(transaction: Transaction) -> None:
            await self._drop_of_sessions(ids, transaction)
            await self.sessions.remove(ids, transaction)

        if ids:
            await self._db.transaction(body)
        return len(ids)

    async def _end(
        self, session_ids: tuple[str, ...] | list[str], note: Revocation, transaction: Transaction
    ) -> Revocation | None:
        ended = await self.sessions.end(session_ids, note.code, note.at, transaction) if session_ids else []
        if not ended:
            return None
        told = Revocation(
            id=note.id, user_id=note.user_id, session_ids=tuple(ended), code=note.code, at=note.at
        )
        await self._drop_of_sessions(ended, transaction)
        await self.sessions.note(told, transaction)
        return told

    async def _drop_of_sessions(self, session_ids: Sequence[str], transaction: Transaction) -> None:
        for belongings in self._belongings:
            await belongings.drop_of_sessions(session_ids, transaction)

    # ---------------------------------------------------------------------------------------------------- by others

    async def by_key(self, key: Key, value: str) -> Account | None:
        """The account that goes by that key."""
        document = await self._users.find_one({key.value: value})
        return account_of(document) if document else None


def _as_seen(seen: Credentials) -> Document:
    return {"_id": seen.user_id, "password_hash": seen.password_hash, "status": ACTIVE}


def _credentials(document: Document | None) -> Credentials | None:
    if document is None or "password_hash" not in document:
        return None
    return Credentials(
        user_id=document["_id"],
        password_hash=document["password_hash"],
        status=document["status"],
        role=document["role"],
        second_factor="second_factor" in document,
    )
