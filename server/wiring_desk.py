"""The administrators' desk put together: the verbs, and the trail that they leave."""

from __future__ import annotations

from models.auth.service import Accounts
from models.auth.stewards import Stewards
from models.calls.service import Calls
from models.db import Database
from models.desk.admins import AdminDesk
from models.desk.calls import CallDesk
from models.desk.money import MoneyDesk
from models.desk.payouts import PayoutDesk
from models.desk.service import Desk
from models.desk.store import DeskStore
from models.figures.service import Figures
from models.figures.store import FigureStore
from models.ledger.service import Ledger
from models.payments.refunds.service import Refunds
from models.payouts.service import Payouts
from models.ports import Clock, Ids
from models.reports.service import EvidenceOf, Reports
from models.reports.store import ReportStore
from models.trail.service import Trail
from models.trail.store import TrailStore
from models.users.service import Users
from models.users.store import UserStore


def wire_trail(db: Database, clock: Clock) -> Trail:
    """The trail of one process."""
    return Trail(store=TrailStore(db), clock=clock)


def wire_stewards(db: Database, *, accounts: Accounts, trail: Trail, clock: Clock, ids: Ids) -> Stewards:
    """The verbs about people, with what goes when their sign-ins end."""
    return Stewards(
        store=accounts.store,
        people=UserStore(db),
        factors=accounts.factors.store,
        trail=trail,
        clock=clock,
        ids=ids,
    )


def wire_reports(
    db: Database,
    stewards: Stewards,
    trail: Trail,
    *,
    users: Users,
    evidence: EvidenceOf,
    clock: Clock,
    ids: Ids,
) -> Reports:
    """What people report, and what comes of it."""
    return Reports(
        store=ReportStore(db),
        users=users,
        evidence=evidence,
        stewards=stewards,
        trail=trail,
        clock=clock,
        ids=ids,
    )


def wire_desk(
    db: Database,
    people: Stewards,
    trail: Trail,
    *,
    accounts: Accounts,
    ledger: Ledger,
    calls: Calls,
    refunds: Refunds,
    payouts: Payouts,
    clock: Clock,
) -> Desk:
    """All of them, once per process."""
    return Desk(
        admins=AdminDesk(people=people, newcomers=accounts.newcomers, trail=trail),
        people=people,
        money=MoneyDesk(people=people, ledger=ledger, calls=calls, refunds=refunds, trail=trail),
        calls=CallDesk(store=DeskStore(db), calls=calls, trail=trail, clock=clock),
        payouts=PayoutDesk(payouts=payouts, trail=trail),
        figures=Figures(store=FigureStore(db), clock=clock),
    )
