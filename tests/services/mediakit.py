"""A place for tests about files: processes on one database, bodies in pieces, images made to order."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from models.db import Database
from models.media.files.store import GridFiles
from models.media.links import Links
from models.media.media import Media
from models.media.ports import Picture
from models.media.service import MediaFiles, Room
from models.media.store import MediaStore
from tests.fakes import CountingIds, VirtualClock

ANN, BOB, EVE = (f"01950000-0000-7000-8000-0000000000a{n}" for n in range(3))
TALK, CLUB = "talk", "club"
KIB, MIB = 1024, 1024 * 1024
PDF = b"%PDF-1.7\n"


async def body(data: bytes, size: int = 64 * KIB) -> AsyncIterator[bytes]:
    """Bytes as they come from a network."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def run_of(head: bytes, size: int, piece: int = 64 * KIB) -> AsyncIterator[bytes]:
    """A long body that is never in memory whole."""
    yield head
    left = size - len(head)
    while left > 0:
        yield bytes(min(piece, left))
        left -= piece


async def cut(data: bytes, after: int) -> AsyncIterator[bytes]:
    """A body whose sender dies."""
    yield data[:after]
    raise ConnectionResetError("the network went")


def image(kind: str = "JPEG", size: tuple[int, int] = (640, 480), mode: str = "RGB", **how: Any) -> bytes:
    """An image file. The left half is red, the right half is blue."""
    made = Image.new(mode, size, "red" if mode != "1" else 0)
    made.paste("blue" if mode != "1" else 1, (size[0] // 2, 0, *size))
    sink = io.BytesIO()
    made.save(sink, kind, **how)
    return sink.getvalue()


class Glance:
    """Pictures as the tests that are not about pictures need them: whatever comes is one."""

    async def examine(
        self, pieces: AsyncIterator[bytes], *, content_type: str, size_bytes: int
    ) -> Picture | None:
        seen = sum([len(piece) async for piece in pieces])
        assert seen == size_bytes
        return Picture(width=4, height=3, thumbnail=b"small", thumbnail_type="image/jpeg")


@dataclass
class Town:
    """Conversations as files know them: who is in, and which files their messages have."""

    members: dict[str, set[str]] = field(default_factory=lambda: {TALK: {ANN, BOB}, CLUB: {ANN, BOB, EVE}})
    messages: set[tuple[str, str]] = field(default_factory=set)

    banned: set[str] = field(default_factory=set)

    async def active(self, user_id: str) -> bool:
        return user_id not in self.banned

    async def sees(self, user_id: str, conversation_id: str, media_id: str) -> bool:
        return user_id in self.members[conversation_id] and (conversation_id, media_id) in self.messages

    async def carries(self, conversation_id: str, media_id: str) -> bool:
        return (conversation_id, media_id) in self.messages


@dataclass
class Album:
    """A database, its conversations and its time."""

    db: Database
    clock: VirtualClock
    ids: CountingIds
    town: Town = field(default_factory=Town)

    def process(
        self, *, db: Any = None, pictures: Any = None, files: Any = None, scanner: Any = None, **room: int
    ) -> MediaFiles:
        """A process on the database, or on ``db`` in its place."""
        place = db if db is not None else self.db
        return MediaFiles(
            store=MediaStore(place),
            files=files or GridFiles(place),
            pictures=pictures or Glance(),
            audience=self.town,
            viewers=self.town,
            links=Links("a secret of the tests, long enough for HS256"),
            room=Room(**{"file_bytes_max": MIB, "user_bytes_max": 8 * MIB, **room}),
            clock=self.clock,
            ids=self.ids,
            scanner=scanner,
        )

    async def sent(
        self, media: MediaFiles, file: Media, conversation_id: str, *, owner_id: str = ANN
    ) -> None:
        """A message with the file."""
        await media.attach(file.id, owner_id=owner_id, conversation_id=conversation_id)
        self.town.messages.add((conversation_id, file.id))

    async def kept(self) -> tuple[int, int, int]:
        """How many rows, whole files and chunks there are."""
        names = ("media", "media.files", "media.chunks")
        rows, files, chunks = [await self.db[name].count_documents({}) for name in names]
        return rows, files, chunks

    async def chunks_of(self, media_id: str) -> int:
        return int(await self.db["media.chunks"].count_documents({"files_id": media_id}))

    async def settle(self, media: MediaFiles, seconds: float) -> None:
        """Let time pass, and the job do what is due until nothing is."""
        self.clock.pass_(seconds)
        while await media.run_due():
            pass


async def read(media: MediaFiles, file: Media, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of a file."""
    stop = file.size_bytes if end is None else end
    return b"".join([piece async for piece in media.read(file, thumbnail=False, start=start, end=stop)])
