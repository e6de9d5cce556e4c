"""A room whose media LiveKit carries: what LiveKit tells, in whatever order, and what it does not tell."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from models.db import Database
from models.errors import Refusal
from models.rooms.livekit.rules import Key
from models.rooms.livekit.service import LOOK_EVERY_SECONDS, LiveKit, MediaServerAway
from models.rooms.livekit.store import CONNECTIONS, LiveKitStore
from models.rooms.room import Gone, Room
from models.rooms.store import RoomStore
from server.adapters.livekit import LiveKitServer
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed
from tests.services.paid_rooms import RATE, Guest, House, RoomTown, gone
from tests.standins.livekit import API_KEY, API_SECRET, StandIn, livekit, signature

SECOND = RATE // 60


class Scene:
    """Olu's room, Ann on her way into it by REST, and LiveKit."""

    def __init__(self, town: RoomTown, media: StandIn) -> None:
        self.town, self.media = town, media
        self.servers: list[LiveKitServer] = []
        self.here = town.process("here")
        self.lk = self.livekit_of(self.here)

    def livekit_of(self, house: House) -> LiveKit:
        """LiveKit as a process has it."""
        key = Key(url=self.media.url, api_key=API_KEY, api_secret=API_SECRET)
        self.servers.append(LiveKitServer(key=key, clock=self.town.clock))
        return LiveKit(
            key=key,
            store=LiveKitStore(house.life),  # type: ignore[arg-type]
            rooms=house.rooms,
            load=RoomStore(house.life).load,  # type: ignore[arg-type]
            server=self.servers[-1],
            clock=self.town.clock,
        )

    async def begin(self, rate: int | None = None) -> None:
        olu = await self.town.guest(self.here, "olu")
        self.room = await olu.create(rate=rate)
        self.ann = replace(await self.town.guest(self.here, "ann", 100 * SECOND), rest=True)
        await self.ann.join(self.room)

    def event(self, name: str, sid: str = "PA_1", who: str = "ann:phone", **more: str) -> bytes:
        return self.media.event(name, self.room.id, self.town.clock.now(), sid=sid, identity=who, **more)

    async def tell(self, body: bytes, lk: LiveKit | None = None) -> None:
        await (lk or self.lk).heard(body=body, authorization=signature(body, self.town.clock.now()))

    async def seats(self, name: str = "ann") -> list[str]:
        """The devices with which somebody is in the room."""
        one = (await self.now()).participant(name)
        return [seat.device_id for seat in one.seats] if one is not None else []

    async def now(self) -> Room:
        return await self.town.room(self.room.id)


@pytest.fixture
async def s(db: Database, clock: VirtualClock, ids: CountingIds) -> AsyncIterator[Scene]:
    town = RoomTown(db, clock, ids)
    await town.people("olu", "ann", "bob")
    async with livekit() as media:
        scene = Scene(town, media)
        await scene.begin()
        yield scene
        for server in scene.servers:
            await server.close()


async def test_who_is_connected_to_livekit_is_in_the_room_until_the_last_connection_ends(s: Scene) -> None:
    await s.tell(s.event("participant_joined"))
    await s.tell(s.event("participant_joined", "PA_2", "ann:laptop"))
    assert await s.seats() == ["livekit:PA_1", "livekit:PA_2"]
    assert s.here.said.of("ann") == ["joined"]
    await s.tell(s.event("participant_left"))
    assert s.here.said.of("ann") == ["joined"]
    await s.tell(s.event("participant_left", "PA_2", "ann:laptop"))
    assert s.here.said.of("ann") == ["joined", "left"]
    assert await s.seats() == []


async def test_in_every_order_and_twice_over_the_end_of_a_connection_is_its_end(s: Scene) -> None:
    """Two connections of one device, of which the first is thrown out by the second (DUPLICATE_IDENTITY)."""
    for number, order in enumerate(itertools.permutations(range(3))):
        old, new = f"PA_old{number}", f"PA_new{number}"
        events = [
            s.event("participant_joined", old),
            s.event("participant_joined", new),
            s.event("participant_left", old),
        ]
        await s.ann.join(s.room)
        for n in order:
            await s.tell(events[n])
        for n in order:
            await s.tell(events[n])
        assert await s.seats() == [f"livekit:{new}"], order
        await s.tell(s.event("participant_left", new))
        assert await s.seats() == [], order


