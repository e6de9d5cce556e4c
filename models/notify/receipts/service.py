"""Asking the providers what became of the pushes that they took, some time later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from models.notify.ports import Outcome, ReceiptSource, Sent, Tokens
from models.notify.receipts.store import CHECK_AFTER, Receipt, ReceiptStore
from models.notify.rules import LEASE_SECONDS
from models.ports import Clock, Ids

# Expo answers for so many ids at a time.
RECEIPTS_MAX = 1000
# A device that got too many notifications is left alone with messages for so long; calls still ring there.
QUIET = timedelta(minutes=5)
TOO_MANY = "MessageRateExceeded"


class Receipts:
    """One per process. ``sources`` by kind of token; ``count`` hears of every receipt with its kind."""

    def __init__(
        self,
        *,
        store: ReceiptStore,
        tokens: Tokens,
        sources: Mapping[str, ReceiptSource],
        clock: Clock,
        ids: Ids,
        count: Callable[[str, Outcome], None],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._sources = sources
        self._clock = clock
        self._ids = ids
        self._count = count

    async def run_due(self) -> int:
        """Ask for what should be there; how many were known. Any number of processes may do this at once.

        What is not there yet is asked for again after the same time, until the provider forgets it.
        """
        return sum([await self._of(kind, source) for kind, source in self._sources.items()])

    async def _of(self, kind: str, source: ReceiptSource) -> int:
        worked = 0
        while True:
            now, lease = self._clock.now(), self._ids.new()
            until = now + timedelta(seconds=LEASE_SECONDS)
            share = await self._store.claim(now, kind=kind, lease=lease, lease_until=until, most=RECEIPTS_MAX)
            if not share:
                return worked
            found = await source.receipts([receipt.id for receipt in share])
            await self._heed(share, found, now)
            await self._store.settle(
                lease, known=list(found), again_at=self._clock.now() + CHECK_AFTER, now=self._clock.now()
            )
            worked += len(found)

    async def _heed(self, share: Sequence[Receipt], found: Mapping[str, Outcome], now: datetime) -> None:
        pairs = [(receipt, found[receipt.id]) for receipt in share if receipt.id in found]
        for receipt, said in pairs:
            self._count(receipt.kind, said)
        # As of the push: a token that its device has shown anew since then is not the one that failed.
        dead: dict[str, datetime] = {}
        for receipt, said in pairs:
            if said.sent is Sent.GONE:
                since = said.gone_since or receipt.sent_at
                dead[receipt.token] = max(since, dead.get(receipt.token, since))
        if dead:
            await self._tokens.dead(dead)
        loud = {receipt.token for receipt, said in pairs if said.reason == TOO_MANY}
        await self._store.hush(loud, now + QUIET)
