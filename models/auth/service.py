"""Verbs of accounts: coming in, staying in, going.

    accounts = Accounts(store=AccountStore(db), clock=clock, ids=ids, doors=sockets, secret=config.jwt_secret, …)

Whoever changes who may be here commits the change together with a revocation, then closes the sockets of this
process; ``watch_revocations`` does the same in all others.
"""

from __future__ import annotations

from datetime import timedelta

from models.auth.apikeys.service import ApiKeys
from models.auth.codes.service import Codes
from models.auth.codes.store import Code
from models.auth.desk import SESSION_DAYS_MAX, Desk, refuse_stale
from models.auth.entering import Entering, refuse_unless_active
from models.auth.guesses import Guesses
from models.auth.newcomers import Newcomers, SignedIn
from models.auth.oauth.service import OAuth
from models.auth.revocations import KEPT_FOR, Bouncer
from models.auth.rules import checked_password
from models.auth.second.service import SecondFactors, Setup
from models.auth.session import Credentials, Hasher, Identity, PushToken, Session, SignInDevice, Tokens
from models.auth.store import AccountStore
from models.auth.strength import Strength
from models.auth.tokens import TokenMint
from models.db import Session as Transaction
from models.errors import Refusal
from models.ports import Chance, Clock, Courier, Doors, Ids, LiveCalls, NoCourier
from models.users.profile import DELETED

__all__ = ["Accounts", "Identity", "PushToken", "Session", "SignInDevice", "SignedIn", "Tokens"]

# A refresh whose answer was lost on the way is asked again within this; later the same token is a stolen one.
REFRESH_GRACE = timedelta(seconds=10)
# A deletion whose process lives has long told the calls by then.
FORGET_AFTER = timedelta(seconds=15)


