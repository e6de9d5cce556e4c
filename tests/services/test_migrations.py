"""Migrations: each once, by one process, before anybody is served, and by another one when that one dies."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.errors import AutoReconnect
from rich.console import Console

from models.db import Database
from models.migrations import service
from models.migrations.service import MigrationFailed, Migrations
from models.migrations.steps import MIGRATIONS, Migration
from models.migrations.store import LEASE_SECONDS, MigrationStore
from server import cli_migrate
from server.config import load_config
from server.prepare import prepare
from tests.fakes import VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.migrating import PEOPLE, STEPS

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def old(db: Database) -> Database:
    """A database as an older version has left it."""
    await db["push_quiet"].insert_many([{"_id": f"{number}"} for number in range(PEOPLE)])
    return db


def process(db: Any, clock: VirtualClock, by: str, *, steps: Any = STEPS, waits: Any = None) -> Migrations:
    async def passing(seconds: float) -> None:
        clock.pass_(seconds)
        await asyncio.sleep(0)

    return Migrations(db, clock, by=by, pause=waits or passing, steps=steps)


async def changed_once(db: Database) -> None:
    found = await db["push_quiet"].find({}).to_list()
    assert len(found) == PEOPLE
    for one in found:
        assert (one["name"], one["loud"], one["changes"]) == (f"n{one['_id']}", f"N{one['_id']}", 1)


async def test_they_are_done_in_their_order_once_and_recorded(old: Database, clock: VirtualClock) -> None:
    assert await process(old, clock, "one").run() == ["0001_names", "0002_loud"]
    assert await process(old, clock, "two").run() == []
    await changed_once(old)
    standings = await process(old, clock, "one").standings()
    assert [
        (s.migration.name, s.done, s.record and s.record.by, s.record and s.record.tries) for s in standings
    ] == [
        ("0001_names", True, "one", 1),
        ("0002_loud", True, "one", 1),
    ]
    assert await process(old, clock, "one").holder() is None


async def test_of_two_that_start_one_does_it_and_both_come_back_when_it_is_done(
    old: Database, clock: VirtualClock
) -> None:
    done = await asyncio.gather(*(process(old, clock, by).run() for by in ("one", "two", "three")))
    assert sorted(name for names in done for name in names) == ["0001_names", "0002_loud"]
    await changed_once(old)


async def test_of_two_real_processes_one_does_it(old: Database, mongo_uri: str) -> None:
    words = [sys.executable, "-m", "tests.services.migrating", mongo_uri, old.db.name]
    running = [
        await asyncio.create_subprocess_exec(*words, f"p{n}", cwd=ROOT, stdout=subprocess.PIPE)
        for n in range(2)
    ]
    said = [(await one.communicate())[0].decode().splitlines()[-1].split() for one in running]
    assert [one.returncode for one in running] == [0, 0]
    assert sorted(name for names in said for name in names) == ["0001_names", "0002_loud"]
    await changed_once(old)


async def test_one_that_dies_anywhere_is_followed_by_another(old: Database, clock: VirtualClock) -> None:
    """At each of its calls to the database; the other one begins when the lease has run out, and not before."""
    step, survived = 0, False
    while not survived:
        step += 7
        await old["push_quiet"].update_many({}, {"$unset": {"name": "", "loud": "", "changes": ""}})
        await old["migrations"].delete_many({})
        life = Mortal(old)
        life.dies_at = step
        try:
            await process(life, clock, "dead").run()
            survived = True
        except Killed:
            held = await MigrationStore(old).holder(clock.now())
            before = clock.now()
            if await process(old, clock, "next").run() and held == "dead":
                assert (clock.now() - before).total_seconds() >= LEASE_SECONDS
        await changed_once(old)
    assert step > PEOPLE, "it died among the changes too"


async def test_a_lease_that_is_renewed_is_nobody_elses(
    old: Database, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RENEW_SECONDS", 0.001)
    go_on, begun, looks = asyncio.Event(), asyncio.Event(), 0

    async def long(db: Database) -> None:
        begun.set()
        await go_on.wait()

    async def looking(seconds: float) -> None:
        nonlocal looks
        looks += 1
        clock.pass_(LEASE_SECONDS / 3)
        # A renewal comes between two looks, however slow this machine: it takes the database's answer, not time.
        full = clock.now() + timedelta(seconds=LEASE_SECONDS)
        async with asyncio.timeout(20):
            while not one.done():
                lease = await old["migrations"].find_one({"_id": "lease"})
                if lease is None or lease["until"] >= full:
                    break
        if looks == 9:
            go_on.set()

    steps = (Migration("0001_long", "Takes long.", long),)
    one = asyncio.create_task(process(old, clock, "one", steps=steps).run())
    await begun.wait()
    assert await process(old, clock, "two", steps=steps, waits=looking).run() == []
    assert await one == ["0001_long"]
    assert looks >= 9


async def test_who_stood_still_too_long_stops_when_another_has_taken_over(
    old: Database, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RENEW_SECONDS", 0.001)
    stopped, begun = asyncio.Event(), asyncio.Event()
    turns: list[str] = []

    async def stands(db: Database) -> None:
        turns.append("turn")
        if len(turns) > 1:
            return
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    steps = (Migration("0001_stands", "Stands still.", stands),)
    store, by = MigrationStore(old), "another"
    one = asyncio.create_task(process(old, clock, "one", steps=steps).run())
    await begun.wait()
    await old["migrations"].update_one({"_id": "lease"}, {"$set": {"by": by}})
    await stopped.wait()
    await store.begin("0001_stands", by, clock.now())
    await store.done("0001_stands", clock.now())
    assert await one == []
    assert await store.holder(clock.now()) == by, "what is another's is not given back"


async def test_one_that_fails_is_said_by_name_and_keeps_the_server_from_starting(
    old: Database, clock: VirtualClock
) -> None:
    faults: list[Exception] = [RuntimeError("a document that nobody foresaw")]

    async def fails(db: Database) -> None:
        if faults:
            raise faults.pop()

    steps = (STEPS[0], Migration("0002_fails", "Fails.", fails), STEPS[1])
    with pytest.raises(MigrationFailed, match="0002_fails has failed: RuntimeError"):
        await process(old, clock, "one", steps=steps).run()
    states = [one.done for one in await process(old, clock, "one", steps=steps).standings()]
    assert states == [True, False, False]
    # The lease was given back, so the next start does not wait.
    before = clock.now()
    assert await process(old, clock, "two", steps=steps).run() == ["0002_fails", "0002_loud"]
    assert clock.now() == before
    faults.append(AutoReconnect("away"))
    await old["migrations"].delete_one({"_id": "0002_fails"})
    with pytest.raises(AutoReconnect):
        await process(old, clock, "three", steps=steps).run()


async def test_a_start_migrates_before_it_makes_validators_and_indexes(
    old: Database, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def seen(db: Database) -> None:
        order.append("migration")

    async def prepared(self: Database) -> None:
        order.append("prepare")

    monkeypatch.setattr(Database, "prepare", prepared)
    monkeypatch.setattr(
        Migrations.__init__, "__kwdefaults__", {"steps": (Migration("0001_seen", "Is seen.", seen),)}
    )
    await prepare(old, clock, "one")
    assert order == ["migration", "prepare"]
    await MigrationStore(old).begin("9999_of_the_future", "newer", clock.now())
    await prepare(old, clock, "one")  # an older version still starts, and says so


async def test_the_command_says_how_it_stands_and_does_it(
    old: Database, mongo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Migrations.__init__, "__kwdefaults__", {"steps": STEPS})
    config = load_config({"MONGO_URI": mongo_uri, "MONGO_DATABASE": old.db.name})

    async def said(*, status: bool) -> tuple[int, str]:
        out = StringIO()
        number = await cli_migrate.run(SimpleNamespace(status=status), config, Console(file=out, width=200))  # type: ignore[arg-type]
        return number, out.getvalue()

    number, told = await said(status=True)
    assert (number, "2 of 2 are to be done." in told) == (1, True)
    assert await old["push_quiet"].count_documents({"name": {"$exists": True}}) == 0
    number, told = await said(status=False)
    assert (number, "All 2 are done." in told) == (0, True)
    await changed_once(old)
    number, told = await said(status=True)
    assert number == 0
    assert re.search(r"0001_names\s+│ Everybody gets a name\.\s+│ done", told)


def test_the_migrations_of_this_version_are_numbered_and_say_what_they_do() -> None:
    names = [one.name for one in MIGRATIONS]
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]
    for one in MIGRATIONS:
        assert re.fullmatch(r"\d{4}_[a-z0-9_]+", one.name)
        assert one.says.endswith(".")
    files = {path.stem for path in (ROOT / "models/migrations").glob("m[0-9]*.py")}
    assert files == {f"m{name}" for name in names}, "each module is in the list"
