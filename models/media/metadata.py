"""Photos without what they tell of their makers: where, when and with what they were taken, by whom, and drafts.

A filter follows the parts of a file as they pass by and lets through those that make the picture; it holds a part at
most, never the file. Whatever follows the picture's end is left out, too: phones hide whole other pictures and films
there, others hide programs. A file that is not made as it should be passes as it is: the decoder has the last word.

- JPEG: segments (ITU T.81 §B.1). Of Exif the orientation stays, or photos would lie on their side.
- PNG: chunks (W3C PNG §5). - WebP: RIFF chunks; its length stands at the beginning, so what goes is overwritten.

GIFs have no cameras. What films say of themselves stays as it is.
"""

from __future__ import annotations

import re
import struct
from typing import Protocol

_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
# Application segments that the picture is not itself without: JFIF, color profile, Adobe's color transform.
_KEPT_APP = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_COMMENT, _SOS, _EOI = 0xFE, 0xDA, 0xD9
# In compressed data 0xFF means itself before 0x00, and a restart before D0 to D7; before all else, a segment begins.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_ALONE = {0x01, *range(0xD0, 0xD9)}
_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD hIST pHYs sPLT cICP mDCV cLLI acTL fcTL fdAT".split()
)
_WEBP_HIDDEN = frozenset((b"EXIF", b"XMP "))
_WEBP_FLAGS = 0x08 | 0x04  # in VP8X: there is Exif, there is XMP


# Segments of one JPEG: a photo has some thirty, one with every profile and scan some hundreds. What follows so many is
# left out, and the decoder refuses the picture: to look at a million of them would keep everybody waiting.
SEGMENTS_MAX = 10_000


class Filter(Protocol):
    """Takes a file piece by piece."""

    def feed(self, piece: bytes) -> bytes:
        """What of the file may go on."""
        ...

    def end(self) -> bytes:
        """What was held back."""
        ...


class _Whole:
    """A file that passes as it is."""

    def feed(self, piece: bytes) -> bytes:
        return piece

    def end(self) -> bytes:
        return b""


class _Parts:
    """What filters share: bytes that wait for more, and a rest that passes, or does not."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._rest: bool | None = None

    def feed(self, piece: bytes) -> bytes:
        if self._over():
            return piece if self._rest else b""
        self._waiting += piece
        made = bytearray()
        while self._step(made):
            if self._over():
                made += self._waiting if self._rest else b""
                self._waiting.clear()
                break
        return bytes(made)

    def end(self) -> bytes:
        left = bytes(self._waiting)
        self._waiting.clear()
        return left

    def _over(self) -> bool:
        """Whether there is nothing more to look at: it is known what becomes of the rest."""
        return self._rest is not None

    def _step(self, made: bytearray) -> bool:
        """Move one part from what waits to what is made; False when more of the file is needed."""
        raise NotImplementedError

    def _take(self, size: int) -> bytes:
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken


class Jpeg(_Parts):
    """A JPEG file."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = self._in_scan = False
        self._segments = 0

    def _step(self, made: bytearray) -> bool:
        waiting = self._waiting
        if len(waiting) < 4:
            return False
        if not self._begun:
            made += self._take(2)
            self._begun = True
        elif self._in_scan:
            return self._scan(made)
        elif waiting[0] != 0xFF:
            self._rest = True
        elif waiting[1] == 0xFF:  # bytes that only fill, however many
            self._take(len(waiting) - len(waiting.lstrip(b"\xff")) - 1)
        elif self._segments == SEGMENTS_MAX:
            self._rest = False
        elif waiting[1] == _EOI:
            made += self._take(2)
            self._rest = False
        elif waiting[1] in _ALONE:
            made += self._take(2)
            self._segments += 1
        else:
            size = 2 + int.from_bytes(waiting[2:4], "big")
            if len(waiting) < size:
                return False
            self._in_scan = waiting[1] == _SOS
            made += _segment(self._take(size))
            self._segments += 1
        return True

    def _scan(self, made: bytearray) -> bool:
        found = _MARKER.search(self._waiting)
        if found is None:
            keep = 1 if self._waiting[-1] == 0xFF else 0
            made += self._take(len(self._waiting) - keep)
            return False
        made += self._take(found.start())
        self._in_scan = False
        if self._waiting[1] == _EOI:  # may be the file's last two bytes
            made += self._take(2)
            self._rest = False
        return True

    def end(self) -> bytes:
        if self._begun and not self._in_scan and self._waiting[:2] == bytes((0xFF, _EOI)):
            return self._take(2)
        return super().end()


