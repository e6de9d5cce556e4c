"""Wire shapes of calls: what requests carry and how a call looks from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, pre_load, validate, validates_schema

from handlers.receipt_shapes import Receipt
from handlers.shapes import NUMBER_MAX, Id, Instant, PageQuery, PublicUser, Shape, Text
from models.calls.call import Reason, State

CALL_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
OP_ID_MAX = 128
STATS_KEYS_MAX = 64


class Description(fields.Field[dict[str, Any]]):
    """``{type: "offer" | "answer", sdp}``; its text is checked by the rules of signaling, with their own codes."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError("An object {type, sdp} is expected.")
        return {"type": value.get("type"), "sdp": value.get("sdp")}


class CallRef(Shape):
    """A call by its id; ``sessionId`` and ``id`` are other names of it."""

    call_id = Id(required=True)
    example = {"callId": CALL_ID}

    @pre_load
    def synonyms(self, data: Any, **_: Any) -> Any:
        """Other clients' names."""
        if isinstance(data, Mapping) and "callId" not in data:
            for name in ("sessionId", "id"):
                if name in data:
                    return {**data, "callId": data[name]}
        return data


def agreed_rate() -> fields.Integer:
    """The price that the payer has seen."""
    return fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(min=0, max=NUMBER_MAX),
        metadata={"description": "Refuse with `PRICE_CHANGED` if a minute costs more than this."},
    )


class RequestCall(Shape):
    """Ring somebody."""

    to = Id(required=True, metadata={"description": "The callee's user id; `receiverId` is understood too."})
    type = fields.String(
        required=True,
        validate=validate.OneOf(["audio", "video"]),
        metadata={"description": "`callType` is understood too."},
    )
    offer = Description(load_default=None, allow_none=True)
    reports_media = fields.Boolean(load_default=False)
    op_id = Text(load_default=None, allow_none=True, least=1, most=OP_ID_MAX)
    example = {
        "to": "01985c3e-0000-7000-8000-00000000b0b0",
        "type": "video",
        "reportsMedia": True,
        "opId": "tap-1",
    }

    max_rate_per_minute_minor = agreed_rate()

    @pre_load
    def synonyms(self, data: Any, **_: Any) -> Any:
        """Other clients' names."""
        if not isinstance(data, Mapping):
            return data
        named = dict(data)
        for ours, theirs in (("to", "receiverId"), ("type", "callType")):
            if ours not in named and theirs in named:
                named[ours] = named[theirs]
        return named


class AcceptCall(CallRef):
    """Take a call."""

    answer = Description(load_default=None, allow_none=True)
    reports_media = fields.Boolean(load_default=False)
    example = {"callId": CALL_ID, "reportsMedia": True}


class RejectCall(CallRef):
    """Refuse a call."""

    reason = fields.String(load_default="declined", validate=validate.OneOf(["declined", "busy"]))
    example = {"callId": CALL_ID, "reason": "declined"}


class EndCall(CallRef):
    """Hang up, or cancel: by the call's id, or by the ``opId`` of a request whose answer has not come yet."""

    call_id = Id(load_default=None)
    op_id = Text(load_default=None, allow_none=True, least=1, most=OP_ID_MAX)
    reason = Text(load_default=None, allow_none=True, metadata={"description": "Free text, not interpreted."})

    @validates_schema
    def one_of_them(self, data: Mapping[str, Any], **_: Any) -> None:
        """A call has to be named."""
        if data.get("call_id") is None and data.get("op_id") is None:
            raise ValidationError("Missing data for required field.", "callId")


class Describe(CallRef):
    """A description for the other side."""

    description = Description(required=True)
    example = {"callId": CALL_ID, "description": {"type": "offer", "sdp": "v=0\r\n"}}


class Candidates(CallRef):
    """One ``candidate`` or several; ``null`` and ``""`` are the end of candidates."""

    candidate = fields.Raw(allow_none=True)
    candidates = fields.List(fields.Raw(allow_none=True), validate=validate.Length(max=256))
    example = {
        "callId": CALL_ID,
        "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0"},
    }

    @validates_schema
    def something(self, data: Mapping[str, Any], **_: Any) -> None:
        """One of the two forms."""
        if "candidate" not in data and "candidates" not in data:
            raise ValidationError("Missing data for required field.", "candidate")


class Signal(CallRef):
    """What a client without a socket sends: ``description``, ``candidate`` or ``candidates``."""

    description = Description(load_default=None, allow_none=True)
    candidate = fields.Raw(allow_none=True)
    candidates = fields.List(fields.Raw(allow_none=True), validate=validate.Length(max=256))
    example = Describe.example

    @validates_schema
    def something(self, data: Mapping[str, Any], **_: Any) -> None:
        """One of the three."""
        if data.get("description") is None and "candidate" not in data and "candidates" not in data:
            raise ValidationError("Missing data for required field.", "description")


class Direction(Shape):
    """One direction of the media."""

    bitrate_kbps = fields.Float(validate=validate.Range(min=0, max=10_000_000))
    jitter_ms = fields.Float(validate=validate.Range(min=0, max=600_000))
    loss_percent = fields.Float(validate=validate.Range(min=0, max=100))


