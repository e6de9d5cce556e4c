"""The log of who proved who they are, and who could not: one line for each try, whatever its outcome.

Somebody's name may be a password that was typed into the wrong field, so the account that was tried is in a line by a
short digest: the same for the same account, and what ``account_mark`` says of a name that one has.
"""

from __future__ import annotations

import hashlib
from typing import Any

import structlog

from handlers.context import Context
from models.errors import Refusal

log = structlog.get_logger(__name__)

_LABEL = "ringmeter log v1"
MARK_LENGTH = 16


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


def account_mark(account: str) -> str:
    """What stands in the log for an account, such as ``EMAIL:ada@example.org`` (the kind of the name, and its key)."""
    return hashlib.sha256(f"{_LABEL}|{account}".encode(errors="replace")).hexdigest()[:MARK_LENGTH]


def _signed_in(data: Any) -> str | None:
    """Whom an answer has let in."""
    user = data.get("user") if isinstance(data, dict) else None
    return user.get("id") if isinstance(user, dict) else None
