"""The body of an upload as pieces: the body itself, or the part named ``file`` of a form.

A form is read only as far as the beginning of its file before the route is asked, and never more of it than fits in
``FORM_BYTES_MAX``. How large the file itself may be is the route's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

from aiohttp import BodyPartReader, ClientError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from handlers.context import Upload
from handlers.shapes import unclean
from models.errors import Refusal

# Boundaries, headers of parts, and small fields that an app may send before the file.
FORM_BYTES_MAX = 64 * 1024
# A connection from which nothing comes for so long will bring nothing.
SILENCE_SECONDS = 60.0
PIECE_BYTES = 64 * 1024
FILENAME_MAX = 256
PART = "file"
# All the ways in which aiohttp says that a body is not as it should be, ends too early, or nothing comes any more.
_BROKEN = (
    ClientError,
    HttpProcessingError,
    web.HTTPException,
    OSError,
    ValueError,
    KeyError,
    AssertionError,
    RuntimeError,
)


async def upload_of(request: web.Request) -> Upload:
    """The upload in a request. Refuses with ``VALIDATION_FAILED`` when its form has no file."""
    length = request.content_length
    if hdrs.CONTENT_ENCODING in request.headers:
        length = None  # of what is compressed; what comes is larger
    if request.content_type.partition("/")[0] != "multipart":
        name = unquote(request.headers.get("X-Filename", "")[: 3 * FILENAME_MAX], errors="replace")
        pieces = _unbroken(_body(request))
        return Upload(
            pieces=pieces,
            filename=_name(name),
            content_type=request.headers.get(hdrs.CONTENT_TYPE),
            length=length,
        )
    part = await _file_part(request)
    return Upload(
        pieces=_unbroken(_part(part)),
        filename=_name(part.filename),
        content_type=part.headers.get(hdrs.CONTENT_TYPE),
        length=length,
        form_bytes=FORM_BYTES_MAX,
    )


async def _file_part(request: web.Request) -> BodyPartReader:
    """The form's file, with what comes before it read and dropped."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            reader, left = await request.multipart(), FORM_BYTES_MAX
            while (part := await reader.next()) is not None:
                if not isinstance(part, BodyPartReader):
                    break
                if part.name == PART:
                    return part
                while (piece := await part.read_chunk()) and left >= 0:
                    left -= len(piece)
                if left < 0:
                    raise Refusal("PAYLOAD_TOO_LARGE", maxBytes=FORM_BYTES_MAX)
    except _BROKEN:
        pass
    raise Refusal("VALIDATION_FAILED", file=["A form needs one part of this name, with the file."])


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_any():
        yield piece


async def _part(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(PIECE_BYTES):
        yield bytes(piece)


async def _unbroken(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces to their end. Refuses with ``UPLOAD_INCOMPLETE`` when they stop before it."""
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                piece = await anext(pieces, None)
        except _BROKEN:
            raise Refusal("UPLOAD_INCOMPLETE") from None
        if piece is None:
            return
        yield piece


def _name(given: str | None) -> str | None:
    return given[:FILENAME_MAX] if given and not unclean(given) else None
