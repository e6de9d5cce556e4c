"""The audit on a real mongod: a lived-in database is clean, and whatever is altered in it is found and named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from models.audit.report import INVARIANTS, NAMED_MAX, Report
from models.audit.service import audit
from models.billing.tariffs import Tariffs
from models.calls.call import Call
from models.calls.store import CALLS
from models.db import REGISTERED, Database
from models.fx.store import QUOTES
from models.ledger.journal import Entry, Kind, Leg, Pocket, Seal, Sealed, account_of
from models.ledger.rules import chain_hash, post, statement_lines
from models.ledger.store import JOURNAL, WALLETS, sealed_of
from models.ledger.store import _document as document_of_entry
from models.payments.store import PAYMENTS
from models.payouts.payout import Payout, Stage
from models.payouts.store import PAYOUTS
from models.rewards.store import TALLIES
from models.wallet.rules import transfer
from tests.databases import SPOILED
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Process, Town
from tests.services.payouts_house import House as SaversHouse
from tests.services.wallet_house import PIN

BY_THE_SECOND = Tariffs(rate_minor=6_000, first_block_seconds=1, block_seconds=1, minimum_minor=0)


@dataclass
class Life:
    """A town in which something has happened, and what a test may want to break."""

    town: Town
    here: Process
    ann: Phone
    bob: Phone
    cleared: Call
    settled: Call
    refunded: Call
    live: Call
    withdrawn: Payout

    @property
    def db(self) -> Any:
        return self.town.db.db

    async def report(self) -> Report:
        return await audit(self.town.db, self.town.clock.now())

    async def entry(self, entry_id: str) -> dict[str, Any]:
        return dict(await self.db[JOURNAL].find_one({"_id": entry_id}))

    async def change(self, collection: str, row: str, **fields: Any) -> None:
        """Alter a document behind everybody's back."""
        change = {"$set": {name.replace("__", "."): value for name, value in fields.items()}}
        done = await self.db[collection].update_one({"_id": row}, change, bypass_document_validation=True)
        assert done.modified_count == 1

    async def loosen(self) -> None:
        """Take away the index that keeps two entries from being the same version of a wallet."""
        SPOILED.add(self.db.db.name)
        await self.db[JOURNAL].drop_index("seals.wallet_1_seals.version_1")


async def talk(life: Process, ann: Phone, bob: Phone, seconds: float) -> Call:
    """A call of so many seconds, ended and settled."""
    call = await bob.accept(await ann.request(bob))
    await life.town.pass_(seconds, life, step=30)
    return await life.town.call(await ann.end(call))


@pytest.fixture
async def life(db: Database, clock: VirtualClock, ids: CountingIds) -> Life:
    return await live(db, clock, ids)


# The rows that one life has left behind, when that was, and the life.
_LIVED: list[tuple[dict[str, list[dict[str, Any]]], datetime, Life]] = []


@pytest.fixture
async def lived(db: Database, clock: VirtualClock, ids: CountingIds) -> Life:
    """As ``life``, for tests that look at its rows only: they are copied from one that was lived before."""
    if not _LIVED:
        first = await live(db, clock, ids)
        rows = {name: await db.db[name].find().to_list() for name in REGISTERED}
        _LIVED.append((rows, clock.now(), first))
        return first
    rows, then, before = _LIVED[0]
    for name, found in rows.items():
        if found:
            await db.db[name].insert_many(found)
    clock.pass_((then - clock.now()).total_seconds())
    town = Town(db, clock, ids)
    here = town.process("here")
    return replace(before, town=town, here=here, ann=town.phone(here, "ann"), bob=town.phone(here, "bob"))


