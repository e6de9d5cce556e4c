"""E2 and E3: accept against cancel, and accept against the end of the ring, a thousand interleavings of each.

Two processes serve the same call. Every step of the store and every announcement waits for its turn, and seeded dice
give the turns, so that each seed is another order of the awaits and always the same one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from models.calls import rules
from models.calls.call import Call, Leg, Party, Reason, State
from models.calls.store import CALLS, LOCKS
from models.db import Database
from models.errors import Refusal
from models.mailbox.store import LETTERS
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Race, Town

SEEDS, BATCHES, AT_ONCE = 1000, 4, 25
BATCH = range(BATCHES)


class Arena:
    """One call between two people of its own, served by two processes with a clock of its own."""

    def __init__(self, db: Database, seed: int) -> None:
        self.seed = seed
        self.town = Town(db, VirtualClock(), CountingIds())
        self.here = self.town.process(f"h{seed}", raced=True)
        self.there = self.town.process(f"t{seed}", raced=True)
        # A third process for the deadline job: verbs of one process take turns, which is another test's matter.
        self.elsewhere = self.town.process(f"e{seed}", raced=True)
        self.ann, self.bob = f"ann{seed}", f"bob{seed}"
        self.caller = self.town.phone(self.here, self.ann)
        self.callee = self.town.phone(self.there, self.bob)

    async def ring(self, *, known: bool) -> Call:
        """A call that rings; with ``known`` each process has it in memory, as after telling of it."""

        def person(name: str) -> Party:
            return Party(user_id=name, username=name, display_name=name)

        call = Call(
            id=f"call{self.seed}",
            type="audio",
            state=State.RINGING,
            version=1,
            caller=person(self.ann),
            callee=person(self.bob),
            caller_leg=Leg(device_id=self.caller.device_id, process=self.here.name),
            created_at=self.town.clock.now(),
        )
        first = rules.begin(call, timers=self.town.timers)
        assert await self.town.store.begin(first.call, (), self.town.clock.now()) is None
        if known:
            self.here.calls.board.update(first.call)
        return first.call

    async def told(self, user_id: str) -> list[tuple[str, int]]:
        """The log of a user: events with the version of the call that they carry, in order."""
        rows = self.town.db[LETTERS].find({"user_id": user_id}, sort=[("seq", 1)])
        return [(row["event"], row["payload"].get("call", {}).get("version", 0)) async for row in rows]

    async def locks(self) -> set[str]:
        return {row["_id"] async for row in self.town.db[LOCKS].find({"call_id": f"call{self.seed}"})}

    async def move_time(self, seconds: float) -> None:
        self.town.clock.pass_(seconds)


def events(log: list[tuple[str, int]]) -> Counter[str]:
    return Counter(event for event, _ in log)


async def raced(db: Database, batch: int, one: Any) -> Counter[str]:
    """Run ``one(arena)`` for every seed of a batch, some at a time; how often each outcome came."""
    outcomes: Counter[str] = Counter()
    seeds = range(batch, SEEDS, BATCHES)
    for first in range(0, len(seeds), AT_ONCE):
        some = [one(Arena(db, seed)) for seed in seeds[first : first + AT_ONCE]]
        outcomes.update(await asyncio.gather(*some))
    assert sum(outcomes.values()) == SEEDS // BATCHES
    return outcomes


async def accept_against_cancel(arena: Arena) -> str:
    call = await arena.ring(known=arena.seed % 3 == 0)
    results = await Race(arena.seed).run(accept=arena.callee.accept(call), cancel=arena.caller.end(call))
    now = await arena.town.call(call)
    ann, bob = await arena.told(arena.ann), await arena.told(arena.bob)
    assert now.state is State.ENDED, "never a conversation without its caller"
    assert isinstance(results["cancel"], Call)
    assert await arena.locks() == set()
    assert events(bob)["CALL_ENDED"] == events(ann)["CALL_ENDED"] == 1
    assert ("CALL_ENDED", now.version) in ann
    pushed = arena.town.pusher.about(call.id)
    if isinstance(results["accept"], Call):
        assert (now.version, now.end_reason, now.ended_by) == (3, Reason.COMPLETED, arena.ann)
        assert now.accepted_at is not None
        assert events(ann)["CALL_ACCEPT"] == 2
        assert "missed" not in pushed
        return "accepted, then ended"
    no = results["accept"]
    assert isinstance(no, Refusal)
    assert (no.code, no.details["endReason"]) == ("CALL_ENDED", "cancelled")
    assert (now.version, now.end_reason, now.accepted_at) == (2, Reason.CANCELLED, None)
    assert events(ann)["CALL_ACCEPT"] == 0
    assert pushed == ["missed"]
    return "cancelled"


async def accept_against_the_deadline(arena: Arena) -> str:
    call = await arena.ring(known=arena.seed % 3 == 0)
    arena.town.clock.pass_(arena.town.timers.ring - 0.001)
    results = await Race(arena.seed).run(
        accept=arena.callee.accept(call),
        alarm=arena.here.calls.tick(call.id),
        job=arena.elsewhere.calls.tick(call.id),
        time=arena.move_time(0.001),
        more_time=arena.move_time(0.001),
    )
    now = await arena.town.call(call)
    ann, bob = await arena.told(arena.ann), await arena.told(arena.bob)
    pushed = arena.town.pusher.about(call.id)
    assert now.version == 2, "one winner"
    if isinstance(results["accept"], Call):
        assert now.state is State.ACTIVE
        assert await arena.locks() == {arena.ann, arena.bob}
        assert events(ann) == {"CALL_ACCEPT": 2}
        assert events(bob) == {"CALL_ANSWERED_ELSEWHERE": 1}
        assert pushed == ["stop"], "never a missed call that was answered"
        return "accepted"
    no = results["accept"]
    assert isinstance(no, Refusal)
    assert no.code == "CALL_ENDED"
    assert (now.state, now.end_reason) == (State.ENDED, Reason.UNREACHABLE)
    assert now.ended_at == call.created_at + timedelta(seconds=45)
    assert await arena.locks() == set()
    assert events(ann) == events(bob) == {"CALL_TIMEOUT": 1}
    assert pushed == ["missed"]
    return "rang out"


@pytest.mark.parametrize("batch", BATCH)
async def test_e02_a_thousand_races_of_accept_and_cancel_have_one_outcome_each(
    db: Database, batch: int
) -> None:
    outcomes = await raced(db, batch, accept_against_cancel)
    assert min(outcomes["accepted, then ended"], outcomes["cancelled"]) > SEEDS // BATCHES // 5


@pytest.mark.parametrize("batch", BATCH)
async def test_e03_a_thousand_races_of_accept_and_the_end_of_the_ring_have_one_winner_each(
    db: Database, batch: int
) -> None:
    outcomes = await raced(db, batch, accept_against_the_deadline)
    assert min(outcomes["accepted"], outcomes["rang out"]) > SEEDS // BATCHES // 20


async def test_e03_at_the_deadline_and_one_millisecond_around_it(db: Database) -> None:
    for number, (early, state) in enumerate(
        ((0.001, State.RINGING), (0, State.ENDED), (-0.001, State.ENDED))
    ):
        arena = Arena(db, number)
        call = await arena.ring(known=False)
        arena.town.clock.pass_(45 - early)
        await arena.there.calls.run_due()
        assert (await arena.town.call(call)).state is state


async def test_e02_a_cancel_by_rest_while_the_phone_accepts(db: Database) -> None:
    """The same race where the caller has no socket: no lease, the same guards."""
    for seed in range(40):
        arena = Arena(db, seed)
        arena.caller = Phone(arena.here, arena.ann, arena.caller.device_id, rest=True)
        assert await accept_against_cancel(arena) in ("accepted, then ended", "cancelled")
    assert await db[CALLS].count_documents({"state": {"$ne": "ended"}}) == 0
