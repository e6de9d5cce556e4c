"""Receipts on demand: made from the call and the journal whenever somebody asks, and signed."""

from __future__ import annotations

from typing import Any

import structlog

from models.billing.receipt import adds_up, ready, receipt_of
from models.billing.signing import Signer
from models.calls.call import Call, Role
from models.calls.store import CallStore
from models.ledger.store import LedgerStore

log = structlog.get_logger(__name__)

# Readings before it is believed that call and journal really differ: a refund may come in between.
TRIES_MAX = 5


class Receipts:
    """One per process."""

    def __init__(self, *, calls: CallStore, ledger: LedgerStore, signer: Signer) -> None:
        self._calls = calls
        self._ledger = ledger
        self.signer = signer

    async def of(self, call: Call, role: Role) -> dict[str, Any] | None:
        """One side's signed copy of a call's receipt; None while it lives or its money is not settled yet."""
        for _ in range(TRIES_MAX):
            if not ready(call):
                return None
            entries = await self._ledger.of_call(call.id) if call.charge is not None else []
            receipt = receipt_of(call, entries, role)
            if adds_up(receipt):
                return self.signer.signed(receipt)
            found = await self._calls.load(call.id)
            if found is None:
                return None
            call = found
        log.error("a call and its journal differ", call_id=call.id)
        return None
