"""Candidates as letters: what goes from leg to leg and is kept nowhere, unless the log is the only way."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from handlers.calls_notices import ICE_CANDIDATE
from models.calls.call import Call
from models.calls.switchboard import Forward
from models.ports import Letter


def candidate_letters(call: Call, forwards: Sequence[Forward]) -> list[Letter]:
    """Candidates as letters to the devices that hold the legs."""
    letters = []
    for forward in forwards:
        leg = call.leg(forward.to)
        if leg is None:
            continue
        payload = {
            "callId": call.id,
            "from": call.party(forward.to.other).user_id,
            "candidate": forward.candidate,
        }
        user_id = call.party(forward.to).user_id
        letters.append(
            Letter(
                user_id=user_id,
                event=ICE_CANDIDATE,
                payload=payload,
                only_device=leg.device_id,
                at=leg.process,
            )
        )
    return letters


def by_text(letter: Letter) -> str:
    """The key of a candidate in the log: the same one again is the same letter."""
    text = repr(letter.payload["candidate"]).encode()
    return f"{letter.payload['callId']}:ice:{sha256(text).hexdigest()[:32]}"
