"""What the gateways' adapters share: JSON over HTTP with a limit to everything, and exact amounts.

A reading request is repeated with back-off when it fails; one that may move money is sent once, and then either it was
answered, or it certainly never left (``GatewayAway(sent=False)``), or nobody knows (``GatewayAway``). Redirects are
not followed: a key goes to the address that was configured. Numbers with decimals are read as ``Decimal``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import structlog
from yarl import URL

from models.money import major_of, minor_of
from models.payments.gateway import Checkout, GatewayAway, NoticeInvalid
from server.adapters.retry_after import retry_after_seconds

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5.0
# A gateway may ask a bank before it answers, and a person waits for a checkout address: below the time for which
# models/payments lets one process open a checkout.
ANSWER_SECONDS = 15.0
# Waits before the second and the third try of a reading request.
BACKOFF_SECONDS = (0.3, 1.2)
RETRY_AFTER_SECONDS_MAX = 5.0
# A list of banks has some hundred kilobytes.
ANSWER_BYTES_MAX = 4 * 1024 * 1024
NOTICE_BYTES_MAX = 1024 * 1024

Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status below 500 and the object that came with it; ``said`` is empty where it was no JSON object."""

    status: int
    said: Mapping[str, Any]


class Http:
    """The way to one gateway. ``sleep`` waits between tries (tests)."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        sleep: Sleep = asyncio.sleep,
        answer_seconds: float = ANSWER_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._name = name
        self._url = url.rstrip("/")
        self._sleep = sleep
        self._timeout = aiohttp.ClientTimeout(total=answer_seconds, connect=connect_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def read(
        self, path: str, *, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> Answer:
        """A GET, repeated with back-off while the gateway is away. Raises ``GatewayAway``."""
        return await self.repeated("GET", path, headers=headers, params=params)

    async def repeated(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """A request that may be sent again, for it moves no money. Raises ``GatewayAway``."""
        for wait in BACKOFF_SECONDS:
            try:
                return await self.once(method, path, headers=headers, params=params, body=body)
            except _Away as away:
                pause = wait if away.wait is None else min(away.wait, RETRY_AFTER_SECONDS_MAX)
                log.info("gateway asked again", gateway=self._name, error=str(away), seconds=pause)
            await self._sleep(pause)
        return await self.once(method, path, headers=headers, params=params, body=body)

    async def once(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """One request. ``path`` is already percent-encoded. ``GatewayAway``: 5xx, 408, 429, 3xx, none."""
        url = URL(self._url + path, encoded=True)
        if params:
            url = url.update_query(params)
        sent = dict(headers)
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            async with self._open().request(
                method,
                url,
                data=None if body is None else json_bytes(body),
                headers=sent,
                allow_redirects=False,
            ) as response:
                raw = await _bounded(response)
                status, wait = response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Away(f"{method} {path}: {type(error).__name__}", sent=False) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # Not the error itself, nor as a cause: it may hold the request with its key.
            raise _Away(f"{method} {path}: {type(error).__name__}") from None
        if status == 429:
            raise _Away(f"{method} {path}: too many requests", sent=False, wait=retry_after_seconds(wait))
        if status >= 500 or status == 408 or 300 <= status < 400:
            raise _Away(f"{method} {path}: HTTP {status}", wait=retry_after_seconds(wait))
        return Answer(status, _object(raw))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/json"},
            )
        return self._session


class _Away(GatewayAway):
    """``GatewayAway`` with what the gateway wishes for a wait (seconds)."""

    def __init__(self, said: str, *, sent: bool = True, wait: float | None = None) -> None:
        super().__init__(said, sent=sent)
        self.wait = wait


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > ANSWER_BYTES_MAX:
            raise ValueError("an answer without end")
    return bytes(raw)


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        found = loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def loads(raw: bytes) -> Any:
    """JSON without floats: numbers with decimals are ``Decimal``. ``ValueError`` for everything that it is not."""
    try:
        return json.loads(raw, parse_float=Decimal, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def json_bytes(body: Mapping[str, Any]) -> bytes:
    """An object as JSON; a ``Decimal`` of the first level is written out by its digits: 100.50, never by a float."""
    parts = [
        f"{json.dumps(name)}:{format(value, 'f') if isinstance(value, Decimal) else json.dumps(value)}"
        for name, value in body.items()
    ]
    return ("{" + ",".join(parts) + "}").encode()


def notice_object(raw: bytes) -> dict[str, Any]:
    """The object of a notification whose signature has been found good. Raises ``NoticeInvalid``."""
    try:
        found = loads(raw)
    except ValueError:
        raise NoticeInvalid("no JSON") from None
    if not isinstance(found, dict):
        raise NoticeInvalid("no JSON object")
    return found


def major_minor(value: object, currency: str) -> int:
    """An amount in major units, a number or text, as minor units.

    Raises ``GatewayAway`` where it is none, negative, or has more decimals than the currency: such an answer cannot be
    read, and nothing follows from it.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise GatewayAway("an amount that is no number")
    try:
        minor = minor_of(value, currency)
    except ValueError as error:
        raise GatewayAway(f"an amount that cannot be read: {error}") from None
    if minor < 0:
        raise GatewayAway("an amount below zero")
    return minor


def whole_minor(value: object) -> int:
    """An amount that is counted in minor units: a whole number, also as text. Raises ``GatewayAway``."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 17:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise GatewayAway("an amount that is no whole number of minor units")
    return value


def major(amount_minor: int, currency: str) -> Decimal:
    """Minor units as the number that a gateway wants that counts in major ones."""
    return major_of(amount_minor, currency)


def text(value: object, most: int = 200) -> str | None:
    """A text of reasonable length, else None."""
    return value if isinstance(value, str) and 0 < len(value) <= most else None


def mapping(value: object) -> Mapping[str, Any]:
    """An object, or an empty one: gateways say ``{}``, ``[]`` and ``null`` for nothing."""
    return value if isinstance(value, dict) else {}


def fact_id(*parts: object) -> str:
    """One id for one fact: the same whenever it is told again, however its JSON is written."""
    told = json.dumps([_plain(part) for part in parts], separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | Decimal | str):
        try:
            number = Decimal(value)
        except ArithmeticError:
            return str(value)
        return format(number.normalize(), "E") if number.is_finite() else str(value)
    return str(value)


def mailbox(ask: Checkout) -> str:
    """The payer's e-mail address; for who has none, one of the place that the payer comes back to: gateways insist."""
    if ask.payer_email:
        return ask.payer_email
    host = urlsplit(ask.return_url).hostname or ""
    known = "." in host and not host.replace(".", "").isdigit() and ":" not in host
    return f"{ask.payer_id}@{host if known else 'example.com'}"
