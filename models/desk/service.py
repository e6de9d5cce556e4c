"""The administrators' desk: people, money, calls, withdrawals and reports, for the pages and the command line.

Every verb that changes something is given who does it (``by``) and why (``reason``), and its row of the trail is
written in the transaction of the change itself: there is no act without its row, and no row without its act.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.auth.stewards import Stewards
from models.desk.admins import AdminDesk
from models.desk.calls import CallDesk
from models.desk.money import MoneyDesk
from models.desk.payouts import PayoutDesk
from models.figures.service import Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One per process."""

    admins: AdminDesk
    people: Stewards
    money: MoneyDesk
    calls: CallDesk
    payouts: PayoutDesk
    figures: Figures
