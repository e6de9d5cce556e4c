"""The log of who proved who they are, and who could not: one line for each try, whatever its outcome. And of who ran
into a limit or a check.

Somebody's name may be a password that was typed into the wrong field, so the account that was tried is in a line by a
short digest: the same for the same account, and what ``account_mark`` says of a name that one has.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import structlog

from handlers.context import Context
from models.errors import Refusal

log = structlog.get_logger(__name__)

_LABEL = "ringmeter log v1"
MARK_LENGTH = 16
# Limits that were run into, and input that no app of ours sends.
MISUSE = frozenset(
    "RATE_LIMITED TOO_MANY_CANDIDATES VALIDATION_FAILED BAD_JSON PAYLOAD_TOO_LARGE SDP_INVALID SDP_TOO_LARGE "
    "IDEMPOTENCY_MISMATCH MEDIA_TYPE_NOT_ALLOWED MEDIA_HARMFUL MEDIA_QUOTA".split()
)
TOLD_EVERY_SECONDS = 60.0
REMEMBERED_MAX = 10_000


def note_proof(door: str, ctx: Context, refusal: Refusal | None, data: Any, *, account: str | None) -> None:
    """A password, code, token or PIN was shown at ``door``. ``account`` is whom it was tried for."""
    about: dict[str, Any] = {
        "door": door,
        "outcome": refusal.code if refusal else "ok",
        "address": ctx.address,
    }
    user_id = ctx.user_id or _signed_in(data)
    if user_id:
        about["user_id"] = user_id
    elif account:
        about["account"] = account_mark(account)
    log.info("proof", **about)


def note_stranger(door: str, refusal: Refusal, address: str) -> None:
    """Somebody was not let in, who had no token that is good. An expired one is everyday business."""
    if refusal.status in (401, 403) and refusal.code != "TOKEN_EXPIRED":
        log.info("refused", door=door, code=refusal.code, address=address)


def note_misuse(door: str, code: str, user_id: str, address: str, now: float) -> None:
    """A limit or a check stopped somebody. A flood of them is one line a minute; ``now`` in seconds that only rise."""
    if code in MISUSE and _repeats.first((door, code, user_id or address), now):
        log.info("stopped", door=door, code=code, user_id=user_id, address=address)


class Repeats:
    """Who was told of already: at most ``REMEMBERED_MAX``, the longest forgotten first."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def first(self, what: tuple[str, str, str], now: float) -> bool:
        """Whether it is the first for ``TOLD_EVERY_SECONDS``."""
        told = self._told.get(what)
        if told is not None and 0 <= now - told < TOLD_EVERY_SECONDS:
            return False
        self._told[what] = now
        self._told.move_to_end(what)
        if len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)
        return True


_repeats = Repeats()


def account_mark(account: str) -> str:
    """What stands in the log for an account, such as ``EMAIL:ada@example.org`` (the kind of the name, and its key)."""
    return hashlib.sha256(f"{_LABEL}|{account}".encode(errors="replace")).hexdigest()[:MARK_LENGTH]


def _signed_in(data: Any) -> str | None:
    """Whom an answer has let in."""
    user = data.get("user") if isinstance(data, dict) else None
    return user.get("id") if isinstance(user, dict) else None
