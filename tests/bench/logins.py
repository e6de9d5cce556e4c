"""Logins over HTTP at bcrypt's cost 12: how many a second, and what happens when far more come than that."""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp

from tests.bench.machine import Watched
from tests.bench.people import PASSWORD, Person
from tests.bench.phone import now
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round, arrivals, spread

ANSWER_SECONDS = 60.0


async def _login(http: aiohttp.ClientSession, url: str, person: Person) -> tuple[int, str]:
    body = {"identifier": person.username, "password": PASSWORD}
    async with http.post(f"{url}/api/auth/login", json=body) as answer:
        said = await answer.json()
        return answer.status, said.get("error", said).get("code", "")


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    )


async def flat_out(url: str, people: list[Person], plan: Plan, watched: Watched, told: Told) -> Round:
    """``login_workers`` at a time, each followed by the next."""
    took: list[float] = []
    faults: Counter[str] = Counter()
    async with _client() as http:
        meter, start = watched.meter(), now()

        async def line(number: int) -> None:
            while (passed := now() - start) < plan.login_seconds:
                begun = now()
                status, code = await _login(http, url, people[number % len(people)])
                number += plan.login_workers
                if status == 200:
                    took.append((now() - begun) * 1000)
                else:
                    faults[f"{status} {code}"] += 1
                told(passed / plan.login_seconds)

        await asyncio.gather(*(line(number) for number in range(plan.login_workers)))
        spent = meter.read()
    figures = {
        "logins_per_s": len(took) / spent.seconds,
        **spread("login_ms", took),
        **spent.shares(),
    }
    return Round(figures, faults)


async def flood(url: str, people: list[Person], plan: Plan, told: Told) -> Round:
    """``flood_rate`` a second on schedule, whatever is answered; then ``/health`` as a bystander sees it."""
    good: list[float] = []
    refused: list[float] = []
    bystander: list[float] = []
    codes: Counter[str] = Counter()
    async with _client() as http:
        start = now() + 0.01

        async def one(number: int, due: float) -> None:
            status, code = await _login(http, url, people[number % len(people)])
            codes[f"{status} {code}".strip()] += 1
            (good if status == 200 else refused).append((now() - due) * 1000)

        async def watch() -> None:
            while True:
                begun = now()
                async with http.get(f"{url}/health/live") as answer:
                    await answer.read()
                bystander.append((now() - begun) * 1000)
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        tasks = []
        for number, offset in enumerate(arrivals(plan.flood_rate, plan.flood_seconds)):
            due = start + offset
            if due > now():
                await asyncio.sleep(due - now())
            tasks.append(asyncio.create_task(one(number, due)))
            told(offset / plan.flood_seconds)
        await asyncio.gather(*tasks)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    figures = {
        "asked_per_s": plan.flood_rate,
        "signed_in": float(len(good)),
        "refused": float(len(refused)),
        **spread("signed_in_ms", good),
        **spread("refused_ms", refused),
        **spread("bystander_ms", bystander),
    }
    return Round(figures, codes)
