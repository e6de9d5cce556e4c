"""The inbox: what gateways have told is stored before it is answered, and worked off by a job.

    inbox = Inbox(gateways=gateways, store=InboxStore(db), clock=clock, count=count)
    inbox.hears[About.PAYMENT] = payments.heard

A notification is a hint. Whoever hears one asks the gateway by our own record, so that playing one again, forging an
amount, or mixing their order changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import structlog

from models.errors import Refusal
from models.payments.gateway import About, Gateway, GatewayAway, Notice, NoticeInvalid
from models.payments.inbox.store import InboxStore, Stage, Told
from models.payments.looking import Count
from models.payments.rounds import work_off
from models.payments.rules import back_off
from models.ports import Clock

log = structlog.get_logger(__name__)

# The gateway's name and what it has told; False: we know of no such thing. May raise ``GatewayAway``.
Hears = Callable[[str, Notice], Awaitable[bool]]

# Notifications that one process works off at the same time, and one that was taken is for so long its own.
AT_ONCE = 8
LEASE_SECONDS = 120
# How often one is tried that is about nothing we know, before it is left to a person: about half an hour.
UNMATCHED_TRIES = 4
# And for how long one whose gateway is away. The reconciler asks for what has not come to its end even after that.
AWAY_HOURS = 72
# No gateway's event is larger.
BODY_BYTES_MAX = 262_144
_ID_MAX = 200


class Inbox:
    """One per process. ``hears`` are those that notifications are about something of."""

    def __init__(
        self, *, gateways: Mapping[str, Gateway], store: InboxStore, clock: Clock, count: Count
    ) -> None:
        self._gateways = gateways
        self.store = store
        self._clock = clock
        self._count = count
        self.hears: dict[About, Hears] = {}

    async def take(self, gateway: str, raw: bytes, headers: Mapping[str, str]) -> None:
        """Keep a notification that its gateway has signed; ``headers`` by their names in lower case.

        Refuses with ``ROUTE_UNKNOWN`` (no such gateway here) and ``WEBHOOK_INVALID``.
        """
        known = self._gateways.get(gateway)
        if known is None:
            raise Refusal("ROUTE_UNKNOWN")
        now = self._clock.now()
        try:
            if len(raw) > BODY_BYTES_MAX:
                raise NoticeInvalid("larger than any event")
            notice = known.parse(raw, headers, now)
        except NoticeInvalid as fault:
            self._count(gateway, "invalid")
            log.warning("a notification was not taken", gateway=gateway, said=str(fault))
            raise Refusal("WEBHOOK_INVALID") from fault
        fresh = await self.store.keep(_row_id(gateway, notice.id), gateway, notice, raw, now)
        self._count(gateway, "kept" if fresh else "again")

    async def run(self) -> int:
        """Work off what is due, until nothing is; how many that were."""
        return await work_off(self._claim, self._work, AT_ONCE)

    async def _claim(self) -> Told | None:
        now = self._clock.now()
        return await self.store.claim(now, now + timedelta(seconds=LEASE_SECONDS))

    async def _work(self, told: Told) -> None:
        hears, notice = self.hears.get(told.notice.about), told.notice
        if hears is None or notice.about is About.OTHER:
            await self.store.end(told, Stage.DONE)
            self._count(told.gateway, "other")
            return
        said = {"gateway": told.gateway, "notice": notice.id, "word": notice.word}
        try:
            matched = await hears(told.gateway, notice)
        except GatewayAway as away:
            await self._later_or_left(told, f"the gateway is away: {away}")
            return
        except Refusal as refusal:
            await self._later_or_left(told, refusal.code)
            return
        if matched:
            await self.store.end(told, Stage.DONE)
            self._count(told.gateway, "done")
        elif told.tries < UNMATCHED_TRIES:
            # It may name only what the gateway calls it, and be here before the answer that told us so.
            await self.store.later(told, self._clock.now() + back_off(told.tries))
        else:
            await self.store.end(told, Stage.UNMATCHED)
            self._count(told.gateway, "unmatched")
            log.warning("a notification is about nothing we know", **said)

    async def _later_or_left(self, told: Told, why: str) -> None:
        if self._clock.now() < told.at + timedelta(hours=AWAY_HOURS):
            await self.store.later(told, self._clock.now() + back_off(told.tries))
            return
        await self.store.end(told, Stage.LEFT)
        self._count(told.gateway, "left")
        log.error("a notification was given up", gateway=told.gateway, notice=told.notice.id, why=why)


def _row_id(gateway: str, event_id: str) -> str:
    """The key of a notification: a gateway's event is kept once."""
    if len(event_id) > _ID_MAX:
        event_id = hashlib.sha256(event_id.encode()).hexdigest()
    return f"{gateway}:{event_id}"
