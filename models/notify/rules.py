"""What holds for all pushes: limits, waits, which of a device's tokens is used. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from models.notify.ports import APNS_VOIP, EXPO, FCM, Note, Outcome, Sent, Token

# Longer than a provider may take with one request, its queue on our side included.
SEND_SECONDS_MAX = 12
# A to-do whose worker said nothing for so long is another worker's. More than SEND_SECONDS_MAX, by enough for the
# database; less than half a ring, so that a crash does not cost the whole of it.
LEASE_SECONDS = 20
# To-dos of one round: about a full request of a provider (100 notifications) for people with two devices.
BATCH_MAX = 50

# How long a provider may hold what is still worth reading after days: a missed call, a message, an invitation. Whoever
# is away for longer finds it in the app, and is not greeted by a phone full of old notifications.
LASTING_TTL_SECONDS = 7 * 24 * 3600

# Apple and Google take 4096 bytes for the whole notification; what a provider adds of its own stays below the rest.
PAYLOAD_BYTES_MAX = 3500
NAME_SHOWN_MAX = 64

# The ways of a note to a device: kinds of tokens, the best first. A ring goes by what can make a phone ring while its
# app is dead. Nothing but a ring ever goes by APNS_VOIP: iOS would show another call (Apple, PKPushType.voIP). What
# is only shown goes by Expo first, which shows it without the app's help.
_WAYS: Mapping[Note, tuple[str, ...]] = {
    Note.RING: (APNS_VOIP, FCM, EXPO),
    Note.CANCELLED: (FCM, EXPO),
    Note.MISSED: (EXPO, FCM),
    Note.MESSAGE: (EXPO, FCM),
    Note.INVITED: (EXPO, FCM),
}

_EXPO_TOKEN = re.compile(
    r"Expo(nent)?PushToken\[[^\[\]\s]{1,200}\]|[a-z\d]{8}-[a-z\d]{4}-[a-z\d]{4}-[a-z\d]{4}-[a-z\d]{12}",
    re.IGNORECASE,
)


def is_expo_token(text: str) -> bool:
    """Whether this has the shape of an Expo push token: ``ExponentPushToken[…]``, ``ExpoPushToken[…]`` or a bare UUID.

    These are the shapes that Expo's own server library accepts; its Python library refuses the second and the third.
    """
    return _EXPO_TOKEN.fullmatch(text) is not None


def by_device(tokens: Iterable[Token]) -> dict[str, list[Token]]:
    """The tokens of each device."""
    devices: dict[str, list[Token]] = {}
    for token in tokens:
        devices.setdefault(token.device_id, []).append(token)
    return devices


def way(
    note: Note, tokens: Sequence[Token], *, senders: Collection[str], refused: Collection[str]
) -> Token | None:
    """Which of a device's tokens tells it ``note``: the best with a sender that did not refuse it; None: no way."""
    for kind in _WAYS[note]:
        for token in tokens:
            if token.kind == kind and kind in senders and token.token not in refused:
                return token
    return None


def wait_seconds(attempts: int, *, most: float, chance: str) -> float:
    """How long to wait after ``attempts`` tries: double each time from one second, up to ``most``.

    ``chance`` is a fresh id, whose end is random: up to a quarter on top, so that what failed together does not come
    back together.
    """
    share = int(chance[-4:], 16) / 0x10000 if chance else 0.0
    return min(most, 2.0 ** min(attempts - 1, 16)) * (1 + share / 4)


def asked_wait(outcomes: Iterable[Outcome]) -> float:
    """How long the providers want us to wait before another try, in seconds; 0 when they do not say."""
    return max((o.retry_after_seconds or 0.0 for o in outcomes if o.sent is Sent.LATER), default=0.0)


def name_of(person: Mapping[str, Any]) -> str:
    """What to call somebody in a notification."""
    name = str(person.get("displayName") or person.get("username") or "Somebody")
    return shortened(name, NAME_SHOWN_MAX)


def shortened(text: str, most: int) -> str:
    """``text`` in at most ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def fitting(data: dict[str, Any], person: str) -> dict[str, Any]:
    """``data`` with as much of its ``person`` as a notification can carry: without the picture if it must be."""
    if len(json.dumps(data)) > PAYLOAD_BYTES_MAX:
        data = {**data, person: {**data[person], "avatarUrl": None}}
    if len(json.dumps(data)) > PAYLOAD_BYTES_MAX:
        data = {**data, person: {"id": data[person].get("id"), "displayName": name_of(data[person])}}
    return data


def after(now: datetime, seconds: float) -> datetime:
    """The instant so much later, in whole milliseconds as the database keeps them."""
    return now + timedelta(milliseconds=round(seconds * 1000))


def rfc3339(value: datetime) -> str:
    """An instant as all doors write it."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
