"""``GET /health``, ``/health/live``, ``/metrics``: for load balancers, orchestrators and Prometheus."""

from __future__ import annotations

import time
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from models.calls.service import Calls
from models.db import Database
from server.bus.bus import Bus
from server.metrics import DATABASE_UP, LIVE_CALLS, REGISTRY, BusCount, RelayCount, TransactionCount

VERSION = "0.1.0"


class Health:
    """Whether this process can serve, with how the database answered lately."""

    def __init__(self, db: Database, calls: Calls, relayed: RelayCount, bus: Bus | None = None) -> None:
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
        """Prometheus text."""
        self._transactions.carry()
        self._relayed.carry()
        if self._bus_count is not None:
            self._bus_count.carry()
        LIVE_CALLS.set(len(self._calls.board))
        DATABASE_UP.set(1 if await self._database_up() else 0)
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _database_up(self) -> bool:
        try:
            await self._db.ping()
        except Exception:
            return False
        return True
