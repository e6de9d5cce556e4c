"""E2 and E3: accept against cancel, and accept against the end of the ring, a thousand interleavings of each.

Two processes serve the same call. Every step of the store and every announcement waits for its turn, and dice give
the turns. Between accept and cancel there are so few orders that every one is played; of the many against the end of
the ring, those that seeds give. Each order of the awaits is always the same one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from models.calls import rules
from models.calls.call import Call, Leg, Party, Reason, State
from models.calls.documents import call_of, document_of
from models.calls.store import CALLS, LOCKS
from models.db import Database
from models.errors import Refusal
from models.mailbox.store import LETTERS
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Dice, Phone, Race, Script, Town

SEEDS, BATCHES, AT_ONCE = 1000, 4, 25
BATCH = range(BATCHES)


class Arena:
    """One call between two people of its own, served by two processes with a clock of its own.

    With ``known`` each process has it in memory, as after telling of it.
    """

    def __init__(self, db: Database, number: int, dice: int | Dice, *, known: bool) -> None:
        self.number, self.known = number, known
        self.race = Race(dice)
        self.town = Town(db, VirtualClock(), CountingIds())
        self.here = self.town.process(f"h{number}", raced=True)
        self.there = self.town.process(f"t{number}", raced=True)
        # A third process for the deadline job: verbs of one process take turns, which is another test's matter.
        self.elsewhere = self.town.process(f"e{number}", raced=True)
        self.ann, self.bob = f"ann{number}", f"bob{number}"
        self.caller = self.town.phone(self.here, self.ann)
        self.callee = self.town.phone(self.there, self.bob)
        self.call = self._call()
        if known:
            self.here.calls.board.update(self.call)

    def _call(self) -> Call:
        """A call that begins."""

        def person(name: str) -> Party:
            return Party(user_id=name, username=name, display_name=name)

        call = Call(
            id=f"call{self.number}",
            type="audio",
            state=State.RINGING,
            version=1,
            caller=person(self.ann),
            callee=person(self.bob),
            caller_leg=Leg(device_id=self.caller.device_id, process=self.here.name),
            created_at=self.town.clock.now(),
        )
        return rules.begin(call, timers=self.town.timers).call

    async def move_time(self, seconds: float) -> None:
        self.town.clock.pass_(seconds)


@dataclass(frozen=True)
class Seen:
    """What a race has left in the database."""

    call: Call
    # The log of each: events with the version of the call that they carry, in order.
    ann: list[tuple[str, int]]
    bob: list[tuple[str, int]]
    locks: set[str]


Results = dict[str, Any]
# The verbs of a race, and what is said of what came of it.
Verbs = Callable[[Arena], dict[str, Coroutine[Any, Any, Any]]]
Verdict = Callable[[Arena, Results, Seen], str]


def events(log: list[tuple[str, int]]) -> Counter[str]:
    return Counter(event for event, _ in log)


async def ring(db: Database, arenas: Sequence[Arena]) -> None:
    """All their calls ring, each with the two locks that it has from its beginning; by one exchange for each kind."""
    now = {arena.number: arena.town.clock.now() for arena in arenas}
    await db[LOCKS].insert_many(
        [
            {"_id": user_id, "call_id": arena.call.id, "at": now[arena.number]}
            for arena in arenas
            for user_id in (arena.ann, arena.bob)
        ]
    )
    await db[CALLS].insert_many([document_of(arena.call, (), now[arena.number]) for arena in arenas])


async def seen(db: Database, arenas: Sequence[Arena]) -> list[Seen]:
    """What each race has left, by one exchange for each kind."""
    ids = {"$in": [arena.call.id for arena in arenas]}
    calls = {row["_id"]: call_of(row) async for row in db[CALLS].find({"_id": ids})}
    locks: dict[str, set[str]] = {}
    async for row in db[LOCKS].find({"call_id": ids}):
        locks.setdefault(row["call_id"], set()).add(row["_id"])
    logs: dict[str, list[tuple[str, int]]] = {}
    people = {"$in": [user_id for arena in arenas for user_id in (arena.ann, arena.bob)]}
    async for row in db[LETTERS].find({"user_id": people}, sort=[("user_id", 1), ("seq", 1)]):
        version = row["payload"].get("call", {}).get("version", 0)
        logs.setdefault(row["user_id"], []).append((row["event"], version))
    for call in calls.values():
        rules.check(call)
    return [
        Seen(
            call=calls[arena.call.id],
            ann=logs.get(arena.ann, []),
            bob=logs.get(arena.bob, []),
            locks=locks.get(arena.call.id, set()),
        )
        for arena in arenas
    ]


async def raced(db: Database, arenas: Iterable[Arena], verbs: Verbs, verdict: Verdict) -> list[str]:
    """Run all these races, some at a time, and say of each how it came out."""
    arenas = list(arenas)
    await ring(db, arenas)
    results: list[Results] = []
    for first in range(0, len(arenas), AT_ONCE):
        some = [arena.race.run(**verbs(arena)) for arena in arenas[first : first + AT_ONCE]]
        results += await asyncio.gather(*some)
    found = await seen(db, arenas)
    return [verdict(*one) for one in zip(arenas, results, found, strict=True)]


def accept_and_cancel(arena: Arena) -> dict[str, Coroutine[Any, Any, Any]]:
    return {"accept": arena.callee.accept(arena.call), "cancel": arena.caller.end(arena.call)}


def accepted_or_cancelled(arena: Arena, results: Results, left: Seen) -> str:
    now, ann, bob = left.call, left.ann, left.bob
    assert now.state is State.ENDED, "never a conversation without its caller"
    assert isinstance(results["cancel"], Call)
    assert left.locks == set()
    assert events(bob)["CALL_ENDED"] == events(ann)["CALL_ENDED"] == 1
    assert ("CALL_ENDED", now.version) in ann
    pushed = arena.town.pusher.about(now.id)
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


def accept_at_the_deadline(arena: Arena) -> dict[str, Coroutine[Any, Any, Any]]:
    arena.town.clock.pass_(arena.town.timers.ring - 0.001)
    return {
        "accept": arena.callee.accept(arena.call),
        "alarm": arena.here.calls.tick(arena.call.id),
        "job": arena.elsewhere.calls.tick(arena.call.id),
        "time": arena.move_time(0.001),
        "more_time": arena.move_time(0.001),
    }


def accepted_or_rang_out(arena: Arena, results: Results, left: Seen) -> str:
    now, ann, bob = left.call, left.ann, left.bob
    pushed = arena.town.pusher.about(now.id)
    assert now.version == 2, "one winner"
    if isinstance(results["accept"], Call):
        assert now.state is State.ACTIVE
        assert left.locks == {arena.ann, arena.bob}
        assert events(ann) == {"CALL_ACCEPT": 2}
        assert events(bob) == {"CALL_ANSWERED_ELSEWHERE": 1}
        assert pushed == ["stop"], "never a missed call that was answered"
        return "accepted"
    no = results["accept"]
    assert isinstance(no, Refusal)
    assert no.code == "CALL_ENDED"
    assert (now.state, now.end_reason) == (State.ENDED, Reason.UNREACHABLE)
    assert now.ended_at == arena.call.created_at + timedelta(seconds=45)
    assert left.locks == set()
    assert events(ann) == events(bob) == {"CALL_TIMEOUT": 1}
    assert pushed == ["missed"]
    return "rang out"


class Tree:
    """Every order in which a race can go, each played once, and how each came out."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[int, ...], str] = {}
        # How many sides the throw has that follows on these.
        self._sides: dict[tuple[int, ...], int] = {}

    async def grow(self, db: Database, verbs: Verbs, verdict: Verdict, *, known: bool) -> None:
        scripts = [Script()]
        while scripts:
            first = len(self.outcomes)
            arenas = [
                Arena(db, 2 * (first + place) + known, script, known=known)
                for place, script in enumerate(scripts)
            ]
            for script, outcome in zip(scripts, await raced(db, arenas, verbs, verdict), strict=True):
                self.outcomes[tuple(script.fell)] = outcome
                self._sides.update({tuple(script.fell[:n]): sides for n, sides in enumerate(script.sides)})
            scripts = [Script(told) for script in scripts for told in script.others()]

    def outcome(self, dice: Dice) -> str:
        """How the race comes out in which the dice fall like this."""
        fell: tuple[int, ...] = ()
        while fell in self._sides:
            fell = (*fell, dice.randrange(self._sides[fell]))
        return self.outcomes[fell]


