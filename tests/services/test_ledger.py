"""The ledger with a real database: entries once, wallets never negative, chains that tell what was tampered with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from bson import Int64
from pymongo.errors import OperationFailure, WriteError

from models.db import Database
from models.ledger import rules
from models.ledger.journal import (
    COMMISSION,
    Entry,
    Kind,
    Leg,
    Pocket,
    Wallet,
    account_of,
    clearing,
    pocket_of,
    wallet_key,
)
from models.ledger.service import Ledger
from models.ledger.store import STRETCH, LedgerStore
from models.money import AMOUNT_MAX
from tests.fakes import CountingIds, VirtualClock
from tests.services.wallet_house import ANN, BOB, books_agree, code_of, refused

A, B = wallet_key(ANN, "NGN"), wallet_key(BOB, "NGN")
IN = clearing("test")


@pytest.fixture
async def ledger(db: Database, clock: VirtualClock, ids: CountingIds) -> Ledger:
    made = Ledger(LedgerStore(db), clock, ids)
    await made.ensure(ANN, "NGN")
    await made.ensure(BOB, "NGN")
    return made


def own(key: str, pocket: Pocket = Pocket.PRIMARY) -> str:
    return account_of(key, pocket)


def entry(clock: VirtualClock, entry_id: str, *legs: tuple[str, int], kind: Kind = Kind.DEPOSIT) -> Entry:
    return Entry(
        id=entry_id,
        kind=kind,
        at=clock.now(),
        legs=tuple(Leg(account, amount, "NGN") for account, amount in legs),
    )


async def fund(ledger: Ledger, clock: VirtualClock, minor: int, name: str = "1", key: str = A) -> Wallet:
    one = entry(clock, f"pay:test:{name}", (IN, -minor), (own(key), minor))
    return (await ledger.post([key], lambda _: [one])).wallets[key]


async def test_a_wallet_is_made_once_whoever_asks(ledger: Ledger, db: Database, clock: VirtualClock) -> None:
    other = Ledger(LedgerStore(db), clock, CountingIds())
    made = await asyncio.gather(*((ledger, other)[n % 2].ensure("someone", "KWD") for n in range(8)))
    assert len({wallet.id for wallet in made}) == 1
    assert (made[0].version, made[0].head, made[0].spendable) == (0, "", 0)
    assert await ledger.wallet("someone", "NGN") is None


async def test_posting_an_entry_again_changes_nothing(
    ledger: Ledger, db: Database, clock: VirtualClock
) -> None:
    told: list[Sequence[Entry]] = []

    async def listen(_: Sequence[Wallet], entries: Sequence[Entry]) -> None:
        told.append(entries)

    ledger.listeners.append(listen)
    one = entry(clock, "pay:test:1", (IN, -500), (own(A), 500))
    ran: list[int] = []

    async def also(_: Any) -> None:
        ran.append(1)

    first = await ledger.post([A], lambda _: [one], also=also)
    again = await ledger.post([A], lambda _: [one], also=also)
    assert (first.again, again.again) == (False, True)
    assert first.wallets == again.wallets
    assert told == [[one]]
    assert (await db["journal"].count_documents({}), await db["wallets"].count_documents({})) == (1, 2)
    await books_agree(db)


async def test_what_joins_an_entry_happens_with_it_or_not_at_all(
    ledger: Ledger, db: Database, clock: VirtualClock
) -> None:
    async def also(session: Any) -> None:
        await db["notes"].insert_one({"_id": "joined"}, session=session)

    async def broken(session: Any) -> None:
        await also(session)
        raise RuntimeError("in the middle")

    await db.db.create_collection("notes")
    one = entry(clock, "pay:test:1", (IN, -500), (own(A), 500))
    with pytest.raises(RuntimeError):
        await ledger.post([A], lambda _: [one], also=broken)
    assert await db["notes"].count_documents({}) == await db["journal"].count_documents({}) == 0
    assert (await ledger.wallet(ANN, "NGN")).version == 0  # type: ignore[union-attr]
    too_much = entry(clock, "tr:1", (own(A), -1), (own(B), 1), kind=Kind.TRANSFER)
    assert await code_of(ledger.post([A, B], lambda _: [too_much], also=also)) == "INSUFFICIENT_FUNDS"
    assert await db["notes"].count_documents({}) == 0
    await ledger.post([A], lambda _: [one], also=also)
    assert await db["notes"].count_documents({}) == 1


async def test_a_posting_that_meets_another_process_reads_and_plans_again(
    ledger: Ledger, db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    await fund(ledger, clock, 1000)
    other = Ledger(LedgerStore(db), clock, ids)
    seen: list[int] = []

    def plan(wallets: Mapping[str, Wallet]) -> list[Entry]:
        seen.append(wallets[A].primary)
        whole = wallets[A].primary
        return [entry(clock, "tr:all", (own(A), -whole), (own(B), whole), kind=Kind.TRANSFER)]

    async def meanwhile(_: Any) -> None:
        if len(seen) == 1:
            await fund(other, clock, 7, "meanwhile")

    posted = await ledger.post([A, B], plan, also=meanwhile)
    assert seen[0] == 1000
    assert seen[-1] == 1007
    assert (posted.wallets[A].primary, posted.wallets[B].primary) == (0, 1007)
    await books_agree(db)


async def test_a_posting_that_always_meets_others_gives_up_as_busy(
    ledger: Ledger, db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    await fund(ledger, clock, 1000)
    other, names = Ledger(LedgerStore(db), clock, ids), iter(range(1000))

    def plan(wallets: Mapping[str, Wallet]) -> list[Entry]:
        return [entry(clock, "tr:1", (own(A), -1), (own(B), 1), kind=Kind.TRANSFER)]

    async def meanwhile(_: Any) -> None:
        await fund(other, clock, 1, f"m{next(names)}")

    assert await code_of(ledger.post([A, B], plan, also=meanwhile)) == "SERVER_BUSY"
    assert (await ledger.wallet(BOB, "NGN")).primary == 0  # type: ignore[union-attr]
    await books_agree(db)


async def test_a_freeze_between_the_look_and_the_write_is_seen(
    ledger: Ledger, db: Database, clock: VirtualClock
) -> None:
    await fund(ledger, clock, 1000)
    frozen: list[bool] = []

    def plan(wallets: Mapping[str, Wallet]) -> list[Entry]:
        frozen.append(wallets[A].frozen)
        return [entry(clock, "tr:1", (own(A), -1), (own(B), 1), kind=Kind.TRANSFER)]

    async def meanwhile(_: Any) -> None:
        if len(frozen) == 1:
            await ledger.store.freeze(A, True)

    await ledger.post([A, B], plan, also=meanwhile)
    assert frozen[0] is False
    assert frozen[-1] is True


async def test_a_hundred_postings_at_once_are_all_there_in_a_chain_without_a_gap(
    ledger: Ledger, db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    other = Ledger(LedgerStore(db), clock, ids)
    await asyncio.gather(*(fund(ledger, clock, n + 1, f"{n}") for n in range(90)))
    await asyncio.gather(*(fund((ledger, other)[n % 2], clock, n + 1, f"{n}") for n in range(90, 100)))
    wallet = await ledger.wallet(ANN, "NGN")
    assert wallet is not None
    assert (wallet.primary, wallet.version) == (5050, 100)
    await books_agree(db)


async def test_what_is_too_much_or_too_little_is_refused_and_nothing_is_written(
    ledger: Ledger, db: Database, clock: VirtualClock
) -> None:
    await fund(ledger, clock, AMOUNT_MAX)
    no = await refused(fund(ledger, clock, 1, "2"))
    assert (no.code, no.status) == ("AMOUNT_TOO_LARGE", 422)
    for pocket in Pocket:
        legs = [(own(B, pocket), -1), (own(A, Pocket.CREDITS), 1)]
        if pocket is Pocket.OWED:  # a debt: its legs carry the opposite sign
            legs = [(own(B, pocket), 1), (own(A, Pocket.CREDITS), -1)]
        one = entry(clock, "x", *legs, kind=Kind.TRANSFER)
        no = await refused(ledger.post([A, B], lambda _, one=one: [one]))
        assert (no.code, no.status, no.details) == ("INSUFFICIENT_FUNDS", 402, {"currency": "NGN"})
    assert await db["journal"].count_documents({}) == 1


@pytest.mark.parametrize(
    "legs",
    [
        [(IN, -5), (own(A), 4)],
        [(IN, 0), (own(A), 0)],
        [(own(A), 5)],
        [(IN, -5.0), (own(A), 5.0)],
        [(IN, True), (own(A), -1)],
    ],
)
def test_an_entry_that_is_none_is_never_sealed(clock: VirtualClock, legs: list[tuple[str, int]]) -> None:
    with pytest.raises(AssertionError):
        rules.check(entry(clock, "x", *legs))


# ------------------------------------------------------------------------------------------- MongoDB judges by itself


def _row(legs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"_id": "forged", "kind": "deposit", "legs": legs, "seals": [], **more}


def _leg(amount: Any, currency: str = "NGN") -> dict[str, Any]:
    return {"account": "x", "amount": amount, "currency": currency}


@pytest.mark.parametrize(
    "legs",
    [
        [_leg(5), _leg(-4)],
        [_leg(5), _leg(-5, "KWD")],
        [_leg(5), _leg(-5), _leg(1, "KWD"), _leg(1, "JPY"), _leg(-2, "JPY")],
        [_leg(5)],
        [],
        [_leg(0.5), _leg(-0.5)],
        [_leg("5"), _leg("-5")],
        [_leg(Int64(AMOUNT_MAX + 1)), _leg(Int64(-AMOUNT_MAX - 1))],
        [_leg(5, "naira"), _leg(-5, "naira")],
    ],
)
async def test_mongodb_refuses_an_unbalanced_entry(
    db: Database, clock: VirtualClock, legs: list[dict[str, Any]]
) -> None:
    with pytest.raises(WriteError) as no:
        await db["journal"].insert_one(_row(legs, at=clock.now()))
    assert no.value.code == 121
    balanced = [_leg(5), _leg(-5), _leg(1, "KWD"), _leg(-1, "KWD")]
    await db["journal"].insert_one(_row(balanced, at=clock.now()))
    with pytest.raises(OperationFailure):
        await db["journal"].update_one({"_id": "forged"}, {"$inc": {"legs.0.amount": 1}})


@pytest.mark.parametrize("pocket", list(Pocket))
async def test_mongodb_refuses_to_see_a_balance_negative(
    ledger: Ledger, db: Database, pocket: Pocket
) -> None:
    for change in (
        {"$inc": {f"balances.{pocket.value}": -1}},
        {"$set": {f"balances.{pocket.value}": 0.5}},
        {"$set": {f"balances.{pocket.value}": Int64(AMOUNT_MAX + 1)}},
        {"$unset": {f"balances.{pocket.value}": ""}},
        {"$set": {"balances.more": 1}},
    ):
        with pytest.raises(OperationFailure) as no:
            await db["wallets"].update_one({"_id": A}, change)
        assert no.value.code == 121


# ------------------------------------------------------------------------------------------------------------- chains


async def links_of(db: Database, key: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The entries of a wallet with its link in each, by version."""
    rows = [row async for row in db["journal"].find({"seals.wallet": key})]
    pairs = [(row, next(s for s in row["seals"] if s["wallet"] == key)) for row in rows]
    return sorted(pairs, key=lambda pair: int(pair[1]["version"]))


