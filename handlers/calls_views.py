"""How a call looks from outside, and how its facts become letters to devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from handlers.calls_notices import (
    CALL_ACCEPT,
    CALL_ANSWERED_ELSEWHERE,
    CALL_BUSY,
    CALL_ENDED,
    CALL_REJECT,
    CALL_REQUEST,
    CALL_RINGING,
    CALL_TIMEOUT,
    CALL_UPDATED,
    CALL_UPGRADE,
    CALL_UPGRADE_ACCEPT,
    CALL_UPGRADE_REJECT,
    SESSION_DESCRIPTION,
)
from handlers.calls_shapes import CallView, PriceView
from handlers.calls_signals import by_text, candidate_letters
from handlers.shapes import PublicUser
from models.billing.service import remaining_ms
from models.calls import tariff
from models.calls.call import MISSED, Call, Fact, Party, Price, Reason, Role, State
from models.calls.switchboard import Forward
from models.mailbox.service import Mailbox
from models.money import exponent
from models.ports import Clock, Courier, Letter, NoCourier, Pusher
from models.presence.service import Presence, Whereabouts

_CALL = CallView()
_PRICE = PriceView()
_USER = PublicUser()


def party_view(party: Party, presence: Presence) -> dict[str, Any]:
    """A person of a call as ``PublicUser`` in snake_case."""
    return {
        "id": party.user_id,
        "username": party.username,
        "display_name": party.display_name,
        "avatar_url": party.avatar_url,
        "presence": presence.state_of(party.user_id),
        "rate_per_minute_minor": party.rate_per_minute_minor,
        "video_rate_per_minute_minor": party.video_rate_per_minute_minor,
        "currency": party.currency,
    }


def price_view(price: Price) -> dict[str, Any]:
    """A tariff for ``PriceView`` to dump."""
    return {**asdict(price), "exponent": exponent(price.currency)}


async def seen_by(whereabouts: Whereabouts, viewer_id: str, calls: Iterable[Call]) -> Presence:
    """The presence of the people of these calls, as far as ``viewer_id`` may know it."""
    parties = {party.user_id for call in calls for party in (call.caller, call.callee)}
    return await whereabouts.seen_by(viewer_id, parties)


def call_view(call: Call, presence: Presence, now: datetime) -> dict[str, Any]:
    """A call for ``CallView`` and ``CallWithIntervals`` to dump."""
    return {
        "id": call.id,
        "type": call.type,
        "state": call.state.value,
        "version": call.version,
        "caller": party_view(call.caller, presence),
        "callee": party_view(call.callee, presence),
        "created_at": call.created_at,
        "ringing_at": call.ringing_at,
        "accepted_at": call.accepted_at,
        "active_at": call.active_at,
        "ended_at": call.ended_at,
        "end_reason": call.end_reason.value if call.end_reason else None,
        "ended_by": call.ended_by,
        "duration_seconds": call.duration_seconds(),
        "talk_seconds": call.talk_ms(now) // 1000,
        "billed_seconds": tariff.billed(call, now),
        "price": price_view(call.price),
        "cost_minor": tariff.cost(call, now) if call.live else call.cost_minor,
        "ends_in_ms": remaining_ms(call, now) if call.live else None,
        "upgrade": _upgrade_view(call),
        "quality": call.quality,
        "intervals": call.intervals,
    }


def _upgrade_view(call: Call) -> dict[str, Any] | None:
    asked = call.upgrade
    return {"by": asked.by.value, "type": asked.type, "price": price_view(asked.price)} if asked else None


class CallTeller:
    """``models.calls.service.Announcer``: facts become letters, rings become pushes."""

    def __init__(
        self,
        *,
        mailbox: Mailbox,
        presence: Presence,
        pusher: Pusher,
        clock: Clock,
        ring_seconds: int,
        process: str | None = None,
        courier: Courier | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._presence = presence
        self._pusher = pusher
        self._clock = clock
        self._ring_seconds = ring_seconds
        self._process = process
        self._courier = courier or NoCourier()

    async def announce(self, call: Call, facts: Sequence[Fact], *, again: bool) -> None:
        """Keep and tell the letters of the facts, then ask for the pushes."""
        now = self._clock.now()
        if any(fact.kind in _BEGINS_OR_ENDS for fact in facts):
            self._presence.changed(call.caller.user_id, call.callee.user_id)
        wire: dict[str, Any] = dict(_CALL.dump(call_view(call, self._presence, now)))
        letters = [letter for fact in facts for letter in self._letters(call, fact, wire, now)]
        await self._mailbox.post(letters, again=again)
        for fact in facts:
            await self._push(call, fact)

    async def cut(self, call: Call) -> None:
        """``CALL_ENDED`` to the devices that are connected here, without a place in the log: it may come again."""
        wire: dict[str, Any] = dict(_CALL.dump(call_view(call, self._presence, self._clock.now())))
        letters = _ended(self, call, Fact("ended", call.version), wire, self._clock.now())
        await self._mailbox.say_here([replace(letter, key=None) for letter in letters])

    async def forward(self, call: Call, forwards: Sequence[Forward]) -> None:
        """Send candidates on their way: to a process that nothing reaches just now, by the log."""
        await self._mailbox.post(
            [
                replace(letter, key=by_text(letter)) if self.by_log(letter.at) else letter
                for letter in candidate_letters(call, forwards)
            ]
        )

    def by_log(self, process: str | None) -> bool:
        """Whether what is of the moment has to be kept, since that is how a device at that process hears of it."""
        if self._process is None or process in (None, self._process):
            return False
        return not self._courier.reaches

    def _letters(self, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
        return [
            letter
            if letter.key is None
            else _keyed(letter, f"{call.id}:{fact.version}:{letter.event}:{number}", call.id)
            for number, letter in enumerate(_LETTERS[fact.kind](self, call, fact, wire, now))
        ]

    def person(self, party: Party) -> dict[str, Any]:
        """A ``PublicUser`` in wire form."""
        return dict(_USER.dump(party_view(party, self._presence)))

    def rings_until(self, call: Call) -> datetime:
        """When the ring of a call is over at the latest."""
        return call.created_at + timedelta(seconds=self._ring_seconds)

    async def _push(self, call: Call, fact: Fact) -> None:
        about: dict[str, Any] = {
            "call_id": call.id,
            "call_type": call.type,
            "caller": self.person(call.caller),
            "callee_id": call.callee.user_id,
        }
        if fact.kind == "requested" and call.state is State.RINGING:
            await self._pusher.ring(**about, expires_at=self.rings_until(call))
        elif fact.kind == "accepted":
            await self._pusher.stop_ringing(**about, missed=False, answered_on=fact.data["device"])
        elif fact.kind in ("rejected", "timed_out", "ended") and call.accepted_at is None:
            await self._pusher.stop_ringing(**about, missed=call.end_reason in MISSED)


# With these facts two people have become busy, or are no more.
_BEGINS_OR_ENDS = {"requested", "rejected", "timed_out", "ended"}
# A durable letter is marked with this key until it gets its own.
_DURABLE = "-"


def _keyed(letter: Letter, key: str, call_id: str) -> Letter:
    return Letter(
        user_id=letter.user_id,
        event=letter.event,
        payload=letter.payload,
        key=key,
        only_device=letter.only_device,
        except_device=letter.except_device,
        call_id=call_id,
        rings_until=letter.rings_until,
    )


def _to(
    party: Party,
    event: str,
    payload: Mapping[str, Any],
    *,
    only: str | None = None,
    but: str | None = None,
    rings_until: datetime | None = None,
) -> Letter:
    return Letter(
        user_id=party.user_id,
        event=event,
        payload=payload,
        key=_DURABLE,
        only_device=only,
        except_device=but,
        rings_until=rings_until,
    )


def _requested(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    if call.state is not State.RINGING:
        return []  # told late, after a crash: never a ring for what is over
    until = t.rings_until(call)
    payload: dict[str, Any] = {
        "callId": call.id,
        "from": wire["caller"],
        "type": call.type,
        "expiresInMs": max(0, round((until - now).total_seconds() * 1000)),
        "price": wire["price"],
        "version": call.version,
        "call": wire,
    }
    if call.negotiation.offer is not None:
        payload["offer"] = dict(call.negotiation.offer)
    return [_to(call.callee, CALL_REQUEST, payload, rings_until=until)]


def _rang(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    return [_to(call.caller, CALL_RINGING, {"callId": call.id, "from": wire["callee"], "call": wire})]


def _accepted(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    payload = {"callId": call.id, "from": wire["callee"], "call": wire}
    holder = call.caller_leg.device_id
    answer = fact.data["answer"]
    with_answer = {**payload, "answer": dict(answer)} if answer is not None else payload
    elsewhere = {"callId": call.id, "by": "accept"}
    return [
        _to(call.caller, CALL_ACCEPT, with_answer, only=holder),
        _to(call.caller, CALL_ACCEPT, payload, but=holder),
        _to(call.callee, CALL_ANSWERED_ELSEWHERE, elsewhere, but=fact.data["device"]),
    ]


def _rejected(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    event = CALL_BUSY if call.end_reason is Reason.BUSY else CALL_REJECT
    payload = {"callId": call.id, "from": wire["callee"], "reason": wire["endReason"], "call": wire}
    elsewhere = {"callId": call.id, "by": "reject"}
    return [
        _to(call.caller, event, payload),
        _to(call.callee, CALL_ANSWERED_ELSEWHERE, elsewhere, but=fact.data["device"]),
    ]


def _timed_out(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    payload = {"callId": call.id, "reason": wire["endReason"], "call": wire}
    return [_to(party, CALL_TIMEOUT, payload) for party in (call.caller, call.callee)]


def _ended(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    payload = {
        "callId": call.id,
        "reason": wire["endReason"],
        "endedBy": call.ended_by,
        "durationSeconds": wire["durationSeconds"],
        "cost": {"amountMinor": call.cost_minor, "currency": call.price.currency},
        "call": wire,
    }
    return [_to(party, CALL_ENDED, payload) for party in (call.caller, call.callee)]


def _updated(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    payload = {"callId": call.id, "call": wire, **fact.data}
    return [_to(party, CALL_UPDATED, payload) for party in (call.caller, call.callee)]


def _described(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    to = Role(fact.data["to"])
    leg = call.leg(to)
    if leg is None:
        return []
    payload = {
        "callId": call.id,
        "from": call.party(to.other).user_id,
        "description": dict(fact.data["description"]),
    }
    # Not kept: a device that was away resumes, and a resume brings the pending offer or an ICE restart.
    return [
        Letter(
            user_id=call.party(to).user_id,
            event=SESSION_DESCRIPTION,
            payload=payload,
            only_device=leg.device_id,
            key=_DURABLE if t.by_log(leg.process) else None,
            at=leg.process,
        )
    ]


def _leg_taken(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    payload = {"callId": call.id, "by": "takeover"}
    return [
        _to(call.party(Role(fact.data["role"])), CALL_ANSWERED_ELSEWHERE, payload, only=fact.data["device"])
    ]


def _upgrade_asked(
    t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime
) -> list[Letter]:
    by = Role(fact.data["by"])
    payload = {
        "callId": call.id,
        "from": wire[by.value],
        "type": fact.data["type"],
        "price": wire["upgrade"]["price"] if wire["upgrade"] else wire["price"],
        "call": wire,
    }
    return [_to(call.party(by.other), CALL_UPGRADE, payload)]


def _upgrade_answered(
    t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime
) -> list[Letter]:
    by = Role(fact.data["by"])
    event = CALL_UPGRADE_ACCEPT if fact.data["accept"] else CALL_UPGRADE_REJECT
    payload = {"callId": call.id, "from": wire[by.value], "type": fact.data["type"], "call": wire}
    letters = [_to(call.party(by.other), event, payload)]
    changed = {"callId": call.id, "call": wire}
    return [*letters, *(_to(party, CALL_UPDATED, changed) for party in (call.caller, call.callee))]


def _settled(t: CallTeller, call: Call, fact: Fact, wire: dict[str, Any], now: datetime) -> list[Letter]:
    return []  # a call that nobody heard of


_Maker = Callable[[CallTeller, Call, Fact, dict[str, Any], datetime], list[Letter]]
_LETTERS: dict[str, _Maker] = {
    "requested": _requested,
    "settled": _settled,
    "rang": _rang,
    "accepted": _accepted,
    "rejected": _rejected,
    "timed_out": _timed_out,
    "ended": _ended,
    "updated": _updated,
    "described": _described,
    "leg_taken": _leg_taken,
    "upgrade_asked": _upgrade_asked,
    "upgrade_answered": _upgrade_answered,
}


def fresh_ring(letter: Letter, now: datetime) -> Letter:
    """A ring letter for a device that gets it late: what is left of the ring is counted anew."""
    assert letter.rings_until is not None
    left = max(0, round((letter.rings_until - now).total_seconds() * 1000))
    payload = {**letter.payload, "expiresInMs": left}
    return Letter(user_id=letter.user_id, event=letter.event, payload=payload, key=letter.key, seq=letter.seq)


__all__ = ["CallTeller", "call_view", "candidate_letters", "fresh_ring", "party_view", "price_view"]
