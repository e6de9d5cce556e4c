"""What the tests of withdrawals share: a bank that can be told anything, and processes that die where a test wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from models.audit.service import audit
from models.db import Database
from models.ledger.journal import Wallet
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.payments.gateway import (
    Bank,
    BankAccount,
    Gateway,
    GatewayAway,
    GatewayNo,
    Notice,
    PayoutAsk,
    PayoutSeen,
    PayoutState,
    Terms,
)
from models.payouts.accounts.service import BankAccounts
from models.payouts.accounts.store import BankAccountStore, SavedAccount
from models.payouts.payout import Payout, Stage
from models.payouts.service import Limits, Payouts
from models.payouts.store import PayoutStore
from models.wallet.pins import Pins
from models.wallet.rules import Amount
from models.wallet.store import WalletStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Mortal
from tests.services.wallet_house import ANN, PEPPER, PIN, OnePassword, PlainHasher
from tests.services.wallet_house import House as WalletHouse

BANK, NUMBER = "058", "0123456789"
LEAST, DAILY, FEE = 100, 50_000, 25
LIMITS = Limits(least_minor=LEAST, daily_minor_max=DAILY, fee_minor=FEE, cool_off=timedelta(0))
OTP = "718293"
# What a submission may be told to do, by name; what is told is told once, and without it all is pending.
Doing = Callable[["TheBank", PayoutAsk], PayoutSeen]


def _becomes(state: PayoutState) -> Doing:
    def do(bank: TheBank, ask: PayoutAsk) -> PayoutSeen:
        return bank.take(ask, state)

    return do


def _no(code: str, **more: bool) -> Doing:
    def do(bank: TheBank, ask: PayoutAsk) -> PayoutSeen:
        raise GatewayNo(code, "no", **more)

    return do


def _away(*, sent: bool, takes: bool = False) -> Doing:
    def do(bank: TheBank, ask: PayoutAsk) -> PayoutSeen:
        if takes:
            bank.take(ask, PayoutState.PENDING)
        raise GatewayAway("timeout", sent=sent)

    return do


DOES: Mapping[str, Doing] = {
    "paid": _becomes(PayoutState.PAID),
    "pending": _becomes(PayoutState.PENDING),
    "otp": _becomes(PayoutState.OTP),
    "failed": _becomes(PayoutState.FAILED),
    "refused": _no("NO_MONEY"),
    "later": _no("D07", later=True),
    "unsent": _away(sent=False),
    "lost": _away(sent=True),
    "lost after it was taken": _away(sent=True, takes=True),
}


@dataclass
class TheBank:
    """The world behind the gateway: the same for all processes, and it survives them.

    ``arrived`` counts the submissions of each reference that came in, ``money`` what has left for good by reference.
    """

    now: Callable[[], datetime]
    told: list[str] = field(default_factory=list)
    known: dict[str, PayoutSeen] = field(default_factory=dict)
    asks: dict[str, PayoutAsk] = field(default_factory=dict)
    arrived: Counter[str] = field(default_factory=Counter)
    looks: Counter[str] = field(default_factory=Counter)
    away: bool = False
    hidden: set[str] = field(default_factory=set)
    names: dict[tuple[str, str], str] = field(default_factory=lambda: {(BANK, NUMBER): "ANN OBI"})
    resent: int = 0
    nobody_may_submit: bool = False

    def take(self, ask: PayoutAsk, state: PayoutState) -> PayoutSeen:
        assert ask.reference not in self.known, "a bank takes a reference once"
        self.asks[ask.reference] = ask
        self.known[ask.reference] = PayoutSeen(
            reference=ask.reference,
            gateway_reference=f"T-{len(self.known)}",
            state=state,
            amount_minor=ask.amount_minor,
            currency=ask.currency,
            fee_minor=11,
            word=state.name,
        )
        return self.known[ask.reference]

    def become(self, payout: Payout, state: PayoutState, **changes: Any) -> None:
        """Something happens to a payout at the bank."""
        seen = self.known[payout.reference]
        self.known[payout.reference] = replace(seen, state=state, word=state.name, **changes)

    def all_become(self, state: PayoutState) -> None:
        """Something happens to all that waits there."""
        for reference, seen in self.known.items():
            if seen.state in (PayoutState.PENDING, PayoutState.OTP):
                self.known[reference] = replace(seen, state=state, word=state.name)

    def money(self) -> int:
        """What has left for good."""
        paid = [one for one in self.known.values() if one.state is PayoutState.PAID]
        return sum(cast(int, one.amount_minor) for one in paid)


class BankGateway:
    """One process's way to the bank: a ``Gateway``, as far as money goes out. A mortal process dies on it, too."""

    def __init__(self, bank: TheBank, life: Mortal | None = None, name: str = "testbank") -> None:
        self.bank, self.life, self.name = bank, life, name
        self.terms = Terms(currencies=frozenset({"NGN", "KES"}), payouts=frozenset({"NGN", "KES"}))
        self.before_sending: Callable[[], Awaitable[None]] | None = None
        self.before_answering: Callable[[], Awaitable[None]] | None = None

    def _breathe(self) -> None:
        if self.life is not None:
            self.life.breathe()

    def _refuse_if_away(self, *, sent: bool = False) -> None:
        if self.bank.away:
            raise GatewayAway("no connection", sent=sent)

    async def banks(self, currency: str) -> list[Bank]:
        self._refuse_if_away()
        return [Bank(code="999", name="Zenith of Nowhere"), Bank(code=BANK, name="Guarantee Bank")]

    async def account_name(self, account: BankAccount, currency: str) -> str | None:
        self._refuse_if_away()
        if account.bank_code == "999":
            raise GatewayNo("BANK_CLOSED")
        return self.bank.names.get((account.bank_code, account.account_number))

    async def pay_out(self, ask: PayoutAsk) -> PayoutSeen:
        self._breathe()
        if self.before_sending is not None:
            await self.before_sending()
        self._refuse_if_away()
        if self.bank.told[:1] != ["unsent"]:
            self.bank.arrived[ask.reference] += 1
        if ask.reference in self.bank.known:
            raise GatewayNo("DUPLICATE", taken=True)
        doing = self.bank.told.pop(0) if self.bank.told else "pending"
        seen = DOES[doing](self.bank, ask)
        if self.before_answering is not None:
            await self.before_answering()
        self._breathe()
        return seen

    async def payout_status(self, reference: str, gateway_reference: str | None) -> PayoutSeen | None:
        self._breathe()
        self.bank.looks[reference] += 1
        self._refuse_if_away()
        return None if reference in self.bank.hidden else self.bank.known.get(reference)

    async def authorize_payout(
        self, reference: str, gateway_reference: str | None, password: str
    ) -> PayoutSeen:
        self._refuse_if_away(sent=True)
        seen = self.bank.known[reference]
        if seen.state is not PayoutState.OTP:
            raise GatewayNo("NOT_WAITING")
        if password != OTP:
            raise GatewayNo("WRONG_OTP")
        self.bank.known[reference] = replace(seen, state=PayoutState.PENDING, word="PENDING")
        return self.bank.known[reference]

    async def resend_password(self, reference: str, gateway_reference: str | None) -> None:
        self._refuse_if_away()
        self.bank.resent += 1

    def parse(self, raw: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        raise NotImplementedError

    async def checkout(self, ask: Any) -> Any:
        raise NotImplementedError

    query = refund = refund_status = checkout

    async def close(self) -> None:
        pass


@dataclass
class Till:
    """One process: its ledger, its withdrawals, and where it told its people that these are."""

    payouts: Payouts
    accounts: BankAccounts
    ledger: Ledger
    pins: Pins
    gateway: BankGateway
    hasher: PlainHasher
    told: list[tuple[str, str]] = field(default_factory=list)

    async def hear(self, payout: Payout) -> None:
        self.told.append((payout.id, payout.status.value))

    async def run(self) -> None:
        await self.payouts.work.run_due()
        await self.payouts.work.run_untold()


class House(WalletHouse):
    """People with wallets and bank accounts, a bank, and as many processes as a test wants."""

    def __init__(self, db: Database, clock: VirtualClock, ids: CountingIds, limits: Limits = LIMITS) -> None:
        super().__init__(db, clock, ids)
        self.limits = limits
        self.bank = TheBank(clock.now)
        self.till = self.open_till()

    def open_till(
        self, life: Mortal | None = None, limits: Limits | None = None, *, real: Gateway | None = None
    ) -> Till:
        """Another process, mortal if it has a life; with a ``real`` gateway in the place of the bank's."""
        db = cast(Database, life or self.db)
        ledger, hasher = Ledger(LedgerStore(db), self.clock, self.ids), PlainHasher()
        gateway = BankGateway(self.bank, life)
        gateways = {real.name: real} if real is not None else {gateway.name: gateway}
        accounts = BankAccounts(
            store=BankAccountStore(db), gateways=gateways, preferred=None, clock=self.clock, ids=self.ids
        )
        pins = Pins(
            store=WalletStore(db),
            hasher=hasher,
            passwords=OnePassword(),
            clock=self.clock,
            pepper=PEPPER,
        )
        payouts = Payouts(
            store=PayoutStore(db),
            ledger=ledger,
            pins=pins,
            accounts=accounts,
            gateways=gateways,
            limits=limits or self.limits,
            clock=self.clock,
            ids=self.ids,
        )
        till = Till(payouts, accounts, ledger, pins, gateway, hasher)
        payouts.work.announcers.append(till.hear)
        return till

    async def saver(self, user_id: str = ANN, minor: int = 10_000, currency: str = "NGN") -> SavedAccount:
        """Somebody with a PIN, money and a bank account."""
        await self.rich(user_id, minor, currency)
        return await self.account(user_id, currency)

    async def account(self, user_id: str = ANN, currency: str = "NGN") -> SavedAccount:
        mine = await self.till.accounts.of_user(user_id)
        found = [one for one in mine if one.currency == currency]
        return (
            found[0]
            if found
            else await self.till.accounts.add(
                user_id, currency=currency, bank_code=BANK, account_number=NUMBER
            )
        )

    async def withdraw(self, minor: int = 1_000, *, till: Till | None = None, **changes: Any) -> Payout:
        """Ann withdraws, unless told otherwise."""
        user_id = changes.pop("user_id", ANN)
        ask: dict[str, Any] = {
            "key": f"k{next(self._keys)}",
            "amount": Amount(minor=minor),
            "currency": None,
            "pin": PIN,
            **changes,
        }
        if "bank_account_id" not in ask:
            ask["bank_account_id"] = (await self.account(user_id)).id
        return await (till or self.till).payouts.withdraw(user_id, **ask)

    async def now(self, payout: Payout) -> Payout:
        """A payout as it is now."""
        found = await PayoutStore(self.db).find(payout.id)
        assert found is not None
        return found

    async def wallet(self, user_id: str = ANN, currency: str = "NGN") -> Wallet:
        found = await self.till.ledger.wallet(user_id, currency)
        assert found is not None
        return found

    async def pass_and_run(self, seconds: float, *tills: Till) -> None:
        """Time passes, and the jobs of some processes run (those of the first one, without any)."""
        self.clock.pass_(seconds)
        for till in tills or (self.till,):
            await till.run()

    async def until(
        self, payout: Payout, *stages: Stage, hours: int = 2, till: Till | None = None, seconds: int = 60
    ) -> Payout:
        """Let time pass in small steps until the payout is in one of the stages."""
        for _ in range(hours * 3_600 // seconds):
            found = await self.now(payout)
            if found.stage in stages:
                return found
            await self.pass_and_run(seconds, till or self.till)
        raise AssertionError(f"it is {found.stage.value}")

    async def split(self, user_id: str = ANN, currency: str = "NGN") -> tuple[int, int]:
        """What is there, and what is held."""
        wallet = await self.wallet(user_id, currency)
        return wallet.primary, wallet.primary_held

    async def books(self) -> None:
        """Everything that the audit knows agrees; the money of these tests comes from nowhere (I11 of ``test``)."""
        report = await audit(self.db, self.clock.now())
        wrong = [
            one for one in report.findings if one.row != "gateway:test:clearing" and "pay:test" not in one.row
        ]
        assert wrong == [], report
