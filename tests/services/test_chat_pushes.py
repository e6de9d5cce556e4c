"""What a push says of a message is what may be said of it when it goes out, hours after the message perhaps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from handlers.chat_news import ChatNews
from models.chat.conversations.conversation import Conversation
from models.chat.ports import Written
from models.db import Database
from models.notify.messages.store import BUNDLES
from models.notify.service import Pushes
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services import pushkit
from tests.services.chat_house import ANN, BOB, EVE, Spoken, World, build, device


@dataclass
class House:
    """A group of three with a push provider that is slow; Bob sleeps."""

    world: World
    push: pushkit.World
    pushes: Pushes
    chat: Spoken
    group: Conversation

    async def say(self, text: str, *, by: str = ANN) -> Written:
        where = self.group.id
        return await self.chat.say(device(by), conversation_id=where, text=text, op_id=self.world.ids.new())

    async def pushed(self) -> list[str]:
        """What Bob's phone shows in the end."""
        self.world.clock.pass_(60)
        await self.pushes.messages.run_due()
        return self.push.bodies()


@pytest.fixture
async def house(
    db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors
) -> AsyncIterator[House]:
    world = await build(db, clock, ids, doors)
    async with pushkit.pushing(db, clock, ids) as push:
        push.drawer.put(BOB, pushkit.PHONE)
        pushes = push.process()
        world.pusher = pushes.messages  # type: ignore[assignment]
        chat = world.process()
        pushes.messages.fresh = ChatNews(chat=chat, presence=world.presence).now
        group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
        yield House(world, push, pushes, chat, group)


async def test_a_message_is_pushed_as_it_was_written(house: House) -> None:
    await house.say("hello")
    assert await house.pushed() == ["Ann: hello"]
    (message,) = house.push.expo.pushed
    assert (message["title"], message["data"]["sender"]["username"]) == ("Us", "ann")


@pytest.mark.parametrize("what", ["delete", "block", "blocked", "remove", "mute"])
async def test_what_may_be_told_no_more_is_not_pushed(house: House, what: str) -> None:
    written = await house.say("a secret")
    if what == "delete":
        await house.chat.delete(ANN, written.message.id)
    elif what == "block":
        await house.world.users.block(BOB, ANN)
    elif what == "blocked":
        await house.world.users.block(ANN, BOB)
    elif what == "remove":
        await house.chat.groups.remove(device(ANN), house.group.id, BOB)
    else:
        await house.chat.mute(BOB, house.group.id, True)
    assert await house.pushed() == []
    assert await house.pushes.messages.run_due() == 0, "and it is not tried again"
    assert await house.world.db[BUNDLES].count_documents({"due_at": {"$exists": True}}) == 0


async def test_new_words_are_pushed_instead_of_the_old_ones(house: House) -> None:
    written = await house.say("a secret")
    await house.chat.edit(ANN, written.message.id, "harmless")
    assert await house.pushed() == ["Ann: harmless"]


async def test_what_is_left_of_a_burst_is_pushed_without_what_was_deleted(house: House) -> None:
    for text in ("one", "two"):
        await house.say(text)
    written = await house.say("a secret", by=EVE)
    await house.chat.delete(EVE, written.message.id)
    assert await house.pushed() == ["2 new messages\nAnn: two"]
    assert await house.pushes.messages.run_due() == 0


@pytest.mark.parametrize("what", ["delete", "edit"])
async def test_what_a_message_said_is_not_kept_for_a_push_either(house: House, what: str) -> None:
    written = await house.say("a secret")
    assert "secret" in str(await house.world.db[BUNDLES].find({}).to_list())
    await (
        house.chat.delete(ANN, written.message.id)
        if what == "delete"
        else house.chat.edit(ANN, written.message.id, "harmless")
    )
    assert "secret" not in str(await house.world.db[BUNDLES].find({}).to_list())


async def test_a_message_that_is_deleted_while_its_provider_is_away_is_not_pushed_when_it_is_back(
    house: House,
) -> None:
    written = await house.say("a secret")
    house.push.expo.mode = "down"
    assert await house.pushed() == []
    await house.chat.delete(ANN, written.message.id)
    house.push.expo.mode = "ok"
    house.push.expo.requests.clear()
    assert await house.pushed() == []
