"""What the tests of the desk share: a paid town, the services of a whole server beside it, and things to decide on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from handlers.services import Services
from models.auth.session import Session, SignInDevice
from models.calls.call import Call
from models.db import Database
from models.db import Session as Transaction
from models.ledger.journal import Kind
from models.payments.payment import Payment
from models.payouts import rules as payout_rules
from models.payouts.payout import Destination, Payout, Stage
from models.sandbox.rules import Button
from models.trail.rules import Actor, Row
from models.trail.store import TrailStore
from models.wallet.rules import Amount
from server.clock import SystemIds
from server.config import load_config
from server.wiring import Edges, wire
from tests.fakes import CountingIds, FakeAlarms, FakeDoors, VirtualClock
from tests.services.billing_house import PaidTown
from tests.services.callkit import Mortal

MOD = Actor.admin("mod", "mod", "10.0.0.7")
WHY: dict[str, Any] = {"by": MOD, "reason": "Because of the rules"}
ENV = {
    "JWT_SECRET": "a secret of the tests, long enough for HS256",
    "BCRYPT_ROUNDS": "4",
    "WITHDRAWAL_MINOR_MIN": "100",
    "WITHDRAWAL_FEE_MINOR": "50",
    "WITHDRAWAL_APPROVAL_MINOR": "5000",
    "EXPO_URL": "http://127.0.0.1:9/",
}
MONEY = 30_000


async def held(
    services: Services, user_id: str, *, minor: int, fee_minor: int = 0, stage: Stage = Stage.APPROVAL
) -> Payout:
    """A withdrawal of somebody with a wallet, with the entry that holds its money."""
    now, payout_id = services.clock.now(), SystemIds().new()
    payout = Payout(
        id=payout_id,
        reference=f"wd-{payout_id}",
        key=payout_id,
        user_id=user_id,
        gateway="sandbox",
        amount_minor=minor,
        fee_minor=fee_minor,
        currency="NGN",
        to=Destination(
            account_id="acc",
            bank_code="058",
            bank_name="Bank",
            account_number="0123456789",
            account_name="ANN",
        ),
        stage=stage,
        stage_at=now,
        created_at=now,
        give_up_at=now + payout_rules.GIVE_UP_AFTER,
        look_at=None if stage is Stage.APPROVAL else now,
    )
    entry = payout_rules.entry(payout, Kind.WITHDRAW_HOLD, now)

    async def also(transaction: Transaction) -> None:
        await services.payouts.store.add(payout, transaction)

    await services.ledger.post([payout.wallet], lambda _: [entry], also=also)
    return payout


class Office:
    """A town of people who pay each other, and the desk of a server on the same database."""

    def __init__(self, db: Database, clock: VirtualClock, ids: CountingIds) -> None:
        self.db, self.clock, self.ids = db, clock, ids
        self.town = PaidTown(db, clock, ids)
        self.here = self.town.process("here")
        self.services = self.process("desk")
        self.desk = self.services.desk

    def process(self, name: str, life: Mortal | None = None) -> Services:
        """All services of a process, mortal if it has a life."""
        edges = Edges(clock=self.clock, ids=SystemIds(), alarms=FakeAlarms(), doors=FakeDoors(), process=name)
        wired = wire(load_config(ENV), cast(Database, life or self.db), edges)
        wired.services.calls.others_live = True
        return wired.services

    async def rows(self, target: str | None = None) -> list[Row]:
        """The trail, the oldest first; of one target only."""
        found = [row async for row in TrailStore(self.db).walk()]
        rows = [row for row in found if isinstance(row, Row)]
        assert len(rows) == len(found)
        return [row for row in rows if target in (None, row.target.id)]

    async def people(self, *names: str, role: str = "user") -> None:
        await self.town.people(*names)
        if role != "user":
            await self.db["users"].update_many({"_id": {"$in": list(names)}}, {"$set": {"role": role}})

    async def person(self, name: str) -> dict[str, Any]:
        found = await self.db["users"].find_one({"_id": name})
        assert found is not None
        return found

    async def call(self, payer: str, payee: str, seconds: int = 60, *, ends: bool = True) -> Call:
        """A paid call between two who live in the town, ended and settled unless it is to go on."""
        if await self.here.ledger.wallet(payer, "NGN") is None:
            await self.town.pay_in(self.here, payer, MONEY)
        one, other = self.town.phone(self.here, payer), self.town.phone(self.here, payee)
        call = await one.request(other)
        await other.accept(call)
        self.clock.pass_(seconds)
        if ends:
            await other.end(call)
        return await self.town.call(call)

    async def sign_in(self, user_id: str) -> str:
        """A session of somebody's; its id."""
        now = self.clock.now()
        session = Session(
            id=self.ids.new(),
            user_id=user_id,
            generation=1,
            device=SignInDevice(),
            created_at=now,
            seen_at=now,
            rotated_at=None,
            expires_at=now + timedelta(days=30),
        )

        async def body(transaction: Any) -> None:
            await self.services.accounts.store.sessions.insert(session, transaction)

        await self.db.transaction(body)
        return session.id

    async def factor(self, user_id: str) -> None:
        """A second factor in use."""
        store, now = self.services.accounts.factors.store, self.clock.now()
        await store.set_up(user_id, b"seed", now + timedelta(hours=1))
        assert await store.enable(user_id, b"seed", step=1, recovery=["0" * 64], now=now)

    async def payout(self, user_id: str, *, minor: int = 8_000, stage: Stage = Stage.APPROVAL) -> Payout:
        """A withdrawal with the entry that holds its money."""
        if await self.here.ledger.wallet(user_id, "NGN") is None:
            await self.town.pay_in(self.here, user_id, MONEY)
        return await held(self.services, user_id, minor=minor, fee_minor=50, stage=stage)

    async def payment(self, user_id: str, minor: int = 6_000) -> Payment:
        """A payment that was paid at the sandbox."""
        services = self.services
        assert services.sandbox is not None
        await services.ledger.ensure(user_id, "NGN")
        begun = await services.payments.deposit(
            user_id,
            key=self.ids.new(),
            amount=Amount(minor=minor),
            currency=None,
            gateway=None,
            into="primary",
        )
        await services.sandbox.press(begun.reference, Button.PAID, seen=1)
        await services.payments.verify(user_id, begun.reference)
        found = await services.payments.store.by_reference(begun.reference)
        assert found is not None
        assert found.paid_minor == minor
        return found