async def broken_link(ledger: Ledger, db: Database, key: str) -> int | None:
    """The version of the first link of a wallet's chain that does not hold."""
    head = ""
    for row, link in await links_of(db, key):
        sealed = await ledger.store.entry(row["_id"])
        assert sealed is not None
        seal = next(one for one in sealed.seals if one.wallet == key)
        if (
            link["previous"] != head
            or rules.chain_hash(head, key, seal.version, sealed.entry, seal.lines) != seal.hash
        ):
            return seal.version
        head = seal.hash
    wallet = (await ledger.store.wallets([key]))[key]
    return None if wallet.head == head else wallet.version + 1


@pytest.mark.parametrize(
    "tamper",
    [
        {"$set": {"note": "other"}},
        {"$set": {"legs.0.amount": -7, "legs.1.amount": 7}},
        {"$set": {"legs.0.account": COMMISSION}},
        {"$set": {"kind": "refund"}},
        {"$set": {"call_id": "another"}},
        {"$set": {"seals.0.lines.0.after": 1_000_000}},
    ],
)
async def test_a_chain_verifies_and_shows_where_it_was_tampered_with(
    ledger: Ledger, db: Database, clock: VirtualClock, tamper: dict[str, Any]
) -> None:
    for n in range(4):
        await fund(ledger, clock, 100 + n, f"{n}")
        clock.pass_(1)
        one = entry(clock, f"tr:{n}", (own(A), -10), (own(B), 10), kind=Kind.TRANSFER)
        one = replace(one, note="thanks", counterparties={A: BOB, B: ANN})
        await ledger.post([A, B], lambda _, one=one: [one])
    assert [link["version"] for _, link in await links_of(db, A)] == list(range(1, 9))
    assert await broken_link(ledger, db, A) is await broken_link(ledger, db, B) is None
    await db["journal"].update_one({"_id": "pay:test:1"}, tamper)
    assert await broken_link(ledger, db, A) == 3
    assert await broken_link(ledger, db, B) is None