async def test_e02_every_race_of_accept_and_cancel_has_one_outcome_and_a_thousand_are_among_them(
    db: Database,
) -> None:
    fresh, known = Tree(), Tree()
    await fresh.grow(db, accept_and_cancel, accepted_or_cancelled, known=False)
    await known.grow(db, accept_and_cancel, accepted_or_cancelled, known=True)
    # More or fewer: the verbs take other steps than they did, and so be it, if all of them are still played.
    assert (len(fresh.outcomes), len(known.outcomes)) == (74, 37)
    outcomes = Counter((fresh if seed % 3 else known).outcome(Random(seed)) for seed in range(SEEDS))
    assert sum(outcomes.values()) == SEEDS
    assert min(outcomes["accepted, then ended"], outcomes["cancelled"]) > SEEDS // 5


@pytest.mark.parametrize("batch", BATCH)
async def test_e03_a_thousand_races_of_accept_and_the_end_of_the_ring_have_one_winner_each(
    db: Database, batch: int
) -> None:
    arenas = [Arena(db, seed, seed, known=seed % 3 == 0) for seed in range(batch, SEEDS, BATCHES)]
    outcomes = Counter(await raced(db, arenas, accept_at_the_deadline, accepted_or_rang_out))
    assert sum(outcomes.values()) == SEEDS // BATCHES
    assert min(outcomes["accepted"], outcomes["rang out"]) > SEEDS // BATCHES // 20


async def test_e03_at_the_deadline_and_one_millisecond_around_it(db: Database) -> None:
    for number, (early, state) in enumerate(
        ((0.001, State.RINGING), (0, State.ENDED), (-0.001, State.ENDED))
    ):
        arena = Arena(db, number, number, known=False)
        await ring(db, [arena])
        arena.town.clock.pass_(45 - early)
        await arena.there.calls.run_due()
        assert (await arena.town.call(arena.call)).state is state


async def test_e02_a_cancel_by_rest_while_the_phone_accepts(db: Database) -> None:
    """The same race where the caller has no socket: no lease, the same guards."""
    arenas = [Arena(db, seed, seed, known=seed % 3 == 0) for seed in range(40)]
    for arena in arenas:
        arena.caller = Phone(arena.here, arena.ann, arena.caller.device_id, rest=True)
    outcomes = await raced(db, arenas, accept_and_cancel, accepted_or_cancelled)
    assert set(outcomes) <= {"accepted, then ended", "cancelled"}
    assert await db[CALLS].count_documents({"state": {"$ne": "ended"}}) == 0
