"""Verbs of signing in with Google and Facebook.

    OAuth(providers={"google": (Provider(…), keys)}, identities=IdentityStore(db), store=AccountStore(db),
          factors=factors, clock=clock)

Whoever comes for the first time gets an account, or the one that has their e-mail address, if both sides have seen
that they read it. Anything less would let whoever writes somebody's address into a form walk into the account of its
owner, from either side. A second factor is asked for as with a password.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from models.auth.desk import Desk
from models.auth.newcomers import Newcomers, SignedIn
from models.auth.oauth.rules import Person, Provider, key_id_of, person_of
from models.auth.oauth.store import IdentityStore, Link
from models.auth.rules import Key, checked_email, email_key
from models.auth.second.service import SecondFactors
from models.auth.session import Credentials, SignInDevice
from models.auth.store import AccountStore
from models.errors import Refusal
from models.ports import Clock
from models.users.profile import BANNED, DELETED

# Looks at an account that others change meanwhile.
TRIES_MAX = 4


class Keys(Protocol):
    """A provider's public keys."""

    async def key(self, key_id: str) -> RSAPublicKey | None:
        """The key of that id; None: the provider has no such one. Refuses with ``PROVIDER_AWAY``."""
        ...


class OAuth:
    """See the module for its making. ``bind`` it before use."""

    def __init__(
        self,
        *,
        providers: Mapping[str, tuple[Provider, Keys]],
        identities: IdentityStore,
        store: AccountStore,
        factors: SecondFactors,
        clock: Clock,
    ) -> None:
        self._providers = providers
        self._identities = identities
        self._store = store
        self._factors = factors
        self._clock = clock
        self._desk: Desk
        self._newcomers: Newcomers

    def bind(self, *, desk: Desk, newcomers: Newcomers) -> None:
        """Hand over what makes sessions and accounts."""
        self._desk, self._newcomers = desk, newcomers

    async def sign_in(
        self,
        provider: str,
        id_token: str,
        *,
        nonce: str | None,
        device: SignInDevice,
        totp: str | None = None,
        recovery_code: str | None = None,
    ) -> SignedIn:
        """Sign in, or register, with an ID token.

        Refuses with ``PROVIDER_UNAVAILABLE``, ``PROVIDER_AWAY``, ``ID_TOKEN_INVALID``, ``ACCOUNT_EXISTS`` (``field``:
        the address has an account which this does not open), ``VALIDATION_FAILED`` (no address in it),
        ``ACCOUNT_BANNED``, and as ``SecondFactors.prove`` does.
        """
        person = await self._person(provider, id_token, nonce)
        proven = ""
        for _ in range(TRIES_MAX):
            seen, known = await self._account(person)
            if seen is None:
                try:
                    return await self._newcomers.from_provider(person, device, also=self._identities.link)
                except Refusal as refusal:
                    if refusal.code != "ACCOUNT_EXISTS":
                        raise
                    continue  # the same person, or somebody of that address, has come in just now: look again
            _refuse_unless_active(seen.status)
            if seen.second_factor and proven != seen.user_id:
                await self._factors.prove(
                    seen.user_id, totp=totp, recovery_code=recovery_code, place="sign-in"
                )
                proven = seen.user_id
            if not known and not await self._identities.linked(person, seen.user_id, self._clock.now()):
                raise Refusal("ACCOUNT_EXISTS", field="email")
            session = self._desk.session(seen.user_id, device)
            note = self._desk.note(seen.user_id, (), "SESSION_ENDED")
            account = await self._store.sign_in(seen, session, note=note)
            if account is not None:
                return SignedIn(account, self._desk.tokens(seen.user_id, session.id, 1))
        raise Refusal("SERVER_BUSY")

    async def link(self, user_id: str, provider: str, id_token: str, *, nonce: str | None) -> None:
        """From now on this opens the user's account too. Safe to repeat.

        Refuses as ``sign_in`` does, with ``ACCOUNT_EXISTS`` (``field``: provider) when it opens another one, or the
        user has linked another person of that provider.
        """
        person = await self._person(provider, id_token, nonce)
        if not await self._identities.linked(person, user_id, self._clock.now()):
            raise Refusal("ACCOUNT_EXISTS", field="provider")

    async def links(self, user_id: str) -> Sequence[Link]:
        """The providers that open the user's account."""
        return await self._identities.links(user_id)

    async def unlink(self, user_id: str, provider: str) -> None:
        """It no longer does. Safe to repeat; a password can always be set by ``forgot``."""
        await self._identities.unlink(user_id, provider)

    async def _person(self, name: str, id_token: str, nonce: str | None) -> Person:
        if name not in self._providers:
            raise Refusal("PROVIDER_UNAVAILABLE")
        provider, keys = self._providers[name]
        key = await keys.key(key_id_of(id_token))
        if key is None:
            raise Refusal("ID_TOKEN_INVALID")
        return person_of(id_token, key, provider, nonce=nonce, now=self._clock.now())

    async def _account(self, person: Person) -> tuple[Credentials | None, bool]:
        """The account that the person is let into, and whether it is known to be theirs; None: they are new."""
        user_id = await self._identities.user_of(person)
        if user_id is not None:
            seen = await self._store.credentials_of(user_id)
            if seen is None:
                raise Refusal("ACCOUNT_DELETED")
            return seen, True
        if person.email is None:
            raise Refusal(
                "VALIDATION_FAILED",
                email=["This sign-in tells no e-mail address: register with one, then link."],
            )
        account = await self._store.by_key(Key.EMAIL, email_key(checked_email(person.email)))
        if account is None:
            return None, False
        if not (person.email_verified and account.email_verified):
            raise Refusal("ACCOUNT_EXISTS", field="email")
        return await self._store.credentials_of(account.profile.user_id), False


def _refuse_unless_active(status: str) -> None:
    if status == BANNED:
        raise Refusal("ACCOUNT_BANNED")
    if status == DELETED:
        raise Refusal("ACCOUNT_DELETED")
