"""python-socketio with our rules for what clients send.

Every event goes to ``take`` and never to the library's own handlers. Whoever breaks the protocol below the events (a
packet of no kind, a second connect, an event for a namespace that is not connected, half a binary packet) is treated
as the reference server does: the connection is closed, and nothing else comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import engineio
import socketio
import structlog
from engineio.payload import Payload
from socketio import packet

from server.clock import Tasks
from server.packets import Bad

log = structlog.get_logger(__name__)

# Attachments are waited for only so that the refusal comes as the packet's ack; more would just be a lot of frames.
ATTACHMENTS_MAX = 16
# What may wait for a client that does not read: more than the longest replay, in packets and in characters.
WAITING_UNSUSPICIOUS = 64
WAITING_MAX = 1_000
WAITING_BYTES_MAX = 16 * 1024 * 1024
# Packets in one request of a client on polling. The library's 16 would drop a phone that sends its candidates; how
# large a request may be is bounded by itself.
PACKETS_MAX = 1024
Payload.max_decode_packets = PACKETS_MAX


class Transports(engineio.AsyncServer):  # type: ignore[misc]
    """The transports, closed without waiting for the client to fetch what is left, which it may never do."""

    async def disconnect(self, sid: str | None = None) -> None:
        """Close one transport, or all."""
        for one in list(self.sockets) if sid is None else [sid]:
            socket = self.sockets.get(one)
            if socket is not None:
                await socket.close(wait=False, reason=self.reason.SERVER_DISCONNECT)
                await socket.queue.put(None)  # ends the writer, and with it the websocket


class SignalingServer(socketio.AsyncServer):  # type: ignore[misc]
    """python-socketio, with every client event handed to ``take(sid, eio_sid, namespace, ack id, data)``."""

    take: Callable[[str, str, str, int | None, Any], None]
    tasks: Tasks

    def _engineio_server_class(self) -> type[engineio.AsyncServer]:
        return Transports

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

    async def tell(self, eio_sid: str, event: str, payload: Any) -> None:
        """Send one event to one client: without the task, and the waiting for it, that ``emit`` makes for a room."""
        if self._reads_too_slowly(eio_sid):
            return
        told = self.packet_class(packet.EVENT, namespace="/", data=[event, payload], binary=False)
        await self._send_packet(eio_sid, told)

    async def acknowledge(self, eio_sid: str, namespace: str, id: int, body: Any) -> None:
        """Send the one ack of an event."""
        if self._reads_too_slowly(eio_sid):
            return
        reply = self.packet_class(packet.ACK, namespace=namespace, id=id, data=[body], binary=False)
        await self._send_packet(eio_sid, reply)

    async def taken(self, eio_sid: str) -> None:
        """Wait until the transport has taken what was sent to one client: until it reads, or for ever if it never does.

        Who waits gives up when the connection has gone.
        """
        socket = self.eio.sockets.get(eio_sid)
        if socket is not None:
            await socket.queue.join()

    def _reads_too_slowly(self, eio_sid: str) -> bool:
        """Whether too much waits for a client that does not read (E65); its connection is then cut.

        It comes back by itself and catches up by the log. Nothing can be said to it first: the writer hangs in the
        very bytes that are not taken.
        """
        socket = self.eio.sockets.get(eio_sid)
        if socket is None or socket.queue.qsize() <= WAITING_UNSUSPICIOUS:
            return False
        waiting = [one for one in socket.queue._queue if one is not None]
        if len(waiting) <= WAITING_MAX and sum(len(one.data or "") for one in waiting) <= WAITING_BYTES_MAX:
            return False
        log.info("slow reader cut off", waiting=len(waiting))
        transport = self.environ[eio_sid]["aiohttp.request"].transport if eio_sid in self.environ else None
        if transport is not None:
            transport.abort()
        return True

    def show_out(self, eio_sid: str, why: str) -> None:
        """Close a transport below Socket.IO; the official client then reconnects by itself, unless told otherwise."""
        log.debug("shown out", why=why)
        self.tasks.spawn(self.eio.disconnect(eio_sid), f"show out {eio_sid}")
