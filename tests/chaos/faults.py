"""What is done to the servers while people talk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.story import Plan
from tests.chaos.town import Town


@dataclass(frozen=True, slots=True)
class Fault:
    """``strike`` is over when everything is there again; people leave while it goes on."""

    says: str
    strike: Callable[[Town, Plan], Awaitable[None]]
    members: int = 1


async def kill_one(town: Town, plan: Plan) -> None:
    """SIGKILL; the others are alone for a while, then it comes back under its address."""
    await town.kill(1)
    await asyncio.sleep(plan.redis_away)
    await town.start(1)


async def roll(town: Town, plan: Plan) -> None:
    """Each drains and is replaced, one after the other."""
    for number in range(len(town.servers)):
        status = await town.drain(number)
        assert status == 0, f"a drain ended with {status}"
        await town.start(number)


async def redis_away(town: Town, plan: Plan) -> None:
    """Redis is killed, and is back, empty, later."""
    await town.redis.kill()
    await asyncio.sleep(plan.redis_away)
    await town.redis.start()


async def step_down(town: Town, plan: Plan) -> None:
    """The primary of the database gives its place up."""
    assert town.replica_set is not None
    await town.replica_set.step_down()


async def freeze_one(town: Town, plan: Plan) -> None:
    """SIGSTOP; all that it held goes to others, then it wakes up and knows nothing of that."""
    town.freeze(1)
    await asyncio.sleep(plan.length)
    town.thaw(1)


FAULTS = {
    "kill": Fault("SIGKILL of one of three processes", kill_one),
    "roll": Fault("a rolling restart of all three", roll),
    "redis": Fault("Redis killed and started again", redis_away),
    "primary": Fault("MongoDB's primary steps down", step_down, members=3),
    "freeze": Fault("a process frozen (SIGSTOP), then awake again", freeze_one),
}
