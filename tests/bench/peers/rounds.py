"""One round of one contender: a fresh process, its connections, and what is measured of it."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from tests.bench.machine import Cores
from tests.bench.peers.contenders import Contender, Pair
from tests.bench.peers.meter import Meter, ahead, memory_kb
from tests.bench.peers.plan import Plan
from tests.bench.peers.wires import Wires
from tests.bench.phone import Phone, connect_all
from tests.bench.plan import Told
from tests.bench.relay import ALLOWED_PER_SECOND, BURST
from tests.bench.stats import Round, spread

WARM_CONNECTIONS = 50
# Flat out the server must be full and the generator not, or the figure is not the server's; at a fixed rate the
# generator must keep to its schedule. What fails is measured again, so many times in all.
SERVER_FULL, GENERATOR_FULL, LATE_US, TRIES = 0.95, 0.9, 100.0, 3


@asynccontextmanager
async def connected(one: Contender, count: int, told: Told) -> AsyncIterator[list[Phone]]:
    """A fresh server with phones connected to it."""
    await one.start()
    try:
        phones = [Phone(person) for person in await one.people(count, told)]
        try:
            await _connect(phones, one.url, told)
            yield phones
        finally:
            for phone in phones:
                phone.close()
            await asyncio.sleep(0.1)
    finally:
        await one.stop()


async def relay(one: Contender, plan: Plan, cores: Cores, told: Told) -> dict[str, Round]:
    """Fixed rates, flat out, and flat out with acks."""
    async with connected(one, 2 * plan.pairs, lambda share: told(share * 0.2)) as phones:
        pairs = await one.pair_up(phones, lambda share: told(0.2 + share * 0.2))
        rounds: dict[str, Round] = {}
        meter = Meter(one.pid, cores)
        with _wires(pairs) as wires:
            wires.learn()
            most = wires.devices * plan.flood_each
            wires.flood(plan.warm_seconds, most, lambda: None)
            _calm(wires)
            for place, rate in enumerate(plan.rates):
                told(0.4 + 0.1 * place)
                wires.steady(rate, plan.steady_seconds * 0.2)
                rounds[f"at_{rate}"] = _quiet(partial(_steady, wires, rate, plan.steady_seconds, meter))
            told(0.7)
            rounds["flat_out"] = _quiet(lambda: _flood(wires, plan.flood_seconds, most, meter))
        if one.acks:
            told(0.85)
            with _wires(pairs, acked=True) as wires:
                wires.learn()
                rounds["acked"] = _quiet(lambda: _flood(wires, plan.flood_seconds, most, meter))
        await one.part(pairs)
        dropped = [phone.closed for phone in phones if phone.closed]
        if dropped:
            rounds["flat_out"].faults[f"connections lost: {dropped[0]}"] += len(dropped)
    return rounds


async def idle(one: Contender, plan: Plan, cores: Cores, told: Told) -> dict[str, Round]:
    """Memory and CPU of connections that say nothing."""
    await one.start()
    phones: list[Phone] = []
    try:
        people = await one.people(WARM_CONNECTIONS + plan.idle, lambda share: told(share * 0.3))
        await one.stop()  # what registering has cost is not theirs
        await one.start()
        phones = [Phone(person) for person in people]
        await _connect(phones[:WARM_CONNECTIONS], one.url, lambda share: None)
        await asyncio.sleep(plan.settle_seconds)
        before, meter = memory_kb(one.pid), Meter(one.pid, cores)
        await _connect(phones[WARM_CONNECTIONS:], one.url, lambda share: told(0.3 + share * 0.4))
        spent = meter.read()
        await asyncio.sleep(plan.settle_seconds)
        meter.begin()
        await asyncio.sleep(plan.idle_seconds)
        rest = meter.read()
        figures = {
            "connections": float(plan.idle),
            "memory_kb": (memory_kb(one.pid) - before) / plan.idle,
            "connect_us": spent.server / plan.idle * 1e6,
            "connects_per_s": plan.idle / spent.seconds,
            "idle_share": rest.server / rest.seconds,
        }
        dropped = [phone.closed for phone in phones if phone.closed]
        lost = Counter({f"connections lost: {dropped[0]}": len(dropped)} if dropped else {})
    finally:
        for phone in phones:
            phone.close()
        await asyncio.sleep(0.1)
        await one.stop()
    return {"idle": Round(figures, lost)}


async def _connect(phones: list[Phone], url: str, told: Told) -> None:
    there = iter(range(1, len(phones) + 1))
    await connect_all(phones, url, lambda: told(next(there) / len(phones)))


@contextmanager
def _wires(pairs: Sequence[Pair], *, acked: bool = False):  # type: ignore[no-untyped-def]
    wires = Wires(pairs, acked=acked)
    gc.collect()
    gc.disable()
    try:
        yield wires
    finally:
        gc.enable()
        wires.close()


def _calm(wires: Wires) -> None:
    """Let what is on its way arrive, and every device's allowance fill up again."""
    wires.settle()
    wires.rest(min(BURST, wires.sent_lately() / wires.devices + 1) / ALLOWED_PER_SECOND)


def doubt(figures: Mapping[str, float]) -> str | None:
    """Why a measurement does not say what it seems to, if so."""
    server, generator, late = (
        figures.get(name) for name in ("server_share", "generator_share", "late_us_p99")
    )
    if late is not None:
        return f"sent up to {late:,.0f} µs late (p99)" if late > LATE_US else None
    if server is None or generator is None or not (server < SERVER_FULL or generator > GENERATOR_FULL):
        return None
    return (
        f"server {server * 100:.0f} % of its core, generator {generator * 100:.0f} %: NOT the server's limit"
    )


def _quiet(measure: Callable[[], Round]) -> Round:
    """The first measurement that is not in doubt, or the last of a few."""
    for left in reversed(range(TRIES)):
        done = measure()
        if not left or doubt(done.figures) is None:
            break
    return done


def _steady(wires: Wires, rate: int, seconds: float, meter: Meter) -> Round:
    lost, others = wires.lost, wires.others.copy()
    with ahead(meter.pid):
        meter.begin()
        wires.steady(rate, seconds)
        spent = meter.read()
    _calm(wires)
    count = round(rate * seconds)
    figures = {
        "cpu_us": spent.server / count * 1e6,
        **spread("taken_us", wires.taken_us),
        **spread("late_us", wires.late_us),
        **spent.shares(),
    }
    return Round(figures, _faults(wires, lost, others))


def _flood(wires: Wires, seconds: float, most: int, meter: Meter) -> Round:
    lost, others = wires.lost, wires.others.copy()
    with ahead(meter.pid):
        count = wires.flood(seconds, most, meter.begin)
        spent = meter.read()
    _calm(wires)
    figures = {
        "cpu_us": spent.server / count * 1e6 if count else float("nan"),
        "messages_per_s": count / spent.seconds,
        "frame_bytes": float(wires.frame_size),
        **spent.shares(),
    }
    return Round(figures, _faults(wires, lost, others))


def _faults(wires: Wires, lost_before: int, others_before: Counter[str]) -> Counter[str]:
    lost = wires.lost - lost_before
    return wires.others - others_before + Counter({"lost": lost} if lost > 0 else {})
