"""New accounts: names that are free, a row, and the first session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from models.also import Also
from models.auth.desk import Desk
from models.auth.oauth.rules import Person
from models.auth.rules import (
    Key,
    checked_email,
    checked_password,
    checked_phone,
    email_key,
    first_username,
)
from models.auth.session import Hasher, SignInDevice, Tokens
from models.auth.store import AccountStore
from models.auth.strength import Strength, own_words, own_words_of
from models.db import Session as Transaction
from models.errors import Refusal
from models.ports import Chance, Clock, Ids
from models.users.profile import ACTIVE, ADMIN, USER, Account
from models.users.rules import checked_display_name, checked_username, folded, username_variant

# Tries at a username for somebody who chose none; names differ by chance, so a second try is rare already.
USERNAME_TRIES_MAX = 5


@dataclass(frozen=True, slots=True)
class SignedIn:
    """An account with the tokens of a new session."""

    account: Account
    tokens: Tokens


class Linking(Protocol):
    """Keeps whom an account is linked to, inside a transaction."""

    async def __call__(
        self, person: Person, user_id: str, now: datetime, transaction: Transaction | None = None
    ) -> None:
        """Raises the driver's error when the person has an account."""
        ...


class Newcomers:
    """One per process."""

    def __init__(
        self,
        *,
        store: AccountStore,
        desk: Desk,
        clock: Clock,
        ids: Ids,
        hasher: Hasher,
        strength: Strength,
        chance: Chance,
        currency: str,
    ) -> None:
        self._store = store
        self._desk = desk
        self._clock = clock
        self._ids = ids
        self._hasher = hasher
        self._strength = strength
        self._chance = chance
        self._currency = currency

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
        """See ``Accounts.register``."""
        row = await self._checked_row(email, phone, username, password, display_name)
        return await self._kept(row, device, chosen=bool(username))

    async def administrator(
        self,
        *,
        email: str | None,
        phone: str | None,
        username: str | None,
        password: str,
        also: Callable[[Account, Transaction], Awaitable[None]],
    ) -> Account:
        """A new account that keeps the server, without a sign-in; ``also`` joins the transaction. As ``register``."""
        row = await self._checked_row(email, phone, username, password, None)
        return await self._store.add({**row, "role": ADMIN}, also)

    async def _checked_row(
        self,
        email: str | None,
        phone: str | None,
        username: str | None,
        password: str,
        display_name: str | None,
    ) -> dict[str, Any]:
        if not email and not phone:
            raise Refusal("VALIDATION_FAILED", email=["An e-mail address or a phone number is needed."])
        email = checked_email(email) if email else None
        phone = checked_phone(phone) if phone else None
        name = checked_username(username) if username else first_username(email, phone)
        checked_password(password)
        keys = {Key.EMAIL: email_key(email)} if email else {}
        keys |= {Key.PHONE: phone} if phone else {}
        chosen = {Key.USERNAME: folded(name)} if username else {}
        await self._refuse_taken({**keys, **chosen})  # before the hash, which costs far more
        await self._strength.refuse_weak(password, own_words(username, display_name, email, phone))
        return self._new_row(email, phone, name, display_name, await self._hasher.hash(password))

    async def from_provider(self, person: Person, device: SignInDevice, *, also: Linking) -> SignedIn:
        """An account for a person whom a provider vouches for, linked to it in the same transaction.

        It has a password that nobody knows, until one is set by a code. Refuses with ``VALIDATION_FAILED`` (not an
        address), ``ACCOUNT_EXISTS`` and ``SERVER_BUSY``.
        """
        assert person.email is not None
        email = checked_email(person.email)
        shown: str | None = None
        if person.name:
            with suppress(Refusal):
                shown = checked_display_name(person.name)
        nobodys = self._chance.bytes(32).hex()
        row = self._new_row(email, None, first_username(email, None), shown, await self._hasher.hash(nobodys))
        if person.email_verified:
            row["email_verified_at"] = row["created_at"]

        async def linked(transaction: Transaction) -> None:
            await also(person, row["_id"], row["created_at"], transaction)

        return await self._kept(row, device, chosen=False, also=linked)

    async def refuse_weak(self, user_id: str, password: str) -> None:
        """Refuse with ``VALIDATION_FAILED`` a new password that is guessed soon by who knows the person."""
        account = await self._store.account(user_id)
        await self._strength.refuse_weak(password, own_words_of(account) if account else ())

    async def _kept(
        self,
        row: dict[str, Any],
        device: SignInDevice,
        *,
        chosen: bool,
        also: Also | None = None,
    ) -> SignedIn:
        """Keep the row, with its first session; a username that nobody has ``chosen`` is varied until it is free."""
        session = self._desk.session(row["_id"], device)
        name = row["username"]
        for tries in range(USERNAME_TRIES_MAX):
            try:
                account = await self._store.register(row, session, also=also)
                break
            except Refusal as refusal:
                if chosen or refusal.details.get("field") != "username" or tries == USERNAME_TRIES_MAX - 1:
                    raise
                variant = username_variant(name, self._ids.new()[-6:])
                row = {**row, "username": variant, "username_key": folded(variant)}
        return SignedIn(account, self._desk.tokens(account.profile.user_id, session.id, 1))

    async def _refuse_taken(self, keys: Mapping[Key, str]) -> None:
        taken = await self._store.taken(keys)
        if taken is not None:
            raise Refusal("ACCOUNT_EXISTS", field=taken.name.lower())

    def _new_row(
        self,
        email: str | None,
        phone: str | None,
        username: str,
        display_name: str | None,
        password_hash: str,
    ) -> dict[str, Any]:
        now = self._clock.now()
        shown = checked_display_name(display_name) if display_name else username
        row: dict[str, Any] = {
            "_id": self._ids.new(),
            "username": username,
            "username_key": folded(username),
            "display_name": shown,
            "display_key": folded(shown),
            "password_hash": password_hash,
            "avatar_url": None,
            "rate_per_minute_minor": None,
            "currency": self._currency,
            "role": USER,
            "status": ACTIVE,
            "created_at": now,
            "updated_at": now,
        }
        # Missing rather than null: the unique indexes hold only what is there.
        if email:
            row |= {"email": email, "email_key": email_key(email)}
        if phone:
            row |= {"phone": phone}
        return row
