"""What files need of the world outside: a place for bytes, and who can look at pictures and for harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class Files(Protocol):
    """A place for bytes by name. GridFS is the default one; an object store can be another."""

    async def save(self, file_id: str, pieces: AsyncIterator[bytes], *, now: datetime) -> int:
        """Keep the pieces as one file, holding little of it at a time; its size in bytes.

        When ``pieces`` raises or the process dies, a part may stay behind, which ``delete`` removes.
        """
        ...

    def read(self, file_id: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to, not including, ``end``. Raises ``Gone`` when the file is not whole."""
        ...

    async def delete(self, file_id: str) -> None:
        """Remove a file or what there is of it. Safe to repeat."""
        ...


class Gone(Exception):
    """A file that should be there is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image that was decoded. ``width`` and ``height`` are in pixels as shown, its orientation applied.

    ``thumbnail`` is a JPEG or WebP of at most 320 pixels a side without any metadata.
    """

    width: int
    height: int
    thumbnail: bytes
    thumbnail_type: str


class Pictures(Protocol):
    """Decodes images, apart from everything that must not wait or die."""

    async def examine(
        self, pieces: AsyncIterator[bytes], *, content_type: str, size_bytes: int
    ) -> Picture | None:
        """The picture in a file; None when it is no whole image of that type, too large, or takes too long.

        Refuses with ``SERVER_BUSY`` when too many wait.
        """
        ...


class Scanner(Protocol):
    """Looks whether a file is known to do harm."""

    async def harmful(self, pieces: AsyncIterator[bytes]) -> bool:
        """Whether it is. Refuses with ``SERVER_BUSY`` when nobody can say: then it is not taken."""
        ...
