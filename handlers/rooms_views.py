"""How a room looks from outside, what the server says about rooms, and how facts become letters to devices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from handlers.calls_views import price_view
from handlers.registry import notice
from handlers.rooms_shapes import (
    ExistingUsers,
    RoomAnswerNotice,
    RoomCandidateNotice,
    RoomEnded,
    RoomInvited,
    RoomMessage,
    RoomMessageNotice,
    RoomOfferNotice,
    RoomSomebody,
    RoomUpdated,
    RoomView,
)
from handlers.shapes import PublicUser
from handlers.users import public_user
from models.mailbox.service import Mailbox
from models.ports import Device, Letter
from models.presence.memory import Veiled
from models.presence.service import Presence
from models.rooms.engine import Seen
from models.rooms.ports import RoomPusher
from models.rooms.room import Fact, Gone, Participant, Room
from models.rooms.talk.service import Said
from models.users.profile import Profile

EXISTING_USERS = notice(
    "existing-users", ExistingUsers, "To a device that joined: who is there. It makes them the offers."
)
USER_CONNECTED = notice("user-connected", RoomSomebody, "To who is in the room: somebody has come.")
USER_DISCONNECTED = notice("user-disconnected", RoomSomebody, "To who is in the room: somebody has gone.")
OFFER = notice("offer", RoomOfferNotice, "To a participant's devices in the room: an offer.")
ANSWER = notice("answer", RoomAnswerNotice, "To a participant's devices in the room: an answer.")
ICE_CANDIDATE = notice(
    "ice-candidate", RoomCandidateNotice, "To a participant's devices in the room: a candidate."
)
CHAT_MESSAGE = notice(
    "chat-message", RoomMessageNotice, "To all devices in the room but the one that sent it: a message."
)
ROOM_UPDATED = notice(
    "room-updated", RoomUpdated, "To a device in the room: the room as it is now, after a lost connection."
)
ROOM_INVITED = notice("room-invited", RoomInvited, "To somebody invited, on every device.")
ROOM_KICKED = notice(
    "room-kicked",
    RoomEnded,
    "To somebody who was taken out: `kicked` by the owner, `policy` (a block, a ban), and in a room with a price"
    " `insufficient_funds` and `max_duration`.",
)
ROOM_CLOSED = notice(
    "room-closed",
    RoomEnded,
    "To the owner and all who were in it: closed by the `owner`, for being `empty`, or by `policy`.",
)

_ROOM, _USER, _LINE = RoomView(), PublicUser(), RoomMessage()


def room_view(seen: Seen, viewer_id: str, presence: Presence) -> dict[str, Any]:
    """A room for ``RoomView`` to dump, as ``viewer_id`` may see it."""
    room, people, apart = seen.room, seen.people, seen.apart
    # Whom a block parts from its owner sees of a room that they have been in no more than that it is there.
    present = room.seen_by(viewer_id) if room.owner_id not in apart else ()
    if apart:
        presence = Veiled(presence, apart)
    return {
        "id": room.id,
        "version": room.version,
        "name": room.name,
        "type": room.type,
        "access": room.access.value,
        "owner": public_user(presence, people[room.owner_id]),
        "capacity": room.capacity,
        "participants": [
            public_user(presence, people[one.user_id]) for one in present if one.user_id not in apart
        ],
        "price": price_view(room.price) if room.price is not None else None,
        "created_at": room.created_at,
        "closed_at": room.closed_at,
    }


def message_view(said: Said, *, viewer_id: str) -> dict[str, Any]:
    """A message for ``RoomMessage`` to dump."""
    line = said.line
    view = {
        "id": line.id,
        "room_id": line.room_id,
        "seq": line.seq,
        "sender_id": line.sender_id,
        "username": said.sender.username,
        "message": line.text,
        "timestamp": line.created_at,
    }
    return {**view, "op_id": line.op_id} if line.op_id and viewer_id == line.sender_id else view


def existing_users(seen: Seen, device: Device, presence: Presence) -> Letter:
    """Who is there, for a device that has just joined."""
    others = [one for one in seen.room.seen_by(device.user_id) if one.user_id != device.user_id]
    users = [_USER.dump(public_user(presence, seen.people[one.user_id])) for one in others]
    return Letter(
        user_id=device.user_id,
        event=EXISTING_USERS,
        payload={"roomId": seen.room.id, "users": users},
        only_device=device.device_id,
    )


def signal_letters(
    event: str,
    room_id: str,
    sender_id: str,
    body: Mapping[str, Any],
    to: Sequence[Participant],
    *,
    key: str | None,
) -> list[Letter]:
    """A signal for all devices that its addressees have in the room; with a ``key`` by way of the log."""
    payload = {"roomId": room_id, "senderId": sender_id, **body}
    return [
        Letter(
            user_id=one.user_id,
            event=event,
            payload=payload,
            only_device=seat.device_id,
            key=None if key is None else f"{key}:{seat.device_id}",
            at=seat.process,
        )
        for one in to
        for seat in one.seats
        if seat.process is not None
    ]


# What is about the moment in a room, and nothing to a device that is no longer in it.
_OF_THE_MOMENT = frozenset({USER_CONNECTED, USER_DISCONNECTED, OFFER, ANSWER, ICE_CANDIDATE})


def in_rooms(letters: Sequence[Letter], room_ids: Collection[str]) -> list[Letter]:
    """Letters for a device that was away, without signals, comings and goings of rooms in which it is no longer."""
    return [x for x in letters if x.event not in _OF_THE_MOMENT or x.payload["roomId"] in room_ids]


class RoomTeller:
    """``models.rooms.ports.Announcer`` and ``models.rooms.talk.service.Speaker``: facts become letters.

    Who comes and goes is told to the devices in the room now; a device that was away for a moment gets the room as it
    is. While other processes live on the database (``others_live``) these letters are kept too, since that is how
    devices connected there hear of them. What somebody has to know later as well is always kept.
    """

    def __init__(
        self,
        *,
        mailbox: Mailbox,
        presence: Presence,
        others_live: Callable[[], bool],
        pusher: RoomPusher | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._presence = presence
        self._others_live = others_live
        self._pusher = pusher

    async def announce(
        self, room: Room, people: Mapping[str, Profile], facts: Sequence[Fact], *, again: bool
    ) -> None:
        """Keep and tell the letters of the facts, then ask for the pushes. Late, only what still holds."""
        scene = _Scene(self, room, people, again=again)
        letters = [letter for fact in facts for letter in _LETTERS[fact.kind](scene, fact)]
        await self._mailbox.post(letters, again=again)
        for fact in facts:
            if fact.kind == "invited" and self._pusher is not None and room.open:
                for user_id in fact.data["user_ids"]:
                    await self._pusher.room_invited(
                        room_id=room.id,
                        room_name=room.name,
                        by=scene.person(fact.data["by"]),
                        user_id=user_id,
                    )

    async def returned(self, room: Room, people: Mapping[str, Profile], user_id: str, device_id: str) -> None:
        """The room as it is now, to one device."""
        scene = _Scene(self, room, people, again=False)
        payload = {"roomId": room.id, "room": scene.view(user_id)}
        await self._mailbox.post(
            [Letter(user_id=user_id, event=ROOM_UPDATED, payload=payload, only_device=device_id)]
        )

    async def say(self, room: Room, said: Said, *, again: bool) -> None:
        """Keep and tell a message to the devices in the room; the sending one has it from its answer."""
        line = said.line
        letters = [
            Letter(
                user_id=one.user_id,
                event=CHAT_MESSAGE,
                payload=dict(_LINE.dump(message_view(said, viewer_id=one.user_id))),
                only_device=device_id,
                key=f"roommsg:{line.id}:{device_id}",
            )
            for one in room.present
            if one.user_id not in line.hidden_from and one.joined_at <= line.created_at
            for device_id in one.devices
            if (one.user_id, device_id) != (line.sender_id, line.device_id)
        ]
        await self._mailbox.post(letters, again=again)

    @property
    def presence(self) -> Presence:
        """What is known of people's whereabouts."""
        return self._presence

    @property
    def others_live(self) -> bool:
        """Whether there are devices that hear of it by the log alone."""
        return self._others_live()


