"""Profiles, finding people, and blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pymongo.errors import WriteError

from models.db import Database
from models.errors import Refusal
from models.presence.service import Presence
from server.adapters.passwords import Passwords
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.accounts_house import BY, PASSWORD, House, code_of


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords) -> House:
    return House(db, clock, ids, passwords)


async def _id(house: House, name: str, **more: object) -> str:
    return (await house.joins(name, **more)).account.profile.user_id


async def _found(house: House, viewer: str, query: str, limit: int = 50) -> list[str]:
    """The usernames found, page by page."""
    names, after = [], None
    while True:
        people = await house.one.users.search(viewer, query, limit=limit, after=after)
        assert len(people.items) <= limit
        names += [person.username for person in people.items]
        if people.last is None:
            return names
        after = people.last


async def test_a_profile_changes_where_it_is_told_to_and_nowhere_else(house: House) -> None:
    ada = await _id(house, "ada", display_name="Ada")
    house.clock.pass_(5)
    after = await house.one.users.change_profile(
        ada, {"avatar_url": "https://example.com/a.png", "role": "admin"}
    )
    assert after.profile.avatar_url == "https://example.com/a.png"
    assert (after.profile.username, after.profile.display_name, after.profile.role) == ("ada", "Ada", "user")
    assert after.updated_at == house.clock.now() > after.created_at
    after = await house.one.users.change_profile(ada, {"avatar_url": None, "rate_per_minute_minor": 2500})
    assert (after.profile.avatar_url, after.profile.rate_per_minute_minor) == (None, 2500)
    assert await house.one.users.change_profile(ada, {}) == after
    assert await house.one.users.account(ada) == after


async def test_a_username_goes_to_one_person_only(house: House) -> None:
    ada, bob = await _id(house, "ada"), await _id(house, "bob")
    with pytest.raises(Refusal) as no:
        await house.one.users.change_profile(bob, {"username": "ADA"})
    assert (no.value.code, no.value.details) == ("ACCOUNT_EXISTS", {"field": "username"})
    done = await asyncio.gather(
        *(house.one.users.change_profile(user, {"username": "queen"}) for user in (ada, bob)),
        return_exceptions=True,
    )
    assert sorted(type(x).__name__ for x in done) == ["Account", "Refusal"]
    assert (await house.one.users.change_profile(ada, {"username": "ADA.2"})).profile.username == "ADA.2"
    assert await house.signs_in("ada.2")


async def test_a_bad_name_changes_nothing(house: House) -> None:
    ada = await _id(house, "ada")
    for changes in ({"username": "a b"}, {"display_name": " "}):
        assert await code_of(house.one.users.change_profile(ada, changes)) == "VALIDATION_FAILED"
    assert await code_of(house.one.users.change_profile("nobody", {"avatar_url": None})) == "USER_UNKNOWN"


async def test_people_are_found_by_the_beginning_of_either_name_in_any_case(house: House) -> None:
    viewer = await _id(house, "viewer")
    await _id(house, "adaobi", display_name="Queen")
    await _id(house, "Ada", display_name="Ada")
    await _id(house, "bob", display_name="ADA Lovelace")
    await _id(house, "carol", display_name="Not Ada")
    assert await _found(house, viewer, "aDa") == ["Ada", "adaobi", "bob"]
    assert await _found(house, viewer, " queen ") == ["adaobi"]
    assert await _found(house, viewer, "ada l") == ["bob"]
    assert await _found(house, viewer, "zzz") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_pages_bring_everybody_once_and_in_order(house: House, limit: int) -> None:
    viewer = await _id(house, "viewer")
    for n in range(3):
        await _id(house, f"ada{n}", display_name="Same")
        await _id(house, f"bob{n}", display_name="Ada")
    assert await _found(house, viewer, "ada", limit) == ["ada0", "ada1", "ada2", "bob0", "bob1", "bob2"]
    everybody = await _found(house, viewer, "", limit)
    assert everybody == ["ada0", "ada1", "ada2", "bob0", "bob1", "bob2"], "all but oneself"


async def test_what_is_typed_is_text_and_never_a_pattern(house: House) -> None:
    viewer = await _id(house, "viewer")
    await _id(house, "ada", display_name="a.c (x) $ne")
    for query in (".*", "^a", "a$", "(", "[", "\\", "$ne", "a.b", "\U0010ffff"):
        assert await _found(house, viewer, query) == []
    assert await _found(house, viewer, "A.C (X)") == ["ada"]


async def test_the_banned_the_deleted_and_those_who_blocked_one_are_not_found(house: House) -> None:
    viewer, blocker = await _id(house, "viewer"), await _id(house, "ada1")
    blocked, gone = await _id(house, "ada2"), await _id(house, "ada3")
    await _id(house, "ada4")
    await house.one.users.block(blocker, viewer)
    await house.one.users.block(viewer, blocked)
    await house.one.accounts.delete(gone, password=PASSWORD)
    await house.stewards.ban("ada4", **BY)
    assert await _found(house, viewer, "ada", 1) == ["ada2"], (
        "whom one has blocked one finds, to unblock them"
    )
    assert await _found(house, viewer, "deleted") == []


async def test_a_search_reads_an_index(house: House) -> None:
    await _id(house, "ada")
    for field in ("username_key", "display_key"):
        query = {"status": "active", field: {"$gte": "ada", "$lt": "ada\U0010ffff"}}
        plan = await house.db["users"].find(query).sort(field, 1).explain()
        winner = str(plan["queryPlanner"]["winningPlan"])
        assert "COLLSCAN" not in winner
        assert "'SORT'" not in winner


async def test_somebody_is_seen_unless_gone_or_unwilling(house: House) -> None:
    ada, bob = await _id(house, "ada"), await _id(house, "bob")
    users = house.one.users
    assert (await users.seen_by(ada, bob)).username == "bob"
    assert (await users.seen_by(ada, ada)).username == "ada"
    await users.block(bob, ada)
    assert await code_of(users.seen_by(ada, bob)) == "USER_UNKNOWN"
    assert (await users.seen_by(bob, ada)).username == "ada"
    await users.unblock(bob, ada)
    await house.stewards.ban("bob", **BY)
    assert await code_of(users.seen_by(ada, bob)) == "USER_UNKNOWN"
    assert await code_of(users.seen_by(ada, "nobody")) == "USER_UNKNOWN"


async def test_two_people_meet_with_what_stands_between_them(house: House) -> None:
    ada, bob = await _id(house, "ada"), await _id(house, "bob")
    users = house.one.users
    meeting = await users.meet(ada, bob)
    assert meeting.callee is not None
    assert (meeting.caller.username, meeting.callee.username) == ("ada", "bob")
    assert (meeting.blocked_by_caller, meeting.blocked_by_callee) == (False, False)
    await users.block(ada, bob)
    assert (
        (await users.meet(ada, bob)).blocked_by_caller,
        (await users.meet(ada, bob)).blocked_by_callee,
    ) == (
        True,
        False,
    )
    assert (await users.meet(bob, ada)).blocked_by_callee
    await house.stewards.ban("bob", **BY)
    banned = (await users.meet(ada, bob)).callee
    assert banned is not None
    assert not banned.active
    await house.stewards.unban("bob", **BY)
    await house.one.accounts.delete(bob, password=PASSWORD)
    assert (await users.meet(ada, bob)).callee is None
    assert (await users.meet(ada, "nobody")).callee is None
    assert await code_of(users.meet("nobody", ada)) == "USER_UNKNOWN"


async def test_a_deleted_person_still_has_a_name_to_show(house: House) -> None:
    ada = await _id(house, "ada")
    await house.one.accounts.delete(ada, password=PASSWORD)
    found = await house.one.users.profiles([ada, "nobody"])
    assert list(found) == [ada]
    assert (found[ada].display_name, found[ada].status) == ("Deleted account", "deleted")
    assert await house.one.users.profiles([]) == {}
    assert await house.one.users.profile("nobody") is None


async def test_a_block_ends_the_call_between_the_two_each_time_it_is_asked_for(house: House) -> None:
    ada, bob = await _id(house, "ada"), await _id(house, "bob")
    await asyncio.gather(*(house.one.users.block(ada, bob) for _ in range(4)))
    assert house.one.calls.done == [("end_between", ada, bob)] * 4
    assert await house.count("blocks") == 1
    for _ in range(2):
        await house.one.users.unblock(ada, bob)
    assert await house.count("blocks") == 0


async def test_one_blocks_neither_oneself_nor_nobody(house: House) -> None:
    ada = await _id(house, "ada")
    assert await code_of(house.one.users.block(ada, ada)) == "SELF_NOT_ALLOWED"
    assert await code_of(house.one.users.block(ada, "nobody")) == "USER_UNKNOWN"


@pytest.mark.parametrize(
    "change",
    [
        {"status": "sleeping"},
        {"role": "king"},
        {"status": "deleted"},
        {"rate_per_minute_minor": -1},
        {"password_hash": None},
        {"phone": "0801"},
    ],
)
async def test_the_database_itself_refuses_a_row_that_makes_no_sense(
    house: House, change: dict[str, object]
) -> None:
    ada = await _id(house, "ada")
    with pytest.raises(WriteError):
        await house.db["users"].update_one({"_id": ada}, {"$set": change})
    with pytest.raises(WriteError):
        await house.db["users"].update_one({"_id": ada}, {"$unset": {"email_key": ""}})
    with pytest.raises(WriteError):
        await house.db["sessions"].update_one(
            {"user_id": ada}, {"$set": {"ended_at": datetime(2026, 3, 1, tzinfo=UTC)}}
        )


def test_presence_is_the_call_first_and_the_sockets_second() -> None:
    doors, busy = FakeDoors(), set[str]()
    presence = Presence(doors, busy.__contains__)
    assert presence.state_of("ada") == "offline"
    doors.connect("ada", "phone")
    assert presence.state_of("ada") == "online"
    busy.add("ada")
    assert presence.state_of("ada") == "in_call"
    doors.disconnect("ada", "phone")
    assert presence.state_of("ada") == "in_call"
