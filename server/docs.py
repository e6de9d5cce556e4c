"""The API documents, made from the catalogue, and the pages that show them."""

from __future__ import annotations

from pathlib import Path

import orjson
from aiohttp import web

from handlers.registry import Catalogue
from server.asyncapi import asyncapi
from server.openapi import openapi


def add_documents(app: web.Application, catalogue: Catalogue, pages: Path) -> None:
    """``/openapi.json``, ``/asyncapi.json``, and ``/docs`` (also ``/api``) with Swagger UI and the event reference."""
    documents = {
        "/openapi.json": orjson.dumps(openapi(catalogue)),
        "/asyncapi.json": orjson.dumps(asyncapi(catalogue)),
    }

    def document(body: bytes):  # type: ignore[no-untyped-def]
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=body, content_type="application/json")

        return answer

    for path, body in documents.items():
        app.router.add_get(path, document(body))

    async def page(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(pages / "docs" / "index.html")

    app.router.add_get("/docs", page)
    app.router.add_get("/api", page)
    app.router.add_static("/static/docs", pages / "docs")
    app.router.add_static("/static/vendor", pages / "vendor")
