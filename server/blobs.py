"""A file as an HTTP answer: conditions, one range, and the bytes as they are read.

RFC 9110 §13 (If-None-Match, If-Range) and §14 (ranges). An entity tag of ours names bytes
and is strong, so there is no date to compare. Several ranges at once are answered with the whole, as §14.2 allows.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import structlog
from aiohttp import hdrs, web

from handlers.blobs import Blob, Stream
from models.errors import Refusal

log = structlog.get_logger(__name__)

# Nothing in a file that somebody sent is run, should it be opened as a page of ours after all.
POLICY = "default-src 'none'; img-src 'self'; media-src 'self'; sandbox"
# As long as a link lives: whoever may not see it any more has seen it.
CACHE = "private, max-age=300"
# Kept by the client alone, which asks each time whether it is still so.
REVALIDATE = "private, no-cache"
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE)
_PLAIN = re.compile(r"[^A-Za-z0-9 ._()+-]")


async def serve(blob: Blob, request: web.Request) -> web.StreamResponse:
    """Answer with a file, a range of it, or that the client has it. Refuses with ``RANGE_NOT_SATISFIABLE``."""
    tag = f'"{blob.etag}"'
    headers = {
        hdrs.ETAG: tag,
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CACHE_CONTROL: REVALIDATE if blob.changes else CACHE,
        hdrs.CONTENT_SECURITY_POLICY: POLICY,
        # An app's web page has another origin than this server; whether it may see the file was decided above.
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    if known(request.headers.get(hdrs.IF_NONE_MATCH), tag):
        return web.Response(status=304, headers=headers)
    headers[hdrs.CONTENT_TYPE] = blob.content_type
    headers[hdrs.CONTENT_DISPOSITION] = disposition(blob.filename, inline=blob.inline)
    start, end, status = 0, blob.size_bytes, 200
    asked = request.headers.get(hdrs.RANGE) if request.method == hdrs.METH_GET else None
    if asked is not None and request.headers.get(hdrs.IF_RANGE, tag).strip() == tag:
        found = byte_range(asked, blob.size_bytes)
        if found is not None:
            (start, end), status = found, 206
            headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
    answer = web.StreamResponse(status=status, headers=headers)
    answer.content_length = end - start
    return await _send(answer, blob, request, start, end)


async def pour(stream: Stream, request: web.Request) -> web.StreamResponse:
    """Answer with a file that is made while it is sent."""
    headers = {
        hdrs.CACHE_CONTROL: "no-store",
        hdrs.CONTENT_SECURITY_POLICY: POLICY,
        hdrs.CONTENT_TYPE: stream.content_type,
        hdrs.CONTENT_DISPOSITION: disposition(stream.filename, inline=False),
    }
    return await _write(web.StreamResponse(headers=headers), stream.pieces, request)


async def _send(
    answer: web.StreamResponse, blob: Blob, request: web.Request, start: int, end: int
) -> web.StreamResponse:
    return await _write(answer, blob.open(start, end), request)


async def _write(
    answer: web.StreamResponse, pieces: AsyncIterator[bytes], request: web.Request
) -> web.StreamResponse:
    try:
        await answer.prepare(request)
        if request.method == hdrs.METH_GET:
            async for piece in pieces:
                await answer.write(piece)
        await answer.write_eof()
    except ConnectionError:
        pass  # whoever asked has seen enough
    except Exception as fault:
        # The status is sent: that the body is not whole is told by ending the connection in the middle of it.
        log.warning("a file could not be sent whole", path=request.path, fault=repr(fault))
        if request.transport is not None:
            request.transport.abort()
    return answer


def known(header: str | None, tag: str) -> bool:
    """Whether the client has these bytes (If-None-Match: weak comparison, RFC 9110 §13.1.2)."""
    if header is None:
        return False
    return header.strip() == "*" or tag in (part.strip().removeprefix("W/") for part in header.split(","))


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """From which byte up to which, or None when there is no single range to heed (RFC 9110 §14.1.2).

    Refuses with ``RANGE_NOT_SATISFIABLE`` when the file has none of the bytes.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or found.group(1) == found.group(2) == "":
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None  # says nothing
    if start >= size or start >= end:
        raise Refusal("RANGE_NOT_SATISFIABLE")
    return start, end


def disposition(filename: str, *, inline: bool) -> str:
    """``Content-Disposition``: the name in ASCII and, where that is not all of it, in UTF-8 (RFC 6266, RFC 8187)."""
    plain = _PLAIN.sub("_", filename)
    said = f'{"inline" if inline else "attachment"}; filename="{plain}"'
    return said if plain == filename else f"{said}; filename*=UTF-8''{quote(filename, safe='')}"
