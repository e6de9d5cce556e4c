"""The generator's hot part: raw frames through ``epoll``, nothing parsed that comes as expected.

The phones connect by asyncio; for a measurement their sockets are taken from it. All frames of one contender are of
one size, so what arrives is told apart by its size: a relayed message, an ack, both. Anything else (a ping, several at
once, an error) is read as frames. Flat out every device has one message on its way and sends the next when one
arrives, so that each is a wake-up of its own for the server. At a fixed rate each message has its number, the times
are counted from the scheduled moment, and the generator turns without sleeping.
"""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Callable, Sequence

from tests.bench.frames import TEXT, client_frame, server_frames
from tests.bench.peers.contenders import Pair
from tests.bench.phone import Phone, now
from tests.bench.relay import DIGITS, MARK, candidate

READ_MAX = 65_536
TURN_SECONDS = 0.1
LOST_SECONDS = 10.0
RAMP_SHARE = 0.02
ACK_ID = 7
_EVENT, _ACK, _PING, _CONNECTED = b'42["ICE_CANDIDATE"', b"43", b"2", b"40"
_PONG = client_frame(b"3")


class Wires:
    """The sockets of all pairs. ``acked`` asks for an ack with each message."""

    def __init__(self, pairs: Sequence[Pair], *, acked: bool = False) -> None:
        self._acked = acked
        self._epoll = select.epoll()
        self._heads: dict[int, tuple[bytes, bytes]] = {}
        self._frames: dict[int, bytes] = {}
        self._rests: dict[int, bytearray] = {}
        self._phones = [phone for caller, callee, _ in pairs for phone in (caller, callee)]
        ack_id = ACK_ID if acked else None
        for caller, callee, call_id in pairs:
            self._take(caller, *candidate(call_id, "callerfrag", ack_id))
            self._take(callee, *candidate(call_id, "calleefrag", ack_id))
        self._fds = list(self._frames)
        self.sent = self.came = self.acks = self._told = 0
        self.others: Counter[str] = Counter()
        self._event_size = self._ack_size = self._number_at = 0
        self.taken_us: list[float] = []
        self.late_us: list[float] = []
        self._due_from = self._step = 0.0

    @property
    def frame_size(self) -> int:
        """Of what a device sends, with its header and mask."""
        return len(self._frames[self._fds[0]])

    @property
    def devices(self) -> int:
        """How many."""
        return len(self._fds)

    def close(self) -> None:
        """Give the sockets back to asyncio."""
        self._epoll.close()
        for fd in self._fds:
            os.close(fd)
        for phone in self._phones:
            phone.give_back()

    def learn(self) -> None:
        """One message from each device: the size of what arrives. Raises ``RuntimeError`` when it does not."""
        self._due_from, self._step = now(), 0.0
        for fd in self._fds:
            self._send(fd)
        self._wait_for_all()
        if self.came < self.sent or self.others:
            raise RuntimeError(f"of {self.sent} messages {self.came} arrived; {dict(self.others)}")

    def flood(self, seconds: float, most: int, begun: Callable[[], None]) -> int:
        """Flat out until ``seconds`` are over or ``most`` have arrived: how many since ``begun`` was called.

        It is called when the messages are on their way.
        """
        for fd in self._fds:
            self._send(fd)
        before = self._bounce(seconds * RAMP_SHARE, most // 10)
        begun()
        return self._bounce(seconds, most - before)

    def _bounce(self, seconds: float, most: int) -> int:
        read, write, poll = os.read, os.write, self._epoll.poll
        frames, event, ack = self._frames, self._event_size, self._ack_size
        both, came, acks, until = event + ack, 0, 0, now() + seconds
        came_before = self.came
        while came < most and now() < until:
            for fd, _ in poll(TURN_SECONDS):
                data = read(fd, READ_MAX)
                size = len(data)
                if size == event:
                    came += 1
                elif size == ack:
                    acks += 1
                    continue
                elif size == both and ack:
                    came += 1
                    acks += 1
                else:
                    before = self.came
                    self._read_slowly(fd, data)
                    for _ in range(self.came - before):
                        self._send(fd)
                    continue
                write(fd, frames[fd])
        # What was read slowly has counted itself.
        self.came += came
        self.sent += came
        self.acks += acks
        return self.came - came_before

    def settle(self) -> None:
        """Wait for what is on its way, without answering."""
        self._wait_for_all()

    def rest(self, seconds: float) -> None:
        """Answer pings."""
        until = now() + seconds
        while (left := until - now()) > 0:
            for fd, _ in self._epoll.poll(left):
                self._read_slowly(fd, os.read(fd, READ_MAX))

    def steady(self, rate: int, seconds: float) -> None:
        """At ``rate`` per second, the devices taking turns; fills ``taken_us`` and ``late_us``."""
        self.taken_us, self.late_us = [], []
        fds, read, poll = self._fds, os.read, self._epoll.poll
        event, first, last = self._event_size, self._number_at, self._number_at + DIGITS
        many, count, number = len(fds), round(rate * seconds), 0
        start, step, base = now() + 0.001, 1 / rate, self.sent
        self._due_from, self._step = start - base * step, step
        taken, late = self.taken_us, self.late_us
        while number < count:
            at = now()
            while number < count and at >= (due := start + number * step):
                self._send(fds[number % many])
                late.append((at - due) * 1e6)
                number += 1
                at = now()
            for fd, _ in poll(0):
                at = now()
                data = read(fd, READ_MAX)
                if len(data) == event:
                    self.came += 1
                    taken.append((at - start - (int(data[first:last]) - base) * step) * 1e6)
                elif len(data) == self._ack_size:
                    self.acks += 1
                else:
                    self._read_slowly(fd, data, at)
        self._wait_for_all()

    def sent_lately(self) -> int:
        """Messages since this was last asked."""
        sent, self._told = self.sent - self._told, self.sent
        return sent

    @property
    def lost(self) -> int:
        """Messages that have not arrived."""
        return self.sent - self.came

    def _take(self, phone: Phone, head: bytes, tail: bytes) -> None:
        fd = phone.take_socket()
        self._heads[fd], self._frames[fd] = (head, tail), b"%s%09d%s" % (head, 0, tail)
        self._epoll.register(fd, select.EPOLLIN)

    def _send(self, fd: int) -> None:
        head, tail = self._heads[fd]
        try:
            os.write(fd, b"%s%09d%s" % (head, self.sent, tail))
        except ConnectionError:
            self.others["connection lost"] += 1
        self.sent += 1

    def _wait_for_all(self) -> None:
        until = now() + LOST_SECONDS
        while (self.came < self.sent or (self._acked and self.acks < self.sent)) and now() < until:
            for fd, _ in self._epoll.poll(TURN_SECONDS):
                self._read_slowly(fd, os.read(fd, READ_MAX), now())

    def _read_slowly(self, fd: int, data: bytes, at: float = 0.0) -> None:
        if not data:
            self._epoll.unregister(fd)
            self.others["connection lost"] += 1
            return
        rest = self._rests.setdefault(fd, bytearray())
        rest += data
        for opcode, text in server_frames(rest):
            if opcode != TEXT:
                self.others[f"opcode {opcode}"] += 1
            elif text.startswith(_EVENT):
                self._event(text, at)
            elif text.startswith(_ACK):
                self.acks += 1
                self._ack_size = len(text) + (2 if len(text) < 126 else 4)
            elif text == _PING:
                os.write(fd, _PONG)
            elif not text.startswith(_CONNECTED):  # python-socketio says so after what it says in its handler
                self.others[text[:120].decode(errors="replace")] += 1

    def _event(self, text: bytes, at: float) -> None:
        self.came += 1
        self._event_size = len(text) + 4
        at_text = text.find(MARK) + len(MARK)
        self._number_at = at_text + 4
        if at and self._step:
            number = int(text[at_text : at_text + DIGITS])
            self.taken_us.append((at - self._due_from - number * self._step) * 1e6)
