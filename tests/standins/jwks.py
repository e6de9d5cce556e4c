"""Google's (or Facebook's) public keys on loopback, and tokens signed with the private ones.

``GET /keys`` answers a JWK Set with ``Cache-Control``. ``mode``: ``ok``, ``down`` (503), ``nonsense`` (no JSON),
``huge``, ``elsewhere`` (a redirect) or ``silent`` (no answer).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa


class JwksStandIn:
    """``keys`` are those that are published, by id; ``asked`` counts."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.asked = 0
        self.mode = "ok"
        self.max_age: int | None = 3600
        self.more: list[dict[str, Any]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._end = asyncio.Event()

    def add(self, key_id: str, *, bits: int = 2048) -> rsa.RSAPrivateKey:
        """Another key."""
        self.keys[key_id] = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        return self.keys[key_id]

    def token(self, claims: dict[str, Any], key_id: str = "k1", **headers: Any) -> str:
        """An ID token."""
        return jwt.encode(claims, self.keys[key_id], algorithm="RS256", headers={"kid": key_id, **headers})

    async def start(self) -> None:
        """Listen on a free port; ``url`` is then for ``GOOGLE_KEYS_URL``."""
        app = web.Application()
        app.router.add_get("/keys", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/keys"

    async def stop(self) -> None:
        self._end.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.mode == "down":
            return web.Response(status=503)
        if self.mode == "elsewhere":
            raise web.HTTPFound("/keys")
        if self.mode == "nonsense":
            return web.Response(text="<html>")
        if self.mode == "huge":
            return web.Response(body=b" " * 300_000)
        if self.mode == "silent":
            await self._end.wait()
        rows = [_row(key_id, key) for key_id, key in self.keys.items()]
        headers = (
            {} if self.max_age is None else {"Cache-Control": f"public, max-age={self.max_age}, no-transform"}
        )
        return web.json_response({"keys": [*rows, *self.more]}, headers=headers)


def _row(key_id: str, key: rsa.RSAPrivateKey) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return {**row, "kid": key_id, "use": "sig", "alg": "RS256"}
