"""The model: what everybody must own in the end, in plain Python.

It shares no code with what it judges. Prices are money.md's formula written once more, with fractions; time is a
stopwatch that runs while a call is seen to be active; wallets are sums of what clients were told has happened.
Documents come as MongoDB keeps them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Any

Document = Mapping[str, Any]
MS = timedelta(milliseconds=1)
# What ``affordable_ms`` says for money without end.
FOREVER = 10**15


class Broken(Exception):
    """The services and the model disagree."""


def ensure(holds: bool, said: str, *values: object) -> None:
    """Raise ``Broken`` unless it holds."""
    if not holds:
        raise Broken(" ".join([said, *(repr(value) for value in values)]))


@dataclass(frozen=True)
class Tariff:
    """A price as the formula has it, in minor units and seconds."""

    rate: int
    first: int
    block: int
    fee: int
    minimum: int

    def price(self, talk_ms: int) -> int:
        """``max(minimum, fee + half_even(rate × billed / 60))``, on whole seconds, at least one."""
        if talk_ms <= 0 or self.rate == 0:
            return 0
        blocks = ceil(Fraction(max(1, talk_ms // 1000) - self.first, self.block))
        billed = self.first + max(0, blocks) * self.block
        return max(self.minimum, self.fee + round(Fraction(self.rate * billed, 60)))

    def affordable_ms(self, money: int) -> int:
        """The longest conversation in whole seconds whose price is within ``money``, by halving."""
        if self.rate == 0:
            return FOREVER
        if self.price(1000) > money:
            return 0
        low, high = 1, 2
        while self.price(1000 * high) <= money:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.price(1000 * middle) <= money else (low, middle)
        return 1000 * low

    @classmethod
    def of(cls, price: Document) -> Tariff:
        """From a call's document."""
        return cls(
            price["rate_per_minute_minor"],
            price["first_block_seconds"],
            price["block_seconds"],
            price["connect_fee_minor"],
            price["minimum_minor"],
        )


