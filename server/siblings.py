"""Processes at one port (``run --processes N``): a client that polls finds its own process again.

The kernel gives each connection to any of them (SO_REUSEPORT). A WebSocket is one connection, so that is the end of it.
A client that begins with polling (the official one does, unless told otherwise) makes many, and would be unknown to
most. So the id of its transport carries the number of the process that made it, and whichever process gets a request
for another's transport passes it on, by a socket in a folder of this machine.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from aiohttp import web

from server.addresses import PASSED_FOR, client_address

log = structlog.get_logger(__name__)

PATH = "/socket.io/"
# A poll waits for the next packet, at the latest the next ping.
POLL_SECONDS = 60.0
# Figures that come later than this are of no use to whoever asked for them.
ASK_SECONDS = 3.0
# Of one connection only; and what the client of the inner request counts or unpacks itself.
_OWN_HEADERS = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-encoding",
}
_WEBSOCKET_HEADERS = ("Origin", "User-Agent", "Authorization", "X-Forwarded-For")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Siblings:
    """This process is number ``number`` of those that have their sockets in ``folder``."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._sessions: dict[int, aiohttp.ClientSession] = {}
        self._proxy_hops = 0

    @property
    def path(self) -> str:
        """Where this process listens for the others."""
        return self._path(self._number)

    @property
    def number(self) -> int:
        """Which of them this process is."""
        return self._number

    async def ask_all(self, path: str) -> dict[int, str]:
        """What each of the others answers to a GET of ``path``; one that does not answer soon is left out."""
        numbers = [
            int(file.stem)
            for file in self._folder.glob("*.sock")
            if file.stem.isdecimal() and int(file.stem) != self._number
        ]
        answers = await asyncio.gather(*(self._text(number, path) for number in sorted(numbers)))
        return {number: text for number, text in answers if text is not None}

    async def _text(self, number: int, path: str) -> tuple[int, str | None]:
        try:
            soon = aiohttp.ClientTimeout(total=ASK_SECONDS)
            async with self._session(number).get(f"http://sibling{path}", timeout=soon) as answer:
                return number, await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError) as fault:
            if _nobody_listens(fault):
                await self._forget(number)
            return number, None

    def _path(self, number: int) -> str:
        return str(self._folder / f"{number}.sock")

    def join(self, app: web.Application, eio: Any, *, proxy_hops: int = 0) -> None:
        """Number the transports of this process, and pass on what is for another one's."""
        self._proxy_hops = proxy_hops
        made = eio.generate_id
        eio.generate_id = lambda: f"{made()}.{self._number}"
        app.middlewares.append(self._pass_on())
        app.on_cleanup.append(self._close)

    def _pass_on(self) -> Any:
        @web.middleware
        async def pass_on(request: web.Request, handler: Handler) -> web.StreamResponse:
            owner = self._owner(request)
            if owner is None:
                return await handler(request)
            try:
                if request.headers.get("Upgrade", "").lower() == "websocket":
                    return await self._join_ends(owner, request)
                return await self._ask(owner, request)
            except (aiohttp.ClientError, FileNotFoundError, TimeoutError) as fault:
                # Its process is gone or stands still, or refuses to let the transport become a WebSocket.
                log.info("a transport is not passed on", number=owner, error=repr(fault))
                if _nobody_listens(fault):
                    await self._forget(owner)
                # What the reference server says of an id that it does not know; the client begins anew.
                return web.json_response({"code": 1, "message": "Session ID unknown"}, status=400)

        return pass_on

    def _owner(self, request: web.Request) -> int | None:
        """The other process whose transport a request is about."""
        if request.path != PATH:
            return None
        _, dot, number = request.query.get("sid", "").rpartition(".")
        if not dot or not number.isascii() or not number.isdecimal() or len(number) > 9:
            return None
        owner = int(number)
        # Anybody can make up a number: nothing is made or kept for one that no process has had.
        if owner == self._number or not Path(self._path(owner)).exists():
            return None
        return owner

    def _session(self, number: int) -> aiohttp.ClientSession:
        if number not in self._sessions:
            connector = aiohttp.UnixConnector(self._path(number), limit=0)
            self._sessions[number] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=POLL_SECONDS),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[number]

    async def _forget(self, number: int) -> None:
        session = self._sessions.pop(number, None)
        if session is not None:
            await session.close()

    async def _ask(self, number: int, request: web.Request) -> web.Response:
        headers = {
            k: v for k, v in request.headers.items() if k.lower() not in _OWN_HEADERS - {"content-length"}
        }
        headers[PASSED_FOR] = client_address(request, self._proxy_hops)
        async with self._session(number).request(
            request.method,
            f"http://sibling{request.path_qs}",
            data=request.content if request.can_read_body else None,
            headers=headers,
        ) as answer:
            body = await answer.read()
            kept = {
                k: v
                for k, v in answer.headers.items()
                if k.lower() not in _OWN_HEADERS - {"content-encoding"}
            }
            return web.Response(status=answer.status, body=body, headers=kept)

    async def _join_ends(self, number: int, request: web.Request) -> web.StreamResponse:
        """A WebSocket that begins where polling was: its frames go through here to its end."""
        headers = {name: request.headers[name] for name in _WEBSOCKET_HEADERS if name in request.headers}
        headers[PASSED_FOR] = client_address(request, self._proxy_hops)
        async with self._session(number).ws_connect(
            f"http://sibling{request.path_qs}", headers=headers, max_msg_size=0
        ) as far:
            near = web.WebSocketResponse(compress=False, max_msg_size=0)
            await near.prepare(request)
            ways = [asyncio.ensure_future(_pump(near, far)), asyncio.ensure_future(_pump(far, near))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            await near.close()
            return near

    async def _close(self, _: web.Application) -> None:
        for session in self._sessions.values():
            await session.close()


def _nobody_listens(fault: Exception) -> bool:
    """Whether a process is gone for good; not so when it only has too much to do."""
    return isinstance(fault, FileNotFoundError | aiohttp.ClientConnectorError) and fault.errno in (
        errno.ENOENT,
        errno.ECONNREFUSED,
    )


async def _pump(source: Any, sink: Any) -> None:
    async for said in source:
        if said.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(said.data)
        elif said.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(said.data)
