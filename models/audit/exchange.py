"""I14: what the exchange pool has taken in and given out is what the used quotes say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from models.audit.report import Findings
from models.audit.rules import JOURNAL, Books
from models.audit.store import Snapshot, Torn
from models.fx.rules import conversion, entry_id
from models.fx.store import QUOTES
from models.ledger.journal import EXCHANGE_POOL, EXCHANGE_SPREAD, Kind


async def exchange(
    reading: Snapshot, books: Books, found: Findings, read: Callable[[str, str], None]
) -> None:
    """Every used quote has its entry, every entry its quote, and nothing else has moved the pool or the spread."""
    sums: Counter[tuple[str, str]] = Counter()
    posted = 0
    found.checked("I14")
    async for quote, entry in reading.used_quotes():
        read(QUOTES, QUOTES)
        found.checked("I14")
        if isinstance(quote, Torn):
            found.broken("I14", QUOTES, quote.id, f"cannot be read: {quote.fault}")
            continue
        posted += entry is not None
        assert quote.used_at is not None, "that is what was asked for"
        wanted = conversion(quote, quote.used_at)
        for leg in wanted.legs:
            if leg.account in (EXCHANGE_POOL, EXCHANGE_SPREAD):
                sums[leg.account, leg.currency] += leg.amount_minor
        if entry is None:
            said = f"is used, and {entry_id(quote.id)} is not in the journal"
            found.broken("I14", QUOTES, quote.id, said)
        elif (entry.kind, entry.legs) != (wanted.kind, wanted.legs):
            found.broken("I14", QUOTES, quote.id, f"is not what {entry.id} converts")
    if books.kinds[Kind.EXCHANGE] != posted:
        for name in await reading.unquoted():
            found.broken("I14", JOURNAL, name, "converts by no used quote")
    for account in (EXCHANGE_POOL, EXCHANGE_SPREAD):
        there = books.platform(account)
        for currency in sorted(there.keys() | {name for place, name in sums if place == account}):
            found.checked("I14")
            balance, wanted_sum = there.get(currency, 0), sums[account, currency]
            if balance != wanted_sum:
                said = f"is at {balance} {currency}, used quotes are {wanted_sum}"
                found.broken("I14", JOURNAL, account, said)
