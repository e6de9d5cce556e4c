"""What the server says about calls: the shapes of its events, and their names."""

from __future__ import annotations

from marshmallow import fields

from handlers.calls_shapes import CallView, Description, PriceView
from handlers.registry import notice
from handlers.shapes import PublicUser, Shape


class MoneyView(Shape):
    """An amount in minor units."""

    amount_minor = fields.Integer(required=True)
    currency = fields.String(required=True)


class CallNotice(Shape):
    """What every notice about a call carries."""

    call_id = fields.String(required=True)
    call = fields.Nested(CallView, required=True)
    seq = fields.Integer(metadata={"description": "The same as `logSeq`."})
    log_seq = fields.Integer(
        metadata={"description": "Your own rising number; the last one handled is `since`."}
    )


class IncomingCall(CallNotice):
    """A call rings. ``expiresInMs`` counts from the arrival of this event."""

    from_ = fields.Nested(PublicUser, required=True, data_key="from")
    type = fields.String(required=True)
    offer = Description(allow_none=True)
    expires_in_ms = fields.Integer(required=True)
    price = fields.Nested(PriceView, required=True)
    version = fields.Integer(required=True)


class FromPeer(CallNotice):
    """Something the other side did."""

    from_ = fields.Nested(PublicUser, required=True, data_key="from")


class Accepted(FromPeer):
    """The callee has answered; ``answer`` only for the device that holds the caller's leg."""

    answer = Description(allow_none=True)


class Refused(CallNotice):
    """The call did not come about."""

    from_ = fields.Nested(PublicUser, data_key="from")
    reason = fields.String(required=True)


class Elsewhere(Shape):
    """This device has nothing more to do with the call."""

    call_id = fields.String(required=True)
    by = fields.String(required=True, metadata={"description": "`accept`, `reject` or `takeover`."})
    seq = fields.Integer(metadata={"description": "The same as `logSeq`."})
    log_seq = fields.Integer(
        metadata={"description": "Your own rising number; the last one handled is `since`."}
    )


class EndedCall(CallNotice):
    """The call is over."""

    reason = fields.String(required=True)
    ended_by = fields.String(allow_none=True)
    duration_seconds = fields.Integer(required=True)
    cost = fields.Nested(MoneyView, required=True)


class UpdatedCall(CallNotice):
    """Something else about the call has changed."""

    restart_ice = fields.Boolean(metadata={"description": "True when media stopped: restart ICE."})


class UpgradeNotice(FromPeer):
    """A change of the call's type is asked for or answered."""

    type = fields.String(required=True)
    price = fields.Nested(PriceView)


class DescriptionNotice(Shape):
    """An offer or answer of the other side."""

    call_id = fields.String(required=True)
    from_ = fields.String(required=True, data_key="from")
    description = Description(required=True)


class CandidateNotice(Shape):
    """A candidate of the other side."""

    call_id = fields.String(required=True)
    from_ = fields.String(required=True, data_key="from")
    candidate = fields.Raw(allow_none=True)


CALL_REQUEST = notice("CALL_REQUEST", IncomingCall, "To the callee's devices: a call rings.")
CALL_RINGING = notice("CALL_RINGING", FromPeer, "To the caller: a device of the callee rings.")
CALL_ACCEPT = notice("CALL_ACCEPT", Accepted, "To the caller: the callee has answered.")
CALL_REJECT = notice("CALL_REJECT", Refused, "To the caller: the callee has declined.")
CALL_BUSY = notice("CALL_BUSY", Refused, "To the caller: the callee is on the phone.")
CALL_TIMEOUT = notice("CALL_TIMEOUT", Refused, "To both: nobody answered in time.")
CALL_ANSWERED_ELSEWHERE = notice(
    "CALL_ANSWERED_ELSEWHERE",
    Elsewhere,
    "To a device: another device of its user has the call, or has refused it.",
)
CALL_ENDED = notice("CALL_ENDED", EndedCall, "To both, on every device: the call is over.")
CALL_UPDATED = notice("CALL_UPDATED", UpdatedCall, "To both: any other change of the call.")
CALL_UPGRADE = notice("CALL_UPGRADE", UpgradeNotice, "To the other side: video is asked for, at this price.")
CALL_UPGRADE_ACCEPT = notice("CALL_UPGRADE_ACCEPT", UpgradeNotice, "To the one who asked: video it is.")
CALL_UPGRADE_REJECT = notice("CALL_UPGRADE_REJECT", UpgradeNotice, "To the one who asked: it stays as it is.")
SESSION_DESCRIPTION = notice(
    "SESSION_DESCRIPTION", DescriptionNotice, "To the device that holds the other leg: an offer or answer."
)
ICE_CANDIDATE = notice(
    "ICE_CANDIDATE", CandidateNotice, "To the device that holds the other leg: a candidate."
)
