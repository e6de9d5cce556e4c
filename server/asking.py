"""What an event of a client asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from handlers.registry import Catalogue, Event
from models.errors import Refusal
from server.packets import Bad


@dataclass(frozen=True, slots=True)
class Asked:
    """What an event of a client asks for; ``door`` is None where nothing is known by its name."""

    name: str
    door: Event | None
    payload: Any


def read_event(catalogue: Catalogue, data: Any) -> Asked | tuple[str | None, Refusal]:
    """What an event asks for; or its name, and why that is nothing."""
    if isinstance(data, Bad):
        return None, Refusal(data.code)
    if not isinstance(data, list) or not data or not isinstance(data[0], str):
        return None, Refusal("VALIDATION_FAILED")
    name, *args = data
    name = name[:64]
    door = catalogue.event(name)
    if door is None:
        return Asked(name, None, None)
    if door.positional and args and (len(args) > 1 or not isinstance(args[0], dict)):
        # As browser clients of other servers send it: join-room(roomId), offer(roomId, offer).
        if len(args) > len(door.positional):
            return name, Refusal("VALIDATION_FAILED", _arguments=["Too many arguments."])
        args = [dict(zip(door.positional, args, strict=False))]
    if len(args) > 1:
        return name, Refusal("VALIDATION_FAILED", _arguments=["One object is expected."])
    return Asked(name, door, args[0] if args else {})
