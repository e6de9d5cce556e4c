"""``python -m tests.bench [--quick] [--json FILE]``: measure one server on this machine and print what came out."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from server.cli_run import event_loop_factory
from server.mongod import EmbeddedMongod, MongodFault
from tests.bench import calls, logins, relay, report, rest
from tests.bench.machine import Cores, NoStart, Server, Watched, describe, load
from tests.bench.people import register
from tests.bench.phone import Phone, connect_all
from tests.bench.plan import QUICK, Plan, Told
from tests.bench.stats import Round, summary

WARM_UP_SHARE = 0.3
# Between two rounds, for what the one before has left to be done.
PAUSE_SECONDS = 0.3
# The generator's own sign-ins must not be counted as guesses at passwords.
NO_AUTH_LIMIT = "1000000"
CHEAP_HASHES, REAL_HASHES = "4", "12"


class Bench:
    """One run. ``results`` fills as it goes."""

    def __init__(self, plan: Plan, folder: Path, progress: Progress) -> None:
        self.plan = plan
        self.results: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.cores = Cores()
        self._folder = folder
        self._progress = progress

    async def run(self) -> None:
        """Everything, one after the other."""
        with self.bar("start and rest") as told:
            self.results["rest"] = await rest.measure(self._folder / "rest", self.plan, told)
        self.cores.take_ours()
        mongod = EmbeddedMongod(self._folder / "mongod")
        uri = await mongod.start()
        try:
            database = mongod.pid or 0
            await self._with_server(uri, CHEAP_HASHES, lambda s: self._calls_and_relay(s, database))
            await self._with_server(uri, REAL_HASHES, lambda s: self._logins(s, database))
        finally:
            await mongod.stop()

    def bar(self, title: str) -> Bar:
        """A new progress bar."""
        return Bar(self._progress, title)

    async def _with_server(self, uri: str, hashes: str, work: Callable[[Server], Awaitable[None]]) -> None:
        settings = {"MONGO_URI": uri, "BCRYPT_ROUNDS": hashes, "AUTH_PER_MINUTE": NO_AUTH_LIMIT}
        server = Server(self.cores, self._folder / f"server{hashes}", settings)
        await server.start()
        try:
            await work(server)
        finally:
            await server.stop()
            self.warnings += server.warnings()

    async def _rounds(self, title: str, *measures: tuple[str, Callable[[Told], Awaitable[Round]]]) -> None:
        """Each measure ``plan.rounds`` times, taking turns."""
        kept: dict[str, list[Round]] = {name: [] for name, _ in measures}
        for number in range(self.plan.rounds):
            for name, measure in measures:
                with self.bar(f"{title}: {name.replace('_', ' ')}, round {number + 1}") as told:
                    await asyncio.sleep(PAUSE_SECONDS)
                    kept[name].append(await measure(told))
        self.results[title] = {name: summary(rounds) for name, rounds in kept.items()}

    async def _calls_and_relay(self, server: Server, database: int) -> None:
        plan, watched = self.plan, Watched(server.pid, database)
        with self.bar("users") as told:
            people = await register(server.url, "caller", 2 * plan.pairs, told)
        with self.bar("phones") as told:
            phones = [Phone(one.user_id, one.token, f"phone-{one.username}") for one in people]
            there = iter(range(1, len(phones) + 1))
            await connect_all(phones, server.url, lambda: told(next(there) / len(phones)))
        gc.collect()
        gc.freeze()
        exchange = calls.Exchange(phones[: plan.pairs], phones[plan.pairs :])
        short = replace(plan, call_seconds=plan.call_seconds * WARM_UP_SHARE)
        with self.bar("warming up") as told:
            await calls.steady(exchange, short, watched, told)
        await self._rounds(
            "calls",
            ("steady", lambda told: calls.steady(exchange, plan, watched, told)),
            ("flat_out", lambda told: calls.flat_out(exchange, plan, watched, told)),
        )
        board = relay.relay_over(await calls.keep_running(exchange, plan.pairs))
        warm = replace(plan, relay_seconds=plan.relay_seconds * WARM_UP_SHARE)
        with self.bar("warming up") as told:
            await relay.flat_out(board, warm, watched, told)
        await self._rounds(
            "relay",
            ("steady", lambda told: relay.steady(board, plan, watched, told)),
            ("flat_out", lambda told: relay.flat_out(board, plan, watched, told)),
        )
        dropped = [phone for phone in phones if phone.closed]
        if dropped:
            self.warnings.append(f"{len(dropped)} phones lost their connection: {dropped[0].closed}")
        for phone in phones:
            phone.close()

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
        "--quick", action="store_true", help="short rounds, under a minute: figures are rough"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument(
        "--call-rate", type=float, metavar="N", help="calls begun per second in the steady rounds"
    )
    parser.add_argument(
        "--relay-rate", type=float, metavar="N", help="candidates per second in the steady rounds"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each figure (default 3)")
    args = parser.parse_args()
    plan = QUICK if args.quick else Plan()
    given = {name: getattr(args, name) for name in ("call_rate", "relay_rate", "rounds")}
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
                runner.run(bench.run())
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
    report.show(console, about, bench.results, bench.warnings)
    if args.json:
        whole = {**about, "results": bench.results, "warnings": bench.warnings}
        args.json.write_text(json.dumps(whole, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