class Stats(Shape):
    """What a side measures (WebRTC getStats). An inbound bitrate of 0 says that no media comes in."""

    rtt_ms = fields.Float(validate=validate.Range(min=0, max=600_000))
    inbound = fields.Nested(Direction)
    outbound = fields.Nested(Direction)


class ReportQuality(CallRef):
    """Quality of the media as this side sees it."""

    stats = fields.Nested(Stats, required=True)
    example = {
        "callId": CALL_ID,
        "stats": {"rttMs": 40, "inbound": {"bitrateKbps": 800, "jitterMs": 4, "lossPercent": 0.1}},
    }


class ResumeCall(CallRef):
    """Take a leg up again."""

    offer = Description(load_default=None, allow_none=True)
    reports_media = fields.Boolean(load_default=None, allow_none=True)


class UpgradeCall(CallRef):
    """Audio to video."""

    type = fields.String(load_default="video", validate=validate.OneOf(["video"]))
    max_rate_per_minute_minor = agreed_rate()
    example = {"callId": CALL_ID, "type": "video"}


class AskPrice(Shape):
    """Which call."""

    to = Id(required=True)
    type = fields.String(load_default="audio", validate=validate.OneOf(["audio", "video"]))
    example = {"to": CALL_ID, "type": "audio"}


class HistoryQuery(PageQuery):
    """Which calls."""

    direction = fields.String(load_default=None, validate=validate.OneOf(["incoming", "outgoing"]))
    status = fields.String(
        load_default=None,
        validate=validate.OneOf(["missed", "live", *(s.value for s in State), *(r.value for r in Reason)]),
    )
    with_ = Id(load_default=None, data_key="with", metadata={"description": "Only calls with this user."})


class SignalsQuery(CallRef):
    """Signals after a number."""

    after = fields.Integer(load_default=0, validate=validate.Range(min=0, max=NUMBER_MAX))


class PriceView(Shape):
    """A tariff, in minor units."""

    rate_per_minute_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    first_block_seconds = fields.Integer(required=True)
    block_seconds = fields.Integer(required=True)
    connect_fee_minor = fields.Integer(required=True)
    minimum_minor = fields.Integer(required=True)
    exponent = fields.Integer(
        required=True, metadata={"description": "How many decimals the currency has (ISO 4217)."}
    )


class EnquiryView(Shape):
    """What a call would cost you now. Nothing is reserved."""

    price = fields.Nested(PriceView, required=True)
    available_minor = fields.Integer(
        required=True,
        metadata={"description": "What you could pay it from: call credits and primary balance."},
    )
    affordable_seconds = fields.Integer(
        required=True, allow_none=True, metadata={"description": "Null for a call without end: it is free."}
    )


class UpgradeView(Shape):
    """A wish for video that waits for its answer."""

    by = fields.String(required=True)
    type = fields.String(required=True)
    price = fields.Nested(PriceView, required=True)


class CallView(Shape):
    """A call. A client ignores a snapshot whose ``version`` is older than the one it has."""

    id = fields.String(required=True)
    type = fields.String(required=True, validate=validate.OneOf(["audio", "video"]))
    state = fields.String(required=True, validate=validate.OneOf([s.value for s in State]))
    version = fields.Integer(required=True)
    caller = fields.Nested(PublicUser, required=True)
    callee = fields.Nested(PublicUser, required=True)
    created_at = Instant(required=True)
    ringing_at = Instant(allow_none=True)
    accepted_at = Instant(allow_none=True)
    active_at = Instant(allow_none=True)
    ended_at = Instant(allow_none=True)
    end_reason = fields.String(allow_none=True, validate=validate.OneOf([r.value for r in Reason]))
    ended_by = fields.String(allow_none=True)
    duration_seconds = fields.Integer(
        required=True,
        metadata={
            "description": "From the first media to the end, with the time in which somebody reconnected."
        },
    )
    talk_seconds = fields.Integer(
        required=True, metadata={"description": "The conversation so far: what is charged counts this alone."}
    )
    billed_seconds = fields.Integer(
        required=True,
        metadata={"description": "What is charged, by whole blocks; for a free call what was talked."},
    )
    price = fields.Nested(PriceView, required=True)
    cost_minor = fields.Integer(required=True)
    ends_in_ms = fields.Integer(allow_none=True)
    upgrade = fields.Nested(UpgradeView, allow_none=True)
    quality = fields.Dict()


class IntervalView(Shape):
    """A stretch of proven conversation."""

    start = Instant(required=True)
    end = Instant(allow_none=True)


class CallWithIntervals(CallView):
    """A call with the intervals in which both sides were there, and your copy of its receipt."""

    intervals = fields.List(fields.Nested(IntervalView), required=True)
    receipt = Receipt(required=True)


class CallsView(Shape):
    """Several calls."""

    calls = fields.List(fields.Nested(CallView), required=True)


class SignalView(Shape):
    """A description or candidate, with the number to ask ``after``."""

    number = fields.Integer(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(["description", "candidate"]))
    from_ = fields.String(required=True, data_key="from", attribute="sender")
    body = fields.Raw(required=True, data_key="signal")
    at = Instant(required=True)