class _Scene:
    """A room at the moment at which something is told of it; each view of it is made once."""

    def __init__(self, teller: RoomTeller, room: Room, people: Mapping[str, Profile], *, again: bool) -> None:
        self.room, self.again = room, again
        self._presence, self._kept = teller.presence, teller.others_live
        self._people = people
        self._views: dict[frozenset[str], dict[str, Any]] = {}

    def view(self, viewer_id: str) -> dict[str, Any]:
        """The room in wire form, as somebody may see it: nearly always all see the same."""
        hidden = frozenset(one.user_id for one in self.room.present if viewer_id in one.apart)
        if hidden not in self._views:
            seen = Seen(self.room, dict(self._people))
            self._views[hidden] = dict(_ROOM.dump(room_view(seen, viewer_id, self._presence)))
        return self._views[hidden]

    def person(self, user_id: str, *, veiled: bool = False) -> dict[str, Any]:
        """A ``PublicUser`` in wire form."""
        presence = Veiled(self._presence, [user_id]) if veiled else self._presence
        return dict(_USER.dump(public_user(presence, self._people[user_id])))

    def here(self, user_id: str) -> bool:
        """Whether somebody is in the room now."""
        one = self.room.participant(user_id)
        return one is not None and one.here

    def to_all(
        self, event: str, fact: Fact, about: str, to: Iterable[Participant], *, veiled: bool = False
    ) -> list[Letter]:
        """Of somebody's coming or going, to all devices of others in the room; ``veiled`` without where they are."""
        user = self.person(about, veiled=veiled)
        return [
            Letter(
                user_id=one.user_id,
                event=event,
                payload={
                    "roomId": self.room.id,
                    "userId": about,
                    "user": user,
                    "room": self.view(one.user_id),
                },
                only_device=device_id,
                key=self._key(fact, event, about, device_id) if self._kept else None,
            )
            for one in to
            if one.user_id != about and one.here
            for device_id in one.devices
        ]

    def to_one(self, user_id: str, event: str, fact: Fact, payload: Mapping[str, Any]) -> Letter:
        """Something to know later as well, for all devices of somebody."""
        return Letter(
            user_id=user_id,
            event=event,
            payload={"roomId": self.room.id, **payload},
            key=self._key(fact, event),
        )

    def _key(self, fact: Fact, *more: str) -> str:
        return ":".join(("room", self.room.id, str(fact.version), *more))


