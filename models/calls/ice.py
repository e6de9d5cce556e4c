"""ICE servers with time-limited credentials of the user's own.

The scheme is draft-uberti-behave-turn-rest-00, which coturn calls ``use-auth-secret``: the username is the expiry as
a Unix time and the user, the password its HMAC-SHA1 under the secret that coturn shares. coturn checks the expiry
when an allocation is made, so a call outlives its credentials.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from models.ports import Clock


class IceServers:
    """Makes the ``iceServers`` of ``RTCConfiguration``."""

    def __init__(
        self,
        *,
        stun_urls: Sequence[str],
        turn_urls: Sequence[str],
        turn_secret: str,
        ttl_seconds: int,
        clock: Clock,
        only_while: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._stun_urls = list(stun_urls)
        self._turn_urls = list(turn_urls)
        self._secret = turn_secret.encode()
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._only_while = only_while

    async def servers(self, user_id: str) -> dict[str, Any]:
        """``ice_servers``, their ``ttl_seconds``, and the pool size.

        TURN only where it is configured, and, with ``only_while``, while that says so of the user.
        """
        servers: list[dict[str, Any]] = []
        if self._stun_urls:
            servers.append({"urls": self._stun_urls})
        if self._turn_urls and (self._only_while is None or await self._only_while(user_id)):
            username = f"{int(self._clock.now().timestamp()) + self._ttl_seconds}:{user_id}"
            digest = hmac.new(self._secret, username.encode(), hashlib.sha1).digest()
            credential = base64.b64encode(digest).decode()
            servers.append({"urls": self._turn_urls, "username": username, "credential": credential})
        return {"ice_servers": servers, "ttl_seconds": self._ttl_seconds, "ice_candidate_pool_size": 0}
