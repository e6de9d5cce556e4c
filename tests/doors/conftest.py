"""The doors' own house: the real application in this process, on the session's mongod, with the official client."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from pymongo import AsyncMongoClient

from models.db import Database
from models.payments.store import PaymentStore
from models.ports import Clock
from server.app import DATABASE, SOCKETS, TASKS, WIRED, make_app
from server.config import load_config
from server.sandbox_pages import serves_at
from tests import databases
from tests.doors.phones import Exchange, Phone, check_error
from tests.doors.talk import pair, snapshots_rise, talk
from tests.fakes import VirtualClock
from tests.patience import PATIENT_MS
from tests.services.payments_house import fund

PASSWORD = "correct horse battery"
_NUMBERS = itertools.count(1)
_ENV = {
    "JWT_SECRET": "a secret of the tests, long enough for HS256",
    "BCRYPT_ROUNDS": "4",
    "AUTH_PER_MINUTE": "1000000",
    "RINGS_PER_MINUTE": "1000000",
    "STRANGER_RINGS_PER_MINUTE": "1000000",
    "DECLINE_COOL_OFF_SECONDS": "0",
    "STUN_URLS": "stun:stun.example.org:3478",
    "TURN_URLS": "turn:turn.example.org:3478?transport=udp",
    "TURN_SECRET": "shared with coturn",
    "EXPO_URL": "http://127.0.0.1:9/",
    "CALL_RATE_MINOR": "0",  # calls are free unless a test is about their price
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer by HTTP."""

    status: int
    body: Any
    headers: Any

    def error(self, status: int, code: str) -> dict[str, Any]:
        """The refusal, which has to be this one and in the documented form."""
        assert self.status == status, (self.status, self.body)
        assert set(self.body) == {"error", "requestId"}, self.body
        check_error(self.body["error"])
        assert self.body["error"]["code"] == code, self.body
        assert self.body["requestId"] == self.headers["X-Request-Id"]
        assert self.headers["Content-Type"].startswith("application/json")
        return dict(self.body["error"])


