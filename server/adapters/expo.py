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
from datetime import datetime
from typing import Any, TypeVar

import requests
import structlog
from exponent_server_sdk import PushClient, PushMessage, PushServerError, PushTicket

from models.notify.ports import Note, Outcome, Push, Sent
from models.notify.rings.rules import RING_BACKOFF_SECONDS_MAX
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
# However long Expo wishes to be left alone, something is asked for again after so long. What it says to messages does
# not silence rings, and a phone that is to ring does not wait for a minute.
HOLD_SECONDS_MAX = 60.0
PRESSING_HOLD_SECONDS_MAX = float(RING_BACKOFF_SECONDS_MAX)

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
    ttl_seconds: int

    @classmethod
    def of(cls, push: Push, now: datetime) -> ExpoMessage:
        """The message of a push that is sent ``now``, which may be later than it was made."""
        message: ExpoMessage = cls(to=push.token)
        message.push, message.ttl_seconds = push, push.left_seconds(now)
        return message

    def get_payload(self) -> dict[str, Any]:
        """The JSON of one message in Expo's words."""
        push = self.push
        payload: dict[str, Any] = {
            "to": push.token,
            "data": dict(push.data),
            # Said always: the platforms' own defaults are "once, now" on iOS and four weeks on Android.
            "ttl": self.ttl_seconds,
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


class _Lane:
    """The threads of one sort of pushes, and until when Expo wishes to hear nothing of that sort."""

    def __init__(self, threads: int, name: str, *, hold_seconds_max: float) -> None:
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.hold_seconds_max = hold_seconds_max
        self.hold_until = float("-inf")


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
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._access_token = access_token
        self._url = url.rstrip("/") if url else None
        self._timeout = (connect_seconds, answer_seconds)
        self._total_seconds = total_seconds
        self._monotonic = monotonic
        self._now = now or SystemClock().now
        self._pressing = _Lane(PRESSING_THREADS, "expo-ring", hold_seconds_max=PRESSING_HOLD_SECONDS_MAX)
        self._other = _Lane(OTHER_THREADS, "expo", hold_seconds_max=HOLD_SECONDS_MAX)
        self._of_thread = threading.local()
        self._closed = False

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        """Hand pushes to Expo; one outcome for each, in order, within ``total_seconds``."""
        outcomes: dict[int, Outcome] = {}

        async def hand_over(places: Sequence[int], lane: _Lane) -> None:
            chunk = [pushes[place] for place in places]
            outcomes.update(zip(places, await self._in_time(chunk, lane), strict=True))

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
        for lane in (self._pressing, self._other):
            lane.threads.shutdown(wait=False, cancel_futures=True)

    async def _in_time(self, chunk: Sequence[Push], lane: _Lane) -> Sequence[Outcome]:
        outcomes = await self._threaded(lane, lambda until: self._send(chunk, lane, until))
        return outcomes if outcomes is not None else [self._later(lane)] * len(chunk)

    async def _threaded(self, lane: _Lane, work: Callable[[float], T]) -> T | None:
        """``work(until)`` in one of the threads, or None: closed, held, or not in time."""
        if self._closed or self._held(lane):
            return None
        until = SystemClock.monotonic() + self._total_seconds
        try:
            async with asyncio.timeout(self._total_seconds):
                return await asyncio.get_running_loop().run_in_executor(lane.threads, work, until)
        except TimeoutError:
            log.warning("push provider too slow", provider="expo")
            return None

    def _held(self, lane: _Lane) -> float:
        """How long Expo still wishes to be left alone with this sort."""
        return max(0.0, lane.hold_until - self._monotonic())

    def _later(self, lane: _Lane, reason: str | None = None, wished: float | None = None) -> Outcome:
        """Refused, or not asked. What Expo wishes is for who was refused; others wait as long as the lane is held."""
        wait = wished if wished is not None else self._held(lane)
        return Outcome(sent=Sent.LATER, reason=reason, retry_after_seconds=wait or None)

    def _send(self, chunk: Sequence[Push], lane: _Lane, until: float) -> list[Outcome]:
        """One chunk, in a thread. Tokens that are none are not sent: one would spoil the request of all.

        Nor is a ring that has ended while it waited for the thread.
        """
        now = self._now()
        wrong = {
            n: Outcome(sent=Sent.LATER, reason="over")
            if is_expo_token(push.token)
            else Outcome(sent=Sent.GONE, reason="NotAToken")
            for n, push in enumerate(chunk)
            if push.left_seconds(now) <= 0 or not is_expo_token(push.token)
        }
        good = [push for n, push in enumerate(chunk) if n not in wrong]
        results = iter(self._request(good, lane, until) if good else [])
        return [wrong[n] if n in wrong else next(results) for n in range(len(chunk))]

    def _request(self, pushes: Sequence[Push], lane: _Lane, until: float) -> list[Outcome]:
        if self._over(lane, until):
            return [self._later(lane)] * len(pushes)
        now = self._now()
        try:
            tickets = self._client().publish_multiple([ExpoMessage.of(push, now) for push in pushes])
        except (PushServerError, requests.HTTPError) as error:
            status, wished = self._refused(error, lane)
            if status not in (400, 413):
                return [self._later(lane, f"HTTP {status}", wished)] * len(pushes)
            if len(pushes) == 1:
                return [Outcome(sent=Sent.NEVER, reason=f"HTTP {status}")]
            # One bad message, or tokens of two Expo projects, which may not share a request: find out which.
            half = len(pushes) // 2
            return self._request(pushes[:half], lane, until) + self._request(pushes[half:], lane, until)
        except requests.RequestException as error:
            log.warning("push provider away", provider="expo", error=type(error).__name__)
            return [self._later(lane, "away")] * len(pushes)
        except (TypeError, AttributeError, KeyError) as error:
            # JSON, but not of the documented shape: the library stumbles over it.
            log.warning("push provider talks nonsense", provider="expo", error=repr(error))
            return [self._later(lane, "nonsense")] * len(pushes)
        return [_outcome(ticket, ticket.id or None) for ticket in tickets]

    def _ask_receipts(self, receipt_ids: Sequence[str], until: float) -> dict[str, Outcome]:
        if self._over(self._other, until):
            return {}
        tickets = [PushTicket(None, PushTicket.SUCCESS_STATUS, "", None, one) for one in receipt_ids]
        try:
            # The library's check_receipts would leave the access token out.
            found = self._client().check_receipts_multiple(tickets)
        except (PushServerError, requests.HTTPError) as error:
            self._refused(error, self._other)
            return {}
        except requests.RequestException as error:
            log.warning("push provider away", provider="expo", error=type(error).__name__)
            return {}
        except (TypeError, AttributeError, KeyError) as error:
            log.warning("push provider talks nonsense", provider="expo", error=repr(error))
            return {}
        asked = set(receipt_ids)
        return {receipt.id: _outcome(receipt, None) for receipt in found if receipt.id in asked}

    def _over(self, lane: _Lane, until: float) -> bool:
        """Whether nobody waits for the outcome any more, or Expo wishes none."""
        return self._closed or self._held(lane) > 0 or SystemClock.monotonic() >= until

    def _refused(self, error: PushServerError | requests.HTTPError, lane: _Lane) -> tuple[int, float | None]:
        """Note the refusal of a whole request; its status, and for how long Expo wishes to be left alone."""
        response = error.response
        status = response.status_code if response is not None else 0
        log.warning("push provider refused", provider="expo", status=status, codes=_codes(error))
        if response is None or status not in (429, 503):
            return status, None
        wished = retry_after_seconds(response.headers.get("Retry-After"))
        if wished is not None:
            wished = min(wished, HOLD_SECONDS_MAX)
            lane.hold_until = self._monotonic() + min(wished, lane.hold_seconds_max)
        return status, wished

    def _client(self) -> PushClient:
        """This thread's client: sessions of ``requests`` are not made to be shared."""
        found = getattr(self._of_thread, "client", None)
        if found is None:
            session = requests.Session()
            session.headers.update({"Accept": "application/json", "Content-Type": "application/json"})
            session.max_redirects = 0  # nobody is followed to where nobody was configured
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
