"""What a payment is. A frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# The gateway that collects nothing: for development.
SANDBOX = "sandbox"


class Status(StrEnum):
    """Where a payment is; the contract's words."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVERSED = "reversed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Money from a gateway into one account of a wallet.

    ``reference`` is what gateway and client call it; ``into`` is ``primary`` or ``call_credits``; ``checkout_url`` is
    where it is paid, None when there is nothing left to do.
    """

    id: str
    reference: str
    user_id: str
    gateway: str
    amount_minor: int
    currency: str
    into: str
    status: Status
    checkout_url: str | None
    created_at: datetime
