"""Verbs of conversions.

    quote = await fx.quote(user_id, source="NGN", target="USD", amount=Amount(minor=500_000))
    done = await fx.convert(user_id, quote_id=quote.id, key="k1", pin="4071")

A quote fixes both amounts; what the rates do afterwards is nobody's concern until it expires. Using it is one
transaction: the quote is marked and the entry, which has the quote's name, is posted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from models.db import Session
from models.errors import Refusal
from models.fx import rules
from models.fx.ports import Rates, RatesAway
from models.fx.rules import Quote
from models.fx.store import QuoteStore
from models.ledger.journal import Entry, Wallet, wallet_key
from models.ledger.service import Ledger
from models.ports import Clock, Ids
from models.wallet.pins import Pins
from models.wallet.rules import Amount, checked_currency


@dataclass(frozen=True, slots=True)
class Conversion:
    """A quote that was used, its entry, and both wallets as they are now."""

    quote: Quote
    entry: Entry
    wallet: Wallet
    target_wallet: Wallet


class _Unusable(Exception):
    """The quote is used or expired by now."""


class Fx:
    """One per process. ``rates`` is None where nothing was configured: then there is no rate between any two."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: QuoteStore,
        rates: Rates | None,
        pins: Pins,
        clock: Clock,
        ids: Ids,
        spread_bps: int,
        quote_seconds: int,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._rates = rates
        self._pins = pins
        self._clock = clock
        self._ids = ids
        self._spread_bps = spread_bps
        self._quote_seconds = quote_seconds

    async def quote(self, user_id: str, *, source: str, target: str, amount: Amount) -> Quote:
        """What an amount of one currency gives of another. Nothing is reserved, and no wallet is needed yet.

        Refuses with ``VALIDATION_FAILED`` (also an amount of which nothing would arrive), ``AMOUNT_TOO_LARGE``,
        ``FX_UNAVAILABLE`` (no rate between these two) and ``FX_AWAY``.
        """
        checked_currency(source)
        checked_currency(target)
        if source == target:
            raise Refusal("VALIDATION_FAILED", to=["Another currency than the one to convert from."])
        minor = amount.minor_in(source)
        if self._rates is None:
            raise Refusal("FX_UNAVAILABLE")
        try:
            table = await self._rates.table()
        except RatesAway:
            raise Refusal("FX_AWAY") from None
        rate = table.rate(source, target)
        if rate is None:
            raise Refusal("FX_UNAVAILABLE")
        worth, spread = rules.converted(
            minor, rate, source=source, target=target, spread_bps=self._spread_bps
        )
        now = self._clock.now()
        quote = Quote(
            id=self._ids.new(),
            user_id=user_id,
            source=source,
            target=target,
            amount_minor=minor,
            worth_minor=worth,
            spread_minor=spread,
            rate=rules.shown(rate),
            rate_at=table.as_of,
            created_at=now,
            expires_at=now + timedelta(seconds=self._quote_seconds),
        )
        await self._store.add(quote)
        return quote

    async def worth(self) -> Callable[[int, str, str], int | None] | None:
        """What minor units of one currency are in another by the rates of now, rounded down; None: not known now."""
        try:
            table = await self._rates.table() if self._rates is not None else None
        except RatesAway:
            return None

        def of(minor: int, source: str, target: str) -> int | None:
            rate = table.rate(source, target) if table is not None else None
            return None if rate is None else rules.worth(minor, rate, source=source, target=target)

        return of

    async def convert(self, user_id: str, *, quote_id: str, key: str | None, pin: str) -> Conversion:
        """Use one of one's own quotes; the wallet in the other currency is made if there is none.

        The same ``key`` again answers with what was converted then. Refuses with ``QUOTE_UNKNOWN`` (also when it is
        another's), ``QUOTE_USED``, ``QUOTE_EXPIRED``, ``WALLET_UNKNOWN``, ``WALLET_FROZEN``, ``INSUFFICIENT_FUNDS``,
        ``AMOUNT_TOO_LARGE`` and as ``Pins.check`` does.
        """
        quote = await self._own(user_id, quote_id)
        if quote.used_at is not None:
            return await self._again(quote, key)
        if quote.expires_at <= self._clock.now():
            raise Refusal("QUOTE_EXPIRED")
        mine = await self._ledger.wallet(user_id, quote.source)
        if mine is None:
            raise Refusal("WALLET_UNKNOWN")
        # Before the PIN, which costs a hash, and before the other wallet is made.
        if mine.frozen:
            raise Refusal("WALLET_FROZEN")
        if mine.primary < quote.amount_minor:
            raise Refusal(
                "INSUFFICIENT_FUNDS",
                requiredMinor=quote.amount_minor,
                availableMinor=mine.primary,
                currency=quote.source,
            )
        await self._pins.check(user_id, pin)
        theirs = await self._ledger.ensure(user_id, quote.target)
        now = self._clock.now()
        entry = rules.conversion(quote, now)

        def plan(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            if wallets[mine.key].frozen:
                raise Refusal("WALLET_FROZEN")
            return [entry]

        async def also(session: Session) -> None:
            if not await self._store.use(quote.id, key, now, session):
                raise _Unusable

        try:
            posted = await self._ledger.post([mine.key, theirs.key], plan, also=also)
        except _Unusable:
            posted = None
        if posted is None or posted.again:
            quote = await self._own(user_id, quote_id)
            if quote.used_at is None:
                raise Refusal("QUOTE_EXPIRED")
            return await self._again(quote, key)
        return Conversion(quote, entry, posted.wallets[mine.key], posted.wallets[theirs.key])

    async def _own(self, user_id: str, quote_id: str) -> Quote:
        quote = await self._store.find(quote_id)
        if quote is None or quote.user_id != user_id:
            raise Refusal("QUOTE_UNKNOWN")
        return quote

    async def _again(self, quote: Quote, key: str | None) -> Conversion:
        """What a used quote has converted, for the request that used it."""
        if key is None or quote.used_key != key:
            raise Refusal("QUOTE_USED")
        found = await self._ledger.store.entry(rules.entry_id(quote.id))
        keys = [wallet_key(quote.user_id, one) for one in (quote.source, quote.target)]
        wallets = await self._ledger.store.wallets(keys)
        assert found is not None, "it was posted when the quote was used"
        return Conversion(quote, found.entry, *(wallets[one] for one in keys))
