"""``docs/asyncapi.json``: the Socket.IO events of the catalogue as AsyncAPI 3.0.

The document speaks from the server's side: it *receives* what clients send, with the ack as ``reply``, and it
*sends* notices. All go over one channel, the Socket.IO namespace ``/``.
"""

from __future__ import annotations

from typing import Any

from handlers.registry import Catalogue, Event, Limit, Notice
from handlers.shapes import Shape
from handlers.system import ErrorBody
from server.health import VERSION
from server.json_schemas import Schemas, first_line, words

ABOUT = """\
Socket.IO 4 (protocol 5) at `/socket.io/`, namespace `/`:

`io(url, {transports: ["websocket"], auth: cb => cb({token, deviceId, since})})`

`token` is the access token (also as `Authorization: Bearer` header), `deviceId` names this installation of the app,
`since` is the last `logSeq` that it has handled. After every connect comes `SYNC`, then what the device has missed.
A refused connect carries `connect_error.data` = `{code, message}`.

Every event takes one object and gets exactly one ack, `{ok: true, data}` or `{ok: false, error}`, after the change is
durable. Beside the codes listed with it, any event may be refused with `VALIDATION_FAILED`, `RATE_LIMITED`,
`PAYLOAD_TOO_LARGE`, `BAD_JSON`, `DATABASE_AWAY`, `SERVER_DRAINING` or `INTERNAL`. An event that asks for no ack gets
its refusal as `error`. Names in capitals are also heard in lower case.

Durable events carry the user's own rising number as `logSeq`, and as `seq` unless the event has a `seq` of its own.
"""

CHANNEL = "signaling"
_SPEED: dict[Limit, list[str]] = {
    "event": ["10 per second", "burst of 100 per device"],
    "relay": ["50 per second", "burst of 200 per device"],
    "auth": ["10 per minute per address and per account"],
    "address": ["10 per minute per address"],
    "none": [],
}
_HANDSHAKE = {
    "type": "object",
    "description": "The `auth` of the handshake.",
    "properties": {
        "token": {"type": "string", "description": "The access token."},
        "deviceId": {
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
            "description": "Names this installation; without it the server makes one and tells it in `SYNC`.",
        },
        "since": {"type": "integer", "minimum": 0, "description": "The last `logSeq` that was handled."},
    },
    "required": ["token"],
}


def asyncapi(catalogue: Catalogue) -> dict[str, Any]:
    """The document: one channel, an operation per event that we hear and per notice that we say."""
    schemas = Schemas("Ringmeter events", VERSION)
    messages = {"refused": _refused(schemas), "done": _done()}
    operations: dict[str, Any] = {}
    # By module, since the order of declaration is that in which modules happen to be imported.
    for event in sorted(catalogue.events.values(), key=lambda one: one.handler.__module__):
        messages[f"client.{event.name}"] = _asked(event, schemas)
        if event.gives is not None:
            messages[f"ack.{event.name}"] = _acked(event, schemas)
        operations[f"receive.{event.name}"] = _receive(event)
    for notice in sorted(catalogue.notices.values(), key=lambda one: one.shape.__module__):
        messages[f"server.{notice.name}"] = _told(notice, schemas)
        operations[f"send.{notice.name}"] = _send(notice)
    components = schemas.spec.to_dict()["components"]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ringmeter events",
            "version": VERSION,
            "description": ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:3000",
                "pathname": "/socket.io/",
                "protocol": "ws",
                "description": "Where `make run` serves.",
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            }
        },
        "channels": {
            CHANNEL: {
                "address": "/",
                "title": "Signaling",
                "description": "The one namespace; each event is a Socket.IO event of the message's name.",
                "messages": {key: {"$ref": f"#/components/messages/{key}"} for key in messages},
            }
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": {"Handshake": _HANDSHAKE, **components["schemas"]},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token, as `auth.token` of the handshake (`Handshake`).",
                }
            },
        },
    }


def _ref(message: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{CHANNEL}/messages/{message}"}


def _receive(event: Event) -> dict[str, Any]:
    text = words(event.doc)
    made: dict[str, Any] = {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{CHANNEL}"},
        "title": event.name,
        "summary": first_line(text),
        "description": text,
        "messages": [_ref(f"client.{event.name}")],
        "reply": {
            "messages": [_ref(f"ack.{event.name}" if event.gives is not None else "done"), _ref("refused")]
        },
    }
    if event.refuses:
        made["x-refuses"] = list(event.refuses)
    if event.name.isupper():
        made["x-lower-case-alias"] = [event.name.lower()]
    if event.positional:
        # As browser clients send it that know no object: join-room(roomId).
        made["x-positional-form"] = [f"{event.name}({', '.join(event.positional)})"]
    if event.once:
        made["x-first-answer-again-per"] = ["opId"]
    if event.limit != "none":
        made["x-rate-limit"] = _SPEED[event.limit]
    return made


def _send(notice: Notice) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{CHANNEL}"},
        "title": notice.name,
        "summary": words(notice.doc),
        "messages": [_ref(f"server.{notice.name}")],
    }


def _message(name: str, title: str, payload: dict[str, Any], shape: type[Shape] | None) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "title": title, "payload": payload}
    if shape is not None and shape.example:
        made["examples"] = [{"payload": dict(shape.example)}]
    return made


def _asked(event: Event, schemas: Schemas) -> dict[str, Any]:
    return _message(event.name, f"{event.name} (from a client)", schemas.ref(event.takes), event.takes)


def _told(notice: Notice, schemas: Schemas) -> dict[str, Any]:
    return _message(notice.name, f"{notice.name} (from the server)", schemas.ref(notice.shape), notice.shape)


def _ack(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"ok": {"type": "boolean", "const": True}, "data": data},
        "required": ["ok", "data"],
    }


def _acked(event: Event, schemas: Schemas) -> dict[str, Any]:
    assert event.gives is not None
    return {
        "name": f"{event.name} ack",
        "title": "done",
        "payload": _ack(schemas.ref(event.gives)),
    }


def _done() -> dict[str, Any]:
    return {
        "name": "ack",
        "title": "done",
        "payload": _ack({"type": "object", "description": "Empty."}),
        "examples": [{"payload": {"ok": True, "data": {}}}],
    }


def _refused(schemas: Schemas) -> dict[str, Any]:
    return {
        "name": "ack",
        "title": "refused",
        "payload": {
            "type": "object",
            "properties": {"ok": {"type": "boolean", "const": False}, "error": schemas.ref(ErrorBody)},
            "required": ["ok", "error"],
        },
        "examples": [
            {
                "payload": {
                    "ok": False,
                    "error": {"code": "CALL_UNKNOWN", "message": "There is no such call."},
                }
            }
        ],
    }
