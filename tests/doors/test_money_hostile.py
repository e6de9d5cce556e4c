"""Ten thousand hostile notifications through the real server: at the end every wallet has what was really paid.

Three stand-ins of gateways keep their own books of what payers and banks did. Notifications are sent again and again,
in any order, to the wrong gateway, unsigned, re-written, with other amounts, currencies and references under a right
signature; checkouts, looks and payouts fail in every way in between. Nothing but the books may show in the balances.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from models.audit.service import audit
from models.errors import CODES, Refusal
from models.payments.rules import reference_of
from server.clock import SystemClock
from tests.doors.conftest import House, Person, open_house
from tests.fakes import VirtualClock
from tests.services.wallet_house import PIN
from tests.standins import monnify, paystack, stripe
from tests.standins.gatewaykit import Hook, StandIn, broken, changed, rewritten, unsigned

SEED = 6
DELIVERIES = 10_000
ROUNDS = 16
PAYMENTS = 128
WITHDRAWALS = 80
PEOPLE = 12
# Several at once; every eighth of these lines is a connection, the others go to the verb behind the door.
LINES = 16
BY_HTTP = 8
# A payment's reference without the number of its further checkouts.
BASE = 28

OPENS = {"monnify": "init", "paystack": "initialize", "stripe": "create"}
LOOKS = {"monnify": ("status", "query"), "paystack": ("verify",), "stripe": ("retrieve", "search")}
# What the answers of a moving request suffer, and those of a look.
LOST = ("ok", "ok", "ok", "500", "cut", "429", "500_after", "cut_after", "html_after", "half_after")
AWAY = ("ok", "500", "cut", "cut_after", "half_after", "429")


@dataclass
class Town:
    """The house, its people, the gateways, and every notification that was ever sent."""

    house: House
    clock: VirtualClock
    chance: random.Random
    gateways: dict[str, Any]
    people: list[Person] = field(default_factory=list)
    banks: dict[str, tuple[Person, str]] = field(default_factory=dict)
    asked: list[tuple[Person, dict[str, Any], str]] = field(default_factory=list)
    pool: list[tuple[str, Hook]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    # --- what people, payers and banks do

    async def move_in(self) -> None:
        """Everybody registers and opens a wallet."""
        for _ in range(PEOPLE):
            person = await self.house.person("hostile")
            answer = await person.post("/api/wallet/create", {"pin": PIN})
            assert answer.status == 201, answer.body
            account = f"{len(self.people):010d}"
            for name in ("monnify", "paystack"):
                self.gateways[name].accounts["058", account] = person.username.upper()
            made = await person.post(
                "/api/wallet/bank-accounts", {"bankCode": "058", "accountNumber": account}
            )
            assert made.status == 201, made.body
            self.people.append(person)
            self.banks[account] = (person, made.body["bankAccount"]["id"])

    async def begin(self, number: str) -> None:
        """Somebody begins a payment; the gateway may fail in the middle of it, and then it is tried again."""
        name = self.chance.choice(list(self.gateways))
        body = {
            "amountMinor": self.chance.randrange(6_000, 900_000),
            "gateway": name,
            "into": self.chance.choice(["primary", "call_credits"]),
        }
        person, key = self.chance.choice(self.people), f"hostile-{number}"
        self.gateways[name].stumble(OPENS[name], self.chance.choice(LOST))
        self.gateways[name].hook_first = self.chance.random() < 0.2
        self.asked.append((person, body, key))
        await self.ask(person, body, key)

    async def ask(self, person: Person, body: dict[str, Any], key: str) -> None:
        """Ask for a checkout, again under the same key too."""
        answer = await person.post("/api/wallet/deposit", body, headers={"Idempotency-Key": key})
        assert answer.status in (201, 503), answer.body

    async def payer(self) -> None:
        """A payer or his bank does something with one of the payments that were opened."""
        name = self.chance.choice(list(self.gateways))
        gateway = self.gateways[name]
        if not gateway.payments:
            return
        one = self.chance.choice(list(gateway.payments.values()))
        asked, paid = one.asked_minor, one.paid_minor
        match self.chance.randrange(10):
            case 0 | 1 | 2 | 3 if not paid:
                await gateway.pay(one.reference)
            case 4 if not paid:
                await gateway.pay(one.reference, asked - self.chance.randrange(1, 5_000))
            case 5 if not paid:
                await gateway.pay(one.reference, asked + self.chance.randrange(1, 5_000))
            case 6 if paid and paid < asked and one.paid_currency == one.currency and not one.reversed_minor:
                await gateway.pay(one.reference, asked - paid)
            case 7 if not paid and self.chance.random() < 0.3:
                await gateway.pay(one.reference, currency="USD")
            case 8 if not paid and self.chance.random() < 0.3:
                await gateway.end(one.reference, "EXPIRED" if name == "stripe" else "FAILED")
            case 9 if paid and self.chance.random() < 0.3:
                await gateway.end(one.reference, "REVERSED")

    async def withdraw(self, number: str) -> None:
        """Somebody withdraws; the gateway may fail in the middle of it, and nobody tries that again."""
        person, bank_account = self.chance.choice(list(self.banks.values()))
        body = {
            "bankAccountId": bank_account,
            "amountMinor": self.chance.randrange(10_000, 90_000),
            "pin": PIN,
        }
        for name in ("monnify", "paystack"):
            self.gateways[name].stumble("transfer", self.chance.choice(LOST))
        answer = await person.post("/api/wallet/withdraw", body, headers={"Idempotency-Key": number})
        assert answer.status in (202, 402, 403, 409), answer.body
        self.answers["withdrawn"] += answer.status == 202

    async def bank(self) -> None:
        """A bank answers a payout, or gives one back."""
        for name in ("monnify", "paystack"):
            for one in self.gateways[name].payouts.values():
                state, chance = one.state.upper(), self.chance.random()
                if state == "PENDING" and chance < 0.5:
                    await self.gateways[name].settle(one.reference, "SUCCESS" if chance < 0.35 else "FAILED")
                elif state == "SUCCESS" and chance < 0.05:
                    await self.gateways[name].settle(one.reference, "REVERSED")

    async def live(self, turn: int) -> None:
        """Some payments are begun, some are tried again, and some are paid or not."""
        for name, gateway in self.gateways.items():
            for endpoint in LOOKS[name]:
                gateway.stumble(endpoint, *(self.chance.choice(AWAY) for _ in range(3)))
        for number in range(PAYMENTS // ROUNDS):
            await self.begin(f"{turn}-{number}")
        await self.ask(*self.chance.choice(self.asked))
        for number in range(WITHDRAWALS // ROUNDS):
            await self.withdraw(f"out-{turn}-{number}")
        await self.bank()
        while True:
            for _ in range(2 * PAYMENTS // ROUNDS):
                await self.payer()
            self.collect()
            if self.pool:
                return

    # --- what is sent

    def collect(self) -> None:
        """Take what the gateways want to tell into the pool."""
        for name, gateway in self.gateways.items():
            self.pool += [(name, hook) for hook in gateway.hooks]
            gateway.hooks.clear()

    def hostile(self) -> tuple[str, Hook, str]:
        """One of all the notifications so far, spoiled in some way: where it goes, what, and which answer it gets."""
        name, hook = self.chance.choice(self.pool)
        gateway: StandIn = self.gateways[name]
        hook = self.afresh(name, hook)
        other = self.chance.choice(self.pool)[1].about
        match self.chance.randrange(12):
            case 0:
                return name, broken(hook, self.chance), "401"
            case 1:
                return name, unsigned(hook), "401"
            case 2:
                return name, rewritten(hook), "401"
            case 3:
                elsewhere = self.chance.choice([one for one in self.gateways if one != name])
                return elsewhere, hook, "401"
            case 4:
                return "nowhere", hook, "404"
            case 5:
                much = self.chance.choice([1, 10**9, -5, "12.345", None, []])
                spoiled = changed(
                    gateway, hook, amountPaid=much, amount=much, amount_total=much, settlementAmount=much
                )
                return name, spoiled, "200"
            case 6:
                return (
                    name,
                    changed(gateway, hook, currency="KWD", paymentStatus="PAID", status="success"),
                    "200",
                )
            case 7:
                named = {"paymentReference": other, "reference": other, "client_reference_id": other}
                return name, changed(gateway, hook, **named), "200"
            case 8:
                unknown = {"paymentReference": f"pay-{uuid4().hex}", "transactionReference": "MNFY|0|0|0"}
                unknown |= {
                    "reference": unknown["paymentReference"],
                    "client_reference_id": "pay-0",
                    "id": "cs_0",
                }
                return name, changed(gateway, hook, **unknown), "200"
            case 9 if name == "stripe":
                at = int(self.clock.now().timestamp()) + self.chance.choice([-4_000, -301, 301, 90_000])
                assert isinstance(gateway, stripe.StripeStandIn)
                return name, gateway.sign(hook.raw, hook.about, at=at), "401"
        return name, hook, "200"

    def afresh(self, name: str, hook: Hook) -> Hook:
        """A notification as it is sent now: Stripe's have the time of each try."""
        gateway: StandIn = self.gateways[name]
        return gateway.sign(hook.raw, hook.about) if name == "stripe" else hook

    async def hand_over(self, due: list[tuple[str, Hook, str]]) -> None:
        """To the verb behind the door."""
        for name, hook, expected in due:
            headers = {field.lower(): value for field, value in hook.headers.items()}
            try:
                await self.house.services.inbox.take(name, hook.raw, headers)
                answer = "200"
            except Refusal as refusal:
                answer = str(CODES[refusal.code].status)
            assert answer == expected, (name, expected, answer, hook)
            self.answers[answer] += 1

    async def early(self, name: str, hook: Hook) -> int:
        """A notification that comes while our own request waits for its answer."""
        headers = {field.lower(): value for field, value in hook.headers.items()}
        await self.house.services.inbox.take(name, hook.raw, headers)
        self.answers["early"] += 1
        return 200

    async def send(self, due: list[tuple[str, Hook, str]]) -> None:
        """Through the door, one after the other on a connection, without waiting for the answers in between."""
        host, port = self.house.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for name, hook, _ in due:
            head = "".join(f"{field}: {value}\r\n" for field, value in hook.headers.items())
            line = f"POST /api/payments/webhooks/{name} HTTP/1.1\r\nHost: {host}\r\n"
            writer.write(f"{line}{head}Content-Length: {len(hook.raw)}\r\n\r\n".encode() + hook.raw)
        for name, hook, expected in due:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            found = re.search(r"content-length: (\d+)", head, re.I)
            assert found is not None, head
            said = await reader.readexactly(int(found[1]))
            assert head.split(" ", 2)[1] == expected, (name, expected, head, said, hook)
            self.answers[expected] += 1
        writer.close()
        await writer.wait_closed()

    async def storm(self, many: int, *, again: bool = False) -> None:
        """So many of them, several at once; ``again``: all that there ever were, as they were."""
        due = [self.hostile() for _ in range(many)]
        if again:
            due = [(name, self.afresh(name, hook), "200") for name, hook in self.pool]

        by_http = range(0, LINES, BY_HTTP)
        await asyncio.gather(
            *(
                self.send(due[line::LINES]) if line in by_http else self.hand_over(due[line::LINES])
                for line in range(LINES)
            )
        )

    # --- what the server does by and by

    async def work(self) -> None:
        """Everything that is due now."""
        services = self.house.services
        await services.inbox.run()
        await services.payments.run_looks()
        await services.payouts.work.run_due()

    async def settle(self) -> None:
        """Nothing fails any more, and so much time passes that everything open has been asked for."""
        for gateway in self.gateways.values():
            gateway.recover()
            for one in gateway.payouts.values():
                if one.state.upper() == "PENDING":
                    await gateway.settle(one.reference, "SUCCESS")
        self.collect()
        for seconds in (3_600, 3_600, 86_400, 3_600):
            self.clock.pass_(seconds)
            await self.work()

    def model(self, person: Person) -> int:
        """What a wallet has to be worth, by the gateways' books."""
        owns = {reference_of(person.id, key) for owner, _, key in self.asked if owner is person}
        paid_out = sum(
            one.amount_minor
            for gateway in self.gateways.values()
            for one in gateway.payouts.values()
            if one.state.upper() == "SUCCESS" and self.banks[one.account][0] is person
        )
        return -paid_out + sum(
            minor
            for gateway in self.gateways.values()
            for reference, minor in gateway.paid_total().items()
            if reference[:BASE] in owns
        )

    async def worth(self) -> dict[str, int]:
        """What every wallet is worth in ours."""
        made: dict[str, int] = {}
        for person in self.people:
            wallet = await self.house.services.ledger.wallet(person.id, "NGN")
            made[person.username] = wallet.worth - wallet.owed
        return made


