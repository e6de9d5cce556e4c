"""Files: upload, download, links, how a file looks from outside, and the timed job."""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import quote, urlencode

from marshmallow import fields, validate

from handlers.blobs import Blob
from handlers.context import Context
from handlers.registry import job, route
from handlers.services import Services
from handlers.shapes import Id, Shape, Text
from models.errors import Refusal
from models.media import rules
from models.media.links import LINK_SECONDS, Link
from models.media.media import Kind, Media

_EXAMPLE_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
_SIGNATURE_MAX = 64


class MediaRef(Shape):
    """Which file."""

    id = Id(required=True)
    example = {"id": _EXAMPLE_ID}


class SignedRef(MediaRef):
    """Which file, and the proof that it may be seen: as it stands in a link."""

    viewer = Id(required=True)
    variant = fields.String(required=True, validate=validate.OneOf(["original", "thumbnail"]))
    until = fields.Integer(required=True, validate=validate.Range(min=0, max=2**40))
    signature = Text(required=True, least=1, most=_SIGNATURE_MAX)
    example = {
        "id": _EXAMPLE_ID,
        "viewer": _EXAMPLE_ID,
        "variant": "original",
        "until": 1785412800,
        "signature": "0" * _SIGNATURE_MAX,
    }


class AttachmentView(Shape):
    """A file, as it stands in a message. The addresses take the `Authorization` header of any other route."""

    id = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf([kind.value for kind in Kind]))
    content_type = fields.String(required=True, metadata={"description": "What it is by its content."})
    size_bytes = fields.Integer(required=True)
    filename = fields.String(required=True, allow_none=True)
    width = fields.Integer(
        required=True, allow_none=True, metadata={"description": "In pixels as shown; images only."}
    )
    height = fields.Integer(required=True, allow_none=True)
    url = fields.String(required=True)
    thumbnail_url = fields.String(
        required=True, allow_none=True, metadata={"description": "At most 320 pixels a side, no metadata."}
    )


class MediaView(AttachmentView):
    """An uploaded file."""

    expires_in_ms = fields.Integer(
        required=True, metadata={"description": "Until it is thrown away, unless a message takes it."}
    )


class LinkView(Shape):
    """Addresses of a file that need no header."""

    url = fields.String(required=True)
    thumbnail_url = fields.String(required=True, allow_none=True)
    expires_in_ms = fields.Integer(required=True)


class _File(Protocol):
    """What a message keeps of a file, and the file itself."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def filename(self) -> str | None: ...
    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    @property
    def thumbnail(self) -> bool: ...


def attachment_view(media: _File) -> dict[str, Any]:
    """A file for ``AttachmentView`` to dump."""
    url = f"/api/media/{media.id}"
    return {
        "id": media.id,
        "kind": str(media.kind),
        "content_type": media.content_type,
        "size_bytes": media.size_bytes,
        "filename": media.filename,
        "width": media.width,
        "height": media.height,
        "url": url,
        "thumbnail_url": f"{url}/thumbnail" if media.thumbnail else None,
    }


@route(
    "POST",
    "/api/media",
    gives=MediaView,
    wraps="media",
    status=201,
    body="stream",
    refuses=[
        "PAYLOAD_TOO_LARGE",
        "MEDIA_QUOTA",
        "MEDIA_TYPE_NOT_ALLOWED",
        "MEDIA_HARMFUL",
        "UPLOAD_INCOMPLETE",
        "SERVER_BUSY",
    ],
)
async def media_upload(ctx: Context, ask: dict[str, Any]) -> dict[str, Any]:
    """Upload a file, to be sent with a message.

    The body is the file itself, its name in ``X-Filename`` (percent-encoded UTF-8), or ``multipart/form-data`` with one
    part named ``file``. What it is, is found out from its content: JPEG, PNG, GIF and WebP images, M4A, MP3, Ogg, WAV
    and AAC audio, MP4, WebM and QuickTime video, PDF, plain text. Images get a thumbnail. Where and with what a photo
    was taken is taken out of it; films stay as they are. A file that no message takes is thrown away after a day.
    """
    upload = ctx.upload
    assert upload is not None, "the route declares a body that comes in pieces"
    media = await ctx.services.media.upload(
        ctx.user_id,
        upload.pieces,
        filename=upload.filename,
        length=upload.length,
        form_bytes=upload.form_bytes,
    )
    left = media.due_at - ctx.services.clock.now()
    return {**attachment_view(media), "expires_in_ms": round(left.total_seconds() * 1000)}


@route(
    "GET", "/api/media/{id}", takes=MediaRef, blob=True, refuses=["MEDIA_UNKNOWN", "RANGE_NOT_SATISFIABLE"]
)
async def media_get(ctx: Context, ask: dict[str, Any]) -> Blob:
    """A file's bytes, or a range of them. For its owner and the members of the conversations that it was sent into."""
    media = await ctx.services.media.seen_by(ctx.user_id, ask["id"])
    return _blob(ctx, media, thumbnail=False)


