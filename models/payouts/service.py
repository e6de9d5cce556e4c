"""Verbs of withdrawals.

    payouts = Payouts(store=PayoutStore(db), ledger=ledger, pins=wallets.pins, accounts=accounts, gateways={…},
                      limits=Limits(…), clock=clock, ids=ids)

A withdrawal is kept together with the entry that holds its money; the job does the rest (``work``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from models.db import Session
from models.errors import Refusal
from models.ledger.journal import Entry, Kind, Wallet
from models.ledger.service import Ledger
from models.payments.gateway import Gateway
from models.payouts import rules
from models.payouts.accounts.service import BankAccounts
from models.payouts.accounts.store import SavedAccount
from models.payouts.desk import Desk
from models.payouts.payout import Destination, Payout, Stage
from models.payouts.store import KeyTaken, PayoutStore
from models.payouts.work import Count, Work, count_nothing
from models.ports import Clock, Ids
from models.wallet.pins import Pins
from models.wallet.rules import Amount

DAY = timedelta(hours=24)

# What so many minor units of one currency are in another, rounded down; None where nothing ties the two.
Worth = Callable[[int, str, str], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server was told about withdrawals, in minor units; the greatest is for 24 hours.

    They are amounts of ``currency``, and worth as much in others; without one they are the same number in each.
    """

    currency: str | None = None
    least_minor: int
    daily_minor_max: int
    fee_minor: int
    cool_off: timedelta
    # Above it a withdrawal waits for an administrator; 0: none does.
    approval_minor: int = 0


