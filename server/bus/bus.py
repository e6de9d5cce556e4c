"""Targeted delivery between processes: a message goes to those that hold the sockets it is for, and to no others.

Each process listens on a channel of its own, on one for each user who has a socket in it, and on one for each user
whom somebody watches in it. So a relayed message is published once and wakes one other process, however many there are.

Redis is not the truth. Durable letters are in the users' logs and calls in their documents before anything is said
here; whoever has been cut off, or has just begun, reads the database at the old pace until all has settled. What needs
no memory (candidates, typing) is lost when Redis is lost, unless its sender knows: then it takes the way of the log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Literal, Protocol

import orjson
import structlog

from models.calls.switchboard import Route
from models.ports import Doors, Letter
from server.bus import frames
from server.bus.far import Far
from server.bus.line import Line
from server.clock import Tasks

log = structlog.get_logger(__name__)

# A message to oneself shows that the connection works in both directions, and that the subscriptions before it hold.
BEAT_SECONDS = 1.0
SILENT_SECONDS = 3.0
# How long after anybody's coming the database is read at the pace of processes without a bus: longer than the sockets
# of the one who came take to be subscribed for.
SETTLING_SECONDS = 5.0
# How often it is read all the same, in case that anything goes by unheard; less than how far each look goes back.
SLOW_SECONDS = 4.0
# What Redis has not taken: beyond the first nothing is sent that is only of the moment, beyond the second nothing.
MOMENT_BYTES_MAX = 1024 * 1024
WAITING_BYTES_MAX = 8 * 1024 * 1024


class Ear(Protocol):
    """What the services do with what is heard."""

    def letters(self, letters: Sequence[Letter]) -> None:
        """The devices connected here are told these."""
        ...

    async def changed(self, what: str, id: str, version: int) -> None:
        """Look again at a call or room, if it is known here at an older version."""
        ...

    def stirred(self, user_ids: Collection[str]) -> None:
        """Look again at these people, who are watched here."""
        ...

    def another(self) -> None:
        """Another process lives."""
        ...


class Sockets(Doors, Protocol):
    """The sockets of this process."""

    def deliver_now(self, letters: Sequence[Letter]) -> None:
        """As ``deliver``, within this turn of the loop."""
        ...

    def pass_on(self, user_id: str, device_id: str, frame: bytes) -> bool:
        """Send a frame as it stands; False where the device is not here, or not in a state to take it."""
        ...


class Bus:
    """``models.ports.Courier`` through Redis. ``bind`` hands over what is made after it; then ``start``."""

    def __init__(self, url: str, *, name: str, process: str, tasks: Tasks) -> None:
        self._prefix = f"ringmeter:{name}:"
        self._process = process
        self._me = process.encode()
        self._tasks = tasks
        self._line = Line(url, tasks=tasks, heard=self._heard, opened=self._opened, closed=self._closed)
        self._all = f"{self._prefix}all"
        self._joined: Counter[str] = Counter()
        self._news: dict[str, bool] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._beat_heard_at = 0.0
        self._settled_at = 0.0
        self._slow_until: dict[str, float] = {}
        self._missed = False
        self._doors: Sockets
        self._ear: Ear
        self._others_live: Callable[[], bool] = lambda: True
        self.reaches = False
        # Messages by what they are, since the start; ``/metrics`` shows them.
        self.published: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.dropped = self.beats = 0

    def bind(self, *, doors: Sockets, ear: Ear, others_live: Callable[[], bool]) -> None:
        """The sockets here, what to do with what is heard, and whether there is anybody to say anything to."""
        self._doors, self._ear, self._others_live = doors, ear, others_live

    def start(self) -> None:
        """Connect, and stay connected until ``stop``."""
        self._line.start()

    def stop(self) -> None:
        """Be gone; what was sent is still sent."""
        if self._timer is not None:
            self._timer.cancel()
        self._down()
        self._line.stop()

    def may_wait(self, work: str) -> bool:
        """Whether all that was said lately has been heard, so that a job may read the database less often."""
        now = asyncio.get_running_loop().time()
        if self.reaches and now >= self._settled_at and now < self._slow_until.get(work, 0.0):
            return True
        self._slow_until[work] = now + SLOW_SECONDS
        return False

    # ------------------------------------------------------------------------------------------ who listens to what

    def here(self, user_id: str, *, connected: bool) -> None:
        """The first socket of a user has come to this process, or the last has gone."""
        self._listen(f"{self._prefix}u:{user_id}", 1 if connected else -1)

    def watching(self, user_id: str, *, watched: bool) -> None:
        """Somebody here watches that user now, or nobody does any more."""
        self._listen(f"{self._prefix}w:{user_id}", 1 if watched else -1)

    def _listen(self, channel: str, change: int) -> None:
        before = self._joined[channel] > 0
        self._joined[channel] += change
        now = self._joined[channel] > 0
        if not now:
            del self._joined[channel]
        if now != before:
            if not self._news:
                asyncio.get_running_loop().call_soon(self._subscribe)
            self._news[channel] = now

    def _subscribe(self) -> None:
        """All of one turn of the loop at once; who has come and gone meanwhile is subscribed to and left again."""
        come = [channel for channel, now in self._news.items() if now]
        gone = [channel for channel, now in self._news.items() if not now]
        self._news.clear()
        if come:
            self._line.send("SUBSCRIBE", *come)
        if gone:
            self._line.send("UNSUBSCRIBE", *gone)

    # ------------------------------------------------------------------------------------------ models.ports.Courier

    def carry(self, letters: Sequence[Letter]) -> None:
        """Publish the letters that may be for devices elsewhere."""
        if not self.reaches or not self._others_live():
            return
        for letter in letters:
            device, channel = letter.only_device, f"{self._prefix}u:{letter.user_id}"
            if device is not None:
                if self._doors.connected(letter.user_id, device):
                    continue  # one device has one socket, and it is here
                if letter.at not in (None, self._process):
                    channel = f"{self._prefix}p:{letter.at}"
            kept = letter.seq is not None
            self._publish(channel, "letter", frames.letter_frame(self._me, letter), kept=kept)

    def towards(self, route: Route) -> Far | None:
        """The other end of a route that ends at another process: what is relayed is published as it is sent there."""
        if route.to_process == self._process or not self.reaches:
            return None
        channel = f"{self._prefix}p:{route.to_process}"
        head = frames.frame_head(self._me, route.to_user, route.to_device)
        return Far(
            lambda frame: self._publish(channel, "frame", head + frame, kept=False), lambda: self.reaches
        )

    def close(self, user_id: str, *, session_ids: Collection[str] | None, code: str) -> None:
        """See ``models.ports.Courier``."""
        said = frames.closing(user_id, session_ids, code)
        self._say(f"u:{user_id}", "close", frames.CLOSE, *said)

    def changed(
        self,
        what: Literal["call", "room"],
        id: str,
        version: int,
        *,
        users: Collection[str] = (),
        processes: Collection[str | None] = (),
    ) -> None:
        """See ``models.ports.Courier``."""
        for user_id in dict.fromkeys(users):
            self._say(f"u:{user_id}", "changed", frames.CHANGED, what, id, version)
        for process in dict.fromkeys(processes):
            if process not in (None, self._process):
                self._say(f"p:{process}", "changed", frames.CHANGED, what, id, version)

    def stirred(self, user_ids: Collection[str]) -> None:
        """See ``models.ports.Courier``."""
        for user_id in user_ids:
            self._say(f"w:{user_id}", "stirred", frames.STIRRED, user_id, kept=False)

    def _say(self, channel: str, name: str, kind: bytes, *said: Any, kept: bool = True) -> None:
        if self.reaches and self._others_live():
            self._publish(self._prefix + channel, name, frames.frame(kind, self._me, *said), kept=kept)

    def _publish(self, channel: str, name: str, message: bytes, *, kept: bool) -> None:
        waiting = self._line.waiting_bytes
        if waiting > (WAITING_BYTES_MAX if kept else MOMENT_BYTES_MAX):
            self.dropped += 1
            self._missed = self._missed or kept
            return
        self.published[name] += 1
        self._line.send("PUBLISH", channel, message)

    # ------------------------------------------------------------------------------------------------- the connection

    def _opened(self) -> None:
        """Subscribe to everything; the first beat that comes back says that it holds."""
        self._news.clear()
        channels = [self._all, f"{self._prefix}p:{self._process}", *self._joined]
        for start in range(0, len(channels), 1000):
            self._line.send("SUBSCRIBE", *channels[start : start + 1000])
        self._beat_heard_at = asyncio.get_running_loop().time()
        self._beat()

    def _closed(self) -> None:
        if self.reaches:
            log.warning("Redis is away: other processes are heard of by the database")
        self._down()

    def _down(self) -> None:
        self.reaches = False
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._beat_heard_at > SILENT_SECONDS:
            self._line.abort()  # it hangs, or we have slept: either way what was said meanwhile is read elsewhere
            return
        if self._missed and self._line.waiting_bytes == 0:
            self._missed = False
            self._hello()
        self.ask_back()
        self._timer = loop.call_later(BEAT_SECONDS, self._beat)

    def ask_back(self) -> None:
        """Send a message to oneself; ``beats`` counts those that have come back, and with each all sent before it."""
        self._line.send("PUBLISH", f"{self._prefix}p:{self._process}", frames.frame(frames.BEAT, self._me))

    def _beaten(self) -> None:
        self.beats += 1
        self._beat_heard_at = asyncio.get_running_loop().time()
        if not self.reaches:
            self._line.steady()
            self.reaches = True
            self._settle()
            self._hello()
            log.info("Redis is there: other processes are heard at once")

    def _hello(self) -> None:
        """To everybody: here I am, and what I have said or should have heard lately may have been lost."""
        self._line.send("PUBLISH", self._all, frames.frame(frames.HELLO, self._me))

    def _settle(self) -> None:
        self._settled_at = asyncio.get_running_loop().time() + SETTLING_SECONDS

    # ------------------------------------------------------------------------------------------------------- hearing

    def _heard(self, channel: bytes, message: bytes) -> None:
        kind, (process, rest) = message[:1], frames.sender(message)
        if process == self._me:
            if kind == frames.BEAT:
                self._beaten()
            return  # what I have said to a channel to which I listen as well
        try:
            self._take(kind, rest, direct=channel.endswith(self._me))
        except (ValueError, TypeError) as fault:
            log.error("a message of another version", kind=kind.decode(errors="replace"), error=repr(fault))

    def _take(self, kind: bytes, rest: bytes, *, direct: bool) -> None:
        if kind == frames.LETTER:
            self.received["letter"] += 1
            self._deliver(frames.read_letter(rest), direct=direct)
            return
        if kind == frames.FRAME:
            self.received["frame"] += 1
            user_id, device_id, frame = frames.read_frame(rest)
            if not self._doors.pass_on(user_id, device_id, frame):
                self._deliver(frames.letter_of(user_id, device_id, frame), direct=direct)
            return
        said = orjson.loads(rest)
        if kind == frames.CHANGED:
            self.received["changed"] += 1
            self._spawn(self._ear.changed(*said), "heard of a change")
        elif kind == frames.STIRRED:
            self.received["stirred"] += 1
            self._ear.stirred(said)
        elif kind == frames.CLOSE:
            self.received["close"] += 1
            user_id, sessions, code = said
            self._spawn(self._doors.close(user_id, session_ids=sessions, code=code), "close elsewhere")
        elif kind == frames.HELLO:
            self._settle()
            self._ear.another()

    def _deliver(self, letter: Letter, *, direct: bool) -> None:
        device = letter.only_device
        if direct and device is not None and not self._doors.connected(letter.user_id, device):
            # It has moved since its peer learned where it is; whoever holds it now listens for its user.
            moved = frames.letter_frame(self._me, letter)
            self._publish(f"{self._prefix}u:{letter.user_id}", "moved", moved, kept=False)
            return
        self._doors.deliver_now([letter])
        self._ear.letters([letter])

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        self._tasks.spawn(work, name)
