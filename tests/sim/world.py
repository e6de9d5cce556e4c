"""A town for one history: real services of several processes on a real mongod, with drivers that fail.

Clients behave as the app does: a verb whose process died or whose database was away is asked again, elsewhere, under
the same ``opId`` or key. What was to be done once is asked until somebody says that it is done.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from pymongo.errors import PyMongoError

from models.billing.meter import WalletMeter
from models.calls.store import CALLS
from models.db import Database, database_away
from models.errors import Refusal
from models.ledger.store import WALLETS
from models.users.store import USERS
from models.wallet.rules import Amount
from tests.services.callkit import DEAD_AFTER_SECONDS, Killed, Phone
from tests.services.payments_house import fund
from tests.sim.faults import Faults, Interleave, ordered
from tests.sim.history import Setup
from tests.sim.model import Broken, Model, Tariff, ensure
from tests.sim.town import SimProcess, SimTown

PIN = "4071"
# How often a client asks again before it gives up; what must be done is asked more often.
AGAIN_MAX, SURELY_MAX = 4, 60
# Timers that may fire within one span of time; beyond that it is one jump.
TIMERS_MAX = 25
# Another process takes up what the first has not done after 2 s (renewals) and 3 s (facts).
Job = Callable[[], Coroutine[Any, Any, Any]]
OTHERS_AFTER = (timedelta(seconds=2), timedelta(seconds=3))
_AWAY = re.compile(r"\((?:injected)\)")


class World:
    """One history as it runs."""

    def __init__(
        self,
        db: Database,
        setup: Setup,
        *,
        crash_at: int | None = None,
        meter: type[WalletMeter] | None = None,
    ) -> None:
        self.setup, self.dice = setup, Random(f"walk {setup.seed}")
        odds, left = ({}, 1) if crash_at is not None else (setup.odds, setup.faults)
        self.faults = Faults(Random(f"faults {setup.seed}"), odds, left, crash_at)
        self.town = SimTown(db, self.faults, meter)
        self.town.tariffs, self.town.timers = setup.tariffs, setup.timers
        self.town.share_bps, self.town.dispute_seconds = setup.share_bps, setup.dispute_seconds
        self.clock = self.town.clock
        self.model = Model(setup.share_bps, setup.dispute_seconds)
        self.model.tariffs.update(
            {
                (user, kind): Tariff(*setup.tariff_of(user, kind))
                for user in setup.people
                for kind in ("audio", "video")
            }
        )
        self.alive: list[SimProcess] = []
        self.phones: dict[str, Phone] = {}
        self.offline: set[str] = set()
        self.calls: dict[str, dict[str, Any]] = {}
        self.wallets: dict[str, dict[str, Any]] = {}
        self.trace: list[str] = []
        self.counts: Counter[str] = Counter()
        # What a renewal may miss: a crash, an outage, a payer whose money moved at the same instant.
        self.disturbed = crash_at is not None
        if crash_at == 0:  # whole, to be swept
            self.faults.scene = self._scene
        self._born = 0
        self._buried: list[SimProcess] = []

    def _scene(self) -> Hashable:
        """All of a history that outlives a process, but for the database; see ``Faults``."""
        return len(self.trace), self.clock.now(), self.dice.getstate(), vars(self.town.ids)["_n"]

    # ------------------------------------------------------------------------------------------------ beginning

    def spawn(self) -> SimProcess:
        """One more process."""
        self._born += 1
        process = SimProcess(self.town, f"p{self._born}")
        self.alive.append(process)
        return process

    async def open(self) -> None:
        """People, wallets, money; nothing fails yet."""
        now = self.clock.now()
        await self.town.real[USERS].insert_many([self._person(user, now) for user in self.setup.people])
        for _ in range(2):
            await self.spawn().calls.beat()
        for user in self.setup.people:
            here = self.dice.choice(self.alive)
            self.phones[user] = self.town.phone(here, user, rest=user in self.setup.rest)
            if user in self.setup.without_wallet:
                continue
            await here.wallets.create(user, PIN)
            for into, minor in self.setup.money[user].items():
                if minor:
                    await self.deposit(user, minor, into)

    def _person(self, user: str, now: datetime) -> dict[str, Any]:
        own = {name: rate for name, rate in self.setup.rates[user].items() if rate is not None}
        return {
            "_id": user,
            "username": user,
            "username_key": user,
            "display_name": user,
            "display_key": user,
            "email": f"{user}@example.com",
            "email_key": f"{user}@example.com",
            "password_hash": "-",
            "avatar_url": None,
            "currency": "NGN",
            "role": "user",
            "status": "active",
            "created_at": now,
            "updated_at": now,
            **own,
        }

    # ---------------------------------------------------------------------------------------------------- clients

    async def ask(
        self, name: str, verb: Callable[[], Awaitable[Any]], *, user: str, surely: bool = False
    ) -> Any:
        """A client's verb: what it gave, its refusal, or None when the client gave up."""
        for _ in range(SURELY_MAX if surely else AGAIN_MAX):
            try:
                return self.note(name, user, await verb())
            except Refusal as no:
                return self.note(name, user, no)
            except Killed:
                self.note(name, user, "killed")
                await self.bury()
            except PyMongoError as fault:
                self._away(name, fault)
                self.note(name, user, "away")
            if not surely and self.dice.random() < 0.2:
                return None
        ensure(not surely, "never came through", name)
        return None

    def note(self, name: str, who: str, what: Any) -> Any:
        """A line of the trace."""
        said = what.code if isinstance(what, Refusal) else what if isinstance(what, str) else "done"
        self.trace.append(f"{self.clock.now():%d %H:%M:%S.%f} {name} {who} {said}")
        self.counts[f"{name}: {said}" if isinstance(what, Refusal) else name] += 1
        return what

    def _away(self, name: str, fault: BaseException) -> None:
        """Only what was injected may fail."""
        self.disturbed = True
        if not (database_away(fault) and _AWAY.search(str(fault))):
            raise Broken(f"{name} failed: {fault!r}") from fault

    async def bury(self) -> None:
        """Take dead processes away; their phones find another one, at once or later."""
        dead = [process for process in self.alive if process.dead]
        if not dead:
            return
        self.disturbed = True
        for process in dead:
            self.alive.remove(process)
            self._buried.append(process)
            if len(self.alive) < 2:
                self.spawn()
        for user, phone in self.phones.items():
            if phone.process in dead:
                phone.process = self.dice.choice(self.alive)
                self.offline.add(user)
                if phone.rest or self.dice.random() < 0.7:
                    await self.back(user)

    async def back(self, user: str) -> None:
        """The app connects again."""
        phone = self.phones[user]
        self.offline.discard(user)
        if phone.rest:
            return
        phone.connect()
        await self.ask(
            "back", lambda: phone.calls.attached(user, phone.device_id, phone.process.name), user=user
        )

    async def deposit(self, user: str, minor: int, into: str) -> None:
        """Money that a gateway has collected; asked until it is there."""
        key, phone = f"d{self.town.ids.new()[-6:]}", self.phones[user]

        async def verb() -> Any:
            here = self._of(phone)
            return await fund(here.ledger, here.payments, self.clock, user, minor, key=key, into=into)

        if isinstance(await self.ask("deposit", verb, user=user, surely=True), Refusal):
            return
        (self.model.paid_in if into == "primary" else self.model.credits_in)[user] += minor
        self.counts["minor units paid in"] += minor
        if into != "primary":
            self._credits_changed(user)

    async def transfer(self, user: str, to: str, minor: int) -> None:
        """Money from one to another; asked until it is done or refused."""
        key, phone = f"t{self.town.ids.new()[-6:]}", self.phones[user]

        async def verb() -> Any:
            wallets = self._of(phone).wallets
            return await wallets.transfer(
                user, key=key, to=to, amount=Amount(minor=minor), currency="NGN", pin=PIN, note=None
            )

        if not isinstance(await self.ask("transfer", verb, user=user, surely=True), Refusal):
            self.model.moved[user] -= minor
            self.model.moved[to] += minor
            self.counts["minor units transferred"] += minor

    async def refund(self, call_id: str, minor: int) -> None:
        """A steward gives money back; asked until it is done or refused."""
        key = f"r{self.town.ids.new()[-6:]}"

        async def verb() -> Any:
            return await self.dice.choice(self.alive).calls.refund(call_id, amount_minor=minor, key=key)

        if not isinstance(await self.ask("refund", verb, user="-", surely=True), Refusal):
            self.model.refunded[call_id] += minor
            self._credits_changed(self.calls[call_id]["caller"]["user_id"])

    def _credits_changed(self, user: str) -> None:
        for call_id, call in self.calls.items():
            if call["caller"]["user_id"] == user and call["state"] != "ended":
                self.model.calls[call_id].credits_before = None

    @staticmethod
    def _of(phone: Phone) -> SimProcess:
        assert isinstance(phone.process, SimProcess)
        return phone.process

    # --------------------------------------------------------------------------------------------------- processes

    async def turn(self, process: SimProcess, *, all_jobs: bool = False) -> None:
        """The timed jobs of a process, each by itself as the server runs them, and its alarms."""
        calls, now = process.calls, self.clock.now()
        jobs: list[Job] = [
            *(
                lambda call_id=name: calls.alarm(call_id)
                for name, at in process.alarms.armed.items()
                if at <= now
            ),
            *([] if process.rests(calls.board.renewals) else [calls.run_renewals]),
            calls.run_late_renewals,
            calls.run_due,
            calls.run_money,
            process.billing.run_wanted,
        ]
        if all_jobs:
            jobs += [
                lambda: calls.run_leases(DEAD_AFTER_SECONDS),
                lambda: calls.run_orphaned(DEAD_AFTER_SECONDS),
                calls.run_untold,
                *([] if process.rests(process.billing.agenda) else [process.billing.run_ticks]),
                *([] if process.rests(calls.unwritten) else [calls.flush_told]),
                process.hear,
            ]
        for job in jobs:
            if not await self.job(process, job):
                return

    async def job(self, process: SimProcess, job: Job) -> bool:
        """One job of a process; False when the process died of it."""
        try:
            several = sum(call["state"] != "ended" for call in self.calls.values()) > 1
            await (ordered(job, self.dice) if several else job())
        except Killed:
            return False
        except PyMongoError as fault:
            self._away("a job", fault)
        return not process.dead

    async def keep(self, *, all_jobs: bool = False, stalled: bool = False) -> None:
        """A turn of the jobs, in an order of the dice: of whoever has a timer of its own, and of one more.

        ``stalled``: one of the processes has said nothing for a while, and is taken for dead.
        """
        if all_jobs:
            self.disturbed |= stalled
            await self._beat(1 if stalled else 0)
        now = self.clock.now()
        luck = self.dice.random()
        most = len(self.alive) if all_jobs or luck < 0.15 else 1 if luck < 0.4 or self._due(now) else 0
        for number, process in enumerate(self.dice.sample(self.alive, len(self.alive))):
            if number < most or process.due(now):
                await self.turn(process, all_jobs=all_jobs)
        await self.bury()

    def _due(self, now: datetime) -> bool:
        """Whether there is anything for the jobs to find, as far as was seen."""
        instants = (call[name] for call in self.calls.values() for name in ("deadline_at", "money_due_at"))
        return any(at is not None and at <= now for at in instants) or any(
            call["renew_at"] is not None and call["renew_at"] + OTHERS_AFTER[0] <= now
            for call in self.calls.values()
        )

    async def _beat(self, but: int = 0) -> None:
        """Processes that live have said so all the time that has passed, ``but`` for so many."""
        names = [process.name for process in self.alive[but:]]
        await self.town.real["processes"].update_many(
            {"_id": {"$in": names}}, {"$set": {"beat_at": self.clock.now()}}
        )

    async def pass_(self, seconds: float, *, lazy: bool = False) -> None:
        """Let time pass, from timer to timer; ``lazy``: every process sleeps until the end of it."""
        until = self.clock.now() + timedelta(milliseconds=round(seconds * 1000))
        self.trace.append(f"{seconds:.3f} s{' without anybody' if lazy else ''}")
        for _ in range(0 if lazy else TIMERS_MAX):
            at = self._next_timer(until)
            if at is None:
                break
            await self._at(at)
        else:
            self.lapse()
        await self._at(until)

    async def _at(self, instant: datetime) -> None:
        self.clock.pass_((instant - self.clock.now()).total_seconds())
        await self.keep()
        await self.observe()

    def jump(self, within_seconds: float) -> None:
        """To the very instant of the next timer, before anybody has heard it."""
        at = self._next_timer(self.clock.now() + timedelta(seconds=within_seconds))
        if at is not None:
            self.clock.pass_((at - self.clock.now()).total_seconds())
            self.trace.append(f"until {at:%d %H:%M:%S.%f}")

    def _next_timer(self, until: datetime) -> datetime | None:
        now, found = self.clock.now(), []
        for call in self.calls.values():
            found += [call[name] for name in ("deadline_at", "renew_at", "money_due_at") if call[name]]
            if call["renew_at"]:
                found.append(call["renew_at"] + OTHERS_AFTER[0])
            if call.get("untold_at"):
                found.append(call["untold_at"] + OTHERS_AFTER[1])
        return min((at for at in found if now < at <= until), default=None)

    def lapse(self) -> None:
        """Nobody looked after the calls for a while: their money need not last as long as it could."""
        for name, call in self.calls.items():
            if call["state"] != "ended":
                self.model.calls[name].kept = False

    async def race(self, **verbs: Any) -> None:
        """Several things at once, in an order of the dice."""
        await self._beat()
        self.trace.append(f"at once: {', '.join(verbs)}")
        self.counts["things at once"] += len(verbs)
        found = await Interleave(self.dice).run(**verbs)
        for name, what in found.items():
            if isinstance(what, PyMongoError):
                self._away(name, what)
            elif isinstance(what, Exception):
                raise what
        await self.bury()

    # -------------------------------------------------------------------------------------------------- looking at it

    async def observe(self) -> None:
        """Read everything by the side door, if there is anything new, and let the model look at it."""
        processes = [*self.alive, *self._buried]
        if any(process.driver.wrote for process in processes):
            await self.read()
        for process in processes:
            process.driver.wrote = False
        self._buried.clear()
        if self.disturbed:
            for seen in self.model.calls.values():
                seen.kept = False
        self.model.observe(self.calls.values(), self.wallets, self.clock.now())

    async def read(self) -> None:
        """Calls and wallets as they stand."""
        calls = await self.town.real.db[CALLS].find({}, sort=[("_id", 1)]).to_list()
        self.calls = {call["_id"]: call for call in calls}
        wallets = await self.town.real.db[WALLETS].find({}, sort=[("_id", 1)]).to_list()
        self.wallets = {wallet["_id"]: wallet for wallet in wallets}

    def check_logs(self, logs: Sequence[Mapping[str, Any]]) -> None:
        """What the services only write down is a fault as well, unless it was injected."""
        for line in logs:
            if line["log_level"] in ("warning", "error") and not _AWAY.search(str(dict(line))):
                raise Broken(f"the log says {dict(line)!r}") from line.get("exc_info")

    def digest(self, journal: list[dict[str, Any]]) -> str:
        """The history and what it has left, as one hash."""
        told = hashlib.sha256("\n".join(self.trace).encode())
        for row in (*self.calls.values(), *self.wallets.values(), *journal):
            told.update(repr(row).encode())
        return told.hexdigest()
