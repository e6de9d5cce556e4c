"""What is to be pushed about a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class What(StrEnum):
    """What the callee's devices are to be told. A ring becomes one of the others when it is over, never back."""

    RING = "ring"
    MISSED = "missed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """The to-do of one call, held by the worker that ``lease`` names.

    ``attempts`` counts this one. ``told`` are the devices that need no further try for this ``what``, each with the
    note that it got; ``refused`` are tokens that will not take theirs. ``rung`` says that a ring was sent, or may
    have been: only then is there something to cancel. ``answered_on`` is the device that took the call, which is told
    nothing.
    """

    call_id: str
    what: What
    call_type: str
    caller: Mapping[str, Any]
    callee_id: str
    started_at: datetime
    rings_until: datetime
    give_up_at: datetime
    attempts: int
    told: frozenset[str]
    refused: frozenset[str]
    rung: bool
    lease: str
    answered_on: str | None = None
