"""Apple's APNs for VoIP pushes, for devices that registered a token of kind ``APNS_VOIP``: rings, and nothing else.

An app that gets a VoIP push must show a call at once, or iOS kills it and in the end sends it none any more; so a
cancel or a message by this channel would ring. One HTTP/2 connection is kept, as Apple asks. Rules:
https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import structlog

from models.notify.ports import Note, Outcome, Push, Sent
from models.notify.rules import SEND_SECONDS_MAX
from models.ports import Clock
from server.adapters.credentials import ApnsKey
from server.adapters.native import incoming_call
from server.adapters.retry_after import retry_after_seconds

log = structlog.get_logger(__name__)

URL = "https://api.push.apple.com"
SANDBOX_URL = "https://api.sandbox.push.apple.com"
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 6.0
# A provider token lives for an hour; Apple refuses new ones that come more often than every twenty minutes.
RENEW_AFTER = timedelta(minutes=45)
RENEW_NOT_BEFORE = timedelta(minutes=20)
# One connection carries everything; the others are there while an old one is being closed.
CONNECTIONS_MAX = 3

# A token goes into an address, so it is looked at first. Apple says only that they may grow longer than 32 bytes.
_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){8,200}")
_GONE = frozenset(("Unregistered", "ExpiredToken"))
# These do not mend themselves. The last two are said to a token of another app or of the other one of Apple's two
# environments: with a wrong APNS_TOPIC or APNS_SANDBOX to every token that there is, so none is forgotten for it.
_LOUD = frozenset(
    (
        "InvalidProviderToken",
        "BadCertificateEnvironment",
        "BadTopic",
        "TopicDisallowed",
        "MissingTopic",
        "DeviceTokenNotForTopic",
        "BadDeviceToken",
    )
)


class ApnsSender:
    """``models.notify.ports.Sender`` for tokens of kind ``APNS_VOIP`` of the app ``topic`` (its bundle id).

    ``url`` and ``trust`` replace Apple's address and the machine's list of authorities (tests).
    """

    def __init__(
        self,
        key: ApnsKey,
        *,
        topic: str,
        clock: Clock,
        sandbox: bool = False,
        url: str | None = None,
        trust: ssl.SSLContext | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        total_seconds: float = SEND_SECONDS_MAX,
    ) -> None:
        self._key = key
        self._topic = f"{topic}.voip"
        self._clock = clock
        self._total_seconds = total_seconds
        self._url = (url or (SANDBOX_URL if sandbox else URL)).rstrip("/")
        self._client = httpx.AsyncClient(
            http1=False,
            http2=True,
            verify=trust if trust is not None else True,
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=None),
            trust_env=False,
        )
        self._provider_token: tuple[str, datetime] | None = None

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        """Hand pushes to Apple; one outcome for each, in order, within ``total_seconds``."""
        return list(await asyncio.gather(*(self._in_time(push) for push in pushes)))

    async def close(self) -> None:
        """Send nothing more."""
        await self._client.aclose()

    async def _in_time(self, push: Push) -> Outcome:
        if push.note is not Note.RING:
            # Whoever asks for this would let a phone ring for nothing.
            log.error("not a ring, not sent", provider="apns", note=push.note.value)
            return Outcome(sent=Sent.NEVER, reason="NotARing")
        if not _TOKEN.fullmatch(push.token):
            return Outcome(sent=Sent.GONE, reason="BadDeviceToken")
        try:
            async with asyncio.timeout(self._total_seconds):
                return await self._send(push)
        except TimeoutError:
            return _away("too slow")
        except httpx.HTTPError as error:
            return _away(type(error).__name__)
        except RuntimeError:  # the client is closed
            return _away("closed")

    async def _send(self, push: Push) -> Outcome:
        if not push.left_seconds(self._clock.now()):
            return Outcome(sent=Sent.LATER, reason="over")  # it would ring for a call that is none any more
        token = self._provider()
        answer = await self._ask(push, token)
        if answer.status_code == 403 and _said(answer).get("reason") == "ExpiredProviderToken":
            fresh = self._provider(expired=token)
            if fresh != token:
                answer = await self._ask(push, fresh)
        return _outcome(answer)

    async def _ask(self, push: Push, provider_token: str) -> httpx.Response:
        assert push.expires_at is not None, "a ring ends"
        content = json.dumps({"aps": {}, "incomingCall": incoming_call(push)}, ensure_ascii=False).encode()
        headers = {
            "authorization": f"bearer {provider_token}",
            "apns-topic": self._topic,
            "apns-push-type": "voip",
            "apns-priority": "10",
            # Apple holds it no longer than it rings.
            "apns-expiration": str(int(push.expires_at.timestamp())),
            # The same for the same ring on the same device, and it names neither.
            "apns-id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{push.data['callId']} {push.token}")),
        }
        address = f"{self._url}/3/device/{push.token}"
        return await self._client.post(address, content=content, headers=headers)

    def _provider(self, *, expired: str | None = None) -> str:
        """The token that proves who we are; another one than ``expired``, unless that is too young to be renewed."""
        now = self._clock.now()
        if self._provider_token is not None:
            token, made_at = self._provider_token
            age = now - made_at
            if age < RENEW_NOT_BEFORE or (age < RENEW_AFTER and token != expired):
                return token
        claims = {"iss": self._key.team_id, "iat": int(now.timestamp())}
        made = jwt.encode(claims, self._key.key, algorithm="ES256", headers={"kid": self._key.key_id})
        self._provider_token = (made, now)
        return made


def _outcome(answer: httpx.Response) -> Outcome:
    if answer.status_code == 200:
        return Outcome(sent=Sent.OK)
    said = _said(answer)
    reason = str(said.get("reason") or f"HTTP {answer.status_code}")
    if answer.status_code == 410 or reason in _GONE:
        return Outcome(sent=Sent.GONE, reason=reason, gone_since=_instant(said.get("timestamp")))
    later = answer.status_code in (429, 500, 503) or reason == "ExpiredProviderToken"
    if reason in _LOUD:
        log.error("push is set up wrongly", provider="apns", error=reason)
    else:
        log.warning("push not taken", provider="apns", status=answer.status_code, error=reason)
    wait = retry_after_seconds(answer.headers.get("Retry-After")) if later else None
    return Outcome(sent=Sent.LATER if later else Sent.NEVER, reason=reason, retry_after_seconds=wait)


def _away(why: str) -> Outcome:
    log.warning("push provider away", provider="apns", error=why)
    return Outcome(sent=Sent.LATER, reason="away")


def _said(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _instant(milliseconds: Any) -> datetime | None:
    """Since when Apple knows that a token is dead."""
    if not isinstance(milliseconds, int) or isinstance(milliseconds, bool):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
