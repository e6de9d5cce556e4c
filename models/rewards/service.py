"""Verbs of points.

    tally = await rewards.tally(user_id)                     # counted up to now
    done = await rewards.redeem(user_id, key="k1", points=50)

Whoever looks at points has them counted first, from the entries of the wallets since the last time; a job does the same
for payers whose calls were settled by this process, so that it is rarely much. Nothing is lost with a process: what it
had not counted, the next look does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from models.db import Session, Stale
from models.errors import Refusal
from models.ledger.journal import Entry, Kind, Sealed, Wallet, wallet_key
from models.ledger.service import Ledger
from models.ports import Clock, Ids
from models.rewards import rules
from models.rewards.rules import Fact, FactKind, Tally
from models.rewards.store import STRETCH, RewardStore

log = structlog.get_logger(__name__)

# Steps against other counters of the same person before giving up as busy.
TRIES_MAX = 12
# People that one turn of the job counts for, and that are remembered until it comes.
TURN_MAX = 200
WANTED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Redeemed:
    """Points that became call credits: their entry, what is left, and the wallet now."""

    entry: Entry
    points: int
    tally: Tally
    wallet: Wallet


class _TooFew(Exception):
    """There are not that many points any more."""


class Rewards:
    """One per process. ``per_minute``: points for each minute charged; ``point_minor``: what one is worth in
    ``currency``.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: RewardStore,
        clock: Clock,
        ids: Ids,
        currency: str,
        per_minute: int,
        point_minor: int,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._ids = ids
        self.currency = currency
        self.per_minute = per_minute
        self.point_minor = point_minor
        self._wanted: dict[str, None] = {}

    # ----------------------------------------------------------------------------------------------------- counting

    async def listen(self, wallets: Sequence[Wallet], entries: Sequence[Entry]) -> None:
        """A listener of the ledger: remember whose points have changed, for the job."""
        for entry in entries:
            # The other side of what somebody earns is the payer; a refund moves the payer's wallet itself.
            if entry.kind is Kind.SETTLE:
                self._want(entry.counterparties.values())
            elif entry.kind is Kind.REFUND:
                self._want([wallet.user_id for wallet in wallets])

    def _want(self, user_ids: Iterable[str]) -> None:
        for user_id in user_ids:
            if len(self._wanted) < WANTED_MAX:
                self._wanted[user_id] = None

    async def run_wanted(self) -> int:
        """Count for those whose calls were settled here; how many people that were."""
        turn = list(self._wanted)[:TURN_MAX]
        for user_id in turn:
            self._wanted.pop(user_id, None)
            await self.tally(user_id)
        return len(turn)

    async def tally(self, user_id: str) -> Tally:
        """Somebody's points, counted up to now. Refuses with ``SERVER_BUSY``."""
        stale = 0
        while stale < TRIES_MAX:
            before = await self._store.tally(user_id)
            after, facts = await self._next(before)
            if after == before:
                return before
            try:
                await self._store.swap(before, replace(after, version=before.version + 1), facts)
            except Stale:
                stale += 1
        raise Refusal("SERVER_BUSY")

    async def _next(self, before: Tally) -> tuple[Tally, list[Fact]]:
        """One step: a stretch of each wallet's entries, and what they and the calls that were pending give."""
        seen, entries = dict(before.seen), list[tuple[str, Sealed]]()
        for wallet in await self._ledger.store.wallets_of(before.user_id):
            above = seen.get(wallet.currency, 0)
            if wallet.version > above:
                up_to = min(wallet.version, above + STRETCH)
                found = await self._store.entries(wallet.key, above, up_to)
                entries += [(wallet.key, one) for one in found]
                seen[wallet.currency] = up_to
        captured = {one.entry.call_id for _, one in entries if one.entry.kind is Kind.CAPTURE}
        refunds = [(key, one) for key, one in entries if one.entry.kind is Kind.REFUND]
        pending = {*before.pending, *(call_id for call_id in captured if call_id)}
        # Read after the entries: what they refund is settled by now.
        calls = await self._store.calls(pending | {str(one.entry.call_id) for _, one in refunds})
        done = {call_id for call_id in pending if call_id not in calls or rules.settled(calls[call_id])}
        known = await self._store.named([rules.earned_key(call_id) for call_id in calls])
        facts, points = list[Fact](), before.points
        for call_id in sorted(done & calls.keys()):
            call, key = calls[call_id], rules.earned_key(call_id)
            granted = rules.points_of(call, self.per_minute, self.point_minor)
            # Captured again after it was settled: no call is, but the name of its points would say so.
            if not granted or key in known:
                continue
            assert call.ended_at is not None, "it is settled"
            known[key] = Fact(
                key=key,
                id=self._ids.new(),
                kind=FactKind.EARNED,
                points=granted,
                at=call.ended_at,
                call_id=call_id,
                per_minute=self.per_minute,
                point_minor=self.point_minor,
            )
            facts.append(known[key])
            points += granted
        for wallet_id, sealed in refunds:
            call_id = str(sealed.entry.call_id)
            earned, refunded = known.get(rules.earned_key(call_id)), calls.get(call_id)
            if earned is None or refunded is None or refunded.charge is None:
                continue
            if refunded.charge.wallet != wallet_id:
                continue  # the payee's side of it
            earlier, after = await self._refunded(sealed, wallet_id)
            cost = rules.full_cost(refunded)
            due = rules.kept(earned.points, cost, earlier) - rules.kept(earned.points, cost, after)
            if due:
                taken = min(due, points)
                facts.append(self._back(sealed.entry, taken, due))
                points -= taken
        return replace(
            before,
            points=points,
            count=before.count + len(facts),
            seen=seen,
            pending=tuple(sorted(pending - done)),
        ), facts

    async def _refunded(self, sealed: Sealed, wallet: str) -> tuple[int, int]:
        """What a call's payer had got back before a refund, and after it."""
        entry, before = sealed.entry, 0
        assert entry.call_id is not None, "it refunds a call"
        for other in await self._ledger.store.of_call(entry.call_id):
            of_payer = any(seal.wallet == wallet for seal in other.seals)
            if other.entry.kind is not Kind.REFUND or not of_payer:
                continue
            if other.version_in(wallet) < sealed.version_in(wallet):
                before += rules.given_back(other.entry, wallet)
        return before, before + rules.given_back(entry, wallet)

    def _back(self, entry: Entry, taken: int, due: int) -> Fact:
        return Fact(
            key=rules.back_key(entry.id),
            id=self._ids.new(),
            kind=FactKind.TAKEN_BACK,
            points=-taken,
            at=entry.at,
            call_id=entry.call_id,
            due=due,
        )

    # ----------------------------------------------------------------------------------------------------- reading

    async def history(self, user_id: str, *, below: int | None, most: int) -> list[tuple[int, Fact]]:
        """Somebody's facts with their numbers, the newest first, below a number."""
        return await self._store.facts(user_id, below=below, most=most)

    # ---------------------------------------------------------------------------------------------------- redeeming

    async def redeem(self, user_id: str, *, key: str | None, points: int) -> Redeemed:
        """Points into call credits, of the wallet in the server's currency, which is made if there is none.

        The same ``key`` again answers with what was redeemed then. Refuses with ``IDEMPOTENCY_KEY_REQUIRED``,
        ``IDEMPOTENCY_MISMATCH``, ``POINTS_INSUFFICIENT``, ``AMOUNT_TOO_LARGE`` and ``SERVER_BUSY``.
        """
        if not key:
            raise Refusal("IDEMPOTENCY_KEY_REQUIRED")
        assert points > 0, "the shape asks for some"
        name = rules.redeem_id(user_id, key)
        if await self._ledger.store.entry(name) is not None:
            return await self._again(user_id, name, points)
        tally = await self.tally(user_id)
        if tally.points < points:
            raise Refusal("POINTS_INSUFFICIENT", points=tally.points)
        now, amount = self._clock.now(), rules.worth(points, self.point_minor)
        entry = rules.redemption(user_id, key, amount_minor=amount, currency=self.currency, now=now)
        fact = Fact(
            key=name,
            id=self._ids.new(),
            kind=FactKind.REDEEMED,
            points=-points,
            at=now,
            amount_minor=amount,
            currency=self.currency,
        )
        wallet = await self._ledger.ensure(user_id, self.currency)

        def plan(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            return [entry]

        async def also(session: Session) -> None:
            if not await self._store.spend(user_id, fact, session):
                raise _TooFew

        try:
            posted = await self._ledger.post([wallet.key], plan, also=also)
        except _TooFew:
            if await self._ledger.store.entry(name) is not None:
                return await self._again(user_id, name, points)
            left = await self._store.tally(user_id)
            raise Refusal("POINTS_INSUFFICIENT", points=left.points) from None
        if posted.again:
            return await self._again(user_id, name, points)
        return Redeemed(entry, points, await self._store.tally(user_id), posted.wallets[wallet.key])

    async def _again(self, user_id: str, name: str, points: int) -> Redeemed:
        """What was redeemed under a name before. Refuses with ``IDEMPOTENCY_MISMATCH``."""
        fact = (await self._store.named([name]))[name]
        found = await self._ledger.store.entry(name)
        assert found is not None
        assert fact.currency is not None
        if fact.points != -points:
            raise Refusal("IDEMPOTENCY_MISMATCH")
        key = wallet_key(user_id, fact.currency)
        wallet = (await self._ledger.store.wallets([key]))[key]
        return Redeemed(found.entry, points, await self._store.tally(user_id), wallet)
