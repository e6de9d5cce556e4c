"""How a call changes: one command at a time, guarded by its version, and told after it is durable.

Every verb may be repeated and may be cut off between any two awaits. What has been swapped is durable and carries its
untold facts; whoever told them says so, and a job tells those that nobody did. Within a process the moves of one call
go one at a time; between processes the version guards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import structlog

from models.agenda import Agenda
from models.also import Also
from models.calls import commands as c
from models.calls import rules
from models.calls.call import Call, Fact, Role, Timers
from models.calls.meter import Meter
from models.calls.rings.service import Rings
from models.calls.store import CallStore
from models.calls.switchboard import Forward, Switchboard
from models.db import Stale, out_of_reach
from models.errors import Refusal
from models.ports import Alarms, Clock, Courier, Doors, Ids, NoCourier
from models.users.service import Users

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Tries of one verb against other writers before it gives up as busy.
TRIES_MAX = 12
# Facts that nobody has told for this long are told by the job.
UNTOLD_AFTER_SECONDS = 3
# Calls that one turn of a job takes up.
DUE_MAX = 500
# Calls that a job looks at before others get a turn, where there is nothing to wait for.
AT_A_STRETCH_MAX = 100
_TOLD = "told"


class Announcer(Protocol):
    """Says facts aloud: to sockets, logs and pushes."""

    async def announce(self, call: Call, facts: Sequence[Fact], *, again: bool) -> None:
        """Tell facts of a call; ``again`` after a crash, when some may have been told before."""
        ...

    async def cut(self, call: Call) -> None:
        """Tell devices connected here that the money is over, though that cannot be written down just now."""
        ...

    async def forward(self, call: Call, forwards: Sequence[Forward]) -> None:
        """Send candidates to the devices that hold the other leg."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the parts of the calls work with."""

    store: CallStore
    users: Users
    meter: Meter
    clock: Clock
    ids: Ids
    alarms: Alarms
    doors: Doors
    rings: Rings
    timers: Timers
    process: str
    courier: Courier = field(default_factory=NoCourier)


