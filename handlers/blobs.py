"""What a handler answers with when the answer is a file."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes with what there is to say of them. The door decides which of them are sent, and how.

    ``etag`` names these very bytes for good; ``changes``: the same address may have others next time. ``inline``: to be
    shown in place, otherwise saved under ``filename``. ``open(start, end)`` gives the bytes from ``start`` up to
    ``end``.
    """

    content_type: str
    size_bytes: int
    etag: str
    filename: str
    inline: bool
    open: Callable[[int, int], AsyncIterator[bytes]]
    changes: bool = False


def whole(content: bytes, *, content_type: str, filename: str) -> Blob:
    """Bytes that were made for this answer, to be saved under a name."""

    async def open_(start: int, end: int) -> AsyncIterator[bytes]:
        yield content[start:end]

    return Blob(
        content_type=content_type,
        size_bytes=len(content),
        etag=hashlib.sha256(content).hexdigest()[:32],
        filename=filename,
        inline=False,
        open=open_,
        changes=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A file that is made while it is sent: nobody knows its length before its end. To be saved under ``filename``."""

    content_type: str
    filename: str
    pieces: AsyncIterator[bytes]
