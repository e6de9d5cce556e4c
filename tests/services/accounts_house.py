"""What the tests of accounts and people share: processes on one database, with real hashes at the lowest cost."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from models.auth.apikeys.service import ApiKeys
from models.auth.apikeys.store import ApiKeyStore
from models.auth.codes.ports import Brought
from models.auth.codes.rules import Message, Way
from models.auth.codes.service import Codes
from models.auth.codes.store import CodeStore
from models.auth.guesses import Guesses
from models.auth.known import KnownDevices
from models.auth.oauth.rules import Provider
from models.auth.oauth.service import Keys, OAuth
from models.auth.oauth.store import IdentityStore
from models.auth.second.service import SecondFactors
from models.auth.second.store import FactorStore
from models.auth.second.vault import Vault
from models.auth.service import Accounts, SignedIn, SignInDevice
from models.auth.stewards import Stewards
from models.auth.store import AccountStore
from models.auth.strength import AnyStrength
from models.auth.tries.store import TryStore
from models.db import Database
from models.errors import Refusal
from models.trail.rules import Actor
from models.trail.service import Trail
from models.trail.store import TrailStore
from models.users.service import Users
from models.users.store import UserStore
from server.adapters.passwords import Passwords
from server.limits import LocalWindows
from tests.fakes import CountingChance, CountingIds, FakeDoors, VirtualClock

SECRET = "0123456789abcdef0123456789abcdef"
PASSWORD = "correct horse battery"
# Who does it and why, where a test is about something else.
BY: dict[str, Any] = {"by": Actor.operator("the tests"), "reason": "because"}


class CountingHasher:
    """Real hashes, counted."""

    def __init__(self, real: Passwords) -> None:
        self.real = real
        self.done: list[str] = []

    async def hash(self, password: str) -> str:
        self.done.append("hash")
        return await self.real.hash(password)

    async def verify(self, password: str, kept: str | None) -> bool:
        self.done.append("verify")
        return await self.real.verify(password, kept)

    def outdated(self, kept: str) -> bool:
        return self.real.outdated(kept)


@dataclass
class FakeCalls:
    """Remembers what calls were asked to do; ``broken`` makes the next ``forget`` or ``end_all`` fail."""

    done: list[tuple[str, ...]] = field(default_factory=list)
    broken: BaseException | None = None

    async def end_all(self, user_id: str) -> None:
        self.done.append(("end_all", user_id))

    async def end_between(self, user_id: str, other_id: str) -> None:
        self.done.append(("end_between", user_id, other_id))

    async def forget(self, user_id: str) -> None:
        if self.broken is not None:
            error, self.broken = self.broken, None
            raise error
        self.done.append(("forget", user_id))


@dataclass
class FakeMessenger:
    """Remembers what was brought; ``says`` are its next answers, and there is no way in ``missing``."""

    brought: list[Message] = field(default_factory=list)
    says: list[Brought | BaseException] = field(default_factory=list)
    missing: set[Way] = field(default_factory=set)

    def reaches(self, way: Way) -> bool:
        return way not in self.missing

    async def bring(self, message: Message) -> Brought:
        self.brought.append(message)
        said = self.says.pop(0) if self.says else Brought.YES
        if isinstance(said, BaseException):
            raise said
        return said

    def code(self) -> str:
        """The code in the newest message."""
        found = re.search(r"\b[0-9]{8}\b", self.brought[-1].text)
        assert found is not None
        return found[0]


@dataclass
class Process:
    """One server process: its verbs, its sockets, its calls."""

    accounts: Accounts
    users: Users
    doors: FakeDoors
    calls: FakeCalls
    hasher: CountingHasher


@dataclass
class House:
    """A database, a clock, and as many processes as a test wants."""

    db: Database
    clock: VirtualClock
    ids: CountingIds
    passwords: Passwords

    def __post_init__(self) -> None:
        self.chance = CountingChance()
        self.messenger = FakeMessenger()
        self.known, self.windows = KnownDevices(SECRET), LocalWindows()
        self.providers: dict[str, tuple[Provider, Keys]] = {}
        self.store = AccountStore(
            self.db, [FactorStore(self.db), CodeStore(self.db), IdentityStore(self.db), ApiKeyStore(self.db)]
        )
        self.people = UserStore(self.db)
        self.stewards = Stewards(
            store=self.store,
            people=self.people,
            factors=FactorStore(self.db),
            trail=Trail(store=TrailStore(self.db), clock=self.clock),
            clock=self.clock,
            ids=self.ids,
        )
        self.one = self.process()

    def process(self, *, store: Any = None, passwords: Passwords | None = None) -> Process:
        doors, calls, hasher = FakeDoors(), FakeCalls(), CountingHasher(passwords or self.passwords)
        accounts = Accounts(
            store=store or self.store,
            clock=self.clock,
            ids=self.ids,
            doors=doors,
            calls=calls,
            hasher=hasher,
            factors=self.factors(),
            codes=self.codes(),
            oauth=self.oauth(),
            api_keys=ApiKeys(
                store=ApiKeyStore(self.db), accounts=self.store, clock=self.clock, chance=self.chance
            ),
            guesses=self.guesses(),
            chance=self.chance,
            strength=AnyStrength(),
            secret=SECRET,
            access_token_seconds=900,
            refresh_token_days=30,
            currency="NGN",
        )
        users = Users(store=UserStore(self.db), clock=self.clock, calls=calls)
        return Process(accounts, users, doors, calls, hasher)

    def factors(self) -> SecondFactors:
        """The second factors of one process."""
        return SecondFactors(
            store=FactorStore(self.db),
            tries=TryStore(self.db),
            vault=Vault(SECRET, self.chance),
            clock=self.clock,
            chance=self.chance,
            issuer="Ringmeter",
        )

    def guesses(self) -> Guesses:
        """The locks of one process."""
        return Guesses(tries=TryStore(self.db), known=self.known, clock=self.clock, pepper=b"pepper")

    def oauth(self) -> OAuth:
        """The ways in by others of one process; ``providers`` says which there are."""
        return OAuth(
            providers=self.providers,
            identities=IdentityStore(self.db),
            store=self.store,
            factors=self.factors(),
            clock=self.clock,
        )

    def codes(self) -> Codes:
        """The codes of one process."""
        return Codes(
            store=CodeStore(self.db),
            accounts=self.store,
            people=self.people,
            tries=TryStore(self.db),
            messenger=self.messenger,
            known=self.known,
            windows=self.windows,
            clock=self.clock,
            ids=self.ids,
            chance=self.chance,
            pepper=b"pepper",
            house="Ringmeter",
        )

    async def joins(self, name: str = "ada", **more: Any) -> SignedIn:
        """Register somebody of that name."""
        ask: dict[str, Any] = {
            "email": f"{name}@example.com",
            "phone": None,
            "username": name,
            "password": PASSWORD,
            "display_name": None,
            "device": SignInDevice(id=f"{name}-phone", name="Phone", platform="ios"),
            **more,
        }
        return await self.one.accounts.register(**ask)

    async def signs_in(self, name: str = "ada", password: str = PASSWORD) -> SignedIn:
        """Sign somebody in on one more device."""
        return await self.one.accounts.login(identifier=name, password=password, device=SignInDevice())

    async def who(self, signed_in: SignedIn) -> tuple[str, str]:
        """The user's and the session's id of a sign-in."""
        identity = await self.one.accounts.authenticate(signed_in.tokens.access_token)
        return identity.user_id, identity.session_id

    async def count(self, collection: str, **query: Any) -> int:
        return await self.db[collection].count_documents(query)


async def code_of(work: Any) -> str:
    """The code with which something is refused."""
    with pytest.raises(Refusal) as no:
        await work
    return no.value.code
