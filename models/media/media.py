"""What a file is to everybody but its store: frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Kind(StrEnum):
    """What an app does with a file: shows it, plays it, or offers to save it."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"


class State(StrEnum):
    """UPLOADING → READY → DELETING → ERASED → gone. An upload that fails goes on to DELETING.

    ERASED is a file whose bytes were deleted once. They are deleted again when nobody can be writing any more.
    """

    UPLOADING = "uploading"
    READY = "ready"
    DELETING = "deleting"
    ERASED = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small picture of an image, itself kept as a file."""

    content_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an upload turned out to be. ``width`` and ``height`` are in pixels as shown, and only of images."""

    content_type: str
    kind: Kind
    size_bytes: int
    filename: str
    width: int | None = None
    height: int | None = None
    thumb: Thumbnail | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A file. ``content`` is None until its upload has ended. ``conversations`` are those that it was sent into."""

    id: str
    owner_id: str
    state: State
    created_at: datetime
    due_at: datetime
    conversations: tuple[str, ...] = ()
    content: Content | None = None

    @property
    def whole(self) -> Content:
        """The content of a file that is there."""
        assert self.content is not None, "only a whole file is shown"
        return self.content

    @property
    def kind(self) -> Kind:
        return self.whole.kind

    @property
    def content_type(self) -> str:
        return self.whole.content_type

    @property
    def size_bytes(self) -> int:
        return self.whole.size_bytes

    @property
    def filename(self) -> str:
        return self.whole.filename

    @property
    def width(self) -> int | None:
        return self.whole.width

    @property
    def height(self) -> int | None:
        return self.whole.height

    @property
    def thumbnail(self) -> bool:
        """Whether there is a small picture of it."""
        return self.whole.thumb is not None