@asynccontextmanager
async def opened(uri: str) -> AsyncIterator[Town]:
    clock = VirtualClock(SystemClock().now())
    gateways: dict[str, Any] = {
        "monnify": monnify.MonnifyStandIn(clock),
        "paystack": paystack.PaystackStandIn(clock),
        "stripe": stripe.StripeStandIn(clock),
    }
    for one in gateways.values():
        await one.start()
    env = {
        "ACCESS_TOKEN_SECONDS": "86400",
        "MONNIFY_API_KEY": monnify.API_KEY,
        "MONNIFY_SECRET_KEY": monnify.SECRET_KEY,
        "MONNIFY_CONTRACT_CODE": monnify.CONTRACT,
        "MONNIFY_ACCOUNT": monnify.ACCOUNT,
        "MONNIFY_URL": gateways["monnify"].url,
        "WITHDRAWAL_MINOR_MIN": "10000",
        "PAYSTACK_SECRET_KEY": paystack.SECRET_KEY,
        "PAYSTACK_URL": gateways["paystack"].url,
        "STRIPE_SECRET_KEY": stripe.SECRET_KEY,
        "STRIPE_WEBHOOK_SECRETS": stripe.WEBHOOK_SECRET,
        "STRIPE_URL": gateways["stripe"].url,
    }
    try:
        async with open_house(uri, clock=clock, **env) as house:
            town = Town(house, clock, random.Random(SEED), gateways)
            for name, one in gateways.items():
                one.post = partial(town.early, name)
            yield town
    finally:
        for one in gateways.values():
            await one.stop()


@pytest.mark.timeout(900)
async def test_ten_thousand_hostile_notifications_leave_every_wallet_at_what_was_paid(mongo_uri: str) -> None:
    async with opened(mongo_uri) as town:
        await town.move_in()
        for turn in range(ROUNDS):
            await town.live(turn)
            await town.storm(DELIVERIES // ROUNDS)
            await town.work()
            town.clock.pass_(town.chance.choice([5, 5, 60, 600]))
        sent = [town.answers[answer] for answer in ("200", "401", "404")]
        assert sum(sent) == DELIVERIES
        assert min(sent) > DELIVERIES // 20
        assert town.answers["early"] > 5
        assert town.answers["withdrawn"] > WITHDRAWALS // 10
        await town.settle()
        model = {person.username: town.model(person) for person in town.people}
        assert await town.worth() == model
        assert sum(model.values()) > 0
        # What has come to rest is not moved by all of it once more.
        await town.storm(len(town.pool), again=True)
        await town.work()
        assert await town.worth() == model
        report = await audit(town.house.db, town.clock.now())
        assert report.findings == [], report.findings
