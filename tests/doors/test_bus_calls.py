"""Several processes and Redis: what one phone says reaches the other at once, whichever process it is at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from models.db import Database
from server.app import BUS, SOCKETS
from tests.doors.conftest import House, Person, open_house
from tests.doors.phones import Exchange, Phone
from tests.doors.redis_server import RedisServer
from tests.doors.serverprocess import eventually
from tests.doors.talk import answer, candidate, offer, snapshots_rise
from tests.fakes import VirtualClock


class Town:
    """Processes on one database and one Redis."""

    def __init__(
        self, uri: str, database: str, exchange: Exchange, redis: RedisServer, stack: AsyncExitStack
    ) -> None:
        self._uri, self._exchange, self._stack = uri, exchange, stack
        self.redis, self.database = redis, database
        self.clock = VirtualClock()
        self.houses: list[House] = []

    async def open(self, count: int) -> list[House]:
        """As many processes more, all of which have heard of one another."""
        for _ in range(count):
            house = await self._stack.enter_async_context(
                open_house(
                    self._uri,
                    self._exchange,
                    clock=self.clock,
                    database=self.database,
                    REDIS_URL=self.redis.url,
                )
            )
            self.houses.append(house)
        await self.joined()
        return self.houses

    async def joined(self) -> None:
        """All reach Redis, and know that there are others."""
        await eventually(
            lambda: all(house.app[BUS].reaches for house in self.houses), what="Redis is reached"
        )
        for house in self.houses:
            await house.services.calls.run_leases(8)
        assert all(house.services.calls.others_live for house in self.houses) or len(self.houses) == 1

    async def still(self) -> None:
        """Nothing is on its way: two messages to everybody, one after the other, have come back."""
        for _ in range(2):
            heard = [house.app[BUS].beats for house in self.houses]
            for house in self.houses:
                house.app[BUS].ask_back()
            await eventually(
                lambda heard=heard: all(
                    house.app[BUS].beats > before for house, before in zip(self.houses, heard, strict=True)
                )
            )


@pytest.fixture
async def town(mongo_uri: str, db: Database, exchange: Exchange, tmp_path: Path) -> AsyncIterator[Town]:
    redis = await RedisServer(tmp_path).start()
    try:
        async with AsyncExitStack() as stack:
            built = Town(mongo_uri, db.db.name, exchange, redis, stack)
            yield built
            phones = [phone for house in built.houses for phone in house.phones]
            snapshots_rise(phones)
    finally:
        await redis.kill()


def at(house: House, person: Person) -> Person:
    """The same person, at another process."""
    return Person(house, person.username, person.signed_in)


async def people(one: House, two: House) -> tuple[Person, Phone, Person, Phone]:
    ada, bob = await asyncio.gather(one.person("ada"), two.person("bob"))
    a, b = await asyncio.gather(ada.phone("a"), bob.phone("b"))
    return ada, a, bob, b


async def accepted(a: Phone, b: Phone, bob: Person) -> str:
    """A call from a to b that is active; its id."""
    call = await a.ask("CALL_REQUEST", {"to": bob.id, "type": "audio", "offer": offer("aaaa")})
    await b.happens("CALL_REQUEST")
    await b.ask("CALL_ACCEPT", {"callId": call["id"], "answer": answer("bbbb")})
    await a.happens("CALL_ACCEPT")
    return str(call["id"])


async def test_a_call_between_two_processes_is_as_one_within_a_process(town: Town) -> None:
    one, two = await town.open(2)
    _, a, bob, b = await people(one, two)
    call = await a.ask("CALL_REQUEST", {"to": bob.id, "type": "audio", "offer": offer("aaaa")})
    call_id = call["id"]
    rung = await b.happens("CALL_REQUEST", seconds=3)
    assert rung["offer"] == offer("aaaa")
    await b.ask("CALL_RINGING", callId=call_id)
    await a.happens("CALL_RINGING", seconds=3)
    # Sent before anybody has answered: held by the caller's process until it hears of the answer.
    for number in (1, 2):
        await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(number, "aaaa")})
    await b.ask("CALL_ACCEPT", {"callId": call_id, "answer": answer("bbbb")})
    taken = await a.happens("CALL_ACCEPT", seconds=3)
    assert taken["answer"] == answer("bbbb")
    for number in (1, 2):
        held = await b.happens("ICE_CANDIDATE", seconds=3)
        assert held["candidate"] == candidate(number, "aaaa")
    for number in (3, 4):
        await b.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(number, "bbbb")})
        assert (await a.happens("ICE_CANDIDATE", seconds=3))["candidate"] == candidate(number, "bbbb")
    await a.ask("SESSION_DESCRIPTION", {"callId": call_id, "description": offer("cccc")})
    assert (await b.happens("SESSION_DESCRIPTION", seconds=3))["description"] == offer("cccc")
    await b.ask("CALL_ENDED", callId=call_id)
    await a.happens("CALL_ENDED", seconds=3)
    assert (await a.refused("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(5)}))[
        "code"
    ] == "CALL_ENDED"
    assert len(b.heard("ICE_CANDIDATE")) == 2
    assert len(a.heard("ICE_CANDIDATE")) == 2


@pytest.mark.parametrize("count", [2, 4, 8])
async def test_a_relayed_message_is_published_once_and_wakes_one_other_process(
    town: Town, count: int
) -> None:
    houses = await town.open(count)
    _, a, bob, b = await people(houses[0], houses[-1])
    call_id = await accepted(a, b, bob)
    await town.still()
    before = [(house.app[BUS].published.copy(), house.app[BUS].received.copy()) for house in houses]
    for number in range(20):
        await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(number, "aaaa")})
    for number in range(20):
        assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(number, "aaaa")
    await town.still()
    published = [house.app[BUS].published - was for house, (was, _) in zip(houses, before, strict=True)]
    received = [house.app[BUS].received - was for house, (_, was) in zip(houses, before, strict=True)]
    assert published == [Counter(frame=20), *[Counter()] * (count - 1)]
    assert received == [*[Counter()] * (count - 1), Counter(frame=20)]


async def test_two_at_one_process_cost_the_others_nothing(town: Town) -> None:
    one, two = await town.open(2)
    _, a, bob, b = await people(one, one)
    call_id = await accepted(a, b, bob)
    await town.still()
    was = one.app[BUS].published.copy()
    for number in range(5):
        await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(number, "aaaa")})
        await b.happens("ICE_CANDIDATE")
    assert one.app[BUS].published == was
    assert two.app[BUS].received["letter"] == two.app[BUS].received["frame"] == 0


async def test_candidates_sent_by_rest_to_a_process_of_neither_find_their_way(town: Town) -> None:
    one, two, three = await town.open(3)
    ada, a, bob, b = await people(one, two)
    call = await a.ask("CALL_REQUEST", {"to": bob.id, "type": "audio", "offer": offer("aaaa")})
    await b.happens("CALL_REQUEST")
    body = {"callId": call["id"], "candidate": candidate(1, "aaaa")}
    sent = await at(three, ada).post("/api/calls/signal", body, headers={"X-Device-Id": "a"})
    assert sent.status in (200, 204), sent.body
    await b.ask("CALL_ACCEPT", {"callId": call["id"], "answer": answer("bbbb")})
    assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(1, "aaaa")


async def test_who_has_moved_since_hears_what_was_sent_to_their_old_process(town: Town) -> None:
    one, two, three = await town.open(3)
    _, a, bob, b = await people(one, two)
    call_id = await accepted(a, b, bob)
    await town.still()
    # The caller's process is not told where the callee's device is now.
    moved = await at(three, bob).phone("b2")
    leg = one.services.calls.board.call(call_id).callee_leg
    assert leg.device_id == "b"
    await moved.ask("CALL_RESUME", callId=call_id)
    await b.happens("CALL_ANSWERED_ELSEWHERE")
    await eventually(lambda: one.services.calls.board.call(call_id).callee_leg.device_id == "b2")
    await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(1, "aaaa")})
    await moved.happens("ICE_CANDIDATE")
    assert b.heard("ICE_CANDIDATE") == []


async def test_typing_messages_presence_and_the_end_of_a_sign_in_cross_at_once(town: Town) -> None:
    one, two = await town.open(2)
    ada, a, bob, b = await people(one, two)
    await b.ask("CHAT_MESSAGE", {"to": ada.id, "text": "hello", "opId": "1"})
    assert (await a.happens("CHAT_MESSAGE", seconds=3))["text"] == "hello"
    await a.ask("CHAT_TYPING", {"to": bob.id})
    await b.happens("CHAT_TYPING", seconds=3)
    cid = await one.person("cid")
    await b.ask("PRESENCE_WATCH", {"userIds": [cid.id]})
    await cid.phone("c")
    assert (await b.happens("PRESENCE", seconds=3))["state"] == "online"
    assert two.app[BUS].received["stirred"] == 1
    b2 = await at(one, bob).phone("b2")
    assert (await at(one, bob).post("/api/auth/logout")).status == 204
    assert two.app[BUS].received["close"] + one.app[BUS].received["close"] == 1
    for phone in (b, b2):
        said = await phone.happens("error", seconds=3)
        assert said["error"]["code"] == "SESSION_ENDED"
        await phone.happens("*disconnect")


async def test_with_redis_killed_in_a_call_local_traffic_goes_on_and_facts_arrive_and_then_all_is_as_before(
    town: Town,
) -> None:
    one, two = await town.open(2)
    ada, a, bob, b = await people(one, two)
    _, c, dan, d = await people(one, one)
    call_id, local_id = await accepted(a, b, bob), await accepted(c, d, dan)
    await town.redis.kill()
    await eventually(lambda: not any(house.app[BUS].reaches for house in town.houses), what="it is noticed")
    # Within a process: at once. Between processes: by the log.
    await c.ask("ICE_CANDIDATE", {"callId": local_id, "candidate": candidate(1, "aaaa")})
    await d.happens("ICE_CANDIDATE")
    await b.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(1, "bbbb")})
    assert (await a.happens("ICE_CANDIDATE"))["candidate"] == candidate(1, "bbbb")
    await a.ask("SESSION_DESCRIPTION", {"callId": call_id, "description": offer("cccc")})
    assert (await b.happens("SESSION_DESCRIPTION"))["description"] == offer("cccc")
    await b.ask("CHAT_MESSAGE", {"to": ada.id, "text": "while it is away", "opId": "1"})
    assert (await a.happens("CHAT_MESSAGE"))["text"] == "while it is away"
    assert (await one.send("GET", "/health")).body["redis"] == "down"

    await town.redis.start()
    await town.joined()
    await town.still()
    was = two.app[BUS].received["frame"]
    await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(2, "cccc")})
    assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(2, "cccc")
    await town.still()
    assert two.app[BUS].received["frame"] == was + 1
    await a.ask("CALL_ENDED", callId=call_id)
    await b.happens("CALL_ENDED")
    assert len(b.heard("ICE_CANDIDATE")) == 1
    assert len(a.heard("ICE_CANDIDATE")) == len(a.heard("CHAT_MESSAGE")) == len(b.heard("CALL_ENDED")) == 1


async def test_a_redis_that_hangs_is_given_up(town: Town) -> None:
    one, two = await town.open(2)
    _, a, bob, b = await people(one, two)
    call_id = await accepted(a, b, bob)
    town.redis.freeze()
    try:
        await eventually(
            lambda: not any(house.app[BUS].reaches for house in town.houses), what="it is noticed"
        )
        await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(1, "aaaa")})
        await b.happens("ICE_CANDIDATE")
        await a.ask("CALL_ENDED", callId=call_id)
        await b.happens("CALL_ENDED")
    finally:
        town.redis.thaw()
    await town.joined()
    assert len(b.heard("CALL_ENDED")) == 1


async def test_what_redis_lost_is_read_all_the_same(town: Town) -> None:
    one, two = await town.open(2)
    _, a, bob, b = await people(one, two)
    await town.still()
    one.app[BUS].carry = lambda letters: None  # type: ignore[method-assign]
    for number in range(3):
        await a.ask("CHAT_MESSAGE", {"to": bob.id, "text": f"{number}", "opId": f"{number}"})
    for number in range(3):
        assert (await b.happens("CHAT_MESSAGE"))["text"] == str(number)
    assert two.app[BUS].received["letter"] == 0


async def test_a_process_that_stood_still_relays_nothing_by_what_it_knew_before(town: Town) -> None:
    one, two = await town.open(2)
    ada, a, bob, b = await people(one, two)
    call_id = await accepted(a, b, bob)
    await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(1, "aaaa")})
    await b.happens("ICE_CANDIDATE")

    async def deaf(call_id: str, version: int) -> None:
        """What others say waits behind what the phones have sent."""

    one.services.calls.heard = deaf
    # Taken for dead, it has lost its caller to the other process: the same device, with a new negotiation.
    back = await at(two, ada).phone("a")
    await back.ask("CALL_RESUME", callId=call_id)
    await back.ask("SESSION_DESCRIPTION", {"callId": call_id, "description": offer("cccc")})
    await b.happens("SESSION_DESCRIPTION")
    await b.ask("SESSION_DESCRIPTION", {"callId": call_id, "description": answer("dddd")})
    assert one.services.calls.board.call(call_id).version < two.services.calls.board.call(call_id).version
    one.app[SOCKETS].awake.looked_at -= 20
    await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(2, "aaaa")})
    await back.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(3, "cccc")})
    assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(3, "cccc")
    assert len(b.heard("ICE_CANDIDATE")) == 2, "the one of the negotiation that is over went nowhere"
    assert one.services.calls.board.doubted == set()


async def test_a_process_that_stood_still_relays_at_once_again_after_one_look(town: Town) -> None:
    (one,) = await town.open(1)
    _, a, bob, b = await people(one, one)
    call_id = await accepted(a, b, bob)
    await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(1, "aaaa")})
    await b.happens("ICE_CANDIDATE")
    one.app[SOCKETS].awake.looked_at -= 20
    for number in range(2, 6):
        await a.ask("ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(number, "aaaa")})
        assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(number, "aaaa")
    board = one.services.calls.board
    assert board.doubted == set()
    assert board.route(call_id, board.call(call_id).caller.user_id, "a") is not None
