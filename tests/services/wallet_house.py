"""What the tests of wallets share: people with accounts, money, and as many processes as a test wants."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Entry, Kind, Leg, Pocket, Wallet, account_of, clearing, wallet_key
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.users.service import Users
from models.users.store import UserStore
from models.wallet.rules import Amount
from models.wallet.service import Transfer, Wallets
from models.wallet.store import WalletStore
from tests.fakes import CountingIds, VirtualClock

ANN, BOB, EVE = (f"01950000-0000-7000-8000-0000000000a{n}" for n in range(3))
NOBODY = "01950000-0000-7000-8000-0000000000ff"
PIN, OTHER_PIN, WRONG = "4071", "8253", "9146"
PASSWORD = "correct horse battery"
PEPPER = b"a pepper of the tests"


@dataclass
class PlainHasher:
    """Hashes at no cost, counted; ``busy`` refuses as a full queue does."""

    verified: list[str] = field(default_factory=list)
    busy: bool = False

    async def hash(self, password: str) -> str:
        self.refuse_if_busy()
        return hashlib.sha256(password.encode()).hexdigest()

    async def verify(self, password: str, kept: str | None) -> bool:
        self.refuse_if_busy()
        self.verified.append(password)
        return hashlib.sha256(password.encode()).hexdigest() == kept

    def outdated(self, kept: str) -> bool:
        return False

    def refuse_if_busy(self) -> None:
        if self.busy:
            raise Refusal("SERVER_BUSY")


class OnePassword:
    """Accounts whose password is ``PASSWORD``."""

    async def check_password(self, user_id: str, password: str) -> None:
        if password != PASSWORD:
            raise Refusal("PASSWORD_WRONG")


@dataclass
class Process:
    """One server process: its ledger with locks of its own, its wallets, and whom it told of what."""

    db: Database
    ledger: Ledger
    wallets: Wallets
    hasher: PlainHasher
    told: list[tuple[Wallet, ...]] = field(default_factory=list)

    async def listen(self, wallets: Sequence[Wallet], entries: Sequence[Entry]) -> None:
        self.told.append(tuple(wallets))


@dataclass
class House:
    """A database with three people, and processes on it."""

    db: Database
    clock: VirtualClock
    ids: CountingIds

    def __post_init__(self) -> None:
        self.users = Users(store=UserStore(self.db), clock=self.clock)
        self.one = self.process()
        self._keys = iter(range(1, 10_000))

    @property
    def wallets(self) -> Wallets:
        return self.one.wallets

    def process(self, db: Database | None = None, *, pepper: bytes = PEPPER) -> Process:
        db = db or self.db
        ledger, hasher = Ledger(LedgerStore(db), self.clock, self.ids), PlainHasher()
        wallets = Wallets(
            ledger=ledger,
            store=WalletStore(db),
            users=Users(store=UserStore(db), clock=self.clock),
            hasher=hasher,
            passwords=OnePassword(),
            clock=self.clock,
            currency="NGN",
            pepper=pepper,
        )
        process = Process(db, ledger, wallets, hasher)
        ledger.listeners.append(process.listen)
        return process

    async def add_user(self, user_id: str, name: str, status: str = "active") -> None:
        row = {"_id": user_id, "username": name, "username_key": name, "display_name": name.title()}
        row |= {"display_key": name, "email": f"{name}@x.test", "email_key": f"{name}@x.test"}
        row |= {"password_hash": "-", "avatar_url": None, "rate_per_minute_minor": None, "currency": "NGN"}
        now = self.clock.now()
        row |= {"role": "user", "status": status}
        await self.db["users"].insert_one({**row, "created_at": now, "updated_at": now})

    async def rich(self, user_id: str, minor: int = 10_000, currency: str = "NGN") -> Wallet:
        """Somebody with a PIN and money."""
        if await WalletStore(self.db).pin(user_id) is None:
            await self.wallets.create(user_id, PIN, currency)
        else:
            await self.one.ledger.ensure(user_id, currency)
        return await self.fund(user_id, minor, currency)

    async def fund(
        self, user_id: str, minor: int, currency: str = "NGN", pocket: Pocket = Pocket.PRIMARY
    ) -> Wallet:
        key = wallet_key(user_id, currency)
        entry = Entry(
            id=f"pay:test:{next(self._keys)}",
            kind=Kind.DEPOSIT,
            at=self.clock.now(),
            legs=(Leg(clearing("test"), -minor, currency), Leg(account_of(key, pocket), minor, currency)),
        )
        return (await self.one.ledger.post([key], lambda _: [entry])).wallets[key]

    async def move(self, process: Process | None = None, **changes: Any) -> Transfer:
        """Ann sends Bob 1000, unless told otherwise."""
        ask: dict[str, Any] = {
            "user_id": ANN,
            "key": f"k{next(self._keys)}",
            "to": BOB,
            "amount": Amount(minor=1000),
            "currency": None,
            "pin": PIN,
            "note": None,
            **changes,
        }
        return await (process or self.one).wallets.transfer(ask.pop("user_id"), **ask)

    async def balance(self, user_id: str, currency: str = "NGN") -> int:
        wallet = await self.one.ledger.wallet(user_id, currency)
        return wallet.primary if wallet else 0


async def refused(work: Any) -> Refusal:
    """What something is refused with."""
    with pytest.raises(Refusal) as no:
        await work
    return no.value


async def code_of(work: Any) -> str:
    """The code with which something is refused."""
    return (await refused(work)).code


async def journal_sums(db: Database) -> Mapping[str, int]:
    """The sum of the legs of every account."""
    sums: dict[str, int] = defaultdict(int)
    async for entry in db["journal"].find({}):
        for leg in entry["legs"]:
            sums[leg["account"]] += leg["amount"]
    return sums


async def books_agree(db: Database) -> None:
    """Every balance is the sum of its legs and not negative, and every version is an entry."""
    sums = await journal_sums(db)
    assert sum(sums.values()) == 0
    async for wallet in db["wallets"].find({}):
        for pocket, balance in wallet["balances"].items():
            sign = -1 if pocket == "owed" else 1
            assert balance == sign * sums.get(f"wallet:{wallet['_id']}:{pocket}", 0)
            assert balance >= 0
        links = await db["journal"].count_documents({"seals.wallet": wallet["_id"]})
        assert wallet["version"] == links
