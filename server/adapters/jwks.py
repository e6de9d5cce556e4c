"""A provider's public keys, as it publishes them (JWK Set, RFC 7517): ``models.auth.oauth.service.Keys``.

They are kept as long as the answer says, within bounds. A key id that is not among them asks once more, since keys are
rotated; but not more often than once a minute, or anybody's made-up ids would make us ask without end. When the
provider is away, those that we have are good for a day more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from models.errors import Refusal
from models.ports import Clock

log = structlog.get_logger(__name__)

FRESH_LEAST, FRESH_MOST = timedelta(minutes=5), timedelta(hours=24)
GOOD_WHILE_AWAY = timedelta(hours=24)
ASKED_EVERY = timedelta(minutes=1)
ANSWER_SECONDS = 4
ANSWER_BYTES_MAX = 256 * 1024
KEYS_MAX = 100
BITS_MIN = 2048


class JwksKeys:
    """``JwksKeys(urls, clock)``: the keys at all of the addresses together."""

    def __init__(self, urls: Sequence[str], clock: Clock, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._urls = urls
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=answer_seconds)
        self._keys: dict[str, dict[str, RSAPublicKey]] = {}  # by address
        self._fresh_until: datetime | None = None
        self._asked_at: datetime | None = None
        self._turn = asyncio.Lock()

    async def key(self, key_id: str) -> RSAPublicKey | None:
        """The key of that id; None: there is no such one. Refuses with ``PROVIDER_AWAY``."""
        if not self._settled(key_id):
            async with self._turn:  # many at once: the first asks for all of them
                if not self._settled(key_id) and self._may_ask():
                    await self._ask()
        if self._fresh_until is None or self._clock.now() >= self._fresh_until + GOOD_WHILE_AWAY:
            raise Refusal("PROVIDER_AWAY")
        return self._found(key_id)

    def _settled(self, key_id: str) -> bool:
        fresh = self._fresh_until is not None and self._clock.now() < self._fresh_until
        return fresh and self._found(key_id) is not None

    def _found(self, key_id: str) -> RSAPublicKey | None:
        return next((keys[key_id] for keys in self._keys.values() if key_id in keys), None)

    def _may_ask(self) -> bool:
        return self._asked_at is None or self._clock.now() - self._asked_at >= ASKED_EVERY

    async def _ask(self) -> None:
        self._asked_at = now = self._clock.now()
        fresh: list[timedelta] = []
        async with aiohttp.ClientSession(timeout=self._timeout) as http:
            for url in self._urls:
                try:
                    self._keys[url], holds = await self._keys_at(http, url)
                except (aiohttp.ClientError, TimeoutError, ValueError) as fault:
                    log.warning("public keys cannot be fetched", url=url, error=type(fault).__name__)
                else:
                    fresh.append(holds)
        if fresh:
            self._fresh_until = now + min(fresh)

    async def _keys_at(
        self, http: aiohttp.ClientSession, url: str
    ) -> tuple[dict[str, RSAPublicKey], timedelta]:
        async with http.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            raw = await answer.content.read(ANSWER_BYTES_MAX + 1)
            if len(raw) > ANSWER_BYTES_MAX or not answer.content.at_eof():
                raise ValueError("too large")
            keys = keys_of(orjson.loads(raw))
            if not keys:
                raise ValueError("no keys")
            return keys, fresh_for(answer.headers.get("Cache-Control", ""))


def keys_of(said: Any) -> dict[str, RSAPublicKey]:
    """The RSA keys for signatures in a JWK Set, by id. Raises ``ValueError`` for what is none."""
    rows = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(rows, list):
        raise ValueError("not a JWK Set")
    found: dict[str, RSAPublicKey] = {}
    for row in rows[:KEYS_MAX]:
        if not isinstance(row, dict) or row.get("kty") != "RSA" or row.get("use", "sig") != "sig":
            continue
        if row.get("alg", "RS256") != "RS256" or not isinstance(row.get("kid"), str):
            continue
        try:
            key = PyJWK.from_dict(row, algorithm="RS256").key
        except (PyJWTError, ValueError, TypeError):
            continue
        if isinstance(key, RSAPublicKey) and key.key_size >= BITS_MIN:
            found[row["kid"]] = key
    return found


def fresh_for(cache_control: str) -> timedelta:
    """How long the answer says that it holds (RFC 9111 §5.2.2.1), within our bounds."""
    said = re.search(r"max-age\s*=\s*(\d{1,9})", cache_control, re.IGNORECASE)
    return min(FRESH_MOST, max(FRESH_LEAST, timedelta(seconds=int(said[1]) if said else 0)))
