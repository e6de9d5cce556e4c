"""Verbs of second factors: set up, turn on, prove, turn off.

    SecondFactors(store=FactorStore(db), tries=TryStore(db), vault=Vault(secret, chance), clock=clock, chance=chance,
                  issuer="Ringmeter")

A wrong code counts towards a lock. Nobody can make it count who has not shown the password (at the sign-in) or a
sign-in (elsewhere), and the two are counted apart: whoever has stolen a password locks nobody out of what is signed
in. Recovery codes open in spite of a lock, since they cannot be guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from models.auth.second.rules import (
    PENDING_SECONDS,
    RECOVERY_BYTES,
    RECOVERY_CODES,
    SEED_BYTES,
    accepted_step,
    recovery_code,
    recovery_digest,
    text_of,
    uri_of,
)
from models.auth.second.store import Factor, FactorStore
from models.auth.second.vault import Vault
from models.auth.tries.store import TryStore
from models.errors import Refusal
from models.ports import Chance, Clock

# Where codes are tried: by who has shown a password, and by who is signed in.
Place = Literal["sign-in", "session"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What an authenticator app needs to begin."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)


class SecondFactors:
    """See the module for its making."""

    def __init__(
        self,
        *,
        store: FactorStore,
        tries: TryStore,
        vault: Vault,
        clock: Clock,
        chance: Chance,
        issuer: str,
    ) -> None:
        self._store = self.store = store
        self._tries = tries
        self._vault = vault
        self._clock = clock
        self._chance = chance
        self._issuer = issuer

    async def set_up(self, user_id: str, name: str) -> Setup:
        """A new seed, which waits 15 minutes for ``enable``. ``name`` is what apps list it by.

        Refuses with ``TOTP_ENABLED`` when a factor is in use.
        """
        seed = self._chance.bytes(SEED_BYTES)
        until = self._clock.now() + timedelta(seconds=PENDING_SECONDS)
        if not await self._store.set_up(user_id, self._vault.seal(user_id, seed), until):
            raise Refusal("TOTP_ENABLED")
        return Setup(text_of(seed), uri_of(seed, name=name, issuer=self._issuer))

    async def pending(self, user_id: str, name: str) -> Setup | None:
        """The seed that waits for its first code, shown again; None when none waits (any more)."""
        factor = await self._store.find(user_id)
        if (
            factor is None
            or factor.seed is not None
            or factor.pending is None
            or factor.pending_until is None
        ):
            return None
        if factor.pending_until <= self._clock.now():
            return None
        seed = self._vault.open(user_id, factor.pending)
        return Setup(text_of(seed), uri_of(seed, name=name, issuer=self._issuer))

    async def enable(self, user_id: str, code: str) -> list[str]:
        """The app has the seed, as its first code shows: from now on it is asked for. The recovery codes, once.

        Refuses with ``TOTP_ENABLED``, ``TOTP_NOT_SET_UP`` and ``TOTP_WRONG``.
        """
        now = self._clock.now()
        factor = await self._store.find(user_id)
        if factor is not None and factor.seed is not None:
            raise Refusal("TOTP_ENABLED")
        if factor is None or factor.pending is None or (factor.pending_until or now) <= now:
            raise Refusal("TOTP_NOT_SET_UP")
        step = accepted_step(self._vault.open(user_id, factor.pending), code, now, after=-1)
        if step is None:
            raise Refusal("TOTP_WRONG")
        shown, kept = self._recovery(user_id)
        if not await self._store.enable(user_id, factor.pending, step=step, recovery=kept, now=now):
            raise Refusal("TOTP_NOT_SET_UP")  # set up anew, or turned on, by another request just now
        await self.unlock(user_id)
        return shown

    async def prove(
        self, user_id: str, *, totp: str | None, recovery_code: str | None, place: Place = "session"
    ) -> None:
        """Return when the user has no second factor, or this is a code of it that was never used; it is used up.

        Refuses with ``TOTP_REQUIRED`` (no code), ``TOTP_WRONG`` (also: used already) and ``TOTP_LOCKED``.
        """
        factor = await self._store.find(user_id)
        if factor is None or factor.seed is None:
            return
        await self._prove(user_id, factor, factor.seed, totp, recovery_code, place)

    async def disable(self, user_id: str, *, totp: str | None, recovery_code: str | None) -> None:
        """Ask for no second factor any more. Refuses as ``prove`` does, and with ``TOTP_NOT_SET_UP``."""
        await self._proven(user_id, totp, recovery_code)
        if not await self._store.disable(user_id, self._clock.now()):
            raise Refusal("TOTP_NOT_SET_UP")
        await self.unlock(user_id)

    async def renew_recovery(self, user_id: str, *, totp: str | None, recovery_code: str | None) -> list[str]:
        """Other recovery codes instead of those there were. Refuses as ``disable`` does."""
        seed = await self._proven(user_id, totp, recovery_code)
        shown, kept = self._recovery(user_id)
        if not await self._store.renew_recovery(user_id, seed, kept):
            raise Refusal("TOTP_NOT_SET_UP")
        return shown

    async def recovery_left(self, user_id: str) -> int | None:
        """How many recovery codes are left; None without a second factor."""
        factor = await self._store.find(user_id)
        return factor.recovery_left if factor is not None and factor.seed is not None else None

    async def turned_off_at(self, user_id: str) -> datetime | None:
        """When the user had a second factor turned off for the last time; None: never."""
        return await self._store.turned_off_at(user_id)

    async def unlock(self, user_id: str) -> None:
        """Forget wrong codes, since whoever has typed them no longer can: another password, another factor."""
        await self._tries.clear(_key("sign-in", user_id), _key("session", user_id))

    async def _proven(self, user_id: str, totp: str | None, recovery: str | None) -> bytes:
        factor = await self._store.find(user_id)
        if factor is None or factor.seed is None:
            raise Refusal("TOTP_NOT_SET_UP")
        await self._prove(user_id, factor, factor.seed, totp, recovery, "session")
        return factor.seed

    async def _prove(
        self, user_id: str, factor: Factor, seed: bytes, totp: str | None, recovery: str | None, place: Place
    ) -> None:
        key, now = _key(place, user_id), self._clock.now()
        if totp is None and recovery is not None:
            digest = recovery_digest(user_id, recovery)
            if digest is None or not await self._store.use_recovery(user_id, digest):
                raise Refusal("TOTP_WRONG")
            await self._tries.clear(key)
            return
        if totp is None:
            raise Refusal("TOTP_REQUIRED")
        tried = await self._tries.count(key, now)
        if tried is None:
            raise Refusal("TOTP_LOCKED", retry_after_ms=await self._tries.locked_ms(key, now))
        step = accepted_step(self._vault.open(user_id, seed), totp, now, after=factor.last_step)
        if step is None or not await self._store.use_step(user_id, seed, step):
            wait = (tried.locked_until - now) // timedelta(milliseconds=1) if tried.locked_until else None
            raise Refusal("TOTP_WRONG", retry_after_ms=wait, triesLeft=tried.tries_left)
        await self._tries.clear(key)

    def _recovery(self, user_id: str) -> tuple[list[str], list[str]]:
        """New recovery codes, as they are shown and as they are kept."""
        shown = [recovery_code(self._chance.bytes(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES)]
        digests = [recovery_digest(user_id, code) for code in shown]
        return shown, [digest for digest in digests if digest is not None]


def _key(place: Place, user_id: str) -> str:
    return f"totp {place}:{user_id}"
