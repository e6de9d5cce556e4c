"""The embedded MongoDB: started, stopped, adopted, and brought back after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from models.db import TRANSACTION_SECONDS
from server import mongod as module
from server.mongod import EmbeddedMongod, MongodFault, find_mongod, put_away, running_uri

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path / "data"
    await put_away(tmp_path / "data")


async def write_one(uri: str) -> int:
    """Write in a transaction, so that it is a replica set's primary; how many documents there are now."""
    async with AsyncMongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=5000) as client:
        async with client.start_session() as session, await session.start_transaction():
            await client.t.things.insert_one({}, session=session)
        return await client.t.things.count_documents({})


async def test_it_starts_quickly_closed_to_strangers_and_keeps_what_was_written(folder: Path) -> None:
    database = EmbeddedMongod(folder)
    began = time.monotonic()
    uri = await database.start()
    assert time.monotonic() - began < 10  # 0.5 s alone on a machine; generous for a busy one
    assert uri.startswith("mongodb://ringmeter:")
    assert "@127.0.0.1:" in uri
    assert await write_one(uri) == 1
    assert stat.S_IMODE((folder / "mongod.secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0
    async with AsyncMongoClient[dict[str, Any]](
        uri.replace(uri.split("@")[0] + "@", "mongodb://")
    ) as stranger:
        with pytest.raises(OperationFailure, match="requires authentication"):
            await stranger.t.things.count_documents({})
    assert await running_uri(folder) == uri
    await database.stop()
    assert not database.alive()
    assert await running_uri(folder) is None
    assert await database.start() == uri
    assert await write_one(uri) == 2
    await database.stop()
    await database.stop()  # safe to repeat


async def test_it_listens_on_loopback_alone_in_a_session_of_its_own(folder: Path) -> None:
    database = EmbeddedMongod(folder, fast=True)
    await database.start()
    assert database.pid is not None
    assert os.getsid(database.pid) != os.getsid(0)  # the terminal's Ctrl-C passes it by
    command = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(database.pid)], capture_output=True, text=True, check=True
    ).stdout
    assert "--bind_ip 127.0.0.1" in command
    assert "--wiredTigerCacheSizeGB 0.25" in command
    await database.stop()


async def test_a_second_server_on_the_same_folder_is_refused(folder: Path) -> None:
    first = EmbeddedMongod(folder, fast=True)
    uri = await first.start()
    with pytest.raises(MongodFault, match=r"Another server uses .* DATA_DIR or a MONGO_URI"):
        await EmbeddedMongod(folder).start()
    assert await write_one(uri) == 1  # and the first does not notice
    await first.stop()


async def test_one_whose_server_was_killed_is_adopted_and_stopped_with_the_next(folder: Path) -> None:
    server = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import asyncio, pathlib, signal, sys\n"
            "from server.mongod import EmbeddedMongod\n"
            "print(asyncio.run(EmbeddedMongod(pathlib.Path(sys.argv[1]), fast=True).start()), flush=True)\n"
            "signal.pause()",
            str(folder),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        uri = server.stdout.readline().strip()
        assert await write_one(uri) == 1
        server.send_signal(signal.SIGKILL)
    database = EmbeddedMongod(folder, fast=True)
    assert await database.start() == uri
    assert database.adopted
    assert await write_one(uri) == 2
    await database.stop()
    assert not database.alive()
    again = EmbeddedMongod(folder, fast=True)
    assert await again.start() == uri
    assert not again.adopted
    assert await write_one(uri) == 3
    await again.stop()


async def test_after_a_power_cut_everything_acknowledged_is_there(folder: Path) -> None:
    database = EmbeddedMongod(folder)
    uri = await database.start()
    for expected in (1, 2, 3):
        assert await write_one(uri) == expected
    await database.kill()
    assert not database.alive()
    await database.restart()
    assert database.uri == uri
    assert await write_one(uri) == 4
    await database.kill()
    await database.stop()
    assert await database.start() == uri
    assert await write_one(uri) == 5
    await database.stop()


