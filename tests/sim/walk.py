"""A history: a random walk of what people, clocks and processes do, an end in quiet, and the reckoning."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from structlog.testing import capture_logs

from models.audit.service import audit
from models.billing.meter import WalletMeter
from models.calls.store import LOCKS
from models.db import Database
from models.ledger.store import JOURNAL
from tests.sim.history import setup
from tests.sim.model import Broken, ensure
from tests.sim.steps import Step, Steps
from tests.sim.world import World

# Quiet turns after which everything has to be settled and cleared.
QUIET_TURNS_MAX = 12


@dataclass(frozen=True)
class Outcome:
    """What a history came to. ``digest`` is the same whenever it is played again."""

    digest: str
    exchanges: int
    counts: Counter[str]
    faults: Counter[str]
    # Of a history that is to be swept: see ``Faults``.
    alike: tuple[int, ...] = ()


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
        with capture_logs() as logs:
            digest = await Walk(world, begin).run()
        world.check_logs(logs)
        faults = world.faults
        return Outcome(digest, faults.exchanges, world.counts, faults.counts, faults.alike)
    except Exception as fault:
        raise Failed(seed, crash_at, fault, world.trace) from fault
    finally:
        await asyncio.gather(*(db.db[name].delete_many({}) for name in sorted(world.town.touched)))


class Walk(Steps):
    """One history's steps."""

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
