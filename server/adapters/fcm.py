"""Google's FCM HTTP v1, for devices that registered a token of kind ``FCM``: data messages only.

One request per push over one HTTP/2 connection, signed with an access token that a service account is given for a
signed assertion (RFC 7523). Rules: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages and
https://firebase.google.com/docs/cloud-messaging/error-codes
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx
import jwt
import structlog

from models.notify.ports import Outcome, Push, Sent
from models.notify.rules import SEND_SECONDS_MAX
from models.ports import Clock
from server.adapters.credentials import ServiceAccount
from server.adapters.native import data_texts
from server.adapters.retry_after import retry_after_seconds

log = structlog.get_logger(__name__)

URL = "https://fcm.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# The longest that Google allows an assertion to live.
ASSERTION = timedelta(hours=1)
# An access token is not used in its last minutes: a request must not arrive with a dead one.
RENEW_BEFORE = timedelta(minutes=5)
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 6.0
# Requests under way at once. Rings have places of their own, so they wait for no messages.
PRESSING_MAX = 64
OTHER_MAX = 16

_ERRORS = {
    "UNREGISTERED": Sent.GONE,
    # Without FCM's own code beside it: the project is unknown, not the device.
    "NOT_FOUND": Sent.NEVER,
    "INVALID_ARGUMENT": Sent.NEVER,
    "SENDER_ID_MISMATCH": Sent.NEVER,
    "THIRD_PARTY_AUTH_ERROR": Sent.NEVER,
    "PERMISSION_DENIED": Sent.NEVER,
    "QUOTA_EXCEEDED": Sent.LATER,
    "UNAVAILABLE": Sent.LATER,
    "INTERNAL": Sent.LATER,
}
# These do not mend themselves.
_LOUD = frozenset(("SENDER_ID_MISMATCH", "PERMISSION_DENIED", "THIRD_PARTY_AUTH_ERROR", "NOT_FOUND"))


class NoAccess(Exception):
    """Google gives no access token just now."""


class FcmSender:
    """``models.notify.ports.Sender`` for tokens of kind ``FCM``. ``url`` replaces Google's address (tests)."""

    def __init__(
        self,
        account: ServiceAccount,
        *,
        clock: Clock,
        url: str | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        total_seconds: float = SEND_SECONDS_MAX,
    ) -> None:
        self._account = account
        self._clock = clock
        self._address = f"{(url or URL).rstrip('/')}/v1/projects/{account.project_id}/messages:send"
        self._total_seconds = total_seconds
        timeout = httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS)
        self._client = httpx.AsyncClient(http2=True, timeout=timeout, trust_env=False)
        self._pressing = asyncio.Semaphore(PRESSING_MAX)
        self._other = asyncio.Semaphore(OTHER_MAX)
        self._renewing = asyncio.Lock()
        self._access: tuple[str, datetime] | None = None

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        """Hand pushes to Google; one outcome for each, in order, within ``total_seconds``."""
        return list(await asyncio.gather(*(self._in_time(push) for push in pushes)))

    async def try_access(self) -> str | None:
        """Whether Google lets this account in: None when it does, else why not. Sends nothing."""
        try:
            async with asyncio.timeout(self._total_seconds):
                await self._access_token(None)
        except NoAccess as no:
            return str(no)
        except (httpx.HTTPError, TimeoutError) as error:
            return type(error).__name__
        return None

    async def close(self) -> None:
        """Send nothing more."""
        await self._client.aclose()

    async def _in_time(self, push: Push) -> Outcome:
        places = self._pressing if push.note.pressing else self._other
        try:
            async with asyncio.timeout(self._total_seconds), places:
                return await self._send(push)
        except TimeoutError:
            return _away("too slow")
        except NoAccess as no:
            return _away(str(no))
        except httpx.HTTPError as error:
            return _away(type(error).__name__)
        except RuntimeError:  # the client is closed
            return _away("closed")

    async def _send(self, push: Push) -> Outcome:
        if not push.left_seconds(self._clock.now()):
            return Outcome(sent=Sent.LATER, reason="over")  # it has waited for its turn too long
        access = await self._access_token(None)
        answer = await self._ask(push, access)
        if answer.status_code == 401 and _error_code(answer) != "THIRD_PARTY_AUTH_ERROR":
            # Taken back before its time: once more with a fresh one.
            answer = await self._ask(push, await self._access_token(access))
        return _outcome(answer)

    async def _ask(self, push: Push, access: str) -> httpx.Response:
        message = {
            "token": push.token,
            "data": data_texts(push),
            # High, or a phone that dozes hears nothing; it is for what the app shows, or stops showing, at once.
            # No collapse key: a device has four of those at most, so a fifth conversation would lose its message.
            "android": {"priority": "high", "ttl": f"{push.left_seconds(self._clock.now())}s"},
        }
        return await self._client.post(
            self._address, json={"message": message}, headers={"Authorization": f"Bearer {access}"}
        )

    async def _access_token(self, failed: str | None) -> str:
        """An access token other than the one that ``failed``. Whoever comes meanwhile waits for the same answer."""
        async with self._renewing:
            now = self._clock.now()
            if self._access is not None and self._access[0] != failed and now < self._access[1]:
                return self._access[0]
            found = await self._fresh_access(now)
            self._access = found
            return found[0]

    async def _fresh_access(self, now: datetime) -> tuple[str, datetime]:
        account = self._account
        claims = {
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": account.token_uri,
            "iat": int(now.timestamp()),
            "exp": int((now + ASSERTION).timestamp()),
        }
        headers = {"kid": account.key_id} if account.key_id else None
        assertion = jwt.encode(claims, account.key, algorithm="RS256", headers=headers)
        answer = await self._client.post(
            account.token_uri, data={"grant_type": GRANT, "assertion": assertion}
        )
        said = _json(answer)
        access, life = said.get("access_token"), said.get("expires_in")
        if answer.status_code != 200 or not isinstance(access, str) or not isinstance(life, int):
            log.error(
                "push is set up wrongly" if answer.status_code in (400, 401) else "push provider refused",
                provider="fcm",
                status=answer.status_code,
                error=str(said.get("error"))[:64],
            )
            raise NoAccess(f"HTTP {answer.status_code}")
        return access, now + max(timedelta(seconds=life) - RENEW_BEFORE, timedelta(seconds=1))


