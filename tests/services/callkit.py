"""A small town of people, phones and processes on one database, for the tests of calls.

Time is virtual, sockets and pushes are recorded; the verbs, the log, the letters and the database are the real ones.
A process may be made to die at the n-th call to the driver, and several verbs may be raced in a seeded order.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from handlers.billing import tick_letters
from handlers.calls_views import CallTeller
from handlers.context import Context
from handlers.presence import PresenceTeller
from handlers.system import welcome
from handlers.wallet import WALLET_UPDATED, WalletTeller
from models.agenda import Agenda
from models.also import Also
from models.billing.meter import WalletMeter
from models.billing.service import Billing
from models.billing.tariffs import Tariffs
from models.calls import rules
from models.calls.call import Call, Fact, State, Timers
from models.calls.documents import call_of
from models.calls.rings.service import RingLimits, Rings
from models.calls.rings.store import PastStore
from models.calls.service import Calls
from models.calls.store import CALLS, LOCKS, CallStore
from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Pocket, Wallet
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.mailbox.service import Mailbox
from models.mailbox.store import LETTERS, MailboxStore
from models.payments.store import PaymentStore
from models.ports import Device, Letter
from models.presence.service import Whereabouts
from models.presence.store import PresenceStore
from models.rooms.board import Board
from models.users.service import Users
from models.users.store import USERS, UserStore
from models.wallet.service import Wallets
from models.wallet.store import WalletStore
from server.limits import LocalWindows
from tests.fakes import CountingIds, FakeAlarms, FakeDoors, VirtualClock
from tests.services.payments_house import fund

DEAD_AFTER_SECONDS = 8


def offer(name: str = "one", *, video: bool = False) -> dict[str, str]:
    """A session description whose ICE generation is called ``name``."""
    media = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n" + ("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" if video else "")
    return {"type": "offer", "sdp": f"v=0\r\n{media}a=ice-ufrag:{name}\r\n"}


def answer(name: str = "two") -> dict[str, str]:
    return {**offer(name), "type": "answer"}


def candidate(n: int, generation: str | None = None) -> dict[str, Any]:
    line: dict[str, Any] = {"candidate": f"candidate:{n} 1 udp 1 192.0.2.1 {n} typ host", "sdpMid": "0"}
    return line if generation is None else {**line, "usernameFragment": generation}


class Killed(BaseException):
    """The process is gone, right here."""


# The collections of the databases in use. The driver takes longer to make one than some verbs take, and a thousand
# processes of tests share them.
_COLLECTIONS: WeakKeyDictionary[Database, dict[str, Any]] = WeakKeyDictionary()


def collection_of(db: Database, name: str) -> Any:
    """The collection of that name, made once for a database."""
    made = _COLLECTIONS.setdefault(db, {})
    if name not in made:
        made[name] = db[name]
    return made[name]


class Mortal:
    """A process's way to the database. At the ``dies_at``-th call to the driver the process dies, and stays dead."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.calls = 0
        self.dies_at: int | None = None
        self.dead = False

    def breathe(self) -> None:
        self.calls += 1
        if self.dead or (self.dies_at is not None and self.calls >= self.dies_at):
            self.dead = True
            raise Killed

    def __getitem__(self, name: str) -> Any:
        return _MortalCollection(collection_of(self._db, name), self)

    async def transaction(self, body: Any) -> Any:
        self.breathe()
        return await self._db.transaction(body)


class _MortalCollection:
    def __init__(self, inner: Any, life: Mortal) -> None:
        self._inner, self._life = inner, life

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            self._life.breathe()
            return method(*args, **kwargs)

        return called


# The race that the running task belongs to, if any.
_RACE: ContextVar[Race | None] = ContextVar("race", default=None)


class Dice(Protocol):
    """What says which of several goes on."""

    def randrange(self, sides: int, /) -> int:
        """One of the numbers from 0 up to, and without, ``sides``."""
        ...


