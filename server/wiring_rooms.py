"""Rooms put together: who is in them, what is said in them, and who tells of it."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.rooms_views import RoomTeller
from handlers.stays import StayTeller
from models.calls.meter import Meter
from models.calls.service import Calls
from models.db import Database
from models.mailbox.service import Mailbox
from models.ports import Alarms, Clock, Courier, Doors, Ids
from models.presence.service import Presence
from models.rooms.livekit.rules import Key
from models.rooms.livekit.service import LiveKit
from models.rooms.livekit.store import LiveKitStore
from models.rooms.ports import Processes, RoomPusher
from models.rooms.pricing import RoomStays
from models.rooms.room import Timers
from models.rooms.service import Rooms, Tools
from models.rooms.store import RoomStore
from models.rooms.talk.service import Talk
from models.rooms.talk.store import TalkStore
from models.users.service import Users
from server.adapters.livekit import LiveKitServer
from server.config import Config

# What a media server carries; a mesh has the capacity of the configuration.
MEDIA_SERVER_CAPACITY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredRooms:
    """A process's rooms."""

    rooms: Rooms
    talk: Talk
    store: RoomStore
    calls: Calls
    livekit: LiveKit | None
    media_server: LiveKitServer | None

    def announce(self, *, mailbox: Mailbox, presence: Presence, pusher: RoomPusher) -> None:
        """Hand over what is made after the rooms; the calls have their announcer by now."""
        teller = RoomTeller(
            mailbox=mailbox, presence=presence, others_live=lambda: self.calls.others_live, pusher=pusher
        )
        self.rooms.announcer = self.talk.speaker = teller
        self.calls.announcer = StayTeller(calls=self.calls.announcer, rooms=self.rooms, mailbox=mailbox)
        self.rooms.busy_changed = presence.changed

    async def close(self) -> None:
        """Close the connections to the media server."""
        if self.media_server is not None:
            await self.media_server.close()


def wire_rooms(
    config: Config,
    db: Database,
    *,
    calls: Calls,
    processes: Processes,
    users: Users,
    meter: Meter,
    clock: Clock,
    ids: Ids,
    alarms: Alarms,
    doors: Doors,
    process: str,
    courier: Courier,
) -> WiredRooms:
    """Make them, once per process."""
    store = RoomStore(db)
    rooms = Rooms(
        Tools(
            store=store,
            users=users,
            processes=processes,
            clock=clock,
            ids=ids,
            alarms=alarms,
            doors=doors,
            timers=Timers(grace=config.room_grace_seconds, empty=config.room_empty_seconds),
            process=process,
            others_live=lambda: calls.others_live,
            courier=courier,
        ),
        capacity=config.room_capacity,
        capacity_max=MEDIA_SERVER_CAPACITY if config.livekit_url else config.room_capacity,
    )
    stays = RoomStays(calls=calls, users=users, meter=meter)
    rooms.stays, rooms.price_of = stays, stays.price_of
    talk = Talk(store=TalkStore(db), rooms=rooms, users=users, clock=clock, ids=ids)
    livekit = media_server = None
    if config.livekit_url is not None:
        assert config.livekit_api_key is not None
        assert config.livekit_api_secret is not None
        key = Key(
            url=config.livekit_url, api_key=config.livekit_api_key, api_secret=config.livekit_api_secret
        )
        media_server = LiveKitServer(key=key, clock=clock)
        livekit = LiveKit(
            key=key, store=LiveKitStore(db), rooms=rooms, load=store.load, server=media_server, clock=clock
        )
        rooms.media = livekit
    return WiredRooms(
        rooms=rooms, talk=talk, store=store, calls=calls, livekit=livekit, media_server=media_server
    )
