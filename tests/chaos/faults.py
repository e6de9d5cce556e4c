"""What is done to the servers while people talk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.chaos.phone import ChaosPhone
from tests.chaos.story import Plan
from tests.chaos.town import Town
from tests.doors.serverprocess import eventually


@dataclass(frozen=True, slots=True)
class Fault:
    """``strike`` is over when everything is there again; people leave while it goes on."""

    says: str
    strike: Callable[[Town, Plan, Sequence[ChaosPhone]], Awaitable[None]]
    members: int = 1


async def kill_one(town: Town, plan: Plan, phones: Sequence[ChaosPhone]) -> None:
    """SIGKILL; the others are alone for a while, then it comes back under its address."""
    await town.kill(plan.victim)
    await asyncio.sleep(plan.away)
    await town.start(plan.victim)


async def roll(town: Town, plan: Plan, phones: Sequence[ChaosPhone]) -> None:
    """Each drains and is replaced, one after the other."""
    for number in range(len(town.servers)):
        status = await town.drain(number)
        assert status == 0, f"a drain ended with {status}"
        await town.start(number)


async def redis_away(town: Town, plan: Plan, phones: Sequence[ChaosPhone]) -> None:
    """Redis is killed, and is back, empty, later."""
    await town.redis.kill()
    await asyncio.sleep(plan.away)
    await town.redis.start()


async def step_down(town: Town, plan: Plan, phones: Sequence[ChaosPhone]) -> None:
    """The primary of the database gives its place up."""
    assert town.replica_set is not None
    await town.replica_set.step_down()


async def freeze_one(town: Town, plan: Plan, phones: Sequence[ChaosPhone]) -> None:
    """SIGSTOP; all that it held goes to others, then it wakes up and knows nothing of that."""
    town.freeze(plan.victim)
    try:
        await _while_frozen(town, plan, phones)
    finally:
        town.thaw(plan.victim)


async def _while_frozen(town: Town, plan: Plan, phones: Sequence[ChaosPhone]) -> None:
    if plan.frozen is not None:
        await asyncio.sleep(plan.frozen)
    else:
        there = [
            phone
            for phone in phones
            if phone.connects == 1 and phone.begins_at(town.servers[plan.victim].address)
        ]
        assert there, "somebody was there"
        # What they have just sent is in the frozen process's hands, and it reads it when it wakes up.
        await eventually(lambda: all(phone.asking for phone in there), what="all wait for an answer")
        await asyncio.gather(*(phone.elsewhere() for phone in there))


FAULTS = {
    "kill": Fault("SIGKILL of one of three processes", kill_one),
    "roll": Fault("a rolling restart of all three", roll),
    "redis": Fault("Redis killed and started again", redis_away),
    "primary": Fault("MongoDB's primary steps down", step_down, members=3),
    "freeze": Fault("a process frozen (SIGSTOP), then awake again", freeze_one),
}
