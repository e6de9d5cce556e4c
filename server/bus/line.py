"""One connection to Redis: subscriptions and publications on the same one (RESP3, Redis 6 or newer), parsed by hiredis.

Everything happens in callbacks of the loop. Redis is told to answer nothing but what is published to us, so a
publication costs this process no wake-up of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

import hiredis
import structlog
from redis.asyncio.connection import SSLConnection, parse_url

from server.clock import Tasks

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 3.0
# Waits between tries: a broker that restarts is back within a second, one that stays away costs next to nothing.
RETRY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0)

Heard = Callable[[bytes, bytes], None]


class Line(asyncio.Protocol):
    """``start`` keeps a connection until ``stop``; ``opened`` and ``closed`` tell of it, ``heard(channel, message)``
    of each publication.
    """

    def __init__(
        self,
        url: str,
        *,
        tasks: Tasks,
        heard: Heard,
        opened: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        self._options: dict[str, Any] = dict(parse_url(url))
        self._tasks = tasks
        self._heard = heard
        self._opened = opened
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._greeted = False
        self._wanted = False
        self._tries = 0
        # Until the next try, or until the hello has to have been answered.
        self._timer: asyncio.TimerHandle | None = None

    # ----------------------------------------------------------------------------------------------- coming and going

    def start(self) -> None:
        """Connect, and again whenever the connection is lost."""
        self._wanted = True
        self._tasks.spawn(self._connect(), "redis")

    def stop(self) -> None:
        """Send what waits, and be gone."""
        self._wanted = False
        self._rest()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut a connection that says nothing any more; another one follows."""
        if self._transport is not None:
            self._transport.abort()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._open()
        except (OSError, TimeoutError, ssl.SSLError) as fault:
            if self._tries == 0:
                log.warning("Redis does not answer", error=repr(fault))
            self._again()

    async def _open(self) -> None:
        loop, options = asyncio.get_running_loop(), self._options
        if "path" in options:
            await loop.create_unix_connection(lambda: self, options["path"])
            return
        context = _tls(options) if options.get("connection_class") is SSLConnection else None
        host, port = options.get("host", "localhost"), options.get("port", 6379)
        await loop.create_connection(lambda: self, host, port, ssl=context)

    def _again(self) -> None:
        if self._wanted:
            wait = RETRY_SECONDS[min(self._tries, len(RETRY_SECONDS) - 1)]
            self._tries += 1
            self._timer = asyncio.get_running_loop().call_later(wait, self.start)

    # --------------------------------------------------------------------------------------------------- sending

    @property
    def waiting_bytes(self) -> int:
        """How much has been sent that Redis has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def send(self, *words: str | bytes) -> None:
        """Send a command. Without a connection it is lost.

        uvloop collects what is written in one turn of the loop and writes it at the turn's end.
        """
        if self._greeted and self._transport is not None:
            self._transport.write(hiredis.pack_command(words))  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello; what follows is in ``data_received``."""
        # uvloop's are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._reader, self._greeted = hiredis.Reader(), False
        if not self._wanted:
            self._transport.close()
            return
        words = ["HELLO", "3"]
        if self._options.get("password"):
            words += ["AUTH", self._options.get("username") or "default", self._options["password"]]
        self._transport.write(hiredis.pack_command((*words, "SETNAME", "ringmeter")))  # type: ignore[arg-type]
        self._rest()
        self._timer = asyncio.get_running_loop().call_later(CONNECT_SECONDS, self._unanswered)

    def _unanswered(self) -> None:
        """Somebody takes connections there and says nothing: a Redis that is frozen, or a proxy without one."""
        if self._tries == 0:
            log.warning("Redis does not answer", error="it took the connection and said nothing")
        self.abort()

    def data_received(self, data: bytes) -> None:
        """Take publications; the first answer is that to the hello."""
        self._reader.feed(data)
        while (said := self._reader.gets()) is not False:
            if isinstance(said, hiredis.PushNotification):
                if said[0] == b"message":
                    self._heard(said[1], said[2])
            elif isinstance(said, hiredis.ReplyError):
                if self._tries == 0:
                    log.warning("Redis refuses", error=str(said))
                self.abort()
                return
            elif not self._greeted:
                self._greeted = True
                self._rest()
                self.send("CLIENT", "REPLY", "OFF")
                self._opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """Begin anew."""
        self._rest()
        was, self._greeted, self._transport = self._greeted, False, None
        if was:
            self._closed()
        self._again()

    def steady(self) -> None:
        """The connection has shown that it works: the next loss of it is tried again at once."""
        self._tries = 0


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    """As redis-py reads ``rediss://…?ssl_ca_certs=…&ssl_cert_reqs=none``."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    if str(options.get("ssl_cert_reqs", "required")) == "none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
