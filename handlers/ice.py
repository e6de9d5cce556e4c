"""Where phones find STUN and TURN."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from handlers.context import Context
from handlers.registry import route
from handlers.shapes import Shape


class IceServer(Shape):
    """A STUN or TURN server as ``RTCPeerConnection`` takes it."""

    urls = fields.List(fields.String(), required=True)
    username = fields.String()
    credential = fields.String()


class IceServers(Shape):
    """What goes into ``RTCConfiguration``, and how long its credentials are good for."""

    ice_servers = fields.List(fields.Nested(IceServer), required=True)
    ttl_seconds = fields.Integer(required=True)
    ice_candidate_pool_size = fields.Integer(required=True)


@route("GET", "/api/ice-servers", gives=IceServers)
async def ice_servers(ctx: Context, ask: dict[str, Any]) -> Any:
    """STUN and TURN servers with time-limited credentials of your own (coturn's ``use-auth-secret``).

    Where the server is set to ``TURN_IN_CALLS_ONLY``, TURN comes only while a call of yours rings or runs, or while you
    are in a room; ask again then.
    """
    return await ctx.services.ice.servers(ctx.user_id)
