"""SMS over Twilio's Messages API (twilio.com/docs/messaging/api): ``models.notices.notice.Carrier``.

The API has no idempotency key. So a message of which nobody knows whether it was taken is looked for among those to
that number, by the reference at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import structlog
from aiohttp import hdrs

from models.notices.notice import CARRY_SECONDS_MAX, Letter, Outcome, Sent
from server.adapters.retry_after import retry_after_seconds

log = structlog.get_logger(__name__)

URL = "https://api.twilio.com"
CONNECT_SECONDS = 5
# Messages to one number that are looked through; more than somebody gets in a day.
LOOKED_AT = 50
# Twilio's codes (twilio.com/docs/api/errors) that say that this number will never take it: no number, not reachable
# from ours, no mobile, a region that is not served, one that has unsubscribed by STOP, a blocked one.
_NEVER = frozenset((21211, 21214, 21217, 21265, 21408, 21610, 21612, 21614, 21635, 63033))


class TwilioCarrier:
    """One per process. ``sender`` is ``TWILIO_FROM``; ``url`` replaces Twilio's address (tests)."""

    def __init__(
        self,
        account: str,
        token: str,
        sender: str,
        *,
        url: str | None = None,
        total_seconds: float = CARRY_SECONDS_MAX,
    ) -> None:
        self._address = f"{url or URL}/2010-04-01/Accounts/{quote(account, safe='')}/Messages.json"
        self._headers = {hdrs.AUTHORIZATION: aiohttp.encode_basic_auth(account, token)}
        self._sender = sender
        self._timeout = aiohttp.ClientTimeout(total=total_seconds, sock_connect=CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    async def carry(self, letter: Letter) -> Outcome:
        """Hand a message over. It is never sent twice from here."""
        form = {"To": letter.to, "From": self._sender, "Body": letter.text}
        try:
            async with self._http().post(self._address, data=form, allow_redirects=False) as answer:
                return _outcome(answer.status, answer.headers, await _json(answer))
        except aiohttp.ClientConnectorError as fault:
            return _away(type(fault).__name__, unsure=False)  # it has not left
        except (aiohttp.ClientError, TimeoutError) as fault:
            return _away(type(fault).__name__, unsure=True)

    async def carried(self, letter: Letter) -> bool | None:
        """Whether such a message is among the newest to that number."""
        query = {"To": letter.to, "PageSize": str(LOOKED_AT)}
        try:
            async with self._http().get(self._address, params=query, allow_redirects=False) as answer:
                found = (await _json(answer)).get("messages") if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None
        if not isinstance(found, list):
            return None
        # Trial accounts have a sentence of Twilio's in front of the text.
        texts = [one.get("body") for one in found if isinstance(one, dict)]
        return any(isinstance(text, str) and text.endswith(letter.text) for text in texts)

    async def try_access(self) -> str | None:
        """Whether Twilio lets this account in: None when it does, else why not. Sends nothing."""
        try:
            one = {"PageSize": "1"}
            async with self._http().get(self._address, params=one, allow_redirects=False) as answer:
                return None if answer.status == 200 else f"it answers {answer.status}"
        except (aiohttp.ClientError, TimeoutError) as fault:
            return type(fault).__name__

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:  # made where the loop runs
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)
        return self._session


def _outcome(status: int, headers: Mapping[str, str], said: Mapping[str, Any]) -> Outcome:
    if status == 201:
        return Outcome(sent=Sent.OK)
    code = said.get("code")
    reason = str(code) if isinstance(code, int) else f"HTTP {status}"
    if status >= 500:
        # It may have been taken all the same.
        log.warning("sms provider refused", status=status, error=reason)
        return Outcome(sent=Sent.LATER, reason=reason, unsure=True)
    if status == 429:
        wait = retry_after_seconds(headers.get("Retry-After"))
        return Outcome(sent=Sent.LATER, reason=reason, retry_after_seconds=wait)
    if code in _NEVER:
        log.info("sms not deliverable", error=reason)
        return Outcome(sent=Sent.NEVER, reason=reason)
    # The account, the token, the sender: ours to put right, and the messages wait for it.
    log.error("sms is set up wrongly", status=status, error=reason)
    return Outcome(sent=Sent.LATER, reason=reason)


def _away(why: str, *, unsure: bool) -> Outcome:
    log.warning("sms provider away", error=why)
    return Outcome(sent=Sent.LATER, reason="away", unsure=unsure)


async def _json(answer: aiohttp.ClientResponse) -> Mapping[str, Any]:
    try:
        found = await answer.json(content_type=None)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
