"""What we say to LiveKit and what it says to us: tokens for its rooms, and its signed notifications. Pure.

Formats as LiveKit documents them ("Tokens & grants", "Webhooks & events" at docs.livekit.io). A token is a JWT under
the secret of an API key: ``iss`` the key, ``sub`` the participant's identity, ``nbf`` and ``exp``, and grants in
``video``. A notification is a POST whose ``Authorization`` header is such a JWT with the SHA-256 of the body's bytes
in base64 as ``sha256``; so nobody without the secret can make one, and none can be sent with another's body.

An identity is a device, ``{user}:{device}``: LiveKit throws out the older of two participants with one identity
(DUPLICATE_IDENTITY), and somebody may be in a room with a phone and a laptop. Both ids are opaque; LiveKit's
documentation warns of names in identities, which end up in its logs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from models.errors import Refusal

# A token is used when a device connects; LiveKit renews it by itself for those who are connected.
TOKEN_SECONDS = 600
# LiveKit's clock need not agree with ours; its own libraries allow as much.
LEEWAY_SECONDS = 60
# A token of LiveKit's has some 300 characters; what is longer is not looked at.
AUTHORIZATION_LENGTH_MAX = 4096
# LiveKit's limit on identities and names.
NAME_LENGTH_MAX = 256
_ALGORITHM = "HS256"
# By what is allowed to be published: a room without cameras has no pictures, whatever a client tries.
_SOURCES = {
    "audio": ["microphone"],
    "video": ["camera", "microphone", "screen_share", "screen_share_audio"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Where LiveKit is, and a key of it: ``url`` for its clients (ws or wss)."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What LiveKit has told: ``event`` by its name, in which of its rooms, and of which of its participants.

    ``room`` is the name, which is our room's id; ``room_sid`` is another each time that LiveKit opens it, as
    ``participant_sid`` is with each connection.
    """

    id: str
    event: str
    room: str
    room_sid: str
    participant_sid: str | None
    identity: str | None
    at: datetime


def identity_of(*, user_id: str, device_id: str) -> str:
    """How a device is called in LiveKit's rooms."""
    return f"{user_id}:{device_id}"


def device_of(identity: str) -> tuple[str, str] | None:
    """User and device of an identity that is one of ours."""
    user_id, colon, device_id = identity.partition(":")
    return (user_id, device_id) if colon and user_id and device_id else None


def join_token(
    key: Key,
    *,
    room_id: str,
    room_type: str,
    user_id: str,
    device_id: str,
    name: str,
    owner: bool,
    now: datetime,
) -> str:
    """A token with which one device may connect to one room, within ``TOKEN_SECONDS``.

    Everybody may hear, see and publish what the room is for; the owner may also mute and remove (``roomAdmin``).
    Nobody may create, list or record rooms, nor change the own name or attributes.
    """
    issued = int(now.timestamp())
    video: dict[str, Any] = {
        "room": room_id,
        "roomJoin": True,
        "canPublish": True,
        "canPublishSources": _SOURCES[room_type],
        "canPublishData": True,
        "canSubscribe": True,
    }
    if owner:
        video["roomAdmin"] = True
    claims = {
        "iss": key.api_key,
        "sub": identity_of(user_id=user_id, device_id=device_id),
        "nbf": issued,
        "exp": issued + TOKEN_SECONDS,
        "name": name[:NAME_LENGTH_MAX],
        "attributes": {"userId": user_id, "deviceId": device_id},
        "video": video,
    }
    return jwt.encode(claims, key.api_secret, algorithm=_ALGORITHM)


def admin_token(key: Key, *, room_id: str, now: datetime) -> str:
    """A token for asking LiveKit's server about one room, and for taking somebody out of it."""
    issued = int(now.timestamp())
    claims = {
        "iss": key.api_key,
        "nbf": issued,
        "exp": issued + LEEWAY_SECONDS,
        "video": {"room": room_id, "roomAdmin": True},
    }
    return jwt.encode(claims, key.api_secret, algorithm=_ALGORITHM)


def notification(key: Key, *, body: bytes, authorization: str, now: datetime) -> Notification:
    """What a notification says, once it is proven to come from LiveKit as it is. Refuses with ``WEBHOOK_INVALID``."""
    claims = _claims(key, authorization.removeprefix("Bearer ").strip(), now)
    said = claims.get("sha256")
    digest = base64.b64encode(hashlib.sha256(body).digest())
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(errors="replace"), digest):
        raise Refusal("WEBHOOK_INVALID")
    try:
        told = json.loads(body)
        return _read(told, now)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise Refusal("WEBHOOK_INVALID") from None


def _claims(key: Key, token: str, now: datetime) -> Mapping[str, Any]:
    if len(token) > AUTHORIZATION_LENGTH_MAX:
        raise Refusal("WEBHOOK_INVALID")
    # Its times are judged by our clock; the library's own is not ours.
    options: jwt.types.Options = {
        "require": ["iss", "exp"],
        "verify_exp": False,
        "verify_iat": False,
        "verify_nbf": False,
        "verify_aud": False,
    }
    try:
        claims: dict[str, Any] = jwt.decode(
            token, key.api_secret, algorithms=[_ALGORITHM], issuer=key.api_key, options=options
        )
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Refusal("WEBHOOK_INVALID") from None
    at, begins, ends = now.timestamp(), claims.get("nbf", 0), claims["exp"]
    if type(ends) is not int or type(begins) is not int:
        raise Refusal("WEBHOOK_INVALID")
    if not begins - LEEWAY_SECONDS <= at < ends + LEEWAY_SECONDS:
        raise Refusal("WEBHOOK_INVALID")
    return claims


def _read(told: Mapping[str, Any], now: datetime) -> Notification:
    """What matters of a WebhookEvent, which comes in protobuf's JSON: numbers as texts, what is empty not at all."""
    room, participant = told.get("room") or {}, told.get("participant") or {}
    seconds = int(told.get("createdAt") or 0)
    return Notification(
        id=_text(told["id"]),
        event=_text(told["event"]),
        room=_text(room.get("name", "")),
        room_sid=_text(room.get("sid", "")),
        participant_sid=_text(participant["sid"]) if participant.get("sid") else None,
        identity=_text(participant["identity"]) if participant.get("identity") else None,
        # In whole seconds, and on another clock: never later than it is here.
        at=min(now, datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)) if seconds else now,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > NAME_LENGTH_MAX:
        raise TypeError("a text was expected")
    return value
