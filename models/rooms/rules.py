"""What may happen in a room, as pure functions: (room, who, now) → the room after it, and its facts.

A refused move changes nothing. A step whose room is the very one that went in has changed nothing either: what is
asked for is so already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from models.errors import Refusal
from models.rooms.room import Access, Closed, Fact, Gone, Participant, Room, Seat, Session, Timers

# Devices of one person in one room, by sockets and as many by other means; the oldest of its kind gives way. They stand
# in the document that every join rewrites.
SEATS_MAX = 5
# Names on a room's two lists, for the same reason.
INVITED_MAX = 1000
KICKED_MAX = 1000
# CONTRACT §1: chat text 8 KiB, in UTF-8.
TEXT_BYTES_MAX = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """Who comes in, with the device that does; without one they are announced by REST and on their way.

    ``stay_id`` and ``session_id`` are new ids, used where a stay or a session begins. ``paid`` names the stay whose
    money has been taken. ``apart`` are those between whom and them a block stands; None: it was not asked.
    """

    user_id: str
    device_id: str | None
    process: str | None
    stay_id: str
    session_id: str
    paid: str | None = None
    apart: frozenset[str] | None = None


class NotAsked(Exception):
    """Somebody comes anew of whom nobody has asked whether a block stands between them and others here."""


@dataclass(frozen=True, slots=True)
class Step:
    """A room after a move. ``over`` is the session that ended with it, and when."""

    room: Room
    facts: tuple[Fact, ...] = ()
    over: tuple[Session, datetime] | None = None


# ------------------------------------------------------------------------------------------------------- coming in


def admit(room: Room, user_id: str) -> None:
    """Refuses with ``ROOM_CLOSED``, ``ROOM_KICKED`` and ``ROOM_INVITE_ONLY`` who may neither see nor join the room."""
    if not room.open:
        raise Refusal("ROOM_CLOSED", roomId=room.id)
    if user_id in room.kicked_ids:
        raise Refusal("ROOM_KICKED", roomId=room.id)
    known = user_id == room.owner_id or user_id in room.invited_ids or room.participant(user_id) is not None
    if room.access is Access.INVITE and not known:
        raise Refusal("ROOM_INVITE_ONLY", roomId=room.id)


def enter(room: Room, who: Entrant, now: datetime, timers: Timers) -> Step:
    """Take a place, or come to it with one more device. Also refuses with ``ROOM_FULL`` (``capacity``).

    Who has to pay gets a ``pending`` place first; the next ``enter``, with the stay ``paid``, makes it theirs. Raises
    ``NotAsked`` for an entrant without ``apart`` who has no place.
    """
    admit(room, who.user_id)
    before = room.participant(who.user_id)
    if before is None:
        if who.apart is None:
            raise NotAsked
        if len(room.participants) >= room.capacity:
            raise Refusal("ROOM_FULL", capacity=room.capacity)
        pays = room.price is not None and who.user_id != room.owner_id
        after = Participant(
            user_id=who.user_id,
            joined_at=now,
            arriving_until=now + timedelta(seconds=timers.arrive),
            stay_id=who.stay_id if pays else None,
            pending=pays,
            apart=who.apart,
        )
    else:
        after = before
    if after.pending and after.stay_id is not None and after.stay_id == who.paid:
        after = replace(after, pending=False)
    if who.device_id is not None and not after.pending:
        after = _seated(after, Seat(device_id=who.device_id, process=who.process))
    if after == before:
        return Step(room)
    changed = _with(room, after)
    comes = after.here and (before is None or not before.here)
    if comes and changed.session is None:
        changed = replace(changed, session=Session(id=who.session_id, started_at=now, started_by=who.user_id))
    facts = (Fact("joined", changed.version, {"user_id": who.user_id}),) if comes else ()
    return Step(changed, facts)


def back(room: Room, *, user_id: str, device_id: str, process: str) -> Step:
    """A device's socket is there again, or at another process: its seat is kept."""
    one = room.participant(user_id)
    seat = one.seat(device_id) if one else None
    if one is None or seat is None or (seat.process == process and seat.lost_at is None):
        return Step(room)
    return Step(_with(room, _seated(one, Seat(device_id=device_id, process=process))))