async def live(db: Database, clock: VirtualClock, ids: CountingIds) -> Life:
    """Payments, a transfer, calls in every state of their money; a free, a refused and a cancelled one."""
    town = Town(db, clock, ids)
    town.tariffs = BY_THE_SECOND
    await town.people("ann", "bob", "cid")
    here = town.process("here")
    ann, bob, cid = (town.phone(here, name) for name in ("ann", "bob", "cid"))
    await town.pay_in(here, "ann", 100_000)
    await town.pay_in(here, "ann", 700, into=Pocket.CREDITS)
    await town.pay_in(here, "cid", 50_000)
    await ann.reject(await cid.request(ann))
    cleared = await talk(here, ann, bob, 65)
    await ann.calls.refund(cleared.id, amount_minor=501, key="early")
    await town.pass_(town.dispute_seconds + 2, here, step=town.dispute_seconds / 2)
    await ann.calls.refund(cleared.id, amount_minor=999, note="sorry")
    mine = await town.wallet("cid")
    await here.ledger.ensure("bob", "NGN")
    sent = transfer(mine, "bob", key="k", amount_minor=1_234, note="lunch", now=clock.now())
    await here.ledger.post([mine.key, "bob:NGN"], lambda wallets: [sent])
    refunded = await talk(here, ann, bob, 12)
    refunded = await ann.calls.refund(refunded.id)
    settled = await talk(here, cid, ann, 7)
    await cid.end(await cid.request(bob))
    withdrawn = await withdraw(SaversHouse(db, clock, ids), "cid")
    live = await bob.accept(await ann.request(bob))
    await town.pass_(70, here, step=35)
    return Life(
        town, here, ann, bob, await town.call(cleared), settled, refunded, await town.call(live), withdrawn
    )


async def withdraw(house: SaversHouse, user_id: str) -> Payout:
    """Somebody's money goes out to a bank, and is paid there."""
    await house.one.wallets.create(user_id, PIN)
    house.bank.told = ["paid"]
    made = await house.withdraw(user_id=user_id)
    await house.till.run()
    paid = await house.now(made)
    assert paid.stage is Stage.PAID
    return paid


def broken(report: Report) -> set[tuple[str, str]]:
    """What is broken: the invariant and the row."""
    return {(finding.invariant, finding.row) for finding in report.findings}


async def test_a_database_in_which_people_have_paid_and_talked_is_clean(life: Life) -> None:
    report = await life.report()
    assert str(report) == "clean"
    assert report.clean
    assert [tally.invariant for tally in report.tallies] == list(INVARIANTS)
    assert all(tally.checked for tally in report.tallies)
    assert life.cleared.charge is not None
    assert life.cleared.charge.refunds == 2
    assert report.read["wallets"] == 3


async def test_an_empty_database_is_clean(db: Database, clock: VirtualClock) -> None:
    assert (await audit(db, clock.now())).clean


# ------------------------------------------------------------------------------------------------------ tampering

Tamper = Callable[[Life], Awaitable[set[tuple[str, str]]]]


async def amount(life: Life) -> set[tuple[str, str]]:
    """A line of a deposit says more, and so does its other side."""
    name = (await life.db[JOURNAL].find_one({"kind": "deposit"}))["_id"]
    await life.change(JOURNAL, name, legs__0__amount=-100_001, legs__1__amount=100_001)
    payment = await life.db[PAYMENTS].find_one({"amount_minor": 100_000})
    return {
        ("I12", name),
        ("I2", name),
        ("I2", "ann:NGN"),
        ("I13", "NGN"),
        ("I11", payment["_id"]),
        ("I11", "gateway:sandbox:clearing"),
    }


async def account(life: Life) -> set[tuple[str, str]]:
    """A transfer went to somebody else."""
    await life.change(JOURNAL, "tr:cid:k", legs__1__account="wallet:ann:NGN:primary")
    return {
        ("I12", "tr:cid:k"),
        ("I10", "tr:cid:k"),
        ("I2", "tr:cid:k"),
        ("I2", "ann:NGN"),
        ("I2", "bob:NGN"),
    }


async def time(life: Life) -> set[tuple[str, str]]:
    """A fact happened at another time."""
    at = (await life.entry("tr:cid:k"))["at"]
    await life.change(JOURNAL, "tr:cid:k", at=at + timedelta(milliseconds=1))
    return {("I12", "tr:cid:k")}


async def note(life: Life) -> set[tuple[str, str]]:
    """A note says something else."""
    await life.change(JOURNAL, "tr:cid:k", note="Lunch")
    return {("I12", "tr:cid:k")}


