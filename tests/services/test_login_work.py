"""How long a sign-in takes tells of no account: the same work is done for every name, whatever stands behind it.

Counted is the work and not the time: calls of bcrypt with their cost, each step of which doubles it, and commands to
the database. ``make bench`` measures the time.
"""

from __future__ import annotations

from collections.abc import Iterator

import bcrypt
import pytest
from pymongo import monitoring

import server.adapters.passwords as adapter
from models.auth.service import SignInDevice
from models.db import Database
from models.users.store import USERS
from server.adapters.passwords import Passwords
from tests.commands import Commands
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import BY, PASSWORD, House, code_of

ROUNDS = 6
# Whose names are tried with a wrong password. What they are is told to nobody.
NAMES = {
    "nobody of that username": "nobody",
    "nobody of that address": "nobody@example.com",
    "nobody of that number": "+2348099999999",
    "no name at all": "\x00 $ne \x00",
    "somebody": "ada",
    "somebody by their address": "ada@example.com",
    "somebody banned": "banned",
    "somebody who has gone": "gone",
    "somebody with a second factor": "careful",
    "somebody whose hash is from cheaper days": "early",
    "somebody whose hash is from dearer days": "late",
    "somebody who came by a provider and never had a password": "provided",
}


class Work:
    """Stands in for bcrypt: does it, and adds up the work."""

    gensalt = staticmethod(bcrypt.gensalt)

    def __init__(self) -> None:
        self.done = 0

    def checkpw(self, password: bytes, kept: bytes) -> bool:
        self.done += 1 << int(kept.split(b"$")[2])
        return bcrypt.checkpw(password, kept)

    def hashpw(self, password: bytes, salt: bytes) -> bytes:
        self.done += 1 << int(salt.split(b"$")[2])
        return bcrypt.hashpw(password, salt)


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=ROUNDS)
    yield hasher
    hasher.close()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    made = Work()
    monkeypatch.setattr(adapter, "bcrypt", made)
    return made


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords) -> House:
    made = House(db, clock, ids, passwords)
    for name in ("ada", "banned", "gone", "careful", "early", "late", "provided"):
        await made.joins(name)
    await made.stewards.ban("banned", **BY)
    user_id, _ = await made.who(await made.signs_in("gone"))
    await made.one.accounts.delete(user_id, password=PASSWORD)
    await db[USERS].update_one({"username": "careful"}, {"$set": {"second_factor": True}})
    for name, cost in (("early", ROUNDS - 2), ("late", ROUNDS)):
        other = Passwords(rounds=cost)
        await db[USERS].update_one(
            {"username": name}, {"$set": {"password_hash": await other.hash(PASSWORD)}}
        )
        other.close()
    nobodys = await passwords.hash("a password that nobody was ever told")
    await db[USERS].update_one({"username": "provided"}, {"$set": {"password_hash": nobodys}})
    return made


async def tried(house: House, name: str) -> str:
    return await code_of(
        house.one.accounts.login(
            identifier=name, password="wrong horse battery", device=SignInDevice(), address="192.0.2.1"
        )
    )


async def test_a_wrong_password_is_the_same_work_whatever_the_name(house: House, work: Work) -> None:
    spent = {}
    for about, name in NAMES.items():
        work.done = 0
        house.one.hasher.done.clear()
        assert await tried(house, name) == "CREDENTIALS_WRONG", about
        spent[about] = (work.done, tuple(house.one.hasher.done))
    assert set(spent.values()) == {(1 << ROUNDS, ("verify",))}, spent


async def test_what_a_locked_name_is_refused_with_costs_nothing_whether_or_not_it_is_somebodys(
    house: House, work: Work
) -> None:
    for name in ("ada", "banned", "nobody", "nobody@example.com"):
        codes = [await tried(house, name) for _ in range(30)]
        assert "RATE_LIMITED" in codes
        locked_at = codes.index("RATE_LIMITED")
        work.done = 0
        assert await tried(house, name) == "RATE_LIMITED"
        assert (locked_at, work.done) == (25, 0), name


async def test_a_hash_from_cheaper_days_still_opens_and_is_renewed(house: House, work: Work) -> None:
    await house.signs_in("early")
    row = await house.db[USERS].find_one({"username": "early"})
    assert row is not None
    assert row["password_hash"].startswith(f"$2b${ROUNDS:02d}$")


async def test_a_forgotten_password_is_the_same_work_whatever_the_name(house: House, work: Work) -> None:
    for about, name in NAMES.items():
        work.done = 0
        house.one.hasher.done.clear()
        before = await house.count("code_wishes")
        await house.one.accounts.codes.forgot(name)
        assert (work.done, house.one.hasher.done) == (0, []), about
        assert await house.count("code_wishes") == before + 1, about
        wrong = house.one.accounts.reset_password(
            name, "00000000", new="kettle orbit 73", address="192.0.2.1"
        )
        assert await code_of(wrong) == "CODE_WRONG", about
        assert (work.done, house.one.hasher.done) == (0, []), "only who has the code makes us hash"


async def test_the_database_is_asked_alike_for_somebody_and_for_nobody(
    house: House, mongo_uri: str, work: Work
) -> None:
    heard = Commands()
    monitoring_house = await listened(house, mongo_uri, heard)
    asked = {}
    for name in ("ada", "nobody", "banned", "careful", "ada@example.com", "nobody@example.com"):
        for verb in ("login", "forgot", "reset"):
            heard.asked.clear()
            if verb == "login":
                assert await tried(monitoring_house, name) == "CREDENTIALS_WRONG"
            elif verb == "forgot":
                await monitoring_house.one.accounts.codes.forgot(name)
            else:
                wrong = monitoring_house.one.accounts.reset_password(
                    name, "00000000", new="kettle orbit 73", address="192.0.2.1"
                )
                assert await code_of(wrong) == "CODE_WRONG"
            asked[verb, name] = tuple(heard.names)
    await monitoring_house.db.close()
    for verb in ("login", "forgot", "reset"):
        ways = {commands for (of, _), commands in asked.items() if of == verb}
        assert len(ways) == 1, (verb, asked)


async def listened(house: House, uri: str, heard: Commands) -> House:
    """The same house over a connection on which the commands are heard."""
    monitoring.register(heard)
    try:
        db = Database(uri, house.db.db.name)
        await db.ping()
    finally:
        monitoring._LISTENERS.command_listeners.remove(heard)
    return House(db, house.clock, house.ids, house.passwords)
