"""Wire shapes shared by features: camelCase outside, snake_case inside, every text bounded."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from models.errors import Refusal

TEXT_MAX = 256
ID_MAX = 64

_UNCLEAN = re.compile(r"[\x00\ud800-\udfff]")


def unclean(text: str) -> bool:
    """Whether a text has what neither MongoDB nor JSON can carry: NUL, half a character."""
    return _UNCLEAN.search(text) is not None


def camel(name: str) -> str:
    """``call_id`` → ``callId``."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Shape(Schema):
    """Base of all schemas: unknown fields are ignored (CONTRACT §1), names are camelCase on the wire.

    ``example`` is a payload that passes; the documents print it and the tests of the house send it.
    """

    example: ClassVar[Mapping[str, Any]] = {}

    class Meta:
        unknown = EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Give every field its camelCase name on the wire, unless it has one of its own."""
        field_obj.data_key = field_obj.data_key or camel(field_name)


class Text(fields.String):
    """Text without NUL or lone surrogates (MongoDB and the next client could not carry them), at most ``most`` long."""

    default_error_messages = {"unclean": "Not valid text."}

    def __init__(self, *, most: int = TEXT_MAX, least: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validators.insert(0, validate.Length(min=least or None, max=most))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if unclean(text):
            raise self.make_error("unclean")
        return text


def Id(**kwargs: Any) -> Text:
    """An id as clients send it back to us: opaque text."""
    return Text(most=ID_MAX, least=1, **kwargs)


class Instant(fields.Field[datetime]):
    """RFC 3339, UTC, milliseconds, ``Z``."""

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else rfc3339(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        try:
            parsed = datetime.fromisoformat(value)
        except (TypeError, ValueError) as error:
            raise ValidationError("Not an RFC 3339 time.") from error
        if parsed.tzinfo is None:
            raise ValidationError("A time needs its offset.")
        return parsed.astimezone(UTC)


def rfc3339(value: datetime) -> str:
    """The wire form of an instant: ``2026-01-31T12:00:00.000Z``."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Nothing(Shape):
    """No fields: ``{}`` in, nothing out."""


class PublicUser(Shape):
    """A person as others see them."""

    id = fields.String(required=True)
    username = fields.String(required=True)
    display_name = fields.String(required=True)
    avatar_url = fields.String(allow_none=True, load_default=None)
    presence = fields.String(required=True, validate=validate.OneOf(["online", "away", "in_call", "offline"]))
    rate_per_minute_minor = fields.Integer(allow_none=True, load_default=None)
    video_rate_per_minute_minor = fields.Integer(allow_none=True, load_default=None)
    currency = fields.String(required=True)


# The greatest whole number that every JSON reader keeps exactly (RFC 8259 §6); the database's own limit is above it.
NUMBER_MAX = 2**53 - 1


class PageQuery(Shape):
    """``?limit=`` (at most 200) and ``?cursor=`` of a list."""

    limit = fields.Integer(load_default=50, validate=validate.Range(min=1, max=200))
    cursor = Text(load_default=None, allow_none=True, most=512)


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a list, and the cursor at which it goes on."""

    items: Sequence[Any]
    next_cursor: str | None = None


def encode_cursor(*parts: str) -> str:
    """A cursor: opaque to clients."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, parts: int = 2) -> list[str] | None:
    """The parts of a cursor that we made. Refuses with ``VALIDATION_FAILED``."""
    if not cursor:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        found = None
    if (
        not isinstance(found, list)
        or len(found) != parts
        or not all(isinstance(x, str) and not unclean(x) for x in found)
    ):
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    return found


def cursor_instant(text: str) -> datetime:
    """The instant in a cursor. Refuses with ``VALIDATION_FAILED``."""
    try:
        value: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    return value