async def test_the_same_notification_again_does_nothing(s: Scene) -> None:
    joined, left = s.event("participant_joined"), s.event("participant_connection_aborted")
    for body in (joined, left, joined, left, joined):
        await s.tell(body)
    assert await s.seats() == []
    assert s.here.said.of("ann") == ["joined", "left"]


async def test_what_livekit_has_not_signed_changes_nothing(s: Scene) -> None:
    body = s.event("participant_joined")
    for header in ("", signature(body, s.town.clock.now(), "t" * 32), signature(b"{}", s.town.clock.now())):
        with pytest.raises(Refusal) as no:
            await s.lk.heard(body=body, authorization=header)
        assert no.value.code == "WEBHOOK_INVALID"
    assert await s.seats() == []


async def test_rooms_and_participants_that_are_not_ours_are_taken_note_of_and_no_more(s: Scene) -> None:
    await s.tell(
        s.media.event("participant_joined", "elsewhere", s.town.clock.now(), sid="PA", identity="a:b")
    )
    await s.tell(s.event("participant_joined", "PA_r", "recorder"))
    await s.tell(s.event("room_started", ""))
    await s.tell(s.event("egress_started", ""))
    assert (await s.now()).present == ()


async def test_who_was_shown_out_does_not_come_back_with_a_token_from_before(s: Scene) -> None:
    await s.here.rooms.kick("olu", s.room.id, "ann")
    await s.tell(s.event("participant_joined"))
    assert await s.seats() == []
    s.media.rooms[s.room.id] = {"PA_1": "ann:phone"}
    assert await s.lk.run_removals() == 0, "whoever is only coming in has no seat either"
    s.town.clock.pass_(6)
    assert await s.lk.run_removals() == 1
    assert s.media.removed == [(s.room.id, "ann:phone")]
    assert await s.lk.run_removals() == 0


async def test_a_room_that_is_finished_lets_all_go_who_were_in_that_life_of_it(s: Scene) -> None:
    bob = await s.town.guest(s.here, "bob")
    await bob.join(s.room)
    await s.tell(s.event("participant_joined"))
    await s.tell(s.event("participant_joined", "PA_b", "bob:phone"))
    await s.ann.join(s.room)
    await s.tell(s.event("participant_joined", "PA_next", room_sid="RM_2"))
    await s.tell(s.event("room_finished", ""))
    assert await s.seats() == ["livekit:PA_next"]
    assert await s.seats("bob") == ["bob-phone"], "by a socket of ours, bob is still there"
    await s.tell(s.event("participant_joined", "PA_late"))
    assert await s.seats() == ["livekit:PA_next"], "told late, of the life that is over"


async def test_whoever_publishes_is_there_though_nobody_said_so(s: Scene) -> None:
    await s.tell(s.event("track_published"))
    assert await s.seats() == ["livekit:PA_1"]


async def test_a_leaving_that_is_never_told_is_found_by_asking(s: Scene) -> None:
    await s.tell(s.event("participant_joined"))
    await s.tell(s.event("participant_joined", "PA_2", "ann:laptop"))
    s.media.rooms[s.room.id] = {"PA_2": "ann:laptop"}
    await s.lk.run_attendance()
    assert len(await s.seats()) == 2, "not asked so soon"
    s.town.clock.pass_(21)
    s.media.away = True
    await s.lk.run_attendance()
    assert len(await s.seats()) == 2, "no answer is no leaving"
    s.media.away = False
    await s.lk.run_attendance()
    assert await s.seats() == ["livekit:PA_2"]
    await s.tell(s.event("participant_joined"))
    assert await s.seats() == ["livekit:PA_2"]


async def test_a_ticket_is_for_who_has_a_place(s: Scene) -> None:
    people = await s.here.users.profiles({"ann", "bob"})
    room = await s.now()
    ticket = await s.lk.ticket(room, people["ann"], "phone")
    assert ticket is not None
    assert (ticket["url"], ticket["expires_in_ms"]) == (s.media.url, 600_000)
    assert await s.lk.ticket(room, people["bob"], "phone") is None
    assert await s.lk.ticket(room, None, "phone") is None
    (ann,) = room.participants
    unpaid = replace(room, participants=(replace(ann, pending=True),))
    assert await s.lk.ticket(unpaid, people["ann"], "phone") is None


