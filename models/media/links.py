"""Addresses that show a file without a sign-in, for a little while: for players and pages that send no headers.

An address speaks for the person who asked for it, and may only what that person still may when it is used.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

# A film that is being watched asks again and again; whoever begins later asks for a new address.
LINK_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What stands in an address: whose it is, for which file or its thumbnail, until when, and the proof."""

    media_id: str
    viewer_id: str
    thumbnail: bool
    until: int
    signature: str


class Links:
    """``Links(secret)``: makes and checks them. The secret signs tokens, too, so the key here is its own."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"ringmeter media link v1", "sha256")

    def make(self, media_id: str, *, viewer_id: str, thumbnail: bool, now: datetime) -> Link:
        """A link that is good for ``LINK_SECONDS``."""
        until = int((now + timedelta(seconds=LINK_SECONDS)).timestamp())
        signature = self._sign(media_id, viewer_id=viewer_id, thumbnail=thumbnail, until=until)
        return Link(
            media_id=media_id, viewer_id=viewer_id, thumbnail=thumbnail, until=until, signature=signature
        )

    def good(self, link: Link, now: datetime) -> bool:
        """Whether we made it and its time is not over."""
        made = self._sign(link.media_id, viewer_id=link.viewer_id, thumbnail=link.thumbnail, until=link.until)
        return hmac.compare_digest(made.encode(), link.signature.encode()) and now.timestamp() < link.until

    def _sign(self, media_id: str, *, viewer_id: str, thumbnail: bool, until: int) -> str:
        # An id has no line break, so no two links are the same text.
        text = "\n".join((media_id, viewer_id, "thumbnail" if thumbnail else "original", str(until)))
        return hmac.new(self._key, text.encode(), sha256).hexdigest()
