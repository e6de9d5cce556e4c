"""Points: counted once for each paid call whatever dies, taken back with refunds, redeemed as call credits."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from models.audit.service import audit
from models.billing.tariffs import Tariffs
from models.calls.call import Call
from models.db import Database, Stale
from models.errors import Refusal
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.rewards import store as rewards_store
from models.rewards.rules import FactKind, Tally, kept
from models.rewards.service import Redeemed, Rewards
from models.rewards.store import RewardStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import BY_THE_SECOND, Stage, opened
from tests.services.callkit import Killed, Mortal
from tests.services.wallet_house import refused

# Calls to the driver of the longest verb, with much to spare.
STEPS_MAX = 40
PER_MINUTE, POINT = 60, 10


def rewards_of(stage: Stage, db: Any = None, **changes: Any) -> Rewards:
    """The points at a process of its own; a point for each second charged, unless told otherwise."""
    town = stage.town
    made: dict[str, Any] = {"currency": "NGN", "per_minute": PER_MINUTE, "point_minor": POINT, **changes}
    db = db if db is not None else town.db
    ledger = Ledger(LedgerStore(db), town.clock, town.ids)
    return Rewards(ledger=ledger, store=RewardStore(db), clock=town.clock, ids=town.ids, **made)


@pytest.fixture
async def stage(db: Database, clock: VirtualClock, ids: CountingIds) -> Stage:
    return await opened(db, clock, ids, money=1_000_000)


async def call(stage: Stage, seconds: float) -> Call:
    """A call of Ann's to Bob of so many seconds, ended and settled."""
    made = await stage.talk()
    await stage.town.pass_(seconds, stage.here, step=30)
    return await stage.now(await stage.ann.end(made))


async def points(stage: Stage, user_id: str = "ann") -> int:
    return (await rewards_of(stage).tally(user_id)).points


async def facts(stage: Stage, user_id: str = "ann") -> list[tuple[str, int]]:
    """Somebody's history, the oldest first."""
    found = await rewards_of(stage).history(user_id, below=None, most=1000)
    return [(fact.kind.value, fact.points) for _, fact in reversed(found)]


async def redeem(
    stage: Stage, amount: int, key: str | None = "k", rewards: Rewards | None = None
) -> Redeemed:
    return await (rewards or rewards_of(stage)).redeem("ann", key=key, points=amount)


# ---------------------------------------------------------------------------------------------------------- counting


async def test_a_paid_call_gives_its_payer_points_for_each_minute_charged(stage: Stage) -> None:
    assert await points(stage) == 0
    made = await call(stage, 75)
    assert await points(stage) == 75
    assert await points(stage, "bob") == 0
    await call(stage, 5)
    assert await points(stage) == 80
    assert await facts(stage) == [("earned", 75), ("earned", 5)]
    ((_, fact),) = await rewards_of(stage).history("ann", below=2, most=9)
    assert (fact.call_id, fact.at) == (made.id, made.ended_at)
    await stage.town.books()


async def test_looking_again_counts_nothing_twice(stage: Stage) -> None:
    await call(stage, 30)
    for _ in range(3):
        assert await points(stage) == 30
    assert len(await facts(stage)) == 1