async def test_an_end_that_is_told_while_the_beginning_is_acted_upon_is_the_end(s: Scene) -> None:
    class Slow:
        """The rooms, with time for a notification before somebody has their seat."""

        left = s.here.rooms.left

        async def entered(self, *, room_id: str, user_id: str, device_id: str) -> None:
            await s.tell(s.event("participant_left"), s.livekit_of(s.here))
            await s.here.rooms.entered(room_id=room_id, user_id=user_id, device_id=device_id)

    s.lk._rooms = Slow()
    await s.tell(s.event("participant_joined"))
    assert await s.seats() == []


@pytest.mark.parametrize("by", ["leaving", "removal"])
async def test_who_has_left_the_room_is_not_brought_back_by_what_is_told_of_the_same_connection(
    s: Scene, by: str
) -> None:
    await s.ann.leave(s.room)
    await s.begin(rate=RATE)
    await s.tell(s.event("participant_joined"))
    s.media.rooms[s.room.id] = {"PA_1": "ann:phone"}
    s.town.clock.pass_(30)
    if by == "leaving":
        await s.ann.leave(s.room)
    else:
        await s.here.rooms.removed(s.room.id, "ann", reason=Gone.DURATION)
    s.town.clock.pass_(1)
    await s.tell(s.event("track_published"))
    await s.tell(s.event("participant_joined"))
    s.town.clock.pass_(LOOK_EVERY_SECONDS)
    await s.lk.run_attendance()
    assert await s.seats() == []
    assert (await s.town.stay("ann")).cost_minor == 30 * SECOND
    s.town.clock.pass_(6)
    assert await s.lk.run_removals() == 1
    assert s.media.removed == [(s.room.id, "ann:phone")]


async def test_a_device_that_connects_anew_has_one_seat_by_livekit(s: Scene) -> None:
    await s.tell(s.event("participant_joined"))
    old = s.event("track_published", "PA_0")
    s.town.clock.pass_(5)
    await s.tell(s.event("participant_joined", "PA_2"))
    assert await s.seats() == ["livekit:PA_2"]
    await s.tell(s.event("track_published"))
    assert await s.seats() == ["livekit:PA_2"], "the older one has ended"
    await s.tell(old)
    assert "livekit:PA_2" in await s.seats(), "told late, of before"
    await s.tell(s.event("participant_joined", "PA_3", "ann:laptop"))
    assert "livekit:PA_2" in await s.seats(), "another device"


async def test_a_device_that_leaves_the_room_leaves_it_with_its_connection_to_livekit(s: Scene) -> None:
    await s.ann.leave(s.room)
    await s.begin(rate=RATE)
    s.here.rooms.media = s.lk
    phone = Guest(s.here, "ann", "phone").connect()
    await phone.join(s.room)
    await s.tell(s.event("participant_joined"))
    await s.tell(s.event("participant_joined", "PA_2", "ann:laptop"))
    s.media.rooms[s.room.id] = {"PA_1": "ann:phone", "PA_2": "ann:laptop"}
    s.town.clock.pass_(30)
    await phone.leave(s.room)
    assert await s.seats() == ["livekit:PA_2"]
    s.town.clock.pass_(6)
    assert await s.lk.run_removals() == 1
    assert s.media.removed == [(s.room.id, "ann:phone")]
    await Guest(s.here, "ann", "laptop").connect().leave(s.room)
    assert (await s.town.stay("ann")).cost_minor == 36 * SECOND


# -------------------------------------------------------------------------------------------------- what is asked for


