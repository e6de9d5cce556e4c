"""What every connected device gets: the greeting with what it missed, and errors without an ack."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from marshmallow import fields

from handlers.calls_notices import ICE_CANDIDATE, SESSION_DESCRIPTION
from handlers.calls_shapes import CallsView, CallView
from handlers.calls_views import call_view, fresh_ring, seen_by
from handlers.context import Context
from handlers.registry import job, notice
from handlers.rooms_views import in_rooms
from handlers.services import Services
from handlers.shapes import Shape
from handlers.wallet import wallet_on_the_wire
from handlers.wallet_shapes import WalletView
from models.calls.call import Call, Role, State
from models.mailbox.service import Stretch
from models.ports import Letter


class ErrorBody(Shape):
    """A refusal."""

    code = fields.String(required=True)
    message = fields.String(required=True)
    details = fields.Dict()
    retry_after_ms = fields.Integer()


class ErrorNotice(Shape):
    """A refusal of an event that asked for no ack, or the reason why the socket is closed next."""

    error = fields.Nested(ErrorBody, required=True)
    event = fields.String(allow_none=True)


class Sync(CallsView):
    """The first event of every connection."""

    missed = fields.Integer(
        required=True,
        metadata={
            "description": "How many events of the log follow; beyond 500 rings that are over count as well."
        },
    )
    seq = fields.Integer(required=True, metadata={"description": "Your newest number; keep it as `since`."})
    gap = fields.Boolean(
        required=True, metadata={"description": "Events after `since` are gone: read the histories."}
    )
    device_id = fields.String(required=True)
    wallet = fields.Nested(
        WalletView, required=True, allow_none=True, metadata={"description": "null: you have none yet."}
    )


SYNC = notice(
    "SYNC", Sync, "After every connect: live calls, those that ended in the last 5 minutes, and your number."
)
ERROR = notice("error", ErrorNotice, "The refusal of an event without an ack, or why the socket closes.")

_CALLS = CallView(many=True)


@dataclass(frozen=True, slots=True)
class Greeting:
    """``SYNC``, and the first events that follow it: the log up to number ``upto``. What follows comes by ``more``."""

    sync: dict[str, Any]
    letters: Sequence[Letter]
    upto: int


async def welcome(ctx: Context, since: int | None) -> Greeting:
    """``SYNC`` for a device that has just connected, and what it missed after ``since``, in order.

    A ring is replayed only while the call still rings, so a call that came and went while the phone slept is a line
    in the history and never a ghost ring.
    """
    services, now = ctx.services, ctx.services.clock.now()
    missed = await services.mailbox.missed(ctx.user_id, ctx.device_id, since)
    calls = await services.calls.recent(ctx.user_id)
    presence = await seen_by(services.presence, ctx.user_id, calls)
    wallet = await services.wallets.find(ctx.user_id)
    ringing = _ringing(calls, ctx.user_id)
    if since is None or missed.gap:
        letters = [
            fresh_ring(ring, now) for ring in await services.mailbox.rings(ctx.user_id, sorted(ringing))
        ]
        missed = replace(missed, upto=missed.seq, count=0)
    else:
        # Signals that went by the log are about a negotiation that a device which was away begins anew.
        kept = [
            letter for letter in missed.letters if letter.event not in (SESSION_DESCRIPTION, ICE_CANDIDATE)
        ]
        letters = _current(in_rooms(kept, _rooms_of(ctx)), ringing, now)
    sync = {
        "calls": _CALLS.dump([call_view(call, presence, now) for call in calls]),
        "missed": len(letters) + max(0, missed.count - len(missed.letters)),
        "seq": missed.seq,
        "gap": missed.gap,
        "deviceId": ctx.device_id,
        "wallet": wallet_on_the_wire(wallet) if wallet else None,
    }
    return Greeting(sync, letters, missed.upto)


async def more(ctx: Context, after: int) -> Stretch:
    """What follows number ``after`` of the log for this device, without rings that are over and rooms it has left."""
    services = ctx.services
    stretch = await services.mailbox.next(ctx.user_id, ctx.device_id, after)
    stretch = replace(stretch, letters=tuple(in_rooms(stretch.letters, _rooms_of(ctx))))
    if all(letter.rings_until is None for letter in stretch.letters):
        return stretch
    ringing = _ringing(await services.calls.recent(ctx.user_id), ctx.user_id)
    return replace(stretch, letters=tuple(_current(stretch.letters, ringing, services.clock.now())))


def _rooms_of(ctx: Context) -> set[str]:
    """The rooms in which this device is."""
    return ctx.services.rooms.board.seated(ctx.user_id, ctx.device_id)


def _ringing(calls: Sequence[Call], user_id: str) -> set[str]:
    """Which of the calls ring at this user."""
    return {call.id for call in calls if call.state is State.RINGING and call.role_of(user_id) is Role.CALLEE}


def _current(letters: Sequence[Letter], ringing: Collection[str], now: datetime) -> list[Letter]:
    """The letters without rings that are over, and the others with what is left of them."""
    return [
        letter if letter.rings_until is None else fresh_ring(letter, now)
        for letter in letters
        if letter.rings_until is None or letter.call_id in ringing
    ]


async def arrived(ctx: Context) -> None:
    """A device's socket is there. What follows from it for each feature; repeating it changes nothing."""
    assert ctx.process is not None, "only a socket arrives"
    await ctx.services.presence.arrived(ctx.user_id, ctx.device_id)
    await ctx.services.calls.attached(ctx.user_id, ctx.device_id, ctx.process)
    await ctx.services.rooms.attached(ctx.user_id, ctx.device_id, ctx.process)


async def gone(ctx: Context, seen_at: datetime) -> None:
    """A device's socket is gone and no newer one has taken its place; it was last heard of at ``seen_at``.

    A process that dies says nothing: whoever depends on it has a lease that somebody else finds.
    """
    assert ctx.process is not None, "only a socket goes"
    try:
        await ctx.services.calls.lost(ctx.user_id, ctx.device_id, ctx.process, seen_at)
    finally:
        try:
            await ctx.services.rooms.lost(ctx.user_id, ctx.device_id, ctx.process, seen_at)
        finally:
            await ctx.services.presence.gone(ctx.user_id, ctx.device_id, seen_at)
            await ctx.services.chat.typing.gone(ctx.user_id, ctx.device_id)


@job("letters", every_seconds=3600.0, anywhere=True)
async def letters(services: Services) -> None:
    """Throw away letters that are too old to be replayed."""
    await services.mailbox.trim()
