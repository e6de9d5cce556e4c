"""Money out put together: withdrawals, bank accounts and cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from handlers.payouts import PayoutTeller
from models.auth.store import Belongings
from models.backlog.store import Overdue
from models.db import Database, Session
from models.ledger.service import Ledger
from models.mailbox.service import Mailbox
from models.notices.notice import Fact, What
from models.notices.service import Notices
from models.payments.gateway import About, Gateway
from models.payments.inbox.service import Inbox
from models.payouts.accounts.service import BankAccounts
from models.payouts.accounts.store import BankAccountStore, SavedAccount
from models.payouts.cards.service import Cards, PaidWith
from models.payouts.cards.store import CardStore
from models.payouts.service import Limits, Payouts
from models.payouts.store import PayoutStore
from models.ports import Clock, Ids
from models.wallet.pins import Pins
from server.backlogs import Queue, Read
from server.config import Config
from server.metrics import count_money


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredPayouts:
    """These services of a process."""

    payouts: Payouts
    accounts: BankAccounts
    cards: Cards

    @property
    def queues(self) -> Mapping[str, Queue]:
        """What waits in the database, by name: for the job, and for a person."""
        store = self.payouts.store
        return {
            "payouts": store,
            "payouts_review": _Waiting(store.reviewed),
            "payouts_approval": _Waiting(store.unapproved),
        }


class _Waiting:
    """A queue by how it is read."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        return await self._read(now)


def belongings_of_payouts(db: Database) -> list[Belongings]:
    """What goes with an account that is deleted. Withdrawals stay, as the ledger does."""
    return [BankAccountStore(db), CardStore(db)]


def wire_payouts(
    config: Config,
    db: Database,
    *,
    gateways: Mapping[str, Gateway],
    inbox: Inbox,
    payments: PaidWith,
    ledger: Ledger,
    pins: Pins,
    mailbox: Mailbox,
    notices: Notices,
    clock: Clock,
    ids: Ids,
) -> WiredPayouts:
    """Make it, once per process."""
    money = config.money
    store = BankAccountStore(db)
    store.beside = _Told(notices)
    accounts = BankAccounts(store=store, gateways=gateways, preferred=money.gateway, clock=clock, ids=ids)
    payouts = Payouts(
        store=PayoutStore(db),
        ledger=ledger,
        pins=pins,
        accounts=accounts,
        gateways=gateways,
        limits=Limits(
            currency=config.currency,
            least_minor=money.withdrawal_minor_min,
            daily_minor_max=money.withdrawal_daily_minor_max,
            fee_minor=money.withdrawal_fee_minor,
            approval_minor=money.withdrawal_approval_minor,
            cool_off=timedelta(seconds=money.withdrawal_cool_off_seconds),
        ),
        clock=clock,
        ids=ids,
        count=count_money,
    )
    inbox.hears[About.PAYOUT] = payouts.work.heard
    payouts.work.announcers.append(PayoutTeller(mailbox))
    cards = Cards(store=CardStore(db), payments=payments, clock=clock, ids=ids)
    return WiredPayouts(payouts=payouts, accounts=accounts, cards=cards)


class _Told:
    """A new bank account is told to its owner, who may not be the one that has added it."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    async def __call__(self, account: SavedAccount, session: Session) -> None:
        fact = Fact(
            id=f"bank:{account.id}",
            user_id=account.user_id,
            what=What.BANK_ACCOUNT_ADDED,
            at=account.created_at,
            detail=account.last4,
        )
        await self._notices.put(session, fact)