async def removed(life: Life) -> set[tuple[str, str]]:
    """An entry is gone."""
    await life.db[JOURNAL].delete_one({"_id": "tr:cid:k"})
    return {("I10", "cid:NGN"), ("I10", "bob:NGN"), ("I2", "cid:NGN"), ("I2", "bob:NGN")}


async def last_removed(life: Life) -> set[tuple[str, str]]:
    """The newest entry is gone, of which no other one knows."""
    name = f"call:{life.settled.id}:settle"
    await life.db[JOURNAL].delete_one({"_id": name})
    ann = await life.town.wallet("ann")
    assert ann.version > 1
    return {
        ("I10", "ann:NGN"),
        ("I2", "ann:NGN"),
        ("I13", "NGN"),
        ("I7", life.settled.id),
        ("I8", life.settled.id),
    }


async def inserted(life: Life) -> set[tuple[str, str]]:
    """An entry under a version that there is already, past the index that forbids it."""
    await life.loosen()
    forged = await life.entry("tr:cid:k") | {"_id": "tr:cid:k2"}
    await life.db[JOURNAL].insert_one(forged)
    return {("I10", "tr:cid:k2"), ("I2", "cid:NGN"), ("I2", "bob:NGN")}


async def appended(life: Life) -> set[tuple[str, str]]:
    """A forged entry, rightly linked and hashed, of which the wallets know nothing."""
    wallets = await life.town.ledger.store.wallets(["cid:NGN", "bob:NGN"])
    entry = transfer(wallets["cid:NGN"], "bob", key="x", amount_minor=5, note=None, now=life.town.clock.now())
    sealed, _ = post(wallets, [entry])
    await life.db[JOURNAL].insert_one(document_of_entry(sealed[0]))
    return {("I10", "cid:NGN"), ("I10", "bob:NGN"), ("I2", "cid:NGN"), ("I2", "bob:NGN")}


async def unlinked(life: Life) -> set[tuple[str, str]]:
    """An entry that takes part in no chain."""
    bare = await life.entry("tr:cid:k") | {"_id": "tr:cid:k2", "seals": []}
    await life.db[JOURNAL].insert_one(bare)
    return {("I10", "tr:cid:k2"), ("I2", "cid:NGN"), ("I2", "bob:NGN")}


async def balance(life: Life) -> set[tuple[str, str]]:
    """A wallet is richer than its journal."""
    cid = await life.town.wallet("cid")
    await life.change(WALLETS, "cid:NGN", balances__primary=cid.primary + 1)
    return {("I2", "cid:NGN"), ("I13", "NGN")}


async def negative(life: Life) -> set[tuple[str, str]]:
    """A wallet is below zero, past MongoDB's own check."""
    await life.change(WALLETS, "cid:NGN", balances__pending=-1)
    return {("I2", "cid:NGN"), ("I3", "cid:NGN"), ("I13", "NGN")}


async def head(life: Life) -> set[tuple[str, str]]:
    """A wallet's head is not the hash of its newest entry."""
    await life.change(WALLETS, "cid:NGN", head="0" * 64)
    return {("I12", "cid:NGN")}


async def version(life: Life) -> set[tuple[str, str]]:
    """A wallet counts one more than there are."""
    cid = await life.town.wallet("cid")
    await life.change(WALLETS, "cid:NGN", version=cid.version + 1)
    return {("I10", "cid:NGN")}


async def swapped(life: Life) -> set[tuple[str, str]]:
    """Two entries have changed places in a chain."""
    hold = await life.db[JOURNAL].find_one({"kind": "hold", "seals.wallet": "cid:NGN", "seals.version": 2})
    release = await life.db[JOURNAL].find_one({"seals.wallet": "cid:NGN", "seals.version": 3})
    await life.change(JOURNAL, hold["_id"], seals__0=release["seals"][0] | {"version": -1})
    await life.change(JOURNAL, release["_id"], seals__0=hold["seals"][0])
    await life.change(JOURNAL, hold["_id"], seals__0__version=3)
    return {("I12", hold["_id"]), ("I12", release["_id"]), ("I3", release["_id"])}