class Payouts:
    """One per process."""

    def __init__(
        self,
        *,
        store: PayoutStore,
        ledger: Ledger,
        pins: Pins,
        accounts: BankAccounts,
        gateways: Mapping[str, Gateway],
        limits: Limits,
        clock: Clock,
        ids: Ids,
        count: Count = count_nothing,
    ) -> None:
        self.store = store
        self.work = Work(store=store, ledger=ledger, gateways=gateways, clock=clock, count=count)
        self.desk = Desk(self.work, clock)
        self._ledger = ledger
        self._pins = pins
        self._accounts = accounts
        self._gateways = gateways
        self._limits = limits
        self._clock = clock
        self._ids = ids
        # What else may have been taken away from the owner's guard, and when; without it only the PIN and the account.
        self.weakened_at: Callable[[str], Awaitable[datetime | None]] | None = None
        # What currencies are worth now, None where that is not known; without it each has the limit for itself.
        self.worth: Callable[[], Awaitable[Worth | None]] | None = None

    # ------------------------------------------------------------------------------------------------------- one's own

    async def withdraw(
        self,
        user_id: str,
        *,
        key: str | None,
        bank_account_id: str,
        amount: Amount,
        currency: str | None,
        pin: str,
        also_asks: Callable[[], Awaitable[None]] | None = None,
    ) -> Payout:
        """Ask for money of one's primary balance on one's bank account. It is held until it is known to be there.

        ``also_asks`` asks who knows the PIN for what else is needed, a second factor, and may refuse.
        The same ``key`` again answers with what was asked for then. Refuses with ``IDEMPOTENCY_KEY_REQUIRED``,
        ``IDEMPOTENCY_MISMATCH``, ``BANK_ACCOUNT_UNKNOWN``, ``CURRENCY_MISMATCH``, ``WALLET_UNKNOWN``,
        ``WALLET_FROZEN``, ``GATEWAY_UNAVAILABLE``, ``PAYOUT_LIMIT``, ``PAYOUT_COOLING_OFF``, ``INSUFFICIENT_FUNDS``,
        ``VALIDATION_FAILED`` and as ``Pins.check`` does.
        """
        if not key:
            raise Refusal("IDEMPOTENCY_KEY_REQUIRED")
        known = await self.store.by_key(user_id, key)
        if known is not None:
            return _agreed(known, bank_account_id, amount)
        account = await self._accounts.find(user_id, bank_account_id)
        if currency not in (None, account.currency):
            raise Refusal("CURRENCY_MISMATCH", currency=account.currency)
        wallet = await self._ledger.wallet(user_id, account.currency)
        if wallet is None:
            raise Refusal("WALLET_UNKNOWN")
        minor = amount.minor_in(account.currency)
        worth = await self.worth() if self.worth is not None else _nothing
        limits = self._limits_in(account.currency, worth)
        self._possible(account, wallet, minor, limits)
        # After all that costs nothing: it costs a hash.
        await self._pins.check(user_id, pin)
        if also_asks is not None:
            await also_asks()
        await self._cooled(user_id, account)
        payout = self._fresh(user_id, key, account, minor, limits)

        def plan(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            if wallets[wallet.key].frozen:
                raise Refusal("WALLET_FROZEN")
            return [rules.entry(payout, Kind.WITHDRAW_HOLD, payout.created_at)]

        async def also(session: Session) -> None:
            # So that two that read the same sum cannot both get through, of whichever wallet.
            await self._accounts.turn(user_id, session)
            await self._within_a_day(payout, limits, worth or _nothing, session)
            await self.store.add(payout, session)

        try:
            await self._ledger.post([wallet.key], plan, also=also)
        except KeyTaken:
            first = await self.store.by_key(user_id, key)
            assert first is not None, "it stood in the way"
            return _agreed(first, bank_account_id, amount)
        self.work.count(payout.gateway, "withdrawal")
        await self.work.announce(payout)
        return payout

    async def payout(self, user_id: str, payout_id: str) -> Payout:
        """One of one's own. ``PAYOUT_UNKNOWN`` also when it is another's."""
        found = await self.store.find(payout_id)
        if found is None or found.user_id != user_id:
            raise Refusal("PAYOUT_UNKNOWN")
        return found

    async def payouts(self, user_id: str, *, before_id: str | None, most: int) -> list[Payout]:
        """One's own, the newest first, below an id."""
        return await self.store.of_user(user_id, before_id=before_id, most=most)

    def _limits_in(self, currency: str, worth: Worth | None) -> Limits:
        """The limits in a currency. Refuses with ``SERVER_BUSY`` when what it is worth is not known now."""
        limits, ours = self._limits, self._limits.currency
        if ours in (None, currency):
            return limits
        if worth is None:
            raise Refusal("SERVER_BUSY")
        least, most, fee, approval = (
            worth(one, ours, currency)
            for one in (
                *(limits.least_minor, limits.daily_minor_max, limits.fee_minor),
                limits.approval_minor,
            )
        )
        if least is None or most is None or fee is None or approval is None:
            return limits
        return replace(
            limits,
            least_minor=max(1, least),
            daily_minor_max=most,
            fee_minor=fee,
            # So little that it is worth nothing there is still a bound.
            approval_minor=max(1, approval) if limits.approval_minor else 0,
        )

    def _possible(self, account: SavedAccount, wallet: Wallet, minor: int, limits: Limits) -> None:
        """Refuse what can be refused without a PIN, and before anything is locked."""
        gateway = self._gateways.get(account.gateway)
        if gateway is None or account.currency not in gateway.terms.payouts:
            raise Refusal("GATEWAY_UNAVAILABLE", currency=account.currency)
        if minor < limits.least_minor or minor > limits.daily_minor_max:
            raise _limit(limits, account.currency)
        if wallet.frozen:
            raise Refusal("WALLET_FROZEN")
        if wallet.primary < minor + limits.fee_minor:
            raise Refusal(
                "INSUFFICIENT_FUNDS",
                requiredMinor=minor + limits.fee_minor,
                availableMinor=wallet.primary,
                currency=wallet.currency,
            )

    async def _cooled(self, user_id: str, account: SavedAccount) -> None:
        """Whoever has got hold of a phone or a password changes the PIN or adds an account of their own first.

        Read after the PIN was found right: a change since then was not made by who is asking.
        """
        changed = await self._pins.changed_at(user_id)
        weakened = await self.weakened_at(user_id) if self.weakened_at is not None else None
        since = max(at for at in (account.created_at, changed, weakened) if at is not None)
        left = since + self._limits.cool_off - self._clock.now()
        if left > timedelta(0):
            wait = max(1, round(left / timedelta(milliseconds=1)))
            raise Refusal("PAYOUT_COOLING_OFF", retry_after_ms=wait)

    async def _within_a_day(self, payout: Payout, limits: Limits, worth: Worth, session: Session) -> None:
        asked, most = 0, limits.daily_minor_max
        found = await self.store.asked_since(payout.user_id, payout.created_at - DAY, session)
        for currency, minor in found.items():
            same = currency == payout.currency
            asked += minor if same else worth(minor, currency, payout.currency) or 0
        if asked + payout.amount_minor > most:
            raise _limit(limits, payout.currency, left=max(0, most - asked))

    def _fresh(self, user_id: str, key: str, account: SavedAccount, minor: int, limits: Limits) -> Payout:
        now, payout_id = self._clock.now(), self._ids.new()
        waits = 0 < limits.approval_minor < minor
        return Payout(
            id=payout_id,
            reference=f"wd-{payout_id}",
            key=key,
            user_id=user_id,
            gateway=account.gateway,
            amount_minor=minor,
            fee_minor=limits.fee_minor,
            currency=account.currency,
            to=Destination(
                account_id=account.id,
                bank_code=account.bank_code,
                bank_name=account.bank_name,
                account_number=account.account_number,
                account_name=account.account_name,
            ),
            stage=Stage.APPROVAL if waits else Stage.WAITING,
            stage_at=now,
            created_at=now,
            give_up_at=now + rules.GIVE_UP_AFTER,
            look_at=None if waits else now,
            tell_at=now + rules.TELL_WITHIN,
        )


def _nothing(minor: int, source: str, target: str) -> int | None:
    """Where nothing is known of what currencies are worth."""
    return None


def _agreed(known: Payout, bank_account_id: str, amount: Amount) -> Payout:
    """What was asked for under this key, if it is what is asked now. Refuses with ``IDEMPOTENCY_MISMATCH``."""
    if (known.to.account_id, known.amount_minor) != (bank_account_id, amount.minor_in(known.currency)):
        raise Refusal("IDEMPOTENCY_MISMATCH")
    return known


def _limit(limits: Limits, currency: str, left: int | None = None) -> Refusal:
    least, most = limits.least_minor, limits.daily_minor_max
    more = {} if left is None else {"leftMinor": left}
    return Refusal("PAYOUT_LIMIT", leastMinor=least, dailyMinor=most, currency=currency, **more)
