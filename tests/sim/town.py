"""The processes and the town of a history: the tests' own, with wallets and with drivers that fail."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from models.billing.meter import WalletMeter
from models.db import Database
from models.payments.store import PaymentStore
from models.users.service import Users
from models.users.store import USERS, UserStore
from models.wallet.service import Wallets
from models.wallet.store import WalletStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Process, Town
from tests.sim.faults import Driver, Faults


class CheapHasher:
    """PINs hashed at no cost."""

    async def hash(self, password: str) -> str:
        return hashlib.sha256(password.encode()).hexdigest()

    async def verify(self, password: str, kept: str | None) -> bool:
        return await self.hash(password) == kept

    def outdated(self, kept: str) -> bool:
        return False


class SimProcess(Process):
    """A process with wallets, whose driver fails when the dice say so."""

    def __init__(self, town: SimTown, name: str) -> None:
        driver: Any = Driver(town.real, town.faults, town.touched)
        town.db = driver
        super().__init__(town, name)
        town.db = town.real
        self.driver: Driver = driver
        if town.meter is not None:
            self.meter.__class__ = town.meter
        nobody: Any = None
        self.payments = PaymentStore(driver)
        self.wallets = Wallets(
            ledger=self.ledger,
            store=WalletStore(driver),
            users=Users(store=UserStore(driver), clock=town.clock),
            hasher=CheapHasher(),
            passwords=nobody,
            clock=town.clock,
            currency="NGN",
            pepper=b"sim",
        )

    @property
    def dead(self) -> bool:
        """Whether it has crashed."""
        return self.driver.dead

    def due(self, now: datetime) -> bool:
        """Whether a timer in this process's own memory fires."""
        if any(at <= now for at in self.alarms.armed.values()):
            return True
        return any(call.renew_at is not None and call.renew_at <= now for call in self.calls.board.calls())


class SimTown(Town):
    """What the processes of a history share."""

    def __init__(self, db: Database, faults: Faults, meter: type[WalletMeter] | None) -> None:
        super().__init__(db, VirtualClock(), CountingIds())
        self.real, self.faults, self.meter = db, faults, meter
        self.touched: set[str] = {USERS}
