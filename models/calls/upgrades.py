"""The moves by which a call changes its type, and its price with it. Pure, like ``moves.py``."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from models.calls import commands as c
from models.calls import tariff
from models.calls.call import Call, Price, Role, Segment, Timers, Upgrade
from models.calls.moves import Told, held
from models.errors import Refusal


def ask_upgrade(
    call: Call, cmd: c.AskUpgrade, role: Role, now: datetime, timers: Timers
) -> tuple[Call, Told]:
    held(call, role, cmd.device_id)
    if call.type == cmd.type:
        return call, []
    if call.upgrade is not None and call.upgrade.by is role:
        return call, []
    if call.upgrade is not None:
        # Both want the same at once: that is the consent.
        return answer_upgrade(call, c.AnswerUpgrade(cmd.device_id, True), role, now, timers)
    return replace(call, upgrade=Upgrade(role, cmd.type, now, cmd.price)), [
        ("upgrade_asked", {"by": role, "type": cmd.type})
    ]


def answer_upgrade(
    call: Call, cmd: c.AnswerUpgrade, role: Role, now: datetime, timers: Timers
) -> tuple[Call, Told]:
    held(call, role, cmd.device_id)
    asked = call.upgrade
    if asked is None:
        if cmd.accept and call.type == "video":
            return call, []
        raise Refusal("CALL_WRONG_STATE", callId=call.id, state=call.state.value, hint="nobody asked")
    if asked.by is role:
        raise Refusal("CALL_WRONG_SIDE", callId=call.id)
    told: Told = [("upgrade_answered", {"by": role, "accept": cmd.accept, "type": asked.type})]
    if not cmd.accept:
        return replace(call, upgrade=None), told
    return replace(at_price(call, asked.price, now), upgrade=None, type=asked.type), told


def at_price(call: Call, price: Price, now: datetime) -> Call:
    """The call as it goes on at ``price``: what was said so far becomes a segment of its own."""
    if price == call.price:
        return call
    said = Segment(type=call.type, price=call.price, talk_ms=call.talk_ms(now) - tariff.earlier_ms(call))
    return replace(call, price=price, earlier=(*call.earlier, said))
