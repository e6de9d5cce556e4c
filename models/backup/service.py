"""``backup`` and ``restore``: what the command line calls. Neither needs the server to stand still."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from models.backup.archive import Archive, Damaged, Listed, Progress, Writer, batches
from models.backup.store import Filling, instant
from models.db import Database


async def backup(
    db: Database, path: Path, about: Mapping[str, Any], progress: Progress | None = None
) -> list[Listed]:
    """Write all of ``db`` as it is at one instant into a new file, read that back, and say what is in it.

    ``about`` goes into its list. Raises ``FileExistsError`` and other ``OSError``, and ``SnapshotTooOld``; then no file
    is left.
    """
    if path.exists():
        raise FileExistsError(path)
    writer = Writer(path, db.db.name)
    try:
        async with instant(db) as reading:
            for name in reading.names:
                most = await reading.about(name)
                with writer.collection(name, await reading.metadata(name)) as write:
                    async for batch in reading.batches(name):
                        done = write(batch)
                        if progress is not None:
                            progress(name, done, most)
        writer.finish(about)
    finally:
        writer.abandon()
    archive = Archive(path)
    try:
        archive.check()
        return archive.collections
    except Damaged:
        path.unlink(missing_ok=True)  # a disk that does not keep what it is given
        raise
    finally:
        archive.close()


async def restore(
    db: Database, path: Path, now: datetime, *, again: bool = False, progress: Progress | None = None
) -> list[Listed]:
    """Fill the empty ``db`` from a backup that has been checked to its last byte; what it holds now.

    Raises ``Damaged`` before anything is written, ``NotEmpty`` and ``Unfinished``. Should it end in the middle, no
    server starts on what is there, and ``again`` begins anew.
    """
    archive = Archive(path)
    try:
        archive.check()
        filling = Filling(db)
        await filling.begin(now, again=again)
        for one in archive.collections:
            await _fill(filling, archive, one, progress)
        await filling.end()
        return archive.collections
    finally:
        archive.close()


async def _fill(filling: Filling, archive: Archive, one: Listed, progress: Progress | None) -> None:
    metadata = archive.metadata(one.name)
    await filling.create(one.name, metadata)
    done = 0
    with archive.documents(one.name) as member:
        for batch in batches(member):
            done += await filling.insert(one.name, batch)
            if progress is not None:
                progress(one.name, done, one.documents)
    await filling.index(one.name, metadata)
    found = await filling.count(one.name)
    if found != one.documents:
        raise Damaged(f"has {one.documents} documents of {one.name}, and {found} are in the database")