class Accounts:
    """See the module for its making."""

    def __init__(
        self,
        *,
        store: AccountStore,
        clock: Clock,
        ids: Ids,
        doors: Doors,
        courier: Courier | None = None,
        calls: LiveCalls,
        hasher: Hasher,
        factors: SecondFactors,
        codes: Codes,
        oauth: OAuth,
        api_keys: ApiKeys,
        guesses: Guesses,
        chance: Chance,
        strength: Strength,
        secret: str,
        access_token_seconds: int,
        refresh_token_days: int,
        currency: str,
        session_days_max: int = SESSION_DAYS_MAX,
    ) -> None:
        self._store = self.store = store
        self._clock = clock
        self._calls = calls
        far = courier or NoCourier()
        self._bouncer = Bouncer(store=store.sessions, clock=clock, doors=doors, calls=calls, courier=far)
        self._hasher = hasher
        self.factors, self.codes = factors, codes
        mint = TokenMint(secret, access_token_seconds)
        self._desk = Desk(
            mint=mint,
            known=guesses.known,
            clock=clock,
            ids=ids,
            days_unused=refresh_token_days,
            days_max=session_days_max,
        )
        self.guesses = guesses
        # A verb of accounts like those below, that has a file of its own.
        self.login = Entering(
            store=store, desk=self._desk, hasher=hasher, factors=factors, guesses=guesses
        ).login
        self._newcomers = self.newcomers = Newcomers(
            store=store,
            desk=self._desk,
            clock=clock,
            ids=ids,
            hasher=hasher,
            strength=strength,
            chance=chance,
            currency=currency,
        )
        self.oauth, self.api_keys = oauth, api_keys
        oauth.bind(desk=self._desk, newcomers=self._newcomers)

    # ------------------------------------------------------------------------------------------------------ at doors

    async def authenticate(self, token: str | None) -> Identity:
        """Who brings this access token.

        Refuses with ``TOKEN_MISSING``, ``TOKEN_EXPIRED``, ``TOKEN_INVALID`` (also: the session is over),
        ``ACCOUNT_BANNED`` or ``ACCOUNT_DELETED``.
        """
        claims = self._desk.mint.read_access(token, self._clock.now())
        found = await self._store.door(claims.user_id, claims.session_id)
        if found is None:
            raise Refusal("TOKEN_INVALID")
        status, role, lives = found
        refuse_unless_active(status)
        if not lives:
            raise Refusal("TOKEN_INVALID")
        return Identity(claims.user_id, claims.session_id, role, claims.expires_at)

    # -------------------------------------------------------------------------------------------------------- coming

    async def register(
        self,
        *,
        email: str | None,
        phone: str | None,
        username: str | None,
        password: str,
        display_name: str | None,
        device: SignInDevice,
    ) -> SignedIn:
        """A new account, signed in.

        Without a username one is made from the e-mail address or the phone number, and made unique. Refuses with
        ``VALIDATION_FAILED``, ``ACCOUNT_EXISTS`` (``field``) or ``SERVER_BUSY``.
        """
        return await self._newcomers.register(
            email=email,
            phone=phone,
            username=username,
            password=password,
            display_name=display_name,
            device=device,
        )

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for a refresh token, which is thereby used up.

        The last one used up gives the same successor for 10 s more (the answer was lost). Refuses with
        ``REFRESH_REUSED`` (the session ends), ``REFRESH_INVALID``, ``ACCOUNT_BANNED`` or ``ACCOUNT_DELETED``.
        """
        session_id, generation = self._desk.mint.read_refresh(refresh_token)
        while True:
            session = await self._store.sessions.find(session_id)
            now = self._clock.now()
            if session is None:
                raise Refusal("REFRESH_INVALID")
            refuse_unless_active(await self._store.status(session.user_id) or DELETED)
            if session.ended_code is not None or session.expires_at <= now or generation > session.generation:
                raise Refusal(
                    "REFRESH_REUSED" if session.ended_code == "REFRESH_REUSED" else "REFRESH_INVALID"
                )
            if generation == session.generation:
                end = self._desk.session_end(now, since=session.created_at)
                if await self._store.sessions.rotate(session_id, generation, now, end):
                    return self._desk.tokens(session.user_id, session_id, generation + 1)
                continue  # another was first, or the session has just ended: look again
            rotated_at = session.rotated_at
            if generation == session.generation - 1 and rotated_at and now - rotated_at <= REFRESH_GRACE:
                return self._desk.tokens(session.user_id, session_id, session.generation)
            await self._end(session.user_id, (session_id,), "REFRESH_REUSED")
            raise Refusal("REFRESH_REUSED")

    # ----------------------------------------------------------------------------------------------------- signed in

    async def sessions(self, user_id: str) -> list[Session]:
        """The user's sign-ins that live, most recently used first; at most ``SESSIONS_MAX``."""
        return await self._store.sessions.live(user_id, self._clock.now())

    async def end_session(self, user_id: str, session_id: str) -> None:
        """Sign one of the user's devices out. Safe to repeat. ``SESSION_UNKNOWN`` when it is not theirs."""
        session = await self._store.sessions.find(session_id)
        if session is None or session.user_id != user_id:
            raise Refusal("SESSION_UNKNOWN")
        await self._end(user_id, (session_id,), "SESSION_ENDED")

    async def logout(self, user_id: str, session_id: str) -> None:
        """End this sign-in: its tokens, its push tokens, its sockets."""
        await self._end(user_id, (session_id,), "SESSION_ENDED")

    async def logout_all(self, user_id: str) -> None:
        """End every sign-in of the user, this one too."""
        await self._end(user_id, None, "SESSION_ENDED")

    async def change_password(self, user_id: str, session_id: str, *, current: str, new: str) -> None:
        """Set another password; all sign-ins but this one end.

        Refuses with ``PASSWORD_WRONG``, ``VALIDATION_FAILED`` or ``SERVER_BUSY``.
        """
        checked_password(new)
        seen = await self._proven(user_id, current)
        await self._newcomers.refuse_weak(user_id, new)
        new_hash = await self._hasher.hash(new)
        note = self._desk.note(user_id, None, "SESSION_ENDED")
        changed, told = await self._store.change_password(seen, new_hash, keep_session=session_id, note=note)
        if not changed:
            raise Refusal("PASSWORD_WRONG")  # another change was first
        await self.factors.unlock(user_id)
        if told is not None:
            await self._bouncer.enforce(told)

    async def prove_fresh(self, user_id: str, session_id: str, password: str | None) -> None:
        """Refuse with ``PASSWORD_REQUIRED`` or ``PASSWORD_WRONG`` unless this is the password, or none was needed.

        What a thief of tokens must not change takes it from ten minutes after the sign-in. ``SERVER_BUSY``.
        """
        if password is not None:
            await self._proven(user_id, password)
        else:
            refuse_stale(await self._store.sessions.find(session_id), self._clock.now())

    async def set_up_factor(self, user_id: str) -> Setup:
        """A seed for an authenticator app, which lists it by the account's name. See ``SecondFactors.set_up``."""
        account = await self._store.account(user_id)
        return await self.factors.set_up(user_id, account.profile.username if account else "")

    async def disable_factor(
        self, user_id: str, *, password: str, totp: str | None, recovery_code: str | None
    ) -> None:
        """Ask for no second factor any more. ``PASSWORD_WRONG``, and as ``SecondFactors.disable`` refuses."""
        await self._proven(user_id, password)
        await self.factors.disable(user_id, totp=totp, recovery_code=recovery_code)

    async def renew_recovery(
        self, user_id: str, *, password: str, totp: str | None, recovery_code: str | None
    ) -> list[str]:
        """Other recovery codes. Refuses with ``PASSWORD_WRONG``, and as ``SecondFactors.disable`` does."""
        await self._proven(user_id, password)
        return await self.factors.renew_recovery(user_id, totp=totp, recovery_code=recovery_code)

    async def fresh_factor(
        self, user_id: str, *, totp: str | None = None, recovery_code: str | None = None
    ) -> None:
        """For what a signed-in person must show a second factor again, where they have one; the code is used up.

        Refuses with ``TOTP_REQUIRED``, ``TOTP_WRONG`` and ``TOTP_LOCKED``.
        """
        await self.factors.prove(user_id, totp=totp, recovery_code=recovery_code)

    async def reset_password(
        self, identifier: str, code: str, *, new: str, address: str, device_token: str | None = None
    ) -> None:
        """Set another password with a code that was sent; all sign-ins end. A second factor is asked for as before.

        At this ``address`` guesses of strangers do not count for a while. Refuses with ``CODE_WRONG`` (also: no such
        account), ``VALIDATION_FAILED`` (the code is still good), ``RATE_LIMITED`` (too many wrong ones) and
        ``SERVER_BUSY``.
        """
        checked_password(new)
        shown = await self.codes.shown_for_reset(identifier, code, address=address, device_token=device_token)
        await self._newcomers.refuse_weak(shown.user_id, new)
        new_hash = await self._hasher.hash(new)
        note = self._desk.note(shown.user_id, None, "SESSION_ENDED")

        async def use(code: Code, transaction: Transaction) -> bool:
            # Whoever had the password till now may have made keys with it.
            await self.api_keys.store.drop_all(code.user_id, transaction)
            return await self.codes.use(code, transaction)

        changed, told = await self._store.reset_password(shown, new_hash, note=note, use=use)
        if not changed:
            raise Refusal("CODE_WRONG")  # used by another request just now
        if told is not None:
            await self._bouncer.enforce(told)
        await self.guesses.let_back(await self._store.account(shown.user_id), address)

    async def check_password(self, user_id: str, password: str) -> None:
        """For what asks for the password once more. Refuses with ``PASSWORD_WRONG`` or ``SERVER_BUSY``."""
        await self._proven(user_id, password)

    async def delete(self, user_id: str, *, password: str) -> None:
        """Delete the account for good: what is personal goes, its names are free again, its call ends.

        Refuses with ``PASSWORD_WRONG`` or ``SERVER_BUSY``.
        """
        seen = await self._proven(user_id, password)
        note = self._desk.note(user_id, None, "ACCOUNT_DELETED")
        if not await self._store.delete(seen, note):
            raise Refusal("PASSWORD_WRONG")
        await self._bouncer.enforce(note)
        await self._forget(user_id)

    async def keep_push_token(
        self,
        user_id: str,
        session_id: str,
        *,
        device_id: str | None,
        kind: str,
        token: str,
        platform: str | None,
    ) -> PushToken:
        """Where this device can be woken, until its sign-in ends. Safe to repeat.

        ``device_id`` None is the one given at the sign-in, or else the sign-in's own. ``TOKEN_INVALID`` when the
        sign-in has just ended.
        """
        push = PushToken(
            user_id=user_id,
            device_id=device_id or await self._device_of(session_id),
            session_id=session_id,
            kind=kind,
            token=token,
            platform=platform,
            updated_at=self._clock.now(),
        )
        if not await self._store.keep_push_token(push):
            raise Refusal("TOKEN_INVALID")
        return push

    async def drop_push_token(
        self, user_id: str, session_id: str, *, token: str | None, device_id: str | None
    ) -> None:
        """Forget one of the user's push tokens, or without one all of the device. Safe to repeat."""
        if token is None:
            device_id = device_id or await self._device_of(session_id)
        await self._store.devices.drop(user_id, token=token, device_id=device_id)

    # ---------------------------------------------------------------------------------------------------- timed work

    async def watch_revocations(self) -> None:
        """Close the sockets here that a change in any process concerns; run every half second. Safe to repeat."""
        await self._bouncer.watch()

    async def tidy(self) -> int:
        """Remove what has expired, and finish deletions that a crash has interrupted; how many things were done."""
        now = self._clock.now()
        done = 0
        for user_id in await self._store.forget_owed(now - FORGET_AFTER):
            await self._forget(user_id)
            done += 1
        return done + await self._store.tidy(expired_before=now, noted_before=now - KEPT_FOR)

    # --------------------------------------------------------------------------------------------------------- parts

    async def _proven(self, user_id: str, password: str) -> Credentials:
        seen = await self._store.credentials_of(user_id)
        good = await self._hasher.verify(password, seen.password_hash if seen else None)
        if seen is None or not good:
            raise Refusal("PASSWORD_WRONG")
        return seen

    async def _end(self, user_id: str, session_ids: tuple[str, ...] | None, code: str) -> None:
        told = await self._store.end_sessions(self._desk.note(user_id, session_ids, code))
        if told is not None:
            await self._bouncer.enforce(told)

    async def _device_of(self, session_id: str) -> str:
        session = await self._store.sessions.find(session_id)
        return (session.device.id if session else None) or f"session:{session_id}"

    async def _forget(self, user_id: str) -> None:
        await self._calls.forget(user_id)
        await self._store.forgotten(user_id)
