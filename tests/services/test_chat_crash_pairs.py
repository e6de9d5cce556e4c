"""Two deaths: one process dies over a message, another over what comes after it, each at any call to the database.

What is told to each reader in the end is the same as if nobody had died.
"""

from __future__ import annotations

from typing import Any

import pytest

from models.chat.store import TELL_SECONDS
from models.db import Database
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.callkit import Killed
from tests.services.chat_house import ANN, BOB, Process, World, build, device

# Above what any of these verbs needs.
CALLS_MAX = 30
SECRET = "a secret"


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def dies(process: Process, n: int, verb: str, *, op_id: str, message_id: str = "") -> bool:
    """Whether the process died at its ``n``-th call, doing ``verb``."""
    process.life.dies_at = n
    try:
        await done(process, verb, op_id=op_id, message_id=message_id)
    except Killed:
        return True
    return False


async def done(process: Process, verb: str, *, op_id: str, message_id: str = "") -> Any:
    if verb == "send":
        return await process.chat.say(device(ANN), to=BOB, text=SECRET, op_id=op_id)
    if verb == "edit":
        return await process.chat.edit(ANN, message_id, "other words")
    return await process.chat.delete(ANN, message_id)


@pytest.mark.parametrize(("first", "then"), [("send", "edit"), ("send", "delete"), ("edit", "delete")])
async def test_a_change_that_dies_over_a_message_that_died_is_told_and_leaves_no_text(
    world: World, first: str, then: str
) -> None:
    await world.process().say(device(ANN), to=BOB, text="the conversation begins", op_id="0")
    deaths = 0
    for n in range(1, CALLS_MAX):
        died_first = False
        for m in range(1, CALLS_MAX):
            op_id = f"{n}-{m}"
            if first == "edit":
                await done(world.machine(f"early {op_id}"), "send", op_id=op_id)
                given = await message_of(world, op_id)
                assert given is not None
                died_first = await dies(
                    world.machine(f"a {op_id}"), n, first, op_id=op_id, message_id=given["_id"]
                )
            else:
                died_first = await dies(world.machine(f"a {op_id}"), n, first, op_id=op_id)
            row = await message_of(world, op_id)
            if row is None or (first == "edit" and row["version"] == 1):
                break  # it died before anything had happened
            died_then = await dies(world.machine(f"b {op_id}"), m, then, op_id=op_id, message_id=row["_id"])
            heir = world.machine(f"heir {op_id}")
            if (n + m) % 2:  # the other half is left to the job
                await done(heir, then, op_id=op_id, message_id=row["_id"])
            world.clock.pass_(TELL_SECONDS)
            await heir.chat.tell_untold()
            world.clock.pass_(TELL_SECONDS)
            assert await heir.chat.tell_untold() == 0, "nothing is left to do"
            await check(world, row["_id"], f"died at {n}, then at {m}")
            deaths += died_first and died_then
            if not died_then:
                break
        if not died_first:
            break
    assert deaths >= 20


async def message_of(world: World, op_id: str) -> dict[str, Any] | None:
    return await world.db["messages"].find_one({"op_id": op_id})


async def check(world: World, message_id: str, when: str) -> None:
    """Each reader's letters say of the message what it is now, and each thing once."""
    row = await world.db["messages"].find_one({"_id": message_id})
    assert row is not None
    for user_id in (ANN, BOB):
        query = {"user_id": user_id, "key": {"$gte": f"msg:{message_id}", "$lt": f"msg:{message_id};"}}
        letters = [letter async for letter in world.db["letters"].find(query)]
        events = [letter["event"] for letter in letters]
        assert len(events) == len(set(events)), when
        assert "CHAT_MESSAGE" in events, when
        newest = max(letters, key=lambda letter: int(letter["payload"]["version"]))
        if "deleted_at" in row:
            assert "MESSAGE_DELETE" in events, when
            assert {letter["payload"]["text"] for letter in letters} == {None}, when
        else:
            assert (newest["payload"]["version"], newest["payload"]["text"]) == (
                row["version"],
                row["text"],
            ), when
