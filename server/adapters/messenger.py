"""Messages to people: ``models.auth.codes.ports.Messenger``, over the carriers that notices have."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from models.auth.codes.ports import Brought
from models.auth.codes.rules import Message, Way
from models.notices.notice import Carrier, Letter, Outcome, Sent

log = structlog.get_logger(__name__)

_BROUGHT = {Sent.OK: Brought.YES, Sent.LATER: Brought.LATER, Sent.NEVER: Brought.NEVER}


class LogCarrier:
    """Carries letters into the log, where no carrier of that way is configured: ``Carrier``, for development only."""

    def __init__(self, way: str) -> None:
        self._way = way

    async def carry(self, letter: Letter) -> Outcome:
        """Write it there."""
        log.info("notice not sent but logged", way=self._way, to=letter.to, says=letter.text)
        return Outcome(sent=Sent.OK)

    async def carried(self, letter: Letter) -> bool | None:
        """Once too often does no harm there."""
        return False

    async def close(self) -> None:
        """There is nothing to close."""


class CarrierMessenger:
    """``carriers`` by way (``email``, ``sms``).

    ``development``: what has no carrier stands in the log, the code too, so that everything can be tried.
    """

    def __init__(self, carriers: Mapping[str, Carrier], *, development: bool) -> None:
        self._carriers = carriers
        self._development = development

    def reaches(self, way: Way) -> bool:
        """Whether there is a carrier, or a log that will do."""
        return self._development or way.value in self._carriers

    async def bring(self, message: Message) -> Brought:
        """Hand it over. A message that may have been taken goes again, with another code: only the last is good."""
        carrier = self._carriers.get(message.way.value)
        if carrier is None:
            log.info("code not sent but logged", way=message.way.value, to=message.to, says=message.text)
            return Brought.YES
        letter = Letter(
            to=message.to, subject=message.subject, text=message.text, mark=message.mark, at=message.at
        )
        return _BROUGHT[(await carrier.carry(letter)).sent]