async def test_one_that_hangs_is_killed_and_started_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = EmbeddedMongod(folder)
    uri = await first.start()
    assert await write_one(uri) == 1
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    assert first._lock is not None
    first._lock.close()  # its server is gone
    monkeypatch.setattr(module, "ANSWER_MS_MAX", 300)
    second = EmbeddedMongod(folder)
    assert await second.start() == uri
    assert not second.adopted
    assert not first.alive()
    assert await write_one(uri) == 2
    await second.stop()


async def test_a_first_start_cut_short_is_finished_by_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        pass

    async def cut(*_: object) -> None:
        raise Cut

    database = EmbeddedMongod(folder, fast=True)
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedMongod, "_be_primary", cut)  # after the set is made, before the user is
        with pytest.raises(Cut):
            await database.start()
    assert not database.alive()
    assert await write_one(await database.start()) == 1
    await database.stop()


async def test_when_its_port_was_taken_it_moves_to_another(folder: Path) -> None:
    database = EmbeddedMongod(folder, fast=True)
    uri = await database.start()
    assert await write_one(uri) == 1
    await database.stop()
    port = int((folder / "mongod.port").read_text())
    other = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    async with other:
        moved = await database.start()
        assert moved != uri
        assert await write_one(moved) == 2
    await database.stop()
    assert await running_uri(folder) is None


async def test_a_lost_secret_is_said_before_anything_is_changed(folder: Path) -> None:
    database = EmbeddedMongod(folder, fast=True)
    await database.start()
    await database.stop()
    secret = (folder / "mongod.secret").read_text()
    (folder / "mongod.secret").unlink()
    with pytest.raises(MongodFault, match=r"mongod.secret is missing"):
        await database.start()
    assert not (folder / "mongod.secret").exists()
    (folder / "mongod.secret").write_text(secret[::-1])
    (folder / "mongod.secret").chmod(0o600)
    with pytest.raises(MongodFault, match=r"made with another mongod\.secret"):
        await database.start()
    assert not database.alive()


async def test_a_number_of_a_process_that_is_not_ours_is_left_alone(folder: Path) -> None:
    (folder / "db").mkdir(parents=True, mode=0o700)
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    with stranger:
        (folder / "db" / "mongod.lock").write_text(f"{stranger.pid}\n")
        database = EmbeddedMongod(folder, fast=True)
        assert await write_one(await database.start()) == 1
        assert stranger.poll() is None
        await database.stop()
        stranger.kill()


async def test_a_platform_without_it_gets_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHEELS", ("no-such-wheel",))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MongodFault, match="set MONGO_URI to a replica set"):
        await EmbeddedMongod(folder).start()


async def test_one_that_cannot_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = folder.parent / "mongod"
    broken.write_text("#!/bin/sh\necho 'libssl.so.3: cannot open shared object file'\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setattr(module, "find_mongod", lambda: broken)
    with pytest.raises(MongodFault, match=r"libssl.so.3: cannot open"):
        await EmbeddedMongod(folder).start()


def test_it_is_found_without_importing_the_application_of_that_name() -> None:
    assert os.access(find_mongod(), os.X_OK)
    assert "fiftyone" not in sys.modules


async def test_what_a_killed_server_had_begun_locks_nobody_out_for_long(mongo_uri: str) -> None:
    """A transaction outlives the process that began it; MongoDB's own limit is a minute, and half of one to notice."""
    async with AsyncMongoClient[dict[str, Any]](mongo_uri) as client:
        name = "transactionLifetimeLimitSeconds"
        limit = (await client.admin.command("getParameter", 1, **{name: 1}))[name]
        assert TRANSACTION_SECONDS < limit <= 2 * TRANSACTION_SECONDS, "longer than any of ours takes"
        held, free = client.start_session(), client.t.locked
        await free.insert_one({"_id": 1})
        async with held:
            await held.start_transaction()
            await free.update_one({"_id": 1}, {"$set": {"n": 1}}, session=held)
            # Nobody ends it: the next writer waits until MongoDB does.
            async with asyncio.timeout(2 * limit + 5):
                await free.update_one({"_id": 1}, {"$set": {"n": 2}})
            with pytest.raises(OperationFailure):
                await held.commit_transaction()
        assert await free.find_one({"_id": 1}) == {"_id": 1, "n": 2}
        await client.drop_database("t")
