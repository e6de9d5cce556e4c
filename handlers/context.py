"""Who asks, from which device, by which door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handlers.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One request. ``user_id`` comes from the token alone; it is empty on public routes.

    ``process`` holds the device's socket and is None for REST. ``address`` is the client's network address.
    ``extra`` carries what single routes need of the request (headers), by name.
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
