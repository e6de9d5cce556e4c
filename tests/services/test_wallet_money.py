"""Transfers, deposits, freezing and statements, with a real database: once, never too much, and told."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from handlers.wallet import WALLET_UPDATED, WalletTeller
from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Entry, Kind, Leg, Pocket, account_of, wallet_key
from models.mailbox.service import Mailbox
from models.mailbox.store import MailboxStore
from models.wallet.rules import Amount, major_asked
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.wallet_house import (
    ANN,
    BOB,
    EVE,
    NOBODY,
    PIN,
    WRONG,
    House,
    books_agree,
    code_of,
    refused,
)


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    built = House(db, clock, ids)
    for user_id, name in ((ANN, "ann"), (BOB, "bob"), (EVE, "eve")):
        await built.add_user(user_id, name)
    return built


# --------------------------------------------------------------------------------------------------------- transfers


async def test_a_transfer_moves_money_between_the_primary_balances(house: House) -> None:
    await house.rich(ANN, 5000)
    done = await house.move(note="for lunch")
    assert (done.amount_minor, done.payee.user_id, done.wallet.primary) == (1000, BOB, 4000)
    assert (done.entry.kind, done.entry.note, done.entry.at) == (
        Kind.TRANSFER,
        "for lunch",
        house.clock.now(),
    )
    assert (await house.balance(ANN), await house.balance(BOB)) == (4000, 1000)
    assert [{wallet.user_id for wallet in told} for told in house.one.told[-1:]] == [{ANN, BOB}]
    await books_agree(house.db)


async def test_a_payee_is_named_by_id_or_by_username(house: House) -> None:
    await house.rich(ANN, 5000)
    for to in (BOB, "bob", "BOB"):
        assert (await house.move(to=to)).payee.user_id == BOB
    for to in (ANN, "ann", "Ann"):
        assert await code_of(house.move(to=to)) == "SELF_NOT_ALLOWED"
    for to in (NOBODY, "bo", "bobby", "a b", "\U0010ffff"):
        assert await code_of(house.move(to=to)) == "USER_UNKNOWN"


async def test_who_may_not_be_paid(house: House) -> None:
    await house.rich(ANN, 5000)
    await house.add_user(NOBODY, "cut", "banned")
    assert await code_of(house.move(to=NOBODY)) == "USER_UNAVAILABLE"
    await house.users.block(ANN, BOB)
    assert await code_of(house.move()) == "USER_BLOCKED"
    assert await code_of(house.move(to="bob")) == "USER_BLOCKED"
    await house.users.block(EVE, ANN)
    assert await code_of(house.move(to=EVE)) == "USER_UNAVAILABLE"
    assert await code_of(house.move(to="eve")) == "USER_UNKNOWN", "a search finds nobody who has blocked one"
    assert await house.balance(ANN) == 5000
    assert house.one.hasher.verified == [], "nobody was asked for a PIN in vain"


async def test_without_a_wallet_without_money_or_frozen_nothing_moves(house: House) -> None:
    assert await code_of(house.move()) == "WALLET_UNKNOWN"
    await house.wallets.create(ANN, PIN)
    assert await code_of(house.move(currency="JPY")) == "CURRENCY_MISMATCH"
    assert await code_of(house.move()) == "INSUFFICIENT_FUNDS"
    await house.fund(ANN, 1000, pocket=Pocket.CREDITS)
    assert await code_of(house.move()) == "INSUFFICIENT_FUNDS", "call credits are for calls"
    await house.fund(ANN, 999)
    no = await refused(house.move())
    assert (no.code, no.status) == ("INSUFFICIENT_FUNDS", 402)
    assert no.details == {"requiredMinor": 1000, "availableMinor": 999, "currency": "NGN"}
    await house.fund(ANN, 1)
    assert await code_of(house.move(pin=WRONG)) == "PIN_WRONG"
    await house.wallets.freeze(ANN, frozen=True)
    assert await code_of(house.move()) == "WALLET_FROZEN"
    await house.wallets.freeze(ANN, frozen=False)
    assert (await house.move()).wallet.primary == 0
    await books_agree(house.db)


async def test_a_payee_without_a_wallet_in_that_currency_gets_one_and_only_when_paid(house: House) -> None:
    await house.rich(ANN, 5000, "KWD")
    assert await code_of(house.move(amount=Amount(minor=6000))) == "INSUFFICIENT_FUNDS"
    assert await code_of(house.move(pin=WRONG)) == "PIN_WRONG"
    assert await house.one.ledger.store.wallets_of(BOB) == []
    await house.move(amount=Amount(major=major_asked("1.234")))
    assert await house.balance(BOB, "KWD") == 1234


async def test_a_transfer_needs_a_key(house: House) -> None:
    await house.rich(ANN)
    for key in (None, ""):
        assert await code_of(house.move(key=key)) == "IDEMPOTENCY_KEY_REQUIRED"


async def test_the_same_key_moves_money_once_ever(house: House) -> None:
    await house.rich(ANN, 5000)
    first = await house.move(key="once", note="hi")
    house.clock.pass_(400 * 24 * 3600)
    again = await house.move(house.process(), key="once", note="hi", pin=WRONG)
    assert (again.id, again.entry, again.amount_minor) == (first.id, first.entry, 1000)
    for other in ({"amount": Amount(minor=999)}, {"to": EVE}, {"note": "ho"}, {"note": None}):
        assert await code_of(house.move(**{"key": "once", "note": "hi", **other})) == "IDEMPOTENCY_MISMATCH"
    assert (await house.balance(ANN), await house.balance(BOB)) == (4000, 1000)
    await house.rich(BOB, 1)
    assert (await house.move(user_id=BOB, to=ANN, key="once")).entry.id != first.entry.id, (
        "a key is its user's"
    )


async def test_a_key_that_moved_money_answers_whatever_has_happened_since(house: House) -> None:
    await house.rich(ANN, 1000)
    first = await house.move(key="once")
    await house.wallets.freeze(ANN, frozen=True)
    await house.users.block(ANN, BOB)
    assert (await house.move(key="once")).entry == first.entry
    personal = dict.fromkeys(("email", "email_key", "username_key", "display_key", "password_hash"), "")
    await house.db["users"].update_one({"_id": BOB}, {"$set": {"status": "deleted"}, "$unset": personal})
    assert (await house.move(key="once")).entry == first.entry


async def test_the_same_key_at_once_at_two_processes_moves_money_once(house: House) -> None:
    await house.rich(ANN, 5000)
    await house.one.ledger.ensure(BOB, "NGN")
    two = house.process()
    done = await asyncio.gather(*(house.move(one, key="once") for one in (house.one, two) * 4))
    assert len({transfer.entry.id for transfer in done}) == 1
    assert (await house.balance(ANN), await house.balance(BOB)) == (4000, 1000)


async def test_thirty_transfers_at_once_with_money_for_ten_make_ten(house: House) -> None:
    await house.rich(ANN, 10_000)
    two = house.process()
    done = await asyncio.gather(
        *(house.move((house.one, two)[n % 2], to=(BOB, EVE)[n % 3 % 2]) for n in range(30)),
        return_exceptions=True,
    )
    codes = Counter(one.code if isinstance(one, Refusal) else "ok" for one in done)
    while codes["SERVER_BUSY"]:  # "later": so later
        codes["SERVER_BUSY"] -= 1
        codes["ok"] += 1
        await house.move()
    assert codes["ok"] == 10
    assert set(codes) <= {"ok", "INSUFFICIENT_FUNDS", "SERVER_BUSY", "PIN_LOCKED"}
    assert await house.balance(ANN) == 0
    assert await house.balance(BOB) + await house.balance(EVE) == 10_000
    await books_agree(house.db)


async def test_a_freeze_in_the_middle_of_a_transfer_stops_it(house: House) -> None:
    await house.rich(ANN, 5000)
    real = house.wallets.pins.check

    async def frozen_meanwhile(user_id: str, pin: str) -> str:
        await house.process().wallets.freeze(ANN, frozen=True)
        return await real(user_id, pin)

    house.wallets.pins.check = frozen_meanwhile  # type: ignore[method-assign]
    assert await code_of(house.move()) == "WALLET_FROZEN"
    assert await house.balance(ANN) == 5000


async def test_a_frozen_wallet_is_still_paid_into(house: House) -> None:
    await house.rich(ANN, 5000)
    await house.wallets.create(BOB, PIN)
    await house.wallets.freeze(BOB, frozen=True)
    assert (await house.move()).amount_minor == 1000
    assert (await house.fund(BOB, 500)).primary == 1500


# ------------------------------------------------------------------------------------------------ accounts, statement


async def test_accounts_are_found_by_their_public_ids_and_by_their_owner_alone(house: House) -> None:
    ann = await house.rich(ANN)
    house.clock.pass_(1)
    await house.rich(ANN, 7, "JPY")
    found = await house.wallets.accounts(ANN)
    assert [(one.kind, one.wallet.currency) for one in found] == [
        ("primary", "NGN"),
        ("call_credits", "NGN"),
        ("primary", "JPY"),
        ("call_credits", "JPY"),
    ]
    assert (await house.wallets.account(ANN, ann.credits_id)).kind == "call_credits"
    for user_id, account_id in ((BOB, ann.id), (ANN, NOBODY), (ANN, ann.key)):
        assert await code_of(house.wallets.account(user_id, account_id)) == "WALLET_UNKNOWN"
    assert (await house.wallets.wallet(ANN, "JPY")).primary == 7
    assert await code_of(house.wallets.wallet(ANN, "USD")) == "CURRENCY_MISMATCH"
    assert await house.wallets.find(BOB) is None


async def a_life(house: House) -> None:
    """Ann's: deposits, transfers either way, a hold that is captured from both accounts, a release."""
    await house.rich(ANN, 5000)
    await house.rich(BOB, 5000)
    await house.fund(ANN, 300, pocket=Pocket.CREDITS)
    for n in range(4):
        await house.move(amount=Amount(minor=100 + n), note=f"{n}")
        await house.move(user_id=BOB, to=ANN, amount=Amount(minor=10 + n))
    key = wallet_key(ANN, "NGN")

    def moved(kind: Kind, name: str, *legs: tuple[str, int]) -> Entry:
        made = tuple(Leg(account, amount, "NGN") for account, amount in legs)
        return Entry(id=f"call:c:{name}", kind=kind, at=house.clock.now(), legs=made, call_id="c")

    of = {pocket: account_of(key, pocket) for pocket in Pocket}
    credits, credits_held = of[Pocket.CREDITS], of[Pocket.CREDITS_HELD]
    primary, primary_held = of[Pocket.PRIMARY], of[Pocket.PRIMARY_HELD]
    for entry in (
        moved(Kind.HOLD, "h:0", (credits, -300), (credits_held, 300), (primary, -200), (primary_held, 200)),
        moved(Kind.CAPTURE, "cap:0", (credits_held, -300), (primary_held, -50), ("escrow:c", 350)),
        moved(Kind.RELEASE, "rel", (primary_held, -150), (primary, 150)),
        moved(Kind.HOLD, "h:1", (primary, -40), (primary_held, 40)),
    ):
        await house.one.ledger.post([key], lambda _, entry=entry: [entry])


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
@pytest.mark.parametrize("account", [None, "primary", "call_credits"])
async def test_the_lines_of_a_statement_add_up_whatever_the_page(
    house: House, limit: int, account: str | None
) -> None:
    await a_life(house)
    lines, after = [], None
    while True:
        page = await house.wallets.statement(ANN, account=account, after=after, limit=limit)
        assert len(page.lines) <= limit
        lines += page.lines
        after = page.after
        if after is None:
            break
        assert len(page.lines) == limit
    wallet = await house.wallets.wallet(ANN)
    assert (wallet.primary_held, wallet.credits) == (40, 0)
    totals = {
        "primary": wallet.primary + wallet.primary_held,
        "call_credits": wallet.credits + wallet.credits_held,
    }
    for name in totals if account is None else [account]:
        of_one = [line for line in lines if line.account == name]
        assert sum(line.amount_minor for line in of_one) == totals[name]
        assert of_one[0].balance_after_minor == totals[name]
        for newer, older in pairwise(of_one):
            assert newer.balance_after_minor - newer.amount_minor == older.balance_after_minor
        assert of_one[-1].balance_after_minor == of_one[-1].amount_minor
    expected = {None: 12, "primary": 10, "call_credits": 2}[account]
    assert len(lines) == len({line.id for line in lines}) == expected
    assert [line.version for line in lines] == sorted((line.version for line in lines), reverse=True)
    assert {line.kind for line in lines} == {"deposit", "call"} | (
        set() if account == "call_credits" else {"transfer"}
    )


