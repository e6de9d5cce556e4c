"""One fault from beginning to end: people, load, fault, and the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.clock import Tasks
from tests.bench.people import open_wallets, pay_in, register
from tests.chaos import books as bookkeeping
from tests.chaos.faults import Fault
from tests.chaos.phone import ChaosPhone
from tests.chaos.story import Pair, Plan, Stage
from tests.chaos.town import Town
from tests.doors.phones import Exchange
from tests.doors.serverprocess import eventually

MONEY = 1_000_000
SECONDS_MAX = 240.0

Said = Callable[[str, float], None]


@dataclass(slots=True)
class Played:
    """What came of it."""

    name: str
    phones: int
    seconds: float
    books: bookkeeping.Books


async def play(name: str, fault: Fault, town: Town, plan: Plan, exchange: Exchange, said: Said) -> Played:
    """Let people talk, strike, wait until all is well or will never be, and look everything through."""
    begun, stage, tasks = time.monotonic(), Stage(town.ends), Tasks()
    said("people", 0.0)
    people = await register(
        town.servers[0].address, f"c{name[:2]}{plan.seed}x", plan.phones, lambda share: None
    )
    payers = people[::2]
    await open_wallets(town.servers[0].address, payers)
    await pay_in(town.servers[0].address, payers, MONEY, lambda share: None)
    phones = [
        ChaosPhone(exchange, one, town.urls(number + number // 2 // 3), tasks)
        for number, one in enumerate(people)
    ]
    try:
        await asyncio.gather(*(phone.open() for phone in phones))
        pairs = [
            Pair(number, caller, callee, plan, stage)
            for number, (caller, callee) in enumerate(zip(phones[::2], phones[1::2], strict=True))
        ]
        said("calls", 0.15)
        running = [asyncio.create_task(pair.run()) for pair in pairs]
        await eventually(
            lambda: (
                sum(pair.talking for pair in pairs) >= plan.talking * len(pairs)
                and sum(len(pair.calls) for pair in pairs) >= plan.calls_before * len(pairs)
            ),
            within=120,
            what=f"{plan.talking:.0%} of {len(pairs)} pairs talk: {[pair.violations for pair in pairs]}",
        )
        said(fault.says, 0.3)
        for pair in pairs:
            pair.strike()
        striking = asyncio.ensure_future(fault.strike(town, plan, phones))
        await asyncio.gather(*(pair.leave() for pair in pairs if pair.leaves))
        await striking
        stage.healed.set()
        said("calls go on", 0.6)
        _, late = await asyncio.wait(running, timeout=SECONDS_MAX)
        for task in late:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await tasks.drain(10)
        said("books", 0.85)
        await town.joined()
        found = await bookkeeping.read(town, pairs, MONEY, beside=plan.audit_beside)
        for task in running:
            if task.cancelled():
                found.wrong("a pair came to no end")
            elif (error := task.exception()) is not None:
                found.wrong(f"a pair: {error!r}")
        said("done", 1.0)
        return Played(name, len(phones), time.monotonic() - begun, found)
    finally:
        for phone in phones:
            await phone.forget()
