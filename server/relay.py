"""Candidates from phone to phone within one callback of the loop: no task, no wait, no letter.

This is the shortest of three ways, and refuses nothing: whatever is not plainly in order (another shape, an unknown
call, a side that is not ready, an allowance used up, a request in the call's lane) takes the next one,
``Funnel.relay``, which answers it; what needs the database takes ``Funnel.run``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from models.calls.sdp import check_candidate
from models.calls.service import Calls
from models.calls.switchboard import Route
from models.errors import Refusal
from server.connection import Connection
from server.lanes import Lanes
from server.metrics import RelayCount
from server.packets import FRAME_MAX

EVENT = "ICE_CANDIDATE"
_OK = b'[{"ok":true,"data":{}}]'
# ``["ICE_CANDIDATE",{"callId":"…","candidate":…}]``: the order in which JavaScript writes what it was given.
_BEGIN = b'["ICE_CANDIDATE",{"callId":"'
_MIDDLE = b'","candidate":'
# An ack id is a number: more digits than this are nobody's.
_ACK_DIGITS = 16
_CALL_ID_MAX = 64

# The connection of one device of a user, if it takes letters at once.
Reach = Callable[[str, str], Connection | None]


class Relay:
    """One per process."""

    def __init__(self, *, calls: Calls, lanes: Lanes, reach: Reach, count: RelayCount) -> None:
        self._calls = calls
        self._busy = lanes.waiting
        self._reach = reach
        self._relayed = count.relayed
        # The other end of a route at another process, as a connection that is there (``server.bus.far``).
        self.far: Callable[[Route], Any] = lambda route: None

    def forward(self, sender: Connection, data: bytes) -> bool:
        """Forward the candidate in a frame (an Engine.IO message with an event) and ack it, if that can be done."""
        at = 2
        if data[2:3] != b"[":
            at = data.find(b"[", 2, 2 + _ACK_DIGITS)
            if at < 0 or not data[2:at].isdigit():
                return False
        if not (sender.head and data.startswith(sender.head, at)) and not (
            data.startswith(_BEGIN, at) and self._remember(sender, data, at)
        ):
            return False
        route = sender.route
        if route is None or not route.open:
            sender.head = b""
            return False
        target: Connection | None = route.target
        if target is None or not target.open or target.pending is not None:
            return False
        if sender.starting or route.call_id in self._busy or len(data) > FRAME_MAX:
            return False
        try:
            candidate = check_candidate(orjson.loads(data[at + len(sender.head) : -2]))
        except (orjson.JSONDecodeError, Refusal):
            return False
        if data[-2:] != b"}]" or not route.passes(candidate):
            return False
        if not sender.allowance.take(time.monotonic()):
            return False
        target.wire.text(sender.lead + orjson.dumps(candidate) + b"}]")  # type: ignore[union-attr]
        if at > 2:
            sender.wire.text(b"43" + data[2:at] + _OK)  # type: ignore[union-attr]
        self._relayed[EVENT] = self._relayed.get(EVENT, 0) + 1
        return True

    def _remember(self, sender: Connection, data: bytes, at: int) -> bool:
        """Find out the way of the call that a frame names; False where there is none."""
        begin = at + len(_BEGIN)
        end = data.find(_MIDDLE, begin, begin + _CALL_ID_MAX + len(_MIDDLE))
        call_id = data[begin:end].decode("ascii", "replace") if end > begin else ""
        if not call_id.replace("-", "").isalnum():
            return False
        user_id, device_id = sender.ctx.user_id, sender.ctx.device_id
        route: Route | None = self._calls.board.route(call_id, user_id, device_id)
        if route is None:
            return False
        route.target = self._reach(route.to_user, route.to_device) or self.far(route)
        if route.target is None or sender.wire is None:
            return False
        sender.route, sender.head = route, data[at : end + len(_MIDDLE)]
        sender.lead = b"42" + data[at:end] + b'","from":"' + user_id.encode() + _MIDDLE
        return True
