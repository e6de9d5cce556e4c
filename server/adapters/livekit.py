"""LiveKit's RoomService over HTTP (Twirp with JSON, as LiveKit documents its server API)."""

from __future__ import annotations

from typing import Any

import aiohttp

from models.ports import Clock
from models.rooms.livekit.rules import Key, admin_token
from models.rooms.livekit.service import MediaServerAway

# LiveKit answers from memory; what takes longer is not there.
ANSWER_SECONDS = 5.0


class LiveKitServer:
    """``models.rooms.livekit.service.MediaServer``."""

    def __init__(self, *, key: Key, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        # ws and wss become http and https: the same address serves both.
        self._url = f"http{key.url.removeprefix('ws').rstrip('/')}/twirp/livekit.RoomService"
        self._session: aiohttp.ClientSession | None = None

    async def participants(self, room_id: str) -> dict[str, str]:
        """Who is connected to a room: identities by connection. Raises ``MediaServerAway``."""
        answer = await self._ask("ListParticipants", room_id, {})
        people = answer.get("participants") or ()
        return {str(one["sid"]): str(one.get("identity") or "") for one in people if one.get("sid")}

    async def remove(self, room_id: str, identity: str) -> None:
        """Cut a participant off. Raises ``MediaServerAway``."""
        await self._ask("RemoveParticipant", room_id, {"identity": identity})

    async def _ask(self, verb: str, room_id: str, more: dict[str, str]) -> dict[str, Any]:
        """One call; nothing for a room or participant that LiveKit does not know (404 ``not_found``)."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        token = admin_token(self._key, room_id=room_id, now=self._clock.now())
        try:
            async with self._session.post(
                f"{self._url}/{verb}",
                json={"room": room_id, **more},
                headers={"Authorization": f"Bearer {token}"},
                allow_redirects=False,
            ) as response:
                if response.status == 404 and (await response.json()).get("code") == "not_found":
                    return {}
                response.raise_for_status()
                if response.status >= 300:
                    raise ValueError("sent on")
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError) as error:
            # Not the error itself, nor as a cause: it holds the request, with a token for the whole room.
            status = getattr(error, "status", None)
            raise MediaServerAway(f"{verb}: {type(error).__name__}, status {status}") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
