"""The verbs of files: come in, be looked at, be sent, go.

An upload is kept piece by piece while it comes, and its row before its first byte. It is shown to nobody before it is
whole and found to be what is allowed; then to its owner, and to whoever sees a message that has it. Deleting is a
state, too: whoever dies over it is followed by the job.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from models.errors import Refusal
from models.media import rules
from models.media.links import Link, Links
from models.media.media import Content, Kind, Media, State, Thumbnail
from models.media.metadata import filter_of
from models.media.movies import only_sound
from models.media.ports import Files, Picture, Pictures, Scanner
from models.media.store import MediaStore
from models.ports import Clock, Ids

# Files that one turn of the job looks at.
DUE_MAX = 200


class Audience(Protocol):
    """What files need to know of conversations."""

    async def sees(self, user_id: str, conversation_id: str, media_id: str) -> bool:
        """Whether the person may see a message of the conversation that has the file."""
        ...

    async def carries(self, conversation_id: str, media_id: str) -> bool:
        """Whether a message of the conversation has the file; a deleted one has none."""
        ...


class Viewers(Protocol):
    """What files need to know of people."""

    async def active(self, user_id: str) -> bool:
        """Whether somebody is here, neither banned nor gone."""
        ...


@dataclass(frozen=True, slots=True)
class Room:
    """How much may be kept: ``file_bytes_max`` of one file, ``user_bytes_max`` of all of a person's files."""

    file_bytes_max: int
    user_bytes_max: int


