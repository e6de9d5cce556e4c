"""python-socketio on aiohttp as it comes, as a bare relay by room: ``python -m tests.bench.peers.stock PORT``."""

from __future__ import annotations

import sys
from typing import Any

import socketio
from aiohttp import web

sio = socketio.AsyncServer(async_mode="aiohttp", ping_interval=5, ping_timeout=10)


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: dict[str, Any]) -> None:
    """A connection's token is its room."""
    await sio.enter_room(sid, auth["token"])
    await sio.emit("SYNC", {}, to=sid)


@sio.on("ICE_CANDIDATE")
async def candidate(sid: str, payload: dict[str, Any]) -> dict[str, Any]:
    """To the others in the room; what is returned is the ack, where one was asked for."""
    await sio.emit("ICE_CANDIDATE", payload, room=payload["callId"], skip_sid=sid)
    return {"ok": True, "data": {}}


if __name__ == "__main__":
    app = web.Application()
    sio.attach(app)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
