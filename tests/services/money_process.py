"""A process that moves money and kills itself, really: with SIGKILL, before its n-th call to the database.

Forked by a fork server that has everything imported (``start``), since a fresh interpreter for each step would take
minutes. The services are those of a server, the gateway is the sandbox, and the time is the test's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from datetime import datetime
from typing import Any, cast

from handlers.services import Services
from models.db import Database
from models.sandbox.rules import Button
from models.wallet.rules import Amount
from server.clock import SystemIds
from server.config import load_config
from server.wiring import Edges, Wired, wire
from tests.fakes import FakeAlarms, FakeDoors, VirtualClock
from tests.services.callkit import Mortal

ENV = {
    "JWT_SECRET": "a secret of the tests, long enough for HS256",
    "BCRYPT_ROUNDS": "4",
    "WITHDRAWAL_FEE_MINOR": "50",
    "WITHDRAWAL_MINOR_MIN": "100",
    "EXPO_URL": "http://127.0.0.1:9/",
}
PIN, AMOUNT = "4071", 2_000
SECONDS_MAX = 60


class Doomed(Mortal):
    """Its process dies as processes die."""

    def breathe(self) -> None:
        self.calls += 1
        if self.calls == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


def wired(db: Database | Mortal, clock: VirtualClock, name: str) -> Wired:
    """All services of a process on this database."""
    edges = Edges(clock=clock, ids=SystemIds(), alarms=FakeAlarms(), doors=FakeDoors(), process=name)
    return wire(load_config(ENV), cast(Database, db), edges)


async def do(services: Services, verb: str, **ask: Any) -> None:
    """One verb of a person, a gateway or the jobs."""
    match verb:
        case "deposit":
            await services.payments.deposit(
                ask["user_id"],
                key=ask["key"],
                amount=Amount(minor=ask.get("minor", AMOUNT)),
                currency=None,
                gateway=None,
                into="primary",
            )
        case "pay":
            assert services.sandbox is not None
            await services.sandbox.press(ask["reference"], Button.PAID, seen=1)
        case "verify":
            await services.payments.verify(ask["user_id"], ask["reference"])
        case "withdraw":
            await services.payouts.withdraw(
                ask["user_id"],
                key=ask["key"],
                bank_account_id=ask["account_id"],
                amount=Amount(minor=AMOUNT),
                currency=None,
                pin=PIN,
            )
        case "jobs":
            assert services.sandbox is not None
            await services.sandbox.tell_due()
            await services.inbox.run()
            await services.payments.run_looks()
            await services.payments.looking.tell_missed()
            await services.payouts.work.run_due()
            await services.payouts.work.run_untold()
        case _:
            raise ValueError(verb)


def run(uri: str, database: str, now: datetime, dies_at: int, verb: str, ask: dict[str, Any]) -> None:
    """The process."""

    async def main() -> None:
        db = Database(uri, database)
        life = Doomed(db)
        all_ = wired(life, VirtualClock(now), f"doomed {dies_at}")
        life.calls, life.dies_at = 0, dies_at
        await do(all_.services, verb, **ask)
        await all_.close()
        await db.close()

    asyncio.run(main())


def start() -> Any:
    """The fork server."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["pytest", __name__])
    return server


async def killed(
    server: Any, uri: str, database: str, now: datetime, dies_at: int, verb: str, ask: dict[str, Any]
) -> bool:
    """Run it; whether it was killed. It dies of nothing else."""
    process = server.Process(target=run, args=(uri, database, now, dies_at, verb, ask))
    process.start()
    await asyncio.to_thread(process.join, SECONDS_MAX)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return bool(process.exitcode)