@route(
    "GET",
    "/api/media/{id}/thumbnail",
    takes=MediaRef,
    blob=True,
    refuses=["MEDIA_UNKNOWN", "RANGE_NOT_SATISFIABLE"],
)
async def media_thumbnail(ctx: Context, ask: dict[str, Any]) -> Blob:
    """A small picture of an image: JPEG, or WebP where it has transparent parts. Other files have none."""
    media = await ctx.services.media.seen_by(ctx.user_id, ask["id"])
    return _blob(ctx, media, thumbnail=True)


@route("GET", "/api/media/{id}/link", takes=MediaRef, gives=LinkView, refuses=["MEDIA_UNKNOWN"])
async def media_link(ctx: Context, ask: dict[str, Any]) -> dict[str, Any]:
    """Addresses for players and pages that send no header: good for five minutes, while you may see the file."""
    media = await ctx.services.media.seen_by(ctx.user_id, ask["id"])
    links = ctx.services.media
    return {
        "url": _address(links.link(media, viewer_id=ctx.user_id, thumbnail=False)),
        "thumbnail_url": _address(links.link(media, viewer_id=ctx.user_id, thumbnail=True))
        if media.thumbnail
        else None,
        "expires_in_ms": LINK_SECONDS * 1000,
    }


# Not limited by the address that asks: a whole network operator's customers may share one. Links are limited where
# they are made, and one that we have not made costs a digest.
@route(
    "GET",
    "/api/media/{id}/signed",
    takes=SignedRef,
    blob=True,
    public=True,
    limit="none",
    refuses=["MEDIA_UNKNOWN", "RANGE_NOT_SATISFIABLE"],
)
async def media_signed(ctx: Context, ask: dict[str, Any]) -> Blob:
    """What a link leads to: a file's bytes without a header. Addresses are made by ``GET /api/media/{id}/link``."""
    link = Link(
        media_id=ask["id"],
        viewer_id=ask["viewer"],
        thumbnail=ask["variant"] == "thumbnail",
        until=ask["until"],
        signature=ask["signature"],
    )
    return _blob(ctx, await ctx.services.media.linked(link), thumbnail=link.thumbnail)


@route("DELETE", "/api/media/{id}", takes=MediaRef, refuses=["MEDIA_UNKNOWN", "MEDIA_ATTACHED"])
async def media_delete(ctx: Context, ask: dict[str, Any]) -> None:
    """Delete your own file that you have not sent. What was sent goes with the message."""
    await ctx.services.media.delete(ctx.user_id, ask["id"])


@job("media", every_seconds=30.0, anywhere=True)
async def media_due(services: Services) -> None:
    """Throw away what nobody has sent, what uploads left behind, and what deleted messages had."""
    await services.media.run_due()


def _blob(ctx: Context, media: Media, *, thumbnail: bool) -> Blob:
    content = media.whole
    content_type, size, name = content.content_type, content.size_bytes, content.filename
    if thumbnail:
        if content.thumb is None:
            raise Refusal("MEDIA_UNKNOWN")
        content_type, size = content.thumb.content_type, content.thumb.size_bytes
        name = f"thumbnail.{content_type.partition('/')[2]}"
    files = ctx.services.media
    return Blob(
        content_type="text/plain; charset=utf-8" if content_type == rules.TEXT else content_type,
        size_bytes=size,
        # A file never changes, so its id names its bytes.
        etag=f"{media.id}{'-thumbnail' if thumbnail else ''}",
        filename=name,
        inline=rules.shown_inline(media.content_type),
        open=lambda start, end: files.read(media, thumbnail=thumbnail, start=start, end=end),
    )


def _address(link: Link) -> str:
    query = {
        "viewer": link.viewer_id,
        "variant": "thumbnail" if link.thumbnail else "original",
        "until": link.until,
        "signature": link.signature,
    }
    return f"/api/media/{quote(link.media_id)}/signed?{urlencode(query)}"
