"""What is told to a connected device: each letter once, in the order of the log, no faster than it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from handlers.context import Context
from handlers.shapes import NUMBER_MAX
from models.mailbox.service import Stretch, ThrownAway
from models.ports import Letter
from server.clock import Tasks
from server.connection import Connection
from server.funnel import fault
from server.protocol import SignalingServer

log = structlog.get_logger(__name__)

# Letters that wait in memory while a device is brought up by the log.
PENDING_MAX = 1_000

# What follows a number of the log, for the device.
More = Callable[[Context, int], Awaitable[Stretch]]


class Telling:
    """One per process. ``more`` is set by whoever made it."""

    more: More

    def __init__(self, sio: SignalingServer, tasks: Tasks) -> None:
        self._sio, self._tasks = sio, tasks

    def deliver(self, connection: Connection, letter: Letter) -> None:
        """Send a letter now, or as soon as what goes before it has been sent."""
        if connection.pending is not None:
            if len(connection.pending) < PENDING_MAX:
                connection.pending.append(letter)
            elif letter.seq is None:
                # It would never hear of this, nor that it has missed something: it begins anew.
                self.send_back(connection)
            # What is in the log beyond this comes from there when its turn has come.
        elif letter.seq is not None and letter.seq > connection.told_seq + 1:
            # The one before it is another task's or another process's and not here yet. A client that got this one
            # first and then lost its connection would never ask for that one.
            connection.pending = [letter]
            self._tasks.spawn(self.catch_up(connection), f"catch up {connection.sid}")
        else:
            self._tell(connection, letter)

    async def catch_up(self, connection: Connection, first: Stretch | None = None, *, upto: int = 0) -> None:
        """Tell ``first`` and the log up to ``upto``, then what is pending, each after what the log has before it."""
        try:
            if first is not None:
                await self._page(connection, first)
            await self._replay(connection, upto)
            while connection.pending:
                full = len(connection.pending) >= PENDING_MAX
                batch, connection.pending = connection.pending, []
                for letter in batch:
                    if letter.seq is not None:
                        await self._replay(connection, letter.seq - 1)
                    self._tell(connection, letter)
                if full:
                    await self._replay(connection, NUMBER_MAX)  # what found no place behind these
        except ThrownAway:
            self.send_back(connection)  # its next connection is told of the gap
            return
        except Exception as error:
            fault(error, "catch up")
            self.send_back(connection)  # its next connection gets everything by replay
            return
        connection.pending = None

    async def _replay(self, connection: Connection, upto: int) -> None:
        """Tell the log up to number ``upto``, or to its end; no faster than the client takes it."""
        while connection.told_seq < upto and connection.open:
            stretch = await self.more(connection.ctx, connection.told_seq)
            if stretch.upto <= connection.told_seq:
                return
            await self._page(connection, stretch)

    async def _page(self, connection: Connection, stretch: Stretch) -> None:
        """Tell one page, as the client takes it: how long a letter is, is for those to say who write them."""
        for letter in stretch.letters:
            self.emit(connection, letter.event, _payload(letter))
            connection.told_seq = letter.seq or connection.told_seq
            if self._sio.behind(connection.eio_sid) and not await self._taken(connection):
                return
        connection.told_seq = stretch.upto
        await self._taken(connection)

    async def _taken(self, connection: Connection) -> bool:
        """Wait until the client has taken what was sent; whether it is still there."""
        if _gone(connection):
            return False  # what it has not taken nobody takes, and waiting for that would not end
        connection.waits = self._tasks.spawn(self._sio.taken(connection.eio_sid), f"replay {connection.sid}")
        try:
            await connection.waits
        except asyncio.CancelledError:
            if not _gone(connection):
                raise
            return False
        connection.waits = None
        return True

    def _tell(self, connection: Connection, letter: Letter) -> None:
        """Send one letter, unless it has been told or is for another device."""
        if letter.seq is not None:
            if letter.seq <= connection.told_seq:
                return
            connection.told_seq = letter.seq
        device = connection.ctx.device_id
        if letter.only_device in (None, device) and letter.except_device != device:
            self.emit(connection, letter.event, _payload(letter))

    def emit(self, connection: Connection, event: str, payload: dict[str, Any]) -> None:
        """Send one event now."""
        try:
            self._sio.tell(connection.eio_sid, event, payload)
        except Exception as error:
            log.info("could not tell", event_name=event, error=repr(error))

    def send_back(self, connection: Connection) -> None:
        """Close the transport below Socket.IO: the official client then reconnects by itself."""
        self._sio.show_out(connection.eio_sid, "sent back")


def _gone(connection: Connection) -> bool:
    """Asked anew each time, since it changes while somebody waits."""
    return not connection.open


def _payload(letter: Letter) -> dict[str, Any]:
    """A durable event carries the user's number as ``logSeq``, and as ``seq`` unless its shape has one of its own."""
    if letter.seq is None:
        return dict(letter.payload)
    return {"seq": letter.seq, **letter.payload, "logSeq": letter.seq}
