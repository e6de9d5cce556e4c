"""The second factor: turned on, asked for, used once, locked by its owner's wrong codes only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pyotp
import pytest

from models.auth.second.store import FactorStore
from models.auth.second.vault import Vault, VaultClosed
from models.auth.service import SignedIn, SignInDevice
from models.db import Database
from models.errors import Refusal
from server.adapters.passwords import Passwords
from tests.fakes import CountingChance, CountingIds, VirtualClock
from tests.services.accounts_house import BY, PASSWORD, House, code_of


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords) -> House:
    return House(db, clock, ids, passwords)


class Phone:
    """An authenticator app, and the recovery codes on paper."""

    def __init__(self, house: House, user_id: str) -> None:
        self.house, self.user_id = house, user_id
        self.recovery: list[str] = []
        self.totp: pyotp.TOTP

    async def turned_on(self) -> Phone:
        self.totp = pyotp.TOTP((await self.house.one.accounts.set_up_factor(self.user_id)).secret)
        self.recovery = await self.house.one.accounts.factors.enable(self.user_id, self.code())
        self.house.clock.pass_(30)
        return self

    def code(self, steps: int = 0) -> str:
        return self.totp.at(self.house.clock.now() + timedelta(seconds=30 * steps))

    def wrong(self) -> str:
        near = {self.code(steps) for steps in range(-3, 4)}
        return next(code for code in (f"{n:06d}" for n in range(20)) if code not in near)


async def signs_in(house: House, accounts: Any = None, **proof: Any) -> SignedIn:
    done: SignedIn = await (accounts or house.one.accounts).login(
        identifier="ada", password=PASSWORD, device=SignInDevice(), **proof
    )
    return done


@pytest.fixture
async def phone(house: House) -> Phone:
    ada = await house.joins()
    return await Phone(house, ada.account.profile.user_id).turned_on()


async def test_until_the_first_code_nothing_is_asked_for(house: House) -> None:
    ada = await house.joins()
    user_id = ada.account.profile.user_id
    assert not ada.account.second_factor
    await house.one.accounts.set_up_factor(user_id)
    assert await code_of(house.one.accounts.factors.enable(user_id, "12345")) == "TOTP_WRONG"
    assert not (await signs_in(house)).account.second_factor
    assert await house.one.accounts.fresh_factor(user_id) is None


async def test_a_seed_that_waits_too_long_is_not_taken(house: House) -> None:
    user_id = (await house.joins()).account.profile.user_id
    phone = Phone(house, user_id)
    phone.totp = pyotp.TOTP((await house.one.accounts.set_up_factor(user_id)).secret)
    house.clock.pass_(900)
    assert await code_of(house.one.accounts.factors.enable(user_id, phone.code())) == "TOTP_NOT_SET_UP"
    assert await code_of(house.one.accounts.factors.enable("nobody", phone.code())) == "TOTP_NOT_SET_UP"


async def test_only_the_newest_seed_can_be_turned_on(house: House) -> None:
    user_id = (await house.joins()).account.profile.user_id
    old = pyotp.TOTP((await house.one.accounts.set_up_factor(user_id)).secret)
    new = pyotp.TOTP((await house.one.accounts.set_up_factor(user_id)).secret)
    assert (
        await code_of(house.one.accounts.factors.enable(user_id, old.at(house.clock.now()))) == "TOTP_WRONG"
    )
    assert len(await house.one.accounts.factors.enable(user_id, new.at(house.clock.now()))) == 10


async def test_who_has_stolen_a_token_begins_no_second_factor(house: House) -> None:
    ada = await house.joins()
    user_id, session_id = await house.who(ada)
    accounts = house.one.accounts
    house.clock.pass_(600)
    await accounts.prove_fresh(user_id, session_id, None)
    house.clock.pass_(1)
    await accounts.refresh(ada.tokens.refresh_token)  # which is no sign-in
    assert await code_of(accounts.prove_fresh(user_id, session_id, None)) == "PASSWORD_REQUIRED"
    assert await code_of(accounts.prove_fresh(user_id, "no session", None)) == "PASSWORD_REQUIRED"
    assert await code_of(accounts.prove_fresh(user_id, session_id, "hunter2hunter2")) == "PASSWORD_WRONG"
    await accounts.prove_fresh(user_id, session_id, PASSWORD)
    _, another = await house.who(await house.signs_in())
    await accounts.prove_fresh(user_id, another, None)


async def test_a_factor_that_is_on_cannot_be_set_up_over(house: House, phone: Phone) -> None:
    assert await code_of(house.one.accounts.set_up_factor(phone.user_id)) == "TOTP_ENABLED"
    assert await code_of(house.one.accounts.factors.enable(phone.user_id, phone.code())) == "TOTP_ENABLED"


async def test_a_sign_in_asks_for_a_code_only_of_who_knows_the_password(house: House, phone: Phone) -> None:
    assert await code_of(signs_in(house)) == "TOTP_REQUIRED"
    assert await code_of(house.signs_in(password="another one")) == "CREDENTIALS_WRONG"
    assert await code_of(signs_in(house, totp=phone.wrong())) == "TOTP_WRONG"
    assert (await signs_in(house, totp=phone.code())).account.second_factor
    assert await house.count("sessions") == 2


@pytest.mark.parametrize(("steps", "taken"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
async def test_a_clock_may_be_one_step_off(house: House, phone: Phone, steps: int, taken: bool) -> None:
    house.clock.pass_(60)
    if taken:
        await signs_in(house, totp=phone.code(steps))
    else:
        assert await code_of(signs_in(house, totp=phone.code(steps))) == "TOTP_WRONG"


async def test_a_step_is_used_once_and_none_before_it(house: House, phone: Phone) -> None:
    house.clock.pass_(60)
    earlier, code = phone.code(-1), phone.code()
    await signs_in(house, totp=code)
    assert await code_of(signs_in(house, totp=code)) == "TOTP_WRONG"
    assert await code_of(signs_in(house, totp=earlier)) == "TOTP_WRONG"
    assert await code_of(house.one.accounts.fresh_factor(phone.user_id, totp=code)) == "TOTP_WRONG"
    house.clock.pass_(30)
    await signs_in(house, totp=f" {phone.code()[:3]} {phone.code()[3:]} ")


async def test_a_step_before_one_that_another_process_has_just_used_up_is_not_used(
    house: House, phone: Phone
) -> None:
    store = FactorStore(house.db)
    factor = await store.find(phone.user_id)
    assert factor is not None
    assert factor.seed is not None
    assert await store.use_step(phone.user_id, factor.seed, factor.last_step + 2)
    assert not await store.use_step(phone.user_id, factor.seed, factor.last_step + 1)


async def test_the_code_that_turned_it_on_is_used_up(house: House) -> None:
    user_id = (await house.joins()).account.profile.user_id
    totp = pyotp.TOTP((await house.one.accounts.set_up_factor(user_id)).secret)
    code = totp.at(house.clock.now())
    await house.one.accounts.factors.enable(user_id, code)
    assert await code_of(signs_in(house, totp=code)) == "TOTP_WRONG"


async def test_of_one_code_at_two_processes_at_once_one_is_let_in(house: House, phone: Phone) -> None:
    there, code = house.process(), phone.code()
    work = [signs_in(house, accounts, totp=code) for accounts in [house.one.accounts, there.accounts] * 2]
    done = await asyncio.gather(*work, return_exceptions=True)
    assert sum(isinstance(one, SignedIn) for one in done) == 1
    assert {one.code for one in done if isinstance(one, Refusal)} == {"TOTP_WRONG"}


async def test_five_wrong_codes_lock_and_the_locks_grow(house: House, phone: Phone) -> None:
    for locked_for in (300, 3600, 86_400, 86_400):
        for left in (4, 3, 2, 1, 0):
            with pytest.raises(Refusal) as no:
                await signs_in(house, totp=phone.wrong())
            assert (no.value.code, no.value.details) == ("TOTP_WRONG", {"triesLeft": left})
        assert no.value.retry_after_ms == locked_for * 1000
        house.clock.pass_(1)
        with pytest.raises(Refusal) as no:
            await signs_in(house, totp=phone.code())
        assert (no.value.code, no.value.retry_after_ms) == ("TOTP_LOCKED", (locked_for - 1) * 1000)
        house.clock.pass_(locked_for - 1)
    await signs_in(house, totp=phone.code())
    assert await house.count("auth_tries") == 0


async def test_a_hundred_guesses_at_once_are_counted_as_such(house: House, phone: Phone) -> None:
    there = house.process()
    work = [
        (there if n % 2 else house.one).accounts.fresh_factor(phone.user_id, totp=phone.wrong())
        for n in range(100)
    ]
    done = await asyncio.gather(*work, return_exceptions=True)
    codes = [one.code for one in done if isinstance(one, Refusal)]
    assert (codes.count("TOTP_WRONG"), codes.count("TOTP_LOCKED")) == (5, 95)


async def test_who_does_not_know_the_password_locks_nobody_out(house: House, phone: Phone) -> None:
    for _ in range(20):
        guess = house.one.accounts.login(
            identifier="ada", password="a guess", device=SignInDevice(), totp=phone.wrong()
        )
        assert await code_of(guess) == "CREDENTIALS_WRONG"
    await signs_in(house, totp=phone.code())


async def test_who_has_stolen_the_password_locks_no_signed_in_device(house: House, phone: Phone) -> None:
    for _ in range(5):
        assert await code_of(signs_in(house, totp=phone.wrong())) == "TOTP_WRONG"
    assert await code_of(signs_in(house, totp=phone.code())) == "TOTP_LOCKED"
    await house.one.accounts.fresh_factor(phone.user_id, totp=phone.code())
    # A recovery code opens in spite of the lock, and lifts it.
    signed_in = await signs_in(house, recovery_code=phone.recovery[0])
    house.clock.pass_(30)
    await signs_in(house, totp=phone.code())
    for _ in range(5):
        assert await code_of(signs_in(house, totp=phone.wrong())) == "TOTP_WRONG"
    # So does another password, which the thief does not have.
    user_id, session_id = await house.who(signed_in)
    house.clock.pass_(30)
    await house.one.accounts.change_password(
        user_id, session_id, current=PASSWORD, new="another good password"
    )
    await house.one.accounts.login(
        identifier="ada", password="another good password", device=SignInDevice(), totp=phone.code()
    )


async def test_a_recovery_code_is_taken_once_however_it_is_typed(house: House, phone: Phone) -> None:
    assert len(set(phone.recovery)) == 10
    assert all(len(code.replace("-", "")) * 5 >= 112 for code in phone.recovery)
    await signs_in(house, recovery_code=phone.recovery[0].lower().replace("-", " "))
    assert await code_of(signs_in(house, recovery_code=phone.recovery[0])) == "TOTP_WRONG"
    misread = phone.recovery[1].replace("O", "0").replace("I", "1").replace("B", "8")
    there = house.process()
    done = await asyncio.gather(
        *(signs_in(house, p.accounts, recovery_code=misread) for p in (house.one, there)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, SignedIn) for one in done) == 1
    assert await house.one.accounts.factors.recovery_left(phone.user_id) == 8
    assert await code_of(signs_in(house, recovery_code="")) == "TOTP_WRONG"


async def test_another_persons_recovery_code_opens_nothing(house: House, phone: Phone) -> None:
    bob = await Phone(house, (await house.joins("bob")).account.profile.user_id).turned_on()
    assert await code_of(signs_in(house, recovery_code=bob.recovery[0])) == "TOTP_WRONG"


async def test_new_recovery_codes_end_the_old(house: House, phone: Phone) -> None:
    renew = house.one.accounts.renew_recovery
    proof: dict[str, Any] = {"totp": None, "recovery_code": phone.recovery[0]}
    assert await code_of(renew(phone.user_id, password="wrong", **proof)) == "PASSWORD_WRONG"
    new = await renew(phone.user_id, password=PASSWORD, **proof)
    assert not set(new) & set(phone.recovery)
    assert await code_of(signs_in(house, recovery_code=phone.recovery[1])) == "TOTP_WRONG"
    await signs_in(house, recovery_code=new[0])


async def test_turning_it_off_takes_the_password_and_a_code(house: House, phone: Phone) -> None:
    off, user_id = house.one.accounts.disable_factor, phone.user_id
    proof = {"password": PASSWORD, "totp": phone.code(), "recovery_code": None}
    assert await code_of(off(user_id, **{**proof, "password": "wrong"})) == "PASSWORD_WRONG"
    assert await code_of(off(user_id, **{**proof, "totp": phone.wrong()})) == "TOTP_WRONG"
    await off(user_id, **proof)
    assert not (await signs_in(house)).account.second_factor
    house.clock.pass_(30)
    assert await code_of(off(user_id, **{**proof, "totp": phone.code()})) == "TOTP_NOT_SET_UP"
    assert await house.one.accounts.factors.turned_off_at(user_id) == house.clock.now() - timedelta(
        seconds=30
    )
    # And on again, with another seed.
    again = await Phone(house, user_id).turned_on()
    assert await code_of(signs_in(house, totp=phone.code())) == "TOTP_WRONG"
    await signs_in(house, totp=again.code())


async def test_who_has_lost_app_and_paper_is_helped_by_the_operator(house: House, phone: Phone) -> None:
    account = await house.stewards.drop_factor("ada", **BY)
    assert not account.second_factor
    await signs_in(house)
    assert await house.one.accounts.factors.turned_off_at(phone.user_id) == house.clock.now()
    assert not (await house.stewards.drop_factor("ada", **BY)).second_factor, "safe to repeat"


async def test_a_factor_that_is_turned_on_between_the_look_and_the_sign_in_is_asked_for(house: House) -> None:
    user_id = (await house.joins()).account.profile.user_id
    phone = Phone(house, user_id)
    real = house.one.hasher.verify

    async def slow(password: str, kept: str | None) -> bool:
        house.one.hasher.verify = real  # type: ignore[method-assign]
        await phone.turned_on()
        return await real(password, kept)

    house.one.hasher.verify = slow  # type: ignore[method-assign]
    assert await code_of(signs_in(house)) == "TOTP_REQUIRED"
    assert await house.count("sessions") == 1


async def test_a_code_is_not_asked_for_twice_when_the_account_changes_meanwhile(
    house: House, phone: Phone
) -> None:
    real, done = house.store.sign_in, []

    async def once_in_vain(*args: Any, **more: Any) -> Any:
        done.append(args)
        return None if len(done) == 1 else await real(*args, **more)

    house.store.sign_in = once_in_vain  # type: ignore[method-assign]
    await signs_in(house, totp=phone.code())
    assert len(done) == 2


async def test_neither_seed_nor_recovery_codes_can_be_read_in_the_database(
    house: House, phone: Phone
) -> None:
    row = await house.db["second_factors"].find_one({})
    assert row is not None
    seed = pyotp.TOTP(phone.totp.secret).byte_secret()
    assert seed not in bytes(row["seed"])
    assert phone.totp.secret not in str(row)
    assert not any(code.replace("-", "") in str(row).upper() for code in phone.recovery)


def test_a_seed_opens_for_its_owner_under_its_secret_only() -> None:
    vault = Vault("s" * 32, CountingChance())
    kept = vault.seal("ada", b"seed")
    assert vault.open("ada", kept) == b"seed"
    for other, owner in ((vault, "bob"), (Vault("t" * 32, CountingChance()), "ada")):
        with pytest.raises(VaultClosed):
            other.open(owner, kept)
    with pytest.raises(VaultClosed):
        vault.open("ada", kept[:-1] + bytes([kept[-1] ^ 1]))


async def test_a_deleted_account_leaves_no_factor_behind(house: House, phone: Phone) -> None:
    await house.one.accounts.delete(phone.user_id, password=PASSWORD)
    assert await house.count("second_factors") == 0
    row = await house.db["users"].find_one({})
    assert row is not None
    assert "second_factor" not in row


async def test_who_was_banned_meanwhile_turns_nothing_on_and_can_later(house: House) -> None:
    """Turning on is one transaction: a user that is marked has a factor, and a factor marks its user."""
    user_id = (await house.joins()).account.profile.user_id
    phone = Phone(house, user_id)
    phone.totp = pyotp.TOTP((await house.one.accounts.set_up_factor(user_id)).secret)
    await house.db["users"].update_one({"_id": user_id}, {"$set": {"status": "banned"}})
    assert await code_of(house.one.accounts.factors.enable(user_id, phone.code())) == "TOTP_NOT_SET_UP"
    assert await house.count("second_factors", seed={"$exists": True}) == 0
    await house.db["users"].update_one({"_id": user_id}, {"$set": {"status": "active"}})
    assert len(await house.one.accounts.factors.enable(user_id, phone.code())) == 10