async def test_a_removed_entry_breaks_the_chain(ledger: Ledger, db: Database, clock: VirtualClock) -> None:
    for n in range(3):
        await fund(ledger, clock, 100, f"{n}")
    await db["journal"].delete_one({"_id": "pay:test:2"})
    assert await broken_link(ledger, db, A) == 4, "the wallet's head is a link too"


async def test_several_entries_of_one_posting_are_linked_in_order(
    ledger: Ledger, db: Database, clock: VirtualClock
) -> None:
    await fund(ledger, clock, 100)
    held = own(A, Pocket.PRIMARY_HELD)

    def plan(_: Mapping[str, Wallet]) -> list[Entry]:
        return [
            entry(clock, "h", (own(A), -80), (held, 80), kind=Kind.HOLD),
            entry(clock, "cap", (held, -50), ("escrow:c", 50), kind=Kind.CAPTURE),
            entry(clock, "rel", (held, -30), (own(A), 30), kind=Kind.RELEASE),
        ]

    posted = await ledger.post([A], plan)
    assert (posted.wallets[A].version, posted.wallets[A].primary) == (4, 50)
    assert [row["_id"] for row, _ in await links_of(db, A)] == ["pay:test:1", "h", "cap", "rel"]
    assert await broken_link(ledger, db, A) is None
    await books_agree(db)


