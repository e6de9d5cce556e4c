"""Calls: the events and routes of CONTRACT §2.1 and §3.3, and their timed jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from handlers.calls_shapes import (
    AcceptCall,
    AskPrice,
    CallRef,
    CallsView,
    CallView,
    CallWithIntervals,
    Candidates,
    Describe,
    EndCall,
    EnquiryView,
    HistoryQuery,
    RejectCall,
    ReportQuality,
    RequestCall,
    ResumeCall,
    Signal,
    SignalsQuery,
    SignalView,
    UpgradeCall,
)
from handlers.calls_signals import candidate_letters
from handlers.calls_views import call_view, price_view, seen_by
from handlers.context import Context
from handlers.registry import event, route
from handlers.shapes import Nothing, Page, cursor_instant, decode_cursor, encode_cursor
from models.calls.call import Call, Reason
from models.ports import Device, Letter

_ANY_CALL = [
    "CALL_UNKNOWN",
    "CALL_ENDED",
    "CALL_WRONG_STATE",
    "CALL_WRONG_SIDE",
    "CALL_ANSWERED_ELSEWHERE",
    "SERVER_BUSY",
]
_SDP = ["SDP_INVALID", "SDP_TOO_LARGE", "CALL_UPGRADE_REQUIRED"]
_FUNDS = ["INSUFFICIENT_FUNDS", "CURRENCY_MISMATCH", "WALLET_FROZEN"]
_REQUEST = [
    "SELF_NOT_ALLOWED",
    "USER_UNKNOWN",
    "USER_BLOCKED",
    "USER_UNAVAILABLE",
    "CALL_BUSY",
    "CALL_IN_PROGRESS",
    "RATE_LIMITED",
    "IDEMPOTENCY_MISMATCH",
    "IDEMPOTENCY_IN_FLIGHT",
    "SERVER_BUSY",
    "PRICE_CHANGED",
    *_FUNDS,
    *_SDP,
]


def _device(ctx: Context) -> Device:
    return Device(
        user_id=ctx.user_id, device_id=ctx.device_id, session_id=ctx.session_id, process=ctx.process
    )


def _view(ctx: Context, call: Call) -> dict[str, Any]:
    return call_view(call, ctx.services.presence, ctx.services.clock.now())


async def _views(ctx: Context, calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Calls that are over as well: since then one of the two may have blocked the other."""
    presence = await seen_by(ctx.services.presence, ctx.user_id, calls)
    return [call_view(call, presence, ctx.services.clock.now()) for call in calls]


@event(
    "CALL_REQUEST",
    takes=RequestCall,
    gives=CallView,
    once=True,
    refuses=_REQUEST,
)
@route(
    "POST",
    "/api/calls/initiate",
    also=["/api/calls", "/calls"],
    takes=RequestCall,
    gives=CallView,
    wraps="call",
    status=201,
    once=True,
    refuses=_REQUEST,
)
async def call_request(ctx: Context, ask: dict[str, Any]) -> Any:
    """Ring somebody on all their devices.

    The answer is the call: usually ``ringing``. If that person is ringing you at this moment, the two calls are one:
    the answer is theirs, accepted, and their offer follows as ``SESSION_DESCRIPTION``.
    """
    call = await ctx.services.calls.request(_device(ctx), **ask)
    return _view(ctx, call)


@event("CALL_RINGING", takes=CallRef, gives=CallView, lane="call_id", refuses=_ANY_CALL)
async def call_ringing(ctx: Context, ask: dict[str, Any]) -> Any:
    """This device of the callee rings; the caller is told the first time."""
    return _view(ctx, await ctx.services.calls.ringing(_device(ctx), ask["call_id"]))


