"""``GET /health``, ``/health/live``, ``/metrics``: for load balancers, orchestrators and Prometheus."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from models.calls.service import Calls
from models.db import IN_FLIGHT_MAX, Database
from server.bus.bus import Bus
from server.metrics import (
    DATABASE_IN_FLIGHT,
    DATABASE_IN_FLIGHT_MAX,
    DATABASE_UP,
    DATABASE_WAITING,
    DRAINING,
    INFO,
    LIVE_CALLS,
    LOOP_TURN,
    REGISTRY,
    UPTIME,
    BusCount,
    RelayCount,
    TransactionCount,
)
from server.siblings import Siblings

VERSION = "0.1.0"
# Asks a process for its own figures only; so the processes at one port ask each other.
OWN = "own"
_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?( .+)")


class Health:
    """Whether this process can serve, with how the database answered lately."""

    def __init__(self, db: Database, calls: Calls, relayed: RelayCount, bus: Bus | None = None) -> None:
        # The other processes at this port, whose figures are shown as well.
        self.siblings: Siblings | None = None
        self._bus = bus  # None: nothing is configured
        self._bus_count = BusCount(bus) if bus is not None else None
        self._db = db
        self._calls = calls
        self._transactions, self._relayed = TransactionCount(db), relayed
        self._started = time.monotonic()
        self.draining = False

    def add_routes(self, app: web.Application) -> None:
        """Public, unlimited, never logged."""
        app.router.add_get("/health", self.health)
        app.router.add_get("/health/live", self.live)
        app.router.add_get("/metrics", self.metrics)

    async def health(self, request: web.Request) -> web.Response:
        """200 when it can serve, 503 when it cannot: the database is away or the server is draining."""
        up = await self._database_up()
        body: dict[str, Any] = {
            "status": "draining" if self.draining else "ok" if up else "degraded",
            "database": "up" if up else "down",
            "uptimeSeconds": int(time.monotonic() - self._started),
            "version": VERSION,
        }
        if self._bus is not None:
            # Without it all goes on, some of it half a second late: no reason to take this process out.
            body["redis"] = "up" if self._bus.reaches else "down"
        ready = up and not self.draining
        headers = {} if ready else {"Retry-After": "2"}
        return web.Response(
            body=orjson.dumps(body),
            status=200 if ready else 503,
            headers=headers,
            content_type="application/json",
        )

    async def live(self, request: web.Request) -> web.Response:
        """200 as long as the loop turns."""
        return web.json_response({"status": "ok"})

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus text; of all processes at this port, each with its number, unless ``?own`` is asked for."""
        page = await self._page()
        if self.siblings is not None and OWN not in request.query:
            others = await self.siblings.ask_all(f"/metrics?{OWN}")
            page = together({self.siblings.number: page, **others})
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _page(self) -> str:
        began = time.monotonic()
        await asyncio.sleep(0)
        LOOP_TURN.set(time.monotonic() - began)
        self._transactions.carry()
        self._relayed.carry()
        if self._bus_count is not None:
            self._bus_count.carry()
        LIVE_CALLS.set(len(self._calls.board))
        DATABASE_IN_FLIGHT.set(self._db.in_flight)
        DATABASE_IN_FLIGHT_MAX.set(IN_FLIGHT_MAX)
        DATABASE_WAITING.set(self._db.waiting)
        DATABASE_UP.set(1 if await self._database_up() else 0)
        INFO.labels(VERSION).set(1)
        DRAINING.set(1 if self.draining else 0)
        UPTIME.set(time.monotonic() - self._started)
        return generate_latest(REGISTRY).decode()

    async def _database_up(self) -> bool:
        try:
            await self._db.ping()
        except Exception:
            return False
        return True


def together(pages: Mapping[int, str]) -> str:
    """The pages of several processes as one: each sample with the number of its process, each metric named once."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for number, page in pages.items():
        about, samples = families.setdefault("", ([], []))
        for line in page.splitlines():
            if line.startswith("# HELP "):
                about, samples = families.setdefault(line.split(" ", 3)[2], ([], []))
            if line.startswith("#"):
                if line not in about:
                    about.append(line)
            elif found := _SAMPLE.fullmatch(line):
                name, labels, rest = found.groups()
                own = f'process="{number}"'
                samples.append(f"{name}{{{f'{labels},{own}' if labels else own}}}{rest}")
    return "".join(f"{line}\n" for about, samples in families.values() for line in (*about, *samples))
