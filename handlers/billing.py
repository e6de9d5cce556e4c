"""Charging: what the meter says while two people talk, and its timed jobs. Its prices are part of ``calls.py``."""

from __future__ import annotations

from collections.abc import Sequence

from marshmallow import fields

from handlers.registry import job, notice
from handlers.services import Services
from handlers.shapes import Shape
from models.billing.service import Tick
from models.ports import Letter

_ROOM = fields.String(
    metadata={"description": "Of a stay in a room with a price: the room. `callId` is the stay's id then."}
)


class BillingTick(Shape):
    """A running call's money."""

    call_id = fields.String(required=True)
    room_id = _ROOM
    charged_minor = fields.Integer(required=True, metadata={"description": "What the call has cost so far."})
    currency = fields.String(required=True)
    remaining_seconds = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "How long the money lasts if you go on talking; null without end."},
    )
    remaining_ms = fields.Integer(required=True, allow_none=True)
    available_minor = fields.Integer(
        metadata={"description": "To the payer: what is left to spend, call credits and primary balance."}
    )


class LowBalance(Shape):
    """The money is running out."""

    call_id = fields.String(required=True)
    room_id = _ROOM
    remaining_seconds = fields.Integer(required=True)


BILLING_TICK = notice(
    "BILLING_TICK",
    BillingTick,
    "To both, at the start and at least every 5 s of a paid call: the money running. In a room with a price, to the "
    "participant.",
)
BILLING_LOW_BALANCE = notice(
    "BILLING_LOW_BALANCE", LowBalance, "To the payer, when 60 and when 15 seconds are left."
)


def tick_letters(ticks: Sequence[Tick]) -> list[Letter]:
    """Ticks as letters to those who are connected: they are about now, so none is kept."""
    letters = []
    for tick in ticks:
        call = tick.call
        seconds = None if tick.remaining_ms is None else tick.remaining_ms // 1000
        payload = {
            "callId": call.id,
            "chargedMinor": tick.charged_minor,
            "currency": call.price.currency,
            "remainingSeconds": seconds,
            "remainingMs": tick.remaining_ms,
        }
        # In a room the one who pays hears it: its owner would hear of everybody in it.
        room = {} if call.room_id is None else {"roomId": call.room_id}
        payer, payee = call.caller.user_id, call.callee.user_id
        mine = {**payload, **room, "availableMinor": tick.available_minor}
        letters.append(Letter(user_id=payer, event=BILLING_TICK, payload=mine))
        if not room:
            letters.append(Letter(user_id=payee, event=BILLING_TICK, payload=payload))
        if tick.warning:
            warning = {"callId": call.id, **room, "remainingSeconds": seconds}
            letters.append(Letter(user_id=payer, event=BILLING_LOW_BALANCE, payload=warning))
    return letters


@job("ticks", every_seconds=0.1, agenda=lambda services: services.billing.agenda)
async def ticks(services: Services) -> None:
    """Say how the money of running calls stands, and warn of its end: in slices, and others get a turn between them."""
    async for some in services.billing.ticks():
        await services.mailbox.say_here(tick_letters(some))


@job("renewals", every_seconds=0.1, first=True, agenda=lambda services: services.calls.board.renewals)
async def renewals(services: Services) -> None:
    """Reserve ahead for calls that go on."""
    await services.calls.run_renewals()


@job("renewals_late", every_seconds=1.0, anywhere=True)
async def renewals_late(services: Services) -> None:
    """Reserve ahead for calls of which another process should have."""
    await services.calls.run_late_renewals()


@job("extensions", every_seconds=1.0)
async def extensions(services: Services) -> None:
    """Take up what has changed in wallets, where the nudge could not for want of a database."""
    await services.billing.run_wanted()


@job("money", every_seconds=2.0, anywhere=True)
async def money(services: Services) -> None:
    """Settle what a process has ended and not lived to settle; clear earnings whose dispute window is over."""
    await services.calls.run_money()
