"""Money under contention: many requests on one purse, several processes at one call, hundreds of orders of their steps.

The seeded races are those of ``test_calls_races``; here the ledger's reads and writes wait for their turn as well. Each
verb has a process of its own, because verbs of one process take turns at a wallet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from models.calls.call import Call, Purse, Reason, Stage, State
from models.calls.store import CALLS
from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Kind
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import PaidTown
from tests.services.callkit import Killed, Phone, Process, Race

SEEDS, AT_ONCE = 100, 20


async def test_of_thirty_calls_started_together_with_money_for_one_exactly_one_rings(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = PaidTown(db, clock, ids)
    friends = [f"friend{n}" for n in range(30)]
    await town.people("ann", *friends)
    processes = [town.process(f"p{n}") for n in range(3)]
    await town.pay_in(processes[0], "ann", 12_000)
    phones = [town.phone(processes[n % 3], "ann", f"phone{n}") for n in range(30)]
    callees = [town.phone(processes[n % 3], friend) for n, friend in enumerate(friends)]

    async def request(phone: Phone, callee: Phone) -> Call | Refusal:
        try:
            return await phone.request(callee)
        except Refusal as no:
            return no

    answers = await asyncio.gather(*map(request, phones, callees))
    (rings,) = [one for one in answers if isinstance(one, Call)]
    refusals = Counter(one.code for one in answers if isinstance(one, Refusal))
    assert refusals.total() == 29
    assert set(refusals) <= {"INSUFFICIENT_FUNDS", "CALL_IN_PROGRESS"}
    assert await town.pockets("ann") == (0, 12_000)
    assert await db["journal"].count_documents({"kind": Kind.HOLD.value}) == 1
    assert [len(callee.letters("CALL_REQUEST")) for callee in callees].count(1) == 1
    await town.books()
    await phones[0].end(rings)
    assert await town.pockets("ann") == (12_000, 0)
    assert await town.locks() == {}
    await town.books()


async def ended_unsettled(town: PaidTown, process: Process, payer: str, payee: str, seconds: float) -> Call:
    """A call whose process has died right after it wrote the end: nothing is captured or shared yet."""
    caller, callee = town.phone(process, payer), town.phone(process, payee)
    call = await callee.accept(await caller.request(callee))
    town.clock.pass_(seconds)
    doomed = town.process(f"doomed by {payer}")
    doomed.life.dies_at = 9
    phone = Phone(doomed, payer, caller.device_id).connect()
    with pytest.raises(Killed):
        await phone.end(call)
    over = await town.call(call)
    assert (over.state, over.charge and over.charge.stage) == (State.ENDED, Stage.OPEN)
    return over


async def test_what_many_have_paid_one_callee_is_settled_and_cleared_at_one_instant_by_three_processes(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = PaidTown(db, clock, ids)
    payers = [f"payer{n}" for n in range(20)]
    await town.people("star", *payers)
    processes = [town.process(f"p{n}") for n in range(3)]
    calls = []
    for number, payer in enumerate(payers):
        await town.pay_in(processes[0], payer, 10_000)
        calls.append(await ended_unsettled(town, processes[0], payer, "star", 1 + number / 7))
    costs = [call.cost_minor for call in calls]
    clock.pass_(10)
    while any(await asyncio.gather(*(process.calls.run_money() for process in processes))):
        pass
    assert (await town.wallet("star")).pending == sum(cost * 8 // 10 for cost in costs)
    for payer, cost in zip(payers, costs, strict=True):
        assert await town.pockets(payer) == (10_000 - cost, 0)
    clock.pass_(86_400)
    while any(await asyncio.gather(*(process.calls.run_money() for process in processes))):
        pass
    star = await town.wallet("star")
    assert (star.primary, star.pending) == (sum(cost * 8 // 10 for cost in costs), 0)
    for call in calls:
        assert await town.kinds(call) == dict.fromkeys(
            (Kind.HOLD, Kind.CAPTURE, Kind.RELEASE, Kind.SETTLE, Kind.CLEAR), 1
        )
    await town.books()


# ----------------------------------------------------------------------------------------------------- seeded races


class Arena:
    """Two people and a spectator of their own, with a clock of their own; a process for every verb."""

    def __init__(self, db: Database, ids: CountingIds, seed: int) -> None:
        self.seed = seed
        self.town = PaidTown(db, VirtualClock(), ids)
        self.ann, self.bob, self.eve = (f"{name}{seed}" for name in ("ann", "bob", "eve"))
        self.home = self.town.process(f"home{seed}")
        self.caller = self.town.phone(self.home, self.ann)
        self.callee = self.town.phone(self.home, self.bob)

    async def begin(self, money: int) -> None:
        await self.town.people(self.ann, self.bob, self.eve)
        await self.town.pay_in(self.home, self.ann, money)

    async def talk(self, seconds: float) -> Call:
        call = await self.callee.accept(await self.caller.request(self.callee))
        self.town.clock.pass_(seconds)
        return call

    def process(self, name: str, *, knows: Call | None = None) -> Process:
        made = self.town.process(f"{name}{self.seed}", raced=True)
        if knows is not None and self.seed % 2:
            made.calls.board.update(knows)
        return made

    def at(self, phone: Phone, process: Process) -> Phone:
        return Phone(process, phone.user_id, phone.device_id).connect()


async def raced(
    db: Database,
    ids: CountingIds,
    one: Callable[[Arena], Awaitable[str]],
    seeds: int = SEEDS,
    at_once: int = AT_ONCE,
) -> Counter[str]:
    """Run ``one(arena)`` for every seed, some at a time; how often each outcome came. Then look at all the books."""
    outcomes: Counter[str] = Counter()
    for first in range(0, seeds, at_once):
        some = [one(Arena(db, ids, seed)) for seed in range(first, min(first + at_once, seeds))]
        outcomes.update(await asyncio.gather(*some))
    await PaidTown(db, VirtualClock(), ids).books()
    return outcomes


async def ring_against_a_transfer(arena: Arena) -> str:
    await arena.begin(1_000)
    town, here, there = arena.town, arena.process("here"), arena.process("there")
    results = await Race(arena.seed).run(
        request=arena.at(arena.caller, here).request(arena.callee),
        send=town.send(there, arena.ann, arena.eve, 950),
    )
    available, held = await town.pockets(arena.ann)
    if isinstance(results["request"], Call):
        assert isinstance(results["send"], Refusal)
        assert results["send"].code == "INSUFFICIENT_FUNDS"
        assert (available, held) == (0, 1_000)
        assert len(arena.callee.letters("CALL_REQUEST")) + len(await town.log(arena.bob)) > 0
        return "rang"
    assert results["request"].code == "INSUFFICIENT_FUNDS"
    assert (available, held) == (50, 0)
    assert await town.log(arena.bob) == []
    return "sent"


async def test_e45_a_ring_against_another_spend_of_the_same_money_has_one_winner(
    db: Database, ids: CountingIds
) -> None:
    outcomes = await raced(db, ids, ring_against_a_transfer)
    assert min(outcomes["rang"], outcomes["sent"]) > SEEDS // 10


async def renewal_against_a_transfer(arena: Arena) -> str:
    """What is in the wallet besides the reservation goes to one of them; the call's end is where its money ends."""
    await arena.begin(18_000)
    town, call = arena.town, await arena.talk(60)
    here, there = arena.process("here", knows=call), arena.process("there", knows=call)
    results = await Race(arena.seed).run(
        one=here.calls.renew(call.id),
        two=there.calls.renew(call.id),
        send=town.send(arena.process("elsewhere"), arena.ann, arena.eve, 4_000),
    )
    now = await town.call(call)
    assert now.charge is not None
    if isinstance(results["send"], Refusal):
        assert now.charge.granted_ms == 180_000
        outcome = "renewed"
    else:
        # The winner took 4000 of 6000: for another 20 seconds there is still enough, perhaps at the next look.
        await here.calls.renew(call.id)
        now = await town.call(call)
        assert now.charge is not None
        assert now.charge.granted_ms == 140_000
        outcome = "sent"
    wallet = await town.wallet(arena.ann)
    assert (wallet.primary, wallet.primary_held) == (0, now.charge.held.primary)
    assert now.deadline_at == call.deadline_at or now.charge.granted_ms > 120_000
    town.clock.pass_(now.charge.granted_ms / 1000 - 60)
    await arena.process("late").calls.tick(call.id)
    over = await town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.INSUFFICIENT_FUNDS, now.charge.granted_ms // 10)
    return outcome


