"""What is heard from other processes, and what is done with it here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from handlers.registry import job
from handlers.services import Services
from handlers.wallet import WALLET_UPDATED
from models.errors import Refusal
from models.ports import Letter


class Hearer:
    """``server.bus.bus.Ear``: each message goes to the feature that it concerns."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def letters(self, letters: Sequence[Letter]) -> None:
        """The devices connected here are told these."""
        self._services.mailbox.heard(letters)
        moved = {letter.user_id for letter in letters if letter.event == WALLET_UPDATED}
        if moved:
            self._services.billing.moved_elsewhere(moved)

    async def changed(self, what: str, id: str, version: int) -> None:
        """Look again at a call or room that is known here."""
        try:
            if what == "call":
                await self._services.calls.heard(id, version)
            elif what == "room":
                await self._services.rooms.heard(id, version)
        except Refusal:
            pass  # gone since

    def stirred(self, user_ids: Collection[str]) -> None:
        """Look again at people who are watched here."""
        self._services.presence.stirred(user_ids)

    def another(self) -> None:
        """Another process lives; whether one still does is found out with each beat."""
        self._services.calls.others_live = True


@job("elsewhere", every_seconds=0.5)
async def elsewhere(services: Services) -> None:
    """Tell devices connected here what other processes have posted, while there are others.

    What is heard of at once anyway is read now and then all the same, for what may have been lost on its way.
    """
    if not services.calls.others_live:
        return
    await services.calls.refresh_held()
    if not services.courier.may_wait("letters"):
        fetched = await services.mailbox.fetch()
        await services.calls.refresh({letter.call_id for letter in fetched if letter.call_id is not None})
        services.billing.moved_elsewhere({one.user_id for one in fetched if one.event == WALLET_UPDATED})
