"""What a row of the trail is, how rows are chained, and how a chain is verified. Pure.

``hash(n) = SHA-256(canonical(row n))``, and a row says the hash of the one before it. The canonical form of a row is
its JSON with the keys in order of their names, without spaces, as UTF-8; the line of an export is that JSON with the
hash in it, so that anybody can verify an export without this program. Whoever changes, removes, inserts or exchanges
rows has to change every later one, and what an outside log has kept of them (``Anchor``).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from models.errors import Refusal

# What the first row says of the one before it.
GENESIS = "0" * 64
# A reason is a sentence or two, for whoever reads the trail years later.
REASON_MAX = 500
# Details are facts of the act, each as short as an id or an amount.
DETAILS_MAX = 16
DETAIL_TEXT_MAX = 300
NAME_MAX = 128

Value = str | int | bool | None

ADMIN, OPERATOR, SYSTEM = "admin", "operator", "system"
ACTOR_KINDS = (ADMIN, OPERATOR, SYSTEM)

# Every act that there is, with its words.
ACTS: Mapping[str, str] = {
    "user.ban": "banned",
    "user.unban": "let in again",
    "user.promote": "made an administrator",
    "user.demote": "made a user again",
    "user.create_admin": "made a new administrator",
    "user.drop_factor": "dropped the second factor",
    "user.end_sessions": "ended all sign-ins",
    "wallet.freeze": "froze a wallet",
    "wallet.unfreeze": "opened a frozen wallet",
    "call.end": "ended a call",
    "call.refund": "refunded a call",
    "payment.refund": "refunded a payment",
    "payment.look": "marked a payment as looked at",
    "payment.settle_refund": "decided what became of a refund",
    "payout.approve": "approved a withdrawal",
    "payout.reject": "rejected a withdrawal",
    "payout.submit": "had a withdrawal submitted",
    "payout.void": "gave a withdrawal back",
    "payout.authorize": "gave the password of a withdrawal",
    "payout.resend": "had the password of a withdrawal sent again",
    "report.resolve": "closed a report",
    "address.block": "blocked addresses",
    "address.unblock": "took a block of addresses back",
    "admin.sign_in": "signed in to the administrators' pages",
    "admin.sign_out": "signed out of the administrators' pages",
    "trail.export": "exported the trail",
}

_HASH = re.compile(r"[0-9a-f]{64}")
_ANCHOR = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")
_ROW_KEYS = frozenset({"seq", "at", "actor", "act", "target", "reason", "details", "previous", "hash"})


class Malformed(Exception):
    """Something that should be a row of the trail is none; the text says in what."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: an administrator with a session, whoever has the command line, or the server by itself."""

    kind: str
    user_id: str | None = None
    name: str | None = None
    address: str | None = None

    @classmethod
    def admin(cls, user_id: str, name: str, address: str | None = None) -> Actor:
        """An administrator; ``address`` is where the request came from."""
        return cls(ADMIN, user_id, name[:NAME_MAX], address)

    @classmethod
    def operator(cls, name: str | None = None) -> Actor:
        """Somebody at the command line; ``name`` is what the machine calls them."""
        return cls(OPERATOR, None, name[:NAME_MAX] if name else None, None)

    @classmethod
    def system(cls) -> Actor:
        """The server, by a rule and not by a person."""
        return cls(SYSTEM)


@dataclass(frozen=True, slots=True)
class Target:
    """What is acted on: ``kind`` is user, wallet, call, payment, payout, report, address or trail."""

    kind: str
    id: str
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What somebody does, before it has a place in the chain."""

    actor: Actor
    act: str
    target: Target
    reason: str
    details: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An act in its place. ``seq`` counts from 1 without gaps."""

    seq: int
    at: datetime
    actor: Actor
    act: str
    target: Target
    reason: str
    details: Mapping[str, Value]
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """What is known of the chain outside of the database: that row ``seq`` has this hash."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verification has found. ``broken``: the first number at which the chain does not hold."""

    ok: bool
    rows: int
    seq: int
    hash: str
    broken: int | None = None
    said: str = ""


def checked_reason(text: str) -> str:
    """A reason as it is kept: one line, without characters that steer. Refuses with ``VALIDATION_FAILED``."""
    reason = _one_line(text)
    if not 1 <= len(reason) <= REASON_MAX:
        raise Refusal("VALIDATION_FAILED", reason=[f"Say why, in 1 to {REASON_MAX} characters."])
    return reason


def reason_of(text: str | None, otherwise: str) -> str:
    """A note that was written for something else as a reason: cut where it is too long, ``otherwise`` without one."""
    return _one_line(text or "")[:REASON_MAX] or otherwise


def _one_line(text: str) -> str:
    kept = unicodedata.normalize("NFC", text)
    steer = {"Cc", "Cf", "Cs"}
    return " ".join("".join(" " if unicodedata.category(ch) in steer else ch for ch in kept).split())


def row_after(act: Act, *, seq: int, previous: str, at: datetime) -> Row:
    """The row that ``act`` makes behind the row number ``seq`` whose hash is ``previous``."""
    assert act.act in ACTS, "every act has its words"
    assert act.actor.kind in ACTOR_KINDS
    assert len(act.details) <= DETAILS_MAX, "details are few"
    assert 1 <= len(act.reason) <= REASON_MAX, "checked before"
    details = {
        name: value[:DETAIL_TEXT_MAX] if isinstance(value, str) else value
        for name, value in act.details.items()
    }
    said = {
        "seq": seq + 1,
        "at": at,
        "actor": act.actor,
        "act": act.act,
        "target": act.target,
        "reason": act.reason,
        "details": details,
        "previous": previous,
    }
    row = Row(**said, hash="")  # type: ignore[arg-type]  # one name for each field
    return Row(**said, hash=hash_of(row))  # type: ignore[arg-type]


