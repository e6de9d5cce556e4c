"""Keys of devices in MongoDB.

A device's lasting keys are one row. Its one-time keys are rows of their own, under the ``set_id`` of that row: with
another identity key there is another set, and no key of the old one is ever given out with the new one.

A one-time key is given out by one guarded update, so that nobody else gets it; what is left of its row keeps its id
from being filled again by an upload that comes twice. If the process dies right then, the key is lost and nobody has
it twice.

Keys end with the sign-in that brought them, in the transaction that ends it (``models.auth.session.Belongings``).
Whoever ends a set leaves a note for those who have claimed from it; telling is done after the commit, by whoever
reads the note.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from models.auth.sessions.store import SessionStore
from models.db import Database, Document, DuplicateKeyError, collection, index
from models.db import Session as Transaction
from models.errors import Refusal
from models.keys import rules
from models.keys.keys import Change, DeviceKeys, Kind, Owner, Prekey, Upload

DEVICE_KEYS = collection(
    "device_keys",
    # _id is "user:device".
    index("user_id", "updated_at"),
    index("session_id"),
    index("set_id", unique=True),
)
PREKEYS = collection(
    "prekeys",
    # _id is "set:kind:id".
    index("set_id", "kind", "n", where={"free": True}),
    index("set_id"),
    index("claimed_at"),
)
# Who has claimed from a set, and is told when it ends. _id is "set:user".
KEY_WATCHERS = collection("key_watchers", index("set_id"), index("user_id"))
# Sets that have ended, until their watchers are told. _id is the set's.
KEY_CHANGES = collection("key_changes", index("tell_at"))

# How long the id of a key that was given out stays taken; an upload is not tried again for longer.
CLAIMED_KEPT = timedelta(days=30)
# Until then the one who has taken a note is at it.
TELL_SECONDS = 10
# Watchers that are told at once.
WATCHERS_PAGE = 500
_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)


class KeyStore:
    """``KeyStore(db)``. As belongings of sign-ins it is given to the store of accounts."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._sessions = SessionStore(db)
        self._devices = db[DEVICE_KEYS]
        self._prekeys = db[PREKEYS]
        self._watchers = db[KEY_WATCHERS]
        self._changes = db[KEY_CHANGES]

    # ----------------------------------------------------------------------------------------------------- one's own

    async def put(self, owner: Owner, upload: Upload, *, new_set: str, now: datetime) -> DeviceKeys | None:
        """Keep what a device hands in, as a whole or not at all; None when its sign-in is over.

        Refuses with ``IDENTITY_CHANGED`` (the same sign-in has another identity key here), ``KEY_ID_TAKEN`` and
        ``VALIDATION_FAILED`` (too many keys, or the first upload is incomplete).
        """

        async def body(transaction: Transaction) -> DeviceKeys | None:
            if not await self._sessions.hold(owner.session_id, owner.user_id, transaction):
                return None
            row = await self._devices.find_one({"_id": _device_id(owner)}, session=transaction)
            if row is not None and not rules.same_identity(row["identity_key"], upload.identity_key):
                if row["session_id"] == owner.session_id:
                    raise Refusal("IDENTITY_CHANGED")
                await self._end([row], upload.identity_key, transaction)
                row = None
            row = _merged(row, owner, upload, new_set, now)
            row["refills"] = await self._add(row, upload, transaction)
            await self._devices.replace_one({"_id": row["_id"]}, row, upsert=True, session=transaction)
            await self._end(await self._surplus(owner.user_id, transaction), None, transaction)
            return _device_keys(row)

        return await self._db.transaction(body)

    async def _add(self, row: Document, upload: Upload, transaction: Transaction) -> dict[str, int]:
        """Add the one-time keys that are new; the refills after it."""
        set_id, before, added = row["set_id"], Counter[Kind](), Counter[Kind]()
        for kind, prekeys in upload.one_time.items():
            known = await self._fingerprints(set_id, kind, prekeys, transaction)
            fresh = [prekey for prekey in prekeys if prekey.id not in known]
            _refuse_taken(rules.name_of(kind), prekeys, known)
            query = {"set_id": set_id, "kind": kind.value, "free": True}
            before[kind] = await self._prekeys.count_documents(query, session=transaction)
            if fresh and before[kind] + len(fresh) > rules.KEPT_MAX:
                sentence = f"At most {rules.KEPT_MAX} are kept, and {before[kind]} are here."
                raise rules.wrong(rules.name_of(kind), sentence)
            first, added[kind] = row["uploaded"], len(fresh)
            row["uploaded"] += len(fresh)
            documents = [_prekey_row(set_id, kind, prekey, first + n) for n, prekey in enumerate(fresh)]
            if documents:
                await self._prekeys.insert_many(documents, session=transaction)
        refills = {Kind(name): count for name, count in row["refills"].items()}
        return {kind.value: count for kind, count in rules.refills_after(refills, before, added).items()}

    async def _fingerprints(
        self, set_id: str, kind: Kind, prekeys: Collection[Prekey], transaction: Transaction
    ) -> dict[int, str]:
        """Those of the ids that were uploaded before, with what tells their keys apart."""
        ids = [_prekey_id(set_id, kind, prekey.id) for prekey in prekeys]
        cursor = self._prekeys.find(
            {"_id": {"$in": ids}}, {"key_id": 1, "fingerprint": 1}, session=transaction
        )
        return {row["key_id"]: row["fingerprint"] async for row in cursor}

    async def _surplus(self, user_id: str, transaction: Transaction) -> list[Document]:
        """The rows of devices beyond ``DEVICES_MAX``, longest not renewed."""
        order = [("updated_at", -1), ("_id", 1)]
        cursor = self._devices.find({"user_id": user_id}, sort=order, session=transaction)
        return [row async for row in cursor.skip(rules.DEVICES_MAX)]

    async def of_device(self, user_id: str, device_id: str) -> DeviceKeys | None:
        """The lasting keys of one device."""
        row = await self._devices.find_one({"_id": f"{user_id}:{device_id}"})
        return _device_keys(row) if row else None

    async def counts(self, set_id: str) -> dict[Kind, int]:
        """How many one-time keys of each kind wait for their claim."""
        return {kind: await self.left(set_id, kind) for kind in Kind}

    async def remove(self, user_id: str, device_id: str) -> None:
        """Remove the keys of one device. Safe to repeat."""

        async def body(transaction: Transaction) -> None:
            row = await self._devices.find_one({"_id": f"{user_id}:{device_id}"}, session=transaction)
            await self._end([row] if row else [], None, transaction)

        await self._db.transaction(body)

    # ------------------------------------------------------------------------------------------- sign-ins that end

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Transaction) -> None:
        """Remove the keys that these sign-ins brought."""
        cursor = self._devices.find({"session_id": {"$in": list(session_ids)}}, session=transaction)
        await self._end([row async for row in cursor], None, transaction)

    async def drop_all(self, user_id: str, transaction: Transaction) -> None:
        """Remove all keys of a user, and whose keys they have claimed."""
        await self._watchers.delete_many({"user_id": user_id}, session=transaction)
        cursor = self._devices.find({"user_id": user_id}, session=transaction)
        await self._end([row async for row in cursor], None, transaction)

    async def _end(
        self, rows: Collection[Document], identity_key: str | None, transaction: Transaction
    ) -> None:
        if not rows:
            return
        sets = [row["set_id"] for row in rows]
        await self._devices.delete_many({"set_id": {"$in": sets}}, session=transaction)
        await self._prekeys.delete_many({"set_id": {"$in": sets}}, session=transaction)
        notes = [
            {
                "_id": row["set_id"],
                "user_id": row["user_id"],
                "device_id": row["device_id"],
                "identity_key": identity_key,
                "tell_at": _AT_ONCE,
            }
            for row in rows
        ]
        await self._changes.insert_many(notes, session=transaction)

    # -------------------------------------------------------------------------------------------------- by others

    async def of_users(self, user_ids: Collection[str]) -> list[DeviceKeys]:
        """The lasting keys of all their devices, in a fixed order."""
        cursor = self._devices.find({"user_id": {"$in": list(user_ids)}}, sort=[("user_id", 1), ("_id", 1)])
        return [_device_keys(row) async for row in cursor]

    async def devices_of(self, user_ids: Collection[str]) -> dict[str, set[str]]:
        """The ids of the devices with keys of each of them; an entry for everybody who was asked for."""
        found: dict[str, set[str]] = {user_id: set() for user_id in user_ids}
        cursor = self._devices.find({"user_id": {"$in": list(found)}}, {"user_id": 1, "device_id": 1})
        async for row in cursor:
            found[row["user_id"]].add(row["device_id"])
        return found

    async def take(self, set_id: str, kind: Kind, now: datetime) -> Prekey | None:
        """Give out the one-time key that was uploaded first, to nobody else ever again; None when there is none."""
        row = await self._prekeys.find_one_and_update(
            {"set_id": set_id, "kind": kind.value, "free": True},
            {"$set": {"claimed_at": now}, "$unset": {"free": "", "key": "", "signature": ""}},
            sort=[("n", 1)],
        )
        return Prekey(id=row["key_id"], key=row["key"], signature=row.get("signature")) if row else None

    async def left(self, set_id: str, kind: Kind) -> int:
        """How many of that kind wait for their claim."""
        query = {"set_id": set_id, "kind": kind.value, "free": True}
        return int(await self._prekeys.count_documents(query))

    async def watch(self, set_ids: Collection[str], user_id: str) -> None:
        """Have the user told when these sets end. Before claiming: a set that has ended by then tells nobody."""
        for set_id in set_ids:
            with contextlib.suppress(DuplicateKeyError):  # a claim of theirs at the same time
                await self._watchers.replace_one(
                    {"_id": f"{set_id}:{user_id}"}, {"set_id": set_id, "user_id": user_id}, upsert=True
                )

    async def unwatch(self, set_ids: Collection[str], user_ids: Collection[str]) -> None:
        """Take ``watch`` back, for each of the users."""
        ids = [f"{set_id}:{user_id}" for set_id in set_ids for user_id in user_ids]
        if ids:
            await self._watchers.delete_many({"_id": {"$in": ids}})

    # ------------------------------------------------------------------------------------------------- timed work

    async def claim_change(self, now: datetime) -> Change | None:
        """A set that has ended and whose watchers nobody is telling; others leave it for ``TELL_SECONDS``."""
        row = await self._changes.find_one_and_update(
            {"tell_at": {"$lte": now}},
            {"$set": {"tell_at": now + timedelta(seconds=TELL_SECONDS)}},
            sort=[("tell_at", 1), ("_id", 1)],
        )
        if row is None:
            return None
        return Change(
            set_id=row["_id"],
            user_id=row["user_id"],
            device_id=row["device_id"],
            identity_key=row["identity_key"],
        )

    async def watchers(self, set_id: str) -> list[str]:
        """Some of those who are to be told of the set's end, and have not been."""
        cursor = self._watchers.find({"set_id": set_id}, {"user_id": 1}).limit(WATCHERS_PAGE)
        return [row["user_id"] async for row in cursor]

    async def change_told(self, set_id: str) -> None:
        """All watchers of the set have been told."""
        await self._changes.delete_one({"_id": set_id})

    async def tidy(self, now: datetime) -> int:
        """Let go of the ids of keys that were given out long ago; how many."""
        result = await self._prekeys.delete_many({"claimed_at": {"$lt": now - CLAIMED_KEPT}})
        return int(result.deleted_count)


