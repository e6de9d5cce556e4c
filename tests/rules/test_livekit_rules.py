"""LiveKit's tokens and notifications, held against its documentation claim by claim."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from models.errors import Refusal
from models.rooms.livekit.rules import (
    LEEWAY_SECONDS,
    Key,
    Notification,
    device_of,
    identity_of,
    join_token,
    notification,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = Key(url="wss://lk.example.com", api_key="APIx2Yz", api_secret="s" * 32)
ROOM = "01950000-0000-7000-8000-00000000000a"
ANN = "01950000-0000-7000-8000-00000000000b"


def token_of(**more: Any) -> str:
    asked: dict[str, Any] = {
        "room_id": ROOM,
        "room_type": "video",
        "user_id": ANN,
        "device_id": "phone",
        "name": "Ann",
        "owner": False,
        "now": NOW,
    }
    return join_token(KEY, **asked | more)


def read(token: str) -> dict[str, Any]:
    """As LiveKit's server does: signature, algorithm and issuer, with the claims that it needs."""
    options: jwt.types.Options = {
        "require": ["iss", "sub", "nbf", "exp"],
        "verify_exp": False,
        "verify_nbf": False,
        "strict_aud": True,
    }
    claims: dict[str, Any] = jwt.decode(
        token, KEY.api_secret, algorithms=["HS256"], issuer=KEY.api_key, options=options
    )
    return claims


def test_a_token_says_what_livekit_documents_and_nothing_else() -> None:
    token = token_of()
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert read(token) == {
        "iss": "APIx2Yz",
        "sub": f"{ANN}:phone",
        "nbf": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 600,
        "name": "Ann",
        "attributes": {"userId": ANN, "deviceId": "phone"},
        "video": {
            "room": ROOM,
            "roomJoin": True,
            "canPublish": True,
            "canPublishSources": ["camera", "microphone", "screen_share", "screen_share_audio"],
            "canPublishData": True,
            "canSubscribe": True,
        },
    }


def test_in_an_audio_room_only_the_microphone_may_be_published() -> None:
    assert read(token_of(room_type="audio"))["video"]["canPublishSources"] == ["microphone"]


def test_the_owner_and_only_the_owner_may_moderate() -> None:
    assert read(token_of(owner=True))["video"]["roomAdmin"] is True
    for owner in (True, False):
        grants = read(token_of(owner=owner))["video"]
        assert not grants.keys() & {"roomCreate", "roomList", "roomRecord", "hidden", "recorder", "agent"}
    assert "roomAdmin" not in read(token_of())["video"]


def test_a_token_under_another_secret_is_nothing() -> None:
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token_of(), "t" * 32, algorithms=["HS256"], issuer=KEY.api_key)


def test_an_identity_is_a_device_and_is_read_back() -> None:
    assert device_of(identity_of(user_id=ANN, device_id="a:b")) == (ANN, "a:b")
    assert [device_of(other) for other in ("", "recorder", ":x", "x:")] == [None] * 4


# ------------------------------------------------------------------------------------------------- notifications

# As LiveKit posts it: protobuf's JSON, with its 64-bit numbers as texts, and fields that nobody here knows.
JOINED = {
    "event": "participant_joined",
    "room": {"sid": "RM_1", "name": ROOM, "emptyTimeout": 300, "creationTime": "1772366390"},
    "participant": {
        "sid": "PA_1",
        "identity": f"{ANN}:phone",
        "state": "ACTIVE",
        "joinedAt": str(int(NOW.timestamp())),
    },
    "id": "EV_1",
    "createdAt": str(int(NOW.timestamp()) - 2),
    "numDropped": 0,
}


def signed(body: bytes, secret: str = KEY.api_secret, **changes: Any) -> str:
    """The header that LiveKit sends with a body: a token good for five minutes."""
    at = int(NOW.timestamp())
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    claims = {"iss": KEY.api_key, "nbf": at, "exp": at + 300, "sha256": digest} | changes
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, secret, algorithm="HS256")


def heard(body: bytes, authorization: str, now: datetime = NOW) -> Notification:
    return notification(KEY, body=body, authorization=authorization, now=now)


