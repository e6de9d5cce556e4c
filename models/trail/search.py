"""What of the trail is searched for, and whether a row is that. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from models.trail.rules import Row
from models.users.rules import folded


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is searched for; None is anything. ``actor`` and ``target`` are an id or a name, ``act`` one or a group."""

    actor: str | None = None
    act: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        for name in ("actor", "act", "target", "text"):
            value = getattr(self, name)
            object.__setattr__(self, name, folded(value) or None if value else None)


def matches(wanted: Wanted, row: Row) -> bool:
    """Whether a row is what is searched for."""
    who, what = row.actor, row.target
    if wanted.actor and wanted.actor not in _names(who.user_id, who.name, who.kind):
        return False
    if wanted.target and wanted.target not in _names(what.id, what.name):
        return False
    if wanted.act and wanted.act not in (row.act, row.act.partition(".")[0]):
        return False
    if (wanted.since and row.at < wanted.since) or (wanted.until and row.at >= wanted.until):
        return False
    if wanted.text:
        words = folded(
            " ".join(
                str(value)
                for value in (row.reason, who.name, what.name, what.id, *row.details.values())
                if value is not None
            )
        )
        return all(word in words for word in wanted.text.split())
    return True


def _names(*values: str | None) -> set[str]:
    return {folded(value) for value in values if value}
