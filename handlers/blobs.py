"""What a handler answers with when the answer is a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes with what there is to say of them. The door decides which of them are sent, and how.

    ``etag`` names these very bytes for good. ``inline``: to be shown in place, otherwise saved under ``filename``.
    ``open(start, end)`` gives the bytes from ``start`` up to ``end``.
    """

    content_type: str
    size_bytes: int
    etag: str
    filename: str
    inline: bool
    open: Callable[[int, int], AsyncIterator[bytes]]
