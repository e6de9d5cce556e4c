"""Logins over HTTP at bcrypt's cost 12: how many a second, what happens when far more come than that, and whether the
time that a refusal takes tells who has an account.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from statistics import median

import aiohttp
import pyotp

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


_WRONG = "wrong horse battery"


async def alike(url: str, people: list[Person], plan: Plan, told: Told) -> Round:
    """Refusals for somebody, for nobody and for somebody with a second factor, one after the other and taking turns.

    The figures are medians, and each median by that of nobody: 1 is no difference at all.
    """
    took: dict[str, list[float]] = {}
    faults: Counter[str] = Counter()
    careful, plain = people[: len(people) // 2], people[len(people) // 2 :]
    async with _client() as http:

        async def ask(kind: str, path: str, expected: int, **body: str) -> None:
            begun = now()
            async with http.post(f"{url}/api/auth/{path}", json=body) as answer:
                await answer.read()
                if answer.status != expected:
                    faults[f"{kind}: {answer.status}"] += 1
            took.setdefault(kind, []).append((now() - begun) * 1000)

        for number in range(plan.alike_tries):
            names = {
                "known": plain[number % len(plain)].username,
                "second_factor": careful[number % len(careful)].username,
                # As many names as there are of the others: who asks for the same again is answered sooner.
                "nobody": f"nobody{number % len(plain)}",
            }
            for who, name in names.items():
                await ask(f"login_{who}_ms", "login", 401, identifier=name, password=_WRONG)
            for who, name in names.items():
                await ask(f"forgot_{who}_ms", "forgot-password", 202, identifier=name)
            told(number / plan.alike_tries)
    figures = {kind: median(samples) for kind, samples in took.items()}
    for verb in ("login", "forgot"):
        for who in ("known", "second_factor"):
            figures[f"{verb}_{who}_ratio"] = figures[f"{verb}_{who}_ms"] / figures[f"{verb}_nobody_ms"]
    return Round(figures, faults)


async def turn_on_factors(url: str, people: list[Person]) -> None:
    """A second factor for the first half of the people."""
    async with _client() as http:
        for person in people[: len(people) // 2]:
            head = {"Authorization": f"Bearer {person.token}"}
            async with http.post(f"{url}/api/auth/2fa/setup", headers=head) as answer:
                secret = (await answer.json())["secret"]
            body = {"code": pyotp.TOTP(secret).now()}
            async with http.post(f"{url}/api/auth/2fa/enable", json=body, headers=head) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"2fa: {answer.status} {await answer.text()}")
