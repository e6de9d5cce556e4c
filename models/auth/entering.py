"""Signing in with a password: ``Accounts.login``."""

from __future__ import annotations

from datetime import timedelta

from models.auth.desk import Desk
from models.auth.guesses import Guesses
from models.auth.newcomers import SignedIn
from models.auth.rules import login_key
from models.auth.second.service import SecondFactors
from models.auth.session import Hasher, SignInDevice
from models.auth.store import AccountStore
from models.errors import Refusal
from models.users.profile import BANNED, DELETED

# Looks at an account that changes while it is signed in to; each costs a hash.
SIGN_IN_TRIES_MAX = 3


class Entering:
    """One per process."""

    def __init__(
        self, *, store: AccountStore, desk: Desk, hasher: Hasher, factors: SecondFactors, guesses: Guesses
    ) -> None:
        self._store = store
        self._desk = desk
        self._hasher = hasher
        self._factors = factors
        self._guesses = guesses

    async def login(
        self,
        *,
        identifier: str,
        password: str,
        device: SignInDevice,
        totp: str | None = None,
        recovery_code: str | None = None,
        role: str | None = None,
        life: timedelta | None = None,
        device_token: str | None = None,
        address: str = "",
    ) -> SignedIn:
        """Sign in by username, e-mail address or phone number; ``role``: only somebody who has it, for ``life``.

        A ``device_token`` of an earlier sign-in keeps the wrong guesses of others from counting against this device.
        Refuses with ``CREDENTIALS_WRONG`` (after the same work whether or not there is such an account),
        ``RATE_LIMITED`` (too many wrong ones), ``SERVER_BUSY``, and only to who knows the password with
        ``ACCOUNT_BANNED``, ``FORBIDDEN`` (another role), ``TOTP_REQUIRED``, ``TOTP_WRONG`` and ``TOTP_LOCKED``.
        """
        key = login_key(identifier)
        counted = proven = ""
        for _ in range(SIGN_IN_TRIES_MAX):
            seen = await self._store.credentials(*key) if key else None
            if not counted:
                counted = await self._guesses.begin(
                    identifier, seen.user_id if seen else None, device_token=device_token, address=address
                )
            good = await self._hasher.verify(password, seen.password_hash if seen else None)
            if seen is None or not good:
                break
            # From here on a second factor is guessed at most, which has locks of its own.
            await self._guesses.right(counted)
            refuse_unless_active(seen.status)
            if role is not None and seen.role != role:
                raise Refusal("FORBIDDEN")
            if seen.second_factor and proven != seen.user_id:
                await self._factors.prove(
                    seen.user_id, totp=totp, recovery_code=recovery_code, place="sign-in"
                )
                proven = seen.user_id  # the code is used up: another look does not ask for it again
            new_hash = (
                await self._hasher.hash(password) if self._hasher.outdated(seen.password_hash) else None
            )
            session = self._desk.session(seen.user_id, device, life)
            note = self._desk.note(seen.user_id, (), "SESSION_ENDED")
            account = await self._store.sign_in(seen, session, note=note, new_hash=new_hash)
            if account is not None:
                return SignedIn(account, self._desk.tokens(seen.user_id, session.id, 1))
            # Banned, deleted or given another hash between the look and the sign-in: look again.
        raise Refusal("CREDENTIALS_WRONG")


def refuse_unless_active(status: str) -> None:
    """Refuse with ``ACCOUNT_BANNED`` or ``ACCOUNT_DELETED`` who may not be here."""
    if status == BANNED:
        raise Refusal("ACCOUNT_BANNED")
    if status == DELETED:
        raise Refusal("ACCOUNT_DELETED")
