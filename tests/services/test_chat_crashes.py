"""A process that dies at any call to the database leaves nothing lost, doubled or stuck: a retry or the job ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from models.chat.rules import pair_id
from models.chat.store import TELL_SECONDS
from models.db import Database
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.callkit import Killed
from tests.services.chat_house import ANN, BOB, EVE, Process, World, build, device, told

# Above what any of these verbs needs; the last of them lives.
CALLS_MAX = 30

Verb = Callable[[Process], Awaitable[Any]]
Check = Callable[[Process], Awaitable[None]]


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def killed_everywhere(
    world: World, prepare: Callable[[], Awaitable[Any]], verb: Callable[[Process, Any], Awaitable[Any]],
    check: Callable[[Process, Any], Awaitable[None]], *, retry: bool,
    follow: Callable[[Process, Any], Awaitable[Any]] | None = None,
) -> int:  # fmt: skip
    """Run ``verb`` in a process that dies at its n-th call, for every n, and let another one end it; how many died.

    ``follow`` is what somebody else does at another process before that.
    """
    for n in range(1, CALLS_MAX):
        given = await prepare()
        mortal, heir = world.machine(f"mortal {n}"), world.machine(f"heir {n}")
        mortal.life.dies_at = n
        died = False
        try:
            await verb(mortal, given)
        except Killed:
            died = True
        if follow is not None:
            await follow(world.machine(f"other {n}"), given)
        if retry:
            await verb(heir, given)
        world.clock.pass_(TELL_SECONDS)
        await heir.chat.tell_untold()
        assert await heir.chat.tell_untold() == 0, "nothing is left to do"
        if not retry and died and not await happened(world, given):
            continue  # died before anything was done: nobody was told of it
        await check(heir, given)
        if not died:
            return n - 1
    raise AssertionError("it needs more calls than that")


async def happened(world: World, given: dict[str, Any]) -> bool:
    return bool(await given["happened"]())


def keys(letters: list[Any]) -> list[str]:
    return [letter.key for letter in letters]


@pytest.mark.parametrize("retry", [True, False])
async def test_a_send_that_dies_anywhere_makes_one_message_for_everybody(world: World, retry: bool) -> None:
    people = iter(await world.crowd(2 * CALLS_MAX))

    async def prepare() -> dict[str, Any]:
        """Two who have never written: the conversation begins, too."""
        one, other = next(people), next(people)

        async def sent() -> bool:
            return bool(await world.numbers(pair_id(one, other)))

        return {"from": one, "to": other, "happened": sent}

    async def verb(process: Process, given: dict[str, Any]) -> Any:
        return await process.chat.say(device(given["from"]), to=given["to"], text="hello", op_id="1")

    async def check(heir: Process, given: dict[str, Any]) -> None:
        conversation_id = pair_id(given["from"], given["to"])
        assert await world.numbers(conversation_id) == [1]
        for user_id in (given["from"], given["to"]):
            log = await world.log(user_id)
            assert [(x.event, x.seq) for x in log] == [("CHAT_MESSAGE", 1)]
            listed = (await heir.chat.conversations(user_id, limit=10)).items
            assert [one.last.message.seq for one in listed if one.last] == [1]
        pushed = {
            push["message_id"] for push in world.pusher.said if push["conversation_id"] == conversation_id
        }
        assert len(pushed) == 1
        assert [one.unread for one in (await heir.chat.conversations(given["to"], limit=10)).items] == [1]

    assert await killed_everywhere(world, prepare, verb, check, retry=retry) >= 9


@pytest.mark.parametrize("retry", [True, False])
async def test_a_batch_that_dies_anywhere_is_whole_in_the_end(world: World, retry: bool) -> None:
    """Others' messages go with one's own: they are told, too, whoever retries."""
    group = await world.process().groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    done = 1
    for n in range(1, CALLS_MAX):
        mortal, heir = world.machine(f"mortal {n}"), world.machine(f"heir {n}")
        mortal.life.dies_at = n

        async def say(process: Process, who: str, n: int = n) -> None:
            await process.chat.say(device(who), conversation_id=group.id, text="hello", op_id=f"{n}")

        died = [await tried(say(mortal, who)) for who in (ANN, BOB, EVE)]
        if retry:
            for who in (ANN, BOB, EVE):
                await say(heir, who)
            done += 3
        world.clock.pass_(TELL_SECONDS)
        await heir.chat.tell_untold()
        row = await world.numbers(group.id)
        assert row == list(range(1, len(row) + 1))
        if retry:
            assert len(row) == done
        for user_id in (ANN, BOB, EVE):
            query = {"user_id": user_id, "event": "CHAT_MESSAGE"}
            heard = [x["payload"]["seq"] async for x in world.db["letters"].find(query)]
            assert sorted(heard) == row
        if not any(died):
            return
    raise AssertionError("it needs more calls than that")


async def tried(work: Awaitable[Any]) -> bool:
    try:
        await work
    except Killed:
        return True
    return False


@pytest.mark.parametrize("retry", [True, False])
async def test_an_edit_that_dies_anywhere_is_told_once(world: World, retry: bool) -> None:
    async def prepare() -> dict[str, Any]:
        op_id = world.ids.new()
        written = await world.process().say(device(ANN), to=BOB, text="hello", op_id=op_id)

        async def edited() -> bool:
            return (await world.process().evidence(ANN, written.message.id)).version > 1

        return {"id": written.message.id, "happened": edited}

    async def verb(process: Process, given: dict[str, Any]) -> Any:
        return await process.chat.edit(ANN, given["id"], "hello again")

    async def check(heir: Process, given: dict[str, Any]) -> None:
        message = await heir.chat.evidence(BOB, given["id"])
        assert (message.text, message.version) == ("hello again", 2)
        for user_id in (ANN, BOB):
            mine = [x for x in await all_letters(world, user_id) if given["id"] in x["key"]]
            assert [x["event"] for x in mine] == ["CHAT_MESSAGE", "MESSAGE_EDIT"]
            assert mine[1]["payload"]["text"] == "hello again"

    assert await killed_everywhere(world, prepare, verb, check, retry=retry) >= 8


@pytest.mark.parametrize("retry", [True, False])
async def test_a_deletion_that_dies_anywhere_leaves_no_text_in_the_end(world: World, retry: bool) -> None:
    async def prepare() -> dict[str, Any]:
        op_id = world.ids.new()
        written = await world.process().say(device(ANN), to=BOB, text="a secret", op_id=op_id)

        async def deleted() -> bool:
            return (await world.process().evidence(ANN, written.message.id)).deleted_at is not None

        return {"id": written.message.id, "happened": deleted}

    async def verb(process: Process, given: dict[str, Any]) -> Any:
        return await process.chat.delete(ANN, given["id"])

    async def check(heir: Process, given: dict[str, Any]) -> None:
        for user_id in (ANN, BOB):
            mine = [x for x in await all_letters(world, user_id) if given["id"] in x["key"]]
            assert [x["event"] for x in mine] == ["CHAT_MESSAGE", "MESSAGE_DELETE"]
            assert [x["payload"]["text"] for x in mine] == [None, None]
            assert "secret" not in str(mine)
        row = await world.db["messages"].find_one({"_id": given["id"]})
        assert row is not None
        assert "secret" not in str(row)

    assert await killed_everywhere(world, prepare, verb, check, retry=retry) >= 7


@pytest.mark.parametrize("retry", [True, False])
async def test_a_marker_that_dies_anywhere_is_told_once(world: World, retry: bool) -> None:
    people = iter(await world.crowd(2 * CALLS_MAX))

    async def prepare() -> dict[str, Any]:
        one, other = next(people), next(people)
        written = await world.process().say(device(one), to=other, text="hello", op_id="1")

        async def read() -> bool:
            row = await world.db["memberships"].find_one({"user_id": other})
            return row is not None and row["read_seq"] == 1

        return {"from": one, "by": other, "id": written.message.id, "happened": read}

    async def verb(process: Process, given: dict[str, Any]) -> Any:
        return await process.chat.markers.read(device(given["by"]), message_id=given["id"])

    async def check(heir: Process, given: dict[str, Any]) -> None:
        heard = told(await world.log(given["from"]), "MESSAGE_READ")
        assert [(x["userId"], x["seq"]) for x in heard] == [(given["by"], 1)]
        own = told(await world.log(given["by"]), "MESSAGE_READ")
        assert [x["seq"] for x in own] == [1], "the other devices of the reader"
        assert given["by"] in {user_id for user_id, _, _ in world.pusher.read}

    assert await killed_everywhere(world, prepare, verb, check, retry=retry) >= 7


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize(("first", "then"), [("delivered", "read"), ("read", "delivered")])
async def test_a_marker_that_dies_anywhere_is_told_though_another_marker_follows_it(
    world: World, first: str, then: str, retry: bool
) -> None:
    people = iter(await world.crowd(CALLS_MAX))
    upto = {"delivered": 5, "read": 3}

    async def prepare() -> dict[str, Any]:
        other = next(people)
        for n in range(1, 6):
            written = await world.process().say(device(ANN), to=other, text=f"{n}", op_id=f"{other}:{n}")

        async def moved() -> bool:
            row = await world.db["memberships"].find_one({"user_id": other})
            return row is not None and row[f"{first}_seq"] == upto[first]

        return {"by": other, "where": written.message.conversation_id, "happened": moved}

    async def verb(process: Process, given: dict[str, Any]) -> Any:
        by, where = device(given["by"]), given["where"]
        return await getattr(process.chat.markers, first)(by, conversation_id=where, seq=upto[first])

    async def follow(process: Process, given: dict[str, Any]) -> Any:
        tablet = device(given["by"], "tablet")
        return await getattr(process.chat.markers, then)(
            tablet, conversation_id=given["where"], seq=upto[then]
        )

    async def check(heir: Process, given: dict[str, Any]) -> None:
        log = await world.log(ANN)
        for what, seq in upto.items():
            heard = told(log, f"MESSAGE_{what.upper()}")
            assert [x["seq"] for x in heard if x["userId"] == given["by"]].count(seq) == 1

    assert await killed_everywhere(world, prepare, verb, check, retry=retry, follow=follow) >= 5


@pytest.mark.parametrize("retry", [True, False])
async def test_a_group_whose_founding_dies_anywhere_is_there_once_or_not_at_all(
    world: World, retry: bool
) -> None:
    async def prepare() -> dict[str, Any]:
        op_id = world.ids.new()

        async def founded() -> bool:
            return await world.db["conversations"].find_one({"op_id": op_id}) is not None

        return {"op_id": op_id, "happened": founded}

    async def verb(process: Process, given: dict[str, Any]) -> Any:
        return await process.chat.groups.found(device(ANN), name="Us", user_ids=[BOB], op_id=given["op_id"])

    async def check(heir: Process, given: dict[str, Any]) -> None:
        rows = [row async for row in world.db["conversations"].find({"op_id": given["op_id"]})]
        assert len(rows) == 1
        group_id = rows[0]["_id"]
        assert await world.numbers(group_id) == [1]
        for user_id in (ANN, BOB):
            assert await heir.chat.is_member(user_id, group_id)
            mine = [x for x in await all_letters(world, user_id) if group_id in str(x["payload"])]
            assert [x["event"] for x in mine] == ["CHAT_MESSAGE", "CONVERSATION_UPDATED"]

    assert await killed_everywhere(world, prepare, verb, check, retry=retry) >= 8


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("what", ["added", "removed", "renamed"])
async def test_a_change_of_a_group_that_dies_anywhere_happens_once_or_not_at_all(
    world: World, what: str, retry: bool
) -> None:
    async def prepare() -> dict[str, Any]:
        others = [BOB] if what == "added" else [BOB, EVE]
        group = await world.process().groups.found(device(ANN), name="Us", user_ids=others, op_id=None)

        async def changed() -> bool:
            return len(await world.numbers(group.id)) == 2

        return {"id": group.id, "happened": changed}

    async def verb(process: Process, given: dict[str, Any]) -> Any:
        groups = process.chat.groups
        if what == "added":
            return await groups.add(device(ANN), given["id"], [EVE])
        if what == "removed":
            return await groups.remove(device(ANN), given["id"], EVE)
        return await groups.rename(device(ANN), given["id"], "We")

    async def check(heir: Process, given: dict[str, Any]) -> None:
        assert await world.numbers(given["id"]) == [1, 2]
        assert await heir.chat.is_member(EVE, given["id"]) == (what != "removed")
        for user_id in (ANN, BOB, EVE):
            mine = [x for x in await all_letters(world, user_id) if given["id"] in str(x["payload"])]
            notes = [x["payload"]["note"]["what"] for x in mine if x["event"] == "CHAT_MESSAGE"]
            assert notes == (["created", what] if user_id != EVE or what != "added" else [what])
            versions = [
                x["payload"]["conversation"]["version"] for x in mine if x["event"] == "CONVERSATION_UPDATED"
            ]
            assert versions[-1] == 2

    assert await killed_everywhere(world, prepare, verb, check, retry=retry) >= 8


async def all_letters(world: World, user_id: str) -> list[dict[str, Any]]:
    """Every letter of a person as it is kept, in order."""
    return [row async for row in world.db["letters"].find({"user_id": user_id}, sort=[("seq", 1)])]
