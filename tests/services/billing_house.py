"""What the tests of charging share: a town where talking costs money, whose books are read anew by the audit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from models.audit.service import audit
from models.billing.tariffs import Tariffs
from models.calls.call import Call, Price
from models.db import Database
from models.ledger.journal import Entry, Kind, Pocket, Wallet, wallet_key
from models.payments.store import PaymentStore
from models.wallet import rules as wallet_rules
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Process, Raced, Town
from tests.services.payments_house import fund

# 100 minor units for every second, so that every second shows.
BY_THE_SECOND = Tariffs(rate_minor=6_000, first_block_seconds=1, block_seconds=1, minimum_minor=0)
# The price of a minute of it.
MINUTE = 6_000
# The reads and writes of the ledger between which another process may come; never inside of a transaction.
_STEPS_OF_THE_LEDGER = {"wallets", "transact", "entry"}


def price_of(price: Price, intervals_ms: Iterable[int]) -> int:
    """What a call of these intervals costs, by the words of the tariff and with fractions: nothing of ours is used."""
    total_ms = sum(intervals_ms)
    if total_ms == 0 or price.rate_per_minute_minor == 0:
        return 0
    seconds = max(1, total_ms // 1000)
    billed = price.first_block_seconds
    while billed < seconds:
        billed += price.block_seconds
    by_time = round(Fraction(price.rate_per_minute_minor * billed, 60))  # halves to even
    return max(price.minimum_minor, price.connect_fee_minor + by_time)


def intervals_ms(call: Call) -> list[int]:
    """The lengths of a call's closed intervals."""
    return [(i.end - i.start) // timedelta(milliseconds=1) for i in call.intervals if i.end is not None]


class _RacedLedger:
    """A ledger's store whose steps wait for their turn in a race."""

    def __init__(self, store: Any) -> None:
        self._store, self._raced = store, Raced(store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raced if name in _STEPS_OF_THE_LEDGER else self._store, name)


class PaidTown(Town):
    """A town with prices. Payments are kept with their entries, so that the audit finds nothing to say."""

    def __init__(
        self, db: Database, clock: VirtualClock, ids: CountingIds, tariffs: Tariffs = BY_THE_SECOND
    ) -> None:
        super().__init__(db, clock, ids)
        self.tariffs = tariffs
        self._payments = PaymentStore(db)
        self._transfers = 0

    def process(self, name: str, *, raced: bool = False) -> Process:
        made = super().process(name, raced=raced)
        if raced:
            store: Any = _RacedLedger(made.ledger.store)
            made.ledger.store = store
        return made

    async def pay_in(
        self,
        process: Process,
        user_id: str,
        amount_minor: int,
        *,
        into: Pocket = Pocket.PRIMARY,
        currency: str | None = None,
    ) -> Wallet:
        """As a gateway: a completed payment and its entry in one transaction."""
        return await fund(
            process.ledger,
            self._payments,
            self.clock,
            user_id,
            amount_minor,
            key=self.ids.new(),
            into="primary" if into is Pocket.PRIMARY else "call_credits",
            currency=currency or self.tariffs.currency,
        )

    async def send(self, process: Process, payer: str, payee: str, amount_minor: int) -> Wallet:
        """A transfer, posted through a process; the payer's wallet after it. Refuses with ``INSUFFICIENT_FUNDS``."""
        mine = await process.ledger.ensure(payer, self.tariffs.currency)
        theirs = await process.ledger.ensure(payee, self.tariffs.currency)
        self._transfers += 1
        entry = wallet_rules.transfer(
            mine, payee, key=str(self._transfers), amount_minor=amount_minor, note=None, now=self.clock.now()
        )
        posted = await process.ledger.post([mine.key, theirs.key], lambda wallets: [entry])
        return posted.wallets[mine.key]

    async def entries(self, call: Call) -> list[Entry]:
        """What the journal says of a call."""
        return [one.entry for one in await self.ledger.store.of_call(call.id)]

    async def kinds(self, call: Call) -> dict[Kind, int]:
        """How many entries of each kind a call has."""
        found = [entry.kind for entry in await self.entries(call)]
        return {kind: found.count(kind) for kind in Kind if kind in found}

    async def captured(self, call: Call) -> int:
        """What has left the payer's wallet for a call, by the journal."""
        legs = [leg for entry in await self.entries(call) for leg in entry.legs if entry.kind is Kind.CAPTURE]
        return sum(leg.amount_minor for leg in legs if leg.account.startswith("escrow:"))

    async def pockets(self, user_id: str) -> tuple[int, int]:
        """Somebody's primary balance: available and held."""
        wallet = await self.wallet(user_id)
        return wallet.primary, wallet.primary_held

    async def books(self) -> None:
        """The audit of the whole database has nothing to say."""
        report = await audit(self.db, self.clock.now())
        assert report.clean, str(report)

    async def charged_rightly(self, call: Call) -> Call:
        """An ended call is settled, and what was taken for it is the price of its intervals. The call as it is now."""
        over = await self.call(call)
        assert not over.live
        assert over.charge is not None
        price = over.cost_minor + over.charge.refunded.total
        segments = [(one.price, one.talk_ms) for one in over.earlier]
        segments.append((over.price, sum(intervals_ms(over)) - sum(ms for _, ms in segments)))
        assert price == sum(price_of(tariff, [ms]) for tariff, ms in segments)
        assert await self.captured(over) == price
        assert (over.charge.held.total, over.charge.captured.total) == (0, price)
        payee = await self.ledger.store.wallets([wallet_key(over.callee.user_id, over.price.currency)])
        if over.cost_minor:
            assert payee, "whoever is paid has a wallet"
            assert over.charge.earned_minor + over.charge.commission_minor == over.cost_minor
        return over


@dataclass
class Stage:
    """Ann and Bob with their phones at one process."""

    town: PaidTown
    here: Process
    ann: Phone
    bob: Phone

    async def talk(self, **more: Any) -> Call:
        """A call that Bob has taken."""
        return await self.bob.accept(await self.ann.request(self.bob, **more))

    async def now(self, call: Call) -> Call:
        return await self.town.call(call)

    def at(self) -> datetime:
        return self.town.clock.now()


async def opened(
    db: Database,
    clock: VirtualClock,
    ids: CountingIds,
    *,
    money: int,
    tariffs: Tariffs = BY_THE_SECOND,
    others: Iterable[str] = (),
) -> Stage:
    """Ann, with money, and Bob, both at one process; ``others`` live in the town too."""
    town = PaidTown(db, clock, ids, tariffs)
    await town.people("ann", "bob", *others)
    here = town.process("here")
    if money:
        await town.pay_in(here, "ann", money)
        await here.billing.run_wanted()  # nobody talks yet
    return Stage(town, here, town.phone(here, "ann"), town.phone(here, "bob"))
