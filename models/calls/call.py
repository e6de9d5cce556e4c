"""What a call is: frozen values, no behaviour beyond what can be read off them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

_MS = timedelta(milliseconds=1)


class State(StrEnum):
    """The states of a call; ``ENDED`` is the only one that is never left."""

    RINGING = "ringing"
    ACCEPTED = "accepted"
    ACTIVE = "active"
    RECONNECTING = "reconnecting"
    ENDED = "ended"


class Role(StrEnum):
    """Who commands: one of the two legs, or the server itself (clocks, leases, policy)."""

    CALLER = "caller"
    CALLEE = "callee"
    SERVER = "server"

    @property
    def other(self) -> Role:
        """The opposite leg."""
        return Role.CALLEE if self is Role.CALLER else Role.CALLER


class Reason(StrEnum):
    """Why a call ended (CONTRACT §2.1 ``endReason``)."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DECLINED = "declined"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    CONNECT_FAILED = "connect_failed"
    CONNECTION_LOST = "connection_lost"
    CALLER_LOST = "caller_lost"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    MAX_DURATION = "max_duration"
    POLICY = "policy"
    SERVER_RECOVERED = "server_recovered"


# What a callee sees as a missed call in the history.
MISSED = frozenset({Reason.NO_ANSWER, Reason.UNREACHABLE, Reason.CANCELLED, Reason.CALLER_LOST, Reason.BUSY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """The machine's spans, in seconds.

    ``lease`` is how long a peer's media report proves a leg without a socket; ``payee_proof`` how long the reports of
    the one who earns by it can prove the payer's, in a paid call.
    """

    ring: int = 45
    connect: int = 30
    reconnect: int = 30
    longest: int = 14_400
    caller_grace: int = 15
    lease: int = 15
    payee_proof: int = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A person as they were when the call began."""

    user_id: str
    username: str
    display_name: str
    avatar_url: str | None = None
    rate_per_minute_minor: int | None = None
    video_rate_per_minute_minor: int | None = None
    currency: str = "NGN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A tariff; money in minor units of ``currency``. A rate of 0 is a free call, without fee or minimum.

    The first ``first_block_seconds`` are charged whole, then every ``block_seconds``; ``connect_fee_minor`` comes on
    top once, and no less than ``minimum_minor`` is charged once the two have talked. See ``models/calls/tariff.py``.
    """

    rate_per_minute_minor: int = 0
    currency: str = "NGN"
    first_block_seconds: int = 60
    block_seconds: int = 60
    connect_fee_minor: int = 0
    minimum_minor: int = 0

    @property
    def free(self) -> bool:
        """Whether nothing is charged however long the call is."""
        return self.rate_per_minute_minor == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """An earlier stretch of a call under another tariff (before an upgrade to video), with its conversation in ms."""

    type: str
    price: Price
    talk_ms: int


@dataclass(frozen=True, slots=True)
class Purse:
    """An amount by the two accounts that it came from, in minor units."""

    credits: int = 0
    primary: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.credits + self.primary

    def __add__(self, other: Purse) -> Purse:
        return Purse(self.credits + other.credits, self.primary + other.primary)

    def __sub__(self, other: Purse) -> Purse:
        return Purse(self.credits - other.credits, self.primary - other.primary)


class Stage(StrEnum):
    """How far the money of a call has come (RFC 8506: the credit-control session)."""

    OPEN = "open"  # held and captured while the call lives
    CAPTURED = "captured"  # the price has left the payer's wallet, what was held too much is back in it
    SETTLED = "settled"  # shared between the payee, who may not spend it yet, and the platform
    CLEARED = "cleared"  # the payee's to spend


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The money side of a paid call; it lives and moves with the call's document.

    ``held`` is in the payer's wallet, reserved; ``captured`` has left it. Together they pay for ``granted_ms`` of
    conversation (counted over all segments), beyond which the call cannot go; with what else is in the wallet it
    would last ``reach_ms``, as of the last look (None: without end). ``lead_ms`` before the end of the grant it is
    time to renew; 0 says that there is nothing more to get. ``postings`` numbers holds and captures.
    """

    wallet: str
    share_bps: int
    held: Purse = Purse()
    captured: Purse = Purse()
    granted_ms: int | None = None
    reach_ms: int | None = None
    lead_ms: int = 0
    postings: int = 0
    stage: Stage = Stage.OPEN
    earned_minor: int = 0
    commission_minor: int = 0
    refunded: Purse = Purse()
    refunds: int = 0

    @property
    def secured_minor(self) -> int:
        """What this call can cost at most for now."""
        return self.held.total + self.captured.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One side's device in the call.

    ``epoch`` rises with every take-over. ``process`` holds the device's socket lease (None: a REST client, which
    needs none). ``lost_at`` is set while the socket is gone. ``down_at`` is set while this leg is not proven to be in
    the conversation: the socket is gone, or media that it reports has not come up or has stopped. ``proof_at`` is
    when the other side last reported media from this leg. ``orphaned`` says that the socket went with its process.
    """

    device_id: str
    process: str | None = None
    epoch: int = 1
    reports_media: bool = False
    lost_at: datetime | None = None
    down_at: datetime | None = None
    proof_at: datetime | None = None
    orphaned: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of proven conversation, half open; ``end`` is None while it runs."""

    start: datetime
    end: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiation:
    """The newest offer/answer exchange (JSEP). ``number`` rises with each offer; bodies go when the call ends."""

    number: int = 0
    offerer: Role | None = None
    offer: Mapping[str, Any] | None = None
    answer: Mapping[str, Any] | None = None

    @property
    def pending(self) -> bool:
        """An offer waits for its answer."""
        return self.offer is not None and self.answer is None


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A wish of ``by`` to change the call's type at a ``price``, which the other side has not answered yet."""

    by: Role
    type: str
    at: datetime
    price: Price


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, to be told after it is durable. ``version`` is the call's version it made."""

    kind: str
    version: int
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call at one version. The store swaps one version for the next, guarded by state and version.

    ``price`` is the tariff now, pinned when the call was requested (or upgraded); ``earlier`` are the segments before.
    ``cost_minor`` is the price of the whole call once it has ended, less what was refunded. ``deadline_at``,
    ``renew_at`` (when more money should be reserved) and ``money_due_at`` (when an ended call's money has to be
    looked at) are what jobs look for.

    With a ``room_id`` it is a *stay*: what a participant of a room (the caller) pays to its owner (the callee) while
    there. It is active from its first moment to its end, and nobody commands it but the server (see ``stays.py``).
    """

    id: str
    type: str
    state: State
    version: int
    caller: Party
    callee: Party
    caller_leg: Leg
    callee_leg: Leg | None = None
    rung_devices: tuple[str, ...] = ()
    created_at: datetime
    ringing_at: datetime | None = None
    accepted_at: datetime | None = None
    active_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: Reason | None = None
    ended_by: str | None = None
    intervals: tuple[Interval, ...] = ()
    price: Price = field(default_factory=Price)
    earlier: tuple[Segment, ...] = ()
    charge: Charge | None = None
    cost_minor: int = 0
    negotiation: Negotiation = field(default_factory=Negotiation)
    upgrade: Upgrade | None = None
    quality: Mapping[str, Any] = field(default_factory=dict)
    op_id: str | None = None
    room_id: str | None = None
    deadline_at: datetime | None = None
    renew_at: datetime | None = None
    money_due_at: datetime | None = None
    untold: tuple[Fact, ...] = ()

    @property
    def live(self) -> bool:
        """Not ended."""
        return self.state is not State.ENDED

    def role_of(self, user_id: str) -> Role | None:
        """The leg that belongs to ``user_id``; None for anybody else."""
        if user_id == self.caller.user_id:
            return Role.CALLER
        return Role.CALLEE if user_id == self.callee.user_id else None

    def party(self, role: Role) -> Party:
        """The person of a leg."""
        return self.caller if role is Role.CALLER else self.callee

    def leg(self, role: Role) -> Leg | None:
        """The device of a leg; the callee has none before the accept."""
        return self.caller_leg if role is Role.CALLER else self.callee_leg

    @property
    def talked(self) -> timedelta:
        """The sum of the closed intervals."""
        return sum((i.end - i.start for i in self.intervals if i.end is not None), timedelta())

    def talk_ms(self, now: datetime | None = None) -> int:
        """Milliseconds of proven conversation, with the running interval up to ``now`` where it is given.

        However late it is: nobody talks on longer than is paid for.
        """
        talked = self.talked // _MS
        if now is None or not self.intervals or self.intervals[-1].end is not None:
            return talked
        running = max(timedelta(), now - self.intervals[-1].start) // _MS
        if self.charge is not None and self.charge.granted_ms is not None:
            running = min(running, max(0, self.charge.granted_ms - talked))
        return talked + running

    def spoken_seconds(self) -> int:
        """Whole seconds of proven conversation in the closed intervals."""
        return int(self.talked.total_seconds())

    def duration_seconds(self) -> int:
        """Whole seconds from the first media to the end; 0 while the call is live or when it never connected."""
        if self.active_at is None or self.ended_at is None:
            return 0
        return max(0, int((self.ended_at - self.active_at).total_seconds()))
