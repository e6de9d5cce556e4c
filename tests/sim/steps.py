"""What people, clocks and processes do in a history, one step at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from models.errors import Refusal
from models.ledger.store import WALLETS
from tests.services.callkit import Phone
from tests.sim.faults import aside
from tests.sim.history import Setup
from tests.sim.model import Tariff, ensure
from tests.sim.world import World

Step = Callable[[], Awaitable[Any]]
# Verbs that are kept to be sent again: a phone that repeats itself, a packet that comes late.
REPEATED_MAX = 6


class Steps:
    """The steps; ``walk.Walk`` says in which order."""

    def __init__(self, world: World, begin: Setup) -> None:
        self.world, self.begin, self.dice = world, begin, world.dice
        self._said: list[tuple[str, str, Step]] = []

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
            # At a very low rate the first second rounds to nothing, and still such a call takes a wallet.
            ensure(money < max(1, price), "refused for want of money", money, price)
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

    def _over(self) -> list[dict[str, Any]]:
        return [call for call in self.world.calls.values() if call["state"] == "ended" and call["cost_minor"]]
