"""The users of a measurement, made over REST as anybody is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp

from tests.bench.plan import Told
from tests.standins import payer

PASSWORD = "kettle orbit 73 lantern"
PIN = "4071"
AT_ONCE = 8
TRIES = 5


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has signed in."""

    user_id: str
    username: str
    token: str


async def register(url: str, prefix: str, count: int, told: Told) -> list[Person]:
    """Make ``count`` users."""
    gate, made = asyncio.Semaphore(AT_ONCE), 0
    async with aiohttp.ClientSession() as http:

        async def one(number: int) -> Person:
            nonlocal made
            name = f"{prefix}{number:04d}"
            body = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
            async with gate, http.post(f"{url}/api/auth/register", json=body) as answer:
                said = await answer.json()
                if answer.status != 201:
                    raise RuntimeError(f"register: {answer.status} {said}")
            made += 1
            told(made / count)
            return Person(said["user"]["id"], name, said["accessToken"])

        return list(await asyncio.gather(*(one(number) for number in range(count))))


async def open_wallets(url: str, people: list[Person]) -> None:
    """A wallet for each."""
    await _ask_each(url, people, "/api/wallet/create", {"pin": PIN}, lambda share: None)


async def pay_in(url: str, people: list[Person], amount_minor: int, told: Told) -> None:
    """Money for each, paid on the sandbox's page."""
    gate, done = asyncio.Semaphore(AT_ONCE), 0
    async with aiohttp.ClientSession() as http:

        async def one(person: Person) -> None:
            nonlocal done
            head = {"Authorization": f"Bearer {person.token}", "Idempotency-Key": uuid4().hex}
            async with gate:
                await payer.pay_in(http, url, head, {"amountMinor": amount_minor})
            done += 1
            told(done / len(people))

        await asyncio.gather(*(one(person) for person in people))


async def _ask_each(url: str, people: list[Person], path: str, body: dict[str, Any], told: Told) -> None:
    gate, done = asyncio.Semaphore(AT_ONCE), 0
    async with aiohttp.ClientSession() as http:

        async def one(person: Person) -> None:
            nonlocal done
            # With a key, so that one that was refused for want of a database may be asked again.
            head = {"Authorization": f"Bearer {person.token}", "Idempotency-Key": uuid4().hex}
            for left in reversed(range(TRIES)):
                async with gate, http.post(f"{url}{path}", json=body, headers=head) as answer:
                    if answer.status == 201:
                        break
                    if answer.status != 503 or not left:
                        raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
                await asyncio.sleep(1)
            done += 1
            told(done / len(people))

        await asyncio.gather(*(one(person) for person in people))
