"""What happens in the sandbox: pure rules. A payment or payout is a list of steps, some of which are still to come.

What a gateway says of it at some instant is the last step that has been by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from models.payments.gateway import Bank, PayoutState, PayState

# A payment by "late" arrives so much after the button: time to see the app wait.
LATE_SECONDS = 20
# A payout is with the bank for a moment, and one that comes back does so when the app has shown it as paid.
PAID_OUT_SECONDS = 2
RETURNED_SECONDS = 20
# What the operator types for a payout that waits for it.
PASSWORD = "123456"  # noqa: S105 - documented, and good for play money only

BANKS = (
    Bank(code="001", name="First Sandbox Bank"),
    Bank(code="002", name="Second Sandbox Bank"),
    Bank(code="003", name="Sandbox Savings & Loans"),
)
# What the last three digits of an account number do.
FAILS, ASKS, UNKNOWN, RETURNS = "001", "002", "003", "004"
_NAMES = ("Ada Sandbox", "Bea Sandbox", "Cyn Sandbox", "Dayo Sandbox", "Efe Sandbox")


class Button(StrEnum):
    """What the payer can do on the checkout page."""

    PAID = "paid"
    UNDERPAID = "underpaid"
    REST = "rest"
    OVERPAID = "overpaid"
    LATE = "late"
    FAILED = "failed"
    REVERSED = "reversed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From ``at`` on it stands so. The amounts are those of a payment, all in all."""

    at: datetime
    state: str
    paid_minor: int = 0
    reversed_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A payment or a payout of the sandbox. ``steps`` only grow, and their instants rise."""

    id: str
    reference: str
    amount_minor: int
    currency: str
    who: str
    about: str
    return_url: str
    account_number: str
    steps: tuple[Step, ...]

    def due(self, now: datetime) -> tuple[Step, ...]:
        """The steps that have been by ``now``."""
        return tuple(step for step in self.steps if step.at <= now)

    def at(self, now: datetime) -> Step:
        """How it stands at ``now``. The first step is that of its beginning."""
        return (self.due(now) or self.steps)[-1]

    def waits(self, now: datetime) -> bool:
        """Whether something is still to come by itself."""
        return self.steps[-1].at > now


def offered(payment: Thing, now: datetime) -> tuple[Button, ...]:
    """The buttons of the checkout page as it stands: nothing while money is on its way, nor after a reversal."""
    if payment.waits(now):
        return ()
    last = payment.steps[-1]
    if last.state == PayState.PENDING:
        some = (Button.UNDERPAID,) if payment.amount_minor > 1 else ()
        return (Button.PAID, *some, Button.OVERPAID, Button.LATE, Button.FAILED)
    if last.state == PayState.FAILED:
        return (Button.PAID, Button.LATE)
    if last.state == PayState.PAID:
        rest = (Button.REST,) if last.paid_minor < payment.amount_minor else ()
        return (*rest, Button.REVERSED)
    return ()


def amount_of(payment: Thing, button: Button) -> int:
    """What a button pays, in minor units."""
    if button is Button.UNDERPAID:
        return payment.amount_minor // 2
    if button is Button.OVERPAID:
        return payment.amount_minor + max(1, payment.amount_minor // 5)
    if button is Button.REST:
        return payment.amount_minor - payment.steps[-1].paid_minor
    return payment.amount_minor


def pressed(payment: Thing, button: Button, now: datetime) -> Step | None:
    """The step that a button adds; None when it is not offered (any more)."""
    if button not in offered(payment, now):
        return None
    last = payment.steps[-1]
    if button is Button.FAILED:
        return Step(at=now, state=PayState.FAILED)
    if button is Button.REVERSED:
        gone = last.paid_minor
        return Step(at=now, state=PayState.REVERSED, paid_minor=gone, reversed_minor=gone)
    at = now + timedelta(seconds=LATE_SECONDS if button is Button.LATE else 0)
    paid = last.paid_minor + amount_of(payment, button)
    return Step(at=at, state=PayState.PAID, paid_minor=paid)


def holder(account_number: str) -> str | None:
    """Who holds an account of the sandbox's banks: somebody, always the same for a number; None: there is none."""
    if not (account_number.isascii() and account_number.isdigit()) or account_number.endswith(UNKNOWN):
        return None
    return _NAMES[int(account_number) % len(_NAMES)]


def paying_out(account_number: str, now: datetime) -> tuple[Step, ...]:
    """The steps of a payout to an account, as its last digits say."""
    if account_number.endswith(ASKS):
        return (Step(at=now, state=PayoutState.OTP),)
    return (Step(at=now, state=PayoutState.PENDING), *going_through(account_number, now))


def going_through(account_number: str, now: datetime) -> tuple[Step, ...]:
    """The steps of a payout that the bank has taken."""
    at = now + timedelta(seconds=PAID_OUT_SECONDS)
    if account_number.endswith((FAILS, UNKNOWN)):
        return (Step(at=at, state=PayoutState.FAILED),)
    paid = Step(at=at, state=PayoutState.PAID)
    if account_number.endswith(RETURNS):
        return (paid, Step(at=now + timedelta(seconds=RETURNED_SECONDS), state=PayoutState.REVERSED))
    return (paid,)


def next_telling(steps: Sequence[Step], after: datetime) -> datetime | None:
    """When there is something to be told next: the first step after ``after``."""
    return next((step.at for step in steps if step.at > after), None)
