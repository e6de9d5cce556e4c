"""Files with a real database: what comes in, what is refused, who sees it, when it goes."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from gridfs import AsyncGridFSBucket

from models.db import Database
from models.errors import Refusal
from models.media import rules
from models.media.files.store import CHUNK_BYTES
from models.media.links import LINK_SECONDS
from models.media.media import Kind
from models.media.service import MediaFiles
from models.media.store import MediaStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.mediakit import (
    ANN,
    BOB,
    CLUB,
    EVE,
    KIB,
    MIB,
    PDF,
    TALK,
    Album,
    body,
    cut,
    image,
    read,
    run_of,
)

NOTHING = (0, 0, 0)


@pytest.fixture
async def album(db: Database, clock: VirtualClock, ids: CountingIds) -> Album:
    return Album(db, clock, ids)


async def refused(work: Any) -> str:
    with pytest.raises(Refusal) as no:
        await work
    return no.value.code


async def put(media: MediaFiles, data: bytes = PDF, *, owner_id: str = ANN, name: str | None = None) -> Any:
    return await media.upload(owner_id, body(data), filename=name, length=len(data))


# ---------------------------------------------------------------------------------------------------------- coming in


async def test_what_comes_out_is_what_came_in_from_any_byte_to_any_other(album: Album) -> None:
    media = album.process()
    data = PDF + bytes(n % 251 for n in range(2 * CHUNK_BYTES + 1000))
    file = await media.upload(ANN, body(data, 1000), filename="a.pdf", length=len(data))
    assert (file.size_bytes, file.content_type, file.kind) == (len(data), "application/pdf", Kind.FILE)
    edges = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, len(data) - 1, len(data)]
    for start in edges:
        for end in edges:
            assert await read(media, file, start, end) == data[start:end]


async def test_what_is_kept_is_gridfs_by_its_specification(album: Album, db: Database) -> None:
    data = PDF + bytes(CHUNK_BYTES)
    file = await put(album.process(), data)
    stream = await AsyncGridFSBucket(db.db, "media").open_download_stream(file.id)
    assert (stream.length, stream.chunk_size) == (len(data), CHUNK_BYTES)
    assert await stream.read() == data


async def test_a_large_file_is_never_in_memory_whole(album: Album) -> None:
    media = album.process(file_bytes_max=24 * MIB, user_bytes_max=64 * MIB)
    await put(media)  # what is made once is made by now
    tracemalloc.start()
    file = await media.upload(ANN, run_of(PDF, 20 * MIB), filename=None, length=None)
    _, most = tracemalloc.get_traced_memory()
    size = 0
    async for piece in media.read(file, thumbnail=False, start=0, end=file.size_bytes):
        assert len(piece) <= CHUNK_BYTES
        size += len(piece)
    _, most_in_all = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == file.size_bytes == 20 * MIB
    assert most < 3 * MIB, "a few chunks and pieces"
    assert most_in_all < 3 * MIB


async def test_a_file_may_have_just_the_limit_and_one_byte_more_leaves_nothing(album: Album) -> None:
    media = album.process()
    file = await media.upload(ANN, run_of(PDF, MIB), filename=None, length=None)
    assert file.size_bytes == MIB
    await media.delete(ANN, file.id)
    before = await album.kept()
    assert (
        await refused(media.upload(ANN, run_of(PDF, MIB + 1), filename=None, length=None))
        == "PAYLOAD_TOO_LARGE"
    )
    assert (await album.kept())[1:] == before[1:] == (0, 0)


async def test_a_length_that_says_too_much_is_refused_before_anything_is_read(album: Album) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    work = album.process().upload(ANN, unread(), filename=None, length=MIB + 1)
    assert await refused(work) == "PAYLOAD_TOO_LARGE"
    assert await album.kept() == NOTHING


async def test_a_length_that_says_too_little_helps_nobody(album: Album) -> None:
    work = album.process().upload(ANN, run_of(PDF, MIB + 1), filename=None, length=10)
    assert await refused(work) == "PAYLOAD_TOO_LARGE"


async def test_no_bytes_are_no_file(album: Album) -> None:
    assert await refused(put(album.process(), b"")) == "VALIDATION_FAILED"
    assert await album.kept() == NOTHING


async def test_a_type_that_is_not_taken_is_refused_by_its_beginning_and_nothing_was_kept(
    album: Album,
) -> None:
    assert (
        await refused(put(album.process(), b"MZ\x90\x00" + bytes(100), name="a.jpg"))
        == "MEDIA_TYPE_NOT_ALLOWED"
    )
    assert await album.kept() == NOTHING


async def test_text_is_followed_to_its_end(album: Album) -> None:
    media = album.process()
    good = "é".encode() * 20_000
    assert (await put(media, good)).content_type == "text/plain"
    assert await refused(put(media, good[:-1])) == "MEDIA_TYPE_NOT_ALLOWED"
    assert await refused(put(media, good + b"\x00")) == "MEDIA_TYPE_NOT_ALLOWED"
    assert (await album.kept())[1] == 1


async def test_a_sender_who_dies_in_the_middle_leaves_nothing(album: Album) -> None:
    media = album.process()
    with pytest.raises(ConnectionResetError):
        await media.upload(ANN, cut(PDF + bytes(700 * KIB), 600 * KIB), filename=None, length=None)
    assert (await album.kept())[1:] == (0, 0)
    await album.settle(media, rules.ERASE_AGAIN_SECONDS)
    assert await album.kept() == NOTHING


async def test_an_upload_has_a_quarter_of_an_hour(album: Album) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield PDF + bytes(rules.HEAD_BYTES)
        album.clock.pass_(rules.UPLOAD_SECONDS)
        yield bytes(10)
        album.clock.pass_(0.001)
        yield bytes(10)

    work = album.process().upload(ANN, slow(), filename=None, length=None)
    assert await refused(work) == "UPLOAD_INCOMPLETE"
    assert (await album.kept())[1:] == (0, 0)


async def test_an_upload_whose_row_was_given_up_meanwhile_leaves_nothing(album: Album) -> None:
    """Its process was frozen; the job took its time for over."""
    media, other = album.process(), album.process()

    class Frozen:
        async def examine(self, pieces: AsyncIterator[bytes], **_: Any) -> Any:
            await album.settle(other, rules.UPLOAD_SECONDS + rules.UPLOAD_MARGIN_SECONDS)
            return await album.process()._pictures.examine(body(b"x"), content_type="", size_bytes=1)

    frozen = album.process(pictures=Frozen())
    assert await refused(put(frozen, image())) == "UPLOAD_INCOMPLETE"
    await album.settle(media, rules.ERASE_AGAIN_SECONDS)
    assert await album.kept() == NOTHING


def box(kind: bytes, *inside: bytes) -> bytes:
    content = b"".join(inside)
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def mp4(*handlers: bytes, first: bytes = b"") -> bytes:
    """A file as Android writes it, whose tracks have these handlers, with ``first`` before its tracks."""
    tracks = [box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), kind, bytes(13)))) for kind in handlers]
    return box(b"ftyp", b"mp42", bytes(4), b"isommp42") + first + box(b"moov", *tracks)


WIDE = (1).to_bytes(4, "big") + b"mdat" + (16 + 600 * KIB).to_bytes(8, "big") + bytes(600 * KIB)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (mp4(b"soun"), Kind.AUDIO),
        (mp4(b"soun", first=box(b"mdat", bytes(400 * KIB))), Kind.AUDIO),
        (mp4(b"soun", first=WIDE), Kind.AUDIO),
        (mp4(b"vide", b"soun"), Kind.VIDEO),
        (mp4(b"soun", b"vide", first=box(b"mdat", bytes(400 * KIB))), Kind.VIDEO),
        (mp4(), Kind.VIDEO),
        (mp4(first=box(b"free") * 40), Kind.VIDEO),
        (mp4(first=bytes(100)), Kind.VIDEO),
        (mp4(b"soun")[:30] + b"\xff" * 4, Kind.VIDEO),
    ],
)
async def test_a_voice_message_is_sound_whatever_its_container_calls_itself(
    album: Album, data: bytes, kind: Kind
) -> None:
    file = await put(album.process(), data, name="voice.m4a")
    assert (file.kind, file.content_type) == (kind, f"{kind}/mp4")
    assert await read(album.process(), file) == data


# --------------------------------------------------------------------------------------------------------------- room


async def test_a_persons_files_have_room_and_no_more(album: Album) -> None:
    media = album.process(user_bytes_max=3 * KIB)
    files = [await put(media, PDF + bytes(KIB - len(PDF))) for _ in range(3)]
    assert await refused(put(media)) == "MEDIA_QUOTA"
    assert (await put(media, owner_id=BOB)).owner_id == BOB
    await media.delete(ANN, files[0].id)
    assert (await put(media)).owner_id == ANN


async def test_uploads_at_once_cannot_take_more_room_together(album: Album) -> None:
    media = album.process(user_bytes_max=3 * KIB)
    data = PDF + bytes(KIB - len(PDF))
    done = await asyncio.gather(*(put(media, data) for _ in range(12)), return_exceptions=True)
    held, _ = await media._store.held_by(ANN)
    assert held <= 3 * KIB
    assert all(
        isinstance(one, Refusal) and one.code == "MEDIA_QUOTA" for one in done if isinstance(one, Exception)
    )
    await album.settle(media, rules.UNSENT_SECONDS)
    assert (await put(media, data)).size_bytes == KIB, "what was refused holds no room"


async def test_an_upload_of_unknown_length_holds_as_much_room_as_it_may_need_until_it_is_there(
    album: Album,
) -> None:
    media = album.process(user_bytes_max=MIB + KIB)
    await media.upload(ANN, body(PDF), filename=None, length=None)
    assert await media._store.held_by(ANN) == (len(PDF), 1)
    await put(media, PDF + bytes(KIB))
    assert await refused(media.upload(ANN, body(PDF), filename=None, length=None)) == "MEDIA_QUOTA"


async def test_there_is_a_limit_to_how_many_files_somebody_has(album: Album, monkeypatch: Any) -> None:
    monkeypatch.setattr(rules, "FILES_MAX", 2)
    media = album.process()
    await put(media)
    await put(media)
    assert await refused(put(media)) == "MEDIA_QUOTA"


# ------------------------------------------------------------------------------------------------------ who may see it


async def test_a_file_is_its_owners_alone_until_a_message_has_it(album: Album) -> None:
    media = album.process()
    file = await put(media)
    assert (await media.seen_by(ANN, file.id)).id == file.id
    assert await refused(media.seen_by(BOB, file.id)) == "MEDIA_UNKNOWN"
    await media.attach(file.id, owner_id=ANN, conversation_id=TALK)
    assert await refused(media.seen_by(BOB, file.id)) == "MEDIA_UNKNOWN", "the message is not there yet"
    await album.sent(media, file, TALK)
    assert (await media.seen_by(BOB, file.id)).id == file.id
    assert await refused(media.seen_by(EVE, file.id)) == "MEDIA_UNKNOWN"


async def test_whoever_sees_the_message_no_more_sees_the_file_no_more(album: Album) -> None:
    media = album.process()
    file = await put(media)
    await album.sent(media, file, CLUB)
    assert await media.seen_by(EVE, file.id)
    album.town.members[CLUB].discard(EVE)
    assert await refused(media.seen_by(EVE, file.id)) == "MEDIA_UNKNOWN"


async def test_only_the_owner_may_send_a_file_and_only_a_whole_one(album: Album) -> None:
    media = album.process()
    file = await put(media)
    assert await refused(media.attach(file.id, owner_id=BOB, conversation_id=TALK)) == "ATTACHMENT_UNKNOWN"
    assert await refused(media.attach("nothing", owner_id=ANN, conversation_id=TALK)) == "ATTACHMENT_UNKNOWN"
    once = await media.attach(file.id, owner_id=ANN, conversation_id=TALK)
    assert await media.attach(file.id, owner_id=ANN, conversation_id=TALK) == once
    assert once.conversations == (TALK,)


async def test_a_file_goes_into_a_limited_number_of_conversations(album: Album) -> None:
    media = album.process()
    file = await put(media)
    for n in range(rules.CONVERSATIONS_MAX):
        await media.attach(file.id, owner_id=ANN, conversation_id=f"c{n}")
    assert await refused(media.attach(file.id, owner_id=ANN, conversation_id="more")) == "ATTACHMENT_UNKNOWN"
    assert await media.attach(file.id, owner_id=ANN, conversation_id="c7")


async def test_a_link_shows_the_file_without_a_sign_in_for_five_minutes(album: Album) -> None:
    media = album.process()
    file = await put(media)
    link = media.link(file, viewer_id=ANN, thumbnail=False)
    album.clock.pass_(LINK_SECONDS - 1)
    assert (await media.linked(link)).id == file.id
    album.clock.pass_(1)
    assert await refused(media.linked(link)) == "MEDIA_UNKNOWN"


async def test_a_link_that_was_changed_in_any_place_is_none(album: Album) -> None:
    media = album.process()
    file, other = await put(media), await put(media)
    link = media.link(file, viewer_id=ANN, thumbnail=False)
    forged = [
        replace(link, media_id=other.id),
        replace(link, viewer_id=BOB),
        replace(link, thumbnail=True),
        replace(link, until=link.until + 1),
        replace(link, signature="0" * 64),
        replace(link, signature=""),
        replace(link, signature="é"),
    ]
    for one in forged:
        assert await refused(media.linked(one)) == "MEDIA_UNKNOWN"


async def test_a_link_shows_no_more_than_its_viewer_may_see_when_it_is_used(album: Album) -> None:
    media = album.process()
    file = await put(media)
    await album.sent(media, file, CLUB)
    link = media.link(await media.seen_by(EVE, file.id), viewer_id=EVE, thumbnail=False)
    album.town.members[CLUB].discard(EVE)
    assert await refused(media.linked(link)) == "MEDIA_UNKNOWN"


async def test_a_link_of_somebody_who_was_banned_since_shows_nothing(album: Album) -> None:
    media = album.process()
    file = await put(media)
    link = media.link(file, viewer_id=ANN, thumbnail=False)
    assert (await media.linked(link)).id == file.id
    album.town.banned.add(ANN)
    assert await refused(media.linked(link)) == "MEDIA_UNKNOWN"


# ------------------------------------------------------------------------------------------------------- how it goes


async def test_a_file_that_nobody_sends_goes_after_a_day(album: Album) -> None:
    media = album.process()
    file = await put(media, image())
    assert await album.chunks_of(file.id) == 1
    await album.settle(media, rules.UNSENT_SECONDS - 1)
    assert await media.seen_by(ANN, file.id)
    await album.settle(media, 1)
    assert await refused(media.seen_by(ANN, file.id)) == "MEDIA_UNKNOWN"
    assert (await album.kept())[1:] == (0, 0), "the thumbnail, too"
    assert await media._store.held_by(ANN) == (0, 0)
    await album.settle(media, rules.ERASE_AGAIN_SECONDS)
    assert await album.kept() == NOTHING


async def test_a_sent_file_stays_as_long_as_a_message_has_it(album: Album) -> None:
    media = album.process()
    file = await put(media)
    await album.sent(media, file, TALK)
    for _ in range(20):
        await album.settle(media, rules.LOOK_AGAIN_DAYS * 86_400)
    assert await media.seen_by(BOB, file.id)


async def test_a_file_whose_message_never_came_is_as_good_as_unsent(album: Album) -> None:
    media = album.process()
    file = await put(media)
    await media.attach(file.id, owner_id=ANN, conversation_id=TALK)
    await album.settle(media, rules.SENDING_SECONDS)
    assert await refused(media.seen_by(ANN, file.id)) == "MEDIA_UNKNOWN"


async def test_a_deleted_message_takes_its_file_along(album: Album) -> None:
    media = album.process()
    file = await put(media)
    await album.sent(media, file, TALK)
    album.town.messages.clear()
    await media.detach(file.id, TALK)
    await media.detach(file.id, TALK)
    assert await refused(media.seen_by(BOB, file.id)) == "MEDIA_UNKNOWN"
    await album.settle(media, 0)
    assert (await album.kept())[1:] == (0, 0)


async def test_a_file_in_two_conversations_stays_in_the_other(album: Album) -> None:
    media = album.process()
    file = await put(media)
    await album.sent(media, file, TALK)
    await album.sent(media, file, CLUB)
    album.town.messages.discard((TALK, file.id))
    await media.detach(file.id, TALK)
    await album.settle(media, rules.SENDING_SECONDS)
    assert await media.seen_by(EVE, file.id)
    assert (await media.views([file.id]))[file.id].conversations == (CLUB,)


async def test_a_file_in_two_messages_of_a_conversation_stays_with_the_second(album: Album) -> None:
    media = album.process()
    file = await put(media)
    await album.sent(media, file, TALK)
    await media.detach(file.id, TALK)  # the first was deleted, the second has it
    assert await media.seen_by(BOB, file.id)


async def test_a_deletion_that_died_before_it_let_go_of_the_file_is_made_good(album: Album) -> None:
    media = album.process()
    file = await put(media)
    await album.sent(media, file, TALK)
    await album.settle(media, rules.SENDING_SECONDS)
    album.town.messages.clear()
    await album.settle(media, rules.LOOK_AGAIN_DAYS * 86_400)
    assert (await album.kept())[1:] == (0, 0)


async def test_a_file_sent_again_while_its_message_is_deleted_stays(album: Album) -> None:
    media, other = album.process(), album.process()
    file = await put(media)
    await album.sent(media, file, TALK)
    album.town.messages.clear()
    town = album.town
    asked = 0

    class Meanwhile:
        sees = town.sees

        async def carries(self, conversation_id: str, media_id: str) -> bool:
            nonlocal asked
            asked += 1
            if asked > 1:
                return await town.carries(conversation_id, media_id)
            album.clock.pass_(1)
            await album.sent(other, file, TALK)
            return False

    media._audience = Meanwhile()  # type: ignore[assignment]
    await media.detach(file.id, TALK)
    assert (asked, await other.seen_by(BOB, file.id)) == (2, (await other.views([file.id]))[file.id])


async def test_one_deletes_ones_own_unsent_file_at_once(album: Album) -> None:
    media = album.process()
    file, sent = await put(media), await put(media)
    assert await refused(media.delete(BOB, file.id)) == "MEDIA_UNKNOWN"
    await media.delete(ANN, file.id)
    assert await album.chunks_of(file.id) == 0
    assert await refused(media.delete(ANN, file.id)) == "MEDIA_UNKNOWN"
    await album.sent(media, sent, TALK)
    assert await refused(media.delete(ANN, sent.id)) == "MEDIA_ATTACHED"
    assert await refused(media.delete(BOB, sent.id)) == "MEDIA_UNKNOWN", "it is not a recipient's"


async def test_a_deleted_account_takes_what_was_not_sent_along(album: Album) -> None:
    media = album.process()
    unsent, sent, others = await put(media), await put(media), await put(media, owner_id=BOB)
    await album.sent(media, sent, TALK)
    store = MediaStore(album.db)
    await album.db.transaction(lambda transaction: store.drop_all(ANN, transaction))
    await album.settle(media, 0)
    assert set(await media.views([unsent.id, sent.id, others.id])) == {sent.id, others.id}
    assert await media.seen_by(BOB, sent.id)


async def test_two_processes_look_at_what_is_due_and_each_thing_once(album: Album) -> None:
    first, second = album.process(), album.process()
    for _ in range(10):
        await put(first)
    album.clock.pass_(rules.UNSENT_SECONDS)
    done = await asyncio.gather(first.run_due(), second.run_due())
    assert sum(done) == 10
    assert (await album.kept())[1:] == (0, 0)
