"""The line to Redis (``server.bus.line``), where what is at the other end is no Redis that works."""

from __future__ import annotations

import asyncio

import pytest

from server.bus.line import Line
from server.clock import Tasks
from tests.doors.serverprocess import eventually


async def test_whoever_takes_the_connection_and_says_nothing_does_not_keep_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.bus.line.CONNECT_SECONDS", 0.1)
    came: list[asyncio.StreamWriter] = []
    opened = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer)
        if len(came) > 2:  # Redis is back
            await reader.read(1)
            writer.write(b"%1\r\n+server\r\n+redis\r\n")

    there = await asyncio.start_server(silent, "127.0.0.1", 0)
    port, tasks = there.sockets[0].getsockname()[1], Tasks()
    line = Line(
        f"redis://127.0.0.1:{port}",
        tasks=tasks,
        heard=lambda *_: None,
        opened=opened.set,
        closed=lambda: None,
    )
    line.start()
    try:
        await eventually(opened.is_set, within=5, what="the line opens once it is answered")
        # What has answered is left alone.
        assert line._timer is None
        assert len(came) == 3
    finally:
        line.stop()
        await tasks.drain(1)
        for writer in came:
            writer.close()
        there.close()
        await there.wait_closed()
