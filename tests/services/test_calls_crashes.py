"""A process that dies between any two awaits of a verb: nothing is lost, nobody stays busy.

Every verb is run again and again, and each time its process dies at the next call to the database driver, until the
verb gets through. Then time passes: another process and a new one run the jobs. One database holds all the
crashes of a verb, so that they are made good side by side, as after the loss of a busy server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from models.calls.call import Call, Fact, Reason, State
from models.db import Database
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Phone, Process, Town, answer, offer

# Calls to the driver of the longest verb, with much to spare: more say that a verb does not end.
STEPS_MAX = 60

# The letters that a fact leaves in the logs (SESSION_DESCRIPTION is never kept).
LETTERS_OF = {
    "requested": ["CALL_REQUEST"],
    "rang": ["CALL_RINGING"],
    "accepted": ["CALL_ACCEPT", "CALL_ACCEPT", "CALL_ANSWERED_ELSEWHERE"],
    "rejected": ["CALL_REJECT", "CALL_ANSWERED_ELSEWHERE"],
    "timed_out": ["CALL_TIMEOUT", "CALL_TIMEOUT"],
    "ended": ["CALL_ENDED", "CALL_ENDED"],
    "updated": ["CALL_UPDATED", "CALL_UPDATED"],
    "described": [],
    "leg_taken": ["CALL_ANSWERED_ELSEWHERE"],
}


@dataclass
class Scene:
    """A caller at the process that dies, a callee at the one that lives, and the call between them."""

    town: Town
    doomed: Process
    well: Process
    caller: Phone
    callee: Phone
    call: Call | None = None

    @property
    def phones(self) -> tuple[Phone, Phone]:
        return self.caller, self.callee

    @property
    def the_call(self) -> Call:
        assert self.call is not None
        return self.call


Act = Callable[[Scene], Awaitable[Any]]


async def rung(s: Scene) -> None:
    s.call = await s.caller.request(s.callee, offer=offer())
    await s.caller.calls.flush_told()


async def rung_from_the_well(s: Scene) -> None:
    """The callee's side is the one that will crash."""
    s.caller, s.callee = s.callee, s.caller
    await rung(s)


async def by_rest(s: Scene) -> None:
    s.callee = Phone(s.well, s.callee.user_id, s.callee.device_id, rest=True)


async def taken(s: Scene) -> None:
    await s.callee.accept(s.the_call, answer=answer())
    await s.callee.calls.flush_told()


async def dropped(s: Scene) -> None:
    await s.caller.drop()
    s.caller.connect()


# For each verb what comes before it, with the seconds that pass after each step, and the verb.
RINGING = [(rung, 1)]
RINGING_THERE = [(rung_from_the_well, 1)]
TALKING = [(rung, 1), (taken, 5)]
VERBS: dict[str, tuple[list[tuple[Act, float]], Act]] = {
    "request": ([], lambda s: s.caller.request(s.callee, offer=offer())),
    "ringing": (RINGING_THERE, lambda s: s.callee.ringing(s.the_call)),
    "accept": (RINGING_THERE, lambda s: s.callee.accept(s.the_call, answer=answer())),
    "reject": (RINGING_THERE, lambda s: s.callee.reject(s.the_call)),
    "cancel": (RINGING, lambda s: s.caller.end(s.the_call)),
    "end": (TALKING, lambda s: s.caller.end(s.the_call)),
    "end with a callee by REST": ([(by_rest, 0), *TALKING], lambda s: s.caller.end(s.the_call)),
    "lost": (TALKING, lambda s: s.caller.drop()),
    "resume": ([*TALKING, (dropped, 2)], lambda s: s.caller.resume(s.the_call)),
    "offer": (TALKING, lambda s: s.caller.describe(s.the_call, offer("again"))),
    "tick": ([(rung, 45)], lambda s: s.doomed.calls.tick(s.the_call.id)),
    "call again": (TALKING, lambda s: s.caller.request(s.callee)),
}


async def crashed_everywhere(town: Town, name: str) -> list[Scene]:
    """The verb on ever new people at one instant, its process dying one step later each time.

    Of the last process only the memory is lost: its verb got through, and nothing came after it.
    """
    before, verb = VERBS[name]
    trial = (await _scenes(town, before, ["0"]))[0]
    start = trial.doomed.life.calls
    await verb(trial)
    steps = trial.doomed.life.calls - start
    assert 0 < steps < STEPS_MAX
    for call in await town.calls_of("ann0"):
        if call.live:
            await trial.caller.end(call)
    await trial.doomed.calls.flush_told()
    await trial.well.calls.flush_told()
    scenes = await _scenes(town, before, [str(n) for n in range(1, steps + 2)])
    for step, scene in enumerate(scenes, 1):
        scene.doomed.life.dies_at = scene.doomed.life.calls + step
        if step <= steps:
            with pytest.raises(Killed):
                await verb(scene)
        else:
            await verb(scene)
            scene.doomed.life.dead = True
    return scenes


async def _scenes(town: Town, before: list[tuple[Act, float]], numbers: list[str]) -> list[Scene]:
    scenes = []
    for n in numbers:
        await town.people(f"ann{n}", f"bob{n}")
        doomed, well = town.process(f"doomed{n}"), town.process(f"well{n}")
        scenes.append(Scene(town, doomed, well, town.phone(doomed, f"ann{n}"), town.phone(well, f"bob{n}")))
    for act, seconds in before:
        for scene in scenes:
            await act(scene)
        town.clock.pass_(seconds)
    for scene in scenes:
        await scene.doomed.calls.beat()
        await scene.well.calls.beat()
    return scenes