# ------------------------------------------------------------------------------------------------------- going out


def leave(
    room: Room, *, user_id: str, device_id: str | None, now: datetime, also: Collection[str] = ()
) -> Step:
    """One device leaves, or with None the person with all of them. They are gone when their last seat is.

    ``also`` are the devices as which the one that leaves is in the room by other means.
    """
    one = room.participant(user_id)
    if one is None:
        return Step(room)
    left = () if device_id is None else tuple(x for x in one.seats if x.device_id not in (device_id, *also))
    if left == one.seats and left:
        return Step(room)
    if left:
        return Step(_with(room, replace(one, seats=left)))
    return _without(room, {user_id: (Gone.LEFT, now)}, now)


def lose(room: Room, *, user_id: str, device_id: str, process: str | None, seen_at: datetime) -> Step:
    """A device's socket at ``process`` is gone. Nobody is told before the grace is over."""
    one = room.participant(user_id)
    seat = one.seat(device_id) if one else None
    if one is None or seat is None or seat.process != process or seat.lost_at is not None:
        return Step(room)
    seats = tuple(replace(x, lost_at=seen_at) if x is seat else x for x in one.seats)
    return Step(_with(room, replace(one, seats=seats)))


def remove(room: Room, *, user_id: str, reason: Gone, now: datetime) -> Step:
    """Take somebody out: their money is over, they were banned, they never got to pay."""
    return _without(room, {user_id: (reason, now)}, now) if room.participant(user_id) else Step(room)


def withdraw(room: Room, *, user_id: str, stay_id: str, now: datetime) -> Step:
    """Give a pending place back: it could not be paid."""
    one = room.participant(user_id)
    if one is None or not one.pending or one.stay_id != stay_id:
        return Step(room)
    return _without(room, {user_id: (Gone.NEVER_CAME, one.joined_at)}, now)


def tick(room: Room, now: datetime, timers: Timers) -> Step:
    """What time alone does: lost sockets leave, who never came gives the place back, an empty room closes."""
    gone: dict[str, tuple[Gone, datetime]] = {}
    fewer: list[Participant] = []
    for one in room.participants:
        over = [seat for seat in one.seats if seat.lost_at and _after(seat.lost_at, timers.grace) <= now]
        if one.seats and len(over) == len(one.seats):
            gone[one.user_id] = (Gone.LOST, max(seat.lost_at for seat in over if seat.lost_at))
        elif over:
            fewer.append(replace(one, seats=tuple(seat for seat in one.seats if seat not in over)))
        elif not one.seats and one.arriving_until is not None and one.arriving_until <= now:
            gone[one.user_id] = (Gone.NEVER_CAME, one.joined_at)
    for one in fewer:
        room = replace(_with(room, one), version=room.version)
    if gone:
        return _without(room, gone, now)
    if fewer:
        return Step(replace(room, version=room.version + 1))
    if room.open and room.emptied_at is not None and _after(room.emptied_at, timers.empty) <= now:
        return close(room, reason=Closed.EMPTY, now=now)
    return Step(room)


def deadline(room: Room, timers: Timers) -> datetime | None:
    """When ``tick`` has something to do next; None while nothing is waited for."""
    if not room.open:
        return None
    at = [
        _after(seat.lost_at, timers.grace)
        for one in room.participants
        for seat in one.seats
        if seat.lost_at is not None
    ]
    at += [one.arriving_until for one in room.participants if not one.seats and one.arriving_until]
    if room.emptied_at is not None:
        at.append(_after(room.emptied_at, timers.empty))
    return min(at, default=None)


# ----------------------------------------------------------------------------------------------------- the owner's


def owned(room: Room, user_id: str) -> None:
    """Refuses with ``ROOM_NOT_OWNER`` everybody else, and with ``ROOM_CLOSED`` when it is too late."""
    if user_id != room.owner_id:
        raise Refusal("ROOM_NOT_OWNER", roomId=room.id)
    if not room.open:
        raise Refusal("ROOM_CLOSED", roomId=room.id)


