"""A line between the server and MongoDB that a test can slow down, cut, or lose an answer on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from tests.patience import as_shipped


class DatabaseLine:
    """Forwards one port to mongod's. ``uri`` leads through it, to this one member alone.

    A server that is opened while it is there is as impatient with its database as the real one.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        assert parts.hostname is not None
        assert parts.port is not None
        self._to = (parts.hostname, parts.port)
        self._parts = parts
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.uri = ""
        self.delay_seconds = 0.0
        self._up = asyncio.Event()
        self._lose: bytes | None = None
        self._losing: asyncio.StreamWriter | None = None
        self.lost = asyncio.Event()

    async def __aenter__(self) -> DatabaseLine:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        login = f"{self._parts.username}:{self._parts.password}@" if self._parts.username else ""
        # Without directConnection the driver would ask the replica set for its members and go past the line.
        query = "&".join(
            [q for q in self._parts.query.split("&") if q and not q.startswith(("replicaSet", "directConn"))]
            + ["directConnection=true"]
        )
        self.uri = urlunsplit(("mongodb", f"{login}127.0.0.1:{port}", self._parts.path or "/", query, ""))
        self._up.set()
        self._patience = as_shipped()
        self._patience.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._patience.__exit__(None, None, None)
        self._server.close()
        self._hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """No connection any more, and no new one: the database is away."""
        self._up.clear()
        self._hang_up()

    def mend(self) -> None:
        """The database is back, and no answer is lost any more: one that was about to be would cut the line again."""
        self._lose = self._losing = None
        self._up.set()

    def lose_answer_to(self, word: bytes) -> None:
        """The next command that contains ``word`` is done, but its answer is lost with the connection, and so are
        all others until ``mend``."""
        self._lose = word
        self.lost.clear()

    def _hang_up(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        with suppress(OSError, asyncio.IncompleteReadError):
            if self._up.is_set():
                from_db, upstream = await asyncio.open_connection(*self._to)
                self._writers.add(upstream)
                there = asyncio.create_task(self._there(reader, upstream))
                self._tasks.add(there)
                await self._back(from_db, upstream, writer)
                there.cancel()
                self._tasks.discard(there)
        for one in (writer, upstream):
            if one is not None:
                self._writers.discard(one)
                one.transport.abort()
        self._tasks.discard(task)

    async def _there(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._lose is not None and self._lose in data:
                    self._lose = None
                    self._losing = upstream
                upstream.write(data)
                await upstream.drain()
            upstream.close()

    async def _back(
        self, from_db: asyncio.StreamReader, upstream: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        while data := await from_db.read(1 << 16):
            if self._losing is upstream:
                self._losing = None
                self.lost.set()
                self.cut()
                return
            if self.delay_seconds:
                # The slowness itself is what is tried here.
                await self._slow()
            writer.write(data)
            await writer.drain()

    async def _slow(self) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        loop.call_later(self.delay_seconds, lambda: turn.done() or turn.set_result(None))
        await turn