async def test_e45_a_renewal_against_another_spend_never_overdraws_and_never_breaks_a_promise(
    db: Database, ids: CountingIds
) -> None:
    outcomes = await raced(db, ids, renewal_against_a_transfer, SEEDS // 2)
    assert min(outcomes["renewed"], outcomes["sent"]) > SEEDS // 40


async def all_ends_at_once(arena: Arena) -> str:
    await arena.begin(10_000)
    call = await arena.talk(99.999)
    names = ("caller", "callee", "alarm", "renewal", "payment")
    processes = {name: arena.process(name, knows=call) for name in names}

    async def time() -> None:
        arena.town.clock.pass_(0.001)

    async def pay() -> None:
        await arena.town.pay_in(processes["payment"], arena.ann, 5_000)
        await processes["payment"].calls.renew_for(arena.ann)

    await Race(arena.seed).run(
        caller=arena.at(arena.caller, processes["caller"]).end(call),
        callee=arena.at(arena.callee, processes["callee"]).end(call),
        alarm=processes["alarm"].calls.tick(call.id),
        renewal=processes["renewal"].calls.renew(call.id),
        payment=pay(),
        time=time(),
    )
    for process in processes.values():
        await process.meter.close(await arena.town.call(call))
    over = await arena.town.charged_rightly(call)
    kinds = await arena.town.kinds(call)
    assert kinds[Kind.SETTLE] == 1
    assert await arena.town.pockets(arena.ann) == (15_000 - over.cost_minor, 0)
    assert over.cost_minor in (9_900, 10_000)
    assert (over.cost_minor == 9_900) == (over.ended_at != arena.town.clock.now())
    for user in (arena.ann, arena.bob):
        assert (await arena.town.log(user)).count("CALL_ENDED") == 1
    assert over.end_reason is not None
    return over.end_reason.value


async def test_e48_hang_ups_the_end_of_the_money_a_renewal_and_a_payment_at_one_instant_settle_once(
    db: Database, ids: CountingIds
) -> None:
    outcomes = await raced(db, ids, all_ends_at_once)
    assert set(outcomes) == {"completed", "insufficient_funds"}
    assert min(outcomes.values()) > SEEDS // 50


async def settled_refunded_and_cleared(arena: Arena) -> str:
    await arena.begin(10_000)
    call = await arena.talk(33)
    doomed = arena.process("doomed")
    doomed.life.dies_at = 9
    with pytest.raises(Killed):
        await arena.at(arena.caller, doomed).end(call)
    over = await arena.town.call(call)
    assert over.charge is not None
    assert over.charge.stage is Stage.OPEN
    arena.town.clock.pass_(86_400)
    names = ("one", "two", "refund", "again", "clear")
    processes = {name: arena.process(name) for name in names}
    results = await Race(arena.seed).run(
        one=processes["one"].meter.close(over),
        two=processes["two"].meter.close(over),
        refund=processes["refund"].calls.refund(call.id, amount_minor=1_001, key="same"),
        again=processes["again"].calls.refund(call.id, amount_minor=1_001, key="same"),
        clear=processes["clear"].calls.run_money()
        if arena.seed % 2
        else processes["clear"].meter.clear(over),
    )
    assert not [one for one in results.values() if isinstance(one, Refusal)]
    stage = (await arena.town.call(call)).charge
    assert stage is not None
    await processes["one"].meter.clear(over)
    over = await arena.town.charged_rightly(call)
    assert over.charge is not None
    assert (over.cost_minor, over.charge.refunded, over.charge.refunds) == (2_299, Purse(0, 1_001), 1)
    assert over.charge.stage is Stage.CLEARED
    ones = dict.fromkeys((Kind.HOLD, Kind.CAPTURE, Kind.RELEASE, Kind.SETTLE, Kind.REFUND, Kind.CLEAR), 1)
    assert await arena.town.kinds(call) == ones
    bob = await arena.town.wallet(arena.bob)
    assert (bob.primary - bob.owed, bob.pending) == (2_299 * 8 // 10, 0)
    assert await arena.town.pockets(arena.ann) == (10_000 - 2_299, 0)
    return f"{stage.stage.value} after it"


async def test_two_processes_that_settle_refund_and_clear_one_call_at_once_do_each_once(
    db: Database, ids: CountingIds
) -> None:
    # One after another: the job looks for the money of every call that there is, also of those of other races.
    outcomes = await raced(db, ids, settled_refunded_and_cleared, at_once=1)
    assert set(outcomes) <= {"settled after it", "cleared after it"}
    assert len(outcomes) == 2


# ----------------------------------------------------------------------------------------------- a purse in a storm


async def test_a_call_transfers_both_ways_and_payments_on_one_purse_at_once_keep_the_books(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    dice = Random(1)
    town = PaidTown(db, clock, ids)
    await town.people("ann", "bob", "eve")
    processes = [town.process(f"p{n}") for n in range(3)]
    paid_in = 40_000
    await town.pay_in(processes[0], "ann", paid_in)
    caller, callee = town.phone(processes[0], "ann"), town.phone(processes[1], "bob")
    for process in processes:
        await process.calls.beat()
    call = await callee.accept(await caller.request(callee))
    sent: Counter[str] = Counter()

    async def send(process: Process, payer: str, payee: str, amount: int) -> None:
        try:
            await town.send(process, payer, payee, amount)
            sent["done"] += 1
        except Refusal as no:
            sent[no.code] += 1

    for turn in range(15):
        clock.pass_(dice.choice([0.5, 2, 7, 15]))
        work = [process.calls.run_renewals() for process in processes]
        work += [process.calls.run_due() for process in processes]
        for process in processes * 2:
            there = dice.random() < 0.6
            who = ("ann", "eve") if there else ("eve", "ann")
            work.append(send(process, *who, dice.randrange(1, 9_000)))  # type: ignore[arg-type]
        if turn % 5 == 4:
            paid_in += 3_000
            work.append(town.pay_in(processes[turn % 3], "ann", 3_000))  # type: ignore[arg-type]
        before = (await town.call(call)).charge
        await asyncio.gather(*work, *(process.billing.run_wanted() for process in processes))
        now = await town.call(call)
        assert now.charge is not None
        assert before is not None
        assert before.granted_ms is not None
        if now.live:
            assert now.charge.granted_ms is not None
            assert now.charge.granted_ms >= before.granted_ms, "what was promised stays promised"
        wallets = [await town.wallet("ann"), await town.ledger.wallet("eve", "NGN")]
        in_wallets = sum(w.primary + w.primary_held for w in wallets if w is not None)
        assert in_wallets + now.charge.captured.total == paid_in, "not a unit is lost or made"
    assert set(sent) == {"done", "INSUFFICIENT_FUNDS"}
    assert min(sent.values()) > 5
    if (await town.call(call)).live:
        await caller.end(call)
    for process in processes:
        await process.calls.run_money()
    await town.charged_rightly(call)
    assert await db[CALLS].count_documents({"state": {"$ne": "ended"}}) == 0
    await town.books()