class MediaFiles:
    """One per process."""

    def __init__(
        self,
        *,
        store: MediaStore,
        files: Files,
        pictures: Pictures,
        audience: Audience,
        viewers: Viewers,
        links: Links,
        room: Room,
        clock: Clock,
        ids: Ids,
        scanner: Scanner | None = None,
    ) -> None:
        self._scanner = scanner
        self._store = store
        self._files = files
        self._pictures = pictures
        self._audience = audience
        self._viewers = viewers
        self._links = links
        self._room = room
        self._clock = clock
        self._ids = ids

    # --------------------------------------------------------------------------------------------------- coming in

    async def upload(
        self,
        owner_id: str,
        pieces: AsyncIterator[bytes],
        *,
        filename: str | None,
        length: int | None,
        form_bytes: int = 0,
    ) -> Media:
        """Keep a file. ``length`` in bytes is what the client says that comes, at most; None: it does not say. Of
        them up to ``form_bytes`` may be no part of the file.

        Refuses with ``PAYLOAD_TOO_LARGE``, ``MEDIA_QUOTA``, ``MEDIA_TYPE_NOT_ALLOWED``, ``VALIDATION_FAILED`` (an
        empty file), ``UPLOAD_INCOMPLETE`` (too slow), ``MEDIA_HARMFUL`` and ``SERVER_BUSY``.
        """
        most = self._room.file_bytes_max
        if length is not None and length - form_bytes > most:
            raise Refusal("PAYLOAD_TOO_LARGE", maxBytes=most)
        coming = _Coming(pieces, most=most, clock=self._clock)
        content_type = rules.type_of(await coming.head())
        media_id = await self._begin(owner_id, most if length is None else min(length, most))
        try:
            size = await self._files.save(media_id, coming.checked(content_type), now=self._clock.now())
            await self._refuse_harmful(media_id, size)
            content = await self._content(media_id, content_type, size, filename)
            unsent_until = self._clock.now() + timedelta(seconds=rules.UNSENT_SECONDS)
            media = await self._store.finish(media_id, content, due_at=unsent_until)
            if media is None:
                raise Refusal("UPLOAD_INCOMPLETE")
        except Exception:
            await self._abandon(media_id)
            raise
        return media

    async def _begin(self, owner_id: str, held_bytes: int) -> str:
        """The row of an upload. The sum is made with it, so that of two that are too much together none slips in."""
        media_id, now = self._ids.new(), self._clock.now()
        late = now + timedelta(seconds=rules.UPLOAD_SECONDS + rules.UPLOAD_MARGIN_SECONDS)
        await self._store.begin(media_id, owner_id=owner_id, held_bytes=held_bytes, due_at=late, now=now)
        held, files = await self._store.held_by(owner_id)
        if held > self._room.user_bytes_max or files > rules.FILES_MAX:
            await self._store.withdraw(media_id)
            raise Refusal("MEDIA_QUOTA", maxBytes=self._room.user_bytes_max, maxFiles=rules.FILES_MAX)
        return media_id

    async def _refuse_harmful(self, media_id: str, size: int) -> None:
        if self._scanner is not None:
            pieces = self._files.read(media_id, start=0, end=size)
            if await self._scanner.harmful(pieces):
                raise Refusal("MEDIA_HARMFUL")

    async def _content(self, media_id: str, content_type: str, size: int, filename: str | None) -> Content:
        if content_type == "video/mp4" and await self._only_sound(media_id, size):
            content_type = "audio/mp4"
        kind = rules.TYPES[content_type].kind
        picture = await self._picture(media_id, content_type, size) if kind is Kind.IMAGE else None
        return Content(
            content_type=content_type,
            kind=kind,
            size_bytes=size,
            filename=rules.clean_filename(filename, content_type),
            width=picture.width if picture else None,
            height=picture.height if picture else None,
            thumb=Thumbnail(content_type=picture.thumbnail_type, size_bytes=len(picture.thumbnail))
            if picture
            else None,
        )

    async def _only_sound(self, media_id: str, size: int) -> bool:
        async def read(start: int, end: int) -> bytes:
            return b"".join([piece async for piece in self._files.read(media_id, start=start, end=end)])

        return await only_sound(read, size)

    async def _picture(self, media_id: str, content_type: str, size: int) -> Picture:
        """An image that can be shown, its thumbnail kept. Refuses with ``MEDIA_TYPE_NOT_ALLOWED``."""
        pieces = self._files.read(media_id, start=0, end=size)
        picture = await self._pictures.examine(pieces, content_type=content_type, size_bytes=size)
        if picture is None:
            raise Refusal("MEDIA_TYPE_NOT_ALLOWED")
        await self._files.save(thumb_id(media_id), _one(picture.thumbnail), now=self._clock.now())
        return picture

    async def _abandon(self, media_id: str) -> None:
        """Delete what came of an upload that failed. Should this fail, too, the job finds it by its row."""
        try:
            if await self._store.doom(media_id, states=[State.UPLOADING], now=self._clock.now()):
                await self._erase(media_id)
            else:  # it was given up while it still came: what came since has to go as well
                await self._delete_bytes(media_id)
        except Exception:
            return

    # ------------------------------------------------------------------------------------------------ being looked at

    async def seen_by(self, user_id: str, media_id: str) -> Media:
        """A file for somebody who may see it. Refuses with ``MEDIA_UNKNOWN``."""
        media = await self._store.find(media_id)
        if media is None:
            raise Refusal("MEDIA_UNKNOWN")
        if media.owner_id != user_id and not await self._sent_to(user_id, media):
            raise Refusal("MEDIA_UNKNOWN")
        return media

    async def _sent_to(self, user_id: str, media: Media) -> bool:
        for conversation_id in media.conversations:
            if await self._audience.sees(user_id, conversation_id, media.id):
                return True
        return False

    async def views(self, media_ids: Collection[str]) -> dict[str, Media]:
        """Those of the files that are there, by id, for whoever may show them anyway (a conversation's messages)."""
        return {media.id: media for media in await self._store.find_many(media_ids)}

    def read(self, media: Media, *, thumbnail: bool, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of a file or of its thumbnail, from ``start`` up to ``end``. May raise ``Gone``."""
        return self._files.read(thumb_id(media.id) if thumbnail else media.id, start=start, end=end)

    def link(self, media: Media, *, viewer_id: str, thumbnail: bool) -> Link:
        """An address for a file that ``viewer_id`` has just been let see."""
        return self._links.make(media.id, viewer_id=viewer_id, thumbnail=thumbnail, now=self._clock.now())

    async def linked(self, link: Link) -> Media:
        """The file of an address, as its viewer may see it now. Refuses with ``MEDIA_UNKNOWN``."""
        if not self._links.good(link, self._clock.now()) or not await self._viewers.active(link.viewer_id):
            raise Refusal("MEDIA_UNKNOWN")
        return await self.seen_by(link.viewer_id, link.media_id)

    # ------------------------------------------------------------------------------------------- being sent, and going

    async def attach(self, media_id: str, *, owner_id: str, conversation_id: str) -> Media:
        """Send a file into a conversation: its members may see it from now on. Safe to repeat.

        Whoever calls this writes the message next. If none is there after ``SENDING_SECONDS``, the file is taken
        back. Refuses with ``ATTACHMENT_UNKNOWN``, also when it is not yours.
        """
        look_at = self._clock.now() + timedelta(seconds=rules.SENDING_SECONDS)
        media = await self._store.attach(
            media_id, owner_id=owner_id, conversation_id=conversation_id, due_at=look_at
        )
        if media is None:
            raise Refusal("ATTACHMENT_UNKNOWN")
        return media

    async def detach(self, media_id: str, conversation_id: str) -> None:
        """A message with the file was deleted: unless another one has it, the file is not of the conversation any
        more, and goes when it is of none. Safe to repeat.
        """
        while True:
            media = await self._store.find(media_id)
            if media is None or conversation_id not in media.conversations:
                return
            if await self._audience.carries(conversation_id, media_id):
                return
            if await self._store.detach(media, [conversation_id], now=self._clock.now()):
                return

    async def delete(self, user_id: str, media_id: str) -> None:
        """Delete one's own file that was not sent. Refuses with ``MEDIA_UNKNOWN`` and ``MEDIA_ATTACHED``."""
        media = await self._store.find(media_id)
        if media is None or media.owner_id != user_id:
            raise Refusal("MEDIA_UNKNOWN")
        if not await self._store.doom(
            media_id, states=[State.READY], owner_id=user_id, now=self._clock.now()
        ):
            raise Refusal("MEDIA_ATTACHED")
        await self._erase(media_id)

    # ----------------------------------------------------------------------------------------------------- timed work

    async def run_due(self) -> int:
        """Look at every file whose time has come; how many. Safe in any number of processes."""
        done = 0
        while done < DUE_MAX:
            media = await self._store.claim_due(self._clock.now())
            if media is None:
                break
            await self._look_at(media)
            done += 1
        return done

    async def _look_at(self, media: Media) -> None:
        now = self._clock.now()
        if media.state is State.READY and media.conversations:
            gone = [one for one in media.conversations if not await self._audience.carries(one, media.id)]
            if gone:
                await self._store.detach(media, gone, now=now)  # without any left it is due, in this turn
            else:
                await self._store.settle(media, look_at=now + timedelta(days=rules.LOOK_AGAIN_DAYS))
        elif media.state is State.ERASED:
            await self._delete_bytes(media.id)
            await self._store.forget(media.id)
        elif media.state is State.DELETING or await self._store.doom(
            media.id, states=[State.UPLOADING, State.READY], now=now
        ):
            await self._erase(media.id)

    async def _erase(self, media_id: str) -> None:
        await self._delete_bytes(media_id)
        again_at = self._clock.now() + timedelta(seconds=rules.ERASE_AGAIN_SECONDS)
        await self._store.erased(media_id, again_at=again_at)

    async def _delete_bytes(self, media_id: str) -> None:
        await self._files.delete(media_id)
        await self._files.delete(thumb_id(media_id))


def thumb_id(media_id: str) -> str:
    """The name under which a file's thumbnail is kept."""
    return f"{media_id}/thumbnail"


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


class _Coming:
    """A body as it comes: counted, in time, and of the type that its beginning says."""

    def __init__(self, pieces: AsyncIterator[bytes], *, most: int, clock: Clock) -> None:
        self._pieces = pieces
        self._most = most
        self._clock = clock
        self._until = clock.now() + timedelta(seconds=rules.UPLOAD_SECONDS)
        self._size = 0
        self._head = b""

    async def head(self) -> bytes:
        """The beginning of the body, enough to tell its type."""
        head = bytearray()
        while len(head) < rules.HEAD_BYTES:
            piece = await self._next()
            if piece is None:
                break
            head += piece
        self._head = bytes(head)
        return self._head

    async def checked(self, content_type: str) -> AsyncIterator[bytes]:
        """The whole body from its beginning, without what photos tell of people. Refuses as soon as it is wrong."""
        text = rules.PlainText() if content_type == rules.TEXT else None
        passing = filter_of(content_type)
        piece: bytes | None = self._head
        while piece is not None:
            if text:
                text.feed(piece)
            yield passing.feed(piece)
            piece = await self._next()
        if text:
            text.end()
        yield passing.end()

    async def _next(self) -> bytes | None:
        piece = await anext(self._pieces, None)
        if self._clock.now() > self._until:
            raise Refusal("UPLOAD_INCOMPLETE")
        if piece is not None:
            self._size += len(piece)
            if self._size > self._most:
                raise Refusal("PAYLOAD_TOO_LARGE", maxBytes=self._most)
        return piece
