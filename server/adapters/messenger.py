"""Messages to people: ``models.auth.codes.ports.Messenger``."""

from __future__ import annotations

import structlog

from models.auth.codes.ports import Brought
from models.auth.codes.rules import Message, Way

log = structlog.get_logger(__name__)


class LogMessenger:
    """In development, where nobody has a mail relay: what would be sent stands in the log, the code too."""

    def reaches(self, way: Way) -> bool:
        """Everybody."""
        return True

    async def bring(self, message: Message) -> Brought:
        """Log it."""
        log.info("message not sent, development", way=message.way.value, to=message.to, says=message.text)
        return Brought.YES


class NoMessenger:
    """In production without a mail relay and without Twilio."""

    def reaches(self, way: Way) -> bool:
        """Nobody."""
        return False

    async def bring(self, message: Message) -> Brought:
        """Never."""
        return Brought.NEVER