async def cost(life: Life) -> set[tuple[str, str]]:
    """A call costs more than its conversation."""
    await life.change(CALLS, life.settled.id, cost_minor=life.settled.cost_minor + 1)
    return {("I6", life.settled.id), ("I7", life.settled.id)}


async def interval(life: Life) -> set[tuple[str, str]]:
    """A call's conversation was shorter than what was charged."""
    begun = life.settled.intervals[0].start
    await life.change(CALLS, life.settled.id, intervals__0__end=begun + timedelta(seconds=2))
    return {("I6", life.settled.id)}


async def segments(life: Life) -> set[tuple[str, str]]:
    """An earlier part of a call is longer than all of its conversation."""
    call = life.settled
    part = {"type": "audio", "price": {"rate_per_minute_minor": 0}, "talk_ms": 7_001}
    await life.change(CALLS, call.id, earlier=[part], cost_minor=0)
    return {("I6", call.id), ("I7", call.id)}


async def earned(life: Life) -> set[tuple[str, str]]:
    """The platform took more than its share, by the call's own words."""
    charge = life.settled.charge
    assert charge is not None
    await life.change(
        CALLS,
        life.settled.id,
        charge__earned_minor=charge.earned_minor - 1,
        charge__commission_minor=charge.commission_minor + 1,
    )
    return {("I7", life.settled.id)}


async def refunds(life: Life) -> set[tuple[str, str]]:
    """More was given back than was paid."""
    await life.change(CALLS, life.refunded.id, charge__refunded__primary=1_000_000)
    return {("I6", life.refunded.id), ("I7", life.refunded.id)}


async def hold(life: Life) -> set[tuple[str, str]]:
    """A reservation for a call that is gone."""
    await life.db[CALLS].delete_one({"_id": life.live.id})
    names = [d["_id"] async for d in life.db[JOURNAL].find({"call_id": life.live.id, "kind": "hold"})]
    captured = [d["_id"] async for d in life.db[JOURNAL].find({"call_id": life.live.id, "kind": "call"})]
    return {("I4", "ann:NGN"), *(("I4", name) for name in names), *(("I9", name) for name in captured)}


async def held(life: Life) -> set[tuple[str, str]]:
    """A call holds less than was reserved for it."""
    charge = life.live.charge
    assert charge is not None
    await life.change(CALLS, life.live.id, charge__held__primary=charge.held.primary - 1)
    return {("I4", "ann:NGN"), ("I5", life.live.id)}


async def reservation(life: Life) -> set[tuple[str, str]]:
    """A reservation is gone from the journal."""
    name = f"call:{life.live.id}:h:0"
    await life.db[JOURNAL].delete_one({"_id": name})
    return {("I10", "ann:NGN"), ("I2", "ann:NGN"), ("I5", life.live.id), ("I9", life.live.id)}


async def unbalanced(life: Life) -> set[tuple[str, str]]:
    """An entry makes money out of nothing, past MongoDB's own check."""
    wallet = await life.town.wallet("cid")
    entry = Entry(
        id="tr:cid:gift",
        kind=Kind.TRANSFER,
        at=life.town.clock.now(),
        legs=(
            Leg(account_of("cid:NGN", Pocket.PRIMARY), 7, "NGN"),
            Leg("platform:commission", -6, "NGN"),
        ),
    )
    richer = replace(wallet, primary=wallet.primary + 7, version=wallet.version + 1)
    lines = statement_lines(wallet, {Pocket.PRIMARY: richer.primary})
    hash_ = chain_hash(wallet.head, wallet.key, richer.version, entry, lines)
    seal = Seal(wallet=wallet.key, version=richer.version, previous=wallet.head, hash=hash_, lines=lines)
    await life.db[JOURNAL].insert_one(
        document_of_entry(Sealed(entry, (seal,))), bypass_document_validation=True
    )
    await life.change(
        WALLETS, "cid:NGN", balances__primary=richer.primary, version=richer.version, head=hash_
    )
    return {("I1", "tr:cid:gift"), ("I13", "NGN")}


