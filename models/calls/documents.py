"""Calls as documents, and documents as calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from enum import Enum
from typing import Any

from models.calls.call import (
    Call,
    Charge,
    Fact,
    Interval,
    Leg,
    Negotiation,
    Party,
    Price,
    Purse,
    Reason,
    Role,
    Segment,
    Stage,
    State,
    Upgrade,
)

Document = dict[str, Any]

_NEVER_CHANGES = {"id", "caller", "callee", "created_at", "op_id", "room_id", "untold"}
_CALL_FIELDS = [f.name for f in fields(Call) if f.name not in _NEVER_CHANGES]


def fields_of(call: Call) -> Document:
    """All that may change in a call."""
    return {name: _plain(getattr(call, name)) for name in _CALL_FIELDS}


def changed(before: Call, after: Call) -> Document:
    """The fields that a swap writes: most steps touch few of them, and descriptions are long."""
    change = {}
    for name in _CALL_FIELDS:
        was, now = getattr(before, name), getattr(after, name)
        if was is not now and was != now:  # most are the same objects; to find them alike takes longer
            change[name] = _plain(now)
    return change


def document_of(call: Call, facts: Sequence[Fact], now: datetime) -> Document:
    """A new call's whole document, with its untold facts."""
    document = {
        "_id": call.id,
        "caller": _plain(call.caller),
        "callee": _plain(call.callee),
        "created_at": call.created_at,
        **fields_of(call),
    }
    if call.op_id is not None:
        document["op_id"] = call.op_id
    if call.room_id is not None:
        document["room_id"] = call.room_id
    if facts:
        document["untold"] = [fact_document(fact) for fact in facts]
        document["untold_at"] = now
    return document


def fact_document(fact: Fact) -> Document:
    """A fact as it is kept with its call until it is told."""
    return {"kind": fact.kind, "version": fact.version, "data": _plain(dict(fact.data))}


def _plain(value: Any) -> Any:
    """Dataclasses, enums and tuples as MongoDB keeps them."""
    if value is None or isinstance(value, (str, int, float, datetime)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}


def call_of(d: Document) -> Call:
    """A document as a call."""
    negotiation = dict(d["negotiation"])
    negotiation["offerer"] = Role(negotiation["offerer"]) if negotiation["offerer"] else None
    upgrade = d.get("upgrade")
    values: dict[str, Any] = {name: d.get(name) for name in _CALL_FIELDS}
    values |= {
        "state": State(d["state"]),
        "end_reason": Reason(d["end_reason"]) if d.get("end_reason") else None,
        "caller": Party(**d["caller"]),
        "callee": Party(**d["callee"]),
        "caller_leg": Leg(**d["caller_leg"]),
        "callee_leg": Leg(**d["callee_leg"]) if d.get("callee_leg") else None,
        "rung_devices": tuple(d["rung_devices"]),
        "intervals": tuple(Interval(i["start"], i["end"]) for i in d["intervals"]),
        "price": Price(**d["price"]),
        "negotiation": Negotiation(**negotiation),
        "earlier": tuple(
            Segment(type=s["type"], price=Price(**s["price"]), talk_ms=s["talk_ms"])
            for s in d.get("earlier", ())
        ),
        "charge": _charge_of(d["charge"]) if d.get("charge") else None,
        "upgrade": _upgrade_of(upgrade) if upgrade else None,
        "untold": tuple(Fact(f["kind"], f["version"], f["data"]) for f in d.get("untold", ())),
    }
    once = {"created_at": d["created_at"], "op_id": d.get("op_id"), "room_id": d.get("room_id")}
    return Call(id=d["_id"], **once, **values)


def _upgrade_of(d: Document) -> Upgrade:
    return Upgrade(Role(d["by"]), d["type"], d["at"], Price(**d["price"]))


def _charge_of(d: Document) -> Charge:
    purses = {name: Purse(**d[name]) for name in ("held", "captured", "refunded")}
    return Charge(**{**d, **purses, "stage": Stage(d["stage"])})
