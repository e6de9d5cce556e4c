"""The desk's verbs with a real database: each act with its row of the trail, both or neither."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from handlers.services import Services
from models.calls.call import Reason as EndReason
from models.db import Database
from models.ledger.journal import Kind, wallet_key
from models.payouts.payout import Reason, Stage
from models.reports.report import Reason as Why
from models.reports.report import Resolution
from models.trail.rules import Actor
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import code_of
from tests.services.callkit import Killed, Mortal
from tests.services.deskkit import MOD, WHY, Office

# Calls to the driver of the longest verb, with much to spare: more say that a verb does not end.
STEPS_MAX = 60


@pytest.fixture
def office(db: Database, clock: VirtualClock, ids: CountingIds) -> Office:
    return Office(db, clock, ids)


@dataclass
class Case:
    """Something to be done: the verb on a process's services, what its row says, and whether it is done."""

    do: Callable[[Services], Awaitable[Any]]
    act: str
    target: str
    done: Callable[[], Awaitable[bool]]


Make = Callable[[Office, str], Awaitable[Case]]


def person_is(office: Office, name: str, field: str, value: str) -> Callable[[], Awaitable[bool]]:
    async def done() -> bool:
        return bool((await office.person(name))[field] == value)

    return done


async def ban(office: Office, n: str) -> Case:
    name = f"eve{n}"
    await office.people(name)
    done = person_is(office, name, "status", "banned")
    return Case(lambda s: s.desk.people.ban(name, **WHY), "user.ban", name, done)


async def unban(office: Office, n: str) -> Case:
    name = f"eve{n}"
    await office.people(name)
    await office.db["users"].update_one({"_id": name}, {"$set": {"status": "banned"}})
    done = person_is(office, name, "status", "active")
    return Case(lambda s: s.desk.people.unban(name, **WHY), "user.unban", name, done)


async def promote(office: Office, n: str) -> Case:
    name = f"eve{n}"
    await office.people(name)
    done = person_is(office, name, "role", "admin")
    return Case(lambda s: s.desk.people.promote(name, **WHY), "user.promote", name, done)


async def demote(office: Office, n: str) -> Case:
    name = f"eve{n}"
    await office.people(name, f"other{n}", role="admin")
    done = person_is(office, name, "role", "user")
    return Case(lambda s: s.desk.people.demote(name, **WHY), "user.demote", name, done)


async def drop_factor(office: Office, n: str) -> Case:
    name = f"eve{n}"
    await office.people(name)
    await office.factor(name)

    async def done() -> bool:
        return "second_factor" not in await office.person(name)

    return Case(lambda s: s.desk.people.drop_factor(name, **WHY), "user.drop_factor", name, done)


async def end_sessions(office: Office, n: str) -> Case:
    name = f"eve{n}"
    await office.people(name)
    session_id = await office.sign_in(name)

    async def done() -> bool:
        return not await office.services.accounts.store.sessions.lives(session_id, name)

    return Case(lambda s: s.desk.people.end_sessions(name, **WHY), "user.end_sessions", name, done)


async def freeze(office: Office, n: str) -> Case:
    name = f"eve{n}"
    await office.people(name)
    await office.here.ledger.ensure(name, "NGN")
    await office.here.ledger.ensure(name, "KES")

    async def done() -> bool:
        states = {wallet.frozen for wallet in await office.desk.money.wallets(name)}
        assert len(states) == 1, "all or none"
        return states == {True}

    return Case(lambda s: s.desk.money.freeze(name, **WHY), "wallet.freeze", name, done)


async def unfreeze(office: Office, n: str) -> Case:
    name = f"eve{n}"
    await office.people(name)
    await office.here.ledger.ensure(name, "NGN")
    await office.here.ledger.freeze(name, frozen=True)

    async def done() -> bool:
        return not any(wallet.frozen for wallet in await office.desk.money.wallets(name))

    return Case(lambda s: s.desk.money.unfreeze(name, **WHY), "wallet.unfreeze", name, done)


async def end_call(office: Office, n: str) -> Case:
    await office.people(f"ann{n}", f"bob{n}")
    call = await office.call(f"ann{n}", f"bob{n}", 30, ends=False)

    async def done() -> bool:
        now = await office.town.call(call)
        assert now.end_reason in (None, EndReason.POLICY)
        return not now.live

    return Case(lambda s: s.desk.calls.end(call.id, **WHY), "call.end", call.id, done)


