"""Who is there: leases of devices, one state for each person, and the watchers who are told when it changes.

What is true stands in the database: leases here, calls and rooms with their own truth, blocks and accounts with the
users. In memory are only the leases of the sockets here, and the watches. Whenever something may have changed,
somebody *looks*: reads all of it for the people concerned, at once for all of them, and tells those watchers who may
know and do not know yet. A look is never wrong, only late, so it does not matter who says that it is time for one:
the sockets and the calls of this process at once, other processes by the ``version`` of a document, and a sweep that
comes round to everybody who is watched, for whatever nobody lived to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from models.ports import Clock, Courier, Doors, NoCourier
from models.presence.elsewhere import Elsewhere
from models.presence.leases import Leases
from models.presence.memory import Presence, Veiled
from models.presence.rules import HIDDEN, DeviceState, Line, Seen, State, fold, look, settle
from models.presence.store import PresenceStore, Row
from models.presence.watches import Watched, Watcher, Watches
from models.users.profile import Profile

__all__ = ["Change", "Presence", "Whereabouts"]

# CONTRACT: people whom one device watches; a contact list shows fewer at a time.
WATCHED_MAX = 200
# People at whom one look looks: four queries of that size are done in a few milliseconds.
LOOK_MAX = 200
# Pairs of a watcher and a watched of which one query asks whether there is a block.
PAIRS_MAX = 2_000
# In this time the sweep comes round to everybody who is watched.
SWEEP_SECONDS = 30
# People whom one turn of a job takes up when a process has died.
BURIED_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a watching device is to be told of somebody."""

    watcher: Watcher
    user_id: str
    seen: Seen


