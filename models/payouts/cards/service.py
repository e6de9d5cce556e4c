"""Cards as a gateway lets them be kept: a token that is good at that gateway only, and the last four digits.

Nobody types a card number here, and none comes in: a card is one that its owner has paid with.

    cards = Cards(store=CardStore(db), payments=…, clock=clock, ids=ids)
"""

from __future__ import annotations

from typing import Protocol

from models.errors import Refusal
from models.payments.gateway import CardToken
from models.payouts.cards.store import Card, CardStore
from models.ports import Clock, Ids

# More cards than one person pays with.
CARDS_MAX = 20


class PaidWith(Protocol):
    """Who knows what payments were paid with."""

    async def card_of(self, user_id: str, reference: str) -> tuple[str, CardToken | None]:
        """The gateway of one's own completed payment, and its card. Refuses with ``PAYMENT_UNKNOWN``."""
        ...


class Cards:
    """One per process."""

    def __init__(self, *, store: CardStore, payments: PaidWith, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._payments = payments
        self._clock = clock
        self._ids = ids

    async def keep(self, user_id: str, reference: str) -> Card:
        """Keep the card with which one's own completed payment was paid; safe to repeat.

        Refuses with ``PAYMENT_UNKNOWN``, ``CARD_UNKNOWN`` (it was paid otherwise, or the gateway lets none be kept) and
        ``VALIDATION_FAILED``.
        """
        gateway, token = await self._payments.card_of(user_id, reference)
        if token is None or not (token.last4.isascii() and token.last4.isdigit() and len(token.last4) == 4):
            raise Refusal("CARD_UNKNOWN")
        mine = await self._store.of_user(user_id)
        for card in mine:
            if (card.gateway, card.token) == (gateway, token.token):
                return card
        if len(mine) >= CARDS_MAX:
            raise Refusal("VALIDATION_FAILED", reference=[f"At most {CARDS_MAX} cards."])
        return await self._store.add(
            Card(
                id=self._ids.new(),
                user_id=user_id,
                gateway=gateway,
                token=token.token,
                last4=token.last4,
                brand=token.brand,
                expires=token.expires,
                created_at=self._clock.now(),
            )
        )

    async def of_user(self, user_id: str) -> list[Card]:
        """A user's cards, the oldest first."""
        return await self._store.of_user(user_id)

    async def remove(self, user_id: str, card_id: str) -> None:
        """Forget one. ``CARD_UNKNOWN`` also when it is another's."""
        if not await self._store.remove(user_id, card_id):
            raise Refusal("CARD_UNKNOWN")
