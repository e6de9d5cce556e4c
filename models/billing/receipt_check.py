"""Checking a receipt by recomputing all of it. It may be anything: the answer is always a list of faults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from models.billing.receipt import PAYEE, PAYER, VERSION
from models.billing.signing import signature_faults
from models.calls import tariff
from models.calls.call import Price, Reason
from models.ledger.journal import Kind
from models.money import AMOUNT_MAX, BPS, split

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_MS = timedelta(milliseconds=1)

_BOTH = {
    *(
        "version",
        "copy",
        "callId",
        "type",
        "payer",
        "payee",
        "currency",
        "createdAt",
        "acceptedAt",
        "activeAt",
    ),
    *("endedAt", "endReason", "intervals", "segments", "charges", "totalMinor", "refundedMinor", "issuedAt"),
    "signature",
}
_OWN = {PAYER: {"reservedMinor", "releasedMinor"}, PAYEE: {"platformShareBps", "earnedMinor"}}


class Malformed(Exception):
    """A receipt does not have the form of one."""


@dataclass(slots=True)
class _Sums:
    """What a receipt says, added up."""

    talk_ms: int = 0
    amount: int = 0
    paid: int = 0
    refunded: int = 0
    refunds: list[datetime] = field(default_factory=list)


def verify(receipt: object, trusted_key: str | None = None) -> list[str]:
    """What is wrong with a signed receipt, in sentences; nothing when it is right.

    ``trusted_key`` is the public key of the server that it should be from; without one any key is believed, and only
    that nothing was altered since is sure.
    """
    if not isinstance(receipt, dict):
        return ["It is not a JSON object."]
    faults = signature_faults(receipt, trusted_key)
    try:
        return faults + _recomputed(receipt)
    except Malformed as fault:
        return [*faults, str(fault)]


def _recomputed(r: Mapping[str, Any]) -> list[str]:
    """Everything that follows from something else in the receipt. Raises ``Malformed``."""
    if r.get("version") != VERSION:
        raise Malformed(f"version: only {VERSION} is known here.")
    if r.get("copy") not in (PAYER, PAYEE):
        raise Malformed(f"copy: neither {PAYER} nor {PAYEE}.")
    _names(r, "", _BOTH | _OWN[r["copy"]])
    for name in ("callId", "type", "currency", "endReason"):
        _text(r, name)
    for side in (PAYER, PAYEE):
        _names(_object(r[side], side), f"{side}.", {"id", "username"})
        _text(r[side], "id", f"{side}.")
        _text(r[side], "username", f"{side}.")
    if r["endReason"] not in {reason.value for reason in Reason}:
        raise Malformed("endReason: not one that a call ends with.")
    total, refunded = _amount(r, "totalMinor"), _amount(r, "refundedMinor")
    sums, faults = _Sums(), _times(r)
    faults += _segments(r, sums) + _charges(r, sums)
    talked = sum((end - start) // _MS for start, end in _intervals(r))
    if sums.talk_ms != talked:
        faults.append(f"The segments have {sums.talk_ms} ms of conversation, the intervals {talked} ms.")
    if total + refunded != sums.amount:
        said = f"totalMinor and refundedMinor are {total + refunded}, the segments cost {sums.amount}."
        faults.append(said)
    if sums.paid != total + refunded:
        faults.append(f"{sums.paid} was charged, the call cost {total + refunded}.")
    if sums.refunded != refunded:
        faults.append(f"refundedMinor is {refunded}, {sums.refunded} was given back.")
    issued = max([_time(r, "endedAt"), *sums.refunds])
    if _time(r, "issuedAt") != issued:
        faults.append("issuedAt is not when the call ended or the last refund was made.")
    return faults + _own(r, total, refunded)


def _own(r: Mapping[str, Any], total: int, refunded: int) -> list[str]:
    """What only one side's copy has."""
    if r["copy"] == PAYER:
        reserved, released = _amount(r, "reservedMinor"), _amount(r, "releasedMinor")
        if reserved - released != total + refunded:
            return [f"{reserved} was reserved and {released} released, the call cost {total + refunded}."]
        return []
    share, earned = _amount(r, "platformShareBps"), _amount(r, "earnedMinor")
    if share > BPS:
        raise Malformed("platformShareBps: more than the whole.")
    expected = split(total, BPS - share)[0]
    return [] if earned == expected else [f"earnedMinor is {earned}, the share of {total} is {expected}."]


def _times(r: Mapping[str, Any]) -> list[str]:
    """Instants in their order, intervals one after another and within the call."""
    names = [
        name
        for name in ("createdAt", "acceptedAt", "activeAt", "endedAt")
        if r[name] is not None or name in ("createdAt", "endedAt")
    ]
    known = [_time(r, name) for name in names]
    faults = []
    if known != sorted(known):
        faults.append(f"{', '.join(names)} are not in this order.")
    edges = [edge for interval in _intervals(r) for edge in interval]
    if edges != sorted(edges):
        faults.append("The intervals do not follow one another.")
    if edges and not (known[0] <= edges[0] and edges[-1] <= known[-1]):
        faults.append("An interval lies outside of the call.")
    if edges and (r["activeAt"] is None or r["acceptedAt"] is None):
        faults.append("There was conversation in a call that never connected.")
    return faults


