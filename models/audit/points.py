"""I16: somebody's points are what their calls, the refunds of these, and their redemptions say."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping

from models.audit.report import Findings
from models.audit.rules import JOURNAL, Books
from models.audit.store import Snapshot, Torn
from models.calls.call import Call
from models.ledger.journal import REWARDS, Entry, Kind
from models.rewards.rules import (
    Fact,
    FactKind,
    Tally,
    back_key,
    earned_key,
    points_of,
    redemption,
    settled,
)
from models.rewards.store import FACTS, TALLIES

Read = Callable[[str, str], None]


async def points(reading: Snapshot, books: Books, found: Findings, read: Read) -> None:
    """Every tally adds up, every fact has its call or entry, and every redemption in the journal its fact."""
    found.checked("I16")
    spent: Counter[str] = Counter()
    redeemed = 0
    sums = _Sums(found, reading.tallies())
    async for one in reading.facts():
        owner, fact, entry = one.user_id, one.fact, one.entry
        read(FACTS, FACTS)
        found.checked("I16")
        if isinstance(fact, Torn):
            found.broken("I16", FACTS, fact.id, f"cannot be read: {fact.fault}")
            continue
        await sums.add(owner, one.number, fact, read)
        if fact.kind is FactKind.REDEEMED:
            redeemed += entry is not None
            spent[fact.currency or "-"] += fact.amount_minor or 0
        said = _fault(owner, fact, one.call, entry)
        if said:
            found.broken("I16", FACTS, fact.key, said)
    await sums.close(read)
    if books.kinds[Kind.REWARD] != redeemed:
        for name in await reading.unredeemed():
            found.broken("I16", JOURNAL, name, "gives for points that nobody has redeemed")
    _compare(books.platform(REWARDS), spent, found)


def _compare(there: Mapping[str, int], spent: Mapping[str, int], found: Findings) -> None:
    for currency in sorted(there.keys() | spent.keys()):
        if there.get(currency, 0) != -spent.get(currency, 0):
            said = f"is at {there.get(currency, 0)} {currency}, redeemed were {spent.get(currency, 0)}"
            found.broken("I16", JOURNAL, REWARDS, said)


class _Sums:
    """Tallies and facts side by side, both in the order of their people."""

    def __init__(self, found: Findings, tallies: AsyncIterator[Tally | Torn]) -> None:
        self._found = found
        self._tallies = tallies
        self._tally: Tally | None = None
        self._points = self._count = 0

    async def add(self, owner: str, number: int, fact: Fact, read: Read) -> None:
        while self._tally is None or self._tally.user_id < owner:
            self._compare()
            self._tally = await self._next(read)
            if self._tally is None:
                self._tally = Tally(user_id=owner)
                self._found.broken("I16", FACTS, fact.key, "is of somebody without a tally")
        if self._tally.user_id != owner:
            self._found.broken("I16", FACTS, fact.key, "is of somebody without a tally")
            return
        self._points += fact.points
        self._count += 1
        if number != self._count:
            self._found.broken("I16", FACTS, fact.key, f"is number {number}, not {self._count}")
        if self._points < 0:
            self._found.broken("I16", FACTS, fact.key, f"leaves {self._points} points")

    async def close(self, read: Read) -> None:
        self._compare()
        while (tally := await self._next(read)) is not None:
            self._tally = tally
            self._compare()

    async def _next(self, read: Read) -> Tally | None:
        async for one in self._tallies:
            read(TALLIES, TALLIES)
            self._found.checked("I16")
            if isinstance(one, Torn):
                self._found.broken("I16", TALLIES, one.id, f"cannot be read: {one.fault}")
                continue
            return one
        return None

    def _compare(self) -> None:
        tally = self._tally
        if tally is not None and (tally.points, tally.count) != (self._points, self._count):
            said = f"says {tally.points} points by {tally.count} facts"
            said += f", the facts are {self._points} by {self._count}"
            self._found.broken("I16", TALLIES, tally.user_id, said)
        self._points = self._count = 0


def _fault(owner: str, fact: Fact, call: Call | None, entry: Entry | None) -> str | None:
    """What is wrong with a fact by itself."""
    if fact.kind is FactKind.EARNED:
        if call is None or not settled(call) or call.caller.user_id != owner:
            return "is of no settled call of theirs"
        points = points_of(call, fact.per_minute or 0, fact.point_minor)
        if (fact.key, fact.points) != (earned_key(call.id), points):
            return f"gives {fact.points}, the call {points}"
        return None
    if fact.kind is FactKind.TAKEN_BACK:
        if entry is None or entry.kind is not Kind.REFUND or entry.call_id != fact.call_id:
            return "takes back for a refund that was not made"
        if fact.key != back_key(entry.id) or not 0 <= -fact.points <= (fact.due or 0):
            return f"takes {-fact.points} back, of {fact.due} due"
        return None
    if entry is None:
        return "is redeemed for nothing in the journal"
    key = fact.key.removeprefix(f"rw:{owner}:")
    wanted = redemption(
        owner, key, amount_minor=fact.amount_minor or 0, currency=fact.currency or "", now=fact.at
    )
    if (entry.id, entry.kind, entry.legs) != (wanted.id, wanted.kind, wanted.legs):
        return f"is not what {entry.id} gives"
    return None
