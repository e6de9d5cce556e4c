"""What the tests of payments share: a gateway that can be told anything, people who pay, and money in one step."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from typing import Any

from models.audit.service import audit
from models.db import Database, Session
from models.ledger.journal import Entry, Wallet, wallet_key
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.payments import rules
from models.payments.gateway import (
    About,
    Bank,
    BankAccount,
    CardToken,
    Checkout,
    GatewayAway,
    GatewayNo,
    Notice,
    NoticeInvalid,
    Opened,
    PaymentSeen,
    PayoutAsk,
    PayoutSeen,
    PayState,
    RefundAsk,
    RefundSeen,
    RefundState,
    Terms,
)
from models.payments.inbox.service import Inbox
from models.payments.inbox.store import InboxStore
from models.payments.looking import Looking
from models.payments.payment import Asked, Payment, Refund, Status
from models.payments.refunds.service import Refunds
from models.payments.refunds.store import RefundStore
from models.payments.service import Payments
from models.payments.store import PaymentStore
from models.ports import Clock
from models.users.service import Users
from models.users.store import UserStore
from models.wallet.rules import Amount
from models.wallet.service import Wallets
from models.wallet.store import WalletStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.wallet_house import ANN, BOB, PEPPER, PIN, OnePassword, PlainHasher

CARD = CardToken(token="tok-secret", last4="4242", brand="visa", expires="12/2030")
SIGNED = {"till-signature": "good"}
# Events of all tills have ids of their own: several are told to one database.
_EVENTS = count(1)


async def fund(
    ledger: Ledger,
    payments: PaymentStore,
    clock: Clock,
    user_id: str,
    minor: int,
    *,
    key: str,
    into: str = "primary",
    currency: str = "NGN",
    gateway: str = "sandbox",
) -> Wallet:
    """Money as a payment that was completed; the wallet after it. With the same ``key`` once."""
    wallet = await ledger.ensure(user_id, currency)
    reference = rules.reference_of(user_id, key)
    payment = Payment(
        id=reference,
        reference=reference,
        user_id=user_id,
        gateway=gateway,
        amount_minor=minor,
        currency=currency,
        into=into,
        status=Status.COMPLETED,
        checkout_url=None,
        created_at=clock.now(),
        asked=(Asked(reference=reference, paid_minor=minor),),
        paid_minor=minor,
        credits=1,
        version=1,
        completed_at=clock.now(),
    )

    def plan(wallets: Mapping[str, Wallet]) -> list[Entry]:
        mine = wallets[wallet.key]
        return [rules.credit(mine, payment, number=1, amount_minor=minor, now=clock.now())]

    async def also(session: Session) -> None:
        await payments.add(payment, session)

    return (await ledger.post([wallet.key], plan, also=also)).wallets[wallet.key]


# ------------------------------------------------------------------------------------------------------- the gateway


@dataclass
class Till:
    """A gateway whose tests decide what it knows and when it fails.

    ``fail`` queues a fault for a verb: before it does anything, or (``after``) when it has done it. What it answers is
    in ``payments``, by reference; ``asked`` counts its verbs.
    """

    name: str = "till"
    terms: Terms = field(
        default_factory=lambda: Terms(
            currencies=frozenset({"NGN", "USD", "KWD"}), least_minor={"NGN": 100, "USD": 50}
        )
    )
    opened: dict[str, Checkout] = field(default_factory=dict)
    payments: dict[str, PaymentSeen] = field(default_factory=dict)
    refunds: dict[str, RefundSeen] = field(default_factory=dict)
    refund_state: RefundState = RefundState.DONE
    asked: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[tuple[Exception, bool]]] = field(default_factory=lambda: defaultdict(list))
    down: bool = False

    def fail(self, verb: str, fault: Exception, *, after: bool = False) -> None:
        self.faults[verb].append((fault, after))

    # -- what happens at it

    def pays(self, reference: str, minor: int | None = None, currency: str | None = None) -> None:
        """The payer pays, in all so much."""
        ask = self.opened[reference]
        self.now(
            reference,
            state=PayState.PAID,
            paid_minor=ask.amount_minor if minor is None else minor,
            currency=currency or ask.currency,
            card=CARD,
            word="PAID",
        )

    def now(self, reference: str, **changes: Any) -> None:
        """It stands so now."""
        self.payments[reference] = replace(self.payments[reference], **changes)

    def tells(
        self, reference: str, *, about: str = "payment", event: str | None = None, **more: Any
    ) -> bytes:
        """The bytes of a notification."""
        said = {"id": event or f"evt-{next(_EVENTS)}", "about": about, "reference": reference, **more}
        return json.dumps(said).encode()

    # -- the port

    async def _verb(self, name: str, work: Any) -> Any:
        self.asked[name] += 1
        if self.down:
            raise GatewayAway("down", sent=False)
        fault, after = self.faults[name].pop(0) if self.faults[name] else (None, False)
        if fault is not None and not after:
            raise fault
        done = work()
        if fault is not None:
            raise fault
        return done

    async def checkout(self, ask: Checkout) -> Opened:
        return await self._verb("checkout", lambda: self._checkout(ask))  # type: ignore[no-any-return]

    def _checkout(self, ask: Checkout) -> Opened:
        if ask.reference in self.opened:
            raise GatewayNo("duplicate", taken=True)
        self.opened[ask.reference] = ask
        theirs = f"T|{len(self.opened)}"
        self.payments[ask.reference] = PaymentSeen(
            reference=ask.reference, gateway_reference=theirs, state=PayState.PENDING, currency=ask.currency
        )
        return Opened(checkout_url=f"https://till.test/{ask.reference}", gateway_reference=theirs)

    async def query(self, reference: str, gateway_reference: str | None) -> PaymentSeen | None:
        return await self._verb("query", lambda: self.payments.get(reference))  # type: ignore[no-any-return]

    def parse(self, raw: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        if headers.get("till-signature") != "good":
            raise NoticeInvalid("signature")
        try:
            said = json.loads(raw)
            return Notice(
                id=said["id"],
                about=About(said["about"]),
                word=said.get("word", ""),
                reference=said.get("reference"),
                gateway_reference=said.get("gatewayReference"),
            )
        except (ValueError, KeyError, TypeError) as fault:
            raise NoticeInvalid("unreadable") from fault

    async def refund(self, ask: RefundAsk) -> RefundSeen:
        return await self._verb("refund", lambda: self._refund(ask))  # type: ignore[no-any-return]

    def _refund(self, ask: RefundAsk) -> RefundSeen:
        if ask.reference in self.refunds:
            raise GatewayNo("duplicate", taken=True)
        seen = RefundSeen(reference=ask.reference, state=self.refund_state, gateway_reference="R|1")
        self.refunds[ask.reference] = seen
        return seen

    async def refund_status(self, ask: RefundAsk, gateway_reference: str | None) -> RefundSeen | None:
        return await self._verb("refund_status", lambda: self.refunds.get(ask.reference))  # type: ignore[no-any-return]

    async def banks(self, currency: str) -> list[Bank]:
        return []

    async def account_name(self, account: BankAccount, currency: str) -> str | None:
        return None

    async def pay_out(self, ask: PayoutAsk) -> PayoutSeen:
        raise GatewayNo("none")

    async def payout_status(self, reference: str, gateway_reference: str | None) -> PayoutSeen | None:
        return None

    async def authorize_payout(
        self, reference: str, gateway_reference: str | None, password: str
    ) -> PayoutSeen:
        raise GatewayNo("none")

    async def resend_password(self, reference: str, gateway_reference: str | None) -> None:
        raise GatewayNo("none")

    async def close(self) -> None:
        pass


# --------------------------------------------------------------------------------------------------------- the house


@dataclass
class Process:
    """One server process on the database."""

    db: Any
    ledger: Ledger
    wallets: Wallets
    payments: Payments
    refunds: Refunds
    inbox: Inbox
    told: list[Payment]
    counts: Counter[str]

    async def payment(self, payment: Payment) -> None:
        """As an announcer: note it, each version once, as a mailbox does."""
        if payment.version not in [one.version for one in self.told if one.id == payment.id]:
            self.told.append(payment)

    async def jobs(self) -> None:
        """All jobs, one turn."""
        await self.inbox.run()
        await self.payments.run_looks()
        await self.refunds.run()
        await self.payments.looking.tell_missed()


class House:
    """A database with people, a till, and processes. ``told`` is what the mailboxes of all processes hold."""

    def __init__(self, db: Database, clock: VirtualClock, ids: CountingIds) -> None:
        self.db, self.clock, self.ids = db, clock, ids
        self.till = Till()
        self.told: list[Payment] = []
        self.counts: Counter[str] = Counter()
        self.one = self.process()

    def process(self, db: Any = None, till: Any = None) -> Process:
        db = db or self.db
        ledger = Ledger(LedgerStore(db), self.clock, self.ids)
        users = Users(store=UserStore(db), clock=self.clock)
        wallets = Wallets(
            ledger=ledger,
            store=WalletStore(db),
            users=users,
            hasher=PlainHasher(),
            passwords=OnePassword(),
            clock=self.clock,
            currency="NGN",
            pepper=PEPPER,
        )
        gateways = {self.till.name: till or self.till}

        def tally(gateway: str, what: str) -> None:
            self.counts[what] += 1

        looking = Looking(
            gateways=gateways, store=PaymentStore(db), ledger=ledger, clock=self.clock, count=tally
        )
        payments = Payments(
            looking=looking,
            gateways=gateways,
            default=self.till.name,
            ledger=ledger,
            wallets=wallets,
            users=users,
            clock=self.clock,
            ids=self.ids,
            return_url=lambda reference: f"https://app.test/?payment={reference}",
            count=tally,
        )
        refunds = Refunds(
            looking=looking,
            gateways=gateways,
            store=RefundStore(db),
            ledger=ledger,
            clock=self.clock,
            ids=self.ids,
            count=tally,
        )
        inbox = Inbox(gateways=gateways, store=InboxStore(db), clock=self.clock, count=tally)
        inbox.hears = {About.PAYMENT: payments.heard, About.REFUND: refunds.heard}
        made = Process(db, ledger, wallets, payments, refunds, inbox, self.told, self.counts)
        looking.announcers.append(made)
        return made

    async def people(self, *users: str) -> None:
        """Active users with a wallet."""
        now = self.clock.now()
        for user_id in users:
            name = f"n{user_id[-4:]}"
            row = {"_id": user_id, "username": name, "username_key": name, "display_name": name.title()}
            row |= {"display_key": name, "email": f"{name}@x.test", "email_key": f"{name}@x.test"}
            row |= {"password_hash": "-", "avatar_url": None, "rate_per_minute_minor": None}
            row |= {"currency": "NGN", "role": "user", "status": "active"}
            await self.db["users"].insert_one({**row, "created_at": now, "updated_at": now})
            await self.one.wallets.create(user_id, PIN)

    async def deposit(self, process: Process | None = None, **changes: Any) -> Payment:
        """Ann begins to pay 1000 in, unless told otherwise."""
        ask: dict[str, Any] = {
            "user_id": ANN,
            "key": None,
            "amount": Amount(minor=changes.pop("minor", 1000)),
            "currency": None,
            "gateway": None,
            "into": "primary",
            **changes,
        }
        return await (process or self.one).payments.deposit(ask.pop("user_id"), **ask)

    async def paid(self, minor: int | None = None, **changes: Any) -> Payment:
        """Ann has begun to pay, and paid."""
        payment = await self.deposit(**changes)
        self.till.pays(payment.reference, minor)
        return (await self.one.payments.verify(payment.user_id, payment.reference)).payment

    async def verify(self, payment: Payment, process: Process | None = None) -> Payment:
        """The client asks, long enough after the last time."""
        self.clock.pass_(rules.VERIFY_SECONDS)
        verify = (process or self.one).payments.verify
        return (await verify(payment.user_id, payment.reference)).payment

    async def tell(self, raw: bytes, process: Process | None = None) -> None:
        """The gateway delivers a notification, and it is worked off."""
        await (process or self.one).inbox.take("till", raw, SIGNED)
        await (process or self.one).inbox.run()

    async def fresh(self, payment: Payment) -> Payment:
        found = await PaymentStore(self.db).find(payment.id)
        assert found is not None
        return found

    async def refund(self, refund: Refund) -> Refund:
        found = await RefundStore(self.db).find(refund.id)
        assert found is not None
        return found

    async def wallet(self, user_id: str = ANN, currency: str = "NGN") -> Wallet:
        return (await LedgerStore(self.db).wallets([wallet_key(user_id, currency)]))[f"{user_id}:{currency}"]

    async def money(self, user_id: str = ANN) -> tuple[int, int]:
        """Primary and call credits."""
        wallet = await self.wallet(user_id)
        return wallet.primary, wallet.credits

    async def entries(self, payment: Payment) -> dict[str, int]:
        """What each entry of a payment does to the clearing account, negative for what came in."""
        found: dict[str, int] = {}
        async for d in self.db["journal"].find({"payment_id": payment.id}):
            legs = [leg["amount"] for leg in d["legs"] if leg["account"].startswith("gateway:")]
            found[d["_id"]] = sum(legs)
        return found

    async def books(self) -> None:
        """The audit of the whole database has nothing to say."""
        report = await audit(self.db, self.clock.now())
        assert report.clean, str(report)

    def statuses(self, payment: Payment) -> list[str]:
        """What its owner was told of a payment, in order."""
        return [one.status.value for one in self.told if one.id == payment.id]


__all__ = ["ANN", "BOB", "CARD", "PIN", "SIGNED", "House", "Till", "fund"]
