"""Pure rules of files: what a file is by its content, what it is called, and the limits."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

import filetype  # type: ignore[import-untyped]

from models.errors import Refusal
from models.media.media import Kind

# How much of a file's beginning tells its type: as much as ``filetype`` looks at.
HEAD_BYTES = 8192
# The slowest upload: 25 MiB in fifteen minutes are 30 KB/s, an old phone's network.
UPLOAD_SECONDS = 15 * 60
# After that its process is surely no longer at it.
UPLOAD_MARGIN_SECONDS = 60
# A file that nobody sends is thrown away after a day: time enough to write the message.
UNSENT_SECONDS = 24 * 3600
# A file was claimed for a message, which should be there a moment later.
SENDING_SECONDS = 10 * 60
# How often a sent file is looked at: whether a message still has it.
LOOK_AGAIN_DAYS = 30
# Bytes are deleted a second time after this: whoever wrote while they were deleted first has ended by then.
ERASE_AGAIN_SECONDS = 3600
# How long one turn of the job may be at a file before another looks at it.
LEASE_SECONDS = 60
# So that adding up a person's files takes some forty milliseconds at most (measured).
FILES_MAX = 20_000
# A file is looked up in each conversation that it was sent into.
CONVERSATIONS_MAX = 200
FILENAME_MAX = 120


@dataclass(frozen=True, slots=True)
class Type:
    """A type of file that is taken. The first extension is given to a file whose name has none of them."""

    kind: Kind
    extensions: tuple[str, ...]


TYPES: dict[str, Type] = {
    "image/jpeg": Type(Kind.IMAGE, ("jpg", "jpeg")),
    "image/png": Type(Kind.IMAGE, ("png",)),
    "image/gif": Type(Kind.IMAGE, ("gif",)),
    "image/webp": Type(Kind.IMAGE, ("webp",)),
    "audio/mp4": Type(Kind.AUDIO, ("m4a", "mp4")),
    "audio/mpeg": Type(Kind.AUDIO, ("mp3",)),
    "audio/ogg": Type(Kind.AUDIO, ("ogg", "oga", "opus")),
    "audio/wav": Type(Kind.AUDIO, ("wav",)),
    "audio/aac": Type(Kind.AUDIO, ("aac",)),
    "video/mp4": Type(Kind.VIDEO, ("mp4", "m4v")),
    "video/webm": Type(Kind.VIDEO, ("webm",)),
    "video/quicktime": Type(Kind.VIDEO, ("mov", "qt")),
    "application/pdf": Type(Kind.FILE, ("pdf",)),
    "text/plain": Type(Kind.FILE, ("txt", "md", "csv", "log", "vcf")),
}
TEXT = "text/plain"
# Other names of types that are taken.
_SAME = {"audio/x-wav": "audio/wav", "video/x-m4v": "video/mp4"}
# What a browser or a shell would run; served as plain text it would not, and still nobody has to send it.
_ACTIVE = re.compile(
    r"\A\s*#!|<!--|<\?|<\s*(?:!doctype|html|head|body|title|script|svg|style|iframe|object|embed|img|link|meta|math)\b",
    re.IGNORECASE,
)
# Bytes that no text has (WHATWG MIME Sniffing, "binary data byte").
_BINARY = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
# Control characters, separators of paths, and marks that turn the reading order around ("gpj.exe" for "exe.jpg").
_UNNAMEABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\"<>|:*?\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def type_of(head: bytes) -> str:
    """The type of a file by its first ``HEAD_BYTES``; what it calls itself does not count.

    Refuses with ``MEDIA_TYPE_NOT_ALLOWED``, and ``VALIDATION_FAILED`` for no bytes at all.
    """
    if not head:
        raise Refusal("VALIDATION_FAILED", file=["The file is empty."])
    found = filetype.guess_mime(head[:HEAD_BYTES])
    found = _SAME.get(found, found)
    if found in TYPES:
        return str(found)
    PlainText().feed(head)  # refuses
    return TEXT


class PlainText:
    """Follows a file that should be text: all of it is UTF-8 and its beginning is no program or page."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._begun = False

    def feed(self, piece: bytes) -> None:
        """The next bytes. Refuses with ``MEDIA_TYPE_NOT_ALLOWED``."""
        self._look(piece, final=False)

    def end(self) -> None:
        """There are no more. Refuses with ``MEDIA_TYPE_NOT_ALLOWED`` when a character is not whole."""
        self._look(b"", final=True)

    def _look(self, piece: bytes, *, final: bool) -> None:
        try:
            text = self._decoder.decode(piece, final)
        except UnicodeDecodeError:
            raise Refusal("MEDIA_TYPE_NOT_ALLOWED") from None
        if _BINARY.search(text) or (not self._begun and _ACTIVE.search(text.lstrip("\ufeff"))):
            raise Refusal("MEDIA_TYPE_NOT_ALLOWED")
        self._begun = True


def clean_filename(given: str | None, content_type: str) -> str:
    """What a file is called: the given name's last part, in safe characters, with an extension of its type."""
    found = TYPES[content_type]
    name = re.split(r"[/\\]", given or "")[-1]
    name = _UNNAMEABLE.sub("", name).strip(" .")
    if not name:
        return f"{found.kind}.{found.extensions[0]}"
    stem, dot, extension = name.rpartition(".")
    if dot and extension.lower() in found.extensions:
        return f"{stem[: FILENAME_MAX - len(extension) - 1]}.{extension}"
    return f"{name[: FILENAME_MAX - len(found.extensions[0]) - 1]}.{found.extensions[0]}"


def shown_inline(content_type: str) -> bool:
    """Whether a browser may show it in place; what it cannot show harmlessly is saved instead."""
    return TYPES[content_type].kind is not Kind.FILE
