"""What must hold afterwards, as the official client and the database see it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp

from models.calls.call import Price
from tests.chaos.phone import ChaosPhone, Stuck
from tests.chaos.story import Pair
from tests.chaos.town import Town
from tests.doors.serverprocess import eventually
from tests.services.billing_house import price_of

# Each of these is told once to each of the two, or not at all.
ONCE = {"CALL_REQUEST", "CALL_RINGING", "CALL_ACCEPT", "CALL_REJECT", "CALL_TIMEOUT", "CALL_ENDED"}
# Not replayed to whoever was away: signals of a negotiation that begins anew. A ring is, while it rings.
MOMENT = {"SESSION_DESCRIPTION", "ICE_CANDIDATE"}
# The charge goes up to when the server saw somebody last, which it knows to within its own beat.
SEEN_SECONDS = 1.5
SETTLED_SECONDS = 15.0


@dataclass(slots=True)
class Books:
    """What was found."""

    calls: int = 0
    hit: int = 0
    resumed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    events: int = 0
    lost: int = 0
    doubled: int = 0
    audit: int = -1
    violations: list[str] = field(default_factory=list)

    def wrong(self, said: str) -> None:
        self.violations.append(said)


async def read(town: Town, pairs: Sequence[Pair], money: int, *, beside: bool = True) -> Books:
    """Look everything through."""
    books = Books(violations=[said for pair in pairs for said in pair.violations])
    await _all_over(town, books)
    for phone in (phone for pair in pairs for phone in pair.both):
        await _heard_all(town, phone, books)
    for pair in pairs:
        _messages(pair, books)
    await _money(town, pairs, money, books)
    books.audit, said = await town.audit(beside=beside)
    if books.audit != 0:
        books.wrong(f"audit: {said[-2000:]}")
    return books


async def _all_over(town: Town, books: Books) -> None:
    """No call lives on that nobody talks in, nobody is busy, all money is where it belongs."""

    async def nothing_left() -> bool:
        return not await _left(town)

    try:
        await eventually(nothing_left, within=town.deadline_seconds + SETTLED_SECONDS)
    except AssertionError:
        for what, rows in (await _left(town)).items():
            books.wrong(f"{what} after the deadlines: {rows}")


async def _left(town: Town) -> dict[str, Any]:
    db = town.db.db
    found = {
        "live calls": await db["calls"].distinct("_id", {"state": {"$ne": "ended"}}),
        "locks": await db["call_locks"].distinct("_id"),
        "untold facts": await db["calls"].distinct("_id", {"untold": {"$exists": True}}),
        "unsettled calls": await db["calls"].distinct("_id", {"money_due_at": {"$type": "date"}}),
    }
    return {what: rows for what, rows in found.items() if rows}


async def _heard_all(town: Town, phone: ChaosPhone, books: Books) -> None:
    """The log in the database beside what the client was told of it, number by number."""
    query = {"user_id": phone.id, "seq": {"$gt": phone.first}}
    letters = [row async for row in town.db.db["letters"].find(query, sort=[("seq", 1)])]
    mine = {
        row["seq"]: row
        for row in letters
        if row.get("only_device") in (None, phone.device) and row.get("except_device") != phone.device
    }
    due = [seq for seq, row in mine.items() if row["event"] not in MOMENT | {"CALL_REQUEST"}]
    try:
        await phone.wait(lambda: phone.since >= max(due, default=0), "the end of its log", within=15)
    except Stuck as late:
        books.wrong(str(late))
    numbers = [one.number for one in phone.told]
    times = Counter(numbers)
    books.events += len(numbers)
    for seq, row in mine.items():
        if seq in times or row["event"] in MOMENT:
            continue
        if row["event"] == "CALL_REQUEST" and _rang_in_vain(phone, row.get("call_id")):
            continue
        books.lost += 1
        books.wrong(f"{phone.name} lost {row['event']} {seq} of call {row.get('call_id')}")
    for seq, often in times.items():
        if often > 1:
            books.doubled += often - 1
            books.wrong(f"{phone.name} was told {seq} {often} times")
        if seq not in mine:
            books.wrong(f"{phone.name} was told {seq}, which is not in its log")
    if numbers != sorted(numbers):
        books.wrong(f"{phone.name} was told out of order: {numbers}")
    facts = Counter((one.event, one.call_id) for one in phone.told if one.event in ONCE)
    for (event, call_id), often in facts.items():
        if often > 1:
            books.doubled += often - 1
            books.wrong(f"{phone.name} was told {event} of {call_id} under {often} numbers")


def _rang_in_vain(phone: ChaosPhone, call_id: str | None) -> bool:
    """A ring that was over, or taken by the phone's own answer to the greeting, before it could be told."""
    call = phone.calls.get(call_id or "")
    return call is None or (call["state"] == "ended" and call["acceptedAt"] is None)