async def refund_call(office: Office, n: str) -> Case:
    await office.people(f"ann{n}", f"bob{n}")
    call = await office.call(f"ann{n}", f"bob{n}")

    async def done() -> bool:
        kinds = await office.town.kinds(call)
        assert kinds.get(Kind.REFUND, 0) <= 1, "once"
        return Kind.REFUND in kinds

    return Case(
        lambda s: s.desk.money.refund_call(call.id, amount_minor=777, key="k", **WHY),
        "call.refund",
        call.id,
        done,
    )


async def refund_payment(office: Office, n: str) -> Case:
    await office.people(f"ann{n}")
    payment = await office.payment(f"ann{n}")

    async def done() -> bool:
        found = await office.services.payments.store.by_reference(payment.reference)
        assert found is not None
        assert found.reversed_minor in (0, 1_000), "once"
        return found.reversed_minor == 1_000

    return Case(
        lambda s: s.desk.money.refund_payment(payment.reference, amount_minor=1_000, key="k", **WHY),
        "payment.refund",
        payment.reference,
        done,
    )


def decided(office: Office, payout_id: str, stage: Stage) -> Callable[[], Awaitable[bool]]:
    async def done() -> bool:
        return (await office.desk.payouts.find(payout_id)).stage is stage

    return done


async def approve(office: Office, n: str) -> Case:
    await office.people(f"ann{n}")
    payout = await office.payout(f"ann{n}")
    done = decided(office, payout.id, Stage.WAITING)
    return Case(lambda s: s.desk.payouts.approve(payout.id, **WHY), "payout.approve", payout.id, done)


async def reject(office: Office, n: str) -> Case:
    await office.people(f"ann{n}")
    payout = await office.payout(f"ann{n}")
    done = decided(office, payout.id, Stage.FAILED)
    return Case(lambda s: s.desk.payouts.reject(payout.id, **WHY), "payout.reject", payout.id, done)


async def void(office: Office, n: str) -> Case:
    await office.people(f"ann{n}")
    payout = await office.payout(f"ann{n}", stage=Stage.WAITING)
    done = decided(office, payout.id, Stage.FAILED)
    return Case(lambda s: s.desk.payouts.void(payout.id, **WHY), "payout.void", payout.id, done)


async def resolve(office: Office, n: str) -> Case:
    await office.people(f"ann{n}", f"eve{n}")
    filed = await office.services.reports.file_user(f"ann{n}", f"eve{n}", reason=Why.SPAM, comment=None)

    async def done() -> bool:
        return (await office.services.reports.one(filed.id)).report.closing is not None

    def do(s: Services) -> Awaitable[Any]:
        return s.reports.close(
            "mod", filed.id, version=1, resolution=Resolution.WARNED, note=WHY["reason"], actor=MOD
        )

    return Case(do, "report.resolve", filed.id, done)


CASES: dict[str, Make] = {
    make.__name__: make
    for make in (
        *(ban, unban, promote, demote, drop_factor, end_sessions, freeze, unfreeze, end_call),
        *(refund_call, refund_payment, approve, reject, void, resolve),
    )
}
# A second time there is nothing to decide, and that is said.
ONCE = {"approve", "reject", "void"}


@pytest.mark.parametrize("name", CASES)
async def test_an_act_leaves_one_row_and_a_second_time_none(office: Office, name: str) -> None:
    case = await CASES[name](office, "")
    assert not await case.done()
    await case.do(office.services)
    assert await case.done()
    [row] = await office.rows(case.target)
    assert (row.act, row.actor, row.reason) == (case.act, MOD, WHY["reason"])
    if name in ONCE:
        assert await code_of(case.do(office.services)) == "PAYOUT_WRONG_STATE"
    else:
        await case.do(office.services)
    assert await office.rows(case.target) == [row]
    assert (await office.services.trail.verify()).ok


@pytest.mark.parametrize("name", CASES)
async def test_wherever_a_process_dies_there_are_the_act_and_its_row_or_neither(
    office: Office, name: str
) -> None:
    await office.services.trail.begin()
    both = set()
    for step in range(1, STEPS_MAX):
        case = await CASES[name](office, str(step))
        life = Mortal(office.db)
        services = office.process(f"doomed{step}", life)
        life.dies_at = life.calls + step
        with contextlib.suppress(Killed):
            await case.do(services)
        rows = await office.rows(case.target)
        assert len(rows) <= 1
        assert bool(rows) == await case.done(), f"at step {step}"
        both.add(bool(rows))
        if not life.dead:
            break
    else:
        pytest.fail(f"{name} has fewer steps")
    assert both == {True, False}
    assert (await office.services.trail.verify()).ok


