"""What a withdrawal is: a frozen value, and where it can be.

``(approval →) waiting → submitting → pending ⇄ otp → paid → reversed``, and from everywhere before ``paid`` to
``failed``. A large one begins in ``approval``: nothing happens to it until an administrator has decided.

``submitting`` is written down before the gateway is asked, and nobody submits a payout that is in it: whoever finds it
so (an answer that was lost, a process that died) asks the gateway by the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.ledger.journal import wallet_key
from models.payments.gateway import BankAccount


class Stage(StrEnum):
    """Where a payout is. ``WAITING``: nothing has been asked of the gateway, or certainly nothing was done."""

    APPROVAL = "approval"
    WAITING = "waiting"
    SUBMITTING = "submitting"
    PENDING = "pending"
    OTP = "otp"
    PAID = "paid"
    FAILED = "failed"
    REVERSED = "reversed"


class Status(StrEnum):
    """What its owner is told."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    REVERSED = "reversed"


STATUS = {
    Stage.APPROVAL: Status.PENDING,
    Stage.WAITING: Status.PENDING,
    Stage.SUBMITTING: Status.PROCESSING,
    Stage.PENDING: Status.PROCESSING,
    Stage.OTP: Status.PROCESSING,
    Stage.PAID: Status.COMPLETED,
    Stage.FAILED: Status.FAILED,
    Stage.REVERSED: Status.REVERSED,
}
# The money is held in the wallet.
OPEN = frozenset({Stage.APPROVAL, Stage.WAITING, Stage.SUBMITTING, Stage.PENDING, Stage.OTP})


class Reason(StrEnum):
    """Why a payout has failed, for its owner."""

    REFUSED = "refused"  # the gateway did not take it
    FAILED = "failed"  # the gateway took it, and the bank did not
    UNAVAILABLE = "unavailable"  # the gateway could not be asked for a day
    CANCELLED = "cancelled"  # by the operator
    REJECTED = "rejected"  # it needed approval, and has not got it


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the money goes, as it was when it was asked for: the account in the owner's list may be gone since."""

    account_id: str
    bank_code: str
    bank_name: str
    account_number: str
    account_name: str

    @property
    def last4(self) -> str:
        """What is shown of the number."""
        return self.account_number[-4:]

    def for_gateway(self) -> BankAccount:
        """As a gateway is asked."""
        return BankAccount(
            bank_code=self.bank_code,
            account_number=self.account_number,
            account_name=self.account_name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout:
    """A withdrawal, in minor units, at one version.

    ``fee_minor`` is held and taken on top of ``amount_minor``. ``key`` is the idempotency key of who asked.
    ``submissions`` counts the times that it was written down to be submitted. ``heard``: the gateway may know of an
    earlier submission, so it is asked before another one. ``looks`` counts the looks since the stage was entered, and
    ``unknown`` the answers in a row that the gateway does not know the reference.
    ``look_at`` is when somebody is to do something about it next; a worker who has taken it pushes it on.
    ``give_up_at``: nothing having been done until then, it fails. ``review`` says what a person has to look into.
    ``word`` is the gateway's own, for the operator.
    """

    id: str
    reference: str
    key: str
    user_id: str
    gateway: str
    amount_minor: int
    fee_minor: int
    currency: str
    to: Destination
    stage: Stage
    stage_at: datetime
    created_at: datetime
    give_up_at: datetime
    look_at: datetime | None
    tell_at: datetime | None = None
    version: int = 0
    submissions: int = 0
    heard: bool = False
    looks: int = 0
    unknown: int = 0
    gateway_reference: str | None = None
    gateway_fee_minor: int | None = None
    reason: Reason | None = None
    review: str | None = None
    word: str = ""

    @property
    def status(self) -> Status:
        """What its owner is told."""
        return STATUS[self.stage]

    @property
    def open(self) -> bool:
        """Whether its money is held."""
        return self.stage in OPEN

    @property
    def held_minor(self) -> int:
        """What it takes from the wallet: the amount and the fee."""
        return self.amount_minor + self.fee_minor

    @property
    def wallet(self) -> str:
        """The key of the wallet that it is taken from."""
        return wallet_key(self.user_id, self.currency)
