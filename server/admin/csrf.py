"""What shows that a form was sent from one of our own pages.

Three things, each enough by itself: the cookie is ``SameSite=Strict``; browsers say from where a form comes; and the
form carries a mark that only a page made for this very cookie has.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

FIELD, HEADER = "csrf", "X-CSRF-Token"


class Marks:
    """``Marks(secret)``: marks of cookies. ``secret`` signs nothing else."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, cookie: str, about: str = "form") -> str:
        """The mark for what a page sends under this cookie; ``about`` keeps marks for other ends apart."""
        return hmac.digest(self._secret, f"{about}\n{cookie}".encode(), "sha256").hex()

    def good(self, mark: str, cookie: str, about: str = "form") -> bool:
        """Whether it is the cookie's mark."""
        return hmac.compare_digest(mark.encode(errors="replace"), self.of(cookie, about).encode())


def own_page(headers: Mapping[str, str], host: str, public_url: str | None) -> bool:
    """Whether the browser says that the form is from a page of this server, or says nothing.

    A page under our ``Referrer-Policy: same-origin`` names its origin in ``Origin``; ``null`` is somebody's frame, file
    or redirect. Behind a proxy the server may be addressed by another name, which is then that of ``public_url``.
    """
    if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    origin = headers.get("Origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return False
    own = {host.lower()}
    if public_url:
        own.add(urlsplit(public_url).netloc.lower())
    return parts.netloc.lower() in own