@event("CALL_ACCEPT", takes=AcceptCall, gives=CallView, lane="call_id", refuses=[*_ANY_CALL, *_SDP])
@route(
    "POST",
    "/api/calls/accept",
    takes=AcceptCall,
    gives=CallView,
    wraps="call",
    lane="call_id",
    refuses=[*_ANY_CALL, *_SDP],
)
@route(
    "PATCH",
    "/api/calls/{callId}/answer",
    also=["/calls/{callId}/answer"],
    takes=AcceptCall,
    gives=CallView,
    wraps="call",
    lane="call_id",
    refuses=[*_ANY_CALL, *_SDP],
)
async def call_accept(ctx: Context, ask: dict[str, Any]) -> Any:
    """Take the call on this device. The first device wins; the others are told ``CALL_ANSWERED_ELSEWHERE``."""
    call = await ctx.services.calls.accept(
        _device(ctx), ask["call_id"], answer=ask["answer"], reports_media=ask["reports_media"]
    )
    return _view(ctx, call)


@event("CALL_REJECT", takes=RejectCall, gives=CallView, lane="call_id", refuses=_ANY_CALL)
@route(
    "POST",
    "/api/calls/reject",
    takes=RejectCall,
    gives=CallView,
    wraps="call",
    lane="call_id",
    refuses=_ANY_CALL,
)
async def call_reject(ctx: Context, ask: dict[str, Any]) -> Any:
    """Refuse an incoming call on all your devices. Safe to repeat: an ended call answers with how it ended."""
    reason = Reason(ask["reason"])
    return _view(ctx, await ctx.services.calls.reject(_device(ctx), ask["call_id"], reason=reason))


@event("CALL_BUSY", takes=CallRef, gives=CallView, lane="call_id", refuses=_ANY_CALL)
async def call_busy(ctx: Context, ask: dict[str, Any]) -> Any:
    """Refuse because a phone call is on: ``CALL_REJECT`` with the reason ``busy``."""
    return _view(ctx, await ctx.services.calls.reject(_device(ctx), ask["call_id"], reason=Reason.BUSY))


@event("CALL_ENDED", takes=EndCall, gives=CallView, lane="call_id", refuses=["CALL_UNKNOWN"])
@route(
    "POST",
    "/api/calls/end",
    takes=EndCall,
    gives=CallView,
    wraps="call",
    lane="call_id",
    refuses=["CALL_UNKNOWN"],
)
@route(
    "PATCH",
    "/api/calls/{callId}/end",
    also=["/calls/{callId}/end"],
    takes=EndCall,
    gives=CallView,
    wraps="call",
    lane="call_id",
    refuses=["CALL_UNKNOWN"],
)
async def call_end(ctx: Context, ask: dict[str, Any]) -> Any:
    """Hang up, decline or cancel, by the call's state. An ended call answers with its final state.

    With ``opId`` instead of ``callId`` it cancels the request that was sent with it, even one that arrives later
    (nothing is answered then).
    """
    call = await ctx.services.calls.end(_device(ctx), call_id=ask["call_id"], op_id=ask["op_id"])
    return _view(ctx, call) if call is not None else None


@event(
    "SESSION_DESCRIPTION",
    takes=Describe,
    lane="call_id",
    limit="relay",
    refuses=[*_ANY_CALL, *_SDP, "CALL_GLARE"],
)
async def session_description(ctx: Context, ask: dict[str, Any]) -> None:
    """An offer or answer for the other side, at any time: late offer, renegotiation, ICE restart.

    The caller is impolite, the callee polite: when both offer at once the caller's offer goes through and the callee's
    is refused with ``CALL_GLARE``.
    """
    await ctx.services.calls.describe(_device(ctx), ask["call_id"], ask["description"])


def relay_candidates(ctx: Context, ask: dict[str, Any]) -> tuple[dict[str, Any], list[Letter]] | None:
    """Candidates from leg to leg, in memory."""
    done = ctx.services.calls.relay(ctx.user_id, ctx.device_id, ask["call_id"], _candidates(ask))
    return None if done is None else ({}, candidate_letters(*done))


