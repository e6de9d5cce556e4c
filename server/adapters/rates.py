"""Rates between currencies: a fixed table, and tables asked for over HTTP.

Over HTTP the table is JSON as the usual services give it: ``{"base": "USD", "rates": {"NGN": 1600.5, …}}``
(``base_code`` is understood too), with the time of the rates as ``timestamp`` or ``time_last_update_unix`` in seconds,
or as a ``date``. One table is kept for some minutes and asked for again then; while it cannot be, the old one does for
an hour. Rates that are older than that, or that the service itself calls old, are not traded by.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import structlog
from babel.numbers import is_currency

from models.fx.ports import Rates, RatesAway
from models.fx.rules import Pair, Table, worth_of
from models.ports import Clock

log = structlog.get_logger(__name__)

# A request waits for it; whoever asked can ask again.
ANSWER_SECONDS = 4.0
BODY_BYTES_MAX = 512 * 1024
# How long a table is used without asking again, and how long it does while asking fails.
FRESH = timedelta(minutes=5)
STALE = timedelta(hours=1)
# After a failure nobody waits for another one at once.
PAUSE = timedelta(seconds=10)
# How old rates may be by the service's own word. Central banks publish on working days: from before Easter to after.
AGE_MAX = timedelta(days=2)
AGE_OF_DATES_MAX = timedelta(days=6)
# A clock of theirs that is ahead of ours.
AHEAD_MAX = timedelta(days=1)
# Rates against a strong currency keep the most digits.
BASE = "USD"


class FixedRates:
    """``models.fx.ports.Rates`` of a table that does not change."""

    def __init__(self, pairs: Iterable[Pair], clock: Clock) -> None:
        self._worth = worth_of(pairs)
        self._clock = clock

    async def table(self) -> Table:
        """The table, as of now."""
        return Table(self._worth, self._clock.now())

    async def close(self) -> None:
        """Nothing is open."""


class HttpRates:
    """``models.fx.ports.Rates`` of a service over HTTP. ``{base}`` in ``url`` becomes the currency to ask for.

    ``fixed`` pairs go before what the service says of the same two currencies. ``count`` hears ``ok`` or ``failed``
    each time the service was asked.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        fixed: Iterable[Pair] = (),
        base: str = BASE,
        count: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._count = count
        self._url = url.replace("{base}", base)
        self._base = base if "{base}" in url else None
        self._fixed = tuple(fixed)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Lock()
        self._table: Table | None = None
        self._asked_at: datetime | None = None
        self._failed_at: datetime | None = None

    async def table(self) -> Table:
        """The newest table. Raises ``RatesAway``."""
        if self._younger(FRESH) is None:
            async with self._turn:
                if self._younger(FRESH) is None and not self._pausing():
                    await self._ask()
        found = self._younger(STALE)
        if found is None:
            raise RatesAway
        return found

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _younger(self, age: timedelta) -> Table | None:
        """The table, unless it was asked for longer ago than that."""
        if self._asked_at is None or self._clock.now() - self._asked_at >= age:
            return None
        return self._table

    def _pausing(self) -> bool:
        return self._failed_at is not None and self._clock.now() - self._failed_at < PAUSE

    async def _ask(self) -> None:
        now = self._clock.now()
        try:
            self._table = table_read(await self._fetch(), now, base=self._base, fixed=self._fixed)
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as fault:
            self._failed_at = now
            # Not the address, which may hold a key; what ``table_read`` says has nothing of it.
            said = str(fault) if isinstance(fault, _Useless) else type(fault).__name__
            self._count("failed")
            log.warning("no rates", fault=said, status=getattr(fault, "status", None))
            return
        self._count("ok")
        self._asked_at, self._failed_at = now, None

    async def _fetch(self) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        headers = {"Accept": "application/json"}
        async with self._session.get(self._url, headers=headers, allow_redirects=False) as answer:
            answer.raise_for_status()
            if answer.status != 200:
                raise _Useless(f"answered with {answer.status}")
            body = bytearray()
            async for piece in answer.content.iter_chunked(64 * 1024):
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    raise _Useless("more than a table of rates")
            return bytes(body)


def rates_of(
    pairs: Iterable[Pair], url: str | None, clock: Clock, count: Callable[[str], None] = lambda outcome: None
) -> FixedRates | HttpRates | None:
    """The source that was configured; None without any."""
    pairs = tuple(pairs)
    if url is not None:
        return HttpRates(url, clock=clock, fixed=pairs, count=count)
    return FixedRates(pairs, clock) if pairs else None


class _Useless(ValueError):
    """An answer that is no table of rates to trade by. Its text may be logged."""


def table_read(body: bytes, now: datetime, *, base: str | None, fixed: Iterable[Pair]) -> Table:
    """The table in an answer. Raises ``ValueError`` for what is none, is of another base, or is old."""
    # Numbers as they are written: a rate is a decimal and never a float.
    said = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    if not isinstance(said, dict) or not isinstance(said.get("rates"), dict):
        raise _Useless("no table of rates")
    named = said.get("base", said.get("base_code", base))
    if not isinstance(named, str) or not is_currency(named) or (base is not None and named != base):
        raise _Useless("rates of another base than asked for")
    as_of = _as_of(said, now)
    pairs = [(named, name, value) for name, value in _values(said["rates"]) if name != named]
    if not pairs:
        raise _Useless("a table without a rate")
    return Table(worth_of([*fixed, *pairs]), as_of)


def _values(rates: Mapping[Any, Any]) -> Iterable[tuple[str, Decimal]]:
    """What there is a currency of and a sane number; services also list metals, coins and what is no more."""
    for name, value in rates.items():
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or not is_currency(name):
            continue
        # By its exponent first: a short text can be a number that fills the memory as a fraction.
        number = Decimal(value)
        if number > 0 and -18 <= number.adjusted() <= 12 and len(number.as_tuple().digits) <= 40:
            yield name, number


def _as_of(said: Mapping[str, Any], now: datetime) -> datetime:
    """When the rates were made, by the service's word; now where it says nothing. Raises ``ValueError``."""
    oldest = AGE_MAX
    found = now
    seconds = said.get("timestamp", said.get("time_last_update_unix"))
    day = said.get("date")
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds < 10**11:
            raise _Useless("rates without a sane time")
        found = datetime.fromtimestamp(seconds, UTC)
    elif day is not None:
        if not isinstance(day, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", day):
            raise _Useless("rates without a sane date")
        found = datetime.combine(date.fromisoformat(day), time(), UTC)
        oldest = AGE_OF_DATES_MAX
    if not now - oldest <= found <= now + AHEAD_MAX:
        raise _Useless(f"rates of {found:%Y-%m-%d %H:%M} are not those of now")
    return min(found, now)


def _no_number(text: str) -> None:
    raise _Useless(f"{text} is no rate")


__all__ = ["FixedRates", "HttpRates", "Rates", "rates_of", "table_read"]