async def stage(life: Life) -> set[tuple[str, str]]:
    """A call says that it was settled, and its escrow is full."""
    call = life.settled
    await life.db[JOURNAL].delete_one({"_id": f"call:{call.id}:settle"})
    await life.change(CALLS, call.id, charge__stage="cleared")
    return {("I10", "ann:NGN"), ("I2", "ann:NGN"), ("I13", "NGN"), ("I7", call.id), ("I8", call.id)}


async def payment(life: Life) -> set[tuple[str, str]]:
    """A payment is gone that a wallet was credited for."""
    gone = await life.db[PAYMENTS].find_one_and_delete({"amount_minor": 50_000})
    return {("I11", "gateway:sandbox:clearing"), ("I11", f"pay:sandbox:{gone['reference']}")}


async def uncredited(life: Life) -> set[tuple[str, str]]:
    """A completed payment that nobody was credited for."""
    row = await life.db[PAYMENTS].find_one({}) | {"_id": "p", "reference": "r", "asked": []}
    await life.db[PAYMENTS].insert_one(row)
    return {("I11", "gateway:sandbox:clearing"), ("I11", "p")}


async def unconverted(life: Life) -> set[tuple[str, str]]:
    """A quote says that it was used."""
    now = life.town.clock.now()
    row = {"_id": "q", "user_id": "ann", "source": "NGN", "target": "USD", "amount": 1_600, "worth": 100}
    row |= {"spread": 1, "rate": "0.000625", "rate_at": now, "created_at": now, "expires_at": now}
    await life.db[QUOTES].insert_one({**row, "used_at": now, "used_key": None})
    return {("I14", "q"), ("I14", "platform:exchange"), ("I14", "platform:exchange_spread")}


async def unpaid(life: Life) -> set[tuple[str, str]]:
    """A withdrawal says that more was paid out than went."""
    await life.change(PAYOUTS, life.withdrawn.id, amount_minor=life.withdrawn.amount_minor + 1)
    return {("I15", life.withdrawn.id), ("I11", "gateway:testbank:clearing")}


async def unearned(life: Life) -> set[tuple[str, str]]:
    """Somebody has points that nothing has given."""
    row = {"points": 7, "count": 0, "version": 1, "seen": {}, "pending": []}
    await life.db[TALLIES].insert_one({"_id": "cid", **row})
    return {("I16", "cid")}


async def renamed(life: Life) -> set[tuple[str, str]]:
    """The same fact under a second name."""
    name = f"call:{life.settled.id}:rel"
    again = await life.entry(name) | {"_id": f"call:{life.settled.id}:rel2", "seals": []}
    await life.db[JOURNAL].insert_one(again)
    return {
        ("I9", again["_id"]),
        ("I10", again["_id"]),
        ("I2", "cid:NGN"),
        ("I5", life.settled.id),
    }


async def torn(life: Life) -> set[tuple[str, str]]:
    """Documents that are none of ours."""
    await life.db[JOURNAL].update_one(
        {"_id": "tr:cid:k"}, {"$unset": {"legs": 1}}, bypass_document_validation=True
    )
    await life.db[CALLS].update_one(
        {"_id": life.settled.id}, {"$unset": {"caller": 1}}, bypass_document_validation=True
    )
    return {
        ("I1", "tr:cid:k"),
        ("I9", life.settled.id),
        ("I10", "cid:NGN"),
        ("I10", "bob:NGN"),
        ("I2", "cid:NGN"),
        ("I2", "bob:NGN"),
    }


TAMPERS = (
    *(amount, account, time, note, removed, last_removed, inserted, appended, unlinked, balance, negative),
    *(
        head,
        version,
        swapped,
        cost,
        interval,
        segments,
        earned,
        refunds,
        hold,
        held,
        reservation,
        unbalanced,
        stage,
    ),
    *(payment, uncredited, renamed, torn, unconverted, unpaid, unearned),
)


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
async def test_what_was_altered_is_found_and_named(lived: Life, tamper: Tamper) -> None:
    expected = await tamper(lived)
    report = await lived.report()
    assert not report.clean
    assert broken(report) == expected, str(report)


