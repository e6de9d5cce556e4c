"""Verbs about people.

    Users(store=UserStore(db), clock=clock, calls=calls)

``calls`` may come later by ``users.bind(calls)``, where the calls are made with the users in hand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.errors import Refusal
from models.ports import Clock, LiveCalls
from models.users.profile import ACTIVE, DELETED, Account, Meeting, People, Place, Profile
from models.users.rules import checked_display_name, checked_username, folded
from models.users.store import UserStore
from models.wallet.rules import checked_currency

__all__ = ["Account", "Meeting", "People", "Place", "Profile", "Users"]


# The two halves of a search, in order.
BY_USERNAME, BY_DISPLAY_NAME = "username", "display_name"
# Each is told what concerns the server; more than any server has.
ADMINISTRATORS_MAX = 100


class Users:
    """``Users(*, store: UserStore, clock: Clock, calls: LiveCalls | None = None)``."""

    def __init__(self, *, store: UserStore, clock: Clock, calls: LiveCalls | None = None) -> None:
        self._store = store
        self._clock = clock
        self._calls = calls

    def bind(self, calls: LiveCalls) -> None:
        """Hand over the calls, which are made after the users."""
        self._calls = calls

    async def profile(self, user_id: str) -> Profile | None:
        """Somebody as others see them; a deleted one too (see ``status``). None for an id that nobody has."""
        return (await self._store.profiles([user_id])).get(user_id)

    async def profiles(self, user_ids: Collection[str]) -> dict[str, Profile]:
        """Those of the ids that exist, by id."""
        return await self._store.profiles(user_ids) if user_ids else {}

    async def active(self, user_id: str) -> bool:
        """Whether somebody is here, neither banned nor gone."""
        profile = await self.profile(user_id)
        return profile is not None and profile.active

    async def blocks_between(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the pairs (blocker, blocked) that are blocks."""
        return await self._store.blocks_between(pairs) if pairs else set()

    async def administrators(self) -> list[str]:
        """The ids of those who keep the server."""
        return await self._store.administrators(ADMINISTRATORS_MAX)

    async def meet(self, caller_id: str, callee_id: str) -> Meeting:
        """Both people and the blocks between them, in one round trip. Refuses with ``USER_UNKNOWN`` (no caller).

        A deleted callee is nobody (None); a banned one is there, with that ``status``.
        """
        meeting = await self._store.meeting(caller_id, callee_id)
        if meeting is None:
            raise Refusal("USER_UNKNOWN")
        if meeting.callee is not None and meeting.callee.status == DELETED:
            return replace(meeting, callee=None)
        return meeting

    async def blocks_among(self, ones: Collection[str], others: Collection[str]) -> set[tuple[str, str]]:
        """The blocks (blocker, blocked) between one of ``ones`` and one of ``others``, whoever has made them."""
        return await self._store.blocks_among(ones, others)

    async def blocked_by(self, user_id: str) -> list[Profile]:
        """Those of whom the user wants nothing more."""
        return list((await self.profiles(await self._store.blocked_by(user_id))).values())

    async def parted_from(self, user_id: str) -> set[str]:
        """Everybody between whom and the user there is a block, whoever has made it."""
        return await self._store.parted_from(user_id)

    async def account(self, user_id: str) -> Account:
        """One's own account. Refuses with ``USER_UNKNOWN``."""
        account = await self._store.account(user_id)
        if account is None:
            raise Refusal("USER_UNKNOWN")
        return account

    async def change_profile(self, user_id: str, changes: Mapping[str, Any]) -> Account:
        """Set any of ``username``, ``display_name``, ``avatar_url``, the rates and ``currency``; the account after.

        Refuses with ``VALIDATION_FAILED`` and ``ACCOUNT_EXISTS`` (``field``: username).
        """
        row = {
            name: changes[name]
            for name in ("avatar_url", "rate_per_minute_minor", "video_rate_per_minute_minor")
            if name in changes
        }
        if "currency" in changes:
            row["currency"] = checked_currency(changes["currency"])
        if "username" in changes:
            row["username"] = checked_username(changes["username"])
            row["username_key"] = folded(row["username"])
        if "display_name" in changes:
            row["display_name"] = checked_display_name(changes["display_name"])
            row["display_key"] = folded(row["display_name"])
        if not row:
            return await self.account(user_id)
        account = await self._store.update(user_id, row, self._clock.now())
        if account is None:
            raise Refusal("USER_UNKNOWN")
        return account

    async def seen_by(self, viewer_id: str, user_id: str) -> Profile:
        """Somebody's profile for ``viewer_id``. ``USER_UNKNOWN`` also when they are gone or have blocked the viewer."""
        meeting = await self.meet(viewer_id, user_id)
        if meeting.callee is None or meeting.callee.status != ACTIVE or meeting.blocked_by_callee:
            raise Refusal("USER_UNKNOWN")
        return meeting.callee

    async def search(self, viewer_id: str, query: str, *, limit: int, after: Place | None = None) -> People:
        """Active people whose username begins with ``query``, then those whose display name does, in order.

        Without the viewer, and without those who have blocked the viewer: a page can be shorter than ``limit``
        and still have a next one, which begins behind ``after``.
        """
        prefix = folded(query)
        kind, key, last_id = after or (BY_USERNAME, "", "")
        found: list[tuple[Place, Profile]] = []
        if kind == BY_USERNAME:
            for name, profile in await self._store.by_username(prefix, key, limit + 1):
                found.append(((BY_USERNAME, name, profile.user_id), profile))
            key, last_id = "", ""
        if len(found) <= limit and prefix:  # without a prefix every username has matched
            rows = await self._store.by_display_name(prefix, (key, last_id), limit + 1 - len(found))
            found += [((BY_DISPLAY_NAME, name, profile.user_id), profile) for name, profile in rows]
        page = found[:limit]
        blocked = await self._store.blocks_between([(profile.user_id, viewer_id) for _, profile in page])
        hidden = {blocker for blocker, _ in blocked} | {viewer_id}
        return People(
            items=tuple(profile for _, profile in page if profile.user_id not in hidden),
            last=page[-1][0] if len(found) > limit else None,
        )

    async def block(self, user_id: str, other_id: str) -> None:
        """Want nothing more of ``other_id``: a live call between the two ends. Safe to repeat.

        Refuses with ``SELF_NOT_ALLOWED`` and ``USER_UNKNOWN``.
        """
        if user_id == other_id:
            raise Refusal("SELF_NOT_ALLOWED")
        other = await self.profile(other_id)
        if other is None or other.status == DELETED:
            raise Refusal("USER_UNKNOWN")
        await self._store.block(user_id, other_id, self._clock.now())
        # Also when it was blocked already: the first try may have died right here.
        if self._calls is not None:
            await self._calls.end_between(user_id, other_id)

    async def unblock(self, user_id: str, other_id: str) -> None:
        """Take a block back. Safe to repeat."""
        await self._store.unblock(user_id, other_id)
