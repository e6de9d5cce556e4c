"""Verbs of blocked addresses.

    Blocks(store=BlockStore(db), trail=trail, clock=clock)

A block is in the database; every process reads what has changed a few times a minute and looks requests up in memory.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from models.blocks.board import Board
from models.blocks.rules import network_of, parsed_network, spared
from models.blocks.store import Block, BlockStore
from models.errors import Refusal
from models.ports import Clock
from models.trail.rules import Act, Actor, Target, checked_reason
from models.trail.service import Trail

log = structlog.get_logger(__name__)

# Clocks of processes differ by less.
SKEW = timedelta(seconds=30)
LONGEST = timedelta(days=366)
AUTOMATIC_REASON = "kept coming after being refused"


class Blocks:
    """One per process."""

    def __init__(self, *, store: BlockStore, trail: Trail, clock: Clock) -> None:
        self._store = store
        self._trail = trail
        self._clock = clock
        self._read_at = clock.now() - LONGEST
        self._begun = False
        self._more = False
        self.board = Board()

    def refusal(self, address: str, *, stranger: bool = True) -> Refusal | None:
        """``ADDRESS_BLOCKED`` with the time to come back, for who is kept out; see ``Board.until``."""
        if not self.board:
            return None  # as nearly always, and without a look at the clock: it is asked with every request
        now = self._clock.now()
        until = self.board.until(address, now, stranger=stranger)
        if until is None:
            return None
        return Refusal("ADDRESS_BLOCKED", retry_after_ms=max(1, round((until - now).total_seconds() * 1000)))

    async def add(self, network: str, *, lasts: timedelta, by: Actor, reason: str) -> Block:
        """Keep a network out for so long, whatever there was before. All processes know within seconds.

        Refuses with ``VALIDATION_FAILED``: not a network, too wide, this machine's own, not a while.
        """
        found, now = str(parsed_network(network)), self._clock.now()
        if not timedelta(seconds=1) <= lasts <= LONGEST:
            raise Refusal("VALIDATION_FAILED", until=["From a second to a year."])
        why = checked_reason(reason)
        block = Block(
            network=found,
            until=now + lasts,
            reason=why,
            by=by.name or by.kind,
            made_at=now,
            changed_at=now,
        )
        act = Act(
            actor=by,
            act="address.block",
            target=Target("address", found),
            reason=why,
            details={"seconds": round(lasts.total_seconds())},
        )
        async with self._trail.keeping(act) as row:
            await self._store.put(block, row.also)
        self._more = self.board.put([block], now) or self._more
        return block

    async def remove(self, network: str, *, by: Actor, reason: str) -> bool:
        """Let a network in again; whether it was kept out. ``VALIDATION_FAILED``."""
        found, now = str(parsed_network(network)), self._clock.now()
        act = Act(
            actor=by,
            act="address.unblock",
            target=Target("address", found),
            reason=checked_reason(reason),
        )
        async with self._trail.keeping(act) as row:
            done = await self._store.end(found, now, row.also)
        await self.refresh()
        return done

    async def add_automatic(self, address: str) -> Block | None:
        """Keep an address out that does not stop, longer each time. None: it is already, or it is one that never is."""
        if spared(address):
            return None
        found, now = str(parsed_network(network_of(address))), self._clock.now()
        block = await self._store.add_automatic(found, AUTOMATIC_REASON, "server", now)
        if block is not None:
            log.warning("address blocked", network=found, until=block.until.isoformat(), times=block.times)
            self.board.put([block], now)
        return block

    async def all(self) -> list[Block]:
        """The blocks that hold, the last made first."""
        return await self._store.live(self._clock.now())

    async def refresh(self) -> bool:
        """Read what has changed; whether since the last look somebody has kept out who was let in."""
        now = self._clock.now()
        found = await self._store.changed_after(self._read_at) if self._begun else await self._store.live(now)
        self._begun, self._read_at = True, now - SKEW
        more, self._more = self.board.put(found, now) or self._more, False
        self.board.tidy(now)
        return more
