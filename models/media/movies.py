"""Sound or film: what an MP4 file has in it. Android records voice messages as MP4 files that call themselves films.

ISO/IEC 14496-12: a file is a row of boxes; ``moov`` tells of the tracks, each with a handler in ``hdlr``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

# The bytes from one place up to another.
Read = Callable[[int, int], Awaitable[bytes]]

# A file has a handful of boxes before it comes to its tracks, and tells of them in some hundred kilobytes.
BOXES_MAX = 32
MOOV_BYTES_MAX = 1024 * 1024
_HANDLER = re.compile(rb"hdlr.{8}(vide|soun)", re.DOTALL)


async def only_sound(read: Read, size_bytes: int) -> bool:
    """Whether an MP4 file has sound and no pictures; False where it does not say."""
    at = 0
    for _ in range(BOXES_MAX):
        if at + 8 > size_bytes:
            return False
        head = await read(at, min(at + 16, size_bytes))
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size_bytes - at
        if length < 8:
            return False
        if head[4:8] == b"moov":
            moov = await read(at, min(at + min(length, MOOV_BYTES_MAX), size_bytes))
            return set(_HANDLER.findall(moov)) == {b"soun"}
        at += length
    return False