async def test_a_refused_act_leaves_no_row(office: Office) -> None:
    await office.people("ann", "bob")
    await office.people("mod", role="admin")
    call = await office.call("ann", "bob")
    live = await office.payout("ann", stage=Stage.WAITING)
    people, money, payouts = office.desk.people, office.desk.money, office.desk.payouts
    operator: dict[str, Any] = {"by": Actor.operator(), "reason": "why"}
    refused = {
        "USER_UNKNOWN": people.ban("nobody", **WHY),
        "SELF_NOT_ALLOWED": people.ban("mod", **WHY),
        "FORBIDDEN": people.demote("mod", **operator),
        "WALLET_UNKNOWN": money.freeze("bob", currency="KES", **WHY),
        "VALIDATION_FAILED": people.ban("ann", by=MOD, reason="  "),
        "REFUND_TOO_LARGE": money.refund_call(call.id, amount_minor=10**9, **WHY),
        "CALL_UNKNOWN": office.desk.calls.end("nothing", **WHY),
        "PAYMENT_UNKNOWN": money.refund_payment("nothing", **WHY),
        "PAYOUT_UNKNOWN": payouts.approve("nothing", **WHY),
        "PAYOUT_WRONG_STATE": payouts.approve(live.id, **WHY),
    }
    for code, verb in refused.items():
        assert await code_of(verb) == code
    assert await office.rows() == []


async def test_nobody_decides_on_a_withdrawal_of_their_own(office: Office) -> None:
    await office.people("mod", role="admin")
    payout = await office.payout("mod")
    for verb in (office.desk.payouts.approve, office.desk.payouts.reject):
        assert await code_of(verb(payout.id, **WHY)) == "SELF_NOT_ALLOWED"
    assert await office.rows() == []


async def test_who_decides_otherwise_at_the_same_moment_is_not_told_that_it_was_done(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.people("ann")
    payout = await office.payout("ann")
    other, work = office.process("other"), office.services.payouts.work
    learn = work.learn

    async def late(*ask: Any) -> Any:
        await other.desk.payouts.approve(payout.id, **WHY)
        return await learn(*ask)

    monkeypatch.setattr(work, "learn", late)
    assert await code_of(office.desk.payouts.reject(payout.id, **WHY)) == "PAYOUT_WRONG_STATE"
    assert [row.act for row in await office.rows(payout.id)] == ["payout.approve"]
    assert (await other.desk.payouts.find(payout.id)).stage is Stage.WAITING


async def test_nobody_decides_where_the_money_is_their_own(office: Office) -> None:
    await office.people("mod", role="admin")
    await office.people("ann", "bob")
    paid, earned = await office.call("mod", "ann"), await office.call("bob", "mod")
    money, operator = office.desk.money, {"by": Actor.operator(), "reason": "why"}
    for call in (paid, earned):
        assert await code_of(money.refund_call(call.id, **WHY)) == "SELF_NOT_ALLOWED"
    assert (await money.freeze("mod", **operator))[0].frozen
    assert await code_of(money.unfreeze("mod", **WHY)) == "SELF_NOT_ALLOWED"
    assert [row.act for row in await office.rows()] == ["wallet.freeze"]
    assert not (await money.unfreeze("mod", **operator))[0].frozen, "somebody else does"


async def test_two_administrators_who_take_the_role_from_each_other_leave_one(office: Office) -> None:
    await office.people("mod", "eve", role="admin")
    people = office.desk.people
    done = await asyncio.gather(
        people.demote("eve", **WHY),
        people.demote("mod", by=Actor.admin("eve", "eve"), reason="why"),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Exception) for one in done) == 1
    assert await office.db["users"].count_documents({"role": "admin"}) == 1
    assert len(await office.rows()) == 1


# ----------------------------------------------------------------------------------------------- refunds of a call


async def test_refunds_in_parts_go_up_to_what_the_call_cost_and_each_has_its_row(office: Office) -> None:
    await office.people("ann", "bob")
    call = await office.call("ann", "bob")
    cost = call.cost_minor
    money = office.desk.money
    first = await money.refund_call(call.id, amount_minor=300, key="one", **WHY)
    again = await money.refund_call(call.id, amount_minor=300, key="one", **WHY)
    assert (first.amount_minor, first.again) == (300, False)
    assert (again.amount_minor, again.again) == (0, True)
    assert await code_of(money.refund_call(call.id, amount_minor=301, key="one", **WHY)) == (
        "IDEMPOTENCY_MISMATCH"
    )
    assert (
        await code_of(money.refund_call(call.id, amount_minor=cost, key="two", **WHY)) == "REFUND_TOO_LARGE"
    )
    rest = await money.refund_call(call.id, key="rest", **WHY)
    assert (rest.amount_minor, rest.call.cost_minor) == (cost - 300, 0)
    assert await code_of(money.refund_call(call.id, key="more", **WHY)) == "REFUND_TOO_LARGE"
    rows = await office.rows(call.id)
    assert [row.details for row in rows] == [
        {"amount_minor": 300, "currency": "NGN"},
        {"amount_minor": cost - 300, "currency": "NGN"},
    ]
    await office.town.books()


