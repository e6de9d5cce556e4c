"""The file of a backup: a ZIP archive with what ``mongodump`` would write, and a list of what has to be in it.

    <database>/<collection>.bson            its documents, one after the other, as MongoDB keeps them
    <database>/<collection>.metadata.json   its options and indexes (MongoDB Extended JSON)
    manifest.json                           each collection's number of documents, bytes and SHA-256; written last

So it can be looked into with ``unzip``, and unpacked it is a folder that ``mongorestore`` takes. The list is what tells
a whole archive from a damaged one: an archive is checked to its last byte before anything is made of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

FORMAT = "ringmeter-backup"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
# A document of MongoDB is at most 16 MiB; a length beyond that is no length.
DOCUMENT_BYTES_MAX = 17 * 1024 * 1024
# A list of as many collections as there will ever be.
MANIFEST_BYTES_MAX = 4 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")

# What is worked on, how much of it has been, and how much there is.
Progress = Callable[[str, int, int], None]


class Damaged(Exception):
    """The file is not a whole backup; the text says what is wrong with it, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What has to be in the archive of one collection."""

    name: str
    documents: int
    bytes: int
    sha256: str
    metadata_sha256: str


def lengths(batch: bytes) -> Iterator[int]:
    """The lengths of the BSON documents that stand one after the other in ``batch``. Raises ``Damaged``."""
    at, size = 0, len(batch)
    while at < size:
        length = struct.unpack_from("<i", batch, at)[0] if at + 4 <= size else 0
        if not 5 <= length <= DOCUMENT_BYTES_MAX or at + length > size or batch[at + length - 1]:
            raise Damaged("has a document that is none")
        yield length
        at += length


class Writer:
    """Writes a backup under a name that shows it is not whole, until ``finish`` gives it its own."""

    def __init__(self, path: Path, database: str) -> None:
        self.path, self._draft, self._database = path, path.with_name(path.name + ".part"), database
        # Whoever has this file has everybody's messages: its owner alone may read it.
        number = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.chmod(self._draft, 0o600)
        self._file = os.fdopen(number, "wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=6)
        self._listed: list[Listed] = []

    @contextmanager
    def collection(self, name: str, metadata: str) -> Iterator[Callable[[bytes], int]]:
        """What writes batches of documents of one collection; it answers with how many there are by now."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"a collection called {name!r} cannot be kept")
        digest, documents, size = hashlib.sha256(), 0, 0
        self._zip.writestr(f"{self._database}/{name}.metadata.json", metadata)
        with self._zip.open(f"{self._database}/{name}.bson", "w", force_zip64=True) as member:

            def write(batch: bytes) -> int:
                nonlocal documents, size
                documents += sum(1 for _ in lengths(batch))
                size += len(batch)
                digest.update(batch)
                member.write(batch)
                return documents

            yield write
        told = hashlib.sha256(metadata.encode()).hexdigest()
        self._listed.append(Listed(name, documents, size, digest.hexdigest(), told))

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the list, see it all on the disk, and give the file its name."""
        manifest = {
            "format": FORMAT,
            "formatVersion": FORMAT_VERSION,
            **about,
            "database": self._database,
            "collections": [asdict(one) for one in self._listed],
        }
        self._zip.writestr(MANIFEST, json.dumps(manifest, indent=1))
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            os.link(self._draft, self.path)  # not over a file that has come meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.replace(self._draft, self.path)
        self._draft.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Leave nothing behind. Safe after ``finish``."""
        with suppress(OSError, ValueError):
            self._zip.close()
        self._file.close()
        self._draft.unlink(missing_ok=True)


class Archive:
    """A backup to read. Opening it reads the list; ``check`` reads all. Both raise ``Damaged``; the rest needs both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _reading():
            self._zip = zipfile.ZipFile(path)
        with _reading():
            if self._zip.getinfo(MANIFEST).file_size > MANIFEST_BYTES_MAX:
                raise Damaged("has a list that is too long")
            manifest = json.loads(self._zip.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise Damaged("is not a backup of Ringmeter")
            if manifest["formatVersion"] > FORMAT_VERSION:
                raise Damaged(f"has format {manifest['formatVersion']}, which a newer Ringmeter has written")
            self.database = str(manifest["database"])
            self.about: dict[str, Any] = {k: v for k, v in manifest.items() if k != "collections"}
            self.collections = [Listed(**one) for one in manifest["collections"]]
        wrong = [one.name for one in self.collections if not _NAME.fullmatch(one.name)]
        if wrong or len({one.name for one in self.collections}) < len(self.collections):
            raise Damaged("has a list that cannot be")

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def check(self, progress: Progress | None = None) -> None:
        """Read every byte and compare it with the list. Raises ``Damaged``."""
        there = set(self._zip.namelist()) - {MANIFEST}
        wanted = {f"{self.database}/{one.name}{end}" for one in self.collections for end in _ENDS}
        if there != wanted or len(self._zip.namelist()) != len(wanted) + 1:
            raise Damaged("does not hold what its list names")
        for one in self.collections:
            self._check(one, progress)

    def _check(self, one: Listed, progress: Progress | None) -> None:
        digest, size, documents = hashlib.sha256(), 0, 0
        with _reading(), self.documents(one.name) as member:
            for batch in batches(member):
                digest.update(batch)
                size += len(batch)
                documents += sum(1 for _ in lengths(batch))
                if progress is not None:
                    progress(one.name, documents, one.documents)
        if (digest.hexdigest(), size, documents) != (one.sha256, one.bytes, one.documents):
            raise Damaged(f"holds other documents of {one.name} than were put into it")
        if hashlib.sha256(self.metadata(one.name).encode()).hexdigest() != one.metadata_sha256:
            raise Damaged(f"holds another description of {one.name} than was put into it")

    def metadata(self, name: str) -> str:
        """The options and indexes of a collection."""
        with _reading():
            return self._zip.read(f"{self.database}/{name}.metadata.json").decode()

    def documents(self, name: str) -> IO[bytes]:
        """The documents of a collection, to be read from the beginning."""
        return self._zip.open(f"{self.database}/{name}.bson")


_ENDS = (".bson", ".metadata.json")


def batches(member: IO[bytes]) -> Iterator[bytes]:
    """Whole documents, about ``CHUNK_BYTES`` at a time. Raises ``Damaged`` where what is left is no document."""
    rest = b""
    while piece := member.read(CHUNK_BYTES):
        rest += piece
        end = 0
        while end + 4 <= len(rest):
            length = struct.unpack_from("<i", rest, end)[0]
            if not 5 <= length <= DOCUMENT_BYTES_MAX:
                raise Damaged("has a document that is none")
            if end + length > len(rest):
                break
            end += length
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        raise Damaged("ends in the middle of a document")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as ``sha256sum`` says it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever the libraries say of bytes that are not what they should be."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as fault:
        raise Damaged(f"is damaged ({fault})") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as fault:
        raise Damaged(f"is no whole backup ({type(fault).__name__})") from None
    except OSError as fault:
        # A place that no file has: its list names one before the first byte. A disk that fails says something else.
        if fault.errno != errno.EINVAL:
            raise
        raise Damaged("is damaged (it names a place outside itself)") from None
