"""A bare aiohttp WebSocket that decodes each message and encodes it for the other one: what the wire costs in Python.

``python -m tests.bench.peers.bare PORT``. With uvloop and orjson, without compression, the collector of garbage as
this server sets it: nothing is left out that is to be had for nothing. Of Engine.IO and Socket.IO it says just what
the clients of the measurement wait for, and it answers no ack.
"""

from __future__ import annotations

import gc
import sys

import orjson
import uvloop
from aiohttp import web

# Those of server.app, whose import would be most of this program's start.
GC_THRESHOLDS = (20_000, 20, 50)

rooms: dict[str, list[web.WebSocketResponse]] = {}


async def relay(request: web.Request) -> web.WebSocketResponse:
    """One connection."""
    here = web.WebSocketResponse(compress=False)
    await here.prepare(request)
    await here.send_str("0{}")
    room = rooms.setdefault(orjson.loads((await here.receive_str())[2:])["token"], [])
    room.append(here)
    await here.send_str('42["SYNC",{}]')
    async for message in here:
        event = orjson.loads(message.data[2:])
        text = "42" + orjson.dumps(event).decode()
        for there in room:
            if there is not here:
                await there.send_str(text)
    room.remove(here)
    return here


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/socket.io/", relay)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=loop)