def _merged(row: Document | None, owner: Owner, upload: Upload, new_set: str, now: datetime) -> Document:
    """The device's row with what was handed in. Refuses with ``KEY_ID_TAKEN`` and ``VALIDATION_FAILED``."""
    if row is None:
        if upload.signed is None or upload.registration_id is None:
            missing = "signedPreKey" if upload.signed is None else "registrationId"
            raise rules.wrong(missing, "Needed with a device's first keys.")
        row = {"_id": _device_id(owner), "set_id": new_set, "uploaded": 0, "refills": {}, "last_resort": {}}
    merged = {
        **row,
        "user_id": owner.user_id,
        "device_id": owner.device_id,
        "session_id": owner.session_id,
        "identity_key": upload.identity_key,
        "updated_at": now,
        "last_resort": dict(row["last_resort"]),
    }
    if upload.registration_id is not None:
        merged["registration_id"] = upload.registration_id
    if upload.signed is not None:
        _refuse_other("signedPreKey", row.get("signed"), upload.signed)
        merged["signed"] = _key_row(upload.signed)
    for kind, prekey in upload.last_resort.items():
        _refuse_other(rules.last_name_of(kind), row["last_resort"].get(kind.value), prekey)
        merged["last_resort"][kind.value] = _key_row(prekey)
    return merged


