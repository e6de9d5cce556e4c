"""A service of rates on loopback: JSON tables as the usual ones give them, and all that can be wrong with one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

RATES = {"USD": 1, "NGN": 1600.5, "EUR": 0.92, "JPY": 150, "KWD": 0.307, "XAU": 0.0004, "ZZZ": 3, "FOK": 6.9}


@dataclass
class StandIn:
    """``says`` is merged into the table; ``status`` and ``body`` replace the answer; ``hangs`` never answers."""

    url: str = ""
    says: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=lambda: dict(RATES))
    status: int = 200
    body: bytes | None = None
    hangs: bool = False
    asked: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """``GET /latest/{base}``."""
        self.asked.append(request.match_info["base"])
        if self.hangs:
            await asyncio.Event().wait()
        if self.status in (301, 302):
            return web.Response(status=self.status, headers={"Location": "/latest/EUR"})
        if self.body is not None:
            return web.Response(status=self.status, body=self.body, content_type="application/json")
        table = {"base": request.match_info["base"], "rates": self.rates, **self.says}
        said = {name: value for name, value in table.items() if value is not None}
        return web.Response(
            status=self.status, body=json.dumps(said).encode(), content_type="application/json"
        )


@asynccontextmanager
async def rates_service() -> AsyncIterator[StandIn]:
    """The service at a free port."""
    stand_in = StandIn()
    app = web.Application()
    app.router.add_get("/latest/{base}", stand_in.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}/latest/{{base}}"
    try:
        yield stand_in
    finally:
        await runner.cleanup()