def _segment(segment: bytes) -> bytes:
    """A JPEG segment, what is left of it, or nothing."""
    marker, data = segment[1], segment[4:]
    if marker == 0xE1 and data.startswith(_EXIF):
        orientation = _orientation(data[len(_EXIF) :])
        return _exif(orientation) if 1 < orientation <= 8 else b""
    if marker == _COMMENT or 0xE0 <= marker <= 0xEF:
        kept = _KEPT_APP.get(marker)
        return segment if kept is not None and data.startswith(kept) else b""
    return segment


def _orientation(tiff: bytes) -> int:
    """The orientation in Exif (TIFF 6.0 §2); 1, upright, when it says none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, at)
        for n in range(entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at + 2 + 12 * n)
            if (tag, kind) == (_ORIENTATION, 3):
                return int(value)
    except struct.error:
        pass
    return 1


def _exif(orientation: int) -> bytes:
    """An Exif segment that says the orientation and nothing else."""
    entry = struct.pack(">HHIHH", _ORIENTATION, 3, 1, orientation, 0)
    data = _EXIF + b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data


class Png(_Parts):
    """A PNG file. Chunks of any size pass without being held."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = False
        self._left = 0
        self._kept = self._last = False

    def _step(self, made: bytearray) -> bool:
        if self._left:
            passing = self._take(min(self._left, len(self._waiting)))
            self._left -= len(passing)
            made += passing if self._kept else b""
            if self._last and not self._left:
                self._rest = False
            return bool(passing)
        if len(self._waiting) < 8:
            return False
        head = self._take(8)
        if not self._begun:
            self._begun = True
            made += head
            return True
        kind = head[4:]
        self._left = int.from_bytes(head[:4], "big") + 4  # and its checksum
        self._kept, self._last = kind in _PNG_KEPT, kind == b"IEND"
        made += head if self._kept else b""
        return True


class Webp(_Parts):
    """A WebP file."""

    def __init__(self) -> None:
        super().__init__()
        self._file_left = -1
        self._left = 0
        self._kept = True

    def _step(self, made: bytearray) -> bool:
        if self._file_left < 0:
            if len(self._waiting) < 12:
                return False
            self._file_left = int.from_bytes(self._waiting[4:8], "little") - 4
            made += self._take(12)
        elif self._left:
            passing = self._pass(min(self._left, len(self._waiting)))
            self._left -= len(passing)
            made += passing if self._kept else bytes(len(passing))
            return bool(passing)
        elif self._file_left < 8:
            self._rest = False
        else:
            if len(self._waiting) < 18:  # a chunk's head, and the flags of VP8X
                return False
            kind = bytes(self._waiting[:4])
            size = int.from_bytes(self._waiting[4:8], "little")
            self._kept = kind not in _WEBP_HIDDEN
            if kind == b"VP8X":
                self._waiting[8] &= ~_WEBP_FLAGS
            head = self._pass(8)
            self._left = min(size + size % 2, self._file_left)
            made += head if self._kept else b"JUNK" + head[4:]
        return True

    def _pass(self, size: int) -> bytes:
        self._file_left -= size
        return self._take(size)


def filter_of(content_type: str) -> Filter:
    """The filter for a file of that type."""
    filters: dict[str, type[Filter]] = {"image/jpeg": Jpeg, "image/png": Png, "image/webp": Webp}
    return filters.get(content_type, _Whole)()