def said_of(row: Row) -> dict[str, Any]:
    """All that a row says but its own hash, as JSON has it."""
    actor, target = row.actor, row.target
    return {
        "seq": row.seq,
        "at": time_of(row.at),
        "actor": {
            "kind": actor.kind,
            "user_id": actor.user_id,
            "name": actor.name,
            "address": actor.address,
        },
        "act": row.act,
        "target": {"kind": target.kind, "id": target.id, "name": target.name},
        "reason": row.reason,
        "details": dict(row.details),
        "previous": row.previous,
    }


def time_of(at: datetime) -> str:
    """RFC 3339, UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def canonical(said: Mapping[str, Any]) -> str:
    """The one form in which something is hashed and exported."""
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_of(row: Row) -> str:
    """The hash that a row has by what it says."""
    return _digest(canonical(said_of(row)))


def _digest(text: str) -> str:
    # A lone surrogate, which no row of ours has, must not stop a verification.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def line_of(row: Row) -> str:
    """A row as a line of an export, without the end of the line."""
    return canonical({**said_of(row), "hash": row.hash})


def row_of_line(line: str) -> Row:
    """A line of an export as a row. Raises ``Malformed``."""
    try:
        found = json.loads(line)
        if not isinstance(found, dict):
            raise Malformed("not an object")
        return row_of({**found, "at": datetime.fromisoformat(found["at"])})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Malformed("not a line of an export") from error


def row_of(found: Mapping[str, Any]) -> Row:
    """Something with the fields of a row, and nothing else, as a row. Raises ``Malformed``."""
    if set(found) != _ROW_KEYS:
        raise Malformed(f"its fields are {', '.join(sorted(map(str, found)))}")
    _one_of(found, "seq", int)
    _one_of(found, "at", datetime)
    for name in ("act", "reason", "previous", "hash"):
        _one_of(found, name, str)
    actor = _part(found, "actor", ("kind", "user_id", "name", "address"))
    target = _part(found, "target", ("kind", "id", "name"))
    details = found["details"]
    if not isinstance(details, Mapping) or not all(
        value is None or isinstance(value, (str, int)) for value in details.values()
    ):
        raise Malformed("its details are not texts and numbers")
    if not _HASH.fullmatch(found["hash"]):
        raise Malformed("its hash is none")
    at: datetime = found["at"]
    return Row(
        seq=found["seq"],
        at=at if at.tzinfo else at.replace(tzinfo=UTC),
        actor=Actor(**actor),
        act=found["act"],
        target=Target(**target),
        reason=found["reason"],
        details=dict(details),
        previous=found["previous"],
        hash=found["hash"],
    )


def _one_of(found: Mapping[str, Any], name: str, kind: type) -> None:
    if not isinstance(found[name], kind) or isinstance(found[name], bool):
        raise Malformed(f"{name} is not a {kind.__name__}")


def _part(found: Mapping[str, Any], name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    part = found[name]
    if not isinstance(part, Mapping) or set(part) != set(keys):
        raise Malformed(f"{name} has other fields")
    if not all(value is None or isinstance(value, str) for value in part.values()):
        raise Malformed(f"{name} is not made of texts")
    return dict(part)


def anchor_of(text: str) -> Anchor:
    """``SEQ:HASH`` as an outside log has it. Raises ``ValueError``."""
    found = _ANCHOR.fullmatch(text.strip())
    if found is None:
        raise ValueError("a number and a hash are expected, as 17:9f86…")
    return Anchor(int(found[1]), found[2])


class Walk:
    """A verification, row by row in order; ``broken`` and ``said`` tell of the first that does not hold."""

    def __init__(self, anchor: Anchor | None = None) -> None:
        self.rows = 0
        self.seq, self.hash = 0, GENESIS
        self.broken: int | None = None
        self.said = ""
        self._anchor = anchor
        self._anchored = anchor is None

    def step(self, found: Row | Malformed) -> bool:
        """Take the next row; False when the chain is broken."""
        if self.broken is not None:
            return False
        number = self.seq + 1
        if isinstance(found, Malformed):
            return self._break(number, f"row {number} is no row: {found}")
        if found.seq != number:
            return self._break(number, f"row {number} is missing; the next one there is {found.seq}")
        if found.previous != self.hash:
            return self._break(number, f"row {number} does not follow the one before it")
        if hash_of(found) != found.hash:
            return self._break(number, f"row {number} was changed: its hash is another")
        if self._anchor is not None and self._anchor.seq == number:
            if self._anchor.hash != found.hash:
                return self._break(number, f"row {number} is another than the log outside has kept")
            self._anchored = True
        self.rows, self.seq, self.hash = self.rows + 1, number, found.hash
        return True

    def end(self, head: Anchor | None) -> Verdict:
        """The verdict, the chain having ended; ``head`` is what the database says of its last row."""
        if self.broken is None and head is not None and (head.seq, head.hash) != (self.seq, self.hash):
            number = min(self.seq, head.seq) + 1
            self._break(number, f"the chain ends at row {self.seq}, and its head is {head.seq}")
        if self.broken is None and not self._anchored:
            assert self._anchor is not None
            said = f"row {self._anchor.seq}, which the log outside has kept, is not there"
            self._break(self.seq + 1, said)
        return Verdict(
            ok=self.broken is None,
            rows=self.rows,
            seq=self.seq,
            hash=self.hash,
            broken=self.broken,
            said=self.said,
        )

    def _break(self, number: int, said: str) -> bool:
        self.broken, self.said = number, said
        return False
