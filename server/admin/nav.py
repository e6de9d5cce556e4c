"""What the pages' menu shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.admin.visit import Visit

# How many wait there; 0 shows nothing.
Count = Callable[["Visit"], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the menu. ``path`` is below ``/admin``; ``icon`` names a symbol of ``icons.svg``."""

    name: str
    path: str
    icon: str
    count: Count | None = None
