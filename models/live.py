"""What lives and has to end when its people may no longer talk: calls and rooms, as one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from models.ports import LiveCalls


class Together:
    """``Together(calls, rooms)`` is a ``LiveCalls``: each is asked, also where another one fails."""

    def __init__(self, *parts: LiveCalls) -> None:
        self._parts = parts

    async def end_all(self, user_id: str) -> None:
        """End all that lives of a person: banned, deleted."""
        await _all(one.end_all(user_id) for one in self._parts)

    async def end_between(self, user_id: str, other_id: str) -> None:
        """End all that lives between two people: one has blocked the other."""
        await _all(one.end_between(user_id, other_id) for one in self._parts)

    async def forget(self, user_id: str) -> None:
        """Take a person out of all of it."""
        await _all(one.forget(user_id) for one in self._parts)


async def _all(work: Any) -> None:
    todo: list[Coroutine[Any, Any, None]] = list(work)
    done = await asyncio.gather(*todo, return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, BaseException):
            raise outcome
