"""python-socketio with our rules for what clients send.

Every event goes to ``take`` and never to the library's own handlers. Whoever breaks the protocol below the events (a
packet of no kind, a second connect, an event for a namespace that is not connected, half a binary packet) is treated
as the reference server does: the connection is closed, and nothing else comes of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import engineio
import socketio
import structlog
from engineio import packet as engine_packet
from engineio.payload import Payload
from socketio import packet

from server.clock import Tasks
from server.engine import WAITING_BYTES_MAX, Pings, Shortcut, Wire, WiredSocket
from server.packets import Bad, Json
from server.websockets import use_websockets

log = structlog.get_logger(__name__)

# Attachments are waited for only so that the refusal comes as the packet's ack; more would just be a lot of frames.
ATTACHMENTS_MAX = 16
# What may wait for a client on polling that does not come for it, in packets: more than the longest page of a replay.
WAITING_UNSUSPICIOUS = 64
WAITING_MAX = 1_000
# What a replay lets wait, in bytes: far below what counts as too slow.
BEHIND_BYTES = 1024 * 1024
SWEEP_SECONDS = 1.0
SID_BYTES = 24
# Packets in one request of a client on polling. The library's 16 would drop a phone that sends its candidates; how
# large a request may be is bounded by itself.
PACKETS_MAX = 1024
Payload.max_decode_packets = PACKETS_MAX


class Transports(engineio.AsyncServer):  # type: ignore[misc]
    """The transports: one sweep for all pings, and none waits for the client to fetch what is left."""

    def use_wires(self, tasks: Tasks, shortcut: Shortcut) -> None:
        """Serve WebSockets by the engine, as far as the installed libraries allow. Before the first connection."""
        self.pings = Pings(self.ping_interval, self.ping_timeout, tasks.spawn)

        def make(socket: Any, transport: Any, upgrades: bool) -> Wire:
            return Wire(socket, transport, shortcut=shortcut, spawn=tasks.spawn, upgrades=upgrades)

        use_websockets(self, make)

    def generate_id(self) -> str:
        """An id that opens its transport to whoever knows it: 192 bits of chance, where the library's has 96."""
        return secrets.token_urlsafe(SID_BYTES)

    async def disconnect(self, sid: str | None = None) -> None:
        """Close one transport, or all."""
        for one in list(self.sockets) if sid is None else [sid]:
            socket = self.sockets.get(one)
            if socket is not None:
                await socket.close(wait=False, reason=self.reason.SERVER_DISCONNECT)
                if socket.queue is not None:
                    await socket.queue.put(None)  # ends the library's writer, and with it the websocket

    async def _service_task(self) -> None:
        """Ping wires and see who has gone; the library's own takes its turns per socket, thousands in a second."""
        self.service_task_event = self.create_event()
        while not self.service_task_event.is_set():
            self.pings.sweep(asyncio.get_running_loop().time())
            for socket in [one for one in self.sockets.values() if not isinstance(one, WiredSocket)]:
                if socket.closed:
                    self.sockets.pop(socket.sid, None)
                elif not socket.closing:
                    await socket.check_ping_timeout()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.service_task_event.wait(), SWEEP_SECONDS)


