"""Who asks, from which device, by which door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handlers.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A body that comes in pieces. ``filename`` and ``content_type`` are what the client says and nothing to trust;
    ``length`` is in bytes, None when the client has not said it; up to ``form_bytes`` of them may not be the file's.
    """

    pieces: AsyncIterator[bytes]
    filename: str | None = None
    content_type: str | None = None
    length: int | None = None
    form_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One request. ``user_id`` comes from the token alone; it is empty on public routes.

    ``process`` holds the device's socket and is None for REST. ``address`` is the client's network address.
    ``extra`` carries what single routes need of the request (headers), by name. ``upload`` and ``raw`` are the body of
    routes that declare so (``body="stream"``, ``body="raw"``), and ``headers`` go with the raw one, in lower case.
    """

    services: Services
    user_id: str = ""
    session_id: str = ""
    device_id: str = ""
    process: str | None = None
    address: str = ""
    request_id: str = ""
    door: str = "rest"
    role: str = "user"
    extra: dict[str, Any] = field(default_factory=dict)
    upload: Upload | None = None
    raw: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
