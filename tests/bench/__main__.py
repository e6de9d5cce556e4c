"""``python -m tests.bench [--quick] [--only PART …] [--json FILE]``: measure one server on this machine and say it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from server.cli_run import event_loop_factory
from server.mongod import EmbeddedMongod, MongodFault
from tests.bench import (
    calls,
    chat,
    cutoff,
    inside,
    logins,
    money,
    presence,
    processes,
    relay,
    renewals,
    report,
    rest,
)
from tests.bench.machine import Cores, NoStart, Server, Watched, describe, load
from tests.bench.people import open_wallets, pay_in, register
from tests.bench.phone import Phone, connect_all
from tests.bench.plan import QUICK, Plan, Told
from tests.bench.stats import Round, summary

WARM_UP_SHARE = 0.3
# Between two rounds, for what the one before has left to be done.
PAUSE_SECONDS = 0.3
# The generator's own sign-ins must not be counted as guesses at passwords.
NO_AUTH_LIMIT = "1000000"
CHEAP_HASHES, REAL_HASHES = "4", "12"
# Audio is paid for, by the second, and video is free: both kinds of call on one server.
TARIFFS = {
    "CALL_RATE_MINOR": str(cutoff.RATE_MINOR),
    "CALL_VIDEO_RATE_MINOR": "0",
    **inside.BY_THE_SECOND,
}
COMMANDS_OF_CALLS = 10
PARTS = ("rest", "calls", "chat", "presence", "cut-offs", "money", "logins", "processes")


class Bench:
    """One run. ``results`` fills as it goes."""

    def __init__(self, plan: Plan, folder: Path, progress: Progress) -> None:
        self.plan = plan
        self.results: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.cores = Cores()
        self._folder = folder
        self._servers = 0
        self._progress = progress

    async def run(self, only: Sequence[str] = ()) -> None:
        """The parts, one after the other: all, or ``only`` some."""
        wanted = set(only or PARTS)
        if "rest" in wanted:
            with self.bar("start and rest") as told:
                self.results["rest"] = await rest.measure(self._folder / "rest", self.plan, told)
        self.cores.take_ours()
        mongod = EmbeddedMongod(self._folder / "mongod")
        uri = await mongod.start()
        try:
            database = mongod.pid or 0
            if "calls" in wanted:
                await self._with_server(uri, CHEAP_HASHES, lambda s: self._calls_and_relay(s, database))
            if "chat" in wanted:
                await self._with_server(uri, CHEAP_HASHES, lambda s: self._chat(s, database))
            if "presence" in wanted:
                await self._with_server(uri, CHEAP_HASHES, lambda s: self._presence(s, database))
            if "cut-offs" in wanted:
                work = lambda s: self._cut_offs(s, database)  # noqa: E731
                await self._with_server(uri, CHEAP_HASHES, work, troubled=True)
            if "money" in wanted:
                await self._inside(uri, database)
            if "logins" in wanted:
                await self._with_server(uri, REAL_HASHES, lambda s: self._logins(s, database))
            if "processes" in wanted:
                await self._processes(uri)
        finally:
            await mongod.stop()

    def bar(self, title: str) -> Bar:
        """A new progress bar."""
        return Bar(self._progress, title)

    async def _with_server(
        self, uri: str, hashes: str, work: Callable[[Server], Awaitable[None]], *, troubled: bool = False
    ) -> None:
        """``troubled``: what the server says of it is what the measurement does to it."""
        settings = {
            "MONGO_URI": uri,
            "BCRYPT_ROUNDS": hashes,
            "AUTH_PER_MINUTE": NO_AUTH_LIMIT,
            "RINGS_PER_MINUTE": NO_AUTH_LIMIT,
            **TARIFFS,
        }
        self._servers += 1
        server = Server(self.cores, self._folder / f"server{self._servers}", settings)
        await server.start()
        try:
            await work(server)
        finally:
            await server.stop()
            self.warnings += [] if troubled else server.warnings()

    async def _rounds(
        self, title: str, *measures: tuple[str, Callable[[Told], Awaitable[Round]]], times: int = 0
    ) -> None:
        """Each measure ``times`` (``plan.rounds``) times, taking turns."""
        kept: dict[str, list[Round]] = {name: [] for name, _ in measures}
        for number in range(times or self.plan.rounds):
            for name, measure in measures:
                with self.bar(f"{title}: {name.replace('_', ' ')}, round {number + 1}") as told:
                    await asyncio.sleep(PAUSE_SECONDS)
                    kept[name].append(await measure(told))
        part = self.results.setdefault(title, {})
        part.update({name: summary(rounds) for name, rounds in kept.items()})

    async def _calls_and_relay(self, server: Server, database: int) -> None:
        plan, watched = self.plan, Watched(server.pid, database)
        phones = await self._phones(server, "caller", plan.pairs, money=inside.PLENTY_MINOR)
        exchange = calls.Exchange(phones[: plan.pairs], phones[plan.pairs :])
        short = replace(plan, call_seconds=plan.call_seconds * WARM_UP_SHARE)
        with self.bar("warming up") as told:
            await calls.steady(exchange, short, watched, told)

        def measure(work: Any, *, paid: bool) -> Callable[[Told], Awaitable[Round]]:
            async def one(told: Told) -> Round:
                exchange.paid = paid
                done: Round = await work(exchange, plan, watched, told)
                return done

            return one

        await self._rounds(
            "calls",
            ("steady", measure(calls.steady, paid=False)),
            ("paid_steady", measure(calls.steady, paid=True)),
            ("flat_out", measure(calls.flat_out, paid=False)),
            ("paid_flat_out", measure(calls.flat_out, paid=True)),
        )
        self.results["calls"]["transactions"] = summary([await calls.transactions(server.url)])
        exchange.paid = False
        board = relay.relay_over(await calls.keep_running(exchange, plan.pairs))
        warm = replace(plan, relay_seconds=plan.relay_seconds * WARM_UP_SHARE)
        with self.bar("warming up") as told:
            await relay.flat_out(board, warm, watched, told)
        await self._rounds(
            "relay",
            ("steady", lambda told: relay.steady(board, plan, watched, told)),
            ("flat_out", lambda told: relay.flat_out(board, plan, watched, told)),
        )
        self._hang_up(phones)

    async def _chat(self, server: Server, database: int) -> None:
        plan, watched = self.plan, Watched(server.pid, database)
        phones = await self._phones(server, "writer", plan.pairs)
        pairs = chat.pairs(phones[: plan.pairs], phones[plan.pairs :])
        with self.bar("a group"):
            group = await chat.group(server.url, phones[: plan.group_members])
        short = replace(plan, chat_seconds=plan.chat_seconds * WARM_UP_SHARE)
        with self.bar("warming up") as told:
            await chat.flat_out(pairs, plan.chat_at_once, short, watched, told)
        await self._rounds(
            "chat",
            ("steady", lambda told: chat.steady(pairs, plan, watched, told)),
            ("flat_out", lambda told: chat.flat_out(pairs, plan.chat_at_once, plan, watched, told)),
            ("group_flat_out", lambda told: chat.flat_out(group, plan.group_at_once, plan, watched, told)),
            times=plan.chat_rounds,
        )
        self._hang_up(phones)
        with self.bar("friends") as told:
            people = await register(server.url, "friend", chat.friends_needed(plan) + 1, told)
        with self.bar(f"chat: {plan.missed} messages for a phone that is away") as told:
            away, faults = await chat.be_away(server.url, people[0], people[1:], plan, told)
        self.warnings += [f"{count} × {name} while messages were written" for name, count in faults.items()]
        await self._rounds(
            "chat",
            ("catch_up", lambda told: chat.catch_up(away, watched, told)),
            times=plan.chat_rounds,
        )

    async def _presence(self, server: Server, database: int) -> None:
        plan, watched = self.plan, Watched(server.pid, database)
        with self.bar("people") as told:
            people = await register(server.url, "watched", plan.presence_people, told)
            watchers = await register(server.url, "watcher", plan.presence_watchers, told)
        crowd = presence.Crowd([Phone(one) for one in people], [Phone(one) for one in watchers])
        await connect_all(list(crowd.watchers), server.url, lambda: None)
        with self.bar("presence: watching") as told:
            await crowd.watch(told)
        with self.bar("presence: arrivals") as told:
            came = summary([await presence.arrivals(crowd, server.url, watched, told)])
        await self._rounds(
            "presence",
            ("changes", lambda told: presence.changes(crowd, plan, watched, told)),
            ("flaps", lambda told: presence.flaps(crowd, plan, watched, told)),
            times=plan.chat_rounds,
        )
        self.results["presence"]["arrivals"] = came
        self._hang_up([*crowd.people, *crowd.watchers])

    async def _phones(self, server: Server, prefix: str, pairs: int, *, money: int = 0) -> list[Phone]:
        """Connected phones of new users: the callers, who have wallets with ``money``, and then the callees."""
        with self.bar("users") as told:
            people = await register(server.url, prefix, 2 * pairs, told)
        with self.bar("wallets") as told:
            await open_wallets(server.url, people[:pairs])
            if money:
                await pay_in(server.url, people[:pairs], money, told)
        phones = [Phone(one) for one in people]
        with self.bar("phones") as told:
            there = iter(range(1, len(phones) + 1))
            await connect_all(phones, server.url, lambda: told(next(there) / len(phones)))
        gc.collect()
        gc.freeze()
        return phones

    def _hang_up(self, phones: list[Phone]) -> None:
        dropped = [phone for phone in phones if phone.closed]
        if dropped:
            self.warnings.append(f"{len(dropped)} phones lost their connection: {dropped[0].closed}")
        for phone in phones:
            phone.close()

    async def _cut_offs(self, server: Server, database: int) -> None:
        plan, watched = self.plan, Watched(server.pid, database)
        rich = await self._phones(server, "rich", plan.pairs, money=inside.PLENTY_MINOR)
        exchange = calls.Exchange(rich[: plan.pairs], rich[plan.pairs :])
        exchange.paid = True
        phones = await self._phones(server, "poor", plan.cut_offs)
        poor = cutoff.Poor(server.url, phones[: plan.cut_offs], phones[plan.cut_offs :])
        await self._rounds(
            "cut_offs",
            ("alone", lambda told: cutoff.alone(poor, watched, plan, told)),
            ("busy", lambda told: cutoff.busy(poor, exchange, watched, plan, told)),
            ("away", lambda told: cutoff.away(poor, watched, plan, told)),
            times=plan.money_rounds,
        )
        self._hang_up(rich + phones)

    async def _inside(self, uri: str, database: int) -> None:
        """What is measured in this process, which takes the server's core for it."""
        plan = self.plan
        self.cores.take_servers()
        async with inside.inside(uri, "money", self._folder) as here:
            with self.bar("payers") as told:
                town = await money.Town.build(here, plan.money_lanes)
            commands = {kind: await town.commands(kind, COMMANDS_OF_CALLS) for kind in ("free", "paid")}
            await self._rounds(
                "money",
                ("free", lambda told: money.whole_calls(town, "free", database, plan, told)),
                ("paid", lambda told: money.whole_calls(town, "paid", database, plan, told)),
                times=plan.money_rounds,
            )
            till, payers, many = money.Till(here), town.callers, town.callees["paid"]
            await self._rounds(
                "money",
                ("many", lambda told: money.postings(till, payers, many, database, plan, told)),
                ("one", lambda told: money.postings(till, payers, many[:1], database, plan, told)),
                ("renewals", lambda told: money.renewals_alone(till, payers, many, database, plan, told)),
                times=plan.money_rounds,
            )
            self.results["commands"] = commands
        async with inside.inside(uri, "live", self._folder) as here:
            live = renewals.Live(here)
            with self.bar(f"{plan.live_calls} live calls") as told:
                await live.build(plan.live_calls, told)
            await self._rounds(
                "live",
                ("real_rate", lambda told: renewals.at_the_real_rate(live, database, plan, told)),
                times=plan.live_rounds,
            )
            with self.bar("renewing all"):
                await live.line_up()
            await self._rounds(
                "live",
                ("burst", lambda told: renewals.all_at_once(live, database, plan, told)),
                times=plan.money_rounds,
            )
        self.cores.take_ours()

    async def _logins(self, server: Server, database: int) -> None:
        plan, watched = self.plan, Watched(server.pid, database)
        with self.bar("users with real hashes") as told:
            people = await register(server.url, "login", plan.login_users, told)
        await self._rounds(
            "logins",
            ("flat_out", lambda told: logins.flat_out(server.url, people, plan, watched, told)),
        )
        with self.bar("logins: a flood") as told:
            flood = summary([await logins.flood(server.url, people, plan, told)])
        self.results["logins"]["flood"] = flood
        with self.bar("logins: second factors"):
            await logins.turn_on_factors(server.url, people)
        await self._rounds("logins", ("alike", lambda told: logins.alike(server.url, people, plan, told)))

    async def _processes(self, uri: str) -> None:
        """The same calls over more and more processes. Without a Redis on this machine nothing is measured."""
        plan = self.plan
        if shutil.which("redis-server") is None:
            self.warnings.append("redis-server is missing: nothing was measured of several processes")
            return
        settings = {
            "BCRYPT_ROUNDS": CHEAP_HASHES,
            "AUTH_PER_MINUTE": NO_AUTH_LIMIT,
            "RINGS_PER_MINUTE": NO_AUTH_LIMIT,
            **TARIFFS,
        }
        async with AsyncExitStack() as stack:
            towns = []
            for count in plan.process_counts:
                with self.bar(f"{count} processes") as told:
                    opening = processes.town(count, uri, self._folder / f"town{count}", self.cores, settings)
                    towns.append(await stack.enter_async_context(opening))
                    await towns[-1].call(plan.process_pairs, told)
            # All are there in all rounds, so that they are measured in the same circumstances.
            await self._rounds(
                "processes",
                *(
                    (f"{one.count}_at_{rate:.0f}", self._candidates(one, rate))
                    for rate in plan.process_rates
                    for one in towns
                ),
                times=plan.process_rounds,
            )

    def _candidates(self, here: processes.Town, rate: float) -> Callable[[Told], Awaitable[Round]]:
        return lambda told: processes.candidates(here, rate, self.plan, told)