class Engine:
    """Load → rules → guarded swap → tell. The verbs are built on ``_apply``."""

    def __init__(self, tools: Tools) -> None:
        self._store = tools.store
        self._users = tools.users
        self._ids = tools.ids
        self._doors = tools.doors
        self._rings = tools.rings
        self._meter = tools.meter
        self._clock = tools.clock
        self._alarms = tools.alarms
        self._timers = tools.timers
        self._process = tools.process
        self._courier = tools.courier
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # What has been told and is not written down: the versions by call, and since when there is any.
        self._told: dict[str, set[int]] = {}
        self.unwritten = Agenda()
        # What could not be written down for want of a database: by call and user whose socket has gone, and when;
        # and by call when its money was over, of which phones were told here.
        self._losses: dict[str, dict[str, c.Lose]] = {}
        self._cut: dict[str, datetime] = {}
        # Whether another process serves the same database; found out with each beat.
        self.others_live = False
        # Whether this process does what any process may do; who lived with the last beat, and which of those do.
        self.works = True
        self.living: list[str] = []
        self.workers: list[str] = []
        # Set by the wiring: lets a device connect anew, whose socket is here and whose leg others have taken for lost.
        self.send_back: Callable[[str, str], None] = lambda user_id, device_id: None
        self.board = Switchboard(tools.process)
        self.announcer: Announcer

    async def run_untold(self) -> int:
        """Tell what was swapped and never told; how many calls."""
        late = self._clock.now() - timedelta(seconds=UNTOLD_AFTER_SECONDS)
        call_ids = await self._store.untold(late, DUE_MAX)
        await self._each(call_ids, self._tell_untold)
        return len(call_ids)

    async def _tell_untold(self, call_id: str) -> None:
        """Tell of the call as it is now: since it was found it may have ended, and a ring must not follow its end."""
        turn = self._turns.setdefault(call_id, asyncio.Lock())
        async with turn:
            call = await self._loaded(call_id)
            told = self._told.get(call_id, set())
            missing = [fact for fact in call.untold if fact.version not in told]
            if missing:
                await self._tell(replace(call, untold=()), missing, again=True)

    async def _each(
        self, calls: Iterable[T], work: Callable[[T], Awaitable[Any]], *, at_once: int = 1
    ) -> None:
        """A job's work on several calls, begun in order: one that cannot be done keeps no other waiting.

        ``calls`` are ids, or whatever ``work`` takes at a time.
        """
        left, away = iter(calls), list[Exception]()

        async def line() -> None:
            for count, one in enumerate(left, 1):
                if count % AT_A_STRETCH_MAX == 0:
                    await asyncio.sleep(0)
                try:
                    await work(one)
                except Exception as error:
                    if out_of_reach(error):
                        away.append(error)
                    else:
                        log.error("a call is left as it is", call_id=one, exc_info=error)
                if away:
                    return  # the others would fail as well, each after its wait

        if at_once == 1:
            await line()
        else:
            await asyncio.gather(*(line() for _ in range(at_once)))
        if away:
            raise away[0]

    async def flush_told(self) -> None:
        """Write down what has been told, for all calls at once."""
        told, self._told = self._told, {}
        self.unwritten.drop(_TOLD)
        if told:
            try:
                await self._store.told(told)
            except Exception:
                for call_id, versions in told.items():
                    self._keep_told(call_id, versions)
                raise

    def _keep_told(self, call_id: str, versions: Iterable[int]) -> None:
        self._told.setdefault(call_id, set()).update(versions)
        if _TOLD not in self.unwritten:
            self.unwritten.set(_TOLD, self._clock.now())

    async def _apply(
        self, call_id: str, command: c.Command, user_id: str | None = None, *, also: Also | None = None
    ) -> Call:
        """One command; ``also`` joins the transaction of the change that the command itself makes, if it makes one."""
        turn = self._turns.setdefault(call_id, asyncio.Lock())
        async with turn:
            for attempt in range(TRIES_MAX):
                known = self.board.call(call_id) if attempt == 0 else None
                call = known or await self._loaded(call_id)
                if known is None:
                    await self._learn(call)
                role = Role.SERVER if user_id is None else call.role_of(user_id)
                if role is None or (user_id is not None and call.room_id is not None):
                    raise Refusal("CALL_UNKNOWN")  # a stay is ended by leaving the room
                now = self._clock.now()
                try:
                    if rules.out_of_money(call, _happened(command, now)):
                        # Whatever is asked comes after the end of the money; the next round judges it.
                        over = rules.step(call, c.Tick(), role=Role.SERVER, now=now, timers=self._timers)
                        if await self._write(call, over, now) is None or not isinstance(command, c.Tick):
                            continue
                        return over.call
                    done = rules.step(call, command, role=role, now=now, timers=self._timers)
                    if not done.changed:
                        if known is not None:
                            continue
                        return call
                    written = await self._write(call, done, now, also)
                except Refusal:
                    if known is not None:
                        continue  # what is in memory may be old; a no needs the truth
                    raise
                if written is not None:
                    return written
        raise Refusal("SERVER_BUSY")

    async def _write(
        self, before: Call, done: rules.Step, now: datetime, also: Also | None = None
    ) -> Call | None:
        """Swap, with the money that a new price takes, and tell. None when somebody was quicker."""
        after = done.call
        if after.live and after.price != before.price:
            assert also is None, "nothing else belongs to a new price"
            try:
                async with self._meter.covering(after, now) as cover:
                    after = rules.charged(after, cover.charge, timers=self._timers)
                    cover.written = await self._store.swap(before, after, done.facts, now, cover.post)
            except Stale:
                return None
            if not cover.written:
                return None
        elif not await self._store.swap(before, after, done.facts, now, also):
            return None
        await self._tell(after, done.facts)
        return after

    async def _learn(self, call: Call) -> None:
        """Take over what another process has made of a call that this one knows at an older version."""
        known = self.board.call(call.id)
        if known is not None and known.version < call.version:
            self._arm(call)
            await self._send(call, self.board.update(replace(call, untold=())))

    async def _tell(self, call: Call, facts: Sequence[Fact], *, again: bool = False) -> None:
        """Commit first, tell after: the swap is durable. What fails here is told by ``run_untold``."""
        passing = self.board.update(replace(call, untold=()))
        self._arm(call)
        self._say_elsewhere(call)
        try:
            if not call.live and any(
                leg.process is None for leg in (call.caller_leg, call.callee_leg) if leg
            ):
                await self._store.signals.drop(call.id)  # others have none, or few that expire
            for fact in facts:
                await self._keep_described(call, fact)
            if facts:
                await self.announcer.announce(call, facts, again=again)
            if not call.live:
                # What it cost stands with the call already; the money follows, at the latest by ``run_money``.
                await self._meter.close(call)
            if facts:
                self._keep_told(call.id, (fact.version for fact in facts))
            await self._send(call, passing)
        except Exception as error:
            log.warning("told later", call_id=call.id, error=repr(error))

    def _say_elsewhere(self, call: Call) -> None:
        """The processes of its people look at the call again; those who hear nothing of a room pay or hold no leg."""
        people = (
            {call.caller.user_id} if call.room_id is not None else {call.caller.user_id, call.callee.user_id}
        )
        self._courier.changed("call", call.id, call.version, users=sorted(people))

    async def heard(self, call_id: str, version: int) -> None:
        """Another process has made this version of a call, and says so."""
        known = self.board.call(call_id)
        if known is not None and known.version < version:
            await self._learn(await self._loaded(call_id))

    def _arm(self, call: Call) -> None:
        """The local timer of a call that this process knows, whoever has changed its deadline."""
        if call.deadline_at is not None:
            self._alarms.set(call.id, call.deadline_at)
        else:
            self._alarms.clear(call.id)

    async def _keep_described(self, call: Call, fact: Fact) -> None:
        """Descriptions for a leg that polls."""
        if fact.kind == "described":
            to, body = Role(fact.data["to"]), fact.data["description"]
        elif fact.kind == "accepted" and fact.data["answer"] is not None:
            to, body = Role.CALLER, fact.data["answer"]
        else:
            return
        leg = call.leg(to)
        if leg is not None and leg.process is None:
            await self._keep(call, to, "description", [body])

    async def _send(self, call: Call, forwards: Sequence[Forward]) -> None:
        for to in (Role.CALLER, Role.CALLEE):
            leg, mine = call.leg(to), [f.candidate for f in forwards if f.to is to]
            if mine and leg is not None and leg.process is None:
                await self._keep(call, to, "candidate", mine)
        if forwards:
            await self.announcer.forward(call, forwards)

    async def _keep(self, call: Call, to: Role, kind: str, bodies: Sequence[Any]) -> None:
        await self._store.signals.keep(
            call.id, to, kind, call.party(to.other).user_id, bodies, self._clock.now()
        )

    async def _loaded(self, call_id: str) -> Call:
        call = await self._store.load(call_id)
        if call is None:
            raise Refusal("CALL_UNKNOWN")
        return call

    async def _seen(self, call_id: str, user_id: str) -> Call:
        """The call, if it is one of the user's; a stay in a room is none to talk in."""
        known = None if call_id in self.board.doubted else self.board.call(call_id)
        call = known or await self._loaded(call_id)
        if call.role_of(user_id) is None or call.room_id is not None:
            raise Refusal("CALL_UNKNOWN")
        return call


def _happened(command: c.Command, now: datetime) -> datetime:
    """When that happened of which a command tells; what was before the end of the money is not judged as after it."""
    if isinstance(command, c.Lose):
        return min(now, command.last_seen_at)
    return min(now, command.at) if isinstance(command, c.Stop) and command.at is not None else now