def _joined(scene: _Scene, fact: Fact) -> list[Letter]:
    about = fact.data["user_id"]
    if scene.again and not scene.here(about):
        return []
    return scene.to_all(USER_CONNECTED, fact, about, scene.room.seen_by(about))


def _left(scene: _Scene, fact: Fact) -> list[Letter]:
    about, reason = fact.data["user_id"], Gone(fact.data["reason"])
    letters = []
    if fact.data["was_here"] and reason is not Gone.CLOSED and not (scene.again and scene.here(about)):
        others = (one for one in scene.room.present if about not in one.apart)
        # A block may have been the reason, and the one behind it among those who hear of it.
        letters = scene.to_all(USER_DISCONNECTED, fact, about, others, veiled=reason is Gone.POLICY)
    if reason in (Gone.FUNDS, Gone.DURATION, Gone.POLICY):
        letters.append(scene.to_one(about, ROOM_KICKED, fact, {"reason": reason.value}))
    return letters


def _severed(scene: _Scene, fact: Fact) -> list[Letter]:
    one_id, other_id = fact.data["user_ids"]
    letters: list[Letter] = []
    for about, to in ((one_id, other_id), (other_id, one_id)):
        only = scene.room.participant(to)
        letters += scene.to_all(USER_DISCONNECTED, fact, about, [only] if only else [], veiled=True)
    return letters


def _invited(scene: _Scene, fact: Fact) -> list[Letter]:
    by = scene.person(fact.data["by"])
    return [
        scene.to_one(user_id, ROOM_INVITED, fact, {"room": scene.view(user_id), "by": by})
        for user_id in fact.data["user_ids"]
        if scene.room.open
    ]


def _kicked(scene: _Scene, fact: Fact) -> list[Letter]:
    if not fact.data["was_in"]:
        return []
    return [scene.to_one(fact.data["user_id"], ROOM_KICKED, fact, {"reason": Gone.KICKED.value})]


def _closed(scene: _Scene, fact: Fact) -> list[Letter]:
    to = dict.fromkeys([scene.room.owner_id, *fact.data["user_ids"]])
    return [scene.to_one(user_id, ROOM_CLOSED, fact, {"reason": fact.data["reason"]}) for user_id in to]


_LETTERS: dict[str, Callable[[_Scene, Fact], list[Letter]]] = {
    "joined": _joined,
    "left": _left,
    "severed": _severed,
    "invited": _invited,
    "kicked": _kicked,
    "closed": _closed,
}
