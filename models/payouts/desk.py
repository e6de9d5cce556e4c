"""What an operator does about payouts: one-time passwords, and those of which nobody knows what became of them."""

from __future__ import annotations

from models.errors import Refusal
from models.payments.gateway import Gateway, GatewayAway, GatewayNo
from models.payouts import rules
from models.payouts.payout import Payout, Stage
from models.payouts.rules import Order
from models.payouts.work import Work
from models.ports import Clock
from models.trail.service import Note


class Desk:
    """``Desk(work, clock)``."""

    def __init__(self, work: Work, clock: Clock) -> None:
        self._work = work
        self._clock = clock

    async def find(self, payout_id: str) -> Payout:
        """Any payout, by its id or reference. ``PAYOUT_UNKNOWN``."""
        found = await self._work.store.find(payout_id) or await self._work.store.by_reference(payout_id)
        if found is None:
            raise Refusal("PAYOUT_UNKNOWN")
        return found

    async def authorize(self, payout_id: str, password: str) -> Payout:
        """Give the gateway the one-time password that it has sent to the operator.

        Refuses with ``PAYOUT_UNKNOWN``, ``PAYOUT_WRONG_STATE``, ``GATEWAY_REFUSED`` (a wrong or old password: nothing
        has changed) and ``GATEWAY_AWAY`` (nobody knows; it is looked up).
        """
        payout, gateway = await self._waits_for_password(payout_id)
        try:
            seen = await gateway.authorize_payout(payout.reference, payout.gateway_reference, password)
        except GatewayNo as no:
            raise Refusal("GATEWAY_REFUSED", reason=no.code) from no
        except GatewayAway as away:
            await self._work.store.hurry(payout.reference, self._clock.now())
            raise Refusal("GATEWAY_AWAY") from away
        return await self._work.learn(payout.id, rules.Seen(seen))

    async def resend(self, payout_id: str) -> Payout:
        """Have the one-time password sent again. Refuses as ``authorize`` does."""
        payout, gateway = await self._waits_for_password(payout_id)
        try:
            await gateway.resend_password(payout.reference, payout.gateway_reference)
        except GatewayNo as no:
            raise Refusal("GATEWAY_REFUSED", reason=no.code) from no
        except GatewayAway as away:
            raise Refusal("GATEWAY_AWAY") from away
        return payout

    async def order(self, payout_id: str, order: Order, note: Note | None = None) -> Payout:
        """Submit a payout again that the gateway has not known for long, or give its money back; approve or reject one.

        The gateway is asked first if it may know of it, and what it knows is left alone. ``note`` is the row of the
        trail, which joins the change. Refuses with ``PAYOUT_UNKNOWN``,
        ``PAYOUT_WRONG_STATE`` (``stage``) and ``GATEWAY_AWAY``.
        """
        payout = await self.find(payout_id)
        if payout.stage is not Stage.APPROVAL and (payout.stage is not Stage.WAITING or payout.heard):
            learned = await self._work.asked(payout)
            if isinstance(learned, rules.Away):
                raise Refusal("GATEWAY_AWAY", reason=learned.said)
            payout = await self._work.learn(payout.id, learned)
        after = await self._work.learn(payout.id, order, note)
        if after.version == payout.version:
            raise Refusal("PAYOUT_WRONG_STATE", stage=payout.stage.value, word=payout.word)
        return after

    async def _waits_for_password(self, payout_id: str) -> tuple[Payout, Gateway]:
        payout = await self.find(payout_id)
        gateway = self._work.gateways.get(payout.gateway)
        if gateway is None:
            raise Refusal("GATEWAY_UNAVAILABLE")
        if payout.stage is Stage.APPROVAL:
            raise Refusal("PAYOUT_WRONG_STATE", stage=payout.stage.value, word=payout.word)
        # It may have been given in the gateway's own pages, or wait since a moment ago.
        payout = await self._work.look_at(payout)
        if payout.stage is not Stage.OTP:
            raise Refusal("PAYOUT_WRONG_STATE", stage=payout.stage.value, word=payout.word)
        return payout, gateway