def _refuse_other(name: str, kept: Document | None, prekey: Prekey) -> None:
    if kept is not None and kept["id"] == prekey.id and kept["key"] != prekey.key:
        raise Refusal("KEY_ID_TAKEN", field=name, keyIds=[prekey.id])


def _refuse_taken(name: str, prekeys: Collection[Prekey], known: Mapping[int, str]) -> None:
    taken = [one.id for one in prekeys if known.get(one.id) not in (None, rules.fingerprint(one))]
    if taken:
        raise Refusal("KEY_ID_TAKEN", field=name, keyIds=taken)


def _device_id(owner: Owner) -> str:
    return f"{owner.user_id}:{owner.device_id}"


def _prekey_id(set_id: str, kind: Kind, key_id: int) -> str:
    return f"{set_id}:{kind.value}:{key_id}"


def _key_row(prekey: Prekey) -> Document:
    return {"id": prekey.id, "key": prekey.key, "signature": prekey.signature}


def _prekey_row(set_id: str, kind: Kind, prekey: Prekey, n: int) -> Document:
    row: Document = {
        "_id": _prekey_id(set_id, kind, prekey.id),
        "set_id": set_id,
        "kind": kind.value,
        "key_id": prekey.id,
        "key": prekey.key,
        "fingerprint": rules.fingerprint(prekey),
        "n": n,
        "free": True,
    }
    return row if prekey.signature is None else {**row, "signature": prekey.signature}


def _device_keys(row: Document) -> DeviceKeys:
    return DeviceKeys(
        set_id=row["set_id"],
        owner=Owner(user_id=row["user_id"], device_id=row["device_id"], session_id=row["session_id"]),
        identity_key=row["identity_key"],
        registration_id=row["registration_id"],
        signed=Prekey(**row["signed"]),
        last_resort={Kind(name): Prekey(**key) for name, key in row["last_resort"].items()},
        refills={Kind(name): count for name, count in row["refills"].items()},
    )
