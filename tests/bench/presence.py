"""Presence: people come, and go to the background and back, while others watch them.

Who comes is told at once. Whoever switches to another app is told of after a second, if it lasts (the debounce), so
that the time from the switch to the watcher has that second in it; what is over sooner is told to nobody. Each person
is watched by several phones, as in contact lists that overlap.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from models.presence.rules import FOREGROUND_AFTER
from tests.bench.machine import Watched
from tests.bench.phone import Phone, connect_all, now
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round, spread

# Watchers of each person.
WATCHERS_EACH = 5
# CONTRACT: people whom one device watches.
WATCHED_MAX = 200
# Longer than the debounce and a turn of the job together: what lasts this long is told.
LASTS_SECONDS = 2.0
STRAGGLERS_SECONDS = 5.0


@dataclass(slots=True)
class Crowd:
    """``people`` who are watched by ``watchers``; the people are not connected yet."""

    people: Sequence[Phone]
    watchers: Sequence[Phone]
    # By user: since when a state holds, which watchers should hear of and have not all heard.
    expected: dict[str, tuple[str, float]] = field(default_factory=dict)
    took_ms: list[float] = field(default_factory=list)
    notices: int = 0
    answered: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    async def watch(self, told: Told) -> None:
        """Each watcher watches its share of the people, so that everybody has ``WATCHERS_EACH``."""
        users = [phone.user_id for phone in self.people]
        each = -(-len(users) * WATCHERS_EACH // len(self.watchers))
        assert each <= WATCHED_MAX, "more watchers are needed"
        for number, watcher in enumerate(self.watchers):
            first = number * each
            mine = [users[(first + n) % len(users)] for n in range(each)]
            answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            watcher.emit("PRESENCE_WATCH", {"userIds": mine}, lambda ack, at, to=answer: to.set_result(ack))
            if not (await answer)["ok"]:
                self.faults["watch refused"] += 1
            watcher.on_event = self._heard
            told((number + 1) / len(self.watchers))

    def begin(self) -> None:
        """Forget the round before."""
        self.took_ms.clear()
        self.faults.clear()
        self.notices = self.answered = 0

    def say(self, number: int, state: str, due: float) -> None:
        """Person ``number`` is in the foreground (``online``) or not (``away``)."""
        phone = self.people[number]
        self.expected[phone.user_id] = (state, due)

        def acked(ack: dict[str, Any], at: float) -> None:
            self.answered += 1
            if not ack["ok"]:
                self.faults[ack["error"]["code"]] += 1

        phone.emit("PRESENCE_SET", {"state": state}, acked)

    async def settle(self, notices: int) -> None:
        """Wait until that many were heard."""
        until = now() + STRAGGLERS_SECONDS
        while self.notices < notices and now() < until:  # noqa: ASYNC110 - not timed
            await asyncio.sleep(0.01)

    def _heard(self, phone: Phone, name: str, payload: dict[str, Any], at: float) -> None:
        if name != "PRESENCE":
            return
        self.notices += 1
        state, since = self.expected.get(payload["userId"], ("", 0.0))
        if state == payload["state"]:
            self.took_ms.append((at - since) * 1000)
        else:
            self.faults["told of what is over"] += 1


async def arrivals(crowd: Crowd, url: str, watched: Watched, told: Told) -> Round:
    """Everybody connects: told at once, timed from the moment the connection is begun."""
    crowd.begin()
    there = 0

    def come() -> None:
        nonlocal there
        there += 1
        told(there / len(crowd.people))

    meter = watched.meter()
    for phone in crowd.people:
        crowd.expected[phone.user_id] = ("online", 0.0)
        phone.on_connect = lambda one, at: crowd.expected.__setitem__(one.user_id, ("online", at))
    await connect_all(list(crowd.people), url, come)
    await crowd.settle(len(crowd.people) * WATCHERS_EACH)
    spent = meter.read()
    return Round({**_figures(crowd, len(crowd.people), spent.server), **spent.shares()}, _lost(crowd, 1))


async def changes(crowd: Crowd, plan: Plan, watched: Watched, told: Told) -> Round:
    """``presence_changes`` that last, at a steady rate: the people take turns, to the background and back."""
    await _rest()
    crowd.begin()
    count = len(crowd.people)
    rounds = _rounds(plan, count)
    meter, start = watched.meter(), now() + 0.01
    for number in range(rounds * count):
        due = start + number * LASTS_SECONDS / count
        if due > now():
            await asyncio.sleep(due - now())
        turn, person = divmod(number, count)
        crowd.say(person, "online" if turn % 2 else "away", due)
        told(number / (rounds * count))
    await crowd.settle(rounds * count * WATCHERS_EACH)
    spent = meter.read()
    figures = {
        "asked_per_s": count / LASTS_SECONDS,
        **_figures(crowd, rounds * count, spent.server),
        **spent.shares(),
    }
    return Round(figures, _lost(crowd, rounds))


async def flaps(crowd: Crowd, plan: Plan, watched: Watched, told: Told) -> Round:
    """``presence_changes`` as fast as they go, each taken back before the debounce is over: nobody is told."""
    await _rest()
    crowd.begin()
    count = len(crowd.people)
    rounds = _rounds(plan, count)
    meter = watched.meter()
    for person in range(count):
        for turn in range(rounds):
            crowd.say(person, "online" if turn % 2 else "away", now())
        if person % 10 == 9:
            await asyncio.sleep(0)
        told(person / count)
    await _rest()
    spent = meter.read()
    figures = {**_figures(crowd, rounds * count, spent.server), **spent.shares()}
    return Round(figures, crowd.faults.copy())


def _rounds(plan: Plan, people: int) -> int:
    """Changes of each person: an even number, so that all are in the foreground again."""
    return max(2, plan.presence_changes // people // 2 * 2)


async def _rest() -> None:
    """Until nothing waits to be told any more, and the phones have an allowance again."""
    await asyncio.sleep(FOREGROUND_AFTER.total_seconds() + 1.0)


def _figures(crowd: Crowd, count: int, server_seconds: float) -> dict[str, float]:
    return {
        "changes": float(count),
        "notices": float(crowd.notices),
        "notices_per_change": crowd.notices / count,
        **spread("told_ms", crowd.took_ms),
        "server_cpu_us_per_change": server_seconds / count * 1e6,
    }


def _lost(crowd: Crowd, rounds: int) -> Counter[str]:
    lost = len(crowd.people) * WATCHERS_EACH * rounds - crowd.notices
    return crowd.faults + Counter({"not told": lost} if lost > 0 else {})