class Script:
    """Dice that fall as they are told, and after that on their first side; how they fell is kept."""

    def __init__(self, told: tuple[int, ...] = ()) -> None:
        self._told = told
        self.fell: list[int] = []
        # How many sides each throw had.
        self.sides: list[int] = []

    def randrange(self, sides: int, /) -> int:
        thrown = len(self.fell)
        side = self._told[thrown] if thrown < len(self._told) else 0
        assert side < sides, "told of a side that is not there: it did not go as before"
        self.fell.append(side)
        self.sides.append(sides)
        return side

    def others(self) -> list[tuple[int, ...]]:
        """What to tell so that a throw which was left to itself falls otherwise.

        Whoever plays these and their others in turn, from a script that is told nothing, has played everything that
        can happen, once each.
        """
        return [
            (*self.fell[:throw], side)
            for throw in range(len(self._told), len(self.fell))
            for side in range(1, self.sides[throw])
        ]


class Race:
    """Several tasks of which one runs at a time; at each step of the store the dice say which one goes on."""

    def __init__(self, dice: int | Dice) -> None:
        """``dice``: the seed of some, or dice of one's own."""
        self._dice: Dice = Random(dice) if isinstance(dice, int) else dice
        self._waiting: list[asyncio.Future[None]] = []
        self._running = 0
        self.order: list[str] = []

    async def run(self, **verbs: Coroutine[Any, Any, Any]) -> dict[str, Any]:
        """Run the verbs against one another; what each gave, or its refusal."""
        self._running = len(verbs)
        token = _RACE.set(self)
        tasks = {name: asyncio.create_task(self._one(name, verb)) for name, verb in verbs.items()}
        _RACE.reset(token)
        return dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))

    async def _one(self, name: str, verb: Coroutine[Any, Any, Any]) -> Any:
        await self.gate(name)
        try:
            return await verb
        except Refusal as no:
            return no
        finally:
            self._running -= 1
            self._next()

    async def gate(self, step: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._next()
        await place
        self.order.append(step)

    def _next(self) -> None:
        if self._waiting and len(self._waiting) == self._running:
            self._waiting.pop(self._dice.randrange(len(self._waiting))).set_result(None)


class Raced:
    """Something whose verbs wait for their turn in a race before they begin."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def gated(*args: Any, **kwargs: Any) -> Any:
            race = _RACE.get()
            if race is not None:
                await race.gate(name)
            return await found(*args, **kwargs)

        return gated


@dataclass
class FakePusher:
    """What would be pushed, in order: (what, call id)."""

    said: list[tuple[str, str]] = field(default_factory=list)

    async def ring(
        self, *, call_id: str, call_type: str, caller: Mapping[str, Any], callee_id: str, expires_at: datetime
    ) -> None:
        self.said.append(("ring", call_id))

    async def stop_ringing(
        self,
        *,
        call_id: str,
        call_type: str,
        caller: Mapping[str, Any],
        callee_id: str,
        missed: bool,
        answered_on: str | None = None,
    ) -> None:
        self.said.append(("missed" if missed else "stop", call_id))

    def about(self, call_id: str) -> list[str]:
        return [what for what, about in self.said if about == call_id]


class WitnessedStore(CallStore):
    """The real store; it also writes into the town's book which facts became durable."""

    def __init__(self, db: Database, book: dict[str, list[Fact]]) -> None:
        super().__init__(db)
        self._book = book

    async def begin(
        self, call: Call, facts: Sequence[Fact], now: datetime, also: Also | None = None
    ) -> str | None:
        obstacle = await super().begin(call, facts, now, also)
        if obstacle is None:
            self._book.setdefault(call.id, []).extend(facts)
        return obstacle

    async def swap(
        self, before: Call, after: Call, facts: Sequence[Fact], now: datetime, also: Also | None = None
    ) -> bool:
        done = await super().swap(before, after, facts, now, also)
        if done:
            self._book.setdefault(after.id, []).extend(facts)
        return done


def rings_of(db: Database, clock: VirtualClock, **limits: Any) -> Rings:
    """The bounds on ringing, far away unless a test says otherwise."""
    far = {"per_pair": 100_000, "per_caller": 100_000, "strangers": 100_000, "cool_off": timedelta(0)}
    bounds = RingLimits(**{**far, **limits})
    return Rings(windows=LocalWindows(), past=PastStore(db), clock=clock, limits=bounds)


class Process:
    """One server process: its calls, its sockets, its alarms."""

    def __init__(self, town: Town, name: str, *, raced: bool = False) -> None:
        self.town, self.name = town, name
        self.life = Mortal(town.db)
        db: Any = self.life
        self.doors, self.alarms = FakeDoors(), FakeAlarms()
        self.mailbox = Mailbox(MailboxStore(db, name), self.doors, town.clock)
        users = Users(store=UserStore(db), clock=town.clock)
        store: Any = WitnessedStore(db, town.facts)
        self.ledger = Ledger(LedgerStore(db), town.clock, town.ids)
        self.meter = WalletMeter(
            ledger=self.ledger,
            calls=store,
            tariffs=town.tariffs,
            share_bps=town.share_bps,
            dispute_seconds=town.dispute_seconds,
            clock=town.clock,
        )
        self.calls = Calls(
            store=Raced(store) if raced else store,
            users=users,
            meter=self.meter,
            clock=town.clock,
            ids=town.ids,
            alarms=self.alarms,
            doors=self.doors,
            rings=rings_of(db, town.clock),
            timers=town.timers,
            process=name,
        )
        users.bind(self.calls)
        self.users = users
        # Nobody types a PIN here.
        self.wallets = Wallets(
            ledger=self.ledger,
            store=WalletStore(db),
            users=users,
            hasher=None,  # type: ignore[arg-type]
            passwords=None,  # type: ignore[arg-type]
            clock=town.clock,
            currency=town.tariffs.currency,
            pepper=b"",
        )
        self.ledger.listeners.append(
            WalletTeller(mailbox=self.mailbox, clock=town.clock, others_live=lambda: self.calls.others_live)
        )
        self.billing = Billing(
            calls=self.calls,
            ledger=self.ledger,
            doors=self.doors,
            clock=town.clock,
            nudge=lambda: None,
            give_way=lambda: asyncio.sleep(0),
        )
        self.presence = Whereabouts(
            store=PresenceStore(db, name),
            people=users,
            processes=store.processes,
            doors=self.doors,
            busy=lambda user_id: self.calls.board.call_of(user_id) is not None,
            busy_among=[store.busy_among],
            clock=town.clock,
            process=name,
            others_live=lambda: self.calls.others_live,
            nudge=lambda: None,
        )
        self.presence.announcer = PresenceTeller(mailbox=self.mailbox)
        teller: Any = CallTeller(
            mailbox=self.mailbox,
            presence=self.presence,
            pusher=town.pusher,
            clock=town.clock,
            ring_seconds=town.timers.ring,
            process=name,
        )
        self.calls.announcer = Raced(teller) if raced else teller

    async def jobs(self) -> None:
        """One turn of every timed job of the calls, but for those that rest."""
        await self.calls.run_leases(DEAD_AFTER_SECONDS)
        await self.calls.run_orphaned(DEAD_AFTER_SECONDS)
        await self.calls.run_due()
        if not self.rests(self.calls.board.renewals):
            await self.calls.run_renewals()
        await self.calls.run_late_renewals()
        await self.billing.run_wanted()
        await self.calls.run_untold()
        await self.calls.run_money()
        if not self.rests(self.billing.agenda):
            await self.mailbox.post(tick_letters(await self.billing.run_ticks()))
        if not self.rests(self.calls.unwritten):
            await self.calls.flush_told()
        await self.hear()

    def rests(self, agenda: Agenda) -> bool:
        """Whether the job with that agenda would rest now."""
        at = agenda.to_be_seen()
        return at is None or at > self.town.clock.now()

    async def hear(self) -> None:
        """What other processes have posted reaches the devices here."""
        fetched = await self.mailbox.fetch()
        await self.calls.refresh({letter.call_id for letter in fetched if letter.call_id is not None})
        self.billing.moved_elsewhere({one.user_id for one in fetched if one.event == WALLET_UPDATED})


@dataclass
class Phone:
    """A person's device with a socket at a process, or a client without a socket (``rest``)."""

    process: Process
    user_id: str
    device_id: str
    rest: bool = False

    @property
    def device(self) -> Device:
        process = None if self.rest else self.process.name
        return Device(user_id=self.user_id, device_id=self.device_id, session_id="s", process=process)

    @property
    def calls(self) -> Calls:
        return self.process.calls

    def connect(self) -> Phone:
        """The socket is there."""
        self.process.doors.connect(self.user_id, self.device_id)
        return self

    async def back(self, process: Process | None = None) -> Phone:
        """The app connects again, here or at another process."""
        self.process = process or self.process
        self.connect()
        await self.calls.attached(self.user_id, self.device_id, self.process.name)
        return self

    async def drop(self, *, unheard_seconds: float = 0) -> None:
        """The socket is gone; the phone was last heard of ``unheard_seconds`` ago."""
        self.process.doors.disconnect(self.user_id, self.device_id)
        clock = self.process.town.clock
        seen = clock.now()
        if unheard_seconds:
            seen = VirtualClock(seen).pass_(-unheard_seconds)
        await self.calls.lost(self.user_id, self.device_id, self.process.name, seen)

    async def request(self, to: Phone, **more: Any) -> Call:
        return await self.calls.request(self.device, to=to.user_id, **{"type": "audio", **more})

    async def ringing(self, call: Call) -> Call:
        return await self.calls.ringing(self.device, call.id)

    async def accept(self, call: Call, **more: Any) -> Call:
        return await self.calls.accept(self.device, call.id, **more)

    async def reject(self, call: Call, **more: Any) -> Call:
        return await self.calls.reject(self.device, call.id, **more)

    async def end(self, call: Call) -> Call:
        ended = await self.calls.end(self.device, call_id=call.id)
        assert ended is not None
        return ended

    async def connected(self, call: Call) -> Call:
        return await self.calls.connected(self.device, call.id)

    async def resume(self, call: Call, **more: Any) -> Call:
        return await self.calls.resume(self.device, call.id, **more)

    async def describe(self, call: Call, description: Mapping[str, Any]) -> Call:
        return await self.calls.describe(self.device, call.id, description)

    async def hears(self, call: Call, kbps: float) -> Call:
        """A quality report with an inbound bitrate."""
        return await self.calls.report(self.device, call.id, stats={"inbound": kbps}, receiving=kbps > 0)

    async def send(self, call: Call, *candidates: Any) -> None:
        """Candidates by the way of the wire: at once where possible, else by ``signal``."""
        relayed = self.calls.relay(self.user_id, self.device_id, call.id, candidates)
        if relayed is None:
            await self.calls.signal(self.user_id, self.device_id, call.id, candidates)
        elif relayed[1]:
            await self.calls.announcer.forward(*relayed)

    def told(self) -> list[str]:
        """The events that this device was sent, in order."""
        return self.process.doors.told(self.user_id, self.device_id)

    def letters(self, event: str) -> list[dict[str, Any]]:
        return [dict(x.payload) for x in self.inbox if x.event == event]

    @property
    def inbox(self) -> list[Letter]:
        return self.process.doors.devices.get((self.user_id, self.device_id), [])

    def candidates(self) -> list[Any]:
        """The candidates that came, in order."""
        return [payload["candidate"] for payload in self.letters("ICE_CANDIDATE")]


async def greeting(phone: Phone, since: int | None) -> tuple[dict[str, Any], Sequence[Letter]]:
    """What a device is told when it connects: SYNC, and the letters after it."""
    town, process = phone.process.town, phone.process
    # Only what a greeting reads.
    services: Any = SimpleNamespace(
        users=process.users,
        calls=process.calls,
        mailbox=process.mailbox,
        presence=process.presence,
        rooms=SimpleNamespace(board=Board()),
        ledger=process.ledger,
        wallets=process.wallets,
        billing=process.billing,
        doors=process.doors,
        clock=town.clock,
    )
    ctx = Context(services=services, user_id=phone.user_id, device_id=phone.device_id, process=process.name)
    greeting = await welcome(ctx, since)
    return greeting.sync, greeting.letters


class Town:
    """Everything on one database."""

    def __init__(self, db: Database, clock: VirtualClock, ids: CountingIds) -> None:
        self.db, self.clock, self.ids = db, clock, ids
        self.timers = Timers()
        # Set before the processes are made; calls are free unless a test says otherwise.
        self.tariffs = Tariffs(rate_minor=0)
        self.share_bps, self.dispute_seconds = 2_000, 86_400
        self.pusher = FakePusher()
        self.facts: dict[str, list[Fact]] = {}
        self.processes: list[Process] = []
        immortal: Any = Mortal(db)
        self.store = CallStore(immortal)
        self.ledger = Ledger(LedgerStore(immortal), clock, ids)

    def process(self, name: str, *, raced: bool = False) -> Process:
        made = Process(self, name, raced=raced)
        self.processes.append(made)
        return made

    async def people(self, *names: str) -> None:
        """Active users whose ids are their names."""
        now = self.clock.now()
        await self.db[USERS].insert_many(
            [
                {
                    "_id": name,
                    "username": name,
                    "username_key": name,
                    "display_name": name.title(),
                    "display_key": name,
                    "email": f"{name}@example.com",
                    "email_key": f"{name}@example.com",
                    "password_hash": "-",
                    "avatar_url": None,
                    "currency": "NGN",
                    "role": "user",
                    "status": "active",
                    "created_at": now,
                    "updated_at": now,
                }
                for name in names
            ]
        )

    async def pay_in(
        self, process: Process, user_id: str, amount_minor: int, *, into: Pocket = Pocket.PRIMARY
    ) -> Wallet:
        """Money for somebody, as a gateway would bring it; it is posted through ``process``."""
        return await fund(
            process.ledger,
            PaymentStore(self.db),
            self.clock,
            user_id,
            amount_minor,
            key=self.ids.new(),
            into="primary" if into is Pocket.PRIMARY else "call_credits",
            currency=self.tariffs.currency,
        )

    async def wallet(self, user_id: str) -> Wallet:
        """Somebody's wallet as it stands in the database."""
        found = await self.ledger.wallet(user_id, self.tariffs.currency)
        assert found is not None
        return found

    def phone(self, process: Process, user_id: str, device_id: str = "", *, rest: bool = False) -> Phone:
        phone = Phone(process, user_id, device_id or f"{user_id}-phone", rest)
        return phone if rest else phone.connect()

    async def call(self, call: Call) -> Call:
        """The call as it stands in the database."""
        found = await self.store.load(call.id)
        assert found is not None
        rules.check(found)
        return found

    async def calls_of(self, *user_ids: str) -> list[Call]:
        query = {"$or": [{"caller.user_id": {"$in": user_ids}}, {"callee.user_id": {"$in": user_ids}}]}
        return [call_of(row) async for row in self.db[CALLS].find(query, sort=[("_id", 1)])]

    async def locks(self) -> dict[str, str]:
        """Who is busy, with which call."""
        return {row["_id"]: row["call_id"] async for row in self.db[LOCKS].find()}

    async def log(self, user_id: str) -> list[str]:
        """The durable log of a person: the names of the events, in order."""
        return [row["event"] async for row in self.db[LETTERS].find({"user_id": user_id}, sort=[("seq", 1)])]

    async def keys(self) -> dict[str, Counter[str]]:
        """For each call the keys of its letters, over both logs."""
        found: dict[str, Counter[str]] = {}
        async for row in self.db[LETTERS].find({}, {"user_id": 1, "key": 1, "call_id": 1}):
            found.setdefault(row["call_id"], Counter())[row["key"]] += 1
        return found

    async def pass_(self, seconds: float, *processes: Process, step: float = 2) -> None:
        """Let time pass while the jobs of the given processes run."""
        left = seconds
        while left > 0:
            self.clock.pass_(min(step, left))
            left -= step
            for process in processes:
                await process.jobs()

    async def audit(self) -> None:
        """What must hold at any instant: a live call has its two locks, and nobody else is busy; all calls check."""
        locks = await self.locks()
        live: dict[str, str] = {}
        async for row in self.db[CALLS].find({"state": {"$ne": State.ENDED.value}}):
            for side in ("caller", "callee"):
                assert row[side]["user_id"] not in live, "nobody is in two calls"
                live[row[side]["user_id"]] = row["_id"]
        assert locks == live
