"""The first page: what goes on, and what waits for somebody."""

from __future__ import annotations

from aiohttp import web

from server.admin.visit import Page, Visit


async def home(visit: Visit) -> web.StreamResponse:
    """The overview."""
    return await visit.render("home.html")


PAGES = [Page(method="GET", path="/", handler=home)]
