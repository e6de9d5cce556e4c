"""The way into the administrators' pages, and out of them.

    door = AdminDoor(store=AdminSessionStore(db), accounts=accounts, people=UserStore(db), sessions=SessionStore(db),
                     trail=trail, clock=clock, chance=chance)

An administrator signs in as anybody does (``Accounts.login``), with the same hashes, codes and locks; what the browser
then holds is a random text of its own, good for these pages alone. Role, ban and second factor are read again with
every page. Whoever has no second factor can do nothing but set one up.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta

from models.admin.store import AdminSession, AdminSessionStore
from models.auth.second.service import Setup
from models.auth.service import Accounts, SignInDevice
from models.auth.sessions.store import SessionStore
from models.errors import Refusal
from models.ports import Chance, Clock
from models.trail.rules import Act, Actor, Target
from models.trail.service import Trail
from models.users.profile import ACTIVE, ADMIN, Account
from models.users.store import UserStore

# Nobody there for so long; and signed in for so long, whoever is there (a working day).
IDLE = timedelta(minutes=30)
LIFE = timedelta(hours=12)
# Of who has shown a password alone, and is to set up the second factor.
ENROLLING = timedelta(minutes=15)
# How exactly it is kept when somebody was there: one write a minute is enough.
SEEN_EVERY = timedelta(minutes=1)
TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_TOTP = re.compile(r"[0-9]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Who looks at a page. ``ready``: a second factor is set up, and was shown."""

    account: Account
    session: AdminSession
    ready: bool


@dataclass(frozen=True, slots=True)
class Entered:
    """Somebody who has just signed in. ``device_token`` is for the next time: guesses of others do not count there."""

    token: str = field(repr=False)
    device_token: str = field(repr=False)
    present: Present


def digest_of(token: str) -> str:
    """What is kept of what the browser holds."""
    return hashlib.sha256(token.encode()).hexdigest()


def factor_of(code: str) -> tuple[str | None, str | None]:
    """A typed code as a TOTP or a recovery code: an app shows six digits, a recovery code is longer."""
    code = "".join(code.split())
    if not code:
        return None, None
    return (code, None) if _TOTP.fullmatch(code) else (None, code)


def _act(act: str, account: Account, address: str, reason: str) -> Act:
    user_id, name = account.profile.user_id, account.profile.username
    return Act(
        actor=Actor.admin(user_id, name, address or None),
        act=act,
        target=Target("user", user_id, name),
        reason=reason,
    )


