"""A process that dies between any two awaits of a verb that moves money: no unit is lost, made, or held for ever.

As in ``test_calls_crashes``: the verb is run again and again on ever new people, its process dying one call to the
driver later each time, until the verb gets through. The books must agree right then, with nothing made good yet.
Then time passes and other processes run their jobs: whatever the crash left is finished, at the price of the proven
conversation and once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from models.calls.call import Call, Stage
from models.db import Database
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import BY_THE_SECOND, PaidTown
from tests.services.callkit import Killed, Phone, Process

# Calls to the driver of the longest verb, with much to spare: more say that a verb does not end.
STEPS_MAX = 60
# What everybody begins with: 300 seconds of audio.
MONEY = 30_000


@dataclass
class Scene:
    """A payer at the process that dies, a payee at the one that lives, and the call between them."""

    town: PaidTown
    doomed: Process
    well: Process
    payer: Phone
    payee: Phone
    call: Call | None = None

    @property
    def the_call(self) -> Call:
        assert self.call is not None
        return self.call


Act = Callable[[Scene], Awaitable[Any]]


async def rung(s: Scene) -> None:
    s.call = await s.payer.request(s.payee)
    await s.doomed.calls.flush_told()


async def taken(s: Scene) -> None:
    await s.payee.accept(s.the_call)
    await s.well.calls.flush_told()


async def payee_is_doomed(s: Scene) -> None:
    """The one who answers is at the process that dies."""
    s.payer.process, s.payee.process = s.well, s.doomed
    for phone in (s.payer, s.payee):
        phone.connect()


async def video_wanted(s: Scene) -> None:
    s.doomed.calls.board.update(await s.town.call(s.the_call))
    await s.well.calls.ask_upgrade(s.payee.device, s.the_call.id, type="video")


async def known(s: Scene) -> None:
    """The process that dies has the call in memory, as its process has."""
    s.doomed.calls.board.update(await s.town.call(s.the_call))


async def hung_up(s: Scene) -> None:
    await s.payee.end(s.the_call)


async def hung_up_unsettled(s: Scene) -> None:
    """Whoever ended the call dies with the end written and nothing settled."""
    grave = s.town.process(f"grave of {s.payee.user_id}")
    grave.life.dies_at = grave.life.calls + 9
    phone = Phone(grave, s.payee.user_id, s.payee.device_id)
    phone.connect()
    with pytest.raises(Killed):
        await phone.end(s.the_call)
    call = await s.town.call(s.the_call)
    assert not call.live
    assert call.charge is not None
    assert call.charge.stage is Stage.OPEN


async def paid_in_elsewhere(s: Scene) -> None:
    await s.town.pay_in(s.well, s.payer.user_id, 10_000)


TALKING: list[tuple[Act, float]] = [(rung, 1), (taken, 20), (known, 0)]
# For each verb what comes before it, with the seconds that pass after each step, and the verb.
VERBS: dict[str, tuple[list[tuple[Act, float]], Act]] = {
    "request": ([], lambda s: s.payer.request(s.payee)),
    "accept": ([(payee_is_doomed, 0), (rung, 1)], lambda s: s.payee.accept(s.the_call)),
    "cancel": ([(rung, 1)], lambda s: s.payer.end(s.the_call)),
    "renew": ([(rung, 1), (taken, 60), (known, 0)], lambda s: s.doomed.calls.renew(s.the_call.id)),
    "extend": ([*TALKING, (paid_in_elsewhere, 50)], lambda s: s.doomed.calls.renew_for(s.payer.user_id)),
    "upgrade": (
        [*TALKING, (video_wanted, 3)],
        lambda s: s.doomed.calls.answer_upgrade(s.payer.device, s.the_call.id, accept=True),
    ),
    "end": (TALKING, lambda s: s.payer.end(s.the_call)),
    "cut off by the timer": (
        [(rung, 1), (taken, 120), (known, 0)],
        lambda s: s.doomed.calls.tick(s.the_call.id),
    ),
    "settle by the job": ([*TALKING, (hung_up_unsettled, 10)], lambda s: s.doomed.calls.run_money()),
    "clear by the job": ([*TALKING, (hung_up, 86_400)], lambda s: s.doomed.calls.run_money()),
    "refund": (
        [*TALKING, (hung_up, 5)],
        lambda s: s.doomed.calls.refund(s.the_call.id, amount_minor=777, key="k"),
    ),
    "refund of what was paid out": (
        [*TALKING, (hung_up, 86_400), (lambda s: s.well.calls.run_money(), 5)],
        lambda s: s.doomed.calls.refund(s.the_call.id, amount_minor=777, key="k"),
    ),
}
REFUNDS = [name for name in VERBS if name.startswith("refund")]
# One verb does for all calls what it finds to do: each of its crashes needs a town of its own.
OF_ALL = {"settle by the job": Stage.SETTLED, "clear by the job": Stage.CLEARED}


async def scenes_of(town: PaidTown, before: list[tuple[Act, float]], numbers: list[str]) -> list[Scene]:
    scenes = []
    for n in numbers:
        await town.people(f"ann{n}", f"bob{n}")
        doomed, well = town.process(f"doomed{n}"), town.process(f"well{n}")
        await town.pay_in(well, f"ann{n}", MONEY)
        scenes.append(Scene(town, doomed, well, town.phone(doomed, f"ann{n}"), town.phone(well, f"bob{n}")))
    for act, seconds in before:
        for scene in scenes:
            await act(scene)
        town.clock.pass_(seconds)
    for scene in scenes:
        await scene.doomed.calls.beat()
        await scene.well.calls.beat()
    return scenes


async def crashed_everywhere(town: PaidTown, name: str) -> list[Scene]:
    """The verb on ever new people at one instant, dying one step later each time.

    In the first scene the verb gets through, and then its process dies.
    """
    before, verb = VERBS[name]
    (trial,) = await scenes_of(town, before, ["0"])
    start = trial.doomed.life.calls
    await verb(trial)
    trial.doomed.life.dead = True
    steps = trial.doomed.life.calls - start
    assert 2 < steps < STEPS_MAX
    if name in OF_ALL:
        done = (await town.call(trial.the_call)).charge
        assert done is not None
        assert done.stage is OF_ALL[name]
        scenes = []
        for step in range(1, steps + 1):
            scenes += await scenes_of(town, before, [str(step)])
            await dies(scenes[-1], verb, step)
            await town.books()
            # So that the next one finds the same thing to do, and nothing else.
            await recovered(town, scenes[-1:], until=OF_ALL[name])
    else:
        scenes = await scenes_of(town, before, [str(step) for step in range(1, steps + 1)])
        for step, scene in enumerate(scenes, 1):
            await dies(scene, verb, step)
        await town.books()
    return [trial, *scenes]


async def dies(scene: Scene, verb: Act, step: int) -> None:
    scene.doomed.life.dies_at = scene.doomed.life.calls + step
    with pytest.raises(Killed):
        await verb(scene)


async def recovered(town: PaidTown, scenes: list[Scene], until: Stage | None = None) -> None:
    """The surviving processes beat and a fresh one runs the jobs, for longer than any deadline.

    ``until``: no longer than until all of them have come so far, and nobody is busy.
    """
    fresh = town.process(f"fresh{len(town.processes)}")
    for _ in range(12):
        town.clock.pass_(6)
        for scene in scenes:
            await scene.well.calls.beat()
        await fresh.jobs()
        if until is not None and not await town.locks():
            charges = [(await town.call(scene.the_call)).charge for scene in scenes]
            if all(charge is not None and charge.stage is until for charge in charges):
                return


@pytest.mark.parametrize("name", VERBS)
async def test_e43_wherever_a_process_dies_all_is_charged_once_and_nothing_stays_held(
    db: Database, clock: VirtualClock, ids: CountingIds, name: str
) -> None:
    town = PaidTown(db, clock, ids, replace(BY_THE_SECOND, video_rate_minor=12_000))
    scenes = await crashed_everywhere(town, name)
    await recovered(town, scenes)
    await town.books()
    fresh = town.process("fresh")
    for scene in scenes:
        if name in REFUNDS:
            # Whoever asked for it got no answer, so asks again.
            await fresh.calls.refund(scene.the_call.id, amount_minor=777, key="k")
        for call in await town.calls_of(scene.payer.user_id):
            assert not call.live
            assert call.charge is not None
            assert call.charge.stage is not Stage.OPEN
            await town.charged_rightly(call)
    clock.pass_(2 * 86_400)
    while await fresh.calls.run_money():
        pass
    await town.books()
    for scene in scenes:
        await all_is_where_it_belongs(town, scene, name)
    assert await town.locks() == {}


async def all_is_where_it_belongs(town: PaidTown, scene: Scene, name: str) -> None:
    """Nothing is held, pending or in between: the payer has paid what the calls cost, the payee has got the share."""
    calls = await town.calls_of(scene.payer.user_id)
    cost = sum(call.cost_minor for call in calls)
    there = MONEY + (10_000 if name == "extend" else 0)
    ann = await town.wallet(scene.payer.user_id)
    assert (ann.primary, ann.primary_held, ann.pending, ann.owed) == (there - cost, 0, 0, 0)
    earned = sum(call.charge.earned_minor for call in calls if call.charge is not None)
    bob = await town.ledger.wallet(scene.payee.user_id, "NGN")
    if bob is None:
        assert cost == 0
        return
    assert earned == cost * 8 // 10
    # What was paid out and taken back later is owed, or was still there to be taken.
    assert (bob.primary - bob.owed, bob.pending, bob.primary_held) == (earned, 0, 0)
