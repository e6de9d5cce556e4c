"""Images through Pillow, in programs of their own (``server/adapters/image_worker.py``).

A program is started when it is first needed and serves one image after another. It is ended when an image takes it
longer than ``IMAGE_SECONDS``, or when whoever asked has gone in the middle of it: the next image gets a new one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from models.errors import Refusal
from models.media.ports import Picture
from server.adapters.pipes import tell

log = structlog.get_logger(__name__)

# A phone's largest photos have 48 to 50 million pixels; at four bytes each that is the most that decoding takes.
PIXELS_MAX = 50_000_000
THUMBNAIL_SIDE = 320
# A large photo takes a second or two; what takes longer was made to.
IMAGE_SECONDS = 20.0
# Programs at once, and images that wait for one: some twenty seconds of ordinary photos.
PROGRAMS = 2
WAITING_MAX = 32
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF", "image/webp": "WEBP"}
_ROOT = Path(__file__).parents[2]


class _Died(Exception):
    """The program ended over an image."""


class Images:
    """``models.media.ports.Pictures``; ``close`` it."""

    def __init__(self, *, seconds: float = IMAGE_SECONDS, pixels_max: int = PIXELS_MAX) -> None:
        self._seconds = seconds
        self._pixels_max = pixels_max
        self._places = asyncio.Semaphore(PROGRAMS)
        self._present = 0
        self._idle: list[Process] = []
        self._closed = False

    async def examine(
        self, pieces: AsyncIterator[bytes], *, content_type: str, size_bytes: int
    ) -> Picture | None:
        """The picture in a file, or None. Refuses with ``SERVER_BUSY``."""
        if self._present >= PROGRAMS + WAITING_MAX:
            raise Refusal("SERVER_BUSY")
        self._present += 1
        try:
            async with self._places:
                return await self._examined(pieces, content_type, size_bytes)
        finally:
            self._present -= 1

    async def close(self) -> None:
        """End the programs."""
        self._closed = True
        while self._idle:
            await _end(self._idle.pop())

    async def _examined(
        self, pieces: AsyncIterator[bytes], content_type: str, size_bytes: int
    ) -> Picture | None:
        program = await self._living()
        well = False
        try:
            ask = {
                "format": _FORMATS[content_type],
                "bytes": size_bytes,
                "pixels_max": self._pixels_max,
                "side": THUMBNAIL_SIDE,
            }
            async with asyncio.timeout(self._seconds):
                picture = await _exchange(program, ask, pieces)
            well = True
            return picture
        except (TimeoutError, _Died) as fault:
            log.warning("an image ended its decoder", fault=repr(fault), size_bytes=size_bytes)
            return None
        finally:
            if well and not self._closed:
                self._idle.append(program)
            else:
                await _end(program)

    async def _living(self) -> Process:
        """A program that waits for work, or a new one; the system may have ended those that wait."""
        while self._idle:
            program = self._idle.pop()
            if program.returncode is None:
                return program
            await _end(program)
        return await _start()


async def _start() -> Process:
    # -I: neither the environment nor the working folder decides what is imported; the path is said instead.
    code = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from server.adapters.image_worker import main; main()"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", code, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )


async def _exchange(program: Process, ask: dict[str, Any], pieces: AsyncIterator[bytes]) -> Picture | None:
    assert program.stdin is not None, "it is a pipe"
    assert program.stdout is not None, "it is a pipe"
    stdin = program.stdin

    async def given(data: bytes) -> None:
        try:
            await tell(stdin, data)
        except OSError:
            raise _Died from None

    await given(json.dumps(ask).encode() + b"\n")
    async for piece in pieces:  # whose own faults are not the program's
        await given(piece)
    try:
        said = json.loads(await program.stdout.readline())
        thumbnail = await program.stdout.readexactly(said["bytes"]) if said else b""
    except (OSError, asyncio.IncompleteReadError, json.JSONDecodeError):
        raise _Died from None
    if not said:
        return None
    return Picture(
        width=said["width"], height=said["height"], thumbnail=thumbnail, thumbnail_type=said["type"]
    )


async def _end(program: Process) -> None:
    with suppress(ProcessLookupError):
        program.kill()
    await program.wait()
    if program.stdin is not None:
        program.stdin.close()
