"""Expo's push service, through exponent-server-sdk.

The library is synchronous and has no timeout of its own, so it runs in a few threads of ours with one. It is given
lists of at most 100 (Expo's limit for a request): in its own chunking the tickets of the chunks before a failed one
are lost. Rules of the service: https://docs.expo.dev/push-notifications/sending-notifications/
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
import structlog
from exponent_server_sdk import PushClient, PushMessage, PushServerError, PushTicket

from models.notify.ports import Push, Sent
from models.notify.rules import SEND_SECONDS_MAX, is_expo_token
from server.clock import SystemClock

log = structlog.get_logger(__name__)

CHUNK_MAX = 100
# Expo's own library keeps at most six connections open; fewer do, since a ring is one small request.
THREADS = 4
# Expo is allowed to be slow (a second try would ring twice), but a thread at work holds up the end of the process,
# and that has ten seconds for everything.
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 6.0

# Errors of a single push, as tickets name them. What is not here may pass.
_TICKET_ERRORS = {
    "DeviceNotRegistered": Sent.GONE,
    "MessageTooBig": Sent.NEVER,
    "InvalidCredentials": Sent.NEVER,
    "MismatchSenderId": Sent.NEVER,
}


class ExpoMessage(PushMessage):  # type: ignore[misc]
    """The library's message with the fields that it lacks, for every shape of token."""

    push: Push

    @classmethod
    def of(cls, push: Push) -> ExpoMessage:
        """The message of a push."""
        message: ExpoMessage = cls(to=push.token)
        message.push = push
        return message

    def get_payload(self) -> dict[str, Any]:
        """The JSON of one message in Expo's words."""
        push = self.push
        payload: dict[str, Any] = {
            "to": push.token,
            "data": dict(push.data),
            # Said always: the platforms' own defaults are "once, now" on iOS and four weeks on Android.
            "ttl": push.ttl_seconds,
            # Normal priority does not wake a phone that dozes.
            "priority": "high" if push.title is not None else "normal",
        }
        if push.title is None:
            payload["_contentAvailable"] = True  # else iOS does not wake the app for data alone
        else:
            payload |= {"title": push.title, "body": push.body, "sound": "default"}
        optional = {
            "channelId": push.channel,
            "categoryId": push.category,
            "collapseId": push.collapse_id,
            "interruptionLevel": "time-sensitive" if push.urgent else None,
        }
        return payload | {name: value for name, value in optional.items() if value is not None}


class ExpoSender:
    """``models.notify.ports.Sender`` for tokens of kind ``EXPO``.

    ``url`` replaces Expo's own address (tests). The spans are in seconds.
    """

    def __init__(
        self,
        *,
        access_token: str | None = None,
        url: str | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        total_seconds: float = SEND_SECONDS_MAX,
    ) -> None:
        self._access_token = access_token
        self._url = url.rstrip("/") if url else None
        self._timeout = (connect_seconds, answer_seconds)
        self._total_seconds = total_seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="expo")
        self._of_thread = threading.local()
        self._closed = False

    async def send(self, pushes: Sequence[Push]) -> list[Sent]:
        """Hand pushes to Expo; one result for each, in order, within ``total_seconds``."""
        chunks = [pushes[start : start + CHUNK_MAX] for start in range(0, len(pushes), CHUNK_MAX)]
        results = await asyncio.gather(*(self._in_time(chunk) for chunk in chunks))
        return [sent for chunk in results for sent in chunk]

    async def close(self) -> None:
        """Send nothing more. A request that is on its way ends by its timeout, unheard."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_time(self, chunk: Sequence[Push]) -> list[Sent]:
        if self._closed:
            return [Sent.LATER] * len(chunk)
        until = SystemClock.monotonic() + self._total_seconds
        try:
            async with asyncio.timeout(self._total_seconds):
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._send, chunk, until
                )
        except TimeoutError:
            log.warning("push provider too slow", provider="expo", pushes=len(chunk))
            return [Sent.LATER] * len(chunk)

    def _send(self, chunk: Sequence[Push], until: float) -> list[Sent]:
        """One chunk, in a thread. Tokens that are none are not sent: one would spoil the request of all."""
        good = [push for push in chunk if is_expo_token(push.token)]
        results = iter(self._request(good, until) if good else [])
        return [next(results) if is_expo_token(push.token) else Sent.GONE for push in chunk]

    def _request(self, pushes: Sequence[Push], until: float) -> list[Sent]:
        if self._closed or SystemClock.monotonic() >= until:
            return [Sent.LATER] * len(pushes)  # nobody waits for the outcome any more
        try:
            tickets = self._client().publish_multiple([ExpoMessage.of(push) for push in pushes])
        except (PushServerError, requests.HTTPError) as error:
            status = error.response.status_code if error.response is not None else 0
            log.warning("push provider refused", provider="expo", status=status, codes=_codes(error))
            if status not in (400, 413):
                return [Sent.LATER] * len(pushes)
            if len(pushes) == 1:
                return [Sent.NEVER]
            # One bad message, or tokens of two Expo projects, which may not share a request: find out which.
            half = len(pushes) // 2
            return self._request(pushes[:half], until) + self._request(pushes[half:], until)
        except requests.RequestException as error:
            log.warning("push provider away", provider="expo", error=type(error).__name__)
            return [Sent.LATER] * len(pushes)
        except (TypeError, AttributeError, KeyError) as error:
            # JSON, but not of the documented shape: the library stumbles over it.
            log.warning("push provider talks nonsense", provider="expo", error=repr(error))
            return [Sent.LATER] * len(pushes)
        return [_sent(ticket) for ticket in tickets]

    def _client(self) -> PushClient:
        """This thread's client: sessions of ``requests`` are not made to be shared."""
        found = getattr(self._of_thread, "client", None)
        if found is None:
            session = requests.Session()
            session.headers.update({"Accept": "application/json", "Content-Type": "application/json"})
            session.auth = self._sign  # and not from a .netrc file, which would win over a header
            found = self._of_thread.client = PushClient(
                host=self._url, session=session, timeout=self._timeout
            )
        return found

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._access_token:
            request.headers["Authorization"] = f"Bearer {self._access_token}"
        return request


def _sent(ticket: PushTicket) -> Sent:
    if ticket.is_success():
        return Sent.OK
    error = ticket.details.get("error") if isinstance(ticket.details, dict) else None
    sent = _TICKET_ERRORS.get(str(error), Sent.LATER)
    if sent is not Sent.GONE:
        log.warning("push not taken", provider="expo", error=error)
    return sent


def _codes(error: Exception) -> list[str]:
    """The codes that Expo gives for a request, never its messages: those quote tokens."""
    errors = getattr(error, "errors", None)
    return [str(e.get("code")) for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
