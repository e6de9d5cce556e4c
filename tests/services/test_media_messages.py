"""Files in real messages: whoever sees the message sees the file, and nobody else, then and later."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from models.db import Database
from models.errors import Refusal
from models.media.audience.store import MessageFiles
from models.media.media import Media
from models.media.rules import LOOK_AGAIN_DAYS, SENDING_SECONDS, UNSENT_SECONDS
from models.media.service import MediaFiles
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.chat_house import ANN, BOB, EVE, Spoken, World, build, device, refused
from tests.services.mediakit import PDF, Album, body


@dataclass
class Club:
    """A chat with files."""

    world: World
    album: Album
    media: MediaFiles
    chat: Spoken

    async def file(self) -> Media:
        return await self.media.upload(ANN, body(PDF), filename="plan.pdf", length=len(PDF))

    async def group(self, *others: str) -> str:
        made = await self.chat.groups.found(device(ANN), name="club", user_ids=others, op_id=None)
        return made.id

    async def send(self, file: Media, where: str, op_id: str = "1", **more: Any) -> Any:
        address = {"to": where} if where in (BOB, EVE) else {"conversation_id": where}
        return await self.chat.say(
            device(ANN), text=None, op_id=op_id, attachment_id=file.id, **address, **more
        )

    async def sees(self, user_id: str, file: Media) -> bool:
        with suppress(Refusal):
            return bool(await self.media.seen_by(user_id, file.id))
        return False


@pytest.fixture
async def club(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> Club:
    world = await build(db, clock, ids, doors)
    album = Album(db, clock, ids, town=MessageFiles(db))  # type: ignore[arg-type]
    media = album.process()
    return Club(world, album, media, world.process(attachments=media))


async def test_the_two_of_a_conversation_see_a_file_that_was_sent_in_it(club: Club) -> None:
    file = await club.file()
    assert not await club.sees(BOB, file)
    written = await club.send(file, BOB)
    shown = written.message.attachment
    assert (shown.id, shown.kind, shown.filename, shown.size_bytes) == (file.id, "file", "plan.pdf", len(PDF))
    assert await club.sees(BOB, file)
    assert not await club.sees(EVE, file)


async def test_somebody_elses_file_cannot_be_sent(club: Club) -> None:
    file = await club.file()
    await club.send(file, BOB)
    work = club.chat.say(device(BOB), to=EVE, text=None, op_id="b", attachment_id=file.id)
    assert await refused(work) == "ATTACHMENT_UNKNOWN"
    assert not await club.sees(EVE, file)


async def test_who_comes_later_does_not_see_what_was_sent_before(club: Club) -> None:
    group = await club.group(BOB)
    before, after = await club.file(), await club.file()
    await club.send(before, group, "1")
    await club.chat.groups.add(device(ANN), group, [EVE])
    await club.send(after, group, "2")
    assert [await club.sees(EVE, file) for file in (before, after)] == [False, True]


async def test_who_has_left_keeps_what_was_theirs_and_gets_nothing_new(club: Club) -> None:
    group = await club.group(BOB, EVE)
    before, after = await club.file(), await club.file()
    await club.send(before, group, "1")
    await club.chat.groups.leave(device(EVE), group)
    await club.send(after, group, "2")
    assert [await club.sees(EVE, file) for file in (before, after)] == [True, False]


@pytest.mark.parametrize("who", [ANN, EVE])
async def test_e61_a_file_does_not_pass_a_block_in_a_group_and_not_later_either(club: Club, who: str) -> None:
    group = await club.group(BOB, EVE)
    await club.world.users.block(who, EVE if who == ANN else ANN)
    file = await club.file()
    await club.send(file, group)
    assert [await club.sees(user, file) for user in (BOB, EVE)] == [True, False]
    await club.world.users.unblock(who, EVE if who == ANN else ANN)
    assert not await club.sees(EVE, file)


async def test_a_block_of_two_hides_nothing_that_they_had_from_each_other(club: Club) -> None:
    file = await club.file()
    await club.send(file, BOB)
    await club.world.users.block(BOB, ANN)
    assert await club.sees(BOB, file)


async def test_a_deleted_message_hides_its_file_at_once_and_takes_it_along(club: Club) -> None:
    file = await club.file()
    written = await club.send(file, BOB)
    await club.chat.delete(ANN, written.message.id)
    assert not await club.sees(BOB, file)
    await club.album.settle(club.media, 0)
    assert await club.media.views([file.id]) == {}
    assert (await club.album.kept())[1:] == (0, 0)


async def test_a_file_that_was_sent_twice_goes_with_the_second(club: Club) -> None:
    file = await club.file()
    first, second = await club.send(file, BOB, "1"), await club.send(file, BOB, "2")
    await club.chat.delete(ANN, first.message.id)
    await club.album.settle(club.media, SENDING_SECONDS)
    assert await club.sees(BOB, file)
    await club.chat.delete(ANN, second.message.id)
    await club.album.settle(club.media, 0)
    assert await club.media.views([file.id]) == {}


async def test_a_file_in_two_conversations_is_seen_in_the_one_that_still_has_it(club: Club) -> None:
    file = await club.file()
    to_bob, _ = await club.send(file, BOB, "1"), await club.send(file, EVE, "2")
    await club.chat.delete(ANN, to_bob.message.id)
    await club.album.settle(club.media, SENDING_SECONDS)
    assert [await club.sees(user, file) for user in (BOB, EVE)] == [False, True]


async def test_a_message_sent_again_by_a_retry_takes_its_file_once(club: Club) -> None:
    file = await club.file()
    first, again = await club.send(file, BOB, "1"), await club.send(file, BOB, "1")
    assert again.message == first.message
    assert (await club.media.views([file.id]))[file.id].conversations == (first.message.conversation_id,)


async def test_a_message_that_is_refused_leaves_its_file_unsent(club: Club) -> None:
    file = await club.file()
    await club.world.users.block(BOB, ANN)
    assert await refused(club.send(file, BOB)) == "USER_UNAVAILABLE"
    await club.album.settle(club.media, UNSENT_SECONDS)
    assert await club.media.views([file.id]) == {}


async def test_a_sent_file_is_there_for_as_long_as_its_message(club: Club) -> None:
    file = await club.file()
    await club.send(file, BOB)
    for _ in range(3):
        await club.album.settle(club.media, LOOK_AGAIN_DAYS * 86_400)
    assert await club.sees(BOB, file)