def talk_ms(call: Document, now: datetime | None = None) -> int:
    """The conversation in a call's intervals, the running one up to ``now``."""
    return sum(((i["end"] or now or i["start"]) - i["start"]) // MS for i in call["intervals"])


def cost(call: Document, now: datetime | None = None) -> int:
    """What a call's intervals and segments cost."""
    earlier = sum(segment["talk_ms"] for segment in call["earlier"])
    total = sum(Tariff.of(segment["price"]).price(segment["talk_ms"]) for segment in call["earlier"])
    return total + Tariff.of(call["price"]).price(talk_ms(call, now) - earlier)


def lasts_ms(call: Document, money: int) -> int:
    """How much conversation the whole of ``money`` buys in this call, over all segments."""
    earlier = sum(segment["talk_ms"] for segment in call["earlier"])
    spent = sum(Tariff.of(segment["price"]).price(segment["talk_ms"]) for segment in call["earlier"])
    return earlier + Tariff.of(call["price"]).affordable_ms(money - spent)


@dataclass
class Watched:
    """One call as it was seen from outside."""

    state: str
    type: str
    at: datetime
    active_ms: int = 0
    # The money ran out as the model says only if nobody was hindered from renewing while it lasted.
    kept: bool = True
    credits_before: int | None = None


@dataclass
class Model:
    """Everything that a history has made true. ``share_bps`` is the platform's, ``dispute_seconds`` the wait before
    earnings can be spent.
    """

    share_bps: int
    dispute_seconds: int
    paid_in: Counter[str] = field(default_factory=Counter)
    credits_in: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    refunded: Counter[str] = field(default_factory=Counter)
    calls: dict[str, Watched] = field(default_factory=dict)
    tariffs: dict[tuple[str, str], Tariff] = field(default_factory=dict)
    lasted: int = 0
    debts: int = 0
    _stages: dict[str, str] = field(default_factory=dict)
    _owed: Counter[str] = field(default_factory=Counter)
    _refunds: int = 0

    # ------------------------------------------------------------------------------------------------ as time goes

    def observe(self, calls: Iterable[Document], wallets: Mapping[str, Document], now: datetime) -> None:
        """Look at everything at one instant: the stopwatches go on, and what must always hold is held."""
        held: Counter[str] = Counter()
        calls = list(calls)
        for call in calls:
            self._watch(call, wallets, now)
            if call["charge"] is not None:
                held[call["charge"]["wallet"]] += sum(call["charge"]["held"].values())
                self._paid_for(call, now)
        for key, wallet in wallets.items():
            balances = wallet["balances"]
            ensure(min(balances.values()) >= 0, "a balance is negative", key, balances)
            ensure(
                balances["primary_held"] + balances["credits_held"] == held[key],
                "what a wallet holds is not what its calls hold",
                key,
                balances,
                held[key],
            )
        self._repaid(calls, wallets, now)

    def _repaid(self, calls: Iterable[Document], wallets: Mapping[str, Document], now: datetime) -> None:
        """Who was paid out what was refunded later owes it, and the next earnings pay it first."""
        earned: Counter[str] = Counter()
        for call in calls:
            stage = call["charge"]["stage"] if call["charge"] is not None else ""
            if stage == "cleared" and self._stages.get(call["_id"], stage) != stage:
                over = call["ended_at"] + timedelta(seconds=self.dispute_seconds)
                ensure(now >= over or not cost(call), "is cleared before its time", call["_id"], now, over)
                earned[f"{call['callee']['user_id']}:{call['price']['currency']}"] += call["charge"][
                    "earned_minor"
                ]
            self._stages[call["_id"]] = stage
        refunds = sum(call["charge"]["refunds"] for call in calls if call["charge"] is not None)
        for key, wallet in wallets.items():
            owes, owed = wallet["balances"]["owed"], self._owed[key]
            if refunds == self._refunds:
                ensure(owes == max(0, owed - earned[key]), "owes", key, owes, "after", owed, earned[key])
            self.debts += owes > owed
            self._owed[key] = owes
        self._refunds = refunds

    def _watch(self, call: Document, wallets: Mapping[str, Document], now: datetime) -> None:
        seen = self.calls.get(call["_id"])
        if seen is None:
            self.calls[call["_id"]] = seen = Watched(call["state"], call["type"], call["created_at"])
            self._priced(call)
        until = min(now, call["ended_at"] or now)
        if seen.state == "active":
            seen.active_ms += max(timedelta(), until - seen.at) // MS
        ended = call["state"] == "ended" != seen.state
        seen.state, seen.at = call["state"], now
        if ended and call["end_reason"] == "insufficient_funds" and seen.kept:
            self._lasted(call, wallets)

    def _priced(self, call: Document) -> None:
        """The tariff of a call is the callee's own or the platform's."""
        expected = self.tariffs[call["callee"]["user_id"], call["type"]]
        ensure(call["version"] > 1 or Tariff.of(call["price"]) == expected, "another tariff", call["price"])

    def _lasted(self, call: Document, wallets: Mapping[str, Document]) -> None:
        """The money of a call that nobody ended has lasted to the millisecond."""
        balances = wallets[call["charge"]["wallet"]]["balances"]
        if call["charge"]["stage"] == "open":
            return
        money = cost(call) + balances["primary"] + balances["credits"]
        ensure(talk_ms(call) == lasts_ms(call, money), "cut off too early or too late", call, money)
        self.lasted += 1

    def _paid_for(self, call: Document, now: datetime) -> None:
        charge = call["charge"]
        secured = sum(charge["held"].values()) + sum(charge["captured"].values())
        if charge["stage"] == "open":
            ensure(cost(call) <= secured, "has talked beyond its money", call["_id"], cost(call), secured)
        if charge["granted_ms"] is not None:
            ensure(talk_ms(call) <= charge["granted_ms"], "has talked beyond its grant", call["_id"])
            ensure(
                charge["stage"] != "open" or charge["granted_ms"] <= lasts_ms(call, secured),
                "was granted more than is secured",
                call["_id"],
                charge,
            )

    # ------------------------------------------------------------------------------------------------- in the end

    def final(
        self,
        calls: Iterable[Document],
        wallets: Mapping[str, Document],
        journal: Iterable[Document],
        *,
        exact: bool,
    ) -> None:
        """All calls are over, settled and cleared. ``exact``: nothing happened that may shorten a conversation."""
        owns: Counter[str] = Counter(self.paid_in) + Counter(self.credits_in)
        for user, amount in self.moved.items():
            owns[user] += amount
        commission = 0
        for call in calls:
            self._over(call, exact=exact)
            back = self.refunded[call["_id"]]
            price = cost(call)
            earned = (price - back) * (10_000 - self.share_bps) // 10_000
            owns[call["caller"]["user_id"]] -= price - back
            owns[call["callee"]["user_id"]] += earned
            commission += price - back - earned
        self._wallets(owns, wallets)
        self._accounts(journal, owns, commission)

    def _over(self, call: Document, *, exact: bool) -> None:
        name, charge = call["_id"], call["charge"]
        ensure(call["state"] == "ended", "lives on", name, call["state"])
        ensure("untold" not in call, "keeps untold facts", name)
        self._upgraded(call)
        back = self.refunded[name]
        ensure(call["cost_minor"] == cost(call) - back, "costs", name, call["cost_minor"], cost(call), back)
        talked, seen = talk_ms(call), self.calls[name].active_ms
        ensure(talked <= seen, "has talked more than it was seen to", name, talked, seen)
        ensure(talked == seen or not exact, "has talked less than it was seen to", name, talked, seen)
        if charge is None:
            ensure(cost(call) == 0, "costs without being charged", name)
            return
        ensure(charge["stage"] == "cleared", "is not cleared", name, charge["stage"])
        ensure(sum(charge["held"].values()) == 0, "still holds", name, charge["held"])
        ensure(sum(charge["captured"].values()) == cost(call), "was captured", name, charge["captured"])
        before = self.calls[name].credits_before
        if before is not None and exact:
            ensure(
                charge["captured"]["credits"] == min(before, cost(call)), "credits come first", charge, before
            )

    def _upgraded(self, call: Document) -> None:
        """What follows an upgrade at another rate is a part of its own, without fee and minimum."""
        tariffs = [self.tariffs[call["callee"]["user_id"], kind] for kind in ("audio", "video")]
        changed = self.calls[call["_id"]].type != call["type"] and tariffs[0].rate != tariffs[1].rate
        expected = [tariffs[0], replace(tariffs[1], fee=0, minimum=0)] if changed else None
        parts = [Tariff.of(segment["price"]) for segment in (*call["earlier"], call)]
        if expected is not None:
            ensure(parts == expected, "is priced in other parts", parts, expected)
        else:
            ensure(len(parts) == 1, "is in parts without a reason", parts)

    def _wallets(self, owns: Mapping[str, int], wallets: Mapping[str, Document]) -> None:
        for wallet in wallets.values():
            balances, user = wallet["balances"], wallet["user_id"]
            total = sum(balances.values()) - 2 * balances["owed"]
            ensure(total == owns.get(user, 0), "owns", user, total, "and should own", owns.get(user, 0))
            held = balances["primary_held"] + balances["credits_held"] + balances["pending"]
            ensure(held == 0, "has money held or pending", user, balances)
        users = {wallet["user_id"] for wallet in wallets.values()}
        ensure(
            all(user in users or not amount for user, amount in owns.items()), "money without a wallet", owns
        )

    def _accounts(self, journal: Iterable[Document], owns: Mapping[str, int], commission: int) -> None:
        accounts: defaultdict[str, int] = defaultdict(int)
        for entry in journal:
            for leg in entry["legs"]:
                accounts[leg["account"]] += leg["amount"]
        ensure(sum(accounts.values()) == 0, "the books do not add up to zero", dict(accounts))
        for account, amount in accounts.items():
            ensure(amount == 0 or not account.startswith("escrow:"), "is left in escrow", account, amount)
        ensure(accounts["platform:commission"] == commission, "commission", accounts, commission)
        collected = sum(self.paid_in.values()) + sum(self.credits_in.values())
        ensure(accounts["gateway:sandbox:clearing"] == -collected, "collected", accounts, collected)
        wallets = sum(amount for account, amount in accounts.items() if account.startswith("wallet:"))
        ensure(wallets == sum(owns.values()), "wallets hold", wallets, sum(owns.values()))
