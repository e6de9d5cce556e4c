"""What the stories of calls have in common: descriptions, candidates, two phones, and what holds of every story."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.doors.phones import Phone

if TYPE_CHECKING:
    from tests.doors.conftest import House, Person

CALL_FIELDS = {
    *(
        "id",
        "type",
        "state",
        "version",
        "caller",
        "callee",
        "createdAt",
        "ringingAt",
        "acceptedAt",
        "activeAt",
    ),
    *(
        "endedAt",
        "endReason",
        "endedBy",
        "durationSeconds",
        "talkSeconds",
        "billedSeconds",
        "price",
        "costMinor",
        "endsInMs",
    ),
    "quality",
    "upgrade",
}
USER_FIELDS = {
    "id",
    "username",
    "displayName",
    "avatarUrl",
    "presence",
    "ratePerMinuteMinor",
    "videoRatePerMinuteMinor",
    "currency",
}
PRICE_FIELDS = {
    *(
        "ratePerMinuteMinor",
        "currency",
        "firstBlockSeconds",
        "blockSeconds",
        "connectFeeMinor",
        "minimumMinor",
        "exponent",
    ),
}


def sdp(ufrag: str = "aaaa", media: str = "audio") -> str:
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    for kind in media.split():
        lines += [f"m={kind} 9 UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", f"a=ice-ufrag:{ufrag}"]
    return "\r\n".join(lines) + "\r\n"


def offer(ufrag: str = "aaaa", media: str = "audio") -> dict[str, str]:
    return {"type": "offer", "sdp": sdp(ufrag, media)}


def answer(ufrag: str = "bbbb", media: str = "audio") -> dict[str, str]:
    return {"type": "answer", "sdp": sdp(ufrag, media)}


def candidate(number: int = 1, ufrag: str | None = None) -> dict[str, Any]:
    line = f"candidate:{number} 1 udp 2113937151 192.0.2.{number % 250} 5{number:04d} typ host"
    found: dict[str, Any] = {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0}
    return {**found, "usernameFragment": ufrag} if ufrag else found


def snapshots_rise(phones: Sequence[Phone]) -> None:
    """What holds in every story: a call's versions never fall, and a person's numbers rise."""
    for phone in phones:
        versions: dict[str, int] = defaultdict(int)
        last = 0
        for name, args in phone.log:
            told = args[0] if args and isinstance(args[0], dict) else {}
            if name == "*connect":
                last = 0  # a replay begins where the device said
            if "logSeq" in told:
                assert told["logSeq"] > last, f"{phone.name}: {name} {told['logSeq']} after {last}"
                last = told["logSeq"]
            if isinstance(told.get("call"), dict):
                call = told["call"]
                assert call["version"] >= versions[call["id"]], f"{phone.name}: an older snapshot by {name}"
                versions[call["id"]] = call["version"]


async def pair(house: House) -> tuple[Person, Phone, Person, Phone]:
    ada, bob = await asyncio.gather(house.person("ada"), house.person("bob"))
    a, b = await asyncio.gather(ada.phone("a"), bob.phone("b"))
    return ada, a, bob, b


async def ring(caller: Phone, callee: Phone, to: Person, **fields: Any) -> str:
    """A call that rings; its id."""
    call = await caller.ask("CALL_REQUEST", {"to": to.id, "type": "audio", **fields})
    await callee.happens("CALL_REQUEST", lambda told: told["callId"] == call["id"])
    return str(call["id"])


async def talk(caller: Phone, callee: Phone, to: Person, **fields: Any) -> str:
    """A call that is active; its id."""
    call_id = await ring(caller, callee, to, **fields)
    call = await callee.ask("CALL_ACCEPT", callId=call_id)
    assert call["state"] == "active"
    await caller.happens("CALL_ACCEPT")
    return call_id
