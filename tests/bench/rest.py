"""A server as ``make run`` starts it, its embedded database with it: how soon it is there, and how large."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from server.processes import number_in
from tests.bench.machine import Cores, Server, cpu_seconds, memory_mb
from tests.bench.plan import Plan, Told


async def measure(folder: Path, plan: Plan, told: Told) -> dict[str, Any]:
    """Seconds of the first start (an empty folder) and of later ones, then memory and CPU with nobody there."""
    anywhere = Cores()
    anywhere.server = None
    starts = []
    for number in range(plan.starts):
        server = Server(anywhere, folder, {})
        starts.append(await server.start())
        told((number + 1) / (plan.starts + 1))
        if number < plan.starts - 1:
            await server.stop()
    try:
        before = cpu_seconds(server.pid)
        await asyncio.sleep(plan.idle_seconds)
        mongod = number_in(folder / "data" / "db" / "mongod.lock") or 0
        return {
            "first_start_s": starts[0],
            "later_start_s": min(starts[1:], default=starts[0]),
            "server_mb": memory_mb(server.pid),
            "mongod_mb": memory_mb(mongod),
            "idle_cpu_share": (cpu_seconds(server.pid) - before) / plan.idle_seconds,
        }
    finally:
        await server.stop()