def invite(room: Room, *, by: str, user_ids: Iterable[str]) -> Step:
    """Invite people, who may then join, also after a kick. Who is invited already is not told again."""
    owned(room, by)
    new = tuple(dict.fromkeys(one for one in user_ids if one not in room.invited_ids))
    if not new:
        return Step(room)
    if len(room.invited_ids) + len(new) > INVITED_MAX:
        raise Refusal("VALIDATION_FAILED", userIds=[f"A room has at most {INVITED_MAX} invited people."])
    changed = replace(
        room,
        version=room.version + 1,
        invited_ids=(*room.invited_ids, *new),
        kicked_ids=tuple(one for one in room.kicked_ids if one not in new),
    )
    return Step(changed, (Fact("invited", changed.version, {"user_ids": list(new), "by": by}),))


def kick(room: Room, *, by: str, user_id: str, now: datetime) -> Step:
    """Show somebody out, who may not come back unless invited again.

    Refuses with ``VALIDATION_FAILED`` when as many are kept out as a room can remember.
    """
    owned(room, by)
    if user_id == room.owner_id:
        raise Refusal("SELF_NOT_ALLOWED")
    if user_id in room.kicked_ids:
        return Step(room)
    if len(room.kicked_ids) >= KICKED_MAX:  # the first of them would come back
        raise Refusal("VALIDATION_FAILED", userId=[f"At most {KICKED_MAX} people are kept out of a room."])
    was_in = room.participant(user_id) is not None
    step = remove(room, user_id=user_id, reason=Gone.KICKED, now=now)
    changed = replace(
        step.room,
        version=room.version + 1,
        invited_ids=tuple(one for one in room.invited_ids if one != user_id),
        kicked_ids=(*room.kicked_ids, user_id),
    )
    fact = Fact("kicked", changed.version, {"user_id": user_id, "was_in": was_in})
    return Step(changed, (*step.facts, fact), step.over)


def close(room: Room, *, reason: Closed, now: datetime) -> Step:
    """End a room for good, with everybody who is in it."""
    if not room.open:
        return Step(room)
    people = {one.user_id: (Gone.CLOSED, now) for one in room.participants}
    step = _without(room, people, now) if people else Step(replace(room, version=room.version + 1))
    changed = replace(step.room, closed_at=now, close_reason=reason, emptied_at=None)
    fact = Fact("closed", changed.version, {"user_ids": list(people), "reason": reason.value})
    return Step(changed, (*step.facts, fact), step.over)


def sever(room: Room, one_id: str, other_id: str, *, now: datetime, mixed: bool = False) -> Step:
    """One of the two has blocked the other. A room's owner and they do not meet; guests are kept apart in it.

    Where all hear all (``mixed``) nobody can be: of two guests the one who came later goes.
    """
    one, other = room.participant(one_id), room.participant(other_id)
    for guest, host_id in ((one, other_id), (other, one_id)):
        if guest is not None and host_id == room.owner_id:
            return remove(room, user_id=guest.user_id, reason=Gone.POLICY, now=now)
    if one is None or other is None:
        return Step(room)
    if mixed:
        later = max(one, other, key=room.participants.index)
        return remove(room, user_id=later.user_id, reason=Gone.POLICY, now=now)
    if other_id in one.apart:
        return Step(room)
    changed = _with(room, replace(one, apart=one.apart | {other_id}))
    seen = one.here and other.here
    facts = (Fact("severed", changed.version, {"user_ids": [one_id, other_id]}),) if seen else ()
    return Step(changed, facts)


# -------------------------------------------------------------------------------------------------------- sessions


def begin_session(room: Room, *, user_id: str, session_id: str, now: datetime) -> Step:
    """The running session, or a new one by somebody who has a place. Refuses with ``ROOM_NOT_JOINED``."""
    if room.session is not None:
        return Step(room)
    one = room.participant(user_id)
    if one is None or one.pending:
        raise Refusal("ROOM_NOT_JOINED", roomId=room.id)
    session = Session(id=session_id, started_at=now, started_by=user_id)
    return Step(replace(room, version=room.version + 1, session=session))