class Bar:
    """A progress bar for the time of a ``with``."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=1.0)

    def __enter__(self) -> Told:
        return lambda share: self._progress.update(self._task, completed=share)

    def __exit__(self, *_: object) -> None:
        self._progress.remove_task(self._task)


def main() -> int:
    """Run and print; 1 when the server or its database did not start."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short rounds, about a minute: figures are rough"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument(
        "--call-rate", type=float, metavar="N", help="calls begun per second in the steady rounds"
    )
    parser.add_argument(
        "--relay-rate", type=float, metavar="N", help="candidates per second in the steady rounds"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each figure (default 3)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[], help="these parts, as plain figures")
    args = parser.parse_args()
    plan = QUICK if args.quick else Plan()
    given = {name: getattr(args, name) for name in ("call_rate", "relay_rate", "rounds")}
    given["money_rounds"] = given["chat_rounds"] = given["process_rounds"] = args.rounds
    plan = replace(plan, **{name: value for name, value in given.items() if value})
    console = Console(width=None if sys.stdout.isatty() else 130)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    begun, load_before = time.perf_counter(), load()
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        bench = Bench(plan, Path(folder), progress)
        try:
            with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
                runner.run(bench.run(args.only))
        except (NoStart, MongodFault) as fault:
            console.print(str(fault), style="red", markup=False)
            return 1
    about = {
        "machine": describe(),
        "cores": bench.cores.sentence(),
        "load_before": load_before,
        "seconds": round(time.perf_counter() - begun, 1),
        "plan": asdict(plan),
    }
    if args.only:
        report.show_figures(console, about, bench.results)
    else:
        report.show(console, about, bench.results, bench.warnings)
    if args.json:
        whole = {**about, "results": bench.results, "warnings": bench.warnings}
        args.json.write_text(json.dumps(whole, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