@event(
    "ICE_CANDIDATE",
    takes=Candidates,
    lane="call_id",
    limit="relay",
    relay=relay_candidates,
    refuses=["CALL_UNKNOWN", "CALL_ENDED", "CALL_ANSWERED_ELSEWHERE", "TOO_MANY_CANDIDATES"],
)
async def ice_candidate(ctx: Context, ask: dict[str, Any]) -> None:
    """Candidates for the other side. They are held until it can use them; those of an old negotiation are dropped."""
    await ctx.services.calls.signal(ctx.user_id, ctx.device_id, ask["call_id"], _candidates(ask))


def _candidates(ask: dict[str, Any]) -> list[Any]:
    return list(ask["candidates"]) if "candidates" in ask else [ask["candidate"]]


@route(
    "POST",
    "/api/calls/signal",
    takes=Signal,
    lane="call_id",
    limit="relay",
    refuses=[*_ANY_CALL, *_SDP, "CALL_GLARE", "TOO_MANY_CANDIDATES"],
)
async def call_signal(ctx: Context, ask: dict[str, Any]) -> None:
    """A description or candidates from a client without a socket."""
    if ask["description"] is not None:
        await ctx.services.calls.describe(_device(ctx), ask["call_id"], ask["description"])
    if "candidate" in ask or "candidates" in ask:
        await ctx.services.calls.signal(ctx.user_id, ctx.device_id, ask["call_id"], _candidates(ask))


@event("CALL_CONNECTED", takes=CallRef, gives=CallView, lane="call_id", refuses=_ANY_CALL)
async def call_connected(ctx: Context, ask: dict[str, Any]) -> Any:
    """Media flows on this side. With ``reportsMedia`` the call is active once both sides have said so."""
    return _view(ctx, await ctx.services.calls.connected(_device(ctx), ask["call_id"]))


@event("CALL_QUALITY", takes=ReportQuality, lane="call_id", refuses=_ANY_CALL)
async def call_quality(ctx: Context, ask: dict[str, Any]) -> None:
    """Round-trip time, jitter, loss and bitrate as this side measures them; the newest are kept with the call.

    Media that comes in is the proof that the other side is there, also while its socket is not.
    """
    stats = ask["stats"]
    rate = stats.get("inbound", {}).get("bitrate_kbps")
    receiving = None if rate is None else rate > 0
    wire = ReportQuality().fields["stats"].schema.dump(stats)  # type: ignore[attr-defined]
    await ctx.services.calls.report(_device(ctx), ask["call_id"], stats=wire, receiving=receiving)


@event(
    "CALL_RESUME", takes=ResumeCall, gives=CallView, lane="call_id", refuses=[*_ANY_CALL, *_SDP, "CALL_GLARE"]
)
async def call_resume(ctx: Context, ask: dict[str, Any]) -> Any:
    """Take your leg up again after a lost connection, or take it over from another of your devices.

    A pending offer of the other side follows as ``SESSION_DESCRIPTION``; then restart ICE.
    """
    call = await ctx.services.calls.resume(
        _device(ctx), ask["call_id"], offer=ask["offer"], reports_media=ask["reports_media"]
    )
    return _view(ctx, call)


@event(
    "CALL_UPGRADE",
    takes=UpgradeCall,
    gives=CallView,
    lane="call_id",
    refuses=[*_ANY_CALL, "PRICE_CHANGED", *_FUNDS],
)
async def call_upgrade(ctx: Context, ask: dict[str, Any]) -> Any:
    """Ask the other side for video, at the price that the answer's ``upgrade`` names. If both ask, both have consented.

    The caller pays: for a caller, to ask is to agree to that price.
    """
    call = await ctx.services.calls.ask_upgrade(
        _device(ctx),
        ask["call_id"],
        type=ask["type"],
        max_rate_per_minute_minor=ask["max_rate_per_minute_minor"],
    )
    return _view(ctx, call)


