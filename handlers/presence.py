"""Presence: who is there, told to those who watch and may know (CONTRACT §2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import fields, validate

from handlers.calls_jobs import BEAT_SECONDS, DEAD_AFTER_SECONDS
from handlers.context import Context
from handlers.registry import event, job, notice
from handlers.services import Services
from handlers.shapes import Id, Instant, Shape
from models.mailbox.service import Mailbox
from models.ports import Letter
from models.presence.rules import Seen
from models.presence.service import WATCHED_MAX, Change

_STATES = ["online", "away", "in_call", "offline"]
_ADA = "01985c3e-0000-7000-8000-00000000ada0"
_GROUP = "01985c3e-0000-7000-8000-0000000000c0"


class WatchPresence(Shape):
    """Whose presence a device shows just now; it replaces what it has asked for before. Empty: nobody's."""

    user_ids = fields.List(Id(), required=True, validate=validate.Length(max=WATCHED_MAX))
    example = {"userIds": [_ADA]}


class SetPresence(Shape):
    """Where an app is on its device. Say it after every connect: a device that connects counts as online."""

    state = fields.String(
        required=True,
        validate=validate.OneOf(["online", "away"]),
        metadata={"description": "online: in the foreground; away: in the background, but connected."},
    )
    conversation_id = Id(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "The conversation on the screen: its messages are not pushed to this device."
        },
    )
    example = {"state": "online", "conversationId": _GROUP}


class PresenceView(Shape):
    """What one may see of a person. ``offline`` without a time is also who is unknown, gone or blocked."""

    user_id = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(_STATES))
    last_seen_at = Instant(
        required=True,
        allow_none=True,
        metadata={"description": "While offline: when their last device went; null if never or not for you."},
    )


class PresencesView(Shape):
    """The presence of those who were asked for, in that order, each once."""

    presences = fields.List(fields.Nested(PresenceView), required=True)


PRESENCE = notice(
    "PRESENCE",
    PresenceView,
    "To a device that watches a person: their state has changed. A connection lost for less than 3 s is not told.",
)

_PRESENCE = PresenceView()


@event("PRESENCE_WATCH", takes=WatchPresence, gives=PresencesView)
async def presence_watch(ctx: Context, ask: dict[str, Any]) -> Any:
    """Watch people: their presence now, changes follow as ``PRESENCE`` while this socket lives.

    A second request replaces the first. Watch again after every connect.
    """
    seen = await ctx.services.presence.watch(ctx.user_id, ctx.device_id, ask["user_ids"])
    return {"presences": [presence_view(user_id, one) for user_id, one in seen]}


@event("PRESENCE_SET", takes=SetPresence)
async def presence_set(ctx: Context, ask: dict[str, Any]) -> None:
    """Say whether the app is in the foreground of this device, and which conversation it shows. Safe to repeat."""
    await ctx.services.presence.say(
        ctx.user_id, ctx.device_id, state=ask["state"], conversation_id=ask["conversation_id"]
    )


@job("presence", every_seconds=0.5)
async def presence(services: Services) -> None:
    """Hear what has changed at other processes, and tell watchers what has held for long enough."""
    await services.presence.run_elsewhere()
    await services.presence.run_due()


@job("presence.sweep", every_seconds=1.0)
async def presence_sweep(services: Services) -> None:
    """Look again at everybody who is watched, some at a time, for what nobody lived to say."""
    await services.presence.run_sweep()


@job("presence.leases", every_seconds=BEAT_SECONDS)
async def presence_leases(services: Services) -> None:
    """Find the devices here whose socket went without a word."""
    await services.presence.run_leases()


@job("presence.orphaned", every_seconds=BEAT_SECONDS, anywhere=True)
async def presence_orphaned(services: Services) -> None:
    """Find the devices whose socket went with its process."""
    await services.presence.run_orphaned(DEAD_AFTER_SECONDS, living=services.calls.living)


class PresenceTeller:
    """``models.presence.service.Announcer``: changes become letters to the devices that watch."""

    def __init__(self, *, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def __call__(self, changes: Sequence[Change]) -> None:
        """Tell the changes; nothing is kept, since a device that connects asks anew."""
        await self._mailbox.say_here(
            [
                Letter(
                    user_id=change.watcher[0],
                    only_device=change.watcher[1],
                    event=PRESENCE,
                    payload=dict(_PRESENCE.dump(presence_view(change.user_id, change.seen))),
                )
                for change in changes
            ]
        )


def presence_view(user_id: str, seen: Seen) -> dict[str, Any]:
    """What is seen of a person, for ``PresenceView`` to dump."""
    return {"user_id": user_id, "state": seen.state, "last_seen_at": seen.last_seen_at}
