"""PINs: set, checked, changed, reset; wrong ones lock, however and wherever they are given."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from models.db import Database
from models.errors import Refusal
from models.wallet.service import WALLETS_MAX
from models.wallet.store import WalletStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.wallet_house import (
    ANN,
    BOB,
    EVE,
    OTHER_PIN,
    PASSWORD,
    PIN,
    WRONG,
    House,
    code_of,
    refused,
)

MINUTES_15 = 15 * 60
HOURS_24 = 24 * 3600


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    built = House(db, clock, ids)
    for user_id, name in ((ANN, "ann"), (BOB, "bob"), (EVE, "eve")):
        await built.add_user(user_id, name)
    return built


async def wrong_five_times(house: House, user_id: str = ANN) -> None:
    for left in (4, 3, 2, 1, 0):
        verdict = await house.wallets.pins.verdict(user_id, WRONG)
        assert (verdict.valid, verdict.tries_left) == (False, left)


async def test_the_first_wallet_sets_the_pin_and_a_second_create_is_refused(house: House) -> None:
    wallet = await house.wallets.create(ANN, PIN)
    assert (wallet.currency, wallet.primary, wallet.credits, wallet.frozen) == ("NGN", 0, 0, False)
    assert await code_of(house.wallets.create(ANN, PIN)) == "WALLET_EXISTS"
    assert await code_of(house.wallets.create(ANN, OTHER_PIN)) == "WALLET_EXISTS"
    assert (await house.wallets.pins.verdict(ANN, PIN)).valid


async def test_creates_at_the_same_time_make_one_wallet_and_one_pin(house: House) -> None:
    two = house.process()
    pins = (PIN, OTHER_PIN)
    done = await asyncio.gather(
        *((house.one, two)[n % 2].wallets.create(ANN, pins[n % 2]) for n in range(6)), return_exceptions=True
    )
    made = [one for one in done if not isinstance(one, BaseException)]
    assert made
    assert len({wallet.id for wallet in made}) == 1
    assert {one.code for one in done if isinstance(one, Refusal)} <= {"WALLET_EXISTS", "PIN_WRONG"}
    assert await house.db["wallets"].count_documents({}) == await house.db["pins"].count_documents({}) == 1


async def test_a_create_whose_process_died_after_the_pin_is_finished_by_the_next_one(house: House) -> None:
    assert await house.process().wallets.pins.first(ANN, PIN)
    assert await house.wallets.find(ANN) is None
    assert await code_of(house.wallets.create(ANN, OTHER_PIN)) == "PIN_WRONG"
    assert (await house.wallets.create(ANN, PIN)).currency == "NGN"


async def test_a_wallet_that_somebody_was_paid_into_is_taken_over_by_the_first_pin(house: House) -> None:
    await house.rich(BOB, 5000)
    await house.move(user_id=BOB, to=ANN)
    assert await code_of(house.wallets.pins.verdict(ANN, PIN)) == "PIN_UNSET"
    wallet = await house.wallets.create(ANN, PIN)
    assert wallet.primary == 1000
    assert await code_of(house.wallets.create(ANN, PIN)) == "WALLET_EXISTS"


async def test_a_wallet_in_another_currency_needs_the_pin(house: House) -> None:
    first = await house.wallets.create(ANN, PIN)
    no = await refused(house.wallets.create(ANN, WRONG, "JPY"))
    assert (no.code, no.details) == ("PIN_WRONG", {"triesLeft": 4})
    second = await house.wallets.create(ANN, PIN, "JPY")
    assert (second.currency, second.user_id) == ("JPY", ANN)
    assert second.id != first.id
    assert (await house.wallets.wallet(ANN)).id == first.id, "the server's currency is the usual one"


async def test_wallets_are_counted_and_however_many_there_are_the_usual_one_is_found(house: House) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for n in range(WALLETS_MAX - 1):
        await house.one.ledger.ensure(ANN, f"{letters[n // 26]}{letters[n % 26]}Q")
    house.clock.pass_(1)
    await house.wallets.create(ANN, PIN)
    assert await code_of(house.wallets.create(ANN, PIN, "JPY")) == "VALIDATION_FAILED"
    assert (await house.wallets.wallet(ANN)).currency == "NGN"


@pytest.mark.parametrize("currency", ["ngn", "NG", "ABC", "", "NGNN"])
async def test_a_currency_is_an_iso_code(house: House, currency: str) -> None:
    if currency:
        no = await refused(house.wallets.create(ANN, PIN, currency))
        assert (no.code, list(no.details)) == ("VALIDATION_FAILED", ["currency"])
    else:
        assert (await house.wallets.create(ANN, PIN, currency)).currency == "NGN"


async def test_a_pin_that_is_guessed_first_or_is_no_pin_is_never_set(house: House) -> None:
    for pin in ("0000", "1234", "4321", "999999", "7890", "123", "1234567", "12a4", "１２３４", ""):
        assert await code_of(house.wallets.create(ANN, pin)) == "VALIDATION_FAILED"
    await house.wallets.create(ANN, PIN)
    assert await code_of(house.wallets.pins.change(ANN, old=PIN, new="1111")) == "VALIDATION_FAILED"
    assert await code_of(house.wallets.pins.reset(ANN, password=PASSWORD, new="1111")) == "VALIDATION_FAILED"


async def test_five_wrong_pins_lock_for_15_minutes_then_24_hours_then_until_a_reset(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    pins = house.wallets.pins
    for seconds in (MINUTES_15, HOURS_24):
        await wrong_five_times(house)
        no = await refused(pins.verdict(ANN, PIN))
        assert (no.code, no.retry_after_ms, no.details) == (
            "PIN_LOCKED",
            seconds * 1000,
            {"resetNeeded": False},
        )
        house.clock.pass_(seconds - 1)
        assert (await refused(pins.check(ANN, PIN))).retry_after_ms == 1000
        house.clock.pass_(1)
    await wrong_five_times(house)
    house.clock.pass_(365 * 24 * 3600)
    no = await refused(pins.verdict(ANN, PIN))
    assert (no.code, no.retry_after_ms, no.details) == ("PIN_LOCKED", None, {"resetNeeded": True})
    await pins.reset(ANN, password=PASSWORD, new=OTHER_PIN)
    assert (await pins.verdict(ANN, OTHER_PIN)).valid


async def test_a_right_pin_forgets_the_wrong_ones_and_the_earlier_locks(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    for _ in range(2):
        await wrong_five_times(house)
        house.clock.pass_(MINUTES_15)
        assert (await house.wallets.pins.verdict(ANN, PIN)).tries_left == 5
    for _ in range(4):
        await house.wallets.pins.verdict(ANN, WRONG)
    assert (await house.wallets.pins.verdict(ANN, PIN)).valid


async def test_the_fifth_wrong_pin_says_how_long_it_locks(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    waits = [(await refused(house.wallets.pins.check(ANN, WRONG))).retry_after_ms for _ in range(5)]
    assert waits == [None, None, None, None, MINUTES_15 * 1000]


async def test_of_fifty_guesses_at_once_at_two_processes_five_are_looked_at(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    processes = [house.process(), house.process()]
    guesses = [f"{n:04d}" for n in range(3000, 3050)]
    answers = await asyncio.gather(
        *(processes[n % 2].wallets.pins.verdict(ANN, guess) for n, guess in enumerate(guesses)),
        return_exceptions=True,
    )
    assert sum(len(process.hasher.verified) for process in processes) == 5
    locked = [no for no in answers if isinstance(no, Refusal)]
    assert ({no.code for no in locked}, len(locked)) == ({"PIN_LOCKED"}, 45)


async def test_a_lock_outlives_the_process(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    await wrong_five_times(house)
    heir = house.process()
    assert await code_of(heir.wallets.pins.verdict(ANN, PIN)) == "PIN_LOCKED"
    assert heir.hasher.verified == []
    house.clock.pass_(MINUTES_15)
    assert (await heir.wallets.pins.verdict(ANN, PIN)).valid


async def test_a_process_that_dies_between_the_count_and_the_look_has_used_the_try_up(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    store = WalletStore(house.db)
    for _ in range(5):
        assert await store.count_try(ANN, house.clock.now()) is not None
    assert await store.count_try(ANN, house.clock.now()) is None
    assert await code_of(house.wallets.pins.verdict(ANN, PIN)) == "PIN_LOCKED"


async def test_right_pins_at_once_all_pass(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    verdicts = await asyncio.gather(*(house.wallets.pins.verdict(ANN, PIN) for _ in range(20)))
    assert all(verdict.valid for verdict in verdicts)


async def test_a_lock_is_its_users_own(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    await house.wallets.create(BOB, PIN)
    await wrong_five_times(house)
    assert (await house.wallets.pins.verdict(BOB, PIN)).valid


async def test_what_was_not_looked_at_for_want_of_time_is_no_try(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    for _ in range(4):
        await house.wallets.pins.verdict(ANN, WRONG)
    house.one.hasher.busy = True
    for _ in range(3):
        assert await code_of(house.wallets.pins.verdict(ANN, PIN)) == "SERVER_BUSY"
    house.one.hasher.busy = False
    assert (await house.wallets.pins.verdict(ANN, PIN)).valid


async def test_a_pin_is_changed_by_who_knows_it(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    before = await WalletStore(house.db).pin(ANN)
    no = await refused(house.wallets.pins.change(ANN, old=WRONG, new=OTHER_PIN))
    assert (no.code, no.details) == ("PIN_WRONG", {"triesLeft": 4})
    house.clock.pass_(60)
    await house.wallets.pins.change(ANN, old=PIN, new=OTHER_PIN)
    assert (await house.wallets.pins.verdict(ANN, OTHER_PIN)).valid
    assert not (await house.wallets.pins.verdict(ANN, PIN)).valid
    after = await WalletStore(house.db).pin(ANN)
    assert before is not None
    assert after is not None
    assert after.changed_at - before.changed_at == timedelta(seconds=60)
    assert await code_of(house.wallets.pins.change(BOB, old=PIN, new=OTHER_PIN)) == "PIN_UNSET"


async def test_of_two_changes_at_once_one_wins(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    two = house.process()
    done = await asyncio.gather(
        house.wallets.pins.change(ANN, old=PIN, new=OTHER_PIN),
        two.wallets.pins.change(ANN, old=PIN, new="6038"),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in done) == ["NoneType", "Refusal"]
    winner = (OTHER_PIN, "6038")[[one is None for one in done].index(True)]
    assert (await house.wallets.pins.verdict(ANN, winner)).valid


async def test_a_reset_needs_the_password_and_lifts_the_lock(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    await wrong_five_times(house)
    assert await code_of(house.wallets.pins.reset(ANN, password="no", new=OTHER_PIN)) == "PASSWORD_WRONG"
    assert await code_of(house.wallets.pins.verdict(ANN, PIN)) == "PIN_LOCKED"
    await house.wallets.pins.reset(ANN, password=PASSWORD, new=OTHER_PIN)
    assert (await house.wallets.pins.verdict(ANN, OTHER_PIN)).valid
    assert await code_of(house.wallets.pins.reset(BOB, password=PASSWORD, new=OTHER_PIN)) == "PIN_UNSET"


async def test_the_hash_depends_on_the_pepper_and_on_the_user(house: House) -> None:
    await house.wallets.create(ANN, PIN)
    await house.wallets.create(BOB, PIN)
    rows = [row async for row in house.db["pins"].find({})]
    assert len({row["hash"] for row in rows}) == 2, (
        "a hash that is not salted, so that the users tell them apart"
    )
    stranger = house.process(pepper=b"another secret")
    assert not (await stranger.wallets.pins.verdict(ANN, PIN)).valid


async def test_nothing_that_is_kept_or_shown_has_the_pin_in_it(house: House) -> None:
    pin = "739146"
    await house.wallets.create(ANN, pin)
    await house.fund(ANN, 5000)
    await house.move(pin=pin)
    no = await refused(house.wallets.pins.check(ANN, "739147"))
    for name in await house.db.db.list_collection_names():
        async for row in house.db.db[name].find({}):
            assert pin not in repr(row), name
    assert pin not in repr(no.body()) + repr(await house.wallets.pins.verdict(ANN, pin))
    assert pin not in repr(house.one.hasher.verified), "it is peppered before it is hashed"
