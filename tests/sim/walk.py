"""A history: a random walk of what people, clocks and processes do, an end in quiet, and the reckoning."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from models.audit.service import audit
from models.billing.meter import WalletMeter
from models.calls.store import LOCKS
from models.db import Database
from models.errors import Refusal
from models.ledger.store import JOURNAL, WALLETS
from tests.services.callkit import Phone
from tests.sim.faults import aside
from tests.sim.history import Setup, setup
from tests.sim.model import Broken, Tariff, ensure
from tests.sim.world import World, captured_logs

Step = Callable[[], Awaitable[Any]]
# Quiet turns after which everything has to be settled and cleared.
QUIET_TURNS_MAX = 12
# Verbs that are kept to be sent again: a phone that repeats itself, a packet that comes late.
REPEATED_MAX = 6


@dataclass(frozen=True)
class Outcome:
    """What a history came to. ``digest`` is the same whenever it is played again."""

    digest: str
    exchanges: int
    counts: Counter[str]
    faults: Counter[str]


class Failed(Exception):
    """A history that broke, with its trace."""

    def __init__(self, seed: int, crash_at: int | None, fault: BaseException, trace: list[str]) -> None:
        super().__init__(f"seed {seed}: {type(fault).__name__}: {fault}")
        self.seed, self.crash_at, self.fault, self.trace = seed, crash_at, fault, trace


async def play(
    db: Database,
    seed: int,
    *,
    kind: str | None = None,
    crash_at: int | None = None,
    meter: type[WalletMeter] | None = None,
) -> Outcome:
    """Play the history of a seed from its beginning to its end. Raises ``Failed``."""
    begin = setup(seed, kind)
    world = World(db, begin, crash_at=crash_at, meter=meter)
    try:
        with captured_logs() as logs:
            digest = await Walk(world, begin).run()
        world.check_logs(logs)
        return Outcome(digest, world.faults.exchanges, world.counts, world.faults.counts)
    except Exception as fault:
        raise Failed(seed, crash_at, fault, world.trace) from fault
    finally:
        await asyncio.gather(*(db.db[name].delete_many({}) for name in sorted(world.town.touched)))


class Walk:
    """One history's steps."""

    def __init__(self, world: World, begin: Setup) -> None:
        self.world, self.begin, self.dice = world, begin, world.dice
        self._said: list[tuple[str, str, Step]] = []

    async def run(self) -> str:
        """Beginning, steps, end, reckoning; the digest of it all."""
        world = self.world
        await world.open()
        await world.observe()
        world.faults.armed = True
        await self._prelude()
        for _ in range(self.begin.steps):
            await self._done(self._step())
            if self.dice.random() < 0.3:
                await world.pass_(self.dice.choice((0.001, 0.4, 0.999, 1.0, 2.5)))
        world.faults.armed = False
        await self._quiet()
        return await self._reckon()

    async def _done(self, step: Awaitable[Any]) -> None:
        """One step, and what follows of itself."""
        await step
        await self._nudged()
        await self.world.observe()

    async def _prelude(self) -> None:
        """What leads to where few random walks come."""
        caller, callee = self.begin.people[:2]
        if self.begin.theme == "walk":
            return
        await self._done(self.request(caller, callee))
        for call in self._live():
            await self._done(self.accept(call))
            if self.world.calls[call["_id"]]["state"] == "accepted":
                await self._done(self._connected(call))
        if self.begin.theme == "to the end":
            await self._done(self._deposit() if self.dice.random() < 0.3 else self._time())
            await self._done(self._talk())
        if self.begin.theme == "upgrade":
            for step in (self._time, self._upgraded, self._upgraded, self._time):
                await self._done(step())
        if self.begin.theme == "debt":
            await self._done(self._time())
            for call in self._live():
                await self._done(self.hang_up(call, caller))
            await self.world.pass_(self.begin.dispute_seconds)
            wallet = self.world.wallets.get(f"{callee}:NGN")
            if wallet is not None and wallet["balances"]["primary"]:
                await self._done(self.world.transfer(callee, caller, wallet["balances"]["primary"]))
            if self._over():
                await self._done(self._refund())
            await self._done(self.request(caller, callee))

    async def _upgraded(self) -> None:
        for call in self._live():
            await self._upgrade(call)

    def _over(self) -> list[dict[str, Any]]:
        return [call for call in self.world.calls.values() if call["state"] == "ended" and call["cost_minor"]]

    # --------------------------------------------------------------------------------------------------- the steps

    async def _step(self) -> None:
        choices: list[tuple[float, Step]] = [
            (2.0, self._time),
            (1.0, self._deposit),
            (1.0, self._transfer),
            (0.7, self._jobs),
            (0.2, self._freeze),
        ]
        if self._said:
            choices.append((0.8, self._repeat))
        if len(self._idle()) >= 2:
            choices.append((8.0, self._request))
        if self._over():
            choices.append((1.3, self._refund))
        for call in self._live():
            choices += self._about(call)
        if self.world.offline:
            choices.append((3.0, self._back))
        if self.begin.kind != "calm":
            choices.append((4.0 if self.begin.kind == "raced" else 0.7, self._at_once))
        await self.dice.choices([step for _, step in choices], [weight for weight, _ in choices])[0]()

    def _about(self, call: dict[str, Any]) -> list[tuple[float, Step]]:
        caller, callee = call["caller"]["user_id"], call["callee"]["user_id"]
        either = self.dice.choice((caller, callee))
        talk: list[tuple[float, Step]] = [
            (7.0, self._talk),
            (1.5, lambda: self.hang_up(call, either)),
            (1.5, lambda: self._drop(either)),
        ]
        match call["state"]:
            case "ringing":
                return [
                    (
                        1.0,
                        lambda: self._verb(
                            "ringing", callee, lambda p: p.calls.ringing(p.device, call["_id"])
                        ),
                    ),
                    (14.0, lambda: self.accept(call)),
                    (
                        0.5,
                        lambda: self._verb("reject", callee, lambda p: p.calls.reject(p.device, call["_id"])),
                    ),
                    (0.5, lambda: self.hang_up(call, caller)),
                    (0.3, lambda: self._drop(caller)),
                ]
            case "accepted":
                return [(6.0, lambda: self._connected(call)), *talk[1:]]
            case "reconnecting":
                return [(6.0, lambda: self._resume(call)), *talk[1:]]
        if self.begin.kind != "calm":
            talk.append((1.0, lambda: self._report(call, either)))
        if call["type"] == "audio":
            asked = call["upgrade"] is not None
            talk.append((3.0 if asked else 1.5, lambda: self._upgrade(call)))
        return talk

    async def _verb(self, name: str, user: str, verb: Callable[[Phone], Awaitable[Any]]) -> Any:
        """A verb of somebody's phone, wherever it is connected by then."""

        async def said() -> Any:
            return await verb(self.world.phones[user])

        self._said = [*self._said, (name, user, said)][-REPEATED_MAX:]
        return await self.world.ask(name, said, user=user)

    def _live(self) -> list[dict[str, Any]]:
        return [call for call in self.world.calls.values() if call["state"] != "ended"]

    def _idle(self) -> list[str]:
        busy = {call[side]["user_id"] for call in self._live() for side in ("caller", "callee")}
        return [user for user in self.begin.people if user not in busy and user not in self.world.offline]

    async def _request(self) -> None:
        caller, callee = self.dice.sample(self._idle(), 2)
        await self.request(caller, callee)

    async def request(self, caller: str, callee: str) -> None:
        """Ring somebody. In calm times a refusal for want of money has to be true, and so has its absence."""
        kind, op_id = self.dice.choice(("audio", "audio", "video")), f"op{self.world.town.ids.new()[-6:]}"
        media = self.dice.random() < 0.25
        before = await self._wallet(caller)
        found = await self._verb(
            "request",
            caller,
            lambda p: p.calls.request(p.device, to=callee, type=kind, op_id=op_id, reports_media=media),
        )
        if self.begin.kind != "calm" or self.world.disturbed or found is None:
            return
        can = before is not None and not before["frozen"]
        balances = before["balances"] if before is not None else {}
        money = balances["primary"] + balances["credits"] if can else 0
        price = Tariff(*self.begin.tariff_of(callee, kind)).price(1000)
        if isinstance(found, Refusal):
            ensure(found.code in ("INSUFFICIENT_FUNDS", "WALLET_FROZEN"), "refused", found.code)
            ensure(money < price, "refused for want of money", money, price)
            return
        ensure(money >= price, "rings without money", money, price)
        await self.world.observe()
        seen = self.world.model.calls.get(found.id)
        if seen is not None:
            seen.credits_before = balances.get("credits", 0)

    async def _wallet(self, user: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await aside(
            self.world.town.real.db[WALLETS].find_one({"user_id": user})
        )
        return found

    async def accept(self, call: dict[str, Any]) -> None:
        """Answer it; sometimes the phone says when media flows."""
        media = self.dice.random() < 0.25
        await self._verb(
            "accept",
            call["callee"]["user_id"],
            lambda p: p.calls.accept(p.device, call["_id"], reports_media=media),
        )

    async def hang_up(self, call: dict[str, Any], user: str) -> None:
        """End it from one side."""
        await self._verb("hang up", user, lambda p: p.calls.end(p.device, call_id=call["_id"]))

    async def _connected(self, call: dict[str, Any]) -> None:
        for side in self.dice.sample(("caller", "callee"), 2):
            user = call[side]["user_id"]
            await self._verb("connected", user, lambda p: p.calls.connected(p.device, call["_id"]))

    async def _drop(self, user: str) -> None:
        phone = self.world.phones[user]
        if phone.rest or user in self.world.offline:
            return
        self.world.offline.add(user)
        phone.process.doors.disconnect(user, phone.device_id)
        seen = self.world.clock.now()
        if self.begin.kind != "calm" and self.dice.random() < 0.3:
            # Nothing was heard of it for a while: the conversation is over since then, paid for or not.
            seen -= timedelta(seconds=self.dice.choice((1, 20, 70)))
            self.world.disturbed = True
        await self.world.ask(
            "drop", lambda: phone.calls.lost(user, phone.device_id, phone.process.name, seen), user=user
        )

    async def _report(self, call: dict[str, Any], user: str) -> None:
        """A phone says whether it receives anything; if not, the conversation ended with the last proof of it."""
        self.world.disturbed = True
        hears = self.dice.random() < 0.6
        await self._verb(
            "hears" if hears else "hears nothing",
            user,
            lambda p: p.calls.report(p.device, call["_id"], stats={}, receiving=hears),
        )

    async def _back(self) -> None:
        user = self.dice.choice(sorted(self.world.offline))
        phone = self.world.phones[user]
        phone.process = self.dice.choice(self.world.alive)
        await self.world.back(user)

    async def _resume(self, call: dict[str, Any]) -> None:
        media = self.dice.choice((None, None, True, False))
        for side in self.dice.sample(("caller", "callee"), 2):
            user = call[side]["user_id"]
            if user in self.world.offline:
                await self.world.back(user)
            await self._verb(
                "resume", user, lambda p: p.calls.resume(p.device, call["_id"], reports_media=media)
            )
            if media:
                await self._verb("connected", user, lambda p: p.calls.connected(p.device, call["_id"]))

    async def _upgrade(self, call: dict[str, Any]) -> None:
        sides = ("caller", "callee")
        if call["upgrade"] is None:
            user = call[self.dice.choice(sides)]["user_id"]
            await self._verb(
                "ask for video", user, lambda p: p.calls.ask_upgrade(p.device, call["_id"], type="video")
            )
            return
        other = sides[call["upgrade"]["by"] == "caller"]
        yes = self.dice.random() < 0.8
        await self._verb(
            "answer to video",
            call[other]["user_id"],
            lambda p: p.calls.answer_upgrade(p.device, call["_id"], accept=yes),
        )

    async def _deposit(self) -> None:
        user = self.dice.choice([user for user in self.begin.people if user not in self.begin.without_wallet])
        rate = max(100, self.begin.tariffs.rate_minor)
        minor = self.dice.choice((1, self.dice.randint(1, rate), self.dice.randint(1, 5 * rate)))
        await self.world.deposit(user, minor, self.dice.choice(("primary", "primary", "call_credits")))

    async def _transfer(self) -> None:
        payer, payee = self.dice.sample(self.begin.people, 2)
        wallet = await self._wallet(payer)
        most = wallet["balances"]["primary"] if wallet is not None else 0
        minor = self.dice.choice(
            (1, max(1, most), max(1, most // 2), most + 1, self.dice.randint(1, most + 1))
        )
        await self.world.transfer(payer, payee, minor)

    async def _refund(self) -> None:
        call = self.dice.choice(self._over())
        cost = call["cost_minor"]
        minor = self.dice.choice((cost, self.dice.randint(1, cost), 1, cost + 1))
        await self.world.refund(call["_id"], minor)

    async def _freeze(self) -> None:
        user, frozen = self.dice.choice(self.begin.people), self.dice.random() < 0.4
        self.world.lapse()
        here = self.dice.choice(self.world.alive)
        await self.world.ask("freeze", lambda: here.wallets.freeze(user, frozen=frozen), user=user)

    async def _repeat(self) -> None:
        name, user, verb = self.dice.choice(self._said)
        await self.world.ask(f"again: {name}", verb, user=user)

    async def _jobs(self) -> None:
        stalled = self.begin.kind != "calm" and self.dice.random() < 0.3
        await self.world.keep(all_jobs=True, stalled=stalled)

    async def _time(self) -> None:
        seconds = self.dice.choice((self.dice.randint(1, 3000) / 1000, self.dice.randint(1, 60), 46))
        await self._let(seconds)

    async def _talk(self) -> None:
        dice = self.dice
        ends = [call["deadline_at"] for call in self._live() if call["deadline_at"]]
        if ends and dice.random() < 0.4:  # up to the end of the money, or close to it
            left = (min(ends) - self.world.clock.now()).total_seconds()
            await self._let(
                max(0.0, left + dice.choice((-0.001, 0.0, 0.001, -1.0, 2.0, -dice.random() * left)))
            )
            return
        await self._let(
            dice.choice((dice.randint(1, 70_000) / 1000, dice.randint(1, 130), dice.randint(100, 700), 3_600))
        )

    async def _let(self, seconds: float) -> None:
        lazy = self.dice.random() < 0.1
        if lazy:
            self.world.lapse()
        await self.world.pass_(seconds, lazy=lazy)

    async def _nudged(self) -> None:
        """Whoever's money has changed is looked at without delay."""
        for process in list(self.world.alive):
            await self.world.job(process, process.billing.run_wanted)
        await self.world.bury()

    # -------------------------------------------------------------------------------------------------------- at once

    async def _at_once(self) -> None:
        """Several things at the same instant, of one process or of two."""
        world, dice = self.world, self.dice
        world.lapse()
        if dice.random() < 0.6:
            world.jump(dice.choice((60.0, 4_000.0, 90_000.0)))
        live = self._live()
        verbs: dict[str, Any] = {}
        for number, process in enumerate(dice.sample(world.alive, 2)):
            if dice.random() < 0.6:
                verbs[f"jobs {number}"] = world.turn(process, all_jobs=dice.random() < 0.5)
        for call in live:
            sides = [call[side]["user_id"] for side in ("caller", "callee")]
            if call["state"] == "ringing" and dice.random() < 0.8:
                verbs[f"accept {call['_id']}"] = self.accept(call)
            for user in sides:
                if dice.random() < 0.25:
                    verbs[f"end {user}"] = self.hang_up(call, user)
            if call["upgrade"] is not None:
                verbs[f"upgrade {call['_id']}"] = self._upgrade(call)
        idle = self._idle()
        if len(idle) >= 2 and dice.random() < 0.8:
            one, other = dice.sample(idle, 2)
            verbs["ring"] = self.request(one, other)
            if dice.random() < 0.4:
                verbs["ring back"] = self.request(other, one)
        if dice.random() < 0.5:
            verbs["transfer"] = self._transfer()
        if dice.random() < 0.5:
            verbs["deposit"] = self._deposit()
        if self._over() and dice.random() < 0.4:
            verbs["refund"] = self._refund()
            verbs["refund too"] = self._refund()
        if verbs:
            await world.race(**verbs)

    # -------------------------------------------------------------------------------------------------------- the end

    async def _quiet(self) -> None:
        """Nothing fails any more: hang up or let it run out, let time pass, until nothing is left to be done."""
        world, dice = self.world, self.dice
        await world.bury()
        await world.observe()
        for call in self._live():
            if dice.random() < 0.7:
                await self.hang_up(call, call[dice.choice(("caller", "callee"))]["user_id"])
        await world.observe()
        for _ in range(QUIET_TURNS_MAX):
            lives = bool(self._live())
            await world.pass_(self.begin.timers.longest + 31 if lives else self.begin.dispute_seconds + 11)
            await world.keep(all_jobs=True)
            await world.observe()
            if not lives and not any(c["money_due_at"] or "untold" in c for c in world.calls.values()):
                return
        raise Broken(f"does not come to rest: {list(world.calls.values())!r}")

    async def _reckon(self) -> str:
        world = self.world
        real = world.town.real
        ensure(await real.db[LOCKS].count_documents({}) == 0, "somebody is still busy")
        await world.read()
        calls = world.calls.values()
        journal = await real.db[JOURNAL].find({}, sort=[("_id", 1)]).to_list()
        world.model.final(calls, world.wallets, journal, exact=not world.disturbed)
        report = await audit(real, world.clock.now())
        ensure(report.clean, f"the audit says: {report}")
        world.counts["calls"] += len(calls)
        world.counts["paid calls"] += sum(
            call["charge"] is not None and call["cost_minor"] > 0 for call in calls
        )
        world.counts["minor units charged"] += sum(call["cost_minor"] for call in calls)
        world.counts["journal entries"] += len(journal)
        world.counts["earnings paid back after a refund"] += world.model.debts
        world.counts["calls that lasted as long as the money"] += world.model.lasted
        return world.digest(journal)
