"""Wrong guesses lock out whoever guesses and never the owner (``models.auth.guesses``, ``models.auth.codes``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from models.auth.guesses import TRIES_MAX
from models.auth.known import KnownDevices
from models.auth.service import SignedIn, SignInDevice
from models.db import Database
from models.errors import Refusal
from server.adapters.passwords import Passwords
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import PASSWORD, SECRET, House, code_of

NEW = "kettle orbit 73 lantern"
HOME, CAFE = "198.51.100.1", "203.0.113.5"


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords) -> House:
    return House(db, clock, ids, passwords)


async def enter(house: House, password: str = PASSWORD, who: str = "ada", **more: Any) -> SignedIn:
    return await house.one.accounts.login(
        identifier=who, password=password, device=SignInDevice(), **{"address": CAFE, **more}
    )


async def guess(house: House, who: str = "ada", **more: Any) -> str:
    return await code_of(enter(house, "wrong horse battery", who, **more))


async def locked_by_strangers(house: House, who: str = "ada") -> None:
    """Every guess from another address, at whichever process."""
    for number in range(TRIES_MAX):
        assert await guess(house, who, address=f"192.0.2.{number}") == "CREDENTIALS_WRONG"


async def refused_ms(work: Any) -> int:
    with pytest.raises(Refusal) as no:
        await work
    assert (no.value.code, no.value.retry_after_ms is not None) == ("RATE_LIMITED", True)
    return no.value.retry_after_ms or 0


async def test_guesses_from_any_number_of_addresses_are_bounded_and_the_locks_grow(house: House) -> None:
    await house.joins()
    for seconds in (60, 300, 900, 3600, 3600):
        await locked_by_strangers(house)
        house.one.hasher.done.clear()
        assert await refused_ms(enter(house, address="192.0.2.250")) == seconds * 1000
        assert house.one.hasher.done == [], "what is locked costs no hash"
        house.clock.pass_(seconds)


async def test_a_name_without_an_account_is_locked_like_any_other(house: House) -> None:
    await house.joins()
    for who in ("nobody", "nobody@example.com", "+2348099999999", "\x00 no name at all \x00"):
        await locked_by_strangers(house, who)
        assert await refused_ms(enter(house, who=who)) == 60_000


async def test_however_a_name_is_written_it_is_the_same_name(house: House) -> None:
    await house.joins(phone="+2348012345678")
    ways = ["+234 801 234 5678", "+2348012345678", "+234-801-234-5678"]
    for number in range(TRIES_MAX):
        assert await guess(house, ways[number % 3]) == "CREDENTIALS_WRONG"
    assert await guess(house, ways[0]) == "RATE_LIMITED"


async def test_a_device_that_was_signed_in_before_gets_in_while_strangers_are_locked_out(
    house: House,
) -> None:
    mine = (await house.joins()).tokens.device_token
    await locked_by_strangers(house)
    assert await guess(house) == "RATE_LIMITED"
    again = await enter(house, device_token=mine)
    assert again.account.profile.username == "ada"
    # By whatever name, and after signing out everywhere.
    await house.one.accounts.logout_all(again.account.profile.user_id)
    await enter(house, device_token=mine, who="ada@example.com")
    # The strangers' lock is as it was.
    assert await guess(house) == "RATE_LIMITED"


async def test_who_guesses_on_a_known_device_is_locked_out_with_it_and_nobody_else(house: House) -> None:
    stolen = (await house.joins()).tokens.device_token
    other = (await house.signs_in()).tokens.device_token
    for _ in range(TRIES_MAX):
        assert await guess(house, device_token=stolen) == "CREDENTIALS_WRONG"
    assert await refused_ms(enter(house, device_token=stolen)) == 60_000
    await enter(house, device_token=other)
    await enter(house)


async def test_a_device_token_is_good_for_its_own_account_and_cannot_be_made_up(house: House) -> None:
    await house.joins()
    eves = (await house.joins("eve")).tokens.device_token
    ada_id = (await enter(house)).account.profile.user_id
    forged = KnownDevices(SECRET[::-1]).token(ada_id, "a sign-in".replace(" ", "-"))
    await locked_by_strangers(house)
    for token in (eves, forged, f"{ada_id}.{eves.split('.', 1)[1]}", "", "x", "a.b." + "c" * 43, "💥"):
        assert await guess(house, device_token=token) == "RATE_LIMITED", token
    # Guesses with somebody else's token count as a stranger's.
    for number in range(TRIES_MAX):
        assert (
            await guess(house, "bob", device_token=eves, address=f"192.0.2.{number}") == "CREDENTIALS_WRONG"
        )
    assert await guess(house, "bob") == "RATE_LIMITED"


async def test_the_right_password_begins_anew(house: House) -> None:
    await house.joins()
    for _ in range(3):
        for _ in range(TRIES_MAX - 1):
            assert await guess(house) == "CREDENTIALS_WRONG"
        await enter(house)


# ------------------------------------------------------------------------------------------------------- the way back


async def asked(house: House, **more: Any) -> str:
    """Ask for a code and have it sent; the newest one."""
    house.clock.pass_(61)
    await house.one.accounts.codes.forgot("ada", **more)
    await house.one.accounts.codes.run_due()
    return house.messenger.code()


async def reset(house: House, code: str, **more: Any) -> None:
    await house.one.accounts.reset_password("ada", code, new=NEW, **{"address": HOME, **more})


async def test_who_has_set_the_password_by_a_code_gets_in_from_there_whatever_strangers_do(
    house: House,
) -> None:
    await house.joins(phone="+2348012345678")
    await locked_by_strangers(house, "ada@example.com")
    await reset(house, await asked(house))
    await locked_by_strangers(house)
    for who in ("ada", "ada@example.com", "+2348012345678"):
        await enter(house, NEW, who, address=HOME)
    assert await code_of(enter(house, NEW, address=CAFE)) == "RATE_LIMITED"
    # Guessing there is bounded as well, and an hour later it is an address like any other.
    for _ in range(TRIES_MAX):
        assert await guess(house, address=HOME) == "CREDENTIALS_WRONG"
    assert await guess(house, address=HOME) == "RATE_LIMITED"
    house.clock.pass_(3600)
    await locked_by_strangers(house)
    assert await guess(house, address=HOME) == "RATE_LIMITED"


async def test_strangers_who_ask_for_codes_neither_replace_nor_use_up_those_of_a_known_device(
    house: House,
) -> None:
    mine = (await house.joins()).tokens.device_token
    code = await asked(house, device_token=mine)
    for number in range(4):
        await asked(house, address=f"192.0.2.{number}")
    assert len({message.text for message in house.messenger.brought}) == 5
    await reset(house, code, device_token=mine)
    # All that an hour has for strangers, and still one for the device.
    for number in range(30):
        await asked(house, address=f"192.0.2.{100 + number}")
    before = len(house.messenger.brought)
    await asked(house, address="192.0.2.200")
    assert len(house.messenger.brought) == before, "the hour's twenty are used up"
    code = await asked(house, device_token=mine)
    assert len(house.messenger.brought) == before + 1
    await house.one.accounts.reset_password("ada", code, new=PASSWORD, address=HOME, device_token=mine)


async def test_wrong_codes_of_strangers_make_no_code_of_a_known_device_useless(house: House) -> None:
    mine = (await house.joins()).tokens.device_token
    code = await asked(house, device_token=mine)
    wrong = f"{(int(code) + 1) % 10**8:08d}"
    for number in range(60):
        assert await code_of(reset(house, wrong, address=f"192.0.2.{number}")) == "CODE_WRONG"
    # Those who are no known device have no tries left at it, and the device has all of its own.
    assert await code_of(reset(house, code)) == "CODE_WRONG"
    await reset(house, code, device_token=mine)


async def test_a_code_that_a_known_device_asked_for_may_be_typed_on_another(house: House) -> None:
    mine = (await house.joins()).tokens.device_token
    code = await asked(house, device_token=mine)
    other = await asked(house)
    await reset(house, code)
    assert await code_of(reset(house, other)) == "CODE_WRONG", "with one of them the other is used up"


async def test_whoever_has_an_account_of_their_own_uses_up_no_more_of_somebody_elses_hour(
    house: House,
) -> None:
    await house.joins()
    eves = [come.tokens.device_token for come in (await house.joins("eve"), await house.signs_in("eve"))]
    for number in range(4):
        await asked(house, address=CAFE, device_token=eves[number % 2])
    for token in eves:
        assert await refused_ms(house.one.accounts.codes.forgot("ada", address=CAFE, device_token=token)) > 0


async def test_one_address_does_not_use_up_the_codes_of_an_hour(house: House) -> None:
    await house.joins()
    for _ in range(4):
        await asked(house, address=CAFE)
    assert await refused_ms(house.one.accounts.codes.forgot("ada", address=CAFE)) > 0
    assert await refused_ms(house.one.accounts.codes.forgot("ada", address=CAFE)) > 0
    sent = len(house.messenger.brought)
    await asked(house, address=HOME)
    assert len(house.messenger.brought) == sent + 1
    await house.one.accounts.codes.forgot("bob", address=CAFE)
