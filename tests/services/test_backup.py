"""Backup and restore on a real mongod: what comes back is what was there, at one instant, or nothing is taken."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import stat
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, Regex, Timestamp
from pymongo.errors import OperationFailure, WriteError

from models.audit.service import audit
from models.audit.store import SnapshotTooOld
from models.backup import store
from models.backup.archive import MANIFEST, Archive, Damaged, Writer, batches, lengths, sha256_of
from models.backup.service import backup, restore
from models.backup.store import Filling, Instant, NotEmpty, Unfinished
from models.billing.tariffs import Tariffs
from models.db import RESTORING, Database, HalfRestored
from models.ledger.journal import wallet_key
from models.ledger.service import Ledger
from models.ledger.store import JOURNAL, WALLETS, LedgerStore
from models.media.files.store import GridFiles
from server.clock import SystemClock
from tests.fakes import CountingIds, VirtualClock
from tests.services.bank_process import KEYS, TOTAL, move
from tests.services.callkit import Town
from tests.services.test_wallet_bank import ledger  # noqa: F401 - a fixture

ABOUT = {"version": "test", "takenAt": "2026-01-01T00:00:00.000Z"}
BY_THE_SECOND = Tariffs(rate_minor=6_000, first_block_seconds=1, block_seconds=1, minimum_minor=0)


@pytest.fixture
async def empty(mongo_uri: str) -> AsyncIterator[Database]:
    """A database that is not there yet."""
    database = Database(mongo_uri, f"restored{uuid4().hex[:10]}")
    yield database
    await database.client.drop_database(database.db.name)
    await database.close()


async def hashes(db: Database) -> dict[str, str]:
    """What MongoDB itself makes of each collection's content."""
    return dict((await db.db.command("dbHash"))["collections"])


async def definitions(db: Database) -> dict[str, Any]:
    """The options and indexes of each collection."""
    return {
        one["name"]: (
            one["options"],
            {i["name"]: dict(i) async for i in await db.db[one["name"]].list_indexes()},
        )
        async for one in await db.db.list_collections()
    }


async def lived_in(db: Database, clock: VirtualClock, ids: CountingIds) -> Town:
    """A town with a paid call that has ended, one that goes on, and a file."""
    town = Town(db, clock, ids)
    town.tariffs = BY_THE_SECOND
    await town.people("ann", "bob", "cid", "dan")
    here = town.process("here")
    for payer in ("ann", "cid"):
        await town.pay_in(here, payer, 500_000)
    for caller, callee in (("ann", "bob"), ("cid", "dan")):
        one, other = town.phone(here, caller), town.phone(here, callee)
        call = await other.accept(await one.request(other))
        await town.pass_(45, here, step=5)
        if caller == "ann":
            await one.end(call)
            await town.pass_(5, here, step=1)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(9):
            yield bytes([number]) * 100_000

    await GridFiles(db).save("a-file", pieces(), now=clock.now())
    return town


async def test_what_comes_back_is_what_was_there_to_the_last_bit(
    db: Database, empty: Database, clock: VirtualClock, ids: CountingIds, tmp_path: Path
) -> None:
    await lived_in(db, clock, ids)
    file = tmp_path / "a.backup"
    listed = await backup(db, file, ABOUT)
    await restore(empty, file, clock.now())
    assert await hashes(empty) == await hashes(db)
    assert await definitions(empty) == await definitions(db)
    counts = {one.name: one.documents for one in listed}
    assert counts["media.chunks"] == 4
    assert counts[JOURNAL] == await db[JOURNAL].count_documents({}) > 5
    report = await audit(empty, clock.now())
    assert report.clean
    assert report.read == (await audit(db, clock.now())).read
    whole = b"".join([piece async for piece in GridFiles(empty).read("a-file", start=0, end=900_000)])
    assert whole == b"".join(bytes([number]) * 100_000 for number in range(9))
    await empty.prepare()  # a server starts on it


