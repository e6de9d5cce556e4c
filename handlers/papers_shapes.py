"""Wire shapes of papers."""

from __future__ import annotations

from marshmallow import fields, validate

from handlers.shapes import Shape, Text
from models.ledger.journal import Kind
from models.papers.rules import DAYS_MAX, LINES_MAX, MONTHS_MAX, UTC_NAME

_ZONE = "An IANA time zone, such as `Africa/Lagos`, in which days and months are meant."


def Zone() -> Text:
    """A time zone."""
    return Text(load_default=UTC_NAME, least=1, most=64, metadata={"description": _ZONE})


class StatementAsked(Shape):
    """Which wallet and which days. Without any it is the month until now."""

    format = fields.String(
        load_default="csv",
        validate=validate.OneOf(tuple(LINES_MAX)),
        metadata={"description": f"At most {LINES_MAX['csv']} lines as CSV, {LINES_MAX['pdf']} as PDF."},
    )
    first = fields.Date(
        data_key="from", load_default=None, allow_none=True, metadata={"description": "The first day."}
    )
    last = fields.Date(
        data_key="to",
        load_default=None,
        allow_none=True,
        metadata={"description": f"The last day, included; at most {DAYS_MAX} days in all."},
    )
    time_zone = Zone()
    currency = Text(load_default=None, allow_none=True)
    example = {"format": "pdf", "from": "2026-01-01", "to": "2026-01-31", "timeZone": "Africa/Lagos"}


class AnalyticsAsked(Shape):
    """Which wallet and how many months, this one included."""

    months = fields.Integer(load_default=6, validate=validate.Range(min=1, max=MONTHS_MAX))
    time_zone = Zone()
    currency = Text(load_default=None, allow_none=True)
    example = {"months": 12, "timeZone": "Africa/Lagos"}


class FlowView(Shape):
    """What came in and went out by entries of one kind."""

    kind = fields.String(required=True, validate=validate.OneOf([kind.value for kind in Kind]))
    income_minor = fields.Integer(required=True)
    spending_minor = fields.Integer(required=True)
    count = fields.Integer(required=True)


class MonthView(Shape):
    """A month by kinds; money between the two accounts of the wallet is neither income nor spending."""

    month = fields.String(required=True, metadata={"description": "As `2026-03`."})
    income_minor = fields.Integer(required=True)
    spending_minor = fields.Integer(required=True)
    kinds = fields.List(fields.Nested(FlowView), required=True)


class AnalyticsView(Shape):
    """The months of a wallet, the oldest first, and their sums by kind."""

    currency = fields.String(required=True)
    time_zone = fields.String(required=True)
    income_minor = fields.Integer(required=True)
    spending_minor = fields.Integer(required=True)
    kinds = fields.List(fields.Nested(FlowView), required=True)
    months = fields.List(fields.Nested(MonthView), required=True)