def _outcome(answer: httpx.Response) -> Outcome:
    if answer.status_code == 200:
        return Outcome(sent=Sent.OK)
    error = _error_code(answer)
    sent = _ERRORS.get(error, Sent.LATER)
    if error == "INVALID_ARGUMENT" and "message.token" in _fields(answer):
        sent = Sent.GONE  # it is the token that is no token
    if error in _LOUD:
        log.error("push is set up wrongly", provider="fcm", error=error)
    elif sent is not Sent.GONE:
        log.warning("push not taken", provider="fcm", status=answer.status_code, error=error)
    wait = retry_after_seconds(answer.headers.get("Retry-After")) if sent is Sent.LATER else None
    return Outcome(sent=sent, reason=error, retry_after_seconds=wait)


def _away(why: str) -> Outcome:
    log.warning("push provider away", provider="fcm", error=why)
    return Outcome(sent=Sent.LATER, reason="away")


def _error_code(answer: httpx.Response) -> str:
    """FCM's own code, which is among the details; else the general status."""
    for detail in _details(answer):
        if isinstance(detail.get("errorCode"), str):
            return str(detail["errorCode"])
    error = _json(answer).get("error")
    status = error.get("status") if isinstance(error, dict) else None
    return status if isinstance(status, str) else f"HTTP {answer.status_code}"


def _fields(answer: httpx.Response) -> set[str]:
    """The fields that a BadRequest among the details complains of."""
    found = set()
    for detail in _details(answer):
        violations = detail.get("fieldViolations")
        for violation in violations if isinstance(violations, list) else []:
            if isinstance(violation, dict):
                found.add(str(violation.get("field")))
    return found


def _details(answer: httpx.Response) -> list[Mapping[str, Any]]:
    error = _json(answer).get("error")
    details = error.get("details") if isinstance(error, dict) else None
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def _json(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