async def test_no_type_of_mongodb_is_lost(db: Database, empty: Database, tmp_path: Path) -> None:
    odd = {
        "_id": {"b": 1, "a": 2},
        "int": 1,
        "long": Int64(1),
        "double": 1.0,
        "nan": float("inf"),
        "decimal": Decimal128(Decimal("1.10")),
        "bytes": Binary(b"\x00\xff", 7),
        "at": datetime(1969, 12, 31, tzinfo=UTC),
        "stamp": Timestamp(1, 2),
        "regex": Regex("a", "i"),
        "max": MaxKey(),
        "text": "e\u0301 \U0001f600",
        "none": None,
    }
    rows = db.db[f"odd.{uuid4().hex[:6]}"]
    await rows.insert_one(odd)
    await rows.create_index([("at", -1)], name="by at", partialFilterExpression={"int": {"$gt": Int64(0)}})
    try:
        await backup(db, tmp_path / "odd", ABOUT)
        await restore(empty, tmp_path / "odd", datetime.now(UTC))
        assert (await hashes(empty))[rows.name] == (await hashes(db))[rows.name]
        assert (await definitions(empty))[rows.name] == (await definitions(db))[rows.name]
    finally:
        await rows.drop()


async def test_the_rules_of_the_database_come_back_with_it(
    db: Database, empty: Database, clock: VirtualClock, ids: CountingIds, tmp_path: Path
) -> None:
    await lived_in(db, clock, ids)
    await backup(db, tmp_path / "a", ABOUT)
    await restore(empty, tmp_path / "a", clock.now())
    key = wallet_key((await empty[WALLETS].find_one({}))["user_id"], "NGN")  # type: ignore[index]
    with pytest.raises(WriteError):
        await empty[WALLETS].update_one(
            {"_id": key}, {"$set": {"primary": Int64(-1), "available": Int64(-1), "version": -1}}
        )