async def test_the_reason_is_for_the_trail_and_the_note_for_the_two(office: Office) -> None:
    await office.people("ann", "bob")
    call = await office.call("ann", "bob")
    await office.desk.money.refund_call(call.id, note="Sorry for the line", **WHY)
    notes = [entry.note for entry in await office.town.entries(call) if entry.kind is Kind.REFUND]
    assert notes == ["Sorry for the line"]
    [row] = await office.rows(call.id)
    assert row.reason == WHY["reason"]


# ------------------------------------------------------------------------------------------------------- withdrawals


async def test_a_large_withdrawal_waits_until_it_is_approved_and_is_submitted_then(office: Office) -> None:
    await office.people("ann")
    payout = await office.payout("ann")
    work = office.services.payouts.work
    for _ in range(3):
        office.clock.pass_(86_400)
        await work.run_due()
    assert (await office.desk.payouts.find(payout.id)).stage is Stage.APPROVAL, "it waits however long"
    assert [one.id for one in await office.desk.payouts.waiting()] == [payout.id]
    assert not await work.look(payout.reference), "no gateway knows of it, whatever is told"
    assert (await office.services.payouts.store.unapproved(office.clock.now())).number == 1
    await office.desk.payouts.approve(payout.id, **WHY)
    await work.run_due()
    after = await office.desk.payouts.find(payout.id)
    assert after.stage not in (Stage.APPROVAL, Stage.WAITING, Stage.FAILED)
    assert after.submissions == 1
    await office.town.books()


async def test_a_rejected_withdrawal_is_in_the_wallet_again_with_its_fee(office: Office) -> None:
    await office.people("ann")
    await office.town.pay_in(office.here, "ann", 10_000)
    before = (await office.here.ledger.store.wallets([wallet_key("ann", "NGN")]))["ann:NGN"].primary
    payout = await office.payout("ann")
    after = await office.desk.payouts.reject(payout.id, **WHY)
    assert (after.stage, after.reason) == (Stage.FAILED, Reason.REJECTED)
    [wallet] = await office.desk.money.wallets("ann")
    assert (wallet.primary, wallet.primary_held) == (before, 0)
    await office.town.books()


# ------------------------------------------------------------------------------------------------------------- seeing


async def test_live_calls_are_seen_with_their_money_until_they_end(office: Office) -> None:
    await office.people("ann", "bob", "cid", "dan")
    first = await office.call("ann", "bob", 30, ends=False)
    second = await office.call("cid", "dan", 20, ends=False)
    live = await office.desk.calls.live()
    assert [one.call.id for one in live] == [second.id, first.id]
    assert [one.talked_ms for one in live] == [20_000, 50_000]
    assert [one.charged_minor for one in live] == [
        (await office.desk.calls.live_one(one.id)).charged_minor for one in (second, first)
    ]
    assert live[1].charged_minor > live[0].charged_minor > 0
    assert await office.desk.calls.live_number() == 2
    ended = await office.desk.calls.end(first.id, **WHY)
    assert ended.end_reason is EndReason.POLICY
    assert [one.call.id for one in await office.desk.calls.live()] == [second.id]
    assert (await office.desk.calls.live_one(first.id)).charged_minor == ended.cost_minor


async def test_people_are_found_by_the_beginnings_of_their_names_and_by_what_is_theirs_alone(
    office: Office,
) -> None:
    await office.people("ann", "anna", "bob")
    await office.db["users"].update_one({"_id": "anna"}, {"$set": {"status": "banned"}})
    search = office.desk.people.search

    async def names(text: str, **more: Any) -> list[str]:
        return [one.profile.username for one in (await search(text, **more)).items]

    assert await names("AN") == ["anna", "ann"]
    assert await names("an", status="banned") == ["anna"]
    assert await names("bob@example.com") == ["bob"]
    assert await names("") == ["bob", "anna", "ann"]
    assert await names("nobody") == []
    for hostile in ("$gt", "{}", "^a", "\x00", "\U0010ffff", "a" * 3_000):
        assert await names(hostile) == []
    page = await search("", limit=2)
    assert [one.profile.username for one in page.items] == ["bob", "anna"]
    assert await names("", before=page.before) == ["ann"]