async def test_a_line_says_with_whom_and_why_and_has_one_id_on_both_sides(house: House) -> None:
    await house.rich(ANN, 5000)
    done = await house.move(note="thanks")
    ours = await house.wallets.statement(ANN, limit=1)
    theirs = await house.wallets.statement(BOB, limit=1)
    assert (ours.lines[0].counterparty, theirs.lines[0].counterparty) == (BOB, ANN)
    assert (ours.lines[0].amount_minor, theirs.lines[0].amount_minor) == (-1000, 1000)
    assert ours.lines[0].note == theirs.lines[0].note == "thanks"
    assert ours.lines[0].id == theirs.lines[0].id == done.id
    assert ours.people[BOB].username == "bob"
    assert ANN not in done.id


async def test_a_statement_is_of_ones_own_account(house: House) -> None:
    ann = await house.rich(ANN)
    page = await house.wallets.statement(ANN, account=ann.id, limit=5)
    assert [line.amount_minor for line in page.lines] == [10_000]
    assert (await house.wallets.statement(ANN, account=ann.credits_id, limit=5)).lines == ()
    assert await code_of(house.wallets.statement(BOB, account=ann.id, limit=5)) == "WALLET_UNKNOWN"
    assert await code_of(house.wallets.statement(BOB, limit=5)) == "WALLET_UNKNOWN"
    await house.move()
    await house.move()
    cursor = (await house.wallets.statement(ANN, limit=1)).after
    assert cursor is not None
    await house.rich(BOB, 5)
    no = await refused(house.wallets.statement(BOB, after=cursor, limit=5))
    assert (no.code, list(no.details)) == ("VALIDATION_FAILED", ["cursor"])


