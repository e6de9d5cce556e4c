"""Handsets with keys of their own, made without chance: what the tests of keys share."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import xeddsa

from handlers.keys import KeysTeller
from models.auth.service import SignedIn, SignInDevice
from models.auth.store import AccountStore
from models.db import Database
from models.keys.keys import Change, DeviceKeys, Kind, Owner, Prekey, Upload
from models.keys.service import Keys
from models.keys.store import KeyStore
from models.mailbox.service import Mailbox
from models.mailbox.store import LETTERS, MailboxStore
from models.users.service import Users
from models.users.store import UserStore
from server.limits import LocalWindows
from tests.fakes import FakeDoors
from tests.services.accounts_house import PASSWORD, House


def noise(name: str, size: int = 32) -> bytes:
    """Bytes that follow from a name."""
    blocks = (hashlib.sha256(f"{name} {n}".encode()).digest() for n in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


@dataclass
class Handset:
    """An app's private identity, and what it uploads."""

    name: str
    private: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.private = xeddsa.seed_to_priv(noise(self.name))

    @property
    def identity(self) -> str:
        return text(b"\x05" + xeddsa.priv_to_curve25519_pub(self.private))

    def signature(self, key: bytes) -> str:
        # The sign of XEdDSA: the key whose Edwards point has the bit 0.
        private = xeddsa.priv_force_sign(self.private, False)
        return text(xeddsa.ed25519_priv_sign(private, key, noise(f"nonce {key.hex()}", 64)))

    def ec(self, key_id: int, *, other: str = "") -> Prekey:
        key = xeddsa.priv_to_curve25519_pub(noise(f"{self.name} ec {key_id}{other}"))
        return Prekey(id=key_id, key=text(b"\x05" + key))

    def signed(self, key_id: int = 1) -> Prekey:
        key = b"\x05" + xeddsa.priv_to_curve25519_pub(noise(f"{self.name} signed {key_id}"))
        return Prekey(id=key_id, key=text(key), signature=self.signature(key))

    def kem(self, key_id: int) -> Prekey:
        key = b"\x08" + noise(f"{self.name} kem {key_id}", 1568)
        return Prekey(id=key_id, key=text(key), signature=self.signature(key))

    def package(self, key_id: int) -> Prekey:
        return Prekey(id=key_id, key=text(noise(f"{self.name} mls {key_id}", 300)))

    def upload(
        self,
        *,
        ec: Collection[int] = (),
        kem: Collection[int] = (),
        mls: Collection[int] = (),
        last_kem: int | None = None,
        last_mls: int | None = None,
        signed: int | None = 1,
    ) -> Upload:
        last = {} if last_kem is None else {Kind.KEM: self.kem(last_kem)}
        last |= {} if last_mls is None else {Kind.MLS: self.package(last_mls)}
        rows = {Kind.EC: map(self.ec, ec), Kind.KEM: map(self.kem, kem), Kind.MLS: map(self.package, mls)}
        return Upload(
            identity_key=self.identity,
            registration_id=77,
            signed=None if signed is None else self.signed(signed),
            last_resort=last,
            one_time={kind: prekeys for kind, row in rows.items() if (prekeys := tuple(row))},
        )


class Cut(Exception):
    """The line was cut."""


@dataclass
class Silent:
    """An announcer of a process that dies before it says anything."""

    async def keys_changed(self, change: Change, watchers: Collection[str]) -> None:
        raise Cut

    async def keys_low(self, keys: DeviceKeys, kind: Kind, counts: Mapping[Kind, int]) -> None:
        raise Cut


@dataclass
class World:
    """People who sign in on devices, and processes that keep their keys."""

    house: House

    def __post_init__(self) -> None:
        self.db, self.clock, self.ids = self.house.db, self.house.clock, self.house.ids
        self.doors = FakeDoors()
        self.mailbox = Mailbox(MailboxStore(self.db), self.doors, self.clock)
        self.house.one = self.house.process(store=AccountStore(self.db, [KeyStore(self.db)]))
        self.accounts = self.house.one.accounts
        self.keys = self.process()
        self._processes = self._named()

    def _named(self) -> Iterator[str]:
        while True:
            yield self.ids.new()

    def process(self, db: Any = None, *, announcer: Any = None, per_minute: int = 100_000) -> Keys:
        """Another process; ``db`` is its way to the database."""
        database: Database = db or self.db
        keys = Keys(
            store=KeyStore(database),
            users=Users(store=UserStore(database), clock=self.clock),
            windows=LocalWindows(),
            claims_per_minute=per_minute,
            clock=self.clock,
            ids=self.ids,
        )
        keys.announcer = announcer or KeysTeller(self.mailbox)
        return keys

    async def joins(self, name: str, device_id: str = "phone") -> Owner:
        """Somebody new, signed in on a device."""
        return await self._owner(await self.house.joins(name), device_id)

    async def signs_in(self, name: str, device_id: str) -> Owner:
        """The same person on one more device."""
        signed_in = await self.accounts.login(
            identifier=name, password=PASSWORD, device=SignInDevice(id=device_id)
        )
        return await self._owner(signed_in, device_id)

    async def _owner(self, signed_in: SignedIn, device_id: str) -> Owner:
        user_id, session_id = await self.house.who(signed_in)
        return Owner(user_id=user_id, device_id=device_id, session_id=session_id)

    async def log(self, user_id: str) -> list[tuple[str, dict[str, Any]]]:
        """The durable log of a person, in order."""
        rows = self.db[LETTERS].find({"user_id": user_id}, sort=[("seq", 1)])
        return [(row["event"], row["payload"]) async for row in rows]

    async def count(self, collection: str, **query: Any) -> int:
        return await self.house.count(collection, **query)
