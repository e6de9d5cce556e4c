"""Style and scripts of the pages, under names that hold their digest: kept by browsers for a year, never stale."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from aiohttp import hdrs, web

BASE = "/static/admin"
FOREVER = "public, max-age=31536000, immutable"
DIGEST_LENGTH = 16


class Static:
    """``Static({"admin.css": path, …})`` reads the files once."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._bodies: dict[str, tuple[bytes, str]] = {}
        self._urls: dict[str, str] = {}
        for name, path in files.items():
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:DIGEST_LENGTH]
            self._bodies[f"{digest}/{name}"] = (
                body,
                mimetypes.guess_type(name)[0] or "application/octet-stream",
            )
            self._urls[name] = f"{BASE}/{digest}/{name}"

    def url(self, name: str) -> str:
        """Where the file is."""
        return self._urls[name]

    async def serve(self, request: web.Request) -> web.Response:
        """The file of that name and digest, or 404: another digest is another file."""
        found = self._bodies.get(f"{request.match_info['digest']}/{request.match_info['name']}")
        if found is None:
            raise web.HTTPNotFound
        body, kind = found
        return web.Response(body=body, content_type=kind, headers={hdrs.CACHE_CONTROL: FOREVER})


def static_of(web_folder: Path) -> Static:
    """The files of the pages, the style that others share with them, and the vendored script."""
    own = {path.name: path for path in sorted((web_folder / "admin" / "static").iterdir())}
    shared = {
        "look.css": web_folder / "look" / "look.css",
        "htmx.min.js": web_folder / "vendor" / "htmx.min.js",
    }
    return Static(own | shared)