def end_session(room: Room, *, user_id: str, now: datetime) -> Step:
    """End the running session: the owner's to do, or of who alone is left. Refuses with ``ROOM_NOT_OWNER``."""
    if room.session is None:
        return Step(room)
    alone = [one.user_id for one in room.present] == [user_id]
    if user_id != room.owner_id and not alone:
        raise Refusal("ROOM_NOT_OWNER", roomId=room.id)
    return Step(replace(room, version=room.version + 1, session=None), over=(room.session, now))


# ------------------------------------------------------------------------------------------------------- signaling


def member(room: Room, *, user_id: str, device_id: str) -> Participant:
    """Who speaks with a device that is in the room. Refuses with ``ROOM_CLOSED`` and ``ROOM_NOT_JOINED``."""
    one = room.participant(user_id)
    if one is None or not one.here or one.seat(device_id) is None:
        raise Refusal("ROOM_NOT_JOINED" if room.open else "ROOM_CLOSED", roomId=room.id)
    return one


def addressees(room: Room, *, user_id: str, device_id: str, target_id: str | None) -> list[Participant]:
    """To whom a signal goes: the target, or everybody else. Also refuses with ``TARGET_UNKNOWN``."""
    member(room, user_id=user_id, device_id=device_id)
    others = [one for one in room.seen_by(user_id) if one.user_id != user_id]
    if target_id is None:
        return others
    named = [one for one in others if one.user_id == target_id]
    if not named:
        raise Refusal("TARGET_UNKNOWN", targetUserId=target_id)
    return named


# ----------------------------------------------------------------------------------------------------------- parts


def _after(at: datetime, seconds: float) -> datetime:
    return at + timedelta(seconds=seconds)


def _seated(one: Participant, seat: Seat) -> Participant:
    """With that device in the room: its old place if it has one, else the newest."""
    if one.seat(seat.device_id) is not None:
        seats = tuple(seat if x.device_id == seat.device_id else x for x in one.seats)
    else:
        alike = [x for x in one.seats if (x.process is None) == (seat.process is None)]
        over = alike[: max(0, len(alike) + 1 - SEATS_MAX)]
        seats = (*(x for x in one.seats if x not in over), seat)
    return replace(one, seats=seats, arriving_until=None)


def _with(room: Room, one: Participant) -> Room:
    """The room at its next version with a participant as given; who is apart is so from both sides."""
    others = tuple(
        replace(x, apart=x.apart | {one.user_id}) if x.user_id in one.apart else x
        for x in room.participants
        if x.user_id != one.user_id
    )
    place = next((n for n, x in enumerate(room.participants) if x.user_id == one.user_id), len(others))
    people = (*others[:place], one, *others[place:])
    return replace(room, version=room.version + 1, participants=people, emptied_at=None)


def _without(room: Room, gone: Mapping[str, tuple[Gone, datetime]], now: datetime) -> Step:
    """The room without these people, each with why and when they were last there."""
    version = room.version + 1
    facts = [
        Fact(
            "left",
            version,
            {
                "user_id": one.user_id,
                "reason": gone[one.user_id][0].value,
                "at": gone[one.user_id][1],
                "stay_id": one.stay_id,
                "was_here": one.here,
            },
        )
        for one in room.participants
        if one.user_id in gone
    ]
    people = tuple(one for one in room.participants if one.user_id not in gone)
    changed = replace(
        room, version=version, participants=people, emptied_at=room.emptied_at if people else now
    )
    session = room.session
    if session is None:
        return Step(changed, tuple(facts))
    last = max(session.last_gone_at or session.started_at, *(at for _, at in gone.values()))
    if changed.present:
        return Step(replace(changed, session=replace(session, last_gone_at=last)), tuple(facts))
    return Step(replace(changed, session=None), tuple(facts), (session, last))
