"""What is done to accounts by those who keep the server, from any process: the command line, the administrators' pages.

Each act has who does it and why, and is in the trail by the same transaction. Nothing here needs a socket: each running
server sees the revocation that the change leaves, and closes its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.auth.rules import login_key
from models.auth.second.store import FactorStore
from models.auth.session import Revocation
from models.auth.store import AccountStore
from models.errors import Refusal
from models.ports import Clock, Ids
from models.trail.rules import Act, Actor, Target, Value, checked_reason
from models.trail.service import Trail
from models.users.profile import ADMIN, USER, Account
from models.users.rules import folded
from models.users.store import UserStore

FOUND_MAX = 200


@dataclass(frozen=True, slots=True)
class Found:
    """People, newest first. ``before`` is the id below which to go on; None: nothing follows."""

    items: tuple[Account, ...]
    before: str | None


class Stewards:
    """``factors`` are needed for ``drop_factor`` alone."""

    def __init__(
        self,
        *,
        store: AccountStore,
        people: UserStore,
        trail: Trail,
        clock: Clock,
        ids: Ids,
        factors: FactorStore | None = None,
    ) -> None:
        self._store = store
        self._factors = factors
        self._people = people
        self._trail = trail
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
        return await self._store.standing.people(limit)

    async def search(
        self,
        text: str = "",
        *,
        status: str | None = None,
        role: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Found:
        """Accounts, newest first: of that very e-mail address, phone number or id, and whose names begin with ``text``.

        Without a text all there are. ``status`` and ``role`` narrow it.
        """
        limit = max(1, min(limit, FOUND_MAX))
        key = login_key(text) if text.strip() else None
        rows = await self._store.standing.found(
            folded(text),
            exact=(key[0].value, key[1]) if key else None,
            user_id=text.strip(),
            status=status,
            role=role,
            before=before,
            most=limit + 1,
        )
        more = len(rows) > limit
        return Found(tuple(rows[:limit]), rows[limit - 1].profile.user_id if more else None)

    async def ban(self, name: str, *, by: Actor, reason: str) -> Account:
        """Keep somebody out; within a second their sockets close and their call ends. Safe to repeat.

        Refuses with ``USER_UNKNOWN``, ``ACCOUNT_DELETED`` and ``SELF_NOT_ALLOWED``.
        """
        account = await self._another(name, by)
        note = self._note(account, "ACCOUNT_BANNED")
        async with self._trail.keeping(_act("user.ban", account, by, reason)) as row:
            done = await self._store.standing.ban(note, row.also)
        return await self._done(account, done)

    async def unban(self, name: str, *, by: Actor, reason: str) -> Account:
        """Let somebody in again, with the sign-ins they had. ``USER_UNKNOWN``, ``ACCOUNT_DELETED``."""
        account = await self.find(name)
        user_id, now = account.profile.user_id, self._clock.now()
        async with self._trail.keeping(_act("user.unban", account, by, reason)) as row:
            done = await self._store.standing.unban(user_id, "ACCOUNT_BANNED", now, row.also)
        return await self._done(account, done)

    async def promote(self, name: str, *, by: Actor, reason: str) -> Account:
        """Make somebody an administrator, at once. ``USER_UNKNOWN``, ``ACCOUNT_DELETED``."""
        return await self._role(await self.find(name), ADMIN, "user.promote", by, reason)

    async def demote(self, name: str, *, by: Actor, reason: str) -> Account:
        """Make an administrator a user again, at once.

        Refuses with ``USER_UNKNOWN``, ``ACCOUNT_DELETED``, ``SELF_NOT_ALLOWED``, and with ``FORBIDDEN`` for the last
        one who may act.
        """
        return await self._role(await self._another(name, by), USER, "user.demote", by, reason)

    async def _role(self, account: Account, role: str, act: str, by: Actor, reason: str) -> Account:
        user_id, now = account.profile.user_id, self._clock.now()
        async with self._trail.keeping(_act(act, account, by, reason)) as row:
            done = await self._store.standing.set_role(user_id, role, now, row.also)
        return await self._done(account, done)

    async def drop_factor(self, name: str, *, by: Actor, reason: str) -> Account:
        """Ask somebody for no second factor any more, who has lost it and the recovery codes. Safe to repeat.

        Whoever asks for it has to show who they are by other means. ``USER_UNKNOWN``, ``ACCOUNT_DELETED``,
        ``SELF_NOT_ALLOWED``.
        """
        assert self._factors is not None, "made without second factors"
        account = await self._another(name, by)
        if account.second_factor:
            async with self._trail.keeping(_act("user.drop_factor", account, by, reason)) as row:
                await self._factors.disable(account.profile.user_id, self._clock.now(), row.also)
        return await self._done(account, True)

    async def end_sessions(self, name: str, *, by: Actor, reason: str) -> Account:
        """End all sign-ins of somebody: a lost phone, a password that others know. Safe to repeat.

        Refuses with ``USER_UNKNOWN`` and ``ACCOUNT_DELETED``.
        """
        account = await self.find(name)
        note = self._note(account, "SESSION_ENDED")
        async with self._trail.keeping(_act("user.end_sessions", account, by, reason)) as row:
            await self._store.end_sessions(note, row.also)
        return await self._done(account, True)

    def _note(self, account: Account, code: str) -> Revocation:
        return Revocation(
            id=self._ids.new(),
            user_id=account.profile.user_id,
            session_ids=None,
            code=code,
            at=self._clock.now(),
        )

    async def _another(self, name: str, by: Actor) -> Account:
        """The account, which is not the administrator's own. Refuses with ``SELF_NOT_ALLOWED``."""
        account = await self.find(name)
        if by.user_id == account.profile.user_id:
            raise Refusal("SELF_NOT_ALLOWED")
        return account

    async def _done(self, account: Account, well: bool) -> Account:
        after = await self._people.account(account.profile.user_id) if well else None
        if after is None:
            raise Refusal("ACCOUNT_DELETED")
        return after


def target_of(account: Account) -> Target:
    """A person as the trail names them."""
    return Target("user", account.profile.user_id, account.profile.username)


def _act(act: str, account: Account, by: Actor, reason: str, **details: Value) -> Act:
    return Act(actor=by, act=act, target=target_of(account), reason=checked_reason(reason), details=details)
