"""``python main.py audit`` as an administrator runs it: the table, the names of broken rows, the exit status."""

from __future__ import annotations

import os
import subprocess
from argparse import ArgumentParser, Namespace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from models.audit.report import INVARIANTS
from models.audit.store import SnapshotTooOld, snapshot
from models.db import Database
from models.ledger.store import JOURNAL
from server import cli_audit
from server.config import load_config
from server.processes import free_port
from tests.doors import warm
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Town


def parsed(*words: str) -> Namespace:
    parser = ArgumentParser()
    cli_audit.add_parser(parser.add_subparsers())
    return parser.parse_args(["audit", *words])


async def audited(db: Database, mongo_uri: str, *words: str) -> tuple[int, str]:
    """The exit status and what was printed."""
    config = load_config({"MONGO_URI": mongo_uri, "MONGO_DATABASE": db.db.name})
    said = StringIO()
    status = await cli_audit.run(parsed(*words), config, Console(file=said, width=200))
    return status, said.getvalue()


async def test_a_clean_database_is_0_and_a_table_of_all_invariants(
    db: Database, mongo_uri: str, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.pay_in(town.process("here"), "ann", 5_000)
    status, said = await audited(db, mongo_uri)
    assert status == 0
    for name, sentence in INVARIANTS.items():
        assert any(name in line and sentence in line for line in said.splitlines())
    assert "Read: 1 wallets, 1 journal, 1 payments." in said
    assert said.endswith("Everything holds.\n")


async def test_a_tampered_line_is_1_and_its_name(
    db: Database, mongo_uri: str, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    for _ in range(4):
        await town.pay_in(town.process("here"), "ann", 5_000)
    names = [row["_id"] async for row in db[JOURNAL].find({}, sort=[("_id", 1)])]
    await db.db[JOURNAL].update_one({"_id": names[1]}, {"$set": {"note": "a gift"}})
    status, said = await audited(db, mongo_uri)
    assert status == 1
    assert f"I12 journal {names[1]}: is not what was sealed as version 2 of wallet ann:NGN\n" in said
    await db.db[JOURNAL].update_many({}, {"$set": {"note": "a gift"}})
    status, said = await audited(db, mongo_uri, "--names", "2")
    assert status == 1
    assert [name for name in names if name in said] == names[:2]
    assert "I12 and 2 more\n" in said
    assert said.endswith("The books are not in order.\n")


async def test_an_instant_that_mongodb_has_forgotten_is_said(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    here = town.process("here")

    async def read_on() -> None:
        async with snapshot(db) as reading:
            while True:
                await town.pay_in(here, "ann", 1)
                async for _ in reading.wallets():
                    pass

    admin = db.client.admin
    before = await admin.command("getParameter", 1, minSnapshotHistoryWindowInSeconds=1)
    await admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=0)
    try:
        with pytest.raises(SnapshotTooOld):
            await read_on()
    finally:
        window = before["minSnapshotHistoryWindowInSeconds"]
        await admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=window)


def command(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The program itself, with nothing configured but ``env``."""
    return warm.run(["audit", *words], env={"PATH": os.environ["PATH"], **env}, cwd=Path(env["DATA_DIR"]))


def test_wrong_use_and_a_database_that_cannot_be_read_are_2(tmp_path: Path, mongo_uri: str) -> None:
    folder = str(tmp_path)
    assert command("--names", "0", DATA_DIR=folder).returncode == 2
    nobody = command(DATA_DIR=folder)
    assert nobody.returncode == 2
    assert "No server runs" in nobody.stdout
    gone = command(DATA_DIR=folder, MONGO_URI=f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0")
    assert gone.returncode == 2
    assert gone.stdout.count("\n") == 1
    there = command(DATA_DIR=folder, MONGO_URI=mongo_uri, MONGO_DATABASE="nobody_was_here")
    assert (there.returncode, there.stderr) == (0, "")
