"""Files in GridFS, by its specification: any GridFS tool reads what is kept here.

Not through the driver's ``AsyncGridFSBucket``: it collects up to 48 MB before its first insert (``_UPLOAD_BUFFER_SIZE``
of PyMongo 4.20), so that each upload would be in memory whole, and reads in batches of 16 MB. Here a chunk is written
when it is full and read when it is wanted, and each waits its turn like every other exchange with the database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from bson.int64 import Int64

from models.db import Database, Document, collection, index
from models.media.ports import Gone

BUCKET = "media"
# GridFS's own default: a little under a power of two, for the server's records.
CHUNK_BYTES = 255 * 1024

FILES = collection(f"{BUCKET}.files")
CHUNKS = collection(f"{BUCKET}.chunks", index("files_id", "n", unique=True))


class GridFiles:
    """``models.media.ports.Files`` on MongoDB."""

    def __init__(self, db: Database) -> None:
        self._files = db[FILES]
        self._chunks = db[CHUNKS]

    async def save(self, file_id: str, pieces: AsyncIterator[bytes], *, now: datetime) -> int:
        """Keep the pieces, holding at most a chunk and a piece of them; the size in bytes."""
        waiting, number, size = bytearray(), 0, 0
        async for piece in pieces:
            waiting += piece
            while len(waiting) >= CHUNK_BYTES:
                await self._write(file_id, number, bytes(waiting[:CHUNK_BYTES]))
                del waiting[:CHUNK_BYTES]
                number, size = number + 1, size + CHUNK_BYTES
        if waiting:
            await self._write(file_id, number, bytes(waiting))
            size += len(waiting)
        # The file's own document comes last: with it the file is whole.
        row: Document = {"_id": file_id, "length": Int64(size), "chunkSize": CHUNK_BYTES, "uploadDate": now}
        await self._files.insert_one(row)
        return size

    async def read(self, file_id: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to ``end``, from the chunk on in which they begin."""
        at = start
        while at < end:
            number, skip = divmod(at, CHUNK_BYTES)
            chunk = await self._chunks.find_one({"files_id": file_id, "n": number}, {"_id": 0, "data": 1})
            data = chunk["data"][skip : skip + end - at] if chunk else b""
            if not data:
                raise Gone(file_id)
            at += len(data)
            yield data

    async def delete(self, file_id: str) -> None:
        """Remove a file: first what says that it is whole. Safe to repeat."""
        await self._files.delete_one({"_id": file_id})
        await self._chunks.delete_many({"files_id": file_id})

    async def _write(self, file_id: str, number: int, data: bytes) -> None:
        await self._chunks.insert_one({"files_id": file_id, "n": number, "data": data})
