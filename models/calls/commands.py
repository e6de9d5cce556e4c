"""What can be asked of a call. Imperative, without who asks and when: those are arguments of ``rules.step``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.calls.call import Charge, Price, Reason, Role


@dataclass(frozen=True, slots=True)
class Ring:
    """A device of the callee says that it rings."""

    device_id: str


@dataclass(frozen=True, slots=True)
class Accept:
    """A device of the callee takes the call. ``process`` holds its socket, None for a REST client."""

    device_id: str
    process: str | None
    answer: Mapping[str, Any] | None = None
    reports_media: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """The callee refuses, on all devices."""

    device_id: str
    reason: Reason = Reason.DECLINED


@dataclass(frozen=True, slots=True)
class HangUp:
    """Either side ends the call: cancels, declines or completes it, by its state."""

    device_id: str


@dataclass(frozen=True, slots=True)
class Connected:
    """Media flows on the side of the one who says so."""

    device_id: str


@dataclass(frozen=True, slots=True)
class Report:
    """Quality of the media as one side sees it. ``receiving`` is the proof of (or the doubt about) the other leg."""

    device_id: str
    stats: Mapping[str, Any]
    receiving: bool | None


@dataclass(frozen=True, slots=True)
class Resume:
    """A device takes its user's leg up again, its own or another device's."""

    device_id: str
    process: str | None
    reports_media: bool | None = None


@dataclass(frozen=True, slots=True)
class Describe:
    """A session description for the other side."""

    device_id: str
    description: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AskUpgrade:
    """Audio to video at ``price``, with the other side's consent."""

    device_id: str
    type: str
    price: Price


@dataclass(frozen=True, slots=True)
class AnswerUpgrade:
    """The other side's consent or refusal."""

    device_id: str
    accept: bool


@dataclass(frozen=True, slots=True)
class Attach:
    """The socket of a leg's own device is back, at ``process``."""

    role: Role
    device_id: str
    process: str


@dataclass(frozen=True, slots=True)
class Lose:
    """The socket of a leg's device is gone, last heard of at ``last_seen_at``; ``crashed``: with its whole process."""

    role: Role
    device_id: str
    process: str
    last_seen_at: datetime
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: do what is due."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The meter has reserved or captured, or looked again at what is there: the call's money as it is now."""

    charge: Charge


@dataclass(frozen=True, slots=True)
class Stop:
    """The server ends the call: policy, money, recovery. ``at``: it was over then already."""

    reason: Reason
    by: str | None = None
    at: datetime | None = None


Command = (
    Ring
    | Accept
    | Reject
    | HangUp
    | Connected
    | Report
    | Resume
    | Describe
    | AskUpgrade
    | AnswerUpgrade
    | Attach
    | Lose
    | Tick
    | Grant
    | Stop
)
