"""``docs/openapi.json``: the REST routes of the catalogue as OpenAPI 3.1."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from handlers.registry import Catalogue, Handler, Route
from handlers.shapes import camel
from handlers.system import ErrorBody
from models.errors import CODES
from server.funnel import needs_op_id
from server.health import VERSION
from server.json_schemas import Schemas, first_line, words

ABOUT = """\
The REST companion of the Socket.IO events (see `/asyncapi.json`): the same verbs, shapes and refusals.

Send `Authorization: Bearer <accessToken>` (or an API key, `rk_…`, where a scope is named) and
`Content-Type: application/json`. Unknown fields are ignored.
Times are RFC 3339 in UTC, money is an integer in the currency's minor unit, ids are opaque text.
A refusal is `{"error": {"code", "message", "details"?, "retryAfterMs"?}, "requestId"}`; programs go by `code`.
"""
OTHER_NAMES = "other names"
TITLE = "Ringmeter"

_IN_PATH_OR_QUERY = frozenset({"GET", "HEAD"})
_SIGNED_IN = (
    "TOKEN_MISSING", "TOKEN_EXPIRED", "TOKEN_INVALID", "SESSION_ENDED", "ACCOUNT_BANNED", "ACCOUNT_DELETED",
    "SCOPE_MISSING",
)  # fmt: skip
_ANY = ("VALIDATION_FAILED", "INTERNAL", "DATABASE_AWAY", "SERVER_DRAINING", "ADDRESS_BLOCKED")
_BODY = ("BAD_JSON", "PAYLOAD_TOO_LARGE")
_ONCE = ("IDEMPOTENCY_MISMATCH", "IDEMPOTENCY_IN_FLIGHT")
_GENERAL = frozenset((*_SIGNED_IN, *_ANY, *_BODY, *_ONCE, "RATE_LIMITED"))
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and payload within 24 h gets the first answer again (`opId` in the body also does).",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}
_DEVICE_ID = {
    "name": "X-Device-Id",
    "in": "header",
    "description": "The device that acts, as `deviceId` of the socket; without it each sign-in is one device.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 64},
}


_FILENAME = {
    "name": "X-Filename",
    "in": "header",
    "description": "The file's name, percent-encoded UTF-8, where the body is the file itself.",
    "schema": {"type": "string", "maxLength": 768},
}
_RANGE = {
    "name": "Range",
    "in": "header",
    "description": "One range of bytes: `bytes=0-499`, `bytes=500-`, `bytes=-500`. Heeded if `If-Range`, where there "
    "is one, is the file's `ETag`. Several ranges at once are answered with the whole file.",
    "schema": {"type": "string", "examples": ["bytes=0-499"]},
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of what the client has: answered with 304 if that is it.",
    "schema": {"type": "string"},
}
_BINARY: dict[str, Any] = {"application/octet-stream": {}}
_ANY_TYPE: dict[str, Any] = {"*/*": {}}


def openapi(catalogue: Catalogue) -> dict[str, Any]:
    """The document: every route under its main path and its other names, and the system's own routes."""
    schemas = Schemas(
        TITLE,
        VERSION,
        info={"description": ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
        servers=[{"url": "/", "description": "This server"}],
        security=[{"bearer": []}],
    )
    components = schemas.spec.components
    components.security_scheme("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    components.parameter("IdempotencyKey", "header", _IDEMPOTENCY_KEY)
    components.parameter("DeviceId", "header", _DEVICE_ID)
    components.parameter("Filename", "header", _FILENAME)
    components.parameter("Range", "header", _RANGE)
    components.parameter("IfNoneMatch", "header", _IF_NONE_MATCH)
    error = {
        "type": "object",
        "description": "A refusal.",
        "properties": {"error": schemas.ref(ErrorBody), "requestId": {"type": "string"}},
        "required": ["error", "requestId"],
    }
    components.schema("Error", error)
    return _Document(schemas).of(catalogue)


class _Document:
    """One making of the document: names that are taken, paths so far."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._taken: set[str] = set()
        self._paths: dict[str, dict[str, Any]] = defaultdict(dict)
        self._codes: set[str] = set()
        # A verb refuses alike through both doors, so what its event declares goes for its routes too.
        self._by_event: dict[Handler, Sequence[str]] = {}
        self._shared: dict[tuple[str, ...], str] = {}
        self._sharing: Counter[int] = Counter()

    def of(self, catalogue: Catalogue) -> dict[str, Any]:
        for event in catalogue.events.values():
            self._by_event[event.handler] = event.refuses
        routes = sorted(catalogue.routes, key=lambda r: (_tag(r), catalogue.routes.index(r)))
        for route in routes:
            self._add(route)
        for path, operation in _system().items():
            self._paths[path]["get"] = operation
        for path, operations in self._paths.items():
            self._schemas.spec.path(path, operations=operations)
        for name in dict.fromkeys(_tag(route) for route in routes):
            self._schemas.spec.tag({"name": name})
        self._schemas.spec.tag({"name": "system", "description": "For load balancers and monitoring."})
        about = "The same routes under the names that other clients use; they answer alike."
        self._schemas.spec.tag({"name": OTHER_NAMES, "description": about})
        for code in sorted(self._codes):
            self._schemas.spec.components.example(code, _example(code))
        made: dict[str, Any] = self._schemas.spec.to_dict()
        return made

    def _add(self, route: Route) -> None:
        operation = self._operation(route, self._operation_id(route))
        if route.also:
            operation["x-also"] = list(route.also)
        self._paths[route.path][route.method.lower()] = {**operation, "tags": [_tag(route)]}
        for path in route.also:
            name = self._operation_id(route)
            self._paths[path][route.method.lower()] = {
                **self._operation(route, name),
                "tags": [OTHER_NAMES],
                "description": f"Another name of `{route.method} {route.path}`.",
            }

    def _operation_id(self, route: Route) -> str:
        base = camel(route.handler.__name__)
        for number in range(1, 100):
            name = base if number == 1 else f"{base}{number}"
            if name not in self._taken:
                self._taken.add(name)
                return name
        raise ValueError(f"too many routes of {base}")

    def _operation(self, route: Route, operation_id: str) -> dict[str, Any]:
        text = words(route.doc)
        made: dict[str, Any] = {"operationId": operation_id, "summary": first_line(text), "description": text}
        if route.scope:
            made["description"] = f"{text}\n\nAlso for API keys with the scope `{route.scope}`."
        parameters, body = self._takes(route)
        if parameters:
            made["parameters"] = parameters
        if body:
            made["requestBody"] = body
        if route.public:
            made["security"] = []
        made["responses"] = self._responses(route, has_body=body is not None)
        return made

    def _takes(self, route: Route) -> tuple[list[Any], dict[str, Any] | None]:
        properties = self._schemas.properties(route.takes)
        in_path = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
        parameters: list[Any] = []
        for name in in_path:
            field, schema = properties[name]
            parameters.append(_parameter(name, "path", schema, required=True))
        rest = {name: found for name, found in properties.items() if name not in in_path}
        body = None
        if route.method in _IN_PATH_OR_QUERY:
            for name, (field, schema) in rest.items():
                parameters.append(_parameter(name, "query", schema, required=field.required))
        elif route.body != "json":
            body = {"required": True, "content": _upload() if route.body == "stream" else _BINARY}
        elif rest:
            without = tuple(str(properties[name][0].name) for name in in_path)
            needed = any(field.required for field, _ in rest.values())
            body = {
                "required": needed,
                "content": {"application/json": {"schema": self._schemas.ref(route.takes, without=without)}},
            }
        if not route.public:
            parameters.append("DeviceId")
        if route.once or needs_op_id(route):
            parameters.append("IdempotencyKey")
        if route.body == "stream":
            parameters.append("Filename")
        if route.blob:
            parameters += ["Range", "IfNoneMatch"]
        elif route.etag:
            parameters.append("IfNoneMatch")
        return parameters, body

    def _responses(self, route: Route, *, has_body: bool) -> dict[str, Any]:
        responses: dict[str, Any] = {}
        if route.blob:
            responses.update(_file())
        elif route.gives is None:
            responses[str(204 if route.status == 200 else route.status)] = {"description": "Done."}
        else:
            responses[str(route.status)] = {
                "description": first_line(words(route.gives.__doc__)) + ".",
                "content": {"application/json": {"schema": self._answer(route)}},
            }
        if route.etag:
            headers = {name: {"schema": {"type": "string"}} for name in ("ETag", "Cache-Control")}
            responses[str(route.status)]["headers"] = headers
            responses["304"] = {"description": "The client has it.", "headers": headers}
        by_status: dict[int, list[str]] = defaultdict(list)
        declared = [*route.refuses, *self._by_event.get(route.handler, ())]
        for code in _codes(route, declared, has_body=has_body):
            by_status[CODES[code].status].append(code)
            self._codes.add(code)
        for status in sorted(by_status):
            responses[str(status)] = self._refusal(by_status[status], status)
        return responses

    def _refusal(self, codes: Sequence[str], status: int) -> dict[str, Any] | str:
        """The refusals of one status; those that any route may give are shared components."""
        if not _GENERAL.issuperset(codes):
            return _refusal(codes, status)
        name = self._shared.setdefault(tuple(codes), f"Refused{status}" + "abcdefgh"[self._sharing[status]])
        if name not in self._schemas.spec.components.responses:
            self._sharing[status] += 1
            self._schemas.spec.components.response(name, _refusal(codes, status))
        return name

    def _answer(self, route: Route) -> dict[str, Any]:
        assert route.gives is not None
        shape = self._schemas.ref(route.gives)
        if route.many:
            return {
                "type": "object",
                "properties": {
                    "items": {"type": "array", "items": shape},
                    "nextCursor": {"type": ["string", "null"], "description": "`cursor` of the next page."},
                },
                "required": ["items", "nextCursor"],
            }
        if route.wraps:
            return {"type": "object", "properties": {route.wraps: shape}, "required": [route.wraps]}
        return shape


def _tag(route: Route) -> str:
    return route.handler.__module__.rsplit(".", 1)[-1].split("_")[0]


def _parameter(name: str, place: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    # Absent and null are the same in an address, so null is not said.
    schema = dict(schema)
    if isinstance(schema.get("type"), list):
        schema["type"] = next(one for one in schema["type"] if one != "null")
    if "enum" in schema:
        schema["enum"] = [one for one in schema["enum"] if one is not None]
    made: dict[str, Any] = {"name": name, "in": place, "required": required}
    about = schema.pop("description", None)
    if about:
        made["description"] = about
    return {**made, "schema": schema}


def _codes(route: Route, declared: Sequence[str], *, has_body: bool) -> list[str]:
    """Everything that the route may refuse with, each code once."""
    found = [*declared, *_ANY]
    if has_body:
        found += _BODY if route.body == "json" else _BODY[1:]
    if not route.public:
        found += _SIGNED_IN
    if route.once:
        found += _ONCE
    if route.limit != "none":
        found.append("RATE_LIMITED")
    return list(dict.fromkeys(found))


def _upload() -> dict[str, Any]:
    """The two forms of an upload (``server/uploads.py``)."""
    part = {"type": "string", "contentMediaType": "application/octet-stream", "description": "The file."}
    form = {"type": "object", "properties": {"file": part}, "required": ["file"]}
    return {**_BINARY, "multipart/form-data": {"schema": form}}


def _file() -> dict[str, Any]:
    """The answers with a file or a part of it (``server/blobs.py``)."""
    text = {"schema": {"type": "string"}}
    headers: dict[str, Any] = {
        "ETag": text,
        "Accept-Ranges": text,
        "Content-Disposition": text,
        "Cache-Control": text,
    }
    part = {**headers, "Content-Range": {**text, "description": "As in `bytes 0-499/1234`."}}
    return {
        "200": {
            "description": "The whole file; HEAD answers alike, without it.",
            "headers": headers,
            "content": _ANY_TYPE,
        },
        "206": {"description": "The range that was asked for.", "headers": part, "content": _ANY_TYPE},
        "304": {"description": "The client has it.", "headers": {"ETag": text}},
    }


def _refusal(codes: Sequence[str], status: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": "\n".join(f"- `{code}`: {CODES[code].sentence}" for code in codes),
        "content": {
            "application/json": {"schema": "Error", "examples": {code: code for code in codes}},
        },
    }
    if status in (429, 503):
        made["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return made


def _example(code: str) -> dict[str, Any]:
    found = CODES[code]
    error: dict[str, Any] = {"code": code, "message": found.sentence}
    if found.retry_after_ms is not None:
        error["retryAfterMs"] = found.retry_after_ms
    return {"value": {"error": error, "requestId": "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"}}


def _system() -> dict[str, dict[str, Any]]:
    """What ``server/health.py`` serves: public, and not of the catalogue."""
    health = {
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["ok", "degraded", "draining"]},
            "database": {"type": "string", "enum": ["up", "down"]},
            "uptimeSeconds": {"type": "integer"},
            "version": {"type": "string"},
        },
        "required": ["status", "database", "uptimeSeconds", "version"],
    }
    live = {"type": "object", "properties": {"status": {"type": "string", "const": "ok"}}}
    body = {"content": {"application/json": {"schema": health}}}
    return {
        "/health": _operation_of_system(
            "health",
            "Whether this process can serve",
            {
                "200": {"description": "It can.", **body},
                "503": {"description": "It cannot: the database is away, or it drains.", **body},
            },
        ),
        "/health/live": _operation_of_system(
            "healthLive",
            "Whether this process lives",
            {"200": {"description": "It does.", "content": {"application/json": {"schema": live}}}},
        ),
        "/metrics": _operation_of_system(
            "metrics",
            "Figures for Prometheus",
            {"200": {"description": "Figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        ),
    }


def _operation_of_system(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["system"],
        "security": [],
        "responses": responses,
    }
