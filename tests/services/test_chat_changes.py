"""Messages with more than words, and what becomes of them later: replies, files, ciphertexts, edits, deletions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pytest

from models.chat.message import Ciphertext, Draft
from models.chat.rules import pair_id
from models.chat.store import TELL_SECONDS
from models.db import Database
from models.errors import Refusal
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.callkit import Killed
from tests.services.chat_house import ANN, BOB, EVE, NOBODY, Spoken, World, build, device, refused, told

PAIR = pair_id(ANN, BOB)


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def sent(chat: Spoken, text: str = "hello", *, by: str = ANN, to: str = BOB, **more: Any) -> str:
    """The id of a new message."""
    written = await chat.say(device(by), to=to, text=text, op_id=f"{by}:{len(text)}", **more)
    return written.message.id


# ------------------------------------------------------------------------------------------------------------- replies


async def test_a_reply_is_to_a_message_of_the_same_conversation_that_one_may_see(world: World) -> None:
    chat = world.process()
    first = await sent(chat)
    await sent(chat, "yes?", by=BOB, to=ANN, reply_to=first)
    assert told(await world.log(ANN), "CHAT_MESSAGE")[-1]["replyTo"] == first
    elsewhere = await sent(chat, "psst", by=ANN, to=EVE)
    for wrong in (elsewhere, NOBODY):
        assert await refused(sent(chat, "no", reply_to=wrong)) == "MESSAGE_UNKNOWN"


# --------------------------------------------------------------------------------------------------------------- edits


async def test_an_edit_is_told_to_everybody_with_a_higher_version(world: World) -> None:
    chat = world.process()
    message_id = await sent(chat)
    for user_id, name in ((ANN, "phone"), (ANN, "tablet"), (BOB, "phone")):
        world.doors.connect(user_id, name)
    world.clock.pass_(5)
    written = await chat.edit(ANN, message_id, "hello, Bob")
    assert (written.message.text, written.message.version, written.message.seq) == ("hello, Bob", 2, 1)
    heard = world.doors.last(BOB, "phone", "MESSAGE_EDIT")
    assert (heard["id"], heard["text"], heard["version"], heard["seq"]) == (message_id, "hello, Bob", 2, 1)
    assert (heard["createdAt"], heard["editedAt"]) == ("2026-03-01T12:00:00.000Z", "2026-03-01T12:00:05.000Z")
    assert "opId" not in heard
    assert world.doors.last(ANN, "tablet", "MESSAGE_EDIT")["opId"] == f"{ANN}:5"
    assert world.doors.told(ANN, "phone") == ["MESSAGE_EDIT"]
    assert (await chat.messages(BOB, PAIR, limit=1)).items[0].message.text == "hello, Bob"


async def test_an_edit_that_is_repeated_is_told_once(world: World) -> None:
    chat = world.process()
    message_id = await sent(chat)
    first = await chat.edit(ANN, message_id, "other")
    again = await world.process().edit(ANN, message_id, "other")
    assert again.message == first.message
    assert len(told(await world.log(BOB), "MESSAGE_EDIT")) == 1


async def test_edits_at_two_processes_at_once_both_count_and_end_with_one_text(world: World) -> None:
    one, two = world.process(), world.process()
    message_id = await sent(one)
    await asyncio.gather(*((one, two)[n % 2].edit(ANN, message_id, f"text {n}") for n in range(6)))
    message = await one.evidence(BOB, message_id)
    assert message.version == 7
    heard = told(await world.log(BOB), "MESSAGE_EDIT")
    assert sorted(x["version"] for x in heard) == [2, 3, 4, 5, 6, 7]
    assert next(x["text"] for x in heard if x["version"] == 7) == message.text


@pytest.mark.parametrize("verb", ["edit", "delete"])
async def test_only_ones_own_messages_are_changed(world: World, verb: str) -> None:
    chat = world.process()
    message_id = await sent(chat)

    async def change(user_id: str, which: str) -> Any:
        if verb == "edit":
            return await chat.edit(user_id, which, "mine")
        return await chat.delete(user_id, which)

    assert await refused(change(BOB, message_id)) == "FORBIDDEN"
    assert await refused(change(EVE, message_id)) == "MESSAGE_UNKNOWN"
    assert await refused(change(ANN, NOBODY)) == "MESSAGE_UNKNOWN"
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB], op_id=None)
    note = (await chat.messages(ANN, group.id, limit=1)).items[0].message
    assert await refused(change(ANN, note.id)) == "FORBIDDEN", "what the server says nobody changes"


@pytest.mark.parametrize(("text", "code"), [("", "VALIDATION_FAILED"), ("ü" * 4097, "PAYLOAD_TOO_LARGE")])
async def test_an_edit_says_something_and_not_too_much(world: World, text: str, code: str) -> None:
    chat = world.process()
    message_id = await sent(chat)
    assert await refused(chat.edit(ANN, message_id, text)) == code


async def test_e61_an_edit_does_not_pass_a_block_and_a_deletion_does(world: World) -> None:
    chat = world.process()
    message_id = await sent(chat, "before")
    await world.users.block(BOB, ANN)
    assert await refused(chat.edit(ANN, message_id, "listen!")) == "USER_UNAVAILABLE"
    await chat.delete(ANN, message_id)
    assert [x["text"] for x in told(await world.log(BOB), "MESSAGE_DELETE")] == [None]


async def test_e61_new_words_in_a_group_do_not_pass_a_block_either(world: World) -> None:
    chat = world.process()
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    written = await chat.say(device(ANN), conversation_id=group.id, text="before", op_id="1")
    await world.users.block(EVE, ANN)
    await chat.edit(ANN, written.message.id, "listen!")
    assert told(await world.log(EVE), "MESSAGE_EDIT") == []
    assert [x["text"] for x in told(await world.log(BOB), "MESSAGE_EDIT")] == ["listen!"]
    seen = [one.message.text for one in (await chat.messages(EVE, group.id, limit=9)).items]
    assert "listen!" not in seen


# ----------------------------------------------------------------------------------------------------------- deletions


async def test_a_deleted_message_keeps_its_place_and_nothing_else(world: World) -> None:
    chat = world.process()
    message_id = await sent(chat, "a secret of mine")
    await sent(chat, "next")
    world.doors.connect(BOB, "phone")
    written = await chat.delete(ANN, message_id)
    assert (written.message.seq, written.message.text, written.message.version) == (1, None, 2)
    heard = world.doors.last(BOB, "phone", "MESSAGE_DELETE")
    assert (heard["text"], heard["deletedAt"], heard["seq"]) == (None, "2026-03-01T12:00:00.000Z", 1)
    page = await chat.messages(BOB, PAIR, after=0, limit=9)
    assert [one.message.text for one in page.items] == [None, "next"]
    for name in await world.db.db.list_collection_names():
        rows = [row async for row in world.db[name].find({})]
        assert "secret" not in str(rows), f"it is gone from {name}, the letters too"
    assert (await chat.search(BOB, "secret", limit=9)).items == []
    missed = await world.mailbox.missed(BOB, "another", 0)
    assert [x.payload["text"] for x in missed.letters] == [None, "next", None]


async def test_a_deletion_is_repeated_safely_and_nothing_follows_it(world: World) -> None:
    chat = world.process()
    message_id = await sent(chat)
    first = await chat.delete(ANN, message_id)
    assert (await world.process().delete(ANN, message_id)).message == first.message
    assert await refused(chat.edit(ANN, message_id, "after all")) == "MESSAGE_DELETED"
    again = await chat.say(device(ANN), to=BOB, text="hello", op_id=f"{ANN}:5")
    assert again.message == first.message, "a retry of the sending gets what is left of it"
    assert [x.event for x in await world.log(BOB)] == ["CHAT_MESSAGE", "MESSAGE_DELETE"]


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("what", ["message", "edit"])
async def test_a_letter_that_is_posted_after_the_deletion_says_nothing_either(
    world: World, what: str, lives: bool
) -> None:
    """One who is slow to tell, and whose message is deleted at another process before that.

    It looks again after telling; should it die before that, the job does.
    """
    slow, other = world.machine("slow"), world.process()
    teller: Any = slow.chat.announcer
    texts: list[Any] = []

    class Slow:
        """Tells a message, or another text of it, after its deletion is told."""

        async def announce(self, conversation: Any, written: Any, *, again: bool) -> None:
            if what == "message":
                await other.delete(ANN, written[0].message.id)
            await teller.announce(conversation, written, again=again)
            await self.look()

        async def announce_change(self, written: Any, **more: Any) -> None:
            if written.message.deleted_at is None:
                await other.delete(ANN, written.message.id)
            await teller.announce_change(written, **more)
            await self.look()

        async def look(self) -> None:
            texts.extend([row["payload"]["text"] async for row in world.db["letters"].find({"user_id": BOB})])
            slow.life.dead = slow.life.dead or not lives

        def __getattr__(self, name: str) -> Any:
            return getattr(teller, name)

    if what == "edit":
        message_id = await sent(other, "before")
    slow.chat.announcer = Slow()  # type: ignore[assignment]
    with contextlib.nullcontext() if lives else pytest.raises(Killed):
        await (
            sent(slow.chat, "a secret") if what == "message" else slow.chat.edit(ANN, message_id, "a secret")
        )
    assert ("a secret" in texts) == (what == "edit"), "a message's own letter found its key taken"
    if not lives:
        world.clock.pass_(TELL_SECONDS)
        assert await other.tell_untold() == 1
    assert "secret" not in str([row async for row in world.db["letters"].find({})])
    heard = [x.event for x in await world.log(BOB)]
    assert heard == ["CHAT_MESSAGE", "MESSAGE_DELETE", *(["MESSAGE_EDIT"] if what == "edit" else [])]
    world.clock.pass_(TELL_SECONDS)
    await other.tell_untold()
    assert await other.tell_untold() == 0
    assert [x.event for x in await world.log(BOB)] == heard, "and nobody is told of it twice"


async def test_a_deletion_is_for_all_who_have_the_message_also_if_they_see_it_no_longer(world: World) -> None:
    """Bob was removed and added again; from Eve new words were hidden, as she has blocked Ann since."""
    chat = world.process()
    late = (await world.crowd(1))[0]
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    said = [
        await chat.say(device(ANN), conversation_id=group.id, text=f"secret {n}", op_id=f"{n}")
        for n in range(2)
    ]
    await chat.groups.remove(device(ANN), group.id, BOB)
    await chat.groups.add(device(ANN), group.id, [BOB, late])
    await world.users.block(EVE, ANN)
    await chat.edit(ANN, said[1].message.id, "edited")
    for one in said:
        await chat.delete(ANN, one.message.id)
    letters = [row async for row in world.db["letters"].find({})]
    assert "secret" not in str(letters)
    for user_id in (ANN, BOB, EVE):
        heard = [x["id"] for x in told(await world.log(user_id), "MESSAGE_DELETE")]
        assert heard == [one.message.id for one in said]
    assert told(await world.log(late), "MESSAGE_DELETE") == [], "who never had it hears of nothing"


async def test_an_edit_and_a_deletion_at_once_end_with_the_deletion(world: World) -> None:
    one, two = world.process(), world.process()
    for n in range(5):
        message_id = await sent(one, "text" * (n + 2))
        results = await asyncio.gather(
            one.edit(ANN, message_id, "edited"), two.delete(ANN, message_id), return_exceptions=True
        )
        assert getattr(results[0], "code", "MESSAGE_DELETED") == "MESSAGE_DELETED"
        message = await one.evidence(BOB, message_id)
        assert (message.text, message.deleted_at is not None) == (None, True)
        letters = [x for x in await world.log(BOB) if x.payload["id"] == message_id]
        assert "MESSAGE_DELETE" in [x.event for x in letters]
        assert {x.payload["text"] for x in letters} == {None}, "also in a letter that came after the deletion"


async def test_who_has_left_a_group_may_still_delete_what_they_said(world: World) -> None:
    chat = world.process()
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB], op_id=None)
    written = await chat.say(device(BOB), conversation_id=group.id, text="oops", op_id="1")
    await chat.groups.leave(device(BOB), group.id)
    await chat.delete(BOB, written.message.id)
    assert [x["id"] for x in told(await world.log(ANN), "MESSAGE_DELETE")] == [written.message.id]


# --------------------------------------------------------------------------------------------------------------- files


@dataclass
class File:
    """A file as the media service gives it."""

    id: str
    kind: str = "image"
    content_type: str = "image/png"
    size_bytes: int = 1234
    filename: str | None = "cat.png"
    width: int | None = 640
    height: int | None = 480
    thumbnail: bool = True


@dataclass
class Cabinet:
    """Files, and where they were attached."""

    files: dict[str, str] = field(default_factory=lambda: {"cat": ANN, "dog": BOB})
    attached: list[tuple[str, str]] = field(default_factory=list)
    detached: list[tuple[str, str]] = field(default_factory=list)

    async def attach(self, media_id: str, *, owner_id: str, conversation_id: str) -> File:
        if self.files.get(media_id) != owner_id:
            raise Refusal("ATTACHMENT_UNKNOWN")
        self.attached.append((media_id, conversation_id))
        return File(media_id)

    async def detach(self, media_id: str, conversation_id: str) -> None:
        self.detached.append((media_id, conversation_id))


async def test_a_file_goes_with_a_message_with_words_or_without(world: World) -> None:
    cabinet = Cabinet()
    chat = world.process(attachments=cabinet)
    world.doors.connect(BOB, "phone")
    written = await chat.say(device(ANN), to=BOB, text=None, op_id="1", attachment_id="cat")
    assert cabinet.attached == [("cat", PAIR)]
    heard = world.doors.last(BOB, "phone", "CHAT_MESSAGE")
    assert (heard["text"], heard["attachment"]) == (
        None,
        {
            "id": "cat",
            "kind": "image",
            "contentType": "image/png",
            "sizeBytes": 1234,
            "filename": "cat.png",
            "width": 640,
            "height": 480,
            "url": "/api/media/cat",
            "thumbnailUrl": "/api/media/cat/thumbnail",
        },
    )
    assert world.pusher.said[-1]["preview"] == "Photo"
    await chat.say(device(ANN), to=BOB, text="my cat", op_id="2", attachment_id="cat")
    assert world.pusher.said[-1]["preview"] == "my cat"
    await chat.delete(ANN, written.message.id)
    assert cabinet.detached == [("cat", PAIR)]
    assert world.doors.last(BOB, "phone", "MESSAGE_DELETE")["attachment"] is None
    stored = await chat.evidence(BOB, written.message.id)
    assert stored.attachment is None


@pytest.mark.parametrize("media_id", ["dog", "nothing"])
async def test_a_file_that_is_not_ones_own_is_not_sent(world: World, media_id: str) -> None:
    chat = world.process(attachments=Cabinet())
    work = chat.say(device(ANN), to=BOB, text="look", op_id="1", attachment_id=media_id)
    assert await refused(work) == "ATTACHMENT_UNKNOWN"
    assert await world.numbers(PAIR) == []


async def test_the_same_op_id_with_another_file_or_reply_is_refused(world: World) -> None:
    chat = world.process(attachments=Cabinet())
    message_id = await sent(chat)
    await chat.say(device(ANN), to=BOB, text="x", op_id="1", attachment_id="cat")
    for more in ({}, {"attachment_id": "cat", "reply_to": message_id}, {"attachment_id": "dog"}):
        work = chat.say(device(ANN), to=BOB, text="x", op_id="1", **more)
        assert await refused(work) in ("IDEMPOTENCY_MISMATCH",), more


# ----------------------------------------------------------------------------------------------------------- encrypted


@dataclass
class Keys:
    """Which devices have keys."""

    devices: dict[str, set[str]]

    async def devices_of(self, user_ids: Collection[str]) -> dict[str, set[str]]:
        return {user_id: self.devices.get(user_id, set()) for user_id in user_ids}


def keys() -> Keys:
    return Keys({ANN: {"phone", "tablet"}, BOB: {"phone", "desk"}, EVE: {"phone"}})


def bodies(*devices: tuple[str, str]) -> tuple[Ciphertext, ...]:
    return tuple(Ciphertext(user_id=u, device_id=d, type=3, body=f"for/{u[-1]}/{d}") for u, d in devices)


ALL = ((ANN, "tablet"), (BOB, "phone"), (BOB, "desk"))


async def test_each_device_gets_its_own_body_of_an_encrypted_message(world: World) -> None:
    chat = world.process(key_devices=keys())
    for user_id, name in ((ANN, "phone"), *ALL, (BOB, "without keys")):
        world.doors.connect(user_id, name)
    written = await chat.say(device(ANN), to=BOB, text=None, op_id="1", ciphertexts=bodies(*ALL))
    for user_id, name in ALL:
        assert world.doors.told(user_id, name) == ["CHAT_MESSAGE"]
        heard = world.doors.last(user_id, name, "CHAT_MESSAGE")
        assert (heard["encrypted"], heard["text"]) == (True, None)
        body = {"type": 3, "body": f"for/{user_id[-1]}/{name}", "senderDeviceId": "phone"}
        assert heard["ciphertext"] == body
        assert ("opId" in heard) == (user_id == ANN)
    assert world.doors.told(ANN, "phone") == []
    assert world.doors.told(BOB, "without keys") == [], "it finds in the history that there is one"
    assert world.pusher.said[-1]["preview"] is None
    message = (await chat.messages(BOB, PAIR, limit=1)).items[0].message
    assert message.ciphertext_for(BOB, "desk") == bodies((BOB, "desk"))[0]
    assert message.ciphertext_for(BOB, "without keys") is None
    # Encrypted anew by an app that heard no ack: still the same message.
    again = tuple(Ciphertext(user_id=u, device_id=d, type=3, body="anew") for u, d in ALL)
    retry = await chat.send(device(ANN), Draft(op_id="1", ciphertexts=again), to=BOB)
    assert retry.message == written.message
    await chat.delete(ANN, written.message.id)
    rows = [row async for row in world.db["letters"].find({})]
    assert "for/" not in str(rows)
    assert (await chat.evidence(BOB, written.message.id)).ciphertexts == ()


async def test_the_bodies_are_for_exactly_the_devices_with_keys(world: World) -> None:
    chat = world.process(key_devices=keys())
    wrong = bodies((BOB, "phone"), (BOB, "sold"), (EVE, "phone"))
    with pytest.raises(Refusal) as no:
        await chat.say(device(ANN), to=BOB, text=None, op_id="1", ciphertexts=wrong)
    assert (no.value.code, no.value.details) == (
        "DEVICES_MISMATCH",
        {
            "missing": [{"userId": ANN, "deviceId": "tablet"}, {"userId": BOB, "deviceId": "desk"}],
            "stale": [{"userId": BOB, "deviceId": "sold"}, {"userId": EVE, "deviceId": "phone"}],
        },
    )
    assert await world.numbers(PAIR) == []
    without = world.process()
    assert await refused(
        without.say(device(ANN), to=BOB, text=None, op_id="1", ciphertexts=bodies(*ALL))
    ) == ("DEVICES_MISMATCH"), "no device has keys where there are none"


async def test_e61_in_a_group_who_has_blocked_the_sender_stops_no_encrypted_message(world: World) -> None:
    """Nobody can claim keys of who has blocked them: a body for those devices is neither needed nor delivered."""
    chat = world.process(key_devices=keys())
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    await world.users.block(EVE, ANN)
    eve = world.doors.connect(EVE, "phone")
    for op_id, targets in (("1", ALL), ("2", (*ALL, (EVE, "phone")))):
        ask = {"text": None, "op_id": op_id, "ciphertexts": bodies(*targets)}
        await chat.say(device(ANN), conversation_id=group.id, **ask)
    await world.users.unblock(EVE, ANN)
    assert eve == []
    assert [one.message.encrypted for one in (await chat.messages(EVE, group.id, limit=9)).items] == [False]
    short = chat.say(device(ANN), conversation_id=group.id, text=None, op_id="3", ciphertexts=bodies(*ALL))
    assert await refused(short) == "DEVICES_MISMATCH"


async def test_an_encrypted_message_is_neither_found_nor_edited(world: World) -> None:
    chat = world.process(key_devices=keys())
    written = await chat.say(device(ANN), to=BOB, text=None, op_id="1", ciphertexts=bodies(*ALL))
    assert (await chat.search(BOB, "for", limit=9)).items == []
    assert await refused(chat.edit(ANN, written.message.id, "plain")) == "VALIDATION_FAILED"


async def test_an_encrypted_message_dies_untold_and_is_told_by_the_job_to_each_device_once(
    world: World,
) -> None:
    machine = world.machine("p1", key_devices=keys())
    heir = world.machine("p2", key_devices=keys())
    await machine.chat.say(device(ANN), to=BOB, text=None, op_id="1", ciphertexts=bodies(*ALL))
    await world.db["messages"].update_many({}, {"$set": {"tell_at": world.clock.now()}})
    await heir.chat.tell_untold()
    assert len(await world.log(BOB)) == 2
    assert len(await world.log(ANN)) == 1