async def test_a_backup_that_is_taken_while_calls_are_charged_is_of_one_instant(
    db: Database,
    empty: Database,
    clock: VirtualClock,
    ids: CountingIds,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town = await lived_in(db, clock, ids)
    here = town.process("there")
    at_the_instant: list[int] = []
    metadata = Instant.metadata

    async def charged_meanwhile(self: Instant, name: str) -> str:
        if not at_the_instant:
            at_the_instant.append(await db[JOURNAL].count_documents({}))
        await town.pass_(10, here, step=5)  # the call that goes on is charged
        await town.pay_in(here, "ann", 100)
        return await metadata(self, name)

    monkeypatch.setattr(Instant, "metadata", charged_meanwhile)
    listed = await backup(db, tmp_path / "a", ABOUT)
    assert await db[JOURNAL].count_documents({}) > at_the_instant[0] + len(listed), "there was much going on"
    await restore(empty, tmp_path / "a", clock.now())
    assert await empty[JOURNAL].count_documents({}) == at_the_instant[0]
    assert (await audit(empty, clock.now())).clean


async def test_a_backup_among_racing_transfers_adds_up(
    db: Database,
    empty: Database,
    ledger: Ledger,  # noqa: F811
    tmp_path: Path,
) -> None:
    over = asyncio.Event()

    async def go_on_moving(mover: int) -> None:
        chance, turns = Random(mover), itertools.count()
        while not over.is_set():
            await move(ledger, chance, f"m{mover}-{next(turns)}", 5)

    moving = asyncio.gather(*(go_on_moving(mover) for mover in range(3)))
    while not await db[JOURNAL].find_one({"kind": "transfer"}):
        pass
    await backup(db, tmp_path / "a", ABOUT)
    over.set()
    await moving
    await restore(empty, tmp_path / "a", SystemClock().now())
    taken, made = [await there[JOURNAL].count_documents({"kind": "transfer"}) for there in (empty, db)]
    assert 0 < taken < made, "it was taken among them"
    found = await LedgerStore(empty).wallets(KEYS)
    assert sum(wallet.worth for wallet in found.values()) == TOTAL
    report = await audit(empty, SystemClock().now())
    assert {finding.invariant for finding in report.findings} <= {"I11"}, "no payments are behind this bank"


# ------------------------------------------------------------------------------------------------- damaged archives


@pytest.fixture
async def whole(db: Database, tmp_path: Path) -> Path:
    """A small backup."""
    await db["push_quiet"].insert_many(
        [{"_id": f"u{number}", "padding": "x" * number} for number in range(40)]
    )
    file = tmp_path / "whole"
    await backup(db, file, ABOUT)
    return file


def again(whole: Path, file: Path, **changed: bytes | None) -> Path:
    """The archive with other members: ``None`` leaves one out."""
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as sink:
        names = {name.rpartition("/")[2]: name for name in source.namelist()}
        for short, name in names.items():
            content = changed.get(short, source.read(name))
            if content is not None:
                sink.writestr(name, content)
        for short in changed.keys() - names.keys():
            sink.writestr(short, changed[short] or b"")
    return file


def member(whole: Path, end: str) -> bytes:
    with zipfile.ZipFile(whole) as source:
        return source.read(next(name for name in source.namelist() if name.endswith(end)))


def listing(whole: Path, **changed: Any) -> bytes:
    return json.dumps({**json.loads(member(whole, MANIFEST)), **changed}).encode()


async def refused(empty: Database, file: Path) -> str:
    """It is refused, and nothing was written."""
    with pytest.raises(Damaged) as caught:
        await restore(empty, file, datetime.now(UTC))
    assert await empty.db.list_collection_names() == []
    return str(caught.value)


async def test_an_archive_that_is_cut_off_anywhere_is_refused(
    whole: Path, empty: Database, tmp_path: Path
) -> None:
    raw = whole.read_bytes()
    cut = tmp_path / "cut"
    for length in (0, 1, 100, len(raw) // 2, len(raw) - 100, len(raw) - 1):
        cut.write_bytes(raw[:length])
        await refused(empty, cut)


async def test_an_archive_with_a_turned_bit_is_refused_or_still_whole(whole: Path, tmp_path: Path) -> None:
    """Not every byte of a ZIP archive says something: its times do not. Whatever is taken is what was put in."""
    raw = whole.read_bytes()
    places = range(0, len(raw), 131)
    assert still_whole(whole, tmp_path, [(at, 0x10) for at in places]) < len(raw) // 131 / 3


async def test_an_archive_whose_last_list_has_any_bit_turned_is_refused_or_still_whole(
    whole: Path, tmp_path: Path
) -> None:
    """The end of a ZIP archive says where all the rest of it stands: before the first byte, if one bit is wrong."""
    size = whole.stat().st_size
    still_whole(whole, tmp_path, [(at, 1 << bit) for at in range(size - 22, size) for bit in range(8)])


def still_whole(whole: Path, tmp_path: Path, turns: list[tuple[int, int]]) -> int:
    """How many archives with one of these bits turned are taken for what was put in; the others are refused."""
    raw, turned, taken = bytearray(whole.read_bytes()), tmp_path / "turned", 0
    there = Archive(whole)
    for at, bits in turns:
        raw[at] ^= bits
        turned.write_bytes(raw)
        raw[at] ^= bits
        try:
            archive = Archive(turned)
        except Damaged:
            continue
        try:
            archive.check()
        except Damaged:
            continue
        else:
            taken += 1
            assert archive.collections == there.collections
        finally:
            archive.close()
    there.close()
    return taken


async def test_an_archive_that_does_not_hold_what_it_names_is_refused(
    whole: Path, empty: Database, tmp_path: Path
) -> None:
    quiet, file = member(whole, "/push_quiet.bson"), tmp_path / "other"
    first = next(lengths(quiet))
    cases: dict[str, dict[str, Any]] = {
        "holds other documents of push_quiet": {"push_quiet.bson": quiet[first:]},
        "has a document that is none": {"push_quiet.bson": b"\x01\x00\x00\x00" + quiet},
        "ends in the middle": {"push_quiet.bson": quiet[:-1]},
        "holds another description of push_quiet": {"push_quiet.metadata.json": b"{}"},
        "does not hold what its list names": {"push_quiet.bson": None},
        "is no whole backup (KeyError)": {MANIFEST: None},
        "is no whole backup (JSONDecodeError)": {MANIFEST: b"{"},
        "is not a backup of Ringmeter": {MANIFEST: listing(whole, format="another")},
        "which a newer Ringmeter has written": {MANIFEST: listing(whole, formatVersion=2)},
        "is no whole backup (TypeError)": {MANIFEST: listing(whole, collections=[{"name": "push_quiet"}])},
        "has a list that cannot be": {
            MANIFEST: listing(
                whole,
                collections=[
                    {"name": "../quiet", "documents": 0, "bytes": 0, "sha256": "", "metadata_sha256": ""}
                ],
            )
        },
    }
    for said, changed in cases.items():
        assert said in await refused(empty, again(whole, file, **changed))
    assert "does not hold" in await refused(empty, again(whole, file, **{"more.bson": b""}))
    file.write_bytes(b"not a zip")
    assert "is damaged" in await refused(empty, file)


def test_batches_are_whole_documents_however_the_file_is_read() -> None:
    document = (12).to_bytes(4, "little") + b"\x10a\x00\x01\x00\x00\x00\x00"

    class Trickle:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def read(self, _: int) -> bytes:
            piece, self.content = self.content[:7], self.content[7:]
            return piece

    assert b"".join(batches(Trickle(document * 5))) == document * 5  # type: ignore[arg-type]
    assert list(lengths(document * 5)) == [12] * 5
    for broken in (document[:-1], document + b"\x05", document[:-1] + b"\x01"):
        with pytest.raises(Damaged):
            list(lengths(broken))
    with pytest.raises(Damaged, match="middle"):
        list(batches(Trickle(document + b"\x0c\x00")))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- where it may not go


async def test_a_database_with_anything_in_it_is_left_alone(whole: Path, empty: Database) -> None:
    await empty["push_quiet"].insert_one({"_id": "somebody"})
    before = await hashes(empty)
    with pytest.raises(NotEmpty, match="has documents in push_quiet"):
        await restore(empty, whole, datetime.now(UTC))
    with pytest.raises(NotEmpty):
        await restore(empty, whole, datetime.now(UTC), again=True)
    assert await hashes(empty) == before


async def test_empty_collections_are_no_content(whole: Path, db: Database, empty: Database) -> None:
    await empty.prepare()
    await restore(empty, whole, datetime.now(UTC))
    assert await hashes(empty) == await hashes(db)


async def test_a_restore_that_was_interrupted_serves_nobody_and_begins_anew(
    whole: Path, db: Database, empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    async def dies(self: Filling, name: str, batch: bytes) -> int:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Filling, "insert", dies)
        with pytest.raises(Killed):
            await restore(empty, whole, datetime.now(UTC))
    with pytest.raises(HalfRestored):
        await empty.prepare()
    with pytest.raises(Unfinished):
        await restore(empty, whole, datetime.now(UTC))
    await restore(empty, whole, datetime.now(UTC), again=True)
    assert await hashes(empty) == await hashes(db)
    assert RESTORING not in await empty.db.list_collection_names()
    await empty.prepare()


async def test_two_restores_at_once_are_one(whole: Path, db: Database, empty: Database) -> None:
    done = await asyncio.gather(
        *(restore(empty, whole, datetime.now(UTC)) for _ in range(2)), return_exceptions=True
    )
    refusals = [one for one in done if isinstance(one, BaseException)]
    assert len(refusals) == 1
    assert isinstance(refusals[0], Unfinished | NotEmpty)
    assert await hashes(empty) == await hashes(db)


# ----------------------------------------------------------------------------------------------------- the file


async def test_the_file_is_its_owners_alone_and_never_written_over(whole: Path, db: Database) -> None:
    assert stat.S_IMODE(whole.stat().st_mode) == 0o600
    before = sha256_of(whole)
    with pytest.raises(FileExistsError):
        await backup(db, whole, ABOUT)
    assert sha256_of(whole) == before
    assert sorted(p.name for p in whole.parent.iterdir()) == ["whole"]


async def test_a_backup_that_fails_leaves_nothing(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Instant):
        async def batches(self, name: str) -> AsyncIterator[bytes]:
            raise OperationFailure("too old", 239)
            yield b""

    monkeypatch.setattr(store, "Instant", Broken)
    with pytest.raises(SnapshotTooOld):
        await backup(db, tmp_path / "a", ABOUT)
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_does_not_keep_what_it_is_given_is_noticed(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Writer.finish

    def kept_badly(self: Writer, about: Any) -> None:
        finish(self, about)
        raw = bytearray(self.path.read_bytes())
        raw[len(raw) // 3] ^= 0xFF
        self.path.write_bytes(raw)

    await db["push_quiet"].insert_one({"_id": "u", "padding": os.urandom(100_000)})
    monkeypatch.setattr(Writer, "finish", kept_badly)
    with pytest.raises(Damaged):
        await backup(db, tmp_path / "a", ABOUT)
    assert list(tmp_path.iterdir()) == []


async def test_unpacked_it_is_what_mongodump_writes(whole: Path, db: Database, tmp_path: Path) -> None:
    shutil.unpack_archive(whole, tmp_path / "dump", "zip")
    folder = tmp_path / "dump" / db.db.name
    described = json.loads((folder / "push_quiet.metadata.json").read_text())
    assert set(described) == {"options", "indexes", "collectionName", "type"}
    assert described["indexes"][0]["key"] == {"_id": {"$numberInt": "1"}}
    assert len(list(lengths((folder / "push_quiet.bson").read_bytes()))) == 40
