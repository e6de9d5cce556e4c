"""A push in the words of an app's native call module, which both Google's and Apple's channel carry.

A ring is an ``incomingCall`` as the Expo module expo-callkit-telecom reads it before any JavaScript runs: on Apple's
channel an object, on Google's a JSON text. ``eventId`` is the call's id, so a ring that comes twice rings once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from models.notify.ports import Note, Push

_MESSAGE_TYPE = {
    Note.RING: "incomingCall",
    Note.MISSED: "callEnded",
    Note.CANCELLED: "callEnded",
    Note.MESSAGE: "message",
    Note.INVITED: "roomInvite",
}


def incoming_call(push: Push) -> dict[str, Any]:
    """The ``incomingCall`` of a ring."""
    data = push.data
    caller: Mapping[str, Any] = data["caller"]
    return {
        "eventId": data["callId"],
        "serverCallId": data["callId"],
        "hasVideo": data["callType"] == "video",
        "startedAt": data["startedAt"],
        "caller": {
            "id": caller.get("id"),
            "displayName": push.title,
            "avatarUrl": caller.get("avatarUrl"),
        },
        "metadata": {"callType": data["callType"], "expiresAt": data["expiresAt"]},
    }


def data_texts(push: Push) -> dict[str, str]:
    """The ``data`` of a message to Android: our own fields and ``messageType``, every value a text.

    What would be shown (``title``, ``body``) is in it, too: the app shows it itself.
    """
    fields: dict[str, Any] = {**push.data, "messageType": _MESSAGE_TYPE[push.note]}
    if push.note is Note.RING:
        # The caller is in there already, and 4096 bytes are for all.
        fields = {name: value for name, value in fields.items() if name != "caller"}
        fields["incomingCall"] = incoming_call(push)
    elif push.note in (Note.MISSED, Note.CANCELLED):
        fields["callEnded"] = {"eventId": push.data["callId"], "serverCallId": push.data["callId"]}
    if push.note is not Note.RING and push.title is not None:
        fields |= {"title": push.title, "body": push.body}
    return {name: _text(value) for name, value in fields.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