async def test_a_beginning_that_is_never_told_is_found_by_asking_where_a_ticket_was_given(s: Scene) -> None:
    await s.ann.leave(s.room)
    await s.begin(rate=RATE)
    await s.town.guest(s.here, "bob", 100 * SECOND)
    people = await s.here.users.profiles({"ann"})
    await s.lk.ticket(await s.now(), people["ann"], "phone")
    s.media.rooms[s.room.id] = {"PA_1": "ann:phone", "PA_r": "recorder", "PA_b": "bob:phone"}
    await s.lk.run_attendance()
    assert s.media.asked == [], "not so soon"
    s.town.clock.pass_(LOOK_EVERY_SECONDS)
    await s.lk.run_attendance()
    assert await s.seats() == ["livekit:PA_1"]
    assert await s.seats("bob") == []
    await s.lk.run_attendance()
    assert s.media.asked == [s.room.id], "and not again at once"
    s.town.clock.pass_(6)
    assert await s.lk.run_removals() == 1
    assert s.media.removed == [(s.room.id, "bob:phone")], "who has no place in the room is cut off"
    s.town.clock.pass_(14)
    s.media.rooms[s.room.id] = {}
    await s.lk.run_attendance()
    assert (await s.town.stay("ann")).cost_minor == 40 * SECOND, (
        "from her joining to the look that found her gone"
    )


async def test_when_no_ticket_can_be_used_any_more_a_room_without_anybody_is_not_asked_about(
    s: Scene,
) -> None:
    people = await s.here.users.profiles({"ann"})
    await s.lk.ticket(await s.now(), people["ann"], "phone")
    s.town.clock.pass_(720)
    await s.lk.run_attendance()
    assert s.media.asked == []


async def test_a_room_that_cannot_be_asked_about_keeps_no_other_waiting(s: Scene) -> None:
    rooms = [s.room, *[await Guest(s.here, "olu", "olu-phone").create(rate=None) for _ in range(6)]]
    for n, room in enumerate(rooms):
        await s.ann.join(room)
        told = s.media.event(
            "participant_joined", room.id, s.town.clock.now(), sid=f"PA_{n}", identity="ann:phone"
        )
        await s.tell(told)
        await s.here.rooms.kick("olu", room.id, "ann")
        s.media.rooms[room.id] = {f"PA_{n}": "ann:phone"}
    s.media.sick = {room.id for room in rooms[:4]}
    s.town.clock.pass_(6)
    assert await s.lk.run_removals() == 0, "after three in a row the others would fail as well"
    assert len(s.media.asked) == 3
    assert await s.lk.run_removals() == 3, "but the next turn begins with the others"
    s.media.sick = {rooms[0].id}
    assert await s.lk.run_removals() == 3


async def test_attendance_goes_on_behind_a_room_that_cannot_be_asked_about(s: Scene) -> None:
    other = await Guest(s.here, "olu", "olu-phone").create(rate=None)
    await s.tell(s.event("participant_joined"))
    await s.ann.join(other)
    s.town.clock.pass_(1)
    await s.tell(
        s.media.event("participant_joined", other.id, s.town.clock.now(), sid="PA_2", identity="ann:phone")
    )
    s.media.sick = {s.room.id}
    s.town.clock.pass_(LOOK_EVERY_SECONDS)
    await s.lk.run_attendance()
    assert await s.seats() == ["livekit:PA_1"]
    assert (await s.town.room(other.id)).present == ()


async def test_what_is_said_of_a_failure_does_not_hold_the_token(s: Scene) -> None:
    s.media.away = True
    with pytest.raises(MediaServerAway) as away:
        await s.servers[0].participants(s.room.id)
    assert str(away.value) == "ListParticipants: ClientResponseError, status 503"
    assert away.value.__cause__ is None
    assert away.value.__suppress_context__


# ------------------------------------------------------------------------------------------------------------ blocks


async def test_e61_where_livekit_lets_all_hear_all_nobody_is_in_a_room_with_whom_a_block_parts(
    s: Scene,
) -> None:
    s.here.rooms.media = s.lk
    await s.town.people("cyn")
    await s.here.users.block("bob", "ann")
    await s.here.users.block("ann", "cyn")
    await s.tell(s.event("participant_joined"))
    for name, code in (("bob", "USER_BLOCKED"), ("cyn", "ROOM_UNKNOWN")):
        with pytest.raises(Refusal) as no:
            await Guest(s.here, name, f"{name}-phone").connect().join(s.room)
        assert no.value.code == code
        assert (await s.here.rooms.get(name, s.room.id)).room.open, "seen it may be"
    await s.here.users.unblock("bob", "ann")
    await Guest(s.here, "bob", "bob-phone").connect().join(s.room)
    await s.here.users.block("ann", "bob")
    await s.here.rooms.end_between("ann", "bob")
    assert [one.user_id for one in (await s.now()).participants] == ["ann"], "who came later has gone"
    assert gone(s.here, "bob") == [Gone.POLICY]


