"""What administrators do about withdrawals: approve and reject large ones, and help those that need a person."""

from __future__ import annotations

from collections.abc import Collection

from models.errors import Refusal
from models.payouts.desk import Desk as PayoutsOwnDesk
from models.payouts.payout import OPEN, Payout, Stage
from models.payouts.rules import Order
from models.payouts.service import Payouts
from models.trail.rules import Act, Actor, Target, checked_reason
from models.trail.service import Trail

LISTED_MAX = 200
_ACTS = {
    Order.APPROVE: "payout.approve",
    Order.REJECT: "payout.reject",
    Order.SUBMIT: "payout.submit",
    Order.VOID: "payout.void",
}


class PayoutDesk:
    """One per process. Every verb but the questions refuses with ``PAYOUT_UNKNOWN`` and ``PAYOUT_WRONG_STATE``.

    Nobody decides on a withdrawal of their own: ``SELF_NOT_ALLOWED``.
    """

    def __init__(self, *, payouts: Payouts, trail: Trail) -> None:
        self._store = payouts.store
        self._desk: PayoutsOwnDesk = payouts.desk
        self._trail = trail

    async def waiting(self, limit: int = 100) -> list[Payout]:
        """Those that wait for approval, newest first."""
        return await self.some([Stage.APPROVAL], limit=limit)

    async def for_review(self, limit: int = 100) -> list[Payout]:
        """Those that need a person, newest first."""
        return await self.some(None, review=True, limit=limit)

    async def under_way(self, limit: int = 100) -> list[Payout]:
        """Those whose money is held, newest first."""
        return await self.some(OPEN, limit=limit)

    async def some(
        self, stages: Collection[Stage] | None, *, review: bool = False, limit: int = 100
    ) -> list[Payout]:
        """Those in some stages (None: in any), newest first."""
        return await self._store.some(stages, review=review, most=max(1, min(limit, LISTED_MAX)))

    async def find(self, payout_id: str) -> Payout:
        """One, by its id or its reference."""
        return await self._desk.find(payout_id)

    async def approve(self, payout_id: str, *, by: Actor, reason: str) -> Payout:
        """Let a large withdrawal go on: it is submitted at once."""
        return await self._order(payout_id, Order.APPROVE, by, reason)

    async def reject(self, payout_id: str, *, by: Actor, reason: str) -> Payout:
        """Give a large withdrawal back to its owner's wallet, with its fee."""
        return await self._order(payout_id, Order.REJECT, by, reason)

    async def submit(self, payout_id: str, *, by: Actor, reason: str) -> Payout:
        """Submit again what was sent and is not known to the gateway, or now what waits. ``GATEWAY_AWAY``."""
        return await self._order(payout_id, Order.SUBMIT, by, reason)

    async def void(self, payout_id: str, *, by: Actor, reason: str) -> Payout:
        """Give back what the gateway does not have. ``GATEWAY_AWAY``."""
        return await self._order(payout_id, Order.VOID, by, reason)

    async def authorize(self, payout_id: str, password: str, *, by: Actor, reason: str) -> Payout:
        """Give the gateway the one-time password that it has sent. ``GATEWAY_REFUSED``, ``GATEWAY_AWAY``.

        What the gateway does is not in our transaction: the row is there before it is asked.
        """
        act = await self._act(payout_id, "payout.authorize", by, reason)
        await self._refuse_unless_asked(payout_id)
        await self._trail.record(act)
        return await self._desk.authorize(payout_id, password)

    async def resend(self, payout_id: str, *, by: Actor, reason: str) -> Payout:
        """Have the one-time password sent again. As ``authorize``."""
        act = await self._act(payout_id, "payout.resend", by, reason)
        await self._refuse_unless_asked(payout_id)
        await self._trail.record(act)
        return await self._desk.resend(payout_id)

    async def _refuse_unless_asked(self, payout_id: str) -> None:
        payout = await self.find(payout_id)
        if payout.stage is Stage.APPROVAL or not payout.open:
            raise Refusal("PAYOUT_WRONG_STATE", stage=payout.stage.value, word=payout.word)

    async def _order(self, payout_id: str, order: Order, by: Actor, reason: str) -> Payout:
        act = await self._act(payout_id, _ACTS[order], by, reason)
        async with self._trail.keeping(act) as note:
            after = await self._desk.order(payout_id, order, note)
        if note.row is None:
            # Somebody else has decided meanwhile, perhaps otherwise: nobody is told that this was done.
            raise Refusal("PAYOUT_WRONG_STATE", stage=after.stage.value, word=after.word)
        return after

    async def _act(self, payout_id: str, act: str, by: Actor, reason: str) -> Act:
        payout = await self.find(payout_id)
        if by.user_id == payout.user_id:
            raise Refusal("SELF_NOT_ALLOWED")
        return Act(
            actor=by,
            act=act,
            target=Target("payout", payout.id, payout.reference),
            reason=checked_reason(reason),
            details={
                "user": payout.user_id,
                "amount_minor": payout.amount_minor,
                "currency": payout.currency,
                "to": f"{payout.to.bank_name} …{payout.to.last4}",
            },
        )
