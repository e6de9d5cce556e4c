"""Files looked at by ClamAV's daemon (clamd(8), INSTREAM): ``models.media.ports.Scanner``.

The daemon is sent the file in pieces and says what it found. While it does not answer nothing is taken: a file that
nobody has looked at is not shown to anybody.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

import structlog

from models.errors import Refusal
from server.adapters.pipes import tell

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5.0
# The daemon's own CommandReadTimeout and scan times are below it.
SCAN_SECONDS = 120.0
# Files at once; the daemon has ten threads by default.
AT_ONCE, WAITING_MAX = 8, 64
ANSWER_BYTES_MAX = 4096
_ANSWER = re.compile(rb"stream: (?:(OK)|(.+) FOUND)", re.DOTALL)


class Clamd:
    """``Clamd("/run/clamd.sock")`` or ``Clamd("127.0.0.1:3310")``."""

    def __init__(self, address: str, *, scan_seconds: float = SCAN_SECONDS) -> None:
        self._address = address
        self._scan_seconds = scan_seconds
        self._places = asyncio.Semaphore(AT_ONCE)
        self._present = 0

    async def harmful(self, pieces: AsyncIterator[bytes]) -> bool:
        """Whether the daemon knows a file to do harm. Refuses with ``SERVER_BUSY`` when it does not say."""
        if self._present >= AT_ONCE + WAITING_MAX:
            raise Refusal("SERVER_BUSY")
        self._present += 1
        try:
            async with self._places, asyncio.timeout(self._scan_seconds):
                said = await self._asked(pieces)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
            log.error("the virus scanner does not answer", error=type(fault).__name__)
            raise Refusal("SERVER_BUSY") from None
        finally:
            self._present -= 1
        found = _ANSWER.fullmatch(said)
        if found is None:
            # Among them: larger than its StreamMaxLength.
            log.error("the virus scanner cannot look at a file", said=said[:200].decode(errors="replace"))
            raise Refusal("SERVER_BUSY")
        if found[2] is not None:
            log.warning("a file is known to do harm", found=found[2][:200].decode(errors="replace"))
        return found[2] is not None

    async def _asked(self, pieces: AsyncIterator[bytes]) -> bytes:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await self._connected()
        try:
            with suppress(ConnectionError):  # it has said why, and hung up
                await tell(writer, b"zINSTREAM\0")
                async for piece in pieces:
                    if piece:  # an empty one would be the end
                        await tell(writer, len(piece).to_bytes(4, "big") + piece)
                await tell(writer, bytes(4))
            return (await reader.readuntil(b"\0"))[:-1].strip()
        finally:
            writer.transport.abort()  # all that matters was said

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._address.startswith("/"):
            return await asyncio.open_unix_connection(self._address, limit=ANSWER_BYTES_MAX)
        host, _, port = self._address.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port), limit=ANSWER_BYTES_MAX)
