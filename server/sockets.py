"""The hinge between Socket.IO and the funnel: who is connected, what they send, what they are sent.

Events of clients never reach python-socketio's own handlers: ``SignalingServer`` hands each one over, so that a forged
``connect`` or ``disconnect`` is just an unknown event, and each gets exactly one ack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from socketio.exceptions import ConnectionRefusedError as Refused

from handlers.context import Context
from handlers.registry import Catalogue
from handlers.services import Services
from handlers.shapes import NUMBER_MAX
from handlers.system import Greeting
from models.auth.service import Identity
from models.calls.switchboard import Route
from models.errors import Refusal
from models.mailbox.service import Stretch
from models.ports import Letter
from server.addresses import client_address
from server.admission import Admission
from server.asking import Asked, read_event
from server.clock import Tasks, Wakefulness
from server.connection import Connection, token_of
from server.engine import Wire
from server.funnel import Answer, Funnel, fault
from server.metrics import CONNECTS, NO_DOOR, REQUESTS, SOCKETS, RelayCount
from server.packets import FRAME_MAX, GuardedPacket, Json
from server.proofs import note_stranger
from server.protocol import SignalingServer
from server.relay import Relay
from server.telling import More, Telling

log = structlog.get_logger(__name__)

# A dead phone is noticed after their sum: the 15 s lease of reference/calls.md §9.
PING_EVERY_SECONDS = 5
PING_TIMEOUT_SECONDS = 10
# Frames beyond this close the connection; from FRAME_MAX up to here they are refused by ack.
FRAME_HARD_MAX = 8 * FRAME_MAX
EXPIRING_SECONDS = 60
EXPIRED_GRACE_SECONDS = 25
DEVICE_ID_MAX = 64

Welcome = Callable[[Context, int | None], Awaitable[Greeting]]
# A device's socket is there; it is gone, last seen at an instant.
Arrived = Callable[[Context], Awaitable[None]]
Gone = Callable[[Context, datetime], Awaitable[None]]


class Sockets:
    """The connected devices of this process: ``models.ports.Doors`` for the services, the hinge for the clients."""

    def __init__(
        self, *, tasks: Tasks, process: str, origins: Any, admission: Admission, proxy_hops: int = 0
    ) -> None:
        self._tasks = tasks
        self._admission = admission
        self._proxy_hops = proxy_hops
        self._process = process
        self._by_sid: dict[str, Connection] = {}
        self._by_eio: dict[str, Connection] = {}
        self._by_user: dict[str, dict[str, Connection]] = {}
        self.draining = False
        # Where there are other processes: letters of the relay go on to them, and they hear whose sockets are here.
        self.carry: Callable[[Sequence[Letter]], None] = lambda letters: None
        self.here: Callable[[str, bool], None] = lambda user_id, connected: None
        self.sio = SignalingServer(
            async_mode="aiohttp",
            serializer=GuardedPacket,
            json=Json,
            cors_allowed_origins=origins,
            ping_interval=PING_EVERY_SECONDS,
            ping_timeout=PING_TIMEOUT_SECONDS,
            max_http_buffer_size=FRAME_HARD_MAX,
            http_compression=False,
            monitor_clients=True,
        )
        self.sio.take, self.sio.tasks = self._take, tasks
        self.sio.came = lambda eio_sid, environ: admission.came(eio_sid, self.address(environ))
        self.sio.gone = admission.gone
        self.sio.eio.use_wires(tasks, self._shortcut)
        self._telling = Telling(self.sio, tasks)
        self.sio.on("connect", self._connect)
        self.sio.on("disconnect", self._disconnect)

    def bind(
        self,
        *,
        services: Services,
        funnel: Funnel,
        catalogue: Catalogue,
        welcome: Welcome,
        more: More,
        arrived: Arrived,
        gone: Gone,
    ) -> None:
        """Hand over what is made after this object."""
        self._services = services
        self._funnel = funnel
        self._catalogue = catalogue
        self._welcome, self._arrived, self._gone = welcome, arrived, gone
        self._telling.more = more
        self.relayed = RelayCount()
        self._relay = Relay(calls=services.calls, lanes=funnel.lanes, reach=self._reach, count=self.relayed)
        self.awake = Wakefulness(services.calls.board.doubt)

    # ------------------------------------------------------------------------------------------- models.ports.Doors

    async def deliver(self, letters: Sequence[Letter]) -> None:
        """Send each letter to its user's connected devices: numbered ones in the order of the log, each once."""
        self.deliver_now(letters)

    def deliver_now(self, letters: Sequence[Letter]) -> None:
        """As ``deliver``, within this turn of the loop."""
        for letter in letters:
            for connection in list(self._by_user.get(letter.user_id, {}).values()):
                self._telling.deliver(connection, letter)

    def pass_on(self, user_id: str, device_id: str, frame: bytes) -> bool:
        """Send a frame of another process's relay, unless the device is not here or not in a state to take it."""
        connection = self._reach(user_id, device_id)
        if connection is None or connection.wire is None:
            return False
        connection.wire.text(frame)
        return True

    def send_back(self, user_id: str, device_id: str) -> None:
        """Let a device connect anew."""
        for connection in list(self._by_user.get(user_id, {}).values()):
            if connection.ctx.device_id == device_id:
                self._telling.send_back(connection)

    def relay_to(self, far: Callable[[Route], Any]) -> None:
        """Relay to other processes by ``far``."""
        self._relay.far = far

    def online(self, user_id: str) -> bool:
        """Whether any device of the user is connected here."""
        return user_id in self._by_user

    def connected(self, user_id: str, device_id: str) -> bool:
        """Whether that device is connected here."""
        return any(c.ctx.device_id == device_id for c in self._by_user.get(user_id, {}).values())

    def renew(self, user_id: str, device_id: str, expires_at: datetime) -> None:
        """A device has brought a fresh token: its socket lives until ``expires_at``."""
        for connection in self._by_user.get(user_id, {}).values():
            if connection.ctx.device_id == device_id:
                connection.expires_at, connection.warned = expires_at, False

    async def close(self, user_id: str, *, session_ids: Collection[str] | None = None, code: str) -> None:
        """Close sockets for good: the client is told ``code`` and does not come back by itself."""
        for connection in list(self._by_user.get(user_id, {}).values()):
            if session_ids is None or connection.ctx.session_id in session_ids:
                await self._dismiss(connection, Refusal(code))

    # -------------------------------------------------------------------------------------------------- connections

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> bool:
        auth = auth if isinstance(auth, dict) else {}
        eio_sid = self.sio.manager.eio_sid_from_sid(sid, "/")
        try:
            if self.draining:
                raise Refusal("SERVER_DRAINING")
            self._admission.connect(eio_sid)
            identity = await self._services.accounts.authenticate(token_of(auth, environ))
            # Its transport may have been open before its address was kept out.
            kept_out = self._services.blocks.refusal(self.address(environ), stranger=False)
            if kept_out is not None:
                raise kept_out
        except Exception as error:
            no = error if isinstance(error, Refusal) else fault(error, "connect")
            note_stranger("connect", no, self.address(environ))
            raise _refused(no) from None
        ctx = self._context(identity, self._device(auth, identity, sid), environ)
        others = {c.ctx.device_id for c in self._by_user.get(ctx.user_id, {}).values()} - {ctx.device_id}
        if len(others) >= self._admission.limits.per_user:
            raise _refused(Refusal("TOO_MANY_CONNECTIONS"))
        connection = Connection(sid, eio_sid, ctx, identity.expires_at, self._funnel.limits.allowance(ctx))
        older = [c for c in self._by_user.get(ctx.user_id, {}).values() if c.ctx.device_id == ctx.device_id]
        self._by_sid[sid] = self._by_eio[eio_sid] = connection
        if ctx.user_id not in self._by_user:
            self.here(ctx.user_id, True)
        self._by_user.setdefault(ctx.user_id, {})[sid] = connection
        SOCKETS.set(len(self._by_sid))
        CONNECTS.labels("ok").inc()
        for old in older:
            old.replaced, old.open = True, False
        since = auth.get("since")
        if not isinstance(since, int) or isinstance(since, bool) or since < 0:
            since = None
        elif since > NUMBER_MAX:
            since = NUMBER_MAX  # beyond every log, as it said, and no more than the database can compare
        self._tasks.spawn(self._greet(connection, since, older), f"greet {sid}")
        return True

    def _device(self, auth: dict[str, Any], identity: Identity, sid: str) -> str:
        """The device's own id; without one, the sign-in session's, as long as no other socket goes by it."""
        given = auth.get("deviceId")
        if isinstance(given, str) and 0 < len(given) <= DEVICE_ID_MAX and "\x00" not in given:
            return given
        by_session = f"session:{identity.session_id}"
        return f"socket:{sid}" if self.connected(identity.user_id, by_session) else by_session

    def _context(self, identity: Identity, device_id: str, environ: dict[str, Any]) -> Context:
        return Context(
            services=self._services,
            user_id=identity.user_id,
            session_id=identity.session_id,
            device_id=device_id,
            process=self._process,
            address=self.address(environ),
            door="socket",
            role=identity.role,
        )

    def address(self, environ: dict[str, Any]) -> str:
        """From where a transport comes. What the library says of it (``REMOTE_ADDR``) is always 127.0.0.1."""
        request = environ.get("aiohttp.request")
        return client_address(request, self._proxy_hops) if request is not None else ""

    async def _greet(self, connection: Connection, since: int | None, older: list[Connection]) -> None:
        """Replay what the device missed, then what came in meanwhile; from then on letters go straight through."""
        ctx = connection.ctx
        try:
            for old in older:
                await self.sio.disconnect(old.sid)  # the newest socket of a device is the device
            await self._arrived(ctx)
            greeting = await self._welcome(ctx, since)
        except Exception as error:
            no = error if isinstance(error, Refusal) else fault(error, "greet")
            self._telling.emit(connection, "error", {"error": no.body(), "event": "SYNC"})
            self._telling.send_back(connection)
            return
        self._telling.emit(connection, "SYNC", greeting.sync)
        await self._telling.catch_up(
            connection, Stretch(tuple(greeting.letters), greeting.upto), upto=greeting.sync["seq"]
        )

    async def _disconnect(self, sid: str, reason: str = "") -> None:
        connection = self._by_sid.pop(sid, None)
        if connection is None:
            return
        connection.open = False
        self._by_eio.pop(connection.eio_sid, None)
        if connection.waits is not None:
            connection.waits.cancel()
        ctx = connection.ctx
        # Its transport may go on for the next connect, not for nothing.
        self._admission.silent(connection.eio_sid)
        mine = self._by_user.get(ctx.user_id, {})
        mine.pop(sid, None)
        if not mine and self._by_user.pop(ctx.user_id, None) is not None:
            self.here(ctx.user_id, False)
        SOCKETS.set(len(self._by_sid))
        if self.draining or connection.replaced or self.connected(ctx.user_id, ctx.device_id):
            return
        seen = self._services.clock.now()
        if reason == self.sio.reason.PING_TIMEOUT:
            seen -= timedelta(seconds=PING_EVERY_SECONDS + PING_TIMEOUT_SECONDS)
        try:
            await self._gone(ctx, seen)
        except Exception as error:  # the lease job finds the leg without its socket
            fault(error, "disconnect")

    async def sweep(self) -> None:
        """Warn of tokens that expire, and close sockets whose token has expired (CONTRACT §2)."""
        self.awake.look()
        now = self._services.clock.now()
        for eio_sid in self._admission.overdue():
            if eio_sid not in self._by_eio:
                self.sio.show_out(eio_sid, "connected to nothing")
        for connection in list(self._by_sid.values()):
            left = (connection.expires_at - now).total_seconds()
            if left <= -EXPIRED_GRACE_SECONDS:
                await self._dismiss(connection, Refusal("TOKEN_EXPIRED"))
            elif left <= EXPIRING_SECONDS and not connection.warned:
                connection.warned = True
                self._telling.emit(connection, "AUTH_EXPIRING", {"expiresInMs": max(0, round(left * 1000))})

    async def put_out(self, refusal: Callable[[str], Refusal | None]) -> None:
        """Close the sockets from addresses for which there is a refusal."""
        for connection in list(self._by_sid.values()):
            no = refusal(connection.ctx.address)
            if no is not None:
                await self._dismiss(connection, no)

    async def drain(self) -> None:
        """Take no more connections and send everybody away to come back."""
        self.draining = True
        for connection in list(self._by_sid.values()):
            no = Refusal("SERVER_DRAINING")
            self._telling.emit(connection, "error", {"error": no.body(), "event": None})
            self._telling.send_back(connection)
        await asyncio.sleep(0)

    async def _dismiss(self, connection: Connection, no: Refusal) -> None:
        self._telling.emit(connection, "error", {"error": no.body(), "event": None})
        await self.sio.disconnect(connection.sid)

    # ------------------------------------------------------------------------------------------------------- events

    def _shortcut(self, wire: Wire, data: bytes) -> bool:
        """An event of a client in the callback in which it came, unless the library has to see it."""
        connection: Connection | None = wire.connection
        if connection is None:
            connection = wire.connection = self._by_eio.get(wire.socket.sid)
            if connection is None:
                return False
            connection.wire = wire
        if not connection.open:
            return False
        self.awake.look()
        if self._relay.forward(connection, data):
            return True
        if self.sio.half_a_packet(connection.eio_sid):
            return False
        try:
            packet = GuardedPacket(encoded_packet=data[1:].decode())
        except ValueError:
            return False
        if packet.namespace not in (None, "/"):
            return False
        self._take(connection.sid, connection.eio_sid, "/", packet.id, packet.data)
        return True

    def _reach(self, user_id: str, device_id: str) -> Connection | None:
        """A device that takes letters at once, by a WebSocket of ours."""
        for connection in self._by_user.get(user_id, {}).values():
            if connection.open and connection.ctx.device_id == device_id and connection.pending is None:
                connection.wire = connection.wire or self.sio.wire(connection.eio_sid)
                return connection if connection.wire is not None else None
        return None

    def _take(self, sid: str, eio_sid: str, namespace: str, ack_id: int | None, data: Any) -> None:
        connection = self._by_sid.get(sid)
        if connection is None:
            return
        self.awake.look()
        asked = read_event(self._catalogue, data)
        if isinstance(asked, Asked):
            done = None
            if asked.door is not None and asked.door.relay is not None and not connection.starting:
                done = self._funnel.relay(asked.door, connection.ctx, asked.payload)
            if done is None:
                # Tasks start in the order they are made and run up to their lane at once, so arrival order holds.
                connection.starting += 1
                self._tasks.spawn(self._work(connection, namespace, ack_id, asked), "event")
                return
            answer, letters = done
            self.deliver_now(letters)
            self.carry(letters)
            self._reply(connection, namespace, ack_id, asked.name, answer)
        else:
            name, refusal = asked
            self._reply(
                connection, namespace, ack_id, name, Answer(refusal=self._counted(connection, refusal))
            )

    async def _work(self, connection: Connection, namespace: str, ack_id: int | None, asked: Asked) -> None:
        connection.starting -= 1
        if asked.door is None:
            answer = Answer(refusal=self._counted(connection, Refusal("EVENT_UNKNOWN")))
        else:
            answer = await self._funnel.run(asked.door, connection.ctx, asked.payload)
        self._reply(connection, namespace, ack_id, asked.name, answer)

    def _reply(
        self, connection: Connection, namespace: str, ack_id: int | None, name: str | None, answer: Answer
    ) -> None:
        if ack_id is not None:
            self.sio.acknowledge(connection.eio_sid, namespace, ack_id, answer.ack())
        elif answer.refusal is not None:
            self._telling.emit(connection, "error", {"error": answer.refusal.body(), "event": name})

    def _counted(self, connection: Connection, no: Refusal) -> Refusal:
        """The refusal of what comes to no door, which counts as an event all the same."""
        try:
            self._funnel.limits.check("event", connection.ctx)
        except Refusal as too_many:
            no = too_many
        REQUESTS.labels(NO_DOOR, no.code).inc()
        return no


def _refused(no: Refusal) -> Refused:
    """A connect is answered with the refusal."""
    CONNECTS.labels(no.code).inc()
    body = no.body()
    return Refused(body["message"], body)
