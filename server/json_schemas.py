"""JSON Schemas of the wire shapes, made by apispec; both API documents share them.

A schema's name in the documents is its class's name without ``View``, its description the class's docstring, its
example the shape's ``example``.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import fields

from handlers.calls_shapes import Description
from handlers.shapes import Instant, Shape

# AsyncAPI 3.0 reads draft 7, OpenAPI 3.1 draft 2020-12: what is written here means the same in both.
_DIALECT = "3.1.0"

# ``Description`` checks its own text; outside it is RTCSessionDescriptionInit (W3C WebRTC §5.6).
SESSION_DESCRIPTION: dict[str, Any] = {
    "type": "object",
    "description": "An SDP offer or answer, as `RTCPeerConnection` makes and takes it; at most 64 KiB of text.",
    "properties": {
        "type": {"type": "string", "enum": ["offer", "answer"]},
        "sdp": {"type": "string", "maxLength": 65536},
    },
    "required": ["type", "sdp"],
}


class _Converter(OpenAPIConverter):  # type: ignore[misc]
    """apispec's, with descriptions and examples, and without defaults that their own type refuses."""

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        made: dict[str, Any] = super().schema2jsonschema(schema)
        made["description"] = words(type(schema).__doc__)
        example = {key: value for key, value in type(schema).example.items() if key in made["properties"]}
        if example:
            made["examples"] = [example]
        return made

    def field2property(self, field: Any) -> dict[str, Any]:
        if isinstance(field, Description):
            reference = {"$ref": "#/components/schemas/SessionDescription"}
            made: dict[str, Any] = {"anyOf": [reference, {"type": "null"}]} if field.allow_none else reference
        else:
            made = super().field2property(field)
            if isinstance(field, fields.Integer) and "type" in made:
                made.update({k: int(made[k]) for k in ("minimum", "maximum") if k in made})
        if made.get("default", ...) is None:
            del made["default"]  # an absent field; most of them may not be sent as null
        return made


class _Plugin(MarshmallowPlugin):  # type: ignore[misc]
    Converter = _Converter


def words(docstring: str | None) -> str:
    """A docstring as the Markdown of a document."""
    return inspect.cleandoc(docstring or "").replace("``", "`")


def first_line(text: str) -> str:
    """The first sentence of a docstring, without its full stop: a summary."""
    head = text.split("\n\n", 1)[0].replace("\n", " ")
    return head.split(". ", 1)[0].rstrip(".")


class Schemas:
    """The components of one document. ``ref`` adds a shape and gives the reference to it."""

    def __init__(self, title: str, version: str, **options: Any) -> None:
        names = {shape.__name__ for shape in _below(Shape)}
        plugin = _Plugin(schema_name_resolver=lambda schema: _name(schema, names))
        self.spec = APISpec(title, version, _DIALECT, plugins=[plugin], **options)
        self.converter: OpenAPIConverter = plugin.converter
        self.converter.map_to_openapi_type(Instant, "string", "date-time")
        self.spec.components.schema("SessionDescription", SESSION_DESCRIPTION)
        self._instances: dict[tuple[type[Shape], tuple[str, ...]], Shape] = {}

    def instance(self, shape: type[Shape], *, without: tuple[str, ...] = ()) -> Shape:
        """The one instance of a shape, ``without`` the named fields."""
        key = (shape, without)
        if key not in self._instances:
            self._instances[key] = shape(exclude=without)
        return self._instances[key]

    def ref(self, shape: type[Shape], *, without: tuple[str, ...] = ()) -> dict[str, Any]:
        """``{"$ref": …}`` to the shape's schema, which is then among the components."""
        made: dict[str, Any] = self.converter.resolve_nested_schema(self.instance(shape, without=without))
        return made

    def properties(self, shape: type[Shape]) -> dict[str, tuple[fields.Field[Any], dict[str, Any]]]:
        """The fields of a shape by their names on the wire, each with its JSON Schema."""
        found = {}
        for name, field in self.instance(shape).fields.items():
            found[field.data_key or name] = (field, self.converter.field2property(field))
        return found


def _name(schema: Shape, names: Collection[str]) -> str:
    name = type(schema).__name__
    short = name.removesuffix("View")
    if short not in names:
        name = short
    return f"{name}Body" if schema.exclude else name


def _below(shape: type[Shape]) -> Iterator[type[Shape]]:
    for one in shape.__subclasses__():
        yield one
        yield from _below(one)
