"""For commands that need the services of a server, beside a running one: all of them, without sockets and timers."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from handlers.services import Services
from models.db import Database
from models.ports import Letter
from models.trail.rules import Actor
from server.clock import SystemClock, SystemIds
from server.config import Config, with_jwt_secret
from server.wiring import Edges, wire

# The name under which the command takes its place among the processes; it holds no sockets.
PROCESS = "command line"


# What the trail says of an act for which nobody has said why.
UNSAID = "by the command line"


def operator() -> Actor:
    """Whoever has the command line, by the name that the machine has for them."""
    try:
        return Actor.operator(getpass.getuser())
    except (KeyError, OSError):  # a container's user often has none
        return Actor.operator()


def add_reason(parser: argparse.ArgumentParser, said: str = "why; stands in the trail") -> None:
    """``--reason`` for a command that acts."""
    parser.add_argument("--reason", metavar="TEXT", default=UNSAID, help=said)


@asynccontextmanager
async def services_beside(config: Config, db: Database) -> AsyncIterator[Services]:
    """The services of a process among others, for a while: what it has to tell goes into the log, and a running server
    looks there.
    """
    nowhere = Nowhere()
    edges = Edges(clock=SystemClock(), ids=SystemIds(), alarms=nowhere, doors=nowhere, process=PROCESS)
    wired = wire(with_jwt_secret(config), db, edges)
    services = wired.services
    services.calls.others_live = True
    services.calls.works = False  # it is gone in a moment: no job is to wait for it
    await services.calls.beat()
    try:
        yield services
        await services.calls.flush_told()
    finally:
        await wired.close()


class Nowhere:
    """No sockets and no timers: they are the running server's."""

    def set(self, key: str, at: datetime) -> None:
        """Nothing rings here."""

    def clear(self, key: str) -> None:
        """Nothing to forget."""

    async def deliver(self, letters: Sequence[Letter]) -> None:
        """Nobody is connected here."""

    def online(self, user_id: str) -> bool:
        """Nobody is."""
        return False

    def connected(self, user_id: str, device_id: str) -> bool:
        """No device is."""
        return False

    def renew(self, user_id: str, device_id: str, expires_at: datetime) -> None:
        """No socket lives on."""

    async def close(self, user_id: str, *, session_ids: Collection[str] | None = None, code: str) -> None:
        """No socket is closed."""