def expected(facts: list[Fact], call: Call) -> Counter[str]:
    """The keys of the letters that tell these facts."""
    found: Counter[str] = Counter()
    for fact in facts:
        for number, event in enumerate(LETTERS_OF[fact.kind]):
            found[f"{call.id}:{fact.version}:{event}:{number}"] += 1
    return found


async def all_is_told_once(town: Town) -> None:
    """Every durable fact is in the log, each of its letters once; a ring only if it was told while it rang."""
    keys = await town.keys()
    for call_id, facts in town.facts.items():
        call = await town.store.load(call_id)
        assert call is not None
        assert call.untold == ()
        wanted, there = expected(facts, call), keys.get(call_id, Counter())
        for key in [key for key in there if ":SESSION_DESCRIPTION:" in key]:
            del there[key]  # kept only as the way to another process
        assert all(times == 1 for times in there.values())
        unheard = {key for key in wanted if key not in there}
        assert unheard <= {f"{call_id}:1:CALL_REQUEST:0"}, "every fact is told"
        assert not set(there) - set(wanted), "nothing is told that did not happen"
        if unheard:
            assert not call.live
            assert "ring" not in town.pusher.about(call_id)


@pytest.mark.parametrize("name", VERBS)
async def test_a_process_that_dies_anywhere_in_a_verb_leaves_nothing_undone(
    db: Database, clock: VirtualClock, ids: CountingIds, name: str
) -> None:
    """Nobody's phone comes back: every call ends by its deadlines, and both are free within 45 s of the crash."""
    town = Town(db, clock, ids)
    scenes = await crashed_everywhere(town, name)
    crash = town.clock.now()
    fresh = town.process("fresh")
    # The surviving phones' processes still serve; one job runner stands for all of them, besides the fresh process.
    for _ in range(23):
        town.clock.pass_(2)
        for scene in scenes:
            await scene.well.calls.beat()
        await fresh.jobs()
    await town.audit()
    for scene in scenes:
        for call in await town.calls_of(scene.caller.user_id):
            assert call.state is State.ENDED
            assert call.ended_at is not None
            assert call.ended_at <= crash + timedelta(seconds=45)
    await town.pass_(6, fresh)
    assert await town.locks() == {}
    await all_is_told_once(town)


@pytest.mark.parametrize("name", VERBS)
async def test_after_a_crash_the_phones_come_back_and_go_on_or_know_that_it_is_over(
    db: Database, clock: VirtualClock, ids: CountingIds, name: str
) -> None:
    """The phones of the dead process connect again within 5 s, sync, resume what lives, and end it in the end."""
    town = Town(db, clock, ids)
    scenes = await crashed_everywhere(town, name)
    fresh = town.process("fresh")
    await fresh.jobs()
    town.clock.pass_(3)
    resumed = 0
    for scene in scenes:
        await scene.well.calls.beat()
        (mine,) = [phone for phone in scene.phones if phone.process is scene.doomed]
        await mine.back(fresh)
        for call in await fresh.calls.recent(mine.user_id):
            if not call.live:
                continue
            answered = call.state is not State.RINGING
            leg = call.leg(call.role_of(mine.user_id) or pytest.fail("a call of somebody else"))
            if leg is not None and leg.device_id == mine.device_id:
                back = await mine.resume(call)
                assert back.state is (State.ACTIVE if answered else State.RINGING)
                resumed += 1
    for _ in range(4):
        town.clock.pass_(2)
        for scene in scenes:
            await scene.well.calls.beat()
        await fresh.jobs()
    for scene in scenes:
        for call in await fresh.calls.recent(scene.caller.user_id):
            if call.live:
                phone = scene.caller if scene.caller.process is fresh else scene.callee
                over = await phone.end(call)
                assert over.end_reason in (Reason.COMPLETED, Reason.CANCELLED, Reason.DECLINED)
    await town.pass_(6, fresh)
    await town.audit()
    assert await town.locks() == {}
    await all_is_told_once(town)
    assert resumed or name in ("cancel", "reject", "tick", "ringing"), (
        "a crash early in the verb leaves a live call"
    )


async def test_a_fact_of_a_dead_process_is_told_even_when_another_process_goes_on_with_the_call(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    doomed, well = town.process("doomed"), town.process("well")
    ann, bob = town.phone(well, "ann"), town.phone(doomed, "bob")
    call = await ann.request(bob)
    doomed.life.dies_at = doomed.life.calls + 3  # load, swap, and dead before its first word
    with pytest.raises(Killed):
        await bob.accept(call)
    assert (await town.call(call)).state is State.ACTIVE
    await ann.describe(call, offer())
    await ann.describe(call, offer("newer"))
    await well.calls.flush_told()
    await town.pass_(6, well)
    assert (await town.log("ann")).count("CALL_ACCEPT") == 2
    assert (await town.call(call)).untold == ()


async def test_told_again_after_a_crash_is_in_the_log_once(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """The process told everybody and died before it wrote that down."""
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    doomed, fresh = town.process("doomed"), town.process("fresh")
    ann, bob = town.phone(doomed, "ann"), town.phone(doomed, "bob")
    call = await ann.request(bob)
    doomed.life.dead = True
    bob.process = fresh
    bob.connect()
    await town.pass_(6, fresh)
    assert await town.log("bob") == ["CALL_REQUEST"]
    assert (await town.call(call)).untold == ()
