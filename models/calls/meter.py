"""Where a call meets money: what the verbs of a call ask of whoever charges.

In the terms of RFC 8506: ``opening`` is the INITIAL_REQUEST (reserve before service), ``renewing`` the UPDATE_REQUEST
(report use, reserve more, well ahead), ``covering`` an update because the tariff changes, ``close`` the
TERMINATION_REQUEST (deduct what was used, give the rest back).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from models.also import Also
from models.calls.call import Call, Charge, Party, Price


@dataclass(slots=True)
class Cover:
    """What the meter proposes: the call's money after it, and the postings that make it so.

    ``post`` belongs into the transaction that writes the call with ``charge`` (None: nothing to post). Whoever wrote
    it sets ``written``; at the end of the context the wallets' owners are told then.
    """

    charge: Charge | None
    post: Also | None = None
    written: bool = False


@dataclass(slots=True)
class Covers:
    """What the meter proposes for several calls, as a ``Cover`` does for one.

    ``charges`` has, by call, those of which something changes. All of them are written in one transaction, or none.
    """

    charges: dict[str, Charge]
    post: Also | None = None
    written: bool = False


class AlreadyRefunded(Exception):
    """A refund with this key has been made before, of ``amount_minor``."""

    def __init__(self, amount_minor: int) -> None:
        super().__init__(amount_minor)
        self.amount_minor = amount_minor


class Meter(Protocol):
    """The context managers keep the payer's wallet in its turn: write the call inside of them, tell outside."""

    def quote(self, *, callee: Party, call_type: str, follows: bool = False) -> Price:
        """The tariff for calling somebody; ``follows`` for the later part of a call that is upgraded."""
        ...

    def opening(self, call: Call) -> AbstractAsyncContextManager[Cover]:
        """Reserve before any ring.

        Refuses with ``INSUFFICIENT_FUNDS``, ``WALLET_FROZEN``, and with ``CURRENCY_MISMATCH`` who has wallets in other
        currencies only.
        """
        ...

    async def afford(self, call: Call, now: datetime) -> None:
        """Refuse as ``covering`` would; nothing is reserved."""
        ...

    def busy(self, call: Call) -> bool:
        """Whether the payer's wallet is in somebody's turn in this process: ``renewing`` would wait for it."""
        ...

    def renewing(
        self, calls: Sequence[Call], now: datetime, *, early: bool = False
    ) -> AbstractAsyncContextManager[Covers]:
        """Capture what was used, reserve more if there is more, for calls each of which has a payer of its own.

        ``early``: also if its time comes only soon. Raises ``Stale`` when a wallet is not what a call says of it,
        or not what this process knew of it: again then, and it is read.
        """
        ...

    def covering(self, call: Call, now: datetime) -> AbstractAsyncContextManager[Cover]:
        """Reserve for a call that goes on at another price. Refuses as ``opening``."""
        ...

    def refunding(
        self, call: Call, amount_minor: int, *, key: str, note: str | None, now: datetime
    ) -> AbstractAsyncContextManager[Cover]:
        """Give back of what a settled call cost. Refuses with ``REFUND_TOO_LARGE``; raises ``AlreadyRefunded``."""
        ...

    async def close(self, call: Call) -> None:
        """Settle an ended call. Called at least once, also after a crash; repeating it changes nothing."""
        ...

    async def clear(self, call: Call) -> None:
        """Let the payee spend what a settled call has earned. Repeating it changes nothing."""
        ...
