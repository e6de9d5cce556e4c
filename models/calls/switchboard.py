"""The live calls as this process knows them, for what must not wait for a database.

Candidates go from leg to leg through here in memory: checked against the call's two legs, held until the other side
can use them (it has a description they belong to, and a socket), and forwarded. What is lost with the process is made
good by the ICE restart that every resume brings (RFC 8445 §9).

Nothing here awaits, so nothing here is interleaved.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from models.agenda import Agenda
from models.calls.call import Call, Negotiation, Role, State
from models.calls.sdp import generation, ufrags
from models.errors import Refusal

# CONTRACT §1: at most 256 candidates held for a side that is not ready.
HELD_MAX = 256
# ICE generations of one side that are remembered as over; each restart adds one.
OLD_GENERATIONS_MAX = 32
# Ended calls remembered, so that late signals are refused without a read.
ENDED_MAX = 10_000
# So much later than the process of the payer's leg does another one that knows a call renew it.
RENEWED_ELSEWHERE_AFTER = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class Forward:
    """A candidate on its way to the device that holds the other leg."""

    to: Role
    candidate: Any


@dataclass(slots=True, eq=False)
class Route:
    """The way of candidates from one device to the other leg, as long as nothing changes: ``open`` until then.

    ``generations`` are those that the sender's newest description opened. ``target`` is the door's own, for what it
    has found out about the receiving device.
    """

    call_id: str
    from_user: str
    to_user: str
    to_device: str
    to_process: str
    generations: frozenset[str]
    open: bool = True
    target: Any = None

    def passes(self, candidate: Any) -> bool:
        """Whether a checked candidate goes straight through; the others take ``Switchboard.relay``."""
        if not candidate:
            return True
        gen = candidate.get("usernameFragment")
        return gen is None or gen in self.generations


@dataclass(slots=True)
class _Line:
    """A live call with what waits for its legs."""

    call: Call
    held: dict[Role, deque[tuple[str, Any]]] = field(
        default_factory=lambda: {Role.CALLER: deque(), Role.CALLEE: deque()}
    )
    current: dict[Role, frozenset[str]] = field(
        default_factory=lambda: {Role.CALLER: frozenset(), Role.CALLEE: frozenset()}
    )
    over: dict[Role, OrderedDict[str, None]] = field(
        default_factory=lambda: {Role.CALLER: OrderedDict(), Role.CALLEE: OrderedDict()}
    )
    described: set[Role] = field(default_factory=set)
    seen: Negotiation | None = None
    routes: dict[tuple[str, str], Route] = field(default_factory=dict)

    def close_routes(self) -> None:
        """Something has changed: what was found out holds no longer."""
        for route in self.routes.values():
            route.open = False
        self.routes.clear()

    def close_route(self, user_id: str, device_id: str) -> None:
        """The one way of a device, since it looks for another."""
        route = self.routes.pop((user_id, device_id), None)
        if route is not None:
            route.open = False


class Switchboard:
    """Live calls by id and by user, and when their money has to be renewed.

    ``listeners`` hear of each newer version of a call at once, also of its end. ``doubted`` are the live calls of which
    others may know more since this process stood still: nothing is relayed by what is known of them here, until the
    next look into the database.
    """

    def __init__(self, process: str) -> None:
        self._process = process
        self.doubted: set[str] = set()
        self.renewals = Agenda()
        self.listeners: list[Callable[[Call], None]] = []
        self._lines: dict[str, _Line] = {}
        self._of_user: dict[str, str] = {}
        # Stays by who pays them: somebody may be in several rooms, and in a call beside.
        self._stays_of: dict[str, set[str]] = {}
        self._ended: OrderedDict[str, Call] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lines)

    def calls(self) -> Iterator[Call]:
        """The live calls."""
        return (line.call for line in list(self._lines.values()))

    def holding(self) -> list[Call]:
        """The live calls for whose sides candidates wait here."""
        return [line.call for line in self._lines.values() if any(line.held.values())]

    def call(self, call_id: str) -> Call | None:
        """The newest version known here, also for a while after the end."""
        line = self._lines.get(call_id)
        return line.call if line else self._ended.get(call_id)

    def call_of(self, user_id: str) -> Call | None:
        """The user's live call, if this process knows one; stays in rooms are none."""
        call_id = self._of_user.get(user_id)
        return self._lines[call_id].call if call_id else None

    def paying(self, user_ids: Iterable[str]) -> set[str]:
        """Those of the users who pay a live call or stay that this process knows."""

        def pays(user_id: str) -> bool:
            call = self.call_of(user_id)
            return user_id in self._stays_of or (call is not None and call.caller.user_id == user_id)

        return {user_id for user_id in user_ids if pays(user_id)}

    def update(self, call: Call) -> list[Forward]:
        """Take a newer version; what it lets pass of the held candidates."""
        line = self._lines.get(call.id)
        known = line.call if line is not None else self._ended.get(call.id)
        if known is not None and known.version > call.version:
            return []  # also when it has ended since: what was loaded before the end must not bring it back
        self._note(call)
        if not call.live:
            self._remove(call)
            return []
        self.doubted.discard(call.id)
        if line is None:
            line = self._lines[call.id] = _Line(call)
            if call.room_id is not None:
                self._stays_of.setdefault(call.caller.user_id, set()).add(call.id)
            else:
                self._of_user[call.caller.user_id] = call.id
                self._of_user[call.callee.user_id] = call.id
        line.call = call
        line.close_routes()
        self._learn(line)
        return [*self._flush(line, Role.CALLER), *self._flush(line, Role.CALLEE)]

    def relay(self, call: Call, user_id: str, device_id: str, candidates: Sequence[Any]) -> list[Forward]:
        """Candidates of one side: those that may pass now; the others are held, those of old generations dropped.

        Refuses with ``CALL_ENDED``, ``CALL_ANSWERED_ELSEWHERE`` (not the device of the leg), ``CALL_UNKNOWN``
        (nobody of this call), ``TOO_MANY_CANDIDATES``.
        """
        role = call.role_of(user_id)
        if role is None:
            raise Refusal("CALL_UNKNOWN")
        if not call.live:
            assert call.end_reason is not None
            raise Refusal("CALL_ENDED", callId=call.id, endReason=call.end_reason.value)
        leg = call.leg(role)
        if leg is not None and leg.device_id != device_id:
            raise Refusal("CALL_ANSWERED_ELSEWHERE", callId=call.id)
        line = self._lines[call.id]
        to = role.other
        passing: list[Forward] = []
        for candidate in candidates:
            gen = generation(candidate)
            if gen is not None and gen in line.over[role] and gen not in line.current[role]:
                continue  # late, of a negotiation that is over: dropped, not an error
            if leg is not None and self._ready(line, to) and (gen is None or gen in line.current[role]):
                passing.append(Forward(to, candidate))
                continue
            waiting = line.held[to]
            if (device_id, candidate) in waiting:
                continue
            if len(waiting) >= HELD_MAX:
                raise Refusal("TOO_MANY_CANDIDATES", held=HELD_MAX)
            waiting.append((device_id, candidate))
        return passing

    def route(self, call_id: str, user_id: str, device_id: str) -> Route | None:
        """The straight way of a device's candidates: it holds its leg, and the other side is ready."""
        line = self._lines.get(call_id)
        role = line.call.role_of(user_id) if line else None
        if line is None or role is None or call_id in self.doubted:
            return None
        leg, other = line.call.leg(role), line.call.leg(role.other)
        if leg is None or leg.device_id != device_id or other is None or other.process is None:
            return None
        if not self._ready(line, role.other):
            return None
        to_user = line.call.party(role.other).user_id
        route = Route(call_id, user_id, to_user, other.device_id, other.process, line.current[role])
        line.close_route(user_id, device_id)
        line.routes[user_id, device_id] = route
        return route

    def renewal(self, call: Call) -> datetime | None:
        """When this process is to renew a call: at its time where the payer's leg is, elsewhere a little later, if that
        has not been done by then. Two that come together stand in each other's way.
        """
        leg = call.caller_leg
        if call.renew_at is None or leg.process is None or leg.process == self._process:
            return call.renew_at
        return call.renew_at + RENEWED_ELSEWHERE_AFTER

    def doubt(self) -> None:
        """This process stood still: what it knows of its live calls may be old."""
        self.doubted.update(self._lines)
        for line in self._lines.values():
            line.close_routes()

    def _note(self, call: Call) -> None:
        due = self.renewal(call)
        if due is None:
            self.renewals.drop(call.id)
        else:
            self.renewals.set(call.id, due)
        for listener in self.listeners:
            listener(call)

    def _remove(self, call: Call) -> None:
        line = self._lines.pop(call.id, None)
        self.doubted.discard(call.id)
        if line is not None:
            line.close_routes()
        stays = self._stays_of.get(call.caller.user_id, set())
        stays.discard(call.id)
        if not stays:
            self._stays_of.pop(call.caller.user_id, None)
        for user_id in (call.caller.user_id, call.callee.user_id):
            if self._of_user.get(user_id) == call.id:
                del self._of_user[user_id]
        self._ended[call.id] = call
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)

    @staticmethod
    def _learn(line: _Line) -> None:
        """Take over what the newest descriptions say: who can use candidates, and of which generations."""
        call, now = line.call, line.call.negotiation
        if call.state is not State.RINGING and now.offerer is not None:
            line.described.add(now.offerer.other)
        if now.answer is not None and now.offerer is not None:
            line.described.add(now.offerer)
        if now == line.seen or now.offerer is None:
            return
        line.seen = now
        for role, body in ((now.offerer, now.offer), (now.offerer.other, now.answer)):
            fresh = ufrags(body)
            if not fresh or fresh == line.current[role]:
                continue
            for old in line.current[role] - fresh:
                line.over[role][old] = None
            while len(line.over[role]) > OLD_GENERATIONS_MAX:
                line.over[role].popitem(last=False)
            line.current[role] = fresh

    @staticmethod
    def _ready(line: _Line, to: Role) -> bool:
        leg = line.call.leg(to)
        return leg is not None and leg.lost_at is None and to in line.described

    def _flush(self, line: _Line, to: Role) -> list[Forward]:
        waiting = line.held[to]
        sender = line.call.leg(to.other)
        if not waiting or sender is None or not self._ready(line, to):
            return []
        current, over = line.current[to.other], line.over[to.other]
        passing, keep = [], deque[tuple[str, Any]]()
        for device_id, candidate in waiting:
            gen = generation(candidate)
            if device_id != sender.device_id or (gen is not None and gen in over and gen not in current):
                continue
            if gen is None or not current or gen in current:
                passing.append(Forward(to, candidate))
            else:
                keep.append((device_id, candidate))
        line.held[to] = keep
        return passing
