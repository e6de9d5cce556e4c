"""The verbs of a call, for its two people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from models.calls import commands as c
from models.calls import tariff, upgrades
from models.calls.beginning import Beginning, agreed
from models.calls.call import MISSED, Call, Reason, Role, State, Timers
from models.calls.engine import Tools
from models.calls.meter import Meter
from models.calls.rings.service import Rings
from models.calls.sdp import check_candidate, check_description
from models.calls.signals.store import Signal
from models.calls.stays import Staying
from models.calls.store import CallStore
from models.calls.switchboard import Forward
from models.calls.upkeep import Upkeep
from models.errors import Refusal
from models.money import QUOTE_ROUTE
from models.ports import Alarms, Clock, Courier, Device, Doors, Ids, NoCourier
from models.users.service import Users

# Calls that ended this long ago still come with SYNC, so that a stuck screen heals.
RECENT_MINUTES = 5
SIGNALS_PER_POLL_MAX = 200

__all__ = ["Calls"]


@contextmanager
def _payers_business(payer: bool) -> Iterator[None]:
    """What the payer has in the wallet is told to nobody else: the other side learns only that it is not enough."""
    try:
        yield
    except Refusal as no:
        if payer or no.code not in ("INSUFFICIENT_FUNDS", "WALLET_FROZEN", "CURRENCY_MISMATCH"):
            raise
        raise Refusal("INSUFFICIENT_FUNDS") from None


class Calls(Beginning, Upkeep, Staying):
    """One per process: ``request`` and ``accept`` of ``Beginning``, the server's verbs of ``Upkeep``, those of rooms
    of ``Staying``, and these.
    """

    def __init__(
        self,
        *,
        store: CallStore,
        users: Users,
        meter: Meter,
        clock: Clock,
        ids: Ids,
        alarms: Alarms,
        doors: Doors,
        rings: Rings,
        timers: Timers,
        process: str,
        courier: Courier | None = None,
    ) -> None:
        super().__init__(
            Tools(
                store=store,
                users=users,
                meter=meter,
                clock=clock,
                ids=ids,
                alarms=alarms,
                doors=doors,
                rings=rings,
                timers=timers,
                process=process,
                courier=courier or NoCourier(),
            )
        )

    async def ringing(self, device: Device, call_id: str) -> Call:
        """This device of the callee rings."""
        return await self._apply(call_id, c.Ring(device.device_id), device.user_id)

    async def reject(self, device: Device, call_id: str, *, reason: Reason = Reason.DECLINED) -> Call:
        """Refuse on all devices. Safe to repeat: an ended call answers with how it ended."""
        return await self._apply(call_id, c.Reject(device.device_id, reason), device.user_id)

    async def end(
        self, device: Device, *, call_id: str | None = None, op_id: str | None = None
    ) -> Call | None:
        """Hang up, decline or cancel; an ended call answers with its final state.

        With ``op_id`` the call that was (or will be) requested with it is cancelled; None when it has not come yet.
        """
        if call_id is not None:
            return await self._apply(call_id, c.HangUp(device.device_id), device.user_id)
        assert op_id is not None
        call = await self._store.by_op(device.user_id, op_id)
        if call is None:
            await self._store.bury(device.user_id, op_id, self._clock.now())
            # The start may have slipped in between; one of the two sees the other.
            call = await self._store.by_op(device.user_id, op_id)
        return await self._apply(call.id, c.HangUp(device.device_id), device.user_id) if call else None

    async def connected(self, device: Device, call_id: str) -> Call:
        """Media flows on this side."""
        return await self._apply(call_id, c.Connected(device.device_id), device.user_id)

    async def report(
        self, device: Device, call_id: str, *, stats: Mapping[str, Any], receiving: bool | None
    ) -> Call:
        """Keep this side's quality figures; ``receiving`` says whether media comes in, where the figures tell."""
        return await self._apply(call_id, c.Report(device.device_id, stats, receiving), device.user_id)

    async def resume(
        self,
        device: Device,
        call_id: str,
        *,
        offer: Mapping[str, Any] | None = None,
        reports_media: bool | None = None,
    ) -> Call:
        """Take this user's leg up on this device, after a lost connection or from another device."""
        call = await self._apply(
            call_id, c.Resume(device.device_id, device.process, reports_media), device.user_id
        )
        if offer is not None:
            call = await self.describe(device, call_id, {**offer, "type": "offer"})
        return call

    async def describe(self, device: Device, call_id: str, description: Mapping[str, Any]) -> Call:
        """An offer or answer for the other side, at any time. Refuses with ``CALL_GLARE`` and as for descriptions."""
        call = await self._seen(call_id, device.user_id)
        body = check_description(description, kind=None, call_type=call.type)
        return await self._apply(call_id, c.Describe(device.device_id, body), device.user_id)

    async def ask_upgrade(
        self, device: Device, call_id: str, *, type: str, max_rate_per_minute_minor: int | None = None
    ) -> Call:
        """Ask the other side for video. What it would cost is fixed now, for the payer to agree to.

        The caller pays, so a caller who asks has agreed; refuses with ``PRICE_CHANGED`` if that is above
        ``max_rate_per_minute_minor``, with ``CURRENCY_MISMATCH`` if it is in another currency than the call so far.
        """
        call = await self._seen(call_id, device.user_id)
        price = self._meter.quote(callee=call.callee, call_type=type, follows=True)
        if tariff.same_rate(price, call.price):
            price = call.price
        if call.charge is not None and price.currency != call.price.currency:
            # One call is paid from one wallet.
            raise Refusal("CURRENCY_MISMATCH", currency=price.currency, quoteRoute=QUOTE_ROUTE)
        agreed(price, max_rate_per_minute_minor)
        now, payer = self._clock.now(), call.role_of(device.user_id) is Role.CALLER
        if payer and call.state is State.ACTIVE and price != call.price:
            await self._meter.afford(upgrades.at_price(call, price, now), now)
        with _payers_business(payer):
            return await self._apply(call_id, c.AskUpgrade(device.device_id, type, price), device.user_id)

    async def answer_upgrade(self, device: Device, call_id: str, *, accept: bool) -> Call:
        """Say yes or no to the other side's wish. A yes refuses as the reservation of its price does."""
        call = await self._seen(call_id, device.user_id)
        with _payers_business(call.role_of(device.user_id) is Role.CALLER):
            return await self._apply(call_id, c.AnswerUpgrade(device.device_id, accept), device.user_id)

    # --------------------------------------------------------------------------------------------------- signaling

    def relay(
        self, user_id: str, device_id: str, call_id: str, candidates: Sequence[Any]
    ) -> tuple[Call, list[Forward]] | None:
        """Candidates for the other side: the call and what passes now. None when this process must ``fetch`` first.

        What goes to the leg of a REST client, which has no socket, takes ``signal``; so does what goes to another
        process while nothing reaches it, and the first that comes after this process stood still.
        """
        call = self.board.call(call_id)
        if call is None or (call.live and (call_id in self.board.doubted or self._beyond(call, user_id))):
            return None
        checked = [check_candidate(candidate) for candidate in candidates]
        return call, self.board.relay(call, user_id, device_id, checked)

    async def signal(self, user_id: str, device_id: str, call_id: str, candidates: Sequence[Any]) -> Call:
        """As ``relay``, with what it takes of the database: the call itself, and the log of a leg that polls."""
        call = await self._seen(call_id, user_id)
        checked = [check_candidate(candidate) for candidate in candidates]
        if call.live:
            self.board.update(call)
            call = self.board.call(call_id) or call  # it may have ended while it was being read
        await self._send(call, self.board.relay(call, user_id, device_id, checked))
        return call

    async def signals(self, user_id: str, call_id: str, *, after: int) -> list[Signal]:
        """What a client without a socket has not seen yet. A callee's number 1 is the offer that rang."""
        call = await self._seen(call_id, user_id)
        role = call.role_of(user_id)
        assert role is not None
        kept = await self._store.signals.after(call_id, role, after, SIGNALS_PER_POLL_MAX)
        now = call.negotiation
        rung = now.pending and now.offerer is Role.CALLER and (call.state is State.RINGING or now.number == 1)
        if role is Role.CALLEE and after < 1 and rung:
            return [Signal(1, "description", call.caller.user_id, now.offer, call.created_at), *kept]
        return kept

    def _beyond(self, call: Call, user_id: str) -> bool:
        role = call.role_of(user_id)
        leg = call.leg(role.other) if role else None
        if leg is None or leg.process == self._process:
            return False
        return leg.process is None or not self._courier.reaches

    # --------------------------------------------------------------------------------------------------- questions

    async def get(self, user_id: str, call_id: str) -> Call:
        """One call or stay of the user. Refuses with ``CALL_UNKNOWN``, also for those of others."""
        call = await self._loaded(call_id)
        if call.role_of(user_id) is None:
            raise Refusal("CALL_UNKNOWN")
        return call

    async def recent(self, user_id: str) -> list[Call]:
        """The user's live call and those that ended in the last 5 minutes."""
        return await self._store.recent(user_id, self._clock.now() - timedelta(minutes=RECENT_MINUTES))

    async def history(
        self,
        user_id: str,
        *,
        direction: str | None = None,
        status: str | None = None,
        other_id: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> list[Call]:
        """The user's calls, newest first, one more than ``limit`` where there are more.

        ``direction``: ``incoming``, ``outgoing``; ``status``: ``missed``, a state or an end reason.
        """
        states = {State.RINGING, State.ACCEPTED, State.ACTIVE, State.RECONNECTING}
        return await self._store.history(
            user_id,
            direction=direction,
            missed=[reason.value for reason in MISSED] if status == "missed" else None,
            reasons=[status] if status in set(Reason) else None,
            states=[s.value for s in states]
            if status == "live"
            else [status]
            if status in set(State)
            else None,
            other_id=other_id,
            before=before,
            most=limit + 1,
        )

    async def still_rings(self, call_id: str) -> bool:
        """Whether a push about this call may still ring."""
        call = await self._store.load(call_id)
        return call is not None and call.state is State.RINGING
