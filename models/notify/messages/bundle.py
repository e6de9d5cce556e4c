"""The messages of one conversation that one person has not been told of yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A message, as far as a notification shows it. ``preview`` is None when it is encrypted, ``title`` a group's."""

    message_id: str
    seq: int
    sender: Mapping[str, Any]
    preview: str | None
    title: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The to-do of one person and conversation, held by the worker that ``lease`` names.

    ``newest`` came at ``newest_at`` and stands for all ``count``, whose numbers are ``seqs`` (the last of them, when
    they are very many). ``attempts`` counts this one. ``told`` are the
    devices that know of the newest already, ``refused`` the tokens that will not take it.
    """

    id: str
    user_id: str
    conversation_id: str
    newest: News
    newest_at: datetime
    seqs: tuple[int, ...]
    count: int
    attempts: int
    told: frozenset[str]
    refused: frozenset[str]
    lease: str
