"""LiveKit on loopback: its RoomService as documented (Twirp with JSON), and the notifications that it signs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jwt
from aiohttp import web

API_KEY, API_SECRET = "APIx2Yz", "livekit's secret of the tests, long enough"
# A notification's token is good for five minutes.
NOTIFICATION_SECONDS = 300


@dataclass
class StandIn:
    """Rooms with their participants: connection id → identity.

    ``away`` answers 503 to everything, ``sick`` is the rooms of which it answers 500; ``asked`` is what was asked for.
    """

    url: str = ""
    rooms: dict[str, dict[str, str]] = field(default_factory=dict)
    removed: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False
    sick: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    _events: int = 0

    def event(
        self, name: str, room: str, at: datetime, *, sid: str = "", identity: str = "", room_sid: str = "RM_1"
    ) -> bytes:
        """A notification's body, each with an id of its own."""
        self._events += 1
        told: dict[str, Any] = {
            "event": name,
            "room": {"sid": room_sid, "name": room},
            "id": f"EV_{self._events}",
            "createdAt": str(int(at.timestamp())),
        }
        if sid:
            told["participant"] = {"sid": sid, "identity": identity, "state": "ACTIVE"}
        return json.dumps(told).encode()

    async def handle(self, request: web.Request) -> web.Response:
        """One call of the RoomService."""
        if self.away:
            return web.json_response({"code": "unavailable", "msg": "away"}, status=503)
        asked = await request.json()
        self.asked.append(asked["room"])
        if asked["room"] in self.sick:
            return web.json_response({"code": "internal", "msg": "sick"}, status=500)
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, API_SECRET, algorithms=["HS256"], issuer=API_KEY, options=_OF_OUR_TIME)
        assert claims["video"] == {"room": asked["room"], "roomAdmin": True}
        people = self.rooms.get(asked["room"], {})
        if request.match_info["verb"] == "ListParticipants":
            return web.json_response(
                {"participants": [{"sid": sid, "identity": name} for sid, name in people.items()]}
            )
        assert request.match_info["verb"] == "RemoveParticipant"
        gone = [sid for sid, name in people.items() if name == asked["identity"]]
        if not gone:
            return web.json_response({"code": "not_found", "msg": "participant does not exist"}, status=404)
        for sid in gone:
            del people[sid]
        self.removed.append((asked["room"], asked["identity"]))
        return web.json_response({})


# The tests' time is virtual.
_OF_OUR_TIME: Any = {"require": ["exp", "nbf"], "verify_exp": False, "verify_nbf": False}


def signature(body: bytes, at: datetime, secret: str = API_SECRET) -> str:
    """The ``Authorization`` header of a notification."""
    now = int(at.timestamp())
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    claims = {"iss": API_KEY, "nbf": now, "exp": now + NOTIFICATION_SECONDS, "sha256": digest}
    return jwt.encode(claims, secret, algorithm="HS256")


@asynccontextmanager
async def livekit() -> AsyncIterator[StandIn]:
    """A stand-in that listens; ``url`` is what clients connect to."""
    made = StandIn()
    app = web.Application()
    app.router.add_post("/twirp/livekit.RoomService/{verb}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()