# -------------------------------------------------------------------------------------------------------------- told


async def test_a_change_is_told_to_the_owner_and_a_fault_in_telling_loses_no_money(
    house: House, doors: FakeDoors
) -> None:
    others = [False]
    mailbox = Mailbox(MailboxStore(house.db), doors, house.clock)
    teller = WalletTeller(mailbox=mailbox, clock=house.clock, others_live=lambda: others[0])
    house.one.ledger.listeners.append(teller)
    inbox = doors.connect(BOB, "phone")
    await house.rich(ANN, 5000)
    await house.move()
    told = doors.last(BOB, "phone", WALLET_UPDATED)["wallet"]
    assert (told["availableMinor"], told["frozen"]) == (1000, False)
    assert set(told) == {
        *("id", "currency", "availableMinor", "heldMinor", "callCredits", "pendingEarningsMinor", "frozen"),
        *("createdAt", "exponent", "owedMinor", "version"),
    }
    assert await house.db["mailbox"].count_documents({}) == 0, "nobody else is there to fetch it"
    others[0] = True
    await house.move()
    for frozen in (True, False, True):
        house.clock.pass_(1)
        await house.wallets.freeze(BOB, frozen=frozen)
    letters = (await mailbox.missed(BOB, "tablet", 0)).letters
    assert [letter.payload["wallet"]["frozen"] for letter in letters] == [False, True, False, True]
    assert [letter.event for letter in inbox] == [WALLET_UPDATED] * 5
    assert await code_of(house.wallets.freeze(EVE, frozen=True)) == "WALLET_UNKNOWN"

    async def broken(*_: object) -> None:
        raise RuntimeError("no socket")

    house.one.ledger.listeners.insert(0, broken)
    assert (await house.move()).wallet.primary == 2000
    assert len(inbox) == 6, "the other listeners still hear of it"
