"""The receipt of a call: what was talked, at which price, and what was charged for it. Pure.

There is a copy for each side. Both have the intervals, the segments with their prices, the charges and the total. The
payer's also says what was reserved meanwhile and from which account each charge was taken (its ids are the ones of
the statement); the payee's what of it was earned. A receipt is the same each time it is made; a refund makes a new
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from models.calls import tariff
from models.calls.call import Call, Party, Price, Role, Segment, Stage
from models.ledger.journal import Entry, Kind, Pocket, Sealed, pocket_of
from models.wallet.rules import line_id

VERSION = 1
PAYER, PAYEE = "payer", "payee"

_CHARGES = (Kind.CAPTURE, Kind.REFUND)
_HELD = (Pocket.PRIMARY_HELD, Pocket.CREDITS_HELD)


def ready(call: Call) -> bool:
    """Whether a call has come to where its receipt no longer changes by itself: ended, and settled if it was paid."""
    if call.live:
        return False
    return call.charge is None or call.charge.stage in (Stage.SETTLED, Stage.CLEARED)


def segments_of(call: Call) -> tuple[Segment, ...]:
    """All segments of a call, the last one with the conversation that the ones before leave."""
    left = max(0, call.talk_ms() - tariff.earlier_ms(call))
    return (*call.earlier, Segment(type=call.type, price=call.price, talk_ms=left))


def receipt_of(call: Call, entries: Sequence[Sealed], role: Role) -> dict[str, Any]:
    """One side's copy, without its signature, as JSON of texts and whole numbers. ``entries`` are the call's own.

    ``amountMinor`` of a charge is as the payer sees it: negative for what was paid, positive for what came back.
    """
    assert ready(call)
    assert call.ended_at is not None
    assert call.end_reason is not None
    charge = call.charge
    mine = [one for one in entries if one.entry.kind in _CHARGES] if charge is not None else []
    charges = [line for one in mine for line in _charges(one, charge.wallet if charge else "", role)]
    refunded = charge.refunded.total if charge is not None else 0
    receipt: dict[str, Any] = {
        "version": VERSION,
        "copy": PAYER if role is Role.CALLER else PAYEE,
        "callId": call.id,
        "type": call.type,
        "payer": _person(call.caller),
        "payee": _person(call.callee),
        "currency": currency_of(call),
        "createdAt": _time(call.created_at),
        "acceptedAt": _time(call.accepted_at),
        "activeAt": _time(call.active_at),
        "endedAt": _time(call.ended_at),
        "endReason": call.end_reason.value,
        "intervals": [{"start": _time(i.start), "end": _time(i.end)} for i in call.intervals],
        "segments": [_segment(segment) for segment in segments_of(call)],
        "charges": charges,
        "totalMinor": call.cost_minor,
        "refundedMinor": refunded,
        "issuedAt": _time(
            max([call.ended_at, *(one.entry.at for one in mine if one.entry.kind is Kind.REFUND)])
        ),
    }
    if role is Role.CALLER:
        receipt["reservedMinor"] = sum(_held(one.entry) for one in entries if one.entry.kind is Kind.HOLD)
        receipt["releasedMinor"] = -sum(_held(one.entry) for one in entries if one.entry.kind is Kind.RELEASE)
    else:
        receipt["platformShareBps"] = charge.share_bps if charge is not None else 0
        receipt["earnedMinor"] = charge.earned_minor if charge is not None else 0
    return receipt


def adds_up(receipt: dict[str, Any]) -> bool:
    """Whether the charges are the total: not so when call and journal were read on two sides of a refund."""
    return bool(-sum(charge["amountMinor"] for charge in receipt["charges"]) == receipt["totalMinor"])


def currency_of(call: Call) -> str:
    """The currency in which a call was paid; of a free one, that of its tariff."""
    return call.charge.wallet.rpartition(":")[2] if call.charge is not None else call.price.currency


def _charges(sealed: Sealed, wallet: str, role: Role) -> list[dict[str, Any]]:
    """The payer's statement lines of an entry; for the payee they are one, without the account."""
    entry = sealed.entry
    lines = [line for seal in sealed.seals if seal.wallet == wallet for line in seal.lines]
    if role is Role.CALLEE and lines:
        whole = replace(lines[0], account="", amount_minor=sum(line.amount_minor for line in lines))
        lines = [whole]
    return [
        {
            "id": line_id(entry, line.account),
            "kind": entry.kind.value,
            **({"account": line.account} if line.account else {}),
            "at": _time(entry.at),
            "amountMinor": line.amount_minor,
        }
        for line in lines
    ]


def _held(entry: Entry) -> int:
    """What an entry adds to what is held."""
    places = ((pocket_of(leg.account), leg.amount_minor) for leg in entry.legs)
    return sum(amount for place, amount in places if place is not None and place[1] in _HELD)


def _segment(segment: Segment) -> dict[str, Any]:
    price = segment.price
    return {
        "type": segment.type,
        "price": price_view(price),
        "talkMs": segment.talk_ms,
        "billedSeconds": 0 if price.free else tariff.billed_seconds(price, segment.talk_ms),
        "amountMinor": tariff.cost_of(price, segment.talk_ms),
    }


def price_view(price: Price) -> dict[str, Any]:
    """A tariff as the wire says it."""
    return {
        "ratePerMinuteMinor": price.rate_per_minute_minor,
        "currency": price.currency,
        "firstBlockSeconds": price.first_block_seconds,
        "blockSeconds": price.block_seconds,
        "connectFeeMinor": price.connect_fee_minor,
        "minimumMinor": price.minimum_minor,
    }


def _person(party: Party) -> dict[str, Any]:
    return {"id": party.user_id, "username": party.username}


def _time(value: datetime | None) -> str | None:
    """RFC 3339, UTC, milliseconds."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