def refused(body: bytes, authorization: str, now: datetime = NOW) -> bool:
    with pytest.raises(Refusal) as no:
        heard(body, authorization, now)
    return no.value.code == "WEBHOOK_INVALID"


def test_what_livekit_has_signed_is_read() -> None:
    body = json.dumps(JOINED).encode()
    told = heard(body, signed(body))
    assert told == Notification(
        id="EV_1",
        event="participant_joined",
        room=ROOM,
        room_sid="RM_1",
        participant_sid="PA_1",
        identity=f"{ANN}:phone",
        at=NOW - timedelta(seconds=2),
    )
    assert heard(body, f"Bearer {signed(body)}") == told


def test_the_hash_is_the_one_of_livekits_own_test() -> None:
    """The body and the hash of the test of LiveKit's JavaScript library."""
    body = (
        b'{"event":"room_started", "room":{"sid":"RM_TkVjUvAqgzKz", "name":"mytestroom", "emptyTimeout":300, '
        b'"creationTime":"1628545903", "turnPassword":"ICkSr2rEeslkN6e9bXL4Ji5zzMD5Z7zzr6ulOaxMj6N", '
        b'"enabledCodecs":[{"mime":"audio/opus"}, {"mime":"video/VP8"}]}}'
    )
    assert signed(body) == signed(body, sha256="CoEQz1chqJ9bnZRcORddjplkvpjmPujmLTR42DbefYI=")


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "APIother"},
        {"iss": None},
        {"exp": None},
        {"exp": int(NOW.timestamp()) - LEEWAY_SECONDS},
        {"exp": "tomorrow"},
        {"nbf": int(NOW.timestamp()) + LEEWAY_SECONDS + 1},
        {"sha256": None},
        {"sha256": ""},
        {"sha256": "\ud800"},
        {"sha256": 7},
        {"sha256": hashlib.sha256(b"{}").hexdigest()},
        {"secret": "t" * 32},
    ],
)
def test_another_key_secret_time_or_hash_is_refused(changes: dict[str, Any]) -> None:
    body = json.dumps(JOINED).encode()
    assert refused(body, signed(body, **changes))


def test_a_clock_that_is_a_minute_off_is_no_fault() -> None:
    body = json.dumps(JOINED).encode()
    for seconds in (-LEEWAY_SECONDS, 300 + LEEWAY_SECONDS - 1):
        assert heard(body, signed(body), NOW + timedelta(seconds=seconds)).event == "participant_joined"


def test_a_body_other_than_the_signed_one_is_refused_by_a_single_byte() -> None:
    body = json.dumps(JOINED).encode()
    assert refused(body + b" ", signed(body))
    assert refused(b"", signed(body))


def test_no_signature_and_other_algorithms_are_refused() -> None:
    body = json.dumps(JOINED).encode()
    claims = jwt.decode(signed(body), options={"verify_signature": False})
    assert refused(body, "")
    assert refused(body, "Bearer ")
    assert refused(body, "x" * 10_000)
    assert refused(body, jwt.encode(claims, "", algorithm="none"))
    assert refused(body, jwt.encode(claims, KEY.api_secret * 2, algorithm="HS512"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"event": "participant_joined"}',
        b'{"id": 7, "event": "x"}',
        b'{"id": "EV_1", "event": "x", "createdAt": "soon"}',
        b'{"id": "EV_1", "event": "x", "createdAt": "99999999999999999999"}',
        b'{"id": "EV_1", "event": "x", "room": 5}',
    ],
)
def test_what_is_signed_and_still_no_notification_is_refused_and_breaks_nothing(body: bytes) -> None:
    assert refused(body, signed(body))


def test_what_is_empty_is_left_out_by_protobuf_and_nothing_happens_later_than_now() -> None:
    bare = b'{"id": "EV_2", "event": "room_finished"}'
    assert heard(bare, signed(bare)) == Notification(
        id="EV_2",
        event="room_finished",
        room="",
        room_sid="",
        participant_sid=None,
        identity=None,
        at=NOW,
    )
    ahead = json.dumps(JOINED | {"createdAt": str(int(NOW.timestamp()) + 50)}).encode()
    assert heard(ahead, signed(ahead)).at == NOW
