"""What is done to accounts by those who keep the server, from any process: the command line, later the admin pages.

Nothing here needs a socket: each running server sees the revocation that the change leaves, and closes its own.
"""

from __future__ import annotations

from models.auth.rules import login_key
from models.auth.second.store import FactorStore
from models.auth.session import Revocation
from models.auth.store import AccountStore
from models.errors import Refusal
from models.ports import Clock, Ids
from models.users.profile import ADMIN, Account
from models.users.store import UserStore


class Stewards:
    """``factors`` are needed for ``drop_factor`` alone."""

    def __init__(
        self,
        *,
        store: AccountStore,
        people: UserStore,
        clock: Clock,
        ids: Ids,
        factors: FactorStore | None = None,
    ) -> None:
        self._store = store
        self._factors = factors
        self._people = people
        self._clock = clock
        self._ids = ids

    async def find(self, name: str) -> Account:
        """The account that goes by this username, e-mail address, phone number or id. ``USER_UNKNOWN``."""
        key = login_key(name)
        account = await self._store.by_key(*key) if key else None
        if account is None:
            account = await self._people.account(name)
        if account is None:
            raise Refusal("USER_UNKNOWN")
        return account

    async def people(self, limit: int) -> list[Account]:
        """Accounts, newest first, at most ``limit``."""
        return await self._store.people(limit)

    async def ban(self, name: str) -> Account:
        """Keep somebody out; within a second their sockets close and their call ends. Safe to repeat.

        Refuses with ``USER_UNKNOWN`` and ``ACCOUNT_DELETED``.
        """
        account = await self.find(name)
        note = Revocation(
            id=self._ids.new(),
            user_id=account.profile.user_id,
            session_ids=None,
            code="ACCOUNT_BANNED",
            at=self._clock.now(),
        )
        return await self._done(account, await self._store.ban(note))

    async def unban(self, name: str) -> Account:
        """Let somebody in again, with the sign-ins they had. ``USER_UNKNOWN``, ``ACCOUNT_DELETED``."""
        account = await self.find(name)
        now = self._clock.now()
        return await self._done(
            account, await self._store.unban(account.profile.user_id, "ACCOUNT_BANNED", now)
        )

    async def promote(self, name: str) -> Account:
        """Make somebody an administrator, at once. ``USER_UNKNOWN``, ``ACCOUNT_DELETED``."""
        account = await self.find(name)
        return await self._done(
            account, await self._store.set_role(account.profile.user_id, ADMIN, self._clock.now())
        )

    async def drop_factor(self, name: str) -> Account:
        """Ask somebody for no second factor any more, who has lost it and the recovery codes. Safe to repeat.

        Whoever asks for it has to show who they are by other means. ``USER_UNKNOWN``, ``ACCOUNT_DELETED``.
        """
        assert self._factors is not None, "made without second factors"
        account = await self.find(name)
        if account.second_factor:
            await self._factors.disable(account.profile.user_id, self._clock.now())
        return await self._done(account, True)

    async def _done(self, account: Account, well: bool) -> Account:
        after = await self._people.account(account.profile.user_id) if well else None
        if after is None:
            raise Refusal("ACCOUNT_DELETED")
        return after
