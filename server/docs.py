"""The API documents, made from the catalogue, and the pages that show them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from handlers.registry import Catalogue
from server.asyncapi import asyncapi
from server.openapi import openapi

_MAKERS: dict[str, Callable[[Catalogue], dict[str, Any]]] = {
    "/openapi.json": openapi,
    "/asyncapi.json": asyncapi,
}
# What was made in this process, by path and catalogue. To make them takes longer than all else of a start, and most
# processes are never asked for them.
_MADE: dict[tuple[str, int], bytes] = {}
_MAKING = threading.Lock()


def _made(path: str, catalogue: Catalogue) -> bytes:
    with _MAKING:
        key = (path, id(catalogue))
        if key not in _MADE:
            _MADE[key] = orjson.dumps(_MAKERS[path](catalogue))
        return _MADE[key]


def add_documents(app: web.Application, catalogue: Catalogue, pages: Path) -> None:
    """``/openapi.json``, ``/asyncapi.json``, and ``/docs`` (also ``/api``) with Swagger UI and the event reference."""

    def document(path: str):  # type: ignore[no-untyped-def]
        async def answer(_: web.Request) -> web.Response:
            # In a thread, since others are served meanwhile.
            body = await asyncio.to_thread(_made, path, catalogue)
            return web.Response(body=body, content_type="application/json")

        return answer

    for path in _MAKERS:
        app.router.add_get(path, document(path))

    async def page(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(pages / "docs" / "index.html")

    app.router.add_get("/docs", page)
    app.router.add_get("/api", page)
    app.router.add_static("/static/docs", pages / "docs")
    app.router.add_static("/static/vendor", pages / "vendor")
