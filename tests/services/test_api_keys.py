"""API keys: what they open, how often, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from models.auth.apikeys.service import ApiKeys
from models.auth.apikeys.store import ApiKeyStore
from models.db import Database
from models.errors import Refusal
from server.adapters.passwords import Passwords
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import BY, PASSWORD, House, code_of


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords) -> House:
    return House(db, clock, ids, passwords)


@pytest.fixture
async def ada(house: House) -> str:
    return (await house.joins()).account.profile.user_id


async def made(house: House, user_id: str, *scopes: str, **more: Any) -> str:
    ask: dict[str, Any] = {"name": "Reports", "scopes": scopes or ["calls:read"], "per_minute": 3, "days": 30}
    return (await house.one.accounts.api_keys.make(user_id, **{**ask, **more}))[1]


async def test_a_key_opens_the_doors_of_its_scopes(house: House, ada: str) -> None:
    keys, text = house.one.accounts.api_keys, await made(house, ada, "calls:read", "users:read", per_minute=9)
    assert (await keys.admit(text, "calls:read")).user_id == ada
    assert (await keys.admit(text, "users:read")).scopes == ("calls:read", "users:read")
    with pytest.raises(Refusal) as no:
        await keys.admit(text, "wallet:read")
    assert (no.value.code, no.value.details) == ("SCOPE_MISSING", {"scope": "wallet:read"})
    assert await code_of(keys.admit(text, None)) == "SCOPE_MISSING"
    (kept,) = await keys.keys(ada)
    assert (kept.name, kept.uses, kept.last_used_at) == ("Reports", 4, house.clock.now())


async def test_what_is_no_key_of_ours_opens_nothing(house: House, ada: str) -> None:
    text = await made(house, ada)
    other = await made(house, ada)
    for wrong in ("", "rk_", text[:-1], text + "x", text.swapcase(), text[:20] + other[20:], text + "\n"):
        assert await code_of(house.one.accounts.api_keys.admit(wrong, "calls:read")) == "TOKEN_INVALID", wrong
    assert [key.uses for key in await house.one.accounts.api_keys.keys(ada)] == [0, 0]
    assert await code_of(house.one.accounts.authenticate(text)) == "TOKEN_INVALID", "it is no sign-in"


async def test_the_key_itself_is_nowhere_in_the_database(house: House, ada: str) -> None:
    text = await made(house, ada)
    row = await house.db["api_keys"].find_one({})
    assert text.rsplit("_", 1)[1] not in str(row)


async def test_a_minute_has_so_many_requests_over_all_processes(house: House, ada: str) -> None:
    text = await made(house, ada)
    house.clock.pass_(45)
    there = ApiKeys(store=ApiKeyStore(house.db), accounts=house.store, clock=house.clock, chance=house.chance)
    work = [keys.admit(text, "calls:read") for keys in [house.one.accounts.api_keys, there] * 5]
    done = await asyncio.gather(*work, return_exceptions=True)
    refused = [one for one in done if isinstance(one, Refusal)]
    assert len(refused) == 7
    assert {(one.code, one.retry_after_ms) for one in refused} == {("RATE_LIMITED", 15_000)}
    house.clock.pass_(15)
    await there.admit(text, "calls:read")
    assert [key.uses for key in await there.keys(ada)] == [4]


async def test_a_key_ends_when_it_expires_or_is_revoked_by_its_owner(house: House, ada: str) -> None:
    keys = house.one.accounts.api_keys
    first, second = await made(house, ada), await made(house, ada, days=31)
    bob = (await house.joins("bob")).account.profile.user_id
    id = first.split("_")[1]
    await keys.revoke(bob, id)
    await keys.admit(first, "calls:read")
    await keys.revoke(ada, id)
    await keys.revoke(ada, id)
    assert await code_of(keys.admit(first, "calls:read")) == "TOKEN_INVALID"
    house.clock.pass_(31 * 86_400 - 1)
    await keys.admit(second, "calls:read")
    house.clock.pass_(1)
    assert await code_of(keys.admit(second, "calls:read")) == "TOKEN_INVALID"


async def test_the_keys_of_the_banned_and_the_deleted_open_nothing(house: House, ada: str) -> None:
    keys, text = house.one.accounts.api_keys, await made(house, ada)
    await house.stewards.ban("ada", **BY)
    assert await code_of(keys.admit(text, "calls:read")) == "ACCOUNT_BANNED"
    await house.stewards.unban("ada", **BY)
    await keys.admit(text, "calls:read")
    await house.one.accounts.delete(ada, password=PASSWORD)
    assert await code_of(keys.admit(text, "calls:read")) == "TOKEN_INVALID"
    assert await house.count("api_keys") == 0


async def test_who_sets_a_forgotten_password_is_rid_of_keys_that_others_may_have_made(
    house: House, ada: str
) -> None:
    keys, text = house.one.accounts.api_keys, await made(house, ada)
    await house.one.accounts.codes.forgot("ada")
    await house.one.accounts.codes.run_due()
    reset = house.one.accounts.reset_password
    assert await code_of(reset("ada", "00000000", new="kettle orbit 73", address="a")) == "CODE_WRONG"
    await keys.admit(text, "calls:read")
    await reset("ada", house.messenger.code(), new="kettle orbit 73", address="a")
    assert await code_of(keys.admit(text, "calls:read")) == "TOKEN_INVALID"


async def test_one_may_have_twenty(house: House, ada: str) -> None:
    for _ in range(20):
        await made(house, ada)
    assert await code_of(made(house, ada)) == "TOO_MANY_KEYS"
