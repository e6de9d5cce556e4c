"""A device that missed thousands of events is brought up by the log, page by page, no faster than it reads."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime

import pytest

from handlers.context import Context
from models.mailbox import service as mailbox_service
from models.mailbox.service import Stretch
from models.mailbox.store import PAGE_MAX
from models.ports import Letter
from server import telling
from server.app import SOCKETS
from server.protocol import BEHIND_BYTES, WAITING_MAX
from tests.doors.conftest import House, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 2 * PAGE_MAX + 7


async def post(house: House, person: Person, count: int, *, size: int = 0, first: int = 1) -> None:
    await house.services.mailbox.post(
        [
            Letter(user_id=person.id, event="NEWS", payload={"n": n, "filler": "x" * size}, key=f"n{n}")
            for n in range(first, first + count)
        ]
    )


async def test_what_fills_several_pages_comes_in_order_and_once_with_what_is_posted_meanwhile(
    house: House,
) -> None:
    bob = await house.person("bob")
    await post(house, bob, MANY)
    phone = await bob.dial("b", since=0)
    for n in range(50):  # while the replay runs
        await post(house, bob, 1, first=MANY + 1 + n)
    sync = await phone.happens("SYNC")
    assert (sync["gap"], sync["missed"]) == (False, sync["seq"])
    await post(house, bob, 1, first=MANY + 51)
    while len(phone.heard("NEWS")) < MANY + 51:
        await phone.happens("NEWS")
    numbers = [told["n"] for told in phone.heard("NEWS")]
    assert numbers == list(range(1, MANY + 52))
    assert [told["logSeq"] for told in phone.heard("NEWS")] == numbers

    rest = await bob.dial("b", since=MANY)
    assert (await rest.happens("SYNC"))["missed"] == 51


async def test_a_phone_that_does_not_read_its_replay_holds_up_nothing_and_is_not_cut_off_for_it(
    house: House,
) -> None:
    """What waits for it in memory stays below what counts as too slow; when it reads on, everything comes."""
    slow, well = await asyncio.gather(house.person("slow"), house.person("well"))
    await post(house, slow, 2 * WAITING_MAX, size=8 * 1024)
    other = await well.phone("well")
    url = house.url + "/socket.io/?EIO=4&transport=websocket"
    async with house.http.ws_connect(url, max_msg_size=0) as socket:
        await socket.receive()
        await socket.send_str("40" + json.dumps({"token": slow.token, "deviceId": "slow", "since": 0}))
        assert (await socket.receive()).data.startswith("40")
        for _ in range(20):
            assert await other.ask("CALL_SYNC") == {"calls": []}
        wire = house.app[SOCKETS].sio.wire(
            next(c.eio_sid for c in house.app[SOCKETS]._by_user[slow.id].values())
        )
        assert wire is not None
        assert wire.waiting() <= 2 * BEHIND_BYTES
        told: list[int] = []
        while len(told) < 2 * WAITING_MAX:
            frame = (await socket.receive()).data
            if frame == "2":
                await socket.send_str("3")
            elif frame.startswith('42["NEWS"'):
                told.append(json.loads(frame[2:])[1]["n"])
        assert told == list(range(1, 2 * WAITING_MAX + 1))


async def test_a_phone_that_goes_in_the_middle_of_its_replay_leaves_nothing_behind(house: House) -> None:
    gone = await house.person("gone")
    await post(house, gone, 2 * WAITING_MAX, size=8 * 1024)
    url = house.url + "/socket.io/?EIO=4&transport=websocket"
    async with house.http.ws_connect(url, max_msg_size=0) as socket:
        await socket.receive()
        await socket.send_str("40" + json.dumps({"token": gone.token, "deviceId": "gone", "since": 0}))
        sid = json.loads((await socket.receive()).data.removeprefix("40"))["sid"]
        while not (await socket.receive()).data.startswith('42["NEWS"'):
            pass
    for _ in range(10_000):
        if not house.app[SOCKETS].online(gone.id) and not waits(sid):
            break
        await house.db.ping()
    else:
        pytest.fail(f"still there: {waits(sid)}")


async def test_a_phone_that_goes_while_a_page_is_sent_to_it_leaves_nothing_behind(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await house.person("gone")
    await post(house, gone, 3 * PAGE_MAX)
    sockets = house.app[SOCKETS]
    more, after = sockets._telling.more, sockets._gone
    gone_now, written = asyncio.Event(), asyncio.Event()

    async def leave(ctx: Context, seq: int) -> Stretch:
        page = await more(ctx, seq)
        if seq >= 2 * PAGE_MAX and not gone_now.is_set():
            await socket.close()
            await gone_now.wait()
        return page

    async def write_down(ctx: Context, seen: datetime) -> None:
        gone_now.set()
        await written.wait()
        await after(ctx, seen)

    monkeypatch.setattr(sockets._telling, "more", leave)
    monkeypatch.setattr(sockets, "_gone", write_down)
    url = house.url + "/socket.io/?EIO=4&transport=websocket"
    async with house.http.ws_connect(url) as socket:
        await socket.receive()
        await socket.send_str("40" + json.dumps({"token": gone.token, "deviceId": "gone", "since": 0}))
        await gone_now.wait()
        for _ in range(50):  # the rest of the page
            await house.db.ping()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("replay")]
        written.set()


def waits(sid: str) -> list[str]:
    """The tasks that were made for a connection."""
    return [task.get_name() for task in asyncio.all_tasks() if sid in task.get_name()]


async def test_e59_a_phone_that_is_too_far_behind_is_told_of_a_gap_and_reads_the_histories(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox_service, "CATCH_UP_MAX", PAGE_MAX)
    bob = await house.person("bob")
    await post(house, bob, PAGE_MAX + 1)
    phone = await bob.dial("b", since=0)
    sync = await phone.happens("SYNC")
    assert (sync["gap"], sync["missed"], sync["seq"]) == (True, 0, PAGE_MAX + 1)
    await post(house, bob, 1, first=PAGE_MAX + 2)
    assert (await phone.happens("NEWS"))["n"] == PAGE_MAX + 2
    near = await bob.dial("b2", since=2)
    assert (await near.happens("SYNC"))["gap"] is False


async def test_what_is_thrown_away_while_a_phone_is_brought_up_is_a_gap_and_no_hole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await house.person("bob")
    await post(house, bob, 3 * PAGE_MAX)
    more = house.app[SOCKETS]._telling.more

    async def trimmed_meanwhile(ctx: Context, seq: int) -> Stretch:
        if seq == PAGE_MAX:
            up_to = {"user_id": bob.id, "seq": {"$lte": 2 * PAGE_MAX}}
            await house.db["letters"].delete_many(up_to)
            await house.db["mailboxes"].update_one({"_id": bob.id}, {"$set": {"trimmed_to": 2 * PAGE_MAX}})
        return await more(ctx, seq)

    monkeypatch.setattr(house.app[SOCKETS]._telling, "more", trimmed_meanwhile)
    phone = await bob.dial("b", since=0)
    assert (await phone.happens("SYNC"))["gap"] is False
    await phone.happens("*disconnect")
    assert [told["n"] for told in phone.heard("NEWS")] == list(range(1, PAGE_MAX + 1))
    monkeypatch.undo()
    again = await bob.dial("b", since=PAGE_MAX)
    sync = await again.happens("SYNC")
    assert (sync["gap"], sync["missed"], sync["seq"]) == (True, 0, 3 * PAGE_MAX)


async def test_a_letter_that_comes_before_the_one_before_it_waits_for_it(house: House) -> None:
    """As it is when two processes post to one person: the log knows the order, and whoever is quicker does not."""
    bob = await house.person("bob")
    phone = await bob.phone("b")
    mailbox = house.services.mailbox
    letters = [Letter(user_id=bob.id, event="NEWS", payload={"n": n}, key=f"n{n}") for n in range(1, 4)]
    numbers = await mailbox._store.append_all(letters, house.clock.now())
    told = [replace(letter, seq=seq) for letter, seq in zip(letters, numbers, strict=True)]
    await house.app[SOCKETS].deliver([told[2]])
    await house.app[SOCKETS].deliver([told[0]])
    for n in (1, 2, 3):
        assert (await phone.happens("NEWS"))["n"] == n
    await phone.settled()
    assert [one["n"] for one in phone.heard("NEWS")] == [1, 2, 3]


async def test_letters_beyond_those_that_wait_in_memory_come_from_the_log(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PENDING_MAX", 3)
    bob = await house.person("bob")
    phone = await bob.phone("b")
    (connection,) = house.app[SOCKETS]._by_user[bob.id].values()
    while connection.pending is not None:
        await house.db.ping()
    connection.pending = []  # as while something goes before them
    await post(house, bob, 10)
    assert len(connection.pending) == 3
    await house.app[SOCKETS]._telling.catch_up(connection)
    while len(phone.heard("NEWS")) < 10:
        await phone.happens("NEWS")
    assert [one["n"] for one in phone.heard("NEWS")] == list(range(1, 11))


async def test_a_phone_that_misses_what_is_only_of_the_moment_begins_anew(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PENDING_MAX", 3)
    bob = await house.person("bob")
    phone = await bob.phone("b")
    (connection,) = house.app[SOCKETS]._by_user[bob.id].values()
    while connection.pending is not None:
        await house.db.ping()
    connection.pending = []
    moment = Letter(user_id=bob.id, event="NEWS", payload={})
    await house.app[SOCKETS].deliver([moment] * 4)
    await phone.happens("*disconnect")
    assert len(connection.pending) == 3
