"""Money in and out put together: the gateways that the configuration names, and the services over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.db import Database
from models.payments.gateway import Gateway
from models.payments.service import Payments
from models.ports import Clock
from server.adapters.gateways import gateways as gateways_of
from server.adapters.gateways.sandbox import NAME as SANDBOX
from server.adapters.gateways.sandbox import SandboxGateway
from server.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredMoney:
    """A process's money services, and what has to be closed with it."""

    gateways: Mapping[str, Gateway]
    payments: Payments

    @property
    def sandbox(self) -> SandboxGateway | None:
        """The sandbox, where there is one."""
        found = self.gateways.get(SANDBOX)
        return found if isinstance(found, SandboxGateway) else None

    async def close(self) -> None:
        """Close the connections."""
        for gateway in self.gateways.values():
            await gateway.close()


def wire_money(config: Config, db: Database, *, clock: Clock) -> WiredMoney:
    """Make it, once per process."""
    gateways = gateways_of(config, clock, db)
    return WiredMoney(
        gateways=gateways, payments=Payments(gateways=gateways, default=default_of(config, gateways))
    )


def default_of(config: Config, gateways: Mapping[str, Gateway]) -> str | None:
    """The gateway of who names none: the configured one, else the first; None where there is none."""
    chosen = config.money.gateway
    return chosen if chosen in gateways else next(iter(gateways), None)