async def test_every_invariant_is_broken_by_some_of_these(life: Life) -> None:
    """One after another on the same database: every name comes up."""
    for tamper in (
        amount,
        negative,
        head,
        earned,
        cost,
        hold,
        refunds,
        stage,
        unbalanced,
        renamed,
        unconverted,
        unpaid,
        unearned,
    ):
        await tamper(life)
    seen = {finding.invariant for finding in (await life.report()).findings}
    assert seen == set(INVARIANTS)


# ---------------------------------------------------------------------------------------------------- other states


async def test_an_end_of_the_last_minute_need_not_be_settled_and_an_older_one_must(life: Life) -> None:
    process = life.town.process("dying")
    ann = life.town.phone(process, "ann")
    live = life.live
    process.meter.close = _nothing  # type: ignore[method-assign]
    await ann.calls.end(ann.device, call_id=live.id)
    ended = await life.town.call(live)
    assert ended.charge is not None
    assert ended.charge.stage == "open"
    assert (await life.report()).clean
    life.town.clock.pass_(60)
    assert (await life.report()).clean
    life.town.clock.pass_(0.001)
    assert broken(await life.report()) == {("I8", live.id)}
    await life.here.calls.run_money()
    assert (await life.report()).clean


async def _nothing(call: Call) -> None:
    """Nobody settles."""


async def test_a_journal_in_another_order_is_followed_all_the_same(life: Life) -> None:
    """As after a restored dump."""
    rows = [d async for d in life.db[JOURNAL].find({}, sort=[("_id", -1)])]
    await life.db[JOURNAL].delete_many({})
    await life.db[JOURNAL].insert_many(rows)
    report = await life.report()
    assert str(report) == "clean"
    assert {t.invariant: t.checked for t in report.tallies}["I12"] > len(rows)
    name = (await life.db[JOURNAL].find_one({"kind": "transfer"}))["_id"]
    await life.change(JOURNAL, name, note="other")
    assert broken(await life.report()) == {("I12", name)}


async def test_of_a_fault_that_is_everywhere_some_are_named_and_all_are_counted(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    here = town.process("here")
    for _ in range(NAMED_MAX + 7):
        await town.pay_in(here, "ann", 1)
    await db.db[JOURNAL].update_many({}, {"$set": {"note": "x"}})
    report = await audit(db, clock.now())
    tally = next(tally for tally in report.tallies if tally.invariant == "I12")
    assert (tally.broken, len(tally.named)) == (NAMED_MAX + 7, NAMED_MAX)


async def test_it_reads_one_instant_while_others_post(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """Payments go on all the time; not one of them is ever seen half."""
    town = Town(db, clock, ids)
    here = town.process("here")
    going = True

    async def pay(user_id: str) -> None:
        while going:
            await town.pay_in(here, user_id, 3)

    payers = [asyncio.create_task(pay(name)) for name in ("ann", "bob", "cid")]
    try:
        read = 0
        for _ in range(15):
            report = await audit(db, clock.now())
            assert str(report) == "clean"
            assert report.read.get("journal", 0) == report.read.get("payments", 0) >= read
            read = report.read.get("journal", 0)
    finally:
        going = False
        await asyncio.gather(*payers)
    assert read > 0


async def test_it_says_how_far_it_is(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.audit.service.STEP", 1)
    told: list[tuple[str, int, int]] = []
    report = await audit(life.town.db, life.town.clock.now(), lambda *step: told.append(step))
    assert list(dict.fromkeys(what for what, _, _ in told)) == [
        "wallets",
        "journal",
        "calls",
        "payments",
        "payouts",
    ]
    assert {what: (done, total) for what, done, total in told} == {
        what: (number, number) for what, number in report.read.items()
    }


def test_documents_of_the_journal_are_read_as_they_were_written() -> None:
    entry = Entry(
        id="tr:a:b",
        kind=Kind.TRANSFER,
        at=VirtualClock().now(),
        legs=(Leg("wallet:a:NGN:primary", -5, "NGN"), Leg("wallet:b:NGN:primary", 5, "NGN")),
        note="hi",
    )
    assert sealed_of(document_of_entry(Sealed(entry, ()))).entry == entry
