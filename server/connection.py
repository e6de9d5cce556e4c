"""One connected device, as the doors know it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from handlers.context import Context
from models.calls.switchboard import Route
from models.ports import Letter
from server.engine import Wire
from server.limits import Allowance


@dataclass(slots=True, eq=False)
class Connection:
    """One connected device. It is ``open`` from its connect until it disconnects or a newer socket is the device.

    ``pending`` collects letters while others go before them, and is None otherwise. Letters up to ``told_seq`` have
    been told here or were for another device of the user. ``waits`` is there while a long replay waits for the client
    to read. ``wire`` is its WebSocket, once it has one. ``route`` is the way of the candidates that it relayed last,
    ``head`` how the frames that take it begin, and ``lead`` how they begin at the other end. ``starting`` counts the
    events that have come and whose tasks have not begun: nothing may overtake them.
    """

    sid: str
    eio_sid: str
    ctx: Context
    expires_at: datetime
    allowance: Allowance
    pending: list[Letter] | None = field(default_factory=list)
    told_seq: int = 0
    starting: int = 0
    open: bool = True
    warned: bool = False
    replaced: bool = False
    waits: asyncio.Task[None] | None = None
    wire: Wire | None = None
    route: Route | None = None
    head: bytes = b""
    lead: bytes = b""


def token_of(auth: dict[str, Any], environ: dict[str, Any]) -> str | None:
    """The access token of a connect: from its payload, else from the header."""
    token = auth.get("token")
    if isinstance(token, str) and token:
        return token.removeprefix("Bearer ")
    header = environ.get("HTTP_AUTHORIZATION", "")
    return header[7:] if header[:7].lower() == "bearer " else None
