"""A process that was frozen for longer than others wait for it, and wakes up: it acts on nothing that it has lost.

It believes what it believed before: its sockets are still there for it, its timers ring, its jobs run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from models.calls.call import Call, Reason, State
from models.calls.upkeep import CUT_OFF_PATIENCE
from models.db import Database
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import PaidTown
from tests.services.callkit import Phone, Process

# The payer's money pays for so long.
MONEY, LASTS = 30_000, 300
# Longer than a process may be silent.
FROZEN = 20


class Scene:
    """Ann pays and talks through the process that freezes, Bob through another one."""

    def __init__(self, town: PaidTown) -> None:
        self.town = town
        self.frozen, self.there = town.process("frozen"), town.process("there")
        self.ann, self.bob = town.phone(self.frozen, "ann"), town.phone(self.there, "bob")
        self.call: Call

    async def now(self) -> Call:
        return await self.town.call(self.call)

    async def talk(self, seconds: float = 30) -> None:
        """The call, going on for a while with both processes at work."""
        for process in (self.frozen, self.there):
            await process.calls.beat()
        self.call = await self.bob.accept(await self.ann.request(self.bob))
        await self.town.pass_(seconds, self.frozen, self.there, step=2)
        assert (await self.now()).state is State.ACTIVE

    async def freeze(self, seconds: float = FROZEN) -> Phone:
        """The one process does nothing, the other goes on; Ann has come back there. The old Ann, as left behind."""
        left = Phone(self.frozen, "ann", self.ann.device_id)
        await self.town.pass_(seconds / 2, self.there, step=2)
        assert (await self.now()).state is State.RECONNECTING
        await self.ann.back(self.there)
        await self.ann.resume(self.call)
        await self.town.pass_(seconds / 2, self.there, step=2)
        assert (await self.now()).state is State.ACTIVE
        return left


@pytest.fixture
async def scene(db: Database, clock: VirtualClock, ids: CountingIds) -> Scene:
    town = PaidTown(db, clock, ids)
    await town.people("ann", "bob", "cid")
    made = Scene(town)
    await town.pay_in(made.there, "ann", MONEY)
    return made


WAKES: dict[str, Callable[[Process, Phone, str], Awaitable[object]]] = {
    "its jobs": lambda process, left, call_id: process.jobs(),
    "its timer": lambda process, left, call_id: process.calls.alarm(call_id),
    "its renewal": lambda process, left, call_id: process.calls.renew(call_id),
    "the end of the old socket": lambda process, left, call_id: left.drop(),
    "the end of the old socket, late": lambda process, left, call_id: left.drop(unheard_seconds=15),
}


@pytest.mark.parametrize("first", list(WAKES))
async def test_what_moved_while_it_was_frozen_stays_where_it_is(scene: Scene, first: str) -> None:
    await scene.talk()
    left = await scene.freeze()
    before = await scene.now()
    await WAKES[first](scene.frozen, left, scene.call.id)
    for process in (scene.frozen, scene.there):
        await process.jobs()
    await left.drop()
    after = await scene.now()
    assert after.state is State.ACTIVE
    assert after.caller_leg is not None
    assert (after.caller_leg.process, after.caller_leg.lost_at) == ("there", None)
    assert after.intervals == before.intervals
    await scene.bob.end(scene.call)
    await scene.town.charged_rightly(scene.call)
    await scene.town.pass_(2, scene.frozen, scene.there)
    await scene.town.books()


async def test_its_timer_ends_no_call_that_was_paid_on_elsewhere_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old end of the money has passed; who has slept is slow to ask the database, and must not tell a guess."""
    await scene.talk(LASTS - FROZEN / 2)
    await scene.town.pay_in(scene.there, "ann", MONEY)
    await scene.freeze()
    calls = scene.frozen.calls
    tick, passed = calls.tick, asyncio.Event()
    asyncio.get_running_loop().call_later(4 * CUT_OFF_PATIENCE, passed.set)

    async def slow(call_id: str) -> None:
        await passed.wait()
        await tick(call_id)

    monkeypatch.setattr(calls, "tick", slow)
    await calls.alarm(scene.call.id)
    await scene.frozen.jobs()
    assert (await scene.now()).state is State.ACTIVE
    assert scene.ann.letters("CALL_ENDED") == []


async def test_a_call_that_ended_meanwhile_stays_as_it_ended_and_the_next_one_is_left_alone(
    scene: Scene,
) -> None:
    await scene.talk()
    left = await scene.freeze()
    ended = await scene.bob.end(scene.call)
    again = await scene.bob.accept(await scene.ann.request(scene.bob))
    for wake in WAKES.values():
        await wake(scene.frozen, left, scene.call.id)
    await scene.frozen.jobs()
    over = await scene.now()
    assert (over.end_reason, over.ended_at) == (Reason.COMPLETED, ended.ended_at)
    assert (await scene.town.call(again)).state is State.ACTIVE
    await scene.town.audit()
    await scene.bob.end(again)
    await scene.town.pass_(2, scene.frozen, scene.there)
    await scene.town.books()
