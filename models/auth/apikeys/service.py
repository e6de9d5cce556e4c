"""Verbs of API keys.

    ApiKeys(store=ApiKeyStore(db), accounts=AccountStore(db), clock=clock, chance=chance)

A key acts as its owner at the doors that name one of its scopes, and at no other; never as an administrator.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from models.auth.apikeys.rules import ID_BYTES, SECRET_BYTES, ApiKey, key_id, key_text, parts_of
from models.auth.apikeys.store import ApiKeyStore, minute_end
from models.auth.store import AccountStore
from models.errors import Refusal
from models.ports import Chance, Clock
from models.users.profile import ACTIVE, BANNED


class ApiKeys:
    """See the module for its making."""

    def __init__(self, *, store: ApiKeyStore, accounts: AccountStore, clock: Clock, chance: Chance) -> None:
        self.store = store
        self._accounts = accounts
        self._clock = clock
        self._chance = chance

    async def make(
        self, user_id: str, *, name: str, scopes: Sequence[str], per_minute: int, days: int
    ) -> tuple[ApiKey, str]:
        """A new key, and its text, which is shown this once. Refuses with ``TOO_MANY_KEYS``."""
        now = self._clock.now()
        id, secret = key_id(self._chance.bytes(ID_BYTES)), self._chance.bytes(SECRET_BYTES)
        text = key_text(id, secret)
        parts = parts_of(text)
        assert parts is not None
        key = ApiKey(
            id=id,
            user_id=user_id,
            name=name,
            scopes=tuple(sorted(set(scopes))),
            per_minute=per_minute,
            uses=0,
            created_at=now,
            expires_at=now + timedelta(days=days),
            last_used_at=None,
        )
        if not await self.store.add(key, parts[1]):
            raise Refusal("TOO_MANY_KEYS")
        return key, text

    async def admit(self, text: str, scope: str | None) -> ApiKey:
        """Who comes with this key to a door of that scope (None: no keys here). The request is counted.

        Refuses with ``TOKEN_INVALID`` (no such key, revoked, expired), ``SCOPE_MISSING``, ``RATE_LIMITED`` (until the
        minute is over), ``ACCOUNT_BANNED`` and ``ACCOUNT_DELETED``.
        """
        parts, now = parts_of(text), self._clock.now()
        found = await self.store.use(*parts, now) if parts is not None else None
        if found is None:
            raise Refusal("TOKEN_INVALID")
        key, in_minute = found
        if in_minute > key.per_minute:
            wait = (minute_end(now) - now) // timedelta(milliseconds=1)
            raise Refusal("RATE_LIMITED", retry_after_ms=max(1, wait))
        status = await self._accounts.status(key.user_id)
        if status != ACTIVE:
            raise Refusal("ACCOUNT_BANNED" if status == BANNED else "ACCOUNT_DELETED")
        if scope is None or scope not in key.scopes:
            raise Refusal("SCOPE_MISSING", scope=scope) if scope else Refusal("SCOPE_MISSING")
        return key

    async def keys(self, user_id: str) -> list[ApiKey]:
        """The user's keys, newest first."""
        return sorted(await self.store.of_user(user_id), key=lambda key: key.created_at, reverse=True)

    async def revoke(self, user_id: str, id: str) -> None:
        """One of the user's keys is good for nothing from now on. Safe to repeat."""
        await self.store.remove(user_id, id)
