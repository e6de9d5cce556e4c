"""Withdrawals and the journal entries under their names: what is held, and what has gone out or come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from models.audit.report import Findings
from models.audit.rules import JOURNAL, Books
from models.audit.store import Snapshot, Torn
from models.calls.call import Purse
from models.ledger.journal import Entry, clearing
from models.payouts import rules
from models.payouts.payout import Payout, Stage
from models.payouts.store import PAYOUTS


async def payouts(
    reading: Snapshot, books: Books, found: Findings, read: Callable[[str, str], None]
) -> Counter[tuple[str, str]]:
    """Check all withdrawals; what was paid out by each gateway's clearing account and currency, negative.

    The journal was read before.
    """
    collected: Counter[tuple[str, str]] = Counter()
    belong = 0
    async for payout, entries in reading.payouts():
        read(PAYOUTS, PAYOUTS)
        if isinstance(payout, Torn):
            found.broken("I15", PAYOUTS, payout.id, f"cannot be read: {payout.fault}")
            continue
        belong += judge(payout, entries, found)
        if payout.stage is Stage.PAID:
            collected[clearing(payout.gateway), payout.currency] -= payout.amount_minor
        if payout.open:
            books.holds(payout.wallet, Purse(0, payout.held_minor))
    if sum(books.kinds[kind] for kind in rules.KINDS) != belong:
        for name in await reading.unasked():
            found.broken("I15", JOURNAL, name, "belongs to a withdrawal that does not exist")
    return collected


def judge(payout: Payout, entries: Mapping[str, Entry], found: Findings) -> int:
    """Check a withdrawal against those of its entries that there are, by name; how many belong to it."""
    found.checked("I15")
    belong = 0
    for kind in rules.KINDS:
        name = rules.entry_id(payout.id, kind)
        entry, wanted = entries.get(name), kind in rules.POSTED[payout.stage]
        belong += entry is not None
        if entry is None and wanted:
            found.broken(
                "I15", PAYOUTS, payout.id, f"is {payout.stage.value}, and {name} is not in the journal"
            )
        elif entry is not None and not wanted:
            found.broken("I15", PAYOUTS, payout.id, f"is {payout.stage.value}, and {name} is in the journal")
        elif entry is not None and _moves(entry) != {
            leg.account: (leg.amount_minor, leg.currency) for leg in rules.legs(payout, kind)
        }:
            said = (
                f"of {payout.amount_minor} {payout.currency} and {payout.fee_minor} is not what {name} moves"
            )
            found.broken("I15", PAYOUTS, payout.id, said)
    return belong


def _moves(entry: Entry) -> dict[str, tuple[int, str]]:
    return {leg.account: (leg.amount_minor, leg.currency) for leg in entry.legs}