# ------------------------------------------------------------------------------------------------------------ money


async def test_who_is_there_by_livekit_pays_until_livekit_says_that_they_left(db: Database, s: Scene) -> None:
    await s.ann.leave(s.room)
    await s.begin(rate=RATE)
    await s.tell(s.event("participant_joined"))
    s.town.clock.pass_(30)
    left = s.event("participant_left")
    s.town.clock.pass_(9)  # it was told late
    await s.tell(left)
    stay = await s.town.stay("ann")
    assert stay.cost_minor == 30 * SECOND
    await s.town.nobody_pays()


@pytest.mark.parametrize("end", ["participant_left", "room_finished"])
async def test_somebody_pays_at_least_until_they_were_last_seen_whatever_livekits_clock_says(
    s: Scene, end: str
) -> None:
    await s.ann.leave(s.room)
    await s.begin(rate=RATE)
    await s.tell(s.event("participant_joined"))
    s.media.rooms[s.room.id] = {"PA_1": "ann:phone"}
    for _ in range(3):
        s.town.clock.pass_(30)
        await s.lk.run_attendance()
    s.town.clock.pass_(5)
    slow = s.town.clock.now() - timedelta(seconds=80)
    await s.tell(s.media.event(end, s.room.id, slow, sid="PA_1", identity="ann:phone"))
    assert (await s.town.stay("ann")).cost_minor == 90 * SECOND
    await s.town.nobody_pays()


async def test_at_the_end_of_the_money_livekit_cuts_them_off(s: Scene) -> None:
    await s.ann.leave(s.room)
    await s.begin(rate=RATE)
    await s.tell(s.event("participant_joined"))
    s.media.rooms[s.room.id] = {"PA_1": "ann:phone"}
    await s.lk.run_removals()
    assert s.media.removed == []
    await s.town.pass_(210, s.here, step=10)
    s.media.away = True
    assert await s.lk.run_removals() == 0
    s.media.away = False
    assert await s.lk.run_removals() == 1
    assert s.media.removed == [(s.room.id, "ann:phone")]
    await s.town.nobody_pays()


async def test_without_the_money_a_connection_lets_nobody_in(s: Scene) -> None:
    olu = Guest(s.here, "olu", "olu-phone")
    s.room = await olu.create(rate=RATE)
    await s.tell(s.event("participant_joined", "PA_b", "bob:phone"))
    assert (await s.now()).present == ()
    await s.town.nobody_pays()


# ---------------------------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize("name", ["participant_joined", "participant_left", "room_finished"])
async def test_a_process_that_dies_over_a_notification_is_told_again_and_nothing_is_lost(
    s: Scene, name: str
) -> None:
    await s.ann.leave(s.room)
    for step in range(1, 40):
        sid, life = f"PA_{step}", f"RM_{step}"
        await s.ann.join(s.room)
        if name != "participant_joined":
            await s.tell(s.event("participant_joined", sid, room_sid=life))
        doomed = s.town.process(f"doomed{step}")
        body = s.event(name, sid, room_sid=life)
        doomed.life.dies_at = doomed.life.calls + step
        try:
            await s.tell(body, s.livekit_of(doomed))
        except Killed:
            dead = True
        else:
            dead = False
        s.here.rooms.board = type(s.here.rooms.board)()  # what this process remembers is old
        await s.tell(body)
        expected = [f"livekit:{sid}"] if name == "participant_joined" else []
        assert await s.seats() == expected, step
        await s.tell(s.event("participant_left", sid, room_sid=life))
        assert await s.seats() == []
        assert await s.town.db[CONNECTIONS].count_documents({"gone": False}) == 0
        if not dead:
            break
    assert step > 3
    assert not dead
