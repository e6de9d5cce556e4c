"""Who keeps the server: the first administrator, and further ones, from the command line."""

from __future__ import annotations

from models.auth.newcomers import Newcomers
from models.auth.stewards import Stewards, target_of
from models.db import Session
from models.trail.rules import Act, Actor, Target, checked_reason
from models.trail.service import Trail
from models.users.profile import ADMIN, Account

LISTED = 200


class AdminDesk:
    """One per process."""

    def __init__(self, *, people: Stewards, newcomers: Newcomers, trail: Trail) -> None:
        self._people = people
        self._newcomers = newcomers
        self._trail = trail

    async def all(self) -> list[Account]:
        """Administrators, the newest first."""
        return list((await self._people.search("", role=ADMIN, limit=LISTED)).items)

    async def create(
        self,
        *,
        username: str | None,
        email: str | None,
        phone: str | None,
        password: str,
        by: Actor,
        reason: str,
    ) -> Account:
        """A new account that is an administrator's, without a second factor: its first sign-in has to set one up.

        Refuses with ``VALIDATION_FAILED`` (also a password that is easy to guess), ``ACCOUNT_EXISTS`` and
        ``SERVER_BUSY``.
        """
        why = checked_reason(reason)
        # Who it will be is known only in the transaction.
        unknown = Target("user", username or email or phone or "")
        async with self._trail.keeping(
            Act(actor=by, act="user.create_admin", target=unknown, reason=why)
        ) as note:

            async def also(account: Account, session: Session) -> None:
                note.about(target_of(account))
                await note.also(session)

            return await self._newcomers.administrator(
                email=email, phone=phone, username=username, password=password, also=also
            )
