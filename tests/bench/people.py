"""The users of a measurement, made over REST as anybody is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiohttp

from tests.bench.plan import Told

PASSWORD = "kettle orbit 73 lantern"
AT_ONCE = 8


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