class SignalingServer(socketio.AsyncServer):  # type: ignore[misc]
    """python-socketio, with every client event handed to ``take(sid, eio_sid, namespace, ack id, data)``."""

    take: Callable[[str, str, str, int | None, Any], None]
    tasks: Tasks
    # A transport has been opened, with its environment; it has gone.
    came: Callable[[str, dict[str, Any]], None] = staticmethod(lambda eio_sid, environ: None)
    gone: Callable[[str], None] = staticmethod(lambda eio_sid: None)

    def _engineio_server_class(self) -> type[engineio.AsyncServer]:
        return Transports

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        await super()._handle_eio_connect(eio_sid, environ)
        self.came(eio_sid, environ)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        self.gone(eio_sid)
        await super()._handle_eio_disconnect(eio_sid, reason)

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        half = self._binary_packet.get(eio_sid)
        if half is not None and isinstance(data, str):
            # Broken off: the packet is answered as it is, and the text is read as text.
            await self._give_up(eio_sid, half)
        try:
            await super()._handle_eio_message(eio_sid, data)
        except Exception as error:
            self._binary_packet.pop(eio_sid, None)
            self.show_out(eio_sid, repr(error)[:200])
            return
        half = self._binary_packet.get(eio_sid)
        if half is not None and not 0 < half.attachment_count <= ATTACHMENTS_MAX:
            await self._give_up(eio_sid, half)

    async def _give_up(self, eio_sid: str, half: packet.Packet) -> None:
        """A packet whose attachments are not waited for."""
        del self._binary_packet[eio_sid]
        if half.packet_type == packet.BINARY_EVENT:
            await self._handle_event(eio_sid, half.namespace, half.id, Bad("VALIDATION_FAILED"))

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        if self.manager.sid_from_eio_sid(eio_sid, namespace or "/") is not None:
            self.show_out(eio_sid, "a second connect")
        else:
            await super()._handle_connect(eio_sid, namespace, data)

    async def _handle_event(self, eio_sid: str, namespace: str | None, id: int | None, data: Any) -> None:
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace or "/")
        if sid is not None and self.manager.is_connected(sid, namespace or "/"):
            self.take(sid, eio_sid, namespace or "/", id, data)
        else:
            self.show_out(eio_sid, "an event without a connect")

    def tell(self, eio_sid: str, event: str, payload: Any) -> None:
        """Send one event to one client: without the task, and the waiting for it, that ``emit`` makes for a room."""
        self._send_text(eio_sid, f"2{Json.dumps([event, payload])}")

    def acknowledge(self, eio_sid: str, namespace: str, id: int, body: Any) -> None:
        """Send the one ack of an event."""
        where = "" if namespace == "/" else f"{namespace},"
        self._send_text(eio_sid, f"3{where}{id}{Json.dumps([body])}")

    async def taken(self, eio_sid: str) -> None:
        """Wait until the transport has taken what was sent to one client: until it reads, or for ever if it never does.

        Who waits gives up when the connection has gone.
        """
        socket = self.eio.sockets.get(eio_sid)
        if isinstance(socket, WiredSocket):
            await socket.wire.drained()
        elif socket is not None:
            await socket.queue.join()

    def behind(self, eio_sid: str) -> bool:
        """Whether so much waits for one client that a replay to it had better wait, too."""
        socket = self.eio.sockets.get(eio_sid)
        if isinstance(socket, WiredSocket):
            return socket.wire.waiting() > BEHIND_BYTES
        return socket is not None and socket.queue.qsize() > WAITING_UNSUSPICIOUS

    def wire(self, eio_sid: str) -> Wire | None:
        """The WebSocket of one client, unless it polls or has gone."""
        socket = self.eio.sockets.get(eio_sid)
        return socket.wire if isinstance(socket, WiredSocket) else None

    def half_a_packet(self, eio_sid: str) -> bool:
        """Whether a client is in the middle of a packet with attachments."""
        return eio_sid in self._binary_packet

    def _send_text(self, eio_sid: str, text: str) -> None:
        socket = self.eio.sockets.get(eio_sid)
        if isinstance(socket, WiredSocket):
            socket.wire.text(b"4" + text.encode())
        elif socket is not None and not socket.closed and not self._reads_too_slowly(eio_sid, socket):
            socket.queue.put_nowait(engine_packet.Packet(engine_packet.MESSAGE, text))

    def _reads_too_slowly(self, eio_sid: str, socket: Any) -> bool:
        """Whether too much waits for a client of the library's (E65); its connection is then cut.

        It comes back by itself and catches up by the log.
        """
        if socket.queue.qsize() <= WAITING_UNSUSPICIOUS:
            return False
        waiting = [one for one in socket.queue._queue if one is not None]
        if len(waiting) <= WAITING_MAX and sum(len(one.data or "") for one in waiting) <= WAITING_BYTES_MAX:
            return False
        log.info("slow reader cut off", waiting=len(waiting))
        self.show_out(eio_sid, "does not come for what waits")
        # The library's own writer of a WebSocket hangs in the very bytes that are not taken, and so would the goodbye.
        request = self.environ.get(eio_sid, {}).get("aiohttp.request") if socket.upgraded else None
        if request is not None and request.transport is not None:
            request.transport.abort()
        return True

    def show_out(self, eio_sid: str, why: str) -> None:
        """Close a transport below Socket.IO; the official client then reconnects by itself, unless told otherwise."""
        log.debug("shown out", why=why)
        wire = self.wire(eio_sid)
        if wire is not None:
            wire.close()  # what it sends from here on is not heard
        self.tasks.spawn(self.eio.disconnect(eio_sid), f"show out {eio_sid}")
