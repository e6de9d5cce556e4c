"""``audit``: the whole database, read once at one instant, against all invariants. It changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from models.audit.calls import CALLS, judge
from models.audit.exchange import exchange
from models.audit.payments import judge as judge_payment
from models.audit.payouts import payouts
from models.audit.points import points
from models.audit.report import Findings, Report
from models.audit.rules import JOURNAL, WALLETS, Books
from models.audit.store import Snapshot, Torn, Unreadable, snapshot
from models.calls.call import Call
from models.db import Database
from models.ledger.journal import Entry, clearing
from models.payments.payment import WALLET
from models.payments.store import PAYMENTS

# What is read is told in steps of so many documents.
STEP = 500

# What is being read, how many documents of it have been, and how many there are, about.
Progress = Callable[[str, int, int], None]

T = TypeVar("T")


async def audit(db: Database, now: datetime, progress: Progress | None = None) -> Report:
    """Check all invariants (see ``models/audit/report.py``). A server may run meanwhile.

    ``now``: an end within the last minute need not be settled. Raises ``SnapshotTooOld`` when it takes longer than
    MongoDB keeps the instant that is read.
    """
    found = Findings()
    async with snapshot(db) as reading:
        counts = await reading.counts() if progress is not None else {}

        def read(what: str, collection: str) -> None:
            found.read[what] += 1
            if progress is not None and found.read[what] % STEP == 0:
                progress(what, found.read[what], counts[collection])

        books = Books(found)
        await _books(reading, books, found, read)
        async for one in reading.calls():
            read(CALLS, CALLS)
            if isinstance(one.call, Torn):
                found.broken("I9", CALLS, one.call_id, f"cannot be read: {one.call.fault}")
                continue
            _judge(one.call, one.call_id, one.entries, now, books, found)
        await exchange(reading, books, found, read)
        await points(reading, books, found, read)
        collected = await _payments(reading, books, found, read)
        collected.update(await payouts(reading, books, found, read))
        books.close(collected)
    return found.report()


async def _books(reading: Snapshot, books: Books, found: Findings, read: Callable[[str, str], None]) -> None:
    async for wallet in reading.wallets():
        read(WALLETS, WALLETS)
        if isinstance(wallet, Torn):
            found.broken("I2", WALLETS, wallet.id, f"cannot be read: {wallet.fault}")
        else:
            books.wallet(wallet)
    async for sealed in reading.journal():
        read(JOURNAL, JOURNAL)
        if isinstance(sealed, Torn):
            found.broken("I1", JOURNAL, sealed.id, f"cannot be read: {sealed.fault}")
            continue
        try:
            books.entry(sealed)
        except Unreadable as fault:
            found.broken("I1", JOURNAL, sealed.entry.id, f"cannot be read: {fault}")
    for key in sorted(books.behind):
        async for sealed in reading.links(key, books.version(key)):
            books.follow(key, sealed)


def _judge(
    call: Call | None, call_id: str, entries: tuple[Entry, ...], now: datetime, books: Books, found: Findings
) -> None:
    try:
        judge(call, call_id, entries, now, found)
        if call is not None and call.charge is not None:
            books.holds(call.charge.wallet, call.charge.held)
    except Unreadable as fault:
        found.broken("I9", CALLS, call_id, f"cannot be read: {fault}")


async def _payments(
    reading: Snapshot, books: Books, found: Findings, read: Callable[[str, str], None]
) -> Counter[tuple[str, str]]:
    """What was collected and not given back, by each gateway's clearing account and currency."""
    collected: Counter[tuple[str, str]] = Counter()
    belong = 0
    async for payment, entries in reading.payments():
        read(PAYMENTS, PAYMENTS)
        if isinstance(payment, Torn):
            found.broken("I11", PAYMENTS, payment.id, f"cannot be read: {payment.fault}")
            continue
        belong += len(entries)
        judge_payment(payment, entries, found)
        if payment.gateway != WALLET:
            net = payment.paid_minor - payment.reversed_minor
            collected[clearing(payment.gateway), payment.currency] += net
    if books.deposits != belong:
        for name in await reading.unpaid():
            found.broken("I11", JOURNAL, name, "moves money of no payment")
    return collected
