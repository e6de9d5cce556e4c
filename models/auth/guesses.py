"""Wrong passwords: locks that grow for whoever guesses, and do not keep the owner out.

    Guesses(tries=TryStore(db), known=KnownDevices(secret), clock=clock, pepper=…)

All who are not known share one count for a name, from however many addresses they come: only so is a guess by a million
machines bounded. Whoever shares it with a guesser would be locked out with them; so a device that was signed in before
has a count of its own, and so has the address from which the password was set anew by a code. The owner is one or the
other, or becomes it by ``forgot``.

Counted is the name that was typed, so that names without an account are locked like all others.
"""

from __future__ import annotations

import hmac
from datetime import timedelta

from models.auth.known import KnownDevices
from models.auth.rules import login_key
from models.auth.tries.store import TryStore
from models.blocks.rules import network_of
from models.errors import Refusal
from models.ports import Clock
from models.users.profile import Account

# A person who has forgotten a password tries some; what is guessed in so many is weaker than any that is taken here.
TRIES_MAX = 25
# In the end so many an hour, for all strangers together.
LOCKS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
# How long after a reset its address has a count of its own.
BACK_FOR = timedelta(hours=1)


class Guesses:
    """See the module for its making."""

    def __init__(self, *, tries: TryStore, known: KnownDevices, clock: Clock, pepper: bytes) -> None:
        self._tries = tries
        self.known = known
        self._clock = clock
        self._pepper = pepper

    async def begin(
        self, identifier: str, user_id: str | None, *, device_token: str | None, address: str
    ) -> str:
        """Count a try before the password is looked at; under which key, for ``right``.

        ``user_id`` is whose name that is (None: nobody's). Refuses with ``RATE_LIMITED`` while it is locked.
        """
        name, now = name_of(identifier), self._clock.now()
        device = self.known.read(device_token)
        mine = device is not None and device.user_id == user_id
        key = f"sign-in known:{device.id}" if device is not None and mine else self._key("sign-in", name)
        tried = await self._tries.count(key, now, locks=LOCKS, most=TRIES_MAX)
        if tried is None and not mine and await self.is_back(name, address):
            key = self._key("sign-in back", name, network_of(address))
            tried = await self._tries.count(key, now, locks=LOCKS, most=TRIES_MAX)
        if tried is None:
            raise Refusal("RATE_LIMITED", retry_after_ms=await self._tries.locked_ms(key, now))
        return key

    async def right(self, key: str) -> None:
        """It was the password."""
        await self._tries.clear(key)

    async def let_back(self, account: Account | None, address: str) -> None:
        """Whoever has set the password of this account by a code is at this address."""
        if account is None or not address:
            return
        until = self._clock.now() + BACK_FOR
        for name in (account.profile.username, account.email, account.phone):
            if name:
                await self._tries.keep(self._key("back", name_of(name), network_of(address)), until)

    async def is_back(self, name: str, address: str) -> bool:
        """Whether the password of that name (``name_of``) was set by a code from this address a while ago."""
        if not address:
            return False
        return await self._tries.kept(self._key("back", name, network_of(address)), self._clock.now())

    def _key(self, what: str, *whose: str) -> str:
        # Names and addresses are nothing to keep where they are not needed.
        return f"{what}:{hmac.digest(self._pepper, '|'.join((what, *whose)).encode(errors='replace'), 'sha256').hex()}"


def name_of(identifier: str) -> str:
    """An account's name as text, the same however it is written."""
    key = login_key(identifier)
    return f"{key[0].name}:{key[1]}" if key else identifier
