"""What a session description and a candidate must be to pass. They are checked and never rewritten.

The rules are those of reference implementations and RFC 8866 (SDP), RFC 8839 (candidates): text that starts with
``v=0``, no control characters, a bounded number of media sections, and no video in a call that is for audio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from models.errors import Refusal

SDP_MAX = 64 * 1024
# More media sections than any two-party call has.
MEDIA_MAX = 32
CANDIDATE_MAX = 4 * 1024
FIELD_MAX = 256
LINES_MAX = 65536
_FIELDS = frozenset(("candidate", "sdpMid", "sdpMLineIndex", "usernameFragment"))

# Lone surrogates too: they cannot be written as UTF-8. One search, since a description has some 5 KB.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_MEDIA = re.compile(r"^m=(\w+) (\d+)", re.MULTILINE)
_UFRAG = re.compile(r"^a=ice-ufrag:(\S+)", re.MULTILINE)


def check_description(description: Mapping[str, Any], *, kind: str | None, call_type: str) -> dict[str, Any]:
    """``{type, sdp}`` of a valid description; ``kind`` is the type it has to be.

    Refuses with ``SDP_INVALID``, ``SDP_TOO_LARGE``, and ``CALL_UPGRADE_REQUIRED`` for video in an audio call.
    """
    type_, sdp = description.get("type"), description.get("sdp")
    if type_ not in ("offer", "answer") or (kind is not None and type_ != kind):
        raise Refusal("SDP_INVALID", reason=f"type must be {kind or 'offer or answer'}")
    if not isinstance(sdp, str):
        raise Refusal("SDP_INVALID", reason="sdp must be text")
    if len(sdp) > SDP_MAX or len(sdp.encode(errors="replace")) > SDP_MAX:
        raise Refusal("SDP_TOO_LARGE")
    if not sdp.startswith("v=0"):
        raise Refusal("SDP_INVALID", reason="sdp must start with v=0")
    if _CONTROL.search(sdp):
        raise Refusal("SDP_INVALID", reason="control characters")
    media = _MEDIA.findall(sdp)
    if len(media) > MEDIA_MAX:
        raise Refusal("SDP_INVALID", reason=f"more than {MEDIA_MAX} media sections")
    # A section with port 0 is switched off (RFC 8843 reuses port 9 for live ones).
    if call_type == "audio" and any(name == "video" and port != "0" for name, port in media):
        raise Refusal("CALL_UPGRADE_REQUIRED")
    return {"type": type_, "sdp": sdp}


def ufrags(description: Mapping[str, Any] | None) -> frozenset[str]:
    """The ICE generations (username fragments) that a description opens."""
    return frozenset(_UFRAG.findall(description["sdp"])) if description else frozenset()


def check_candidate(candidate: Any) -> Any:
    """One candidate as ``RTCIceCandidateInit``; ``None`` and ``""`` are the end of candidates.

    Refuses with ``VALIDATION_FAILED``.
    """
    if candidate is None or candidate == "":
        return candidate
    if candidate.__class__ is dict and _usual(candidate):
        return candidate
    if not isinstance(candidate, Mapping):
        raise _bad("A candidate is an object, null or an empty text.")
    line = candidate.get("candidate")
    if (
        not isinstance(line, str)
        or len(line.encode(errors="replace")) > CANDIDATE_MAX
        or _CONTROL.search(line)
    ):
        raise _bad(f"candidate must be text of at most {CANDIDATE_MAX} bytes.")
    out: dict[str, Any] = {"candidate": line}
    for name in ("sdpMid", "usernameFragment"):
        value = candidate.get(name)
        if value is not None:
            if not isinstance(value, str) or len(value) > FIELD_MAX or "\x00" in value:
                raise _bad(f"{name} must be short text.")
            out[name] = value
        elif name in candidate:
            out[name] = None
    number = candidate.get("sdpMLineIndex")
    if number is not None:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < LINES_MAX:
            raise _bad("sdpMLineIndex must be a whole number.")
        out["sdpMLineIndex"] = number
    return out


def _usual(candidate: dict[str, Any]) -> bool:
    """Whether a candidate is plainly as browsers make them, and so may pass as it is: a sixth of the whole check."""
    if not candidate.keys() <= _FIELDS:
        return False
    line, mid = candidate.get("candidate"), candidate.get("sdpMid")
    fragment, number = candidate.get("usernameFragment"), candidate.get("sdpMLineIndex", 0)
    return (
        line.__class__ is str
        and len(line) <= CANDIDATE_MAX
        and line.isascii()
        and line.isprintable()
        and (
            mid is None
            or (mid.__class__ is str and len(mid) <= FIELD_MAX and mid.isascii() and mid.isprintable())
        )
        and (
            fragment is None
            or (
                fragment.__class__ is str
                and len(fragment) <= FIELD_MAX
                and fragment.isascii()
                and fragment.isprintable()
            )
        )
        and number.__class__ is int
        and 0 <= number < LINES_MAX
    )


def generation(candidate: Any) -> str | None:
    """The ICE generation a candidate belongs to, where it says so."""
    return candidate.get("usernameFragment") if isinstance(candidate, Mapping) else None


def _bad(sentence: str) -> Refusal:
    return Refusal("VALIDATION_FAILED", candidate=[sentence])