@event("CALL_UPGRADE_ACCEPT", takes=CallRef, gives=CallView, lane="call_id", refuses=[*_ANY_CALL, *_FUNDS])
async def call_upgrade_accept(ctx: Context, ask: dict[str, Any]) -> Any:
    """Consent to video. It is charged at its price from now on, as a new segment of the call."""
    return _view(ctx, await ctx.services.calls.answer_upgrade(_device(ctx), ask["call_id"], accept=True))


@event("CALL_UPGRADE_REJECT", takes=CallRef, gives=CallView, lane="call_id", refuses=_ANY_CALL)
async def call_upgrade_reject(ctx: Context, ask: dict[str, Any]) -> Any:
    """Stay with audio."""
    return _view(ctx, await ctx.services.calls.answer_upgrade(_device(ctx), ask["call_id"], accept=False))


@event("CALL_SYNC", takes=Nothing, gives=CallsView)
async def call_sync(ctx: Context, ask: dict[str, Any]) -> Any:
    """Your live call and those that ended in the last 5 minutes."""
    calls = await ctx.services.calls.recent(ctx.user_id)
    return {"calls": await _views(ctx, calls)}


@route(
    "GET",
    "/api/calls/history",
    scope="calls:read",
    also=["/api/call/history", "/api/calls", "/calls"],
    takes=HistoryQuery,
    gives=CallView,
    many=True,
)
async def call_history(ctx: Context, ask: dict[str, Any]) -> Page:
    """Your calls, newest first. ``status=missed`` are those you were called with and did not get."""
    cursor = decode_cursor(ask["cursor"])
    before = (cursor_instant(cursor[0]), cursor[1]) if cursor else None
    found = await ctx.services.calls.history(
        ctx.user_id,
        direction=ask["direction"],
        status=ask["status"],
        other_id=ask["with_"],
        before=before,
        limit=ask["limit"],
    )
    items = found[: ask["limit"]]
    more = len(found) > len(items)
    last = items[-1] if more else None
    next_cursor = encode_cursor(last.created_at.isoformat(), last.id) if last else None
    return Page(await _views(ctx, items), next_cursor)


@route(
    "GET",
    "/api/calls/price",
    takes=AskPrice,
    gives=EnquiryView,
    refuses=["USER_UNKNOWN", "USER_BLOCKED", "USER_UNAVAILABLE", "SELF_NOT_ALLOWED"],
)
async def call_price(ctx: Context, ask: dict[str, Any]) -> Any:
    """What a call to somebody would cost, and how long your money would last. Nothing is reserved."""
    found = await ctx.services.billing.enquire(ctx.user_id, to=ask["to"], type=ask["type"])
    return {**asdict(found), "price": price_view(found.price)}


@route(
    "GET",
    "/api/calls/{callId}",
    scope="calls:read",
    also=["/calls/{callId}"],
    takes=CallRef,
    gives=CallWithIntervals,
    wraps="call",
    refuses=["CALL_UNKNOWN"],
)
async def call_get(ctx: Context, ask: dict[str, Any]) -> Any:
    """One call with its intervals and, once it is settled, its receipt."""
    call = await ctx.services.calls.get(ctx.user_id, ask["call_id"])
    role = call.role_of(ctx.user_id)
    assert role is not None
    (view,) = await _views(ctx, [call])
    return {**view, "receipt": await ctx.services.receipts.of(call, role)}


@route(
    "GET",
    "/api/calls/{callId}/signals",
    takes=SignalsQuery,
    gives=SignalView,
    many=True,
    limit="relay",
    refuses=["CALL_UNKNOWN"],
)
async def call_signals(ctx: Context, ask: dict[str, Any]) -> Page:
    """For a client with no socket: descriptions and candidates after a number, in order."""
    found = await ctx.services.calls.signals(ctx.user_id, ask["call_id"], after=ask["after"])
    return Page(list(found), None)
