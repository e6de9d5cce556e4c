"""Expo's push service, through exponent-server-sdk.

The library is synchronous and has no timeout of its own, so it runs in a few threads of ours with one. It is given
lists of at most 100 (Expo's limit for a request): in its own chunking the tickets of the chunks before a failed one
are lost. Rules of the service: https://docs.expo.dev/push-notifications/sending-notifications/

Expo takes 600 notifications a second from a project. It answers more with 429, after which nothing is asked for as
long as it wishes; models/notify/messages keeps a pace that leaves room for rings.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import requests
import structlog
from exponent_server_sdk import PushClient, PushMessage, PushServerError, PushTicket

from models.notify.ports import Note, Outcome, Push, Sent
from models.notify.rules import SEND_SECONDS_MAX, is_expo_token
from server.adapters.retry_after import retry_after_seconds
from server.clock import SystemClock

log = structlog.get_logger(__name__)

CHUNK_MAX = 100
# Expo's own library keeps at most six connections open. Rings have some of them for themselves: one small request
# for a ring does not wait for a hundred messages.
PRESSING_THREADS = 4
OTHER_THREADS = 2
# Expo is allowed to be slow (a second try would ring twice), but a thread at work holds up the end of the process,
# and that has ten seconds for everything.
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 6.0
# However long Expo wishes to be left alone: a ring is asked for again after so long.
HOLD_SECONDS_MAX = 60.0

# Errors of a single push, as tickets and receipts name them. What is not here may pass.
_ERRORS = {
    "DeviceNotRegistered": Sent.GONE,
    "MessageTooBig": Sent.NEVER,
    "InvalidCredentials": Sent.NEVER,
    "MismatchSenderId": Sent.NEVER,
}
# These do not mend themselves: somebody has to set up the app's project anew.
_LOUD = frozenset(("InvalidCredentials", "MismatchSenderId"))

T = TypeVar("T")


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
            "interruptionLevel": "time-sensitive" if push.note is Note.RING else None,
        }
        return payload | {name: value for name, value in optional.items() if value is not None}


class ExpoSender:
    """``models.notify.ports.Sender`` and ``ReceiptSource`` for tokens of kind ``EXPO``.

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
        monotonic: Callable[[], float] = SystemClock.monotonic,
    ) -> None:
        self._access_token = access_token
        self._url = url.rstrip("/") if url else None
        self._timeout = (connect_seconds, answer_seconds)
        self._total_seconds = total_seconds
        self._monotonic = monotonic
        self._pressing = ThreadPoolExecutor(PRESSING_THREADS, thread_name_prefix="expo-ring")
        self._other = ThreadPoolExecutor(OTHER_THREADS, thread_name_prefix="expo")
        self._of_thread = threading.local()
        self._hold_until = float("-inf")
        self._closed = False

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        """Hand pushes to Expo; one outcome for each, in order, within ``total_seconds``."""
        outcomes: dict[int, Outcome] = {}

        async def hand_over(places: Sequence[int], threads: ThreadPoolExecutor) -> None:
            chunk = [pushes[place] for place in places]
            outcomes.update(zip(places, await self._in_time(chunk, threads), strict=True))

        pressing = [n for n, push in enumerate(pushes) if push.note.pressing]
        other = [n for n, push in enumerate(pushes) if not push.note.pressing]
        await asyncio.gather(
            *(hand_over(places, self._pressing) for places in _chunks(pressing)),
            *(hand_over(places, self._other) for places in _chunks(other)),
        )
        return [outcomes[place] for place in range(len(pushes))]

    async def receipts(self, receipt_ids: Sequence[str]) -> dict[str, Outcome]:
        """What Expo knows of these tickets, at most 1000; nothing when it is away."""
        ask = self._ask_receipts
        return await self._threaded(self._other, lambda until: ask(receipt_ids, until)) or {}

    async def close(self) -> None:
        """Send nothing more. A request that is on its way ends by its timeout, unheard."""
        self._closed = True
        for threads in (self._pressing, self._other):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _in_time(self, chunk: Sequence[Push], threads: ThreadPoolExecutor) -> Sequence[Outcome]:
        outcomes = await self._threaded(threads, lambda until: self._send(chunk, until))
        return outcomes if outcomes is not None else [self._later()] * len(chunk)

    async def _threaded(self, threads: ThreadPoolExecutor, work: Callable[[float], T]) -> T | None:
        """``work(until)`` in one of the threads, or None: closed, held, or not in time."""
        if self._closed or self._held():
            return None
        until = SystemClock.monotonic() + self._total_seconds
        try:
            async with asyncio.timeout(self._total_seconds):
                return await asyncio.get_running_loop().run_in_executor(threads, work, until)
        except TimeoutError:
            log.warning("push provider too slow", provider="expo")
            return None

    def _held(self) -> float:
        """How long Expo still wishes to be left alone."""
        return max(0.0, self._hold_until - self._monotonic())

    def _later(self, reason: str | None = None) -> Outcome:
        return Outcome(sent=Sent.LATER, reason=reason, retry_after_seconds=self._held() or None)

    def _send(self, chunk: Sequence[Push], until: float) -> list[Outcome]:
        """One chunk, in a thread. Tokens that are none are not sent: one would spoil the request of all."""
        good = [push for push in chunk if is_expo_token(push.token)]
        results = iter(self._request(good, until) if good else [])
        gone = Outcome(sent=Sent.GONE, reason="NotAToken")
        return [next(results) if is_expo_token(push.token) else gone for push in chunk]

    def _request(self, pushes: Sequence[Push], until: float) -> list[Outcome]:
        if self._over(until):
            return [self._later()] * len(pushes)
        try:
            tickets = self._client().publish_multiple([ExpoMessage.of(push) for push in pushes])
        except (PushServerError, requests.HTTPError) as error:
            status = self._refused(error)
            if status not in (400, 413):
                return [self._later(f"HTTP {status}")] * len(pushes)
            if len(pushes) == 1:
                return [Outcome(sent=Sent.NEVER, reason=f"HTTP {status}")]
            # One bad message, or tokens of two Expo projects, which may not share a request: find out which.
            half = len(pushes) // 2
            return self._request(pushes[:half], until) + self._request(pushes[half:], until)
        except requests.RequestException as error:
            log.warning("push provider away", provider="expo", error=type(error).__name__)
            return [self._later("away")] * len(pushes)
        except (TypeError, AttributeError, KeyError) as error:
            # JSON, but not of the documented shape: the library stumbles over it.
            log.warning("push provider talks nonsense", provider="expo", error=repr(error))
            return [self._later("nonsense")] * len(pushes)
        return [_outcome(ticket, ticket.id or None) for ticket in tickets]

    def _ask_receipts(self, receipt_ids: Sequence[str], until: float) -> dict[str, Outcome]:
        if self._over(until):
            return {}
        tickets = [PushTicket(None, PushTicket.SUCCESS_STATUS, "", None, one) for one in receipt_ids]
        try:
            # The library's check_receipts would leave the access token out.
            found = self._client().check_receipts_multiple(tickets)
        except (PushServerError, requests.HTTPError) as error:
            self._refused(error)
            return {}
        except requests.RequestException as error:
            log.warning("push provider away", provider="expo", error=type(error).__name__)
            return {}
        except (TypeError, AttributeError, KeyError) as error:
            log.warning("push provider talks nonsense", provider="expo", error=repr(error))
            return {}
        asked = set(receipt_ids)
        return {receipt.id: _outcome(receipt, None) for receipt in found if receipt.id in asked}

    def _over(self, until: float) -> bool:
        """Whether nobody waits for the outcome any more, or Expo wishes none."""
        return self._closed or self._held() > 0 or SystemClock.monotonic() >= until

    def _refused(self, error: PushServerError | requests.HTTPError) -> int:
        """Note the refusal of a whole request; its status."""
        response = error.response
        status = response.status_code if response is not None else 0
        log.warning("push provider refused", provider="expo", status=status, codes=_codes(error))
        if response is not None and status in (429, 503):
            wished = retry_after_seconds(response.headers.get("Retry-After"))
            if wished is not None:
                self._hold_until = self._monotonic() + min(wished, HOLD_SECONDS_MAX)
        return status

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


def _chunks(places: Sequence[int]) -> list[Sequence[int]]:
    return [places[start : start + CHUNK_MAX] for start in range(0, len(places), CHUNK_MAX)]


def _outcome(said: Any, receipt_id: str | None) -> Outcome:
    """The outcome in a ticket or a receipt."""
    if said.is_success():
        return Outcome(sent=Sent.OK, receipt_id=receipt_id)
    details: Mapping[str, Any] = said.details if isinstance(said.details, dict) else {}
    error = str(details.get("error"))
    sent = _ERRORS.get(error, Sent.LATER)
    if error in _LOUD:
        log.error("push is set up wrongly", provider="expo", error=error)
    elif sent is not Sent.GONE:
        log.warning("push not taken", provider="expo", error=error)
    return Outcome(sent=sent, reason=error)


def _codes(error: Exception) -> list[str]:
    """The codes that Expo gives for a request, never its messages: those quote tokens."""
    errors = getattr(error, "errors", None)
    return [str(e.get("code")) for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
