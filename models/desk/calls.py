"""What administrators see and do of calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from models.billing.service import remaining_ms
from models.calls import tariff
from models.calls.call import Call
from models.calls.service import Calls
from models.desk.store import DeskStore
from models.ports import Clock
from models.trail.rules import Act, Actor, Target, checked_reason
from models.trail.service import Trail

LIVE_MAX = 500


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that goes on, with its money at this moment. ``remaining_ms`` None: without end."""

    call: Call
    talked_ms: int
    charged_minor: int
    currency: str
    remaining_ms: int | None


class CallDesk:
    """One per process."""

    def __init__(self, *, store: DeskStore, calls: Calls, trail: Trail, clock: Clock) -> None:
        self._store = store
        self._calls = calls
        self._trail = trail
        self._clock = clock

    async def live(self, limit: int = 100) -> list[LiveCall]:
        """Live calls and stays of all processes, the newest first, at most ``limit``."""
        now = self._clock.now()
        found = await self._store.live(max(1, min(limit, LIVE_MAX)))
        return [_live(call, now) for call in found]

    async def live_number(self) -> int:
        """How many there are."""
        return await self._store.live_number()

    async def processes(self, since: datetime) -> dict[str, datetime]:
        """The processes that have said since then that they live, and when they last did."""
        return await self._store.living(since)

    async def one(self, call_id: str) -> Call:
        """A call or stay, whoever is in it. ``CALL_UNKNOWN``."""
        return await self._calls.of_anybody(call_id)

    async def live_one(self, call_id: str) -> LiveCall:
        """The same with its money at this moment; of an ended one as it ended. ``CALL_UNKNOWN``."""
        return _live(await self.one(call_id), self._clock.now())

    async def of(
        self, user_id: str, *, before: tuple[datetime, str] | None = None, limit: int = 50
    ) -> list[Call]:
        """A person's calls, newest first, one more than ``limit`` where there are more."""
        return await self._calls.history(user_id, before=before, limit=limit)

    async def end(self, call_id: str, *, by: Actor, reason: str) -> Call:
        """End a call for reasons of policy; both sides are told. An ended one answers with how it ended.

        Refuses with ``CALL_UNKNOWN`` and ``VALIDATION_FAILED``.
        """
        call = await self.one(call_id)
        act = Act(actor=by, act="call.end", target=target_of(call), reason=checked_reason(reason))
        async with self._trail.keeping(act) as note:
            return await self._calls.end_by_policy(call_id, note.also)


def target_of(call: Call) -> Target:
    """A call as the trail names it."""
    return Target("call", call.id, f"{call.caller.username} to {call.callee.username}")


def _live(call: Call, now: datetime) -> LiveCall:
    return LiveCall(
        call=call,
        talked_ms=call.talk_ms(now),
        charged_minor=tariff.cost(call, now) if call.live else call.cost_minor,
        currency=call.price.currency,
        remaining_ms=remaining_ms(call, now) if call.live else None,
    )