# --------------------------------------------------------------------------------------------------------- statements


async def test_a_statement_reaches_over_long_stretches_without_lines(
    ledger: Ledger, db: Database, clock: VirtualClock
) -> None:
    await fund(ledger, clock, 100)
    held = own(A, Pocket.PRIMARY_HELD)

    def silent(_: Mapping[str, Wallet]) -> list[Entry]:
        made = []
        for n in range(STRETCH // 2 + 20):
            made.append(entry(clock, f"h{n}", (own(A), -1), (held, 1), kind=Kind.HOLD))
            made.append(entry(clock, f"r{n}", (held, -1), (own(A), 1), kind=Kind.RELEASE))
        return made

    half = STRETCH // 4
    for part in range(5):

        def some(wallets: Mapping[str, Wallet], part: int = part) -> list[Entry]:
            return silent(wallets)[part * half : (part + 1) * half]

        await ledger.post([A], some)
    wallet = await fund(ledger, clock, 1, "2")
    assert wallet.version > STRETCH
    found = await ledger.store.statement(A, below_version=wallet.version + 1, most=10)
    assert [one.entry.id for one in found] == ["pay:test:2", "pay:test:1"]
    assert await ledger.store.statement(A, below_version=wallet.version, most=1) == found[1:]
    assert await ledger.store.statement(A, below_version=1, most=10) == []
    assert await ledger.store.statement(A, below_version=10_000, most=10, account="call_credits") == []


async def test_an_entry_reads_back_as_it_was_written(
    ledger: Ledger, db: Database, clock: VirtualClock
) -> None:
    await fund(ledger, clock, 100)
    one = replace(
        entry(clock, "tr:1", (own(A), -10), (own(B), 10), kind=Kind.TRANSFER),
        call_id="c-1",
        payment_id="p-1",
        note="thanks",
        counterparties={A: BOB, B: ANN},
    )
    await ledger.post([A, B], lambda _: [one])
    found = await ledger.store.entry("tr:1")
    assert found is not None
    assert found.entry == one
    assert [seal.lines[0].after_minor for seal in found.seals] == [90, 10]
    assert await ledger.store.of_call("c-1") == [found]
    assert await ledger.store.entry("tr:2") is None


def test_an_account_of_a_wallet_says_which_and_one_of_the_platform_none() -> None:
    for pocket in Pocket:
        assert pocket_of(account_of(A, pocket)) == (A, pocket)
    for account in (COMMISSION, clearing("sandbox"), "escrow:c"):
        assert pocket_of(account) is None
