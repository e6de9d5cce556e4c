"""Money in and out put together: the gateways that the configuration names, and the services over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handlers.payments import PaymentTeller
from models.db import Database
from models.ledger.service import Ledger
from models.mailbox.service import Mailbox
from models.payments.gateway import About, Gateway
from models.payments.inbox.service import Inbox
from models.payments.inbox.store import InboxStore
from models.payments.looking import Looking
from models.payments.refunds.service import Refunds
from models.payments.refunds.store import RefundStore
from models.payments.service import Payments
from models.payments.store import PaymentStore
from models.ports import Clock, Ids
from models.users.service import Users
from models.wallet.service import Wallets
from server.adapters.gateways import gateways as gateways_of
from server.adapters.gateways.sandbox import NAME as SANDBOX
from server.adapters.gateways.sandbox import SandboxGateway
from server.backlogs import Queue
from server.config import Config
from server.metrics import count_money


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredMoney:
    """A process's money services, and what has to be closed with it."""

    gateways: Mapping[str, Gateway]
    payments: Payments
    refunds: Refunds
    inbox: Inbox

    @property
    def sandbox(self) -> SandboxGateway | None:
        """The sandbox, where there is one."""
        found = self.gateways.get(SANDBOX)
        return found if isinstance(found, SandboxGateway) else None

    @property
    def queues(self) -> Mapping[str, Queue]:
        """What waits in the database to be worked off, by name."""
        return {
            "webhooks": self.inbox.store,
            "payments": self.payments.store,
            "refunds": self.refunds.store,
        }

    async def close(self) -> None:
        """Close the connections."""
        for gateway in self.gateways.values():
            await gateway.close()


def wire_money(
    config: Config,
    db: Database,
    *,
    ledger: Ledger,
    wallets: Wallets,
    users: Users,
    mailbox: Mailbox,
    clock: Clock,
    ids: Ids,
) -> WiredMoney:
    """Make it, once per process."""
    gateways = gateways_of(config, clock, db)
    looking = Looking(
        gateways=gateways, store=PaymentStore(db), ledger=ledger, clock=clock, count=count_money
    )
    looking.announcers.append(PaymentTeller(mailbox))

    def address() -> str:
        """Where browsers reach this server; the sandbox knows where it listens."""
        sandbox = gateways.get(SANDBOX)
        here = sandbox.address if isinstance(sandbox, SandboxGateway) else f"http://127.0.0.1:{config.port}"
        return config.money.public_url or here

    payments = Payments(
        looking=looking,
        gateways=gateways,
        default=default_of(config, gateways),
        ledger=ledger,
        wallets=wallets,
        users=users,
        clock=clock,
        ids=ids,
        return_url=lambda reference: f"{address()}/?payment={reference}",
        count=count_money,
    )
    refunds = Refunds(
        looking=looking,
        gateways=gateways,
        store=RefundStore(db),
        ledger=ledger,
        clock=clock,
        ids=ids,
        count=count_money,
    )
    inbox = Inbox(gateways=gateways, store=InboxStore(db), clock=clock, count=count_money)
    inbox.hears[About.PAYMENT] = payments.heard
    inbox.hears[About.REFUND] = refunds.heard
    money = WiredMoney(gateways=gateways, payments=payments, refunds=refunds, inbox=inbox)
    if money.sandbox is not None:

        async def hear(raw: bytes, headers: Mapping[str, str]) -> None:
            await inbox.take(SANDBOX, raw, headers)
            await inbox.run()  # whoever has pressed a button of its page looks at the balance

        money.sandbox.hear = hear
    return money


def default_of(config: Config, gateways: Mapping[str, Gateway]) -> str | None:
    """The gateway of who names none: the configured one, else the first; None where there is none."""
    chosen = config.money.gateway
    return chosen if chosen in gateways else next(iter(gateways), None)
