"""A process that dies at any call to the database leaves nothing that stays, and nothing half that is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from models.db import Database
from models.errors import Refusal
from models.media import rules
from models.media.media import Media
from models.media.service import MediaFiles
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.mediakit import ANN, BOB, CLUB, PDF, TALK, Album, body, image, read

LONG_PAST = rules.UPLOAD_SECONDS + rules.UPLOAD_MARGIN_SECONDS
NOTHING = (0, 0, 0)


@pytest.fixture
async def album(db: Database, clock: VirtualClock, ids: CountingIds) -> Album:
    return Album(db, clock, ids)


async def die_everywhere(
    album: Album,
    before: Callable[[MediaFiles], Awaitable[Any]],
    verb: Callable[[MediaFiles, Any], Awaitable[Any]],
    after: Callable[[MediaFiles, Any], Awaitable[None]],
) -> int:
    """Do it as often as it has calls to the database, dying at a later one each time; how often it died."""
    for n in range(1, 60):
        life = Mortal(album.db)
        healthy = album.process()
        given = await before(healthy)
        life.dies_at = n
        try:
            await verb(album.process(db=life), given)
        except Killed:
            await after(healthy, given)
        else:
            await after(healthy, given)
            return n - 1
    raise AssertionError("it never ends")


async def nothing(media: MediaFiles) -> None:
    pass


async def test_an_upload_that_dies_anywhere_is_swept_or_whole(album: Album) -> None:
    data = image(size=(2000, 2000), quality=100)

    async def upload(media: MediaFiles, _: None) -> None:
        await media.upload(ANN, body(data), filename=None, length=len(data))

    async def check(media: MediaFiles, _: None) -> None:
        rows = [row async for row in album.db["media"].find({"state": "ready"})]
        for row in rows:
            file = await media.seen_by(ANN, row["_id"])
            assert await read(media, file) == data
            await media.delete(ANN, file.id)
        await album.settle(media, LONG_PAST)
        assert (await album.kept())[1:] == (0, 0)
        assert await media._store.held_by(ANN) == (0, 0)
        await album.settle(media, rules.ERASE_AGAIN_SECONDS)
        assert await album.kept() == NOTHING

    assert await die_everywhere(album, nothing, upload, check) >= 7


async def test_an_upload_that_is_refused_and_dies_over_it_is_swept(album: Album) -> None:
    async def refused(media: MediaFiles, _: None) -> None:
        with pytest.raises(Refusal):
            await media.upload(ANN, body(PDF + bytes(2**20)), filename=None, length=None)

    async def check(media: MediaFiles, _: None) -> None:
        await album.settle(media, LONG_PAST)
        await album.settle(media, rules.ERASE_AGAIN_SECONDS)
        assert await album.kept() == NOTHING

    assert await die_everywhere(album, nothing, refused, check) >= 8


async def unsent(media: MediaFiles) -> Media:
    return await media.upload(ANN, body(PDF), filename=None, length=len(PDF))


async def test_a_deletion_that_dies_anywhere_is_finished_by_the_job(album: Album) -> None:
    async def delete(media: MediaFiles, file: Media) -> None:
        await media.delete(ANN, file.id)

    async def check(media: MediaFiles, file: Media) -> None:
        if await media.views([file.id]):
            await media.delete(ANN, file.id)  # it died before anything was done: whoever asked asks again
        await album.settle(media, rules.LEASE_SECONDS)
        assert await album.chunks_of(file.id) == 0
        await album.settle(media, rules.ERASE_AGAIN_SECONDS)
        assert await album.kept() == NOTHING

    assert await die_everywhere(album, unsent, delete, check) >= 6


async def test_a_job_that_dies_anywhere_is_followed_by_the_next(album: Album) -> None:
    async def due(media: MediaFiles) -> Media:
        file = await unsent(media)
        album.clock.pass_(rules.UNSENT_SECONDS)
        return file

    async def run(media: MediaFiles, _: Media) -> None:
        await media.run_due()

    async def check(media: MediaFiles, file: Media) -> None:
        await album.settle(media, rules.LEASE_SECONDS)
        assert await album.chunks_of(file.id) == 0
        await album.settle(media, rules.ERASE_AGAIN_SECONDS)
        assert await album.kept() == NOTHING

    assert await die_everywhere(album, due, run, check) >= 7


async def test_a_deleted_messages_file_goes_wherever_letting_go_of_it_dies(album: Album) -> None:
    async def sent(media: MediaFiles) -> Media:
        file = await unsent(media)
        await album.sent(media, file, TALK)
        await album.settle(media, rules.SENDING_SECONDS)
        album.town.messages.clear()
        return file

    async def detach(media: MediaFiles, file: Media) -> None:
        await media.detach(file.id, TALK)

    async def check(media: MediaFiles, file: Media) -> None:
        with pytest.raises(Refusal):
            await media.seen_by(BOB, file.id)
        await album.settle(media, rules.LOOK_AGAIN_DAYS * 86_400)
        assert await album.chunks_of(file.id) == 0

    assert await die_everywhere(album, sent, detach, check) >= 2


async def test_a_process_that_writes_on_after_its_file_was_given_up_leaves_nothing(album: Album) -> None:
    """It was frozen in the middle, and dies right after its last write: the second deletion finds that."""
    media = album.process()
    life = Mortal(album.db)
    late = album.process(db=life)

    async def frozen() -> AsyncIterator[bytes]:
        yield PDF + bytes(rules.HEAD_BYTES)
        await album.settle(media, LONG_PAST)
        assert (await album.kept())[1:] == (0, 0)
        album.clock.pass_(-LONG_PAST)  # its own clock has stood still
        yield bytes(2**19)
        life.dies_at = 0

    with pytest.raises(Killed):
        await late.upload(ANN, frozen(), filename=None, length=None)
    assert (await album.kept())[2] == 2
    await album.settle(media, LONG_PAST + rules.ERASE_AGAIN_SECONDS)
    assert await album.kept() == NOTHING


@pytest.mark.parametrize("seed", range(6))
async def test_a_file_that_is_sent_and_deleted_at_once_is_one_or_the_other(album: Album, seed: int) -> None:
    first, second = album.process(), album.process()
    file = await unsent(first)

    async def send() -> Media:
        for _ in range(seed):
            await album.db.ping()
        return await first.attach(file.id, owner_id=ANN, conversation_id=TALK)

    sent, deleted = await asyncio.gather(send(), second.delete(ANN, file.id), return_exceptions=True)
    codes = [one.code for one in (sent, deleted) if isinstance(one, Refusal)]
    assert codes in (["ATTACHMENT_UNKNOWN"], ["MEDIA_ATTACHED"], ["MEDIA_UNKNOWN"])
    assert bool(await first.views([file.id])) == isinstance(sent, Media)


async def test_a_file_let_go_by_two_processes_at_once_goes_once(album: Album) -> None:
    first, second = album.process(), album.process()
    file = await unsent(first)
    await album.sent(first, file, TALK)
    await album.sent(first, file, CLUB)
    album.town.messages.clear()
    await asyncio.gather(
        first.detach(file.id, TALK), second.detach(file.id, CLUB), second.detach(file.id, TALK)
    )
    done = await asyncio.gather(first.run_due(), second.run_due())
    assert sum(done) == 1
    assert (await album.kept())[1:] == (0, 0)
