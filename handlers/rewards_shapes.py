"""Wire shapes of points."""

from __future__ import annotations

from marshmallow import fields, validate

from handlers.shapes import Instant, Shape, Text
from handlers.wallet_shapes import OP_ID_MAX, WalletView
from models.rewards.rules import FactKind

# More than anybody talks for.
POINTS_MAX = 1_000_000_000


class Redeem(Shape):
    """How many points."""

    points = fields.Integer(required=True, strict=True, validate=validate.Range(min=1, max=POINTS_MAX))
    op_id = Text(
        load_default=None,
        allow_none=True,
        least=1,
        most=OP_ID_MAX,
        metadata={"description": "The same as the header `Idempotency-Key`, which wins."},
    )
    example = {"points": 50}


class PointsFactView(Shape):
    """What has changed your points: a call (`callId`), a refund of one, or call credits that you took for them."""

    id = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf([kind.value for kind in FactKind]))
    points = fields.Integer(required=True, metadata={"description": "Negative when they went."})
    call_id = fields.String()
    amount_minor = fields.Integer()
    currency = fields.String()
    created_at = Instant(required=True)


class RewardsView(Shape):
    """Your points, what they are worth as call credits, and what has changed them, newest first."""

    points = fields.Integer(required=True)
    worth_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    point_minor = fields.Integer(required=True, metadata={"description": "What one point is worth."})
    points_per_minute = fields.Integer(
        required=True, metadata={"description": "For each minute charged of a call that you pay for."}
    )
    history = fields.List(fields.Nested(PointsFactView), required=True)
    next_cursor = fields.String(
        required=True, allow_none=True, metadata={"description": "`cursor` of the next page of the history."}
    )


class RedemptionView(Shape):
    """Points that became call credits. Its line in the statement has the same id."""

    id = fields.String(required=True)
    points = fields.Integer(required=True)
    amount_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    created_at = Instant(required=True)


class RedeemedView(Shape):
    """The redemption, the points that are left, and the wallet that has the call credits."""

    redemption = fields.Nested(RedemptionView, required=True)
    points = fields.Integer(required=True)
    wallet = fields.Nested(WalletView, required=True)