@dataclass(slots=True)
class House:
    """A server with its address, its inside and its time."""

    url: str
    app: web.Application
    clock: Clock
    http: aiohttp.ClientSession
    exchange: Exchange | None
    site: web.TCPSite
    phones: list[Phone] = field(default_factory=list)

    @property
    def services(self) -> Any:
        return self.app[WIRED].services

    @property
    def db(self) -> Database:
        return self.app[DATABASE]

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        data: bytes | str | None = None,
    ) -> Reply:
        """One HTTP request; ``data`` is a body as it stands, ``body`` one to be made JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.http.request(
            method, self.url + path, json=body, data=data, headers=sent, allow_redirects=False
        ) as answer:
            json = answer.content_type == "application/json"
            return Reply(answer.status, await (answer.json() if json else answer.text()), answer.headers)

    async def person(self, name: str = "person", **fields: Any) -> Person:
        """Somebody new, signed in."""
        username = f"{name}-{next(_NUMBERS)}"
        body = {"email": f"{username}@example.org", "username": username, "password": PASSWORD, **fields}
        answer = await self.send("POST", "/api/auth/register", body)
        assert answer.status == 201, answer.body
        return Person(self, username, answer.body)

    async def phone(self, name: str, **options: Any) -> Phone:
        """A phone that begins to connect."""
        assert self.exchange is not None, "this test asked for no phones"
        phone = Phone(self.exchange, f"{name}/{next(_NUMBERS)}")
        self.phones.append(phone)
        await phone.open(self.url, **options)
        return phone

    async def pass_(self, seconds: float) -> None:
        """Let time pass, and what is due be done."""
        assert isinstance(self.clock, VirtualClock), "this house has the machine's time"
        self.clock.pass_(seconds)
        await self.services.calls.run_due()
        await self.app[SOCKETS].sweep()


@dataclass(slots=True)
class Person:
    """A user of the house with a sign-in."""

    house: House
    username: str
    signed_in: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.signed_in["user"]["id"])

    @property
    def token(self) -> str:
        return str(self.signed_in["accessToken"])

    async def login(self) -> Person:
        """The same person signed in once more."""
        body = {"identifier": self.username, "password": PASSWORD}
        answer = await self.house.send("POST", "/api/auth/login", body)
        assert answer.status == 200, answer.body
        return replace(self, signed_in=answer.body)

    async def send(self, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        return await self.house.send(method, path, body, token=self.token, **more)

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.send("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        return await self.send("POST", path, body, **more)

    async def pay_in(self, minor: int, *, into: str = "primary", currency: str = "NGN") -> None:
        """Money in the wallet, as if it had been paid; the page to pay on has tests of its own."""
        services, key = self.house.services, f"door-{next(_NUMBERS)}"
        store = PaymentStore(self.house.db)
        await fund(
            services.ledger, store, services.clock, self.id, minor, key=key, into=into, currency=currency
        )

    async def dial(self, device: str | None = None, **options: Any) -> Phone:
        """A phone of this person that begins to connect."""
        since = options.pop("since", None)
        auth: dict[str, Any] = {"token": self.token}
        if device is not None:
            auth["deviceId"] = device
        if since is not None:
            auth["since"] = since
        return await self.house.phone(f"{self.username}/{device}", **{"auth": auth, **options})

    async def phone(self, device: str | None = None, **options: Any) -> Phone:
        """A phone of this person that has been greeted."""
        phone = await self.dial(device, **options)
        await phone.happens("*connect")
        await phone.happens("SYNC")
        return phone


@asynccontextmanager
async def open_house(
    uri: str,
    exchange: Exchange | None = None,
    *,
    clock: Clock | None = None,
    database: str = "",
    port: int = 0,
    **env: str,
) -> AsyncIterator[House]:
    """The application at a free port with an empty database; gone, with its phones, at the end.

    With ``database`` and ``port`` it is the next process of another house.
    """
    lent = bool(database)
    if not lent:
        database, _ = databases.take(uri)
    # Tokens and letters have times, and MongoDB throws away by its own clock what is old: begin today.
    clock = clock or VirtualClock(_today())
    config = load_config({**_ENV, "MONGO_DATABASE": database, **env})
    app = make_app(config, uri, clock=clock)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    port = runner.addresses[0][1]
    serves_at(app, "127.0.0.1", port)
    try:
        async with aiohttp.ClientSession(auto_decompress=True) as http:
            house = House(f"http://127.0.0.1:{port}", app, clock, http, exchange, site)
            try:
                yield house
            finally:
                for phone in house.phones:
                    await phone.forget()
    finally:
        sockets = app[SOCKETS]
        for one in list(sockets.sio.eio.sockets.values()):
            await one.close(wait=False, abort=True)
        await sockets.sio.shutdown()
        await app[TASKS].drain(5)
        await runner.cleanup()
        if not lent:
            async with AsyncMongoClient(uri, serverSelectionTimeoutMS=PATIENT_MS) as closing:
                await databases.give_back(uri, database, closing)


def _today() -> Any:
    from server.clock import SystemClock

    return SystemClock().now()


@pytest.fixture(scope="session")
def exchange() -> Iterator[Exchange]:
    """The node process of this worker."""
    phones = Exchange()
    yield phones
    phones.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(mongo_uri: str, exchange: Exchange, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """One house for a module, whose people and devices are each test's own. ``HOUSE`` in the module configures it.

    Tests that use it say ``pytestmark = pytest.mark.asyncio(loop_scope="module")``.
    """
    async with open_house(mongo_uri, exchange, **getattr(request.module, "HOUSE", {})) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def rising(house: House) -> AsyncIterator[None]:
    """Looks, when a story has been told, whether all phones in it heard of newer and newer things."""
    before = len(house.phones)
    yield
    told, house.phones[before:] = house.phones[before:], []
    for phone in told:
        await phone.forget()
    snapshots_rise(told)


@pytest_asyncio.fixture(loop_scope="module")
async def still_serves(house: House) -> AsyncIterator[None]:
    """After whatever a test has done: the house takes a call, and holds no connection that nobody holds."""
    before = len(house.phones)
    yield
    used, house.phones[before:] = house.phones[before:], []
    _, a, bob, b = await pair(house)
    await a.ask("CALL_ENDED", callId=await talk(a, b, bob))
    used += house.phones[before:]
    house.phones[before:] = []
    for phone in used:
        await phone.forget()
    async with asyncio.timeout(10):
        while holds(house):
            await house.db.ping()


def holds(house: House) -> list[Any]:
    """Connections that the house still knows, in whichever of its books."""
    sockets = house.app[SOCKETS]
    manager = sockets.sio.manager
    books = [sockets._by_sid, sockets._by_user, manager.pending_disconnect.get("/"), sockets.sio.environ]
    return [book for book in [*books, manager.rooms.get("/", {}).get(None)] if book]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rest(mongo_uri: str, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """As ``house``, for tests that need no phones, and so no node."""
    async with open_house(mongo_uri, **getattr(request.module, "HOUSE", {})) as opened:
        yield opened
