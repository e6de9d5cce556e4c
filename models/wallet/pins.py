"""The PIN with which somebody moves money: set, check, change, reset.

A PIN has at most a million values, so it is peppered with a secret that is not in the database before it is hashed,
and wrong ones lock: after 5 for 15 minutes, after 5 more for 24 hours, after 5 more until it is reset.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from weakref import WeakValueDictionary

from models.auth.session import Hasher
from models.errors import Refusal
from models.ports import Clock
from models.wallet import rules
from models.wallet.store import WalletStore


class PasswordCheck(Protocol):
    """Who knows the accounts' passwords."""

    async def check_password(self, user_id: str, password: str) -> None:
        """Refuse with ``PASSWORD_WRONG`` unless it is the account's password."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one PIN. ``locked_for_ms``: how long its being wrong locks; None: not, or until it is reset."""

    valid: bool
    tries_left: int
    locked_for_ms: int | None
    hash: str = field(repr=False)


class Pins:
    """One per process."""

    def __init__(
        self, *, store: WalletStore, hasher: Hasher, passwords: PasswordCheck, clock: Clock, pepper: bytes
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._passwords = passwords
        self._clock = clock
        self._pepper = pepper
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def first(self, user_id: str, pin: str) -> bool:
        """Set the user's first PIN; False if they have one. ``VALIDATION_FAILED`` for one that may not be."""
        rules.checked_pin(pin)
        if await self._store.pin(user_id) is not None:
            return False
        hashed = await self._hasher.hash(self._peppered(user_id, pin))
        return await self._store.first_pin(user_id, hashed, self._clock.now())

    async def verdict(self, user_id: str, pin: str) -> Verdict:
        """Look at one PIN; a right one makes the wrong ones before it forgotten.

        Refuses with ``PIN_LOCKED`` (nothing was looked at), ``PIN_UNSET`` and ``SERVER_BUSY``.
        """
        # One at a time for each user and process: right PINs at once all pass, and one user keeps one thread busy.
        async with self._turns.setdefault(user_id, asyncio.Lock()):
            now = self._clock.now()
            tried = await self._store.count_try(user_id, now)
            if tried is None:
                raise await self._locked(user_id)
            try:
                right = await self._hasher.verify(self._peppered(user_id, pin), tried.hash)
            except Refusal:
                await self._store.give_back(user_id, tried)
                raise
            # A PIN that somebody changes meanwhile is the wrong one by now.
            if right and await self._store.was_right(user_id, tried.hash):
                return Verdict(True, rules.TRIES_MAX, None, tried.hash)
            left = tried.tries_left
            return Verdict(False, left, tried.locked_for_ms(now) if left == 0 else None, tried.hash)

    async def check(self, user_id: str, pin: str) -> str:
        """The hash of the PIN, which is this one.

        Refuses as ``verdict`` does, and with ``PIN_WRONG`` (``triesLeft``; with none left ``retry_after_ms`` is the
        lock's length, missing when only a reset helps).
        """
        verdict = await self.verdict(user_id, pin)
        if not verdict.valid:
            raise Refusal("PIN_WRONG", retry_after_ms=verdict.locked_for_ms, triesLeft=verdict.tries_left)
        return verdict.hash

    async def changed_at(self, user_id: str) -> datetime | None:
        """When the PIN was last changed or reset; None when it never was."""
        return await self._store.pin_changed_at(user_id)

    async def change(self, user_id: str, *, old: str, new: str) -> None:
        """Set another PIN, knowing the old one. Refuses as ``check`` and ``first`` do."""
        rules.checked_pin(new)
        seen = await self.check(user_id, old)
        new_hash = await self._hasher.hash(self._peppered(user_id, new))
        if not await self._store.change(user_id, new_hash, self._clock.now(), seen=seen):
            raise Refusal("PIN_WRONG", triesLeft=rules.TRIES_MAX)  # another change was first

    async def reset(
        self, user_id: str, *, password: str, new: str, also: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Set another PIN, knowing the account's password; locks are gone.

        ``also`` asks who knows the password for what else is needed, a second factor. Refuses as it does, and with
        ``PASSWORD_WRONG``, ``PIN_UNSET``, ``VALIDATION_FAILED`` and ``SERVER_BUSY``.
        """
        rules.checked_pin(new)
        await self._passwords.check_password(user_id, password)
        if also is not None:
            await also()
        new_hash = await self._hasher.hash(self._peppered(user_id, new))
        if not await self._store.change(user_id, new_hash, self._clock.now()):
            raise Refusal("PIN_UNSET")

    async def _locked(self, user_id: str) -> Refusal:
        state, now = await self._store.pin(user_id), self._clock.now()
        if state is None:
            return Refusal("PIN_UNSET")
        if not state.locked(now):
            return Refusal("PIN_LOCKED", retry_after_ms=1000)  # another process has just lifted it
        wait = state.locked_for_ms(now)
        return Refusal("PIN_LOCKED", retry_after_ms=wait, resetNeeded=wait is None)

    def _peppered(self, user_id: str, pin: str) -> str:
        return hmac.digest(self._pepper, f"{user_id} {pin}".encode(), "sha256").hex()