class People(Protocol):
    """What presence needs of the users."""

    async def profiles(self, user_ids: Collection[str]) -> dict[str, Profile]:
        """Those of the ids that exist, by id."""
        ...

    async def blocks_between(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the pairs (blocker, blocked) that are blocks."""
        ...


class Processes(Protocol):
    """What presence needs of the processes' leases, which the calls keep."""

    async def living(self, since: datetime) -> dict[str, datetime]:
        """The processes that beat at or after ``since``, with their last beat."""
        ...

    async def last_beats(self, processes: Collection[str]) -> dict[str, datetime]:
        """When these processes beat last."""
        ...


# Which of these people are in a call, or in a room, at whichever process.
BusyAmong = Callable[[Collection[str]], Awaitable[set[str]]]
Announcer = Callable[[Sequence[Change]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What one look has read."""

    number: int
    rows: Mapping[str, Row]
    busy: Collection[str]
    people: Mapping[str, Profile]
    blocks: Collection[tuple[str, str]]

    def may_know(self, watcher_id: str, user_id: str) -> bool:
        person = self.people.get(user_id)
        if person is None or not person.active:
            return False
        return (user_id, watcher_id) not in self.blocks and (watcher_id, user_id) not in self.blocks


class Whereabouts(Presence):
    """The verbs of presence. ``announcer`` tells watchers; ``nudge`` asks for a ``run_due`` now."""

    def __init__(
        self,
        *,
        store: PresenceStore,
        people: People,
        processes: Processes,
        doors: Doors,
        busy: Callable[[str], bool],
        busy_among: Sequence[BusyAmong],
        clock: Clock,
        process: str,
        others_live: Callable[[], bool],
        nudge: Callable[[], None],
        courier: Courier | None = None,
    ) -> None:
        super().__init__(doors, busy)
        self._store = store
        self._people = people
        self._processes = processes
        self._busy_among = tuple(busy_among)
        self._clock = clock
        self._process = process
        self._others_live = others_live
        self._nudge = nudge
        self._leases = Leases(store, doors, clock)
        self._elsewhere = Elsewhere(store, self._any_busy, clock)
        self._courier = courier or NoCourier()
        self._watches = Watches(lambda user_id, watched: self._courier.watching(user_id, watched=watched))
        self._looks = 0
        self._looking = asyncio.Lock()
        self._to_look: set[str] = set()
        self._to_say: set[str] = set()
        self._due: dict[str, datetime] = {}
        self._swept_at = clock.now()
        self._to_sweep: list[str] = []
        self.announcer: Announcer

    # --------------------------------------------------------------------------------------------- a device's lease

    async def arrived(self, user_id: str, device_id: str) -> None:
        """A device's socket is here. Safe to repeat."""
        if await self._leases.arrive(user_id, device_id):
            self._courier.stirred([user_id])
            self._look_at(user_id)
            if user_id in self._to_look:
                self._nudge()

    async def say(
        self, user_id: str, device_id: str, *, state: DeviceState, conversation_id: str | None
    ) -> None:
        """A connected device is in the foreground or not, and shows this conversation. Safe to repeat."""
        focus = conversation_id if state == "online" else None
        if await self._leases.say(user_id, device_id, state=state, focus=focus):
            self._courier.stirred([user_id])
            self._look_at(user_id)

    async def gone(self, user_id: str, device_id: str, seen_at: datetime) -> None:
        """A device's socket is gone; it was last heard of at ``seen_at``. Its watches are over."""
        self._watches.end((user_id, device_id))
        if await self._leases.leave(user_id, device_id, seen_at):
            self._courier.stirred([user_id])
            self._look_at(user_id)

    # -------------------------------------------------------------------------------------------------------- asking

    def state_of(self, user_id: str) -> State:
        """What holds now as far as this process knows: its own sockets and calls, and what it has heard of others'."""
        elsewhere = self._elsewhere.get(user_id)
        if self._busy(user_id) or elsewhere.busy:
            return "in_call"
        here = self._leases.states(user_id)
        if not here and self._doors.online(user_id):
            here = ["online"]  # on its way in
        return fold([*here, *elsewhere.devices], busy=False).state

    async def seen_by(self, viewer_id: str, user_ids: Collection[str]) -> Presence:
        """What views for ``viewer_id`` may say of these people: of those between whom there is a block, nothing."""
        blocks = await self._blocks(_both_ways((one, viewer_id) for one in user_ids if one != viewer_id))
        return Veiled(self, {one for block in blocks for one in block} - {viewer_id}) if blocks else self

    async def busy(self, user_id: str) -> bool:
        """Whether the person is in a live call or a room now, at whichever process."""
        return user_id in await self._any_busy([user_id])

    async def focused(self, user_id: str, conversation_id: str) -> set[str]:
        """The person's devices that show this conversation in the foreground now, at whichever process."""
        row = (await self._store.rows([user_id])).get(user_id)
        leases = row.leases if row is not None else ()
        return {one.device_id for one in leases if one.state == "online" and one.focus == conversation_id}

    async def watch(self, user_id: str, device_id: str, user_ids: Sequence[str]) -> list[tuple[str, Seen]]:
        """From now on the device is told of these people, and of nobody else; what there is to see of them now.

        The watch lives in this process, with the device's socket.
        """
        watcher, wanted = (user_id, device_id), list(dict.fromkeys(user_ids))
        assert len(wanted) <= WATCHED_MAX
        if self._doors.connected(user_id, device_id):
            self._watches.begin(watcher, wanted)
        try:
            facts = await self._read(wanted, _both_ways((one, user_id) for one in wanted))
        except Exception:
            self._watches.end(watcher)  # it was answered nothing, and asks again
            raise
        now, answer = self._clock.now(), []
        for one in wanted:
            watched = self._watches.get(one)
            known = watched is not None and watcher in watched.watchers
            line = self._advance(one, watched, facts, now) if watched is not None and known else None
            seen = line.told if line is not None else self._seen(one, facts)
            if not facts.may_know(user_id, one):
                seen = HIDDEN
            if watched is not None and known:
                watched.watchers[watcher] = seen
            answer.append((one, seen))
        return answer

    def changed(self, *user_ids: str) -> None:
        """Look again at these people, soon, here and at other processes: a call, a room or a block has changed."""
        if self._others_live():
            self._to_say.update(user_ids)
            self._elsewhere.doubt(user_ids)
        self._to_look.update(user_id for user_id in user_ids if self._watches.get(user_id) is not None)
        if self._to_say or self._to_look:
            self._nudge()

    # ------------------------------------------------------------------------------------------------------- looking

    async def run_due(self) -> None:
        """Look at everybody at whom it is time to look, and tell their watchers.

        While one look is out the next people gather, so that many changes at once are few queries.
        """
        async with self._looking:
            await self._say_elsewhere()
            now = self._clock.now()
            ripe = {user_id for user_id, due_at in self._due.items() if due_at <= now}
            wanted = sorted(self._to_look | ripe)
            self._to_look.clear()
            for start in range(0, len(wanted), LOOK_MAX):
                try:
                    await self._look(wanted[start : start + LOOK_MAX])
                except Exception:
                    self._to_look.update(wanted[start:])
                    raise

    async def run_sweep(self) -> None:
        """Look at some of those who are watched, so that in ``SWEEP_SECONDS`` it has been everybody's turn."""
        now = self._clock.now()
        share = min(1.0, (now - self._swept_at).total_seconds() / SWEEP_SECONDS)
        self._swept_at = now
        if not self._to_sweep:
            self._to_sweep = list(self._watches)
        most = max(1, round(share * len(self._watches)))
        self._to_look.update(self._to_sweep[-most:])
        del self._to_sweep[-most:]
        await self.run_due()

    async def run_elsewhere(self) -> None:
        """Hear of what other processes have changed, while there are others."""
        if not self._others_live():
            self._elsewhere.forget()
        elif not self._courier.may_wait("presence"):
            rows = await self._elsewhere.hear()
            await self._leases.restore(rows)
            self._look_at(*(row.user_id for row in rows))

    def stirred(self, user_ids: Collection[str]) -> None:
        """Another process says that these people's presence may have changed."""
        self._look_at(*user_ids)
        if self._to_look:
            self._nudge()

    async def run_leases(self) -> None:
        """Take away the leases of our own whose socket went without a word."""
        self._look_at(*await self._leases.tidy())
        for watcher in [one for one in self._watches.watchers() if not self._doors.connected(*one)]:
            self._watches.end(watcher)

    async def run_orphaned(self, dead_after_seconds: float, *, living: Collection[str] | None = None) -> None:
        """Take away the leases of dead processes; for all processes, so one of them is enough.

        ``living``: who lived a moment ago, where that is known; nothing is taken away without another look.
        """
        horizon = self._clock.now() - timedelta(seconds=dead_after_seconds)
        known = living if living is not None else await self._processes.living(horizon)
        living = {self._process, *known}
        while rows := await self._store.held_outside(living, BURIED_MAX):
            leases = [(row.user_id, one) for row in rows for one in row.leases if one.process not in living]
            beats = await self._processes.last_beats({one.process for _, one in leases})
            # One that has begun since we asked who lives.
            living |= {process for process, beat_at in beats.items() if beat_at >= horizon}
            dead = {
                (user_id, one.process): beats.get(one.process, one.since)
                for user_id, one in leases
                if one.process not in living
            }
            if dead:
                await self._store.bury([(*key, seen_at) for key, seen_at in dead.items()], self._clock.now())
                await self._hear_of({user_id for user_id, _ in dead})

    async def _hear_of(self, user_ids: Collection[str]) -> None:
        """Something that stands in the leases of these people was changed, by us."""
        if self._others_live():
            await self._elsewhere.learn(list((await self._store.rows(user_ids)).values()))
        self._look_at(*user_ids)

    def _look_at(self, *user_ids: str) -> None:
        """Look at those of the people who are watched here, with the next turn of the job.

        What is waited for anyway, before it is told, is cheaper to look at with what else has happened meanwhile.
        """
        self._to_look.update(user_id for user_id in user_ids if self._watches.get(user_id) is not None)

    async def _say_elsewhere(self) -> None:
        """Other processes look again at those of whom something has changed that stands not in their leases."""
        said, self._to_say = self._to_say, set()
        if said and self._others_live():
            try:
                await self._store.touch(said, self._clock.now())
                self._courier.stirred(said)
                await self._elsewhere.check(said)
            except Exception:
                self._to_say |= said
                raise

    async def _any_busy(self, user_ids: Collection[str]) -> set[str]:
        found = await asyncio.gather(*(among(user_ids) for among in self._busy_among))
        return set().union(*found)

    async def _read(self, user_ids: Collection[str], pairs: Sequence[tuple[str, str]]) -> _Facts:
        self._looks += 1
        number = self._looks
        rows, busy, people, blocks = await asyncio.gather(
            self._store.rows(user_ids),
            self._any_busy(user_ids),
            self._people.profiles(user_ids),
            self._blocks(pairs),
        )
        return _Facts(number=number, rows=rows, busy=busy, people=people, blocks=blocks)

    async def _blocks(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        found = set[tuple[str, str]]()
        for start in range(0, len(pairs), PAIRS_MAX):
            found |= await self._people.blocks_between(pairs[start : start + PAIRS_MAX])
        return found

    async def _look(self, user_ids: Sequence[str]) -> None:
        """Read what holds for these people; tell those of their watchers who may know and do not know yet."""
        watched = {user_id: one for user_id in user_ids if (one := self._watches.get(user_id)) is not None}
        for user_id in set(user_ids) - set(watched):
            self._due.pop(user_id, None)
        if not watched:
            return
        pairs = _both_ways((user_id, who) for user_id, one in watched.items() for who, _ in one.watchers)
        shown = {user_id: dict(one.watchers) for user_id, one in watched.items()}
        facts = await self._read(list(watched), pairs)
        now, changes = self._clock.now(), list[Change]()
        for user_id, one in watched.items():
            if self._watches.get(user_id) is not one:
                continue  # nobody watches any more
            line = one.line = settle(self._advance(user_id, one, facts, now), now)
            self._wait_for(user_id, line)
            for watcher, last in shown[user_id].items():
                if last is None or one.watchers.get(watcher) is not last:
                    continue  # it asks just now, and gets an answer of its own
                seen = line.told if facts.may_know(watcher[0], user_id) else HIDDEN
                if seen != last:
                    one.watchers[watcher] = seen
                    changes.append(Change(watcher=watcher, user_id=user_id, seen=seen))
        if changes:
            await self.announcer(changes)

    def _advance(self, user_id: str, watched: Watched, facts: _Facts, now: datetime) -> Line:
        """What watchers know and wait for after a look; one that began before the last one changes nothing."""
        line = watched.line
        if line is None or facts.number > watched.look:
            watched.look = facts.number
            seen = self._seen(user_id, facts)
            line = watched.line = look(line, seen, now) if line else Line(told=seen)
            self._wait_for(user_id, line)
        return line

    def _wait_for(self, user_id: str, line: Line) -> None:
        if line.due_at is not None:
            self._due[user_id] = line.due_at
        else:
            self._due.pop(user_id, None)

    def _seen(self, user_id: str, facts: _Facts) -> Seen:
        """What holds for a person: the sockets here from memory, all else as it was read."""
        row = facts.rows.get(user_id)
        others = [one.state for one in row.leases if one.process != self._process] if row else []
        here = self._leases.states(user_id)
        last_seen_at = row.last_seen_at if row else None
        return fold([*here, *others], busy=user_id in facts.busy, last_seen_at=last_seen_at)


def _both_ways(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Either may have blocked the other."""
    return list(dict.fromkeys(way for a, b in pairs for way in ((a, b), (b, a))))