class AdminDoor:
    """See the module for its making."""

    def __init__(
        self,
        *,
        store: AdminSessionStore,
        accounts: Accounts,
        people: UserStore,
        sessions: SessionStore,
        trail: Trail,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._people = people
        self._sessions = sessions
        self._trail = trail
        self._clock = clock
        self._chance = chance

    def token(self) -> str:
        """What nobody can guess, for a cookie."""
        return base64.urlsafe_b64encode(self._chance.bytes(TOKEN_BYTES)).rstrip(b"=").decode()

    async def sign_in(
        self,
        *,
        identifier: str,
        password: str,
        code: str,
        device: SignInDevice,
        address: str,
        device_token: str | None = None,
    ) -> Entered:
        """Let somebody in. ``code`` is an app's or a recovery code; "" when none is set up.

        It is in the trail, with the ``address`` from which it was.

        Refuses as ``Accounts.login`` does; ``FORBIDDEN`` for who is no administrator.
        """
        totp, recovery_code = factor_of(code)
        signed_in = await self._accounts.login(
            identifier=identifier,
            password=password,
            device=device,
            role=ADMIN,
            life=LIFE,
            totp=totp,
            recovery_code=recovery_code,
            device_token=device_token,
            address=address,
        )
        identity = await self._accounts.authenticate(signed_in.tokens.access_token)
        now, token = self._clock.now(), self.token()
        session = AdminSession(
            digest=digest_of(token),
            user_id=identity.user_id,
            session_id=identity.session_id,
            proven=signed_in.account.second_factor,
            created_at=now,
            seen_at=now,
            expires_at=now + (LIFE if signed_in.account.second_factor else ENROLLING),
        )
        how = "with the second factor" if session.proven else "to set up the second factor"
        async with self._trail.keeping(_act("admin.sign_in", signed_in.account, address, how)) as row:
            await self._store.keep(session, also=row.also)
        present = Present(account=signed_in.account, session=session, ready=session.proven)
        return Entered(token, signed_in.tokens.device_token, present)

    async def present(self, token: str | None, *, active: bool = True) -> Present:
        """Who holds this. ``active``: a person is there; what a page asks for by itself keeps nobody signed in.

        Refuses with ``TOKEN_MISSING``, ``SESSION_ENDED`` (also: idle, too old, banned) and ``FORBIDDEN`` (no
        administrator any more).
        """
        if token is None or not _TOKEN.fullmatch(token):
            raise Refusal("TOKEN_MISSING")
        session = await self._store.find(digest_of(token))
        if session is None:
            raise Refusal("SESSION_ENDED")
        now = self._clock.now()
        account = await self._people.account(session.user_id)
        over = now >= session.expires_at or now >= session.seen_at + IDLE
        lives = await self._sessions.lives(session.session_id, session.user_id)
        if account is None or over or not lives or account.profile.status != ACTIVE:
            await self._end(session)
            raise Refusal("SESSION_ENDED")
        if account.profile.role != ADMIN:
            await self._end(session)
            raise Refusal("FORBIDDEN")
        if account.second_factor and not session.proven:
            await self._end(session)  # set up by another sign-in since: this one has shown no code
            raise Refusal("SESSION_ENDED")
        if active and now >= session.seen_at + SEEN_EVERY:
            await self._store.seen(session.digest, now)
        return Present(account=account, session=session, ready=session.proven and account.second_factor)

    async def sign_out(self, present: Present, address: str) -> None:
        """It is over, with the sign-in of the account below it. It is in the trail."""
        act = _act("admin.sign_out", present.account, address, "signed out")
        async with self._trail.keeping(act) as row:
            await self._store.drop(present.session.digest, also=row.also)
        await self._end(present.session)

    async def note(self, act: Act) -> None:
        """Put an act into the trail that changes nothing else: a file taken away."""
        async with self._trail.keeping(act) as row:
            await self._store.only(row.also)

    async def setup(self, present: Present) -> Setup:
        """What an authenticator app needs, the same for this sign-in until its first code. ``TOTP_ENABLED``.

        A seed that waits from elsewhere is never shown: whoever began it knows it, and would have every code after.
        """
        user_id, name = present.account.profile.user_id, present.account.profile.username
        waiting = await self._accounts.factors.pending(user_id, name)
        if waiting is not None and present.session.shown == digest_of(waiting.secret):
            return waiting
        fresh = await self._accounts.factors.set_up(user_id, name)
        await self._store.showed(present.session.digest, digest_of(fresh.secret))
        return fresh

    async def enrolled(self, present: Present, code: str) -> tuple[str, list[str]]:
        """The app's first code: what the browser is to hold from now on, and the recovery codes, shown this once.

        Refuses with ``TOTP_WRONG``, ``TOTP_NOT_SET_UP`` (also: another seed waits than was shown) and ``TOTP_ENABLED``.
        """
        user_id, name = present.account.profile.user_id, present.account.profile.username
        waiting = await self._accounts.factors.pending(user_id, name)
        if waiting is not None and present.session.shown != digest_of(waiting.secret):
            raise Refusal("TOTP_NOT_SET_UP")
        codes = await self._accounts.factors.enable(user_id, "".join(code.split()))
        token, now = self.token(), self._clock.now()
        ends = present.session.created_at + LIFE
        after = replace(
            present.session, digest=digest_of(token), proven=True, seen_at=now, expires_at=ends, shown=None
        )
        await self._store.keep(after, instead_of=present.session.digest)
        return token, codes

    async def fresh(self, present: Present, code: str) -> None:
        """A code once more, for what must not be done by whoever finds the page open; it is used up.

        Refuses with ``TOTP_REQUIRED``, ``TOTP_WRONG`` and ``TOTP_LOCKED``.
        """
        totp, recovery_code = factor_of(code)
        await self._accounts.fresh_factor(
            present.account.profile.user_id, totp=totp, recovery_code=recovery_code
        )

    async def _end(self, session: AdminSession) -> None:
        await self._accounts.logout(session.user_id, session.session_id)
        await self._store.drop(session.digest)