async def test_minutes_are_those_that_are_charged_and_points_are_rounded_down(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    stage = await opened(db, clock, ids, money=1_000_000, tariffs=Tariffs(rate_minor=1_000))
    await call(stage, 61)  # two minutes are charged
    assert (await rewards_of(stage, per_minute=1).tally("ann")).points == 2
    stage = await opened_again(stage, BY_THE_SECOND)
    await call(stage, 119)
    assert (await rewards_of(stage, per_minute=1).tally("ann")).points == 3


async def opened_again(stage: Stage, tariffs: Tariffs) -> Stage:
    """The same people at a process with other prices."""
    town = stage.town
    town.tariffs = tariffs
    here = town.process("dearer")
    return Stage(town, here, town.phone(here, "ann"), town.phone(here, "bob"))


async def test_a_call_that_lives_or_is_not_settled_gives_nothing_yet_and_its_points_later(
    stage: Stage, clock: VirtualClock
) -> None:
    made = await stage.talk()
    await stage.town.pass_(400, stage.here, step=50)
    assert await points(stage) == 0
    tally = await rewards_of(stage).tally("ann")
    assert list(tally.pending) == [made.id], "money of it was captured already"
    await stage.ann.end(made)
    assert await points(stage) == 400
    assert not (await rewards_of(stage).tally("ann")).pending


async def test_free_and_unanswered_calls_give_nothing(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    stage = await opened(db, clock, ids, money=1_000_000)
    await stage.ann.end(await stage.ann.request(stage.bob))
    stage = await opened_again(stage, replace(BY_THE_SECOND, rate_minor=0))
    await call(stage, 60)
    assert await facts(stage) == []


async def test_e141_two_who_talk_for_next_to_nothing_are_not_paid_for_it(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    # A unit for a minute, of which the other side gets most: points for ten units a minute would be a wage.
    stage = await opened(
        db, clock, ids, money=1_000_000, tariffs=Tariffs(rate_minor=1, minimum_minor=0, block_seconds=60)
    )
    made = await call(stage, 3_600)
    assert made.charge is not None
    assert (made.cost_minor, made.charge.commission_minor) == (60, 12)
    assert (await rewards_of(stage, per_minute=1).tally("ann")).points == 1, (
        "60 of 10 units each, and 12 were earned"
    )
    await stage.town.books()


async def test_where_points_are_switched_off_there_are_none(stage: Stage) -> None:
    await call(stage, 60)
    assert (await rewards_of(stage, per_minute=0).tally("ann")).points == 0
    assert await facts(stage) == []


async def test_the_job_counts_for_those_whose_calls_were_settled_here(stage: Stage) -> None:
    rewards = rewards_of(stage)
    stage.here.ledger.listeners.append(rewards.listen)
    assert await rewards.run_wanted() == 0
    made = await call(stage, 40)
    assert await rewards.run_wanted() == 1
    assert (await RewardStore(stage.town.db).tally("ann")).points == 40
    assert await rewards.run_wanted() == 0
    await stage.here.calls.refund(made.id, amount_minor=made.cost_minor)
    await rewards.run_wanted()
    assert (await RewardStore(stage.town.db).tally("ann")).points == 0


async def test_a_long_history_is_counted_in_stretches(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.rewards.service.STRETCH", 3)
    assert rewards_store.STRETCH > 3
    seconds = [7, 1_300, 130, 3]  # the second is captured several times
    for one in seconds:
        await call(stage, one)
    assert await points(stage) == sum(seconds)
    await stage.town.books()


# ----------------------------------------------------------------------------------------------------------- refunds


async def test_a_refund_takes_its_share_back_in_parts_as_at_once(stage: Stage) -> None:
    made = await call(stage, 100)
    assert await points(stage) == 100
    for number, part in enumerate((1_001, 999, 3_333, made.cost_minor - 5_333)):
        await stage.here.calls.refund(made.id, amount_minor=part, key=str(number))
        refunded = made.cost_minor - (await stage.now(made)).cost_minor
        assert await points(stage) == kept(100, made.cost_minor, refunded)
    assert await points(stage) == 0
    await stage.town.books()


async def test_refunds_that_are_looked_at_together_with_their_call_come_to_the_same(stage: Stage) -> None:
    one, other = await call(stage, 100), await call(stage, 50)
    for number, part in enumerate((1_001, 2_500)):
        await stage.here.calls.refund(one.id, amount_minor=part, key=str(number))
    await stage.here.calls.refund(other.id, amount_minor=other.cost_minor)
    assert await points(stage) == kept(100, one.cost_minor, 3_501)
    assert await facts(stage) == [
        *(("earned", 100), ("earned", 50), ("taken_back", -11), ("taken_back", -25), ("taken_back", -50)),
    ]
    await stage.town.books()


async def test_e107_what_was_redeemed_already_is_not_taken_back_and_points_are_never_below_zero(
    stage: Stage,
) -> None:
    made = await call(stage, 100)
    await redeem(stage, 70)
    await stage.here.calls.refund(made.id, amount_minor=made.cost_minor)
    assert await points(stage) == 0
    assert await facts(stage) == [("earned", 100), ("redeemed", -70), ("taken_back", -30)]
    await call(stage, 10)
    assert await points(stage) == 10, "and nobody owes points"
    await stage.town.books()


async def test_a_refund_to_somebody_takes_nothing_from_the_one_who_was_called(stage: Stage) -> None:
    await stage.town.pay_in(stage.here, "bob", 100_000)
    back = await stage.ann.accept(await stage.bob.request(stage.ann))
    await stage.town.pass_(20, stage.here, step=20)
    await stage.ann.end(back)
    made = await call(stage, 30)
    await stage.here.calls.refund(made.id, amount_minor=made.cost_minor)
    assert (await points(stage), await points(stage, "bob")) == (0, 20)
    # Nor when what Bob had earned was his to spend already.
    made = await call(stage, 30)
    await stage.town.pass_(stage.town.dispute_seconds + 2, stage.here, step=stage.town.dispute_seconds / 2)
    await stage.here.calls.refund(made.id, amount_minor=made.cost_minor)
    assert (await points(stage), await points(stage, "bob")) == (0, 20)
    assert await facts(stage, "bob") == [("earned", 20)]
    await stage.town.books()


# --------------------------------------------------------------------------------------------------------- redeeming


async def test_points_become_call_credits(stage: Stage) -> None:
    await call(stage, 60)
    before = await stage.town.wallet("ann")
    done = await redeem(stage, 50)
    assert (done.tally.points, done.wallet.credits) == (10, 500)
    assert done.wallet.primary == before.primary
    assert {leg.account: leg.amount_minor for leg in done.entry.legs} == {
        "platform:rewards": -500,
        "wallet:ann:NGN:credits": 500,
    }
    await stage.town.books()


async def test_the_same_key_redeems_once_and_another_amount_under_it_is_refused(stage: Stage) -> None:
    await call(stage, 60)
    first = await redeem(stage, 50)
    again = await redeem(stage, 50)
    assert (again.entry, again.tally, again.wallet) == (first.entry, first.tally, first.wallet)
    assert (await refused(redeem(stage, 5))).code == "IDEMPOTENCY_MISMATCH"
    assert (await refused(redeem(stage, 5, key=None))).code == "IDEMPOTENCY_KEY_REQUIRED"
    assert await points(stage) == 10


async def test_more_than_there_are_cannot_be_redeemed(stage: Stage) -> None:
    no = await refused(redeem(stage, 1))
    assert (no.code, no.details) == ("POINTS_INSUFFICIENT", {"points": 0})
    await call(stage, 60)
    assert (await refused(redeem(stage, 61))).code == "POINTS_INSUFFICIENT"
    rich = rewards_of(stage, point_minor=10**15)
    assert (await refused(redeem(stage, 60, rewards=rich))).code == "AMOUNT_TOO_LARGE"
    assert (await redeem(stage, 60)).tally.points == 0


async def test_points_of_calls_in_another_currency_are_worth_the_servers(stage: Stage) -> None:
    await call(stage, 60)
    done = await redeem(stage, 60, rewards=rewards_of(stage, currency="KES"))
    assert (done.wallet.currency, done.wallet.credits) == ("KES", 600)
    await stage.town.books()


# ------------------------------------------------------------------------------------------------- races and crashes


async def test_many_who_count_and_redeem_at_once_agree(stage: Stage) -> None:
    made = await call(stage, 100)
    desks = [rewards_of(stage) for _ in range(3)]
    await asyncio.gather(*(desk.tally("ann") for desk in desks for _ in range(4)))
    assert await facts(stage) == [("earned", 100)]

    async def refund() -> None:
        await stage.here.calls.refund(made.id, amount_minor=made.cost_minor // 2)

    done = await asyncio.gather(
        refund(),
        *(redeem(stage, 30, key=f"k{n % 5}", rewards=desks[n % 3]) for n in range(10)),
        *(desk.tally("ann") for desk in desks),
        return_exceptions=True,
    )
    codes = Counter(one.code for one in done if isinstance(one, Refusal))
    assert not [one for one in done if isinstance(one, Exception) and not isinstance(one, Refusal)]
    assert set(codes) <= {"POINTS_INSUFFICIENT"}
    redeemed = {one.entry.id for one in done if isinstance(one, Redeemed)}
    assert 1 <= len(redeemed) <= 3
    left = await points(stage)
    assert left == max(0, 50 - 30 * len(redeemed)) or left == 100 - 50 - 30 * len(redeemed)
    await stage.town.books()


async def test_who_has_counted_while_points_were_spent_counts_again(stage: Stage) -> None:
    await call(stage, 100)
    store = RewardStore(stage.town.db)
    before = await rewards_of(stage).tally("ann")
    await redeem(stage, 60)
    with pytest.raises(Stale):
        await store.swap(before, replace(before, version=before.version + 1, seen={"NGN": 999}), [])
    assert await points(stage) == 40
    new = Tally(user_id="bob", version=1)
    await store.swap(Tally(user_id="bob"), new, [])
    with pytest.raises(Stale):
        await store.swap(Tally(user_id="bob"), new, [])
    await stage.town.books()


async def test_e106_wherever_the_process_dies_nothing_is_counted_twice_and_nothing_is_lost(
    stage: Stage,
) -> None:
    expected, died = 0, 0
    for step in range(1, STEPS_MAX):
        made = await call(stage, 20)
        await stage.here.calls.refund(made.id, amount_minor=made.cost_minor // 2)
        expected += 10
        doomed: Any = Mortal(stage.town.db)
        doomed.dies_at = step
        try:
            await rewards_of(stage, doomed).tally("ann")
        except Killed:
            died += 1
        else:
            break
        await stage.town.books()
        if step % 2:
            assert await points(stage) == expected
    assert died > 4
    assert await points(stage) == expected
    await stage.town.books()


async def test_e106_wherever_the_process_dies_a_redemption_is_made_with_its_points_or_not_at_all(
    stage: Stage,
) -> None:
    await call(stage, 2_000)
    died, spent = 0, 0
    for step in range(1, STEPS_MAX):
        doomed: Any = Mortal(stage.town.db)
        doomed.dies_at = step
        key = f"k{step}"
        spent += 10
        try:
            await redeem(stage, 10, key=key, rewards=rewards_of(stage, doomed))
        except Killed:
            died += 1
        else:
            break
        await stage.town.books()
        # Whoever got no answer asks again.
        assert (await redeem(stage, 10, key=key)).points == 10
        assert await points(stage) == 2_000 - spent
    assert died > 6
    assert (await stage.town.wallet("ann")).credits == spent * POINT
    await stage.town.books()


async def test_a_long_life_of_calls_refunds_and_redemptions_adds_up(stage: Stage) -> None:
    """Looked at now and then; by who looks only at its end it comes to the same."""
    chance, made, spent = Random(11), list[Call](), 0
    for turn in range(24):
        what = chance.choice(["call", "call", "refund", "redeem", "look"])
        if what == "call":
            made.append(await call(stage, chance.randint(1, 40)))
        elif what == "refund" and made:
            one = made.pop(chance.randrange(len(made)))
            await stage.here.calls.refund(one.id, amount_minor=one.cost_minor)
        elif what == "redeem":
            have = await points(stage)
            if have > 3:
                await redeem(stage, have // 3, key=f"t{turn}")
                spent += have // 3
        elif what == "look":
            await points(stage)
    left = await points(stage)
    found = await rewards_of(stage).history("ann", below=None, most=1000)
    assert left == sum(fact.points for _, fact in found)
    assert -spent == sum(fact.points for _, fact in found if fact.kind is FactKind.REDEEMED)
    kinds = Counter(fact.kind for _, fact in found)
    assert kinds[FactKind.EARNED] == await stage.town.db["calls"].count_documents({})
    await stage.town.books()


# ------------------------------------------------------------------------------------------------------------- audit


async def test_the_audit_finds_points_that_nothing_has_given(stage: Stage) -> None:
    db, ids = stage.town.db, stage.town.ids
    made = await call(stage, 60)
    await redeem(stage, 20)
    await stage.here.calls.refund(made.id, amount_minor=made.cost_minor // 2, key="r")
    assert await points(stage) == 10
    await stage.town.books()
    earned, redeemed, back = f"call:{made.id}", "rw:ann:k", f"back:call:{made.id}:refund:r"

    async def said() -> set[str]:
        report = await audit(db, stage.at())
        assert {one.invariant for one in report.findings} <= {"I16"}
        return {one.row for one in report.findings}

    async def with_(collection: str, row: str, changes: dict[str, Any], *rows: str) -> None:
        before = await db[collection].find_one({"_id": row})
        assert before is not None, row
        await db[collection].update_one({"_id": row}, {"$set": changes})
        assert await said() == set(rows), (row, changes)
        await db[collection].replace_one({"_id": row}, before)

    await with_("rewards", "ann", {"points": 11}, "ann")
    await with_("rewards", "ann", {"count": 4}, "ann")
    await with_("reward_facts", earned, {"points": 61}, earned, "ann")
    await with_("reward_facts", earned, {"call_id": "nothing"}, earned)
    await with_("reward_facts", earned, {"number": 9}, earned, redeemed, back)
    await with_("reward_facts", redeemed, {"amount_minor": 300}, redeemed, "platform:rewards")
    await with_("reward_facts", back, {"points": -31}, back, "ann")
    await with_("reward_facts", back, {"due": 5}, back)
    assert await said() == set()
    await db["reward_facts"].delete_one({"_id": redeemed})
    assert {redeemed, "platform:rewards", "ann"} <= await said()
    await db["reward_facts"].delete_many({})
    await db["rewards"].delete_many({})
    assert await said() == {redeemed, "platform:rewards"}
    row = {"_id": "call:x", "id": ids.new(), "user_id": "eve", "number": 1, "kind": "earned", "points": 5}
    await db["reward_facts"].insert_one({**row, "call_id": "x", "per_minute": 1, "at": stage.at()})
    assert "call:x" in await said()