def _messages(pair: Pair, books: Books) -> None:
    """Dense, in order, each once, and each that was acknowledged at the number of its acknowledgement."""
    seqs: list[int] = []
    for one, other in (pair.both, pair.both[::-1]):
        read = [seq for seq, _ in other.read]
        seqs += read
        if read != sorted(set(read)):
            books.wrong(f"{other.name} read messages {read}")
        texts = {text: seq for seq, text in other.read}
        for text, seq in one.written.items():
            if texts.get(text) != seq:
                books.wrong(f"{other.name} read {text!r} at {texts.get(text)}, written at {seq}")
    if sorted(seqs) != list(range(1, len(seqs) + 1)):
        books.wrong(f"pair {pair.number}: the conversation is not dense: {sorted(seqs)}")


async def _money(town: Town, pairs: Sequence[Pair], money: int, books: Books) -> None:
    """Every call costs what its intervals do, none of them longer than the call; and that is what is gone."""
    async with aiohttp.ClientSession() as http:
        gate = asyncio.Semaphore(8)

        async def get(phone: ChaosPhone, path: str) -> Any:
            head = {"Authorization": f"Bearer {phone.person.token}"}
            async with gate, http.get(town.servers[0].address + path, headers=head) as answer:
                return await answer.json()

        async def one(pair: Pair) -> None:
            cost = 0
            for call_id in pair.calls:
                call = (await get(pair.caller, f"/api/calls/{call_id}"))["call"]
                _charged(pair, call, books)
                cost += call["costMinor"] or 0
            wallet = (await get(pair.caller, "/api/wallet"))["wallet"]
            if (wallet["availableMinor"], wallet["heldMinor"]) != (money - cost, 0):
                books.wrong(f"pair {pair.number}: {wallet} after calls for {cost} of {money}")

        await asyncio.gather(*(one(pair) for pair in pairs))


def _charged(pair: Pair, call: dict[str, Any], books: Books) -> None:
    books.calls += 1
    reason = str(call["endReason"])
    if call["state"] != "ended":
        books.wrong(f"call {call['id']} is {call['state']}")
        return
    if call["id"] == pair.live_at_strike:
        books.hit += 1
        if reason == "completed":
            books.resumed += 1
        else:
            books.ended[reason] += 1
            if pair.talked_at_strike and not pair.leaves:
                books.wrong(f"call {call['id']} of two who came back at once ended {reason}")
    spans = [
        (datetime.fromisoformat(i["start"]), datetime.fromisoformat(i["end"])) for i in call["intervals"]
    ]
    tariff = Price(
        rate_per_minute_minor=call["price"]["ratePerMinuteMinor"],
        first_block_seconds=call["price"]["firstBlockSeconds"],
        block_seconds=call["price"]["blockSeconds"],
        connect_fee_minor=call["price"]["connectFeeMinor"],
        minimum_minor=call["price"]["minimumMinor"],
    )
    price = price_of(tariff, [round((end - start).total_seconds() * 1000) for start, end in spans])
    if call["costMinor"] != price:
        books.wrong(f"call {call['id']} costs {call['costMinor']}, its intervals {price}")
    over = datetime.fromisoformat(call["endedAt"])
    if spans and spans[-1][1] > over:
        books.wrong(f"call {call['id']} is charged beyond its end")
    if call["id"] == pair.left and pair.gone_at is not None and spans:
        after = spans[-1][1].timestamp() - pair.gone_at
        if after > SEEN_SECONDS:
            books.wrong(f"call {call['id']} ({reason}) is charged for {after:.1f} s after both were gone")
