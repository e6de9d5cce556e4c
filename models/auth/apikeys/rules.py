"""What an API key is: ``rk_``, its name, and 256 bits that nobody has but who was given it.

What is kept is a plain digest: so many bits cannot be tried out. The name is not secret; by it a leaked key is found.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime

PREFIX = "rk_"
ID_BYTES, SECRET_BYTES = 10, 32
# What a key may be given. Nothing that moves money out, nothing that changes the account.
SCOPES = (
    "profile:read",
    "users:read",
    "calls:read",
    "chat:read",
    "chat:write",
    "wallet:read",
    "payments:read",
)
NAME_LENGTH_MAX = 64
KEYS_MAX = 20
PER_MINUTE_DEFAULT, PER_MINUTE_MAX = 300, 6_000
DAYS_DEFAULT, DAYS_MAX = 365, 730

_KEY = re.compile(r"rk_([a-z2-7]{16})_([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as its owner sees it. ``uses`` counts the requests that it was let in with."""

    id: str
    user_id: str
    name: str
    scopes: tuple[str, ...]
    per_minute: int
    uses: int
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


def key_id(chance: bytes) -> str:
    """The name of a key."""
    return base64.b32encode(chance).decode().lower()


def key_text(id: str, secret: bytes) -> str:
    """A key as it is shown, once."""
    return f"{PREFIX}{id}_{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"


def parts_of(text: str) -> tuple[str, str] | None:
    """A key's name and the digest of its secret; None for what is no key."""
    found = _KEY.fullmatch(text)
    return (found[1], digest_of(found[1], found[2])) if found else None


def digest_of(id: str, secret: str) -> str:
    """What is kept of a key."""
    return hmac.digest(b"ringmeter api key v1", f"{id}.{secret}".encode(), hashlib.sha256).hex()
