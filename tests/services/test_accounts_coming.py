"""Registering, signing in, and what every door asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from models.auth.service import SignInDevice
from models.auth.sessions.store import SESSIONS_MAX
from models.db import Database
from models.errors import Refusal
from server.adapters.passwords import Passwords
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import BY, PASSWORD, SECRET, House, code_of


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords) -> House:
    return House(db, clock, ids, passwords)


async def test_a_new_account_is_signed_in_and_has_what_it_said(house: House) -> None:
    ada = await house.joins(
        "Ada.Obi", email="Ada@EXAMPLE.com", phone="+234 801 234 5678", display_name=" Ada  Obi "
    )
    account, person = ada.account, ada.account.profile
    assert (account.email, account.phone) == ("Ada@example.com", "+2348012345678")
    assert (person.username, person.display_name) == ("Ada.Obi", "Ada Obi")
    assert (person.role, person.status, person.currency) == ("user", "active", "NGN")
    assert account.created_at == house.clock.now()
    assert not account.email_verified
    identity = await house.one.accounts.authenticate(ada.tokens.access_token)
    assert (identity.user_id, identity.role) == (person.user_id, "user")
    assert (identity.expires_at - house.clock.now()).total_seconds() == 900 == ada.tokens.expires_in


async def test_the_password_itself_is_nowhere_in_the_database(house: House) -> None:
    await house.joins()
    row = await house.db["users"].find_one({})
    assert row is not None
    assert row["password_hash"].startswith("$2b$04$")
    assert PASSWORD not in str(row)


async def test_no_refresh_token_is_in_the_database(house: House) -> None:
    ada = await house.joins()
    row = await house.db["sessions"].find_one({})
    assert ada.tokens.refresh_token.rsplit(".", 1)[1] not in str(row)


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        ({"email": "ada@example.com"}, {"email": "ADA@Example.com", "username": "other"}, "email"),
        ({"phone": "+2348012345678"}, {"phone": "+234 801 234 5678", "email": "b@example.com"}, "phone"),
        ({"username": "Ada"}, {"username": "aDA", "email": "b@example.com"}, "username"),
    ],
)
async def test_an_address_a_number_and_a_name_are_one_persons(
    house: House, first: dict[str, Any], second: dict[str, Any], field: str
) -> None:
    await house.joins("ada", **first)
    hashes = len(house.one.hasher.done)
    with pytest.raises(Refusal) as no:
        await house.joins("bob", **second)
    assert (no.value.code, no.value.details) == ("ACCOUNT_EXISTS", {"field": field})
    assert len(house.one.hasher.done) == hashes, "a name that is taken costs no hash"
    assert await house.count("users") == await house.count("sessions") == 1


async def test_of_eight_registrations_of_one_name_at_once_exactly_one_succeeds(house: House) -> None:
    done = await asyncio.gather(
        *(house.joins("ada", email=f"ada{n}@example.com") for n in range(8)), return_exceptions=True
    )
    refused = [x for x in done if isinstance(x, Refusal)]
    assert [no.code for no in refused] == ["ACCOUNT_EXISTS"] * 7
    assert {no.details["field"] for no in refused} == {"username"}
    assert await house.count("users") == await house.count("sessions") == 1


async def test_who_chooses_no_username_gets_one_that_is_free(house: House) -> None:
    done = await asyncio.gather(
        *(house.joins(email=f"ada@{host}.example.com", username=None) for host in "abcd")
    )
    names = {x.account.profile.username for x in done}
    assert len(names) == 4
    assert "ada" in names
    assert all(name == "ada" or name.startswith("ada-") for name in names)
    assert (
        await house.joins(email=None, phone="+2348012345678", username=None)
    ).account.profile.username == "user5678"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": None}, "email"),
        ({"email": "ada"}, "email"),
        ({"phone": "0801"}, "phone"),
        ({"username": "a b"}, "username"),
        ({"password": "short"}, "password"),
        ({"display_name": "\u202e"}, "displayName"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_kept(
    house: House, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(Refusal) as no:
        await house.joins("ada", **change)
    assert no.value.code == "VALIDATION_FAILED"
    assert list(no.value.details) == [field]
    assert await house.count("users") == 0


async def test_one_signs_in_by_name_address_or_number_in_any_spelling(house: House) -> None:
    ada = await house.joins("Ada", phone="+2348012345678")
    for typed in ("ada", " ADA ", "Ada@Example.COM", "+234 (801) 234-5678"):
        again = await house.one.accounts.login(identifier=typed, password=PASSWORD, device=SignInDevice())
        assert again.account.profile.user_id == ada.account.profile.user_id
    assert await house.count("sessions") == 5


@pytest.mark.parametrize(
    "typed", ["ada", "nobody", "nobody@example.com", "+2348012345678", "no@where", "", "$ne"]
)
async def test_a_wrong_password_and_an_unknown_user_cost_the_same_and_are_told_alike(
    house: House, typed: str
) -> None:
    await house.joins("ada")
    house.one.hasher.done.clear()
    work = house.one.accounts.login(identifier=typed, password="wrong password", device=SignInDevice())
    assert await code_of(work) == "CREDENTIALS_WRONG"
    assert house.one.hasher.done == ["verify"]
    assert await house.count("sessions") == 1


async def test_a_right_password_costs_no_other_number_of_hashes(house: House) -> None:
    await house.joins("ada")
    house.one.hasher.done.clear()
    await house.signs_in()
    assert house.one.hasher.done == ["verify"]


async def test_passwords_differ_behind_their_72nd_byte_and_agree_however_a_keyboard_composes(
    house: House,
) -> None:
    await house.joins("ada", password="é" * 100 + "1")
    await house.signs_in("ada", "e\u0301" * 100 + "1")
    assert await code_of(house.signs_in("ada", "é" * 100 + "2")) == "CREDENTIALS_WRONG"


async def test_a_higher_cost_is_taken_over_at_the_next_sign_in(house: House) -> None:
    await house.joins("ada")
    dearer = Passwords(rounds=5)
    try:
        later = house.process(passwords=dearer)
        both = [
            later.accounts.login(identifier="ada", password=PASSWORD, device=SignInDevice()) for _ in "ab"
        ]
        await asyncio.gather(*both)
        row = await house.db["users"].find_one({})
        assert row is not None
        assert row["password_hash"].startswith("$2b$05$")
        later.hasher.done.clear()
        await later.accounts.login(identifier="ada", password=PASSWORD, device=SignInDevice())
        assert later.hasher.done == ["verify"]
    finally:
        dearer.close()


async def test_too_many_waiting_hashes_are_refused_at_once(house: House) -> None:
    narrow = Passwords(rounds=8, threads=1, queue_max=3)
    try:
        busy = house.process(passwords=narrow)
        work = [busy.accounts.login(identifier="x", password="y", device=SignInDevice()) for _ in range(12)]
        codes = [
            x.code for x in await asyncio.gather(*work, return_exceptions=True) if isinstance(x, Refusal)
        ]
        assert codes.count("CREDENTIALS_WRONG") >= 3
        assert codes.count("SERVER_BUSY") == 12 - codes.count("CREDENTIALS_WRONG") > 0
        assert await code_of(busy.accounts.login(identifier="x", password="y", device=SignInDevice())) == (
            "CREDENTIALS_WRONG"
        ), "the queue is empty again"
    finally:
        narrow.close()


async def test_the_sign_in_longest_unused_makes_room_when_there_are_too_many(house: House) -> None:
    ada = await house.joins()
    user_id, first = await house.who(ada)
    for _ in range(SESSIONS_MAX - 1):
        house.clock.pass_(1)
        await house.signs_in()
    assert await house.one.accounts.authenticate(ada.tokens.access_token)
    house.clock.pass_(1)
    await house.signs_in()
    assert await code_of(house.one.accounts.authenticate(ada.tokens.access_token)) == "TOKEN_INVALID"
    await house.one.accounts.watch_revocations()
    assert house.one.doors.closed == [(user_id, frozenset({first}), "SESSION_ENDED")]


async def test_a_door_refuses_by_token_by_session_and_by_status(house: House) -> None:
    ada = await house.joins()
    token, door = ada.tokens.access_token, house.one.accounts.authenticate
    assert await code_of(door(None)) == "TOKEN_MISSING"
    assert await code_of(door("rubbish")) == "TOKEN_INVALID"
    assert await code_of(door(ada.tokens.refresh_token)) == "TOKEN_INVALID"
    await house.stewards.ban("ada", **BY)
    assert await code_of(door(token)) == "ACCOUNT_BANNED"
    await house.stewards.unban("ada", **BY)
    assert await door(token)
    house.clock.pass_(900)
    assert await code_of(door(token)) == "TOKEN_EXPIRED"


async def test_a_token_of_somebody_elses_session_or_of_nobody_opens_nothing(house: House) -> None:
    ada, bob = await house.joins("ada"), await house.joins("bob")
    (ada_id, _), (_, bob_session) = await house.who(ada), await house.who(bob)
    now = int(house.clock.now().timestamp())
    ours = {"iss": "ringmeter", "aud": "ringmeter"}
    claims = {**ours, "jti": "j", "typ": "access", "iat": now, "exp": now + 900}
    for sub, sid in ((ada_id, bob_session), (ada_id, "none"), ("nobody", bob_session)):
        token = jwt.encode({**claims, "sub": sub, "sid": sid}, SECRET, "HS256")
        assert await code_of(house.one.accounts.authenticate(token)) == "TOKEN_INVALID"


async def test_a_role_is_what_the_database_says_now(house: House) -> None:
    ada = await house.joins()
    await house.stewards.promote("ada", **BY)
    assert (await house.one.accounts.authenticate(ada.tokens.access_token)).role == "admin"


async def test_a_banned_person_learns_it_only_with_the_right_password(house: House) -> None:
    await house.joins()
    await house.stewards.ban("ada", **BY)
    assert await code_of(house.signs_in()) == "ACCOUNT_BANNED"
    assert await code_of(house.signs_in(password="wrong password")) == "CREDENTIALS_WRONG"
    assert await house.count("sessions") == 1


async def test_the_unique_keys_are_found_by_their_indexes(house: House) -> None:
    await house.joins("ada", phone="+2348012345678")
    for query in ({"email_key": "ada@example.com"}, {"phone": "+2348012345678"}, {"username_key": "ada"}):
        plan = await house.db["users"].find(query).explain()
        assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"]), query
