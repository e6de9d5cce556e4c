"""Devices that have been signed in before, by what they were given then.

A device token opens nothing. It says that whoever brings it was let into that account once, so that wrong guesses of
strangers need not be held against them. It is computed and stored nowhere, and good for as long as the secret is.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass

_LABEL = b"ringmeter known device v1"
_TOKEN = re.compile(r"([0-9A-Za-z-]{1,64})\.([0-9A-Za-z-]{1,64})\.[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """Whose device, and the sign-in by which it became known."""

    user_id: str
    id: str


class KnownDevices:
    """Makes and reads device tokens. ``secret`` has at least 32 bytes."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), _LABEL, "sha256")

    def token(self, user_id: str, session_id: str) -> str:
        """What a device is given that was let in: always the same text for the same sign-in."""
        said = f"{user_id}.{session_id}"
        proof = hmac.digest(self._key, said.encode(), "sha256")
        return f"{said}.{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"

    def read(self, token: str | None) -> KnownDevice | None:
        """The device that was given this; None: nobody was."""
        parts = _TOKEN.fullmatch(token) if isinstance(token, str) else None
        if parts is None or not hmac.compare_digest(parts[0], self.token(parts[1], parts[2])):
            return None
        return KnownDevice(parts[1], parts[2])