def _intervals(r: Mapping[str, Any]) -> list[tuple[datetime, datetime]]:
    found = []
    for n, interval in enumerate(_list(r, "intervals")):
        place = f"intervals[{n}]."
        _names(_object(interval, place), place, {"start", "end"})
        found.append((_time(interval, "start", place), _time(interval, "end", place)))
    return found


def _segments(r: Mapping[str, Any], sums: _Sums) -> list[str]:
    """Each segment's price by the tariff."""
    faults = []
    segments = _list(r, "segments")
    if not segments:
        raise Malformed("segments: there is at least one.")
    for n, segment in enumerate(segments):
        place = f"segments[{n}]."
        _names(_object(segment, place), place, {"type", "price", "talkMs", "billedSeconds", "amountMinor"})
        price, talk_ms = _price(segment["price"], f"{place}price."), _amount(segment, "talkMs", place)
        amount, billed = _amount(segment, "amountMinor", place), _amount(segment, "billedSeconds", place)
        seconds = 0 if price.free else tariff.billed_seconds(price, talk_ms)
        if billed != seconds:
            faults.append(f"{place}billedSeconds is {billed}, the tariff says {seconds}.")
        if amount != tariff.cost_of(price, talk_ms):
            said = f"{place}amountMinor is {amount}, the tariff says {tariff.cost_of(price, talk_ms)}."
            faults.append(said)
        if not price.free and price.currency != r["currency"]:
            faults.append(f"{place}price is in {price.currency}, the receipt in {r['currency']}.")
        sums.talk_ms += talk_ms
        sums.amount += amount
        if segment["type"] not in ("audio", "video"):
            raise Malformed(f"{place}type: neither audio nor video.")
    if segments[-1]["type"] != r["type"]:
        faults.append("type is not that of the last segment.")
    return faults


def _price(value: Any, place: str) -> Price:
    numbers = {
        "rate_per_minute_minor": "ratePerMinuteMinor",
        "first_block_seconds": "firstBlockSeconds",
        "block_seconds": "blockSeconds",
        "connect_fee_minor": "connectFeeMinor",
        "minimum_minor": "minimumMinor",
    }
    _names(_object(value, place), place, {"currency", *numbers.values()})
    read = {name: _amount(value, wire, place) for name, wire in numbers.items()}
    if not read["first_block_seconds"] or not read["block_seconds"]:
        raise Malformed(f"{place}firstBlockSeconds, blockSeconds: at least 1.")
    return Price(currency=_text(value, "currency", place), **read)


def _charges(r: Mapping[str, Any], sums: _Sums) -> list[str]:
    """What was taken and given back."""
    faults = []
    names: set[str] = set()
    own = {"account"} if r["copy"] == PAYER else set()
    for n, charge in enumerate(_list(r, "charges")):
        place = f"charges[{n}]."
        _names(_object(charge, place), place, {"id", "kind", "at", "amountMinor"} | own)
        if own and charge["account"] not in ("primary", "call_credits"):
            raise Malformed(f"{place}account: neither primary nor call_credits.")
        name, at = _text(charge, "id", place), _time(charge, "at", place)
        if name in names:
            faults.append(f"{place}id was there before.")
        names.add(name)
        amount = _amount(charge, "amountMinor", place, least=-AMOUNT_MAX)
        if charge["kind"] == Kind.CAPTURE.value and amount:
            # Positive at the end: a renewal had taken more than the conversation came to.
            sums.paid -= amount
        elif charge["kind"] == Kind.REFUND.value and amount > 0:
            sums.refunded += amount
            sums.refunds.append(at)
        else:
            faults.append(f"{place}kind and amountMinor are not those of a charge or a refund.")
    return faults


# ------------------------------------------------------------------------------------------------------ reading


def _names(value: Mapping[str, Any], place: str, names: set[str]) -> None:
    for name in sorted(names - value.keys()):
        raise Malformed(f"{place}{name}: missing.")
    for name in sorted(value.keys() - names):
        raise Malformed(f"{place}{name}: not part of a receipt.")


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{place.rstrip('.')}: not an object.")
    return value


def _list(r: Mapping[str, Any], name: str) -> list[Any]:
    found = r[name]
    if not isinstance(found, list):
        raise Malformed(f"{name}: not a list.")
    return found


def _text(r: Mapping[str, Any], name: str, place: str = "") -> str:
    found = r[name]
    if not isinstance(found, str) or not found:
        raise Malformed(f"{place}{name}: not a text.")
    return found


def _amount(r: Mapping[str, Any], name: str, place: str = "", *, least: int = 0) -> int:
    found = r[name]
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= AMOUNT_MAX:
        raise Malformed(f"{place}{name}: not a whole number from {least} to {AMOUNT_MAX}.")
    return found


def _time(r: Mapping[str, Any], name: str, place: str = "") -> datetime:
    found = r[name]
    if isinstance(found, str) and _TIME.fullmatch(found):
        try:
            return datetime.fromisoformat(found)
        except ValueError:
            pass
    raise Malformed(f"{place}{name}: not an instant such as 2026-01-31T12:00:00.000Z.")
