"""Pure rules of chat: what may be said, to whom, and how a group changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from models.chat.conversations.conversation import ADMIN, GROUP, MEMBER, OWNER, Conversation
from models.chat.message import Draft, Note
from models.errors import Refusal
from models.users.profile import Meeting, Profile
from models.users.rules import folded, one_line, visible

# CONTRACT §1: chat text 8 KiB, in UTF-8.
TEXT_BYTES_MAX = 8 * 1024
# The body of an encrypted message for one device, in base64. A frame bounds them together.
BODY_BYTES_MAX = 64 * 1024
# Every message of a group is a letter to each of its members.
MEMBERS_MAX = 256
NAME_LENGTH_MAX = 100
# Every marker of a member would be a letter to each of the others: in a larger group a message that all of them read
# would be tens of thousands. There, markers are told to the reader's own devices only.
RECEIPTS_MEMBERS_MAX = 32
# What a search can find of a message: its first different words, each by its first letters. One index entry each.
WORDS_MAX = 256
WORD_LENGTH_MAX = 32
QUERY_WORDS_MAX = 8

_WORD = re.compile(r"\w+")


def pair_id(one: str, other: str) -> str:
    """The id of the conversation of two people, whoever of them writes first.

    It looks like every id here (UUIDv7): the time of the younger of the two accounts, then a digest of both.
    """
    low, high = sorted((one, other))
    digest = hashlib.sha256(f"{low} {high}".encode()).hexdigest()
    variant = "89ab"[int(digest[3], 16) % 4]
    return f"{high[:13]}-7{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"


# ------------------------------------------------------------------------------------------------------- what is said


def checked_text(text: str) -> str:
    """``text`` if it may be sent. Refuses with ``VALIDATION_FAILED`` (empty) and ``PAYLOAD_TOO_LARGE``."""
    if not text:
        raise Refusal("VALIDATION_FAILED", text=["A message says something."])
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise Refusal("PAYLOAD_TOO_LARGE", maxBytes=TEXT_BYTES_MAX)
    return text


def checked(draft: Draft) -> Draft:
    """``draft`` if it may be sent: it says something, in clear or for each device, and not too much."""
    if draft.ciphertexts:
        if draft.text is not None:
            raise Refusal("VALIDATION_FAILED", text=["Either text or ciphertexts."])
        if any(len(one.body) > BODY_BYTES_MAX for one in draft.ciphertexts):
            raise Refusal("PAYLOAD_TOO_LARGE", maxBytes=BODY_BYTES_MAX)
        if len({(one.user_id, one.device_id) for one in draft.ciphertexts}) < len(draft.ciphertexts):
            raise Refusal("VALIDATION_FAILED", ciphertexts=["One for each device."])
    elif draft.text is not None or draft.attachment_id is None:
        checked_text(draft.text or "")
    return draft


def check_devices(
    draft: Draft,
    known: Mapping[str, Collection[str]],
    *,
    sender_id: str,
    device_id: str,
    apart: Collection[str] = (),
) -> None:
    """Refuse with ``DEVICES_MISMATCH`` unless there is one body for each device in ``known`` but the sending one.

    Those ``apart`` from the sender are left out of it: who has blocked somebody gives them no keys, and what is
    written for them all the same reaches nobody.
    """
    wanted = {(user, device) for user, devices in known.items() if user not in apart for device in devices}
    wanted.discard((sender_id, device_id))
    given = {(one.user_id, one.device_id) for one in draft.ciphertexts if one.user_id not in apart}
    if wanted != given:
        raise Refusal("DEVICES_MISMATCH", missing=_devices(wanted - given), stale=_devices(given - wanted))


def _devices(pairs: Collection[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"userId": user, "deviceId": device} for user, device in sorted(pairs)]


def words_of(text: str) -> list[str]:
    """The words by which a message is found: folded, each once, in the order in which they come."""
    found = dict.fromkeys(word[:WORD_LENGTH_MAX] for word in _WORD.findall(folded(text)))
    return list(found)[:WORDS_MAX]


def query_words(query: str) -> list[str]:
    """The beginnings of words that a search asks for. Refuses with ``VALIDATION_FAILED`` when there are none."""
    words = words_of(query)[:QUERY_WORDS_MAX]
    if not words:
        raise Refusal("VALIDATION_FAILED", query=["A word to search for."])
    return words


def reachable(meeting: Meeting) -> Profile:
    """The one to write to. Refuses with ``USER_UNKNOWN``, ``USER_BLOCKED`` and ``USER_UNAVAILABLE``."""
    other = meeting.callee
    if other is None:
        raise Refusal("USER_UNKNOWN")
    if meeting.blocked_by_caller:
        raise Refusal("USER_BLOCKED")
    if meeting.blocked_by_callee or not other.active:
        raise Refusal("USER_UNAVAILABLE")
    return other


def apart(user_id: str, blocks: Collection[tuple[str, str]]) -> frozenset[str]:
    """Those between whom and ``user_id`` there is a block, whoever of the two has made it."""
    return frozenset(other for pair in blocks if user_id in pair for other in pair if other != user_id)


# ------------------------------------------------------------------------------------------------------------- groups


@dataclass(frozen=True, slots=True)
class Change:
    """A group after a change, who came and who went, and the note that says so in the row of its messages."""

    after: Conversation
    note: Note
    came: tuple[str, ...] = ()
    went: tuple[str, ...] = ()


def checked_name(name: str) -> str:
    """A group's name, as ``one_line`` makes it. Refuses with ``VALIDATION_FAILED``, also what nobody could see."""
    name = one_line(name)
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not visible(name):
        raise Refusal("VALIDATION_FAILED", name=[f"1 to {NAME_LENGTH_MAX} characters."])
    return name


def founded(group_id: str, *, by: str, name: str, user_ids: Collection[str]) -> Change:
    """A new group of ``by``, who owns it, and others. Refuses with ``GROUP_FULL``."""
    members = tuple(dict.fromkeys((by, *user_ids)))
    _room_for(members)
    after = Conversation(id=group_id, kind=GROUP, members=members, name=name, owner_id=by)
    return Change(after, Note(what="created", user_ids=members[1:], name=name), came=members)


def renamed(group: Conversation, *, by: str, name: str) -> Change | None:
    """Another name. Refuses with ``FORBIDDEN`` who does not lead the group."""
    _leads(group, by)
    if name == group.name:
        return None
    return Change(_next(group, name=name), Note(what="renamed", name=name))


def added(group: Conversation, *, by: str, user_ids: Collection[str]) -> Change | None:
    """More members; who is in already stays. Refuses with ``FORBIDDEN`` and ``GROUP_FULL``."""
    _leads(group, by)
    new = tuple(user for user in dict.fromkeys(user_ids) if user not in group.members)
    if not new:
        return None
    members = (*group.members, *new)
    _room_for(members)
    return Change(_next(group, members=members), Note(what="added", user_ids=new), came=new)


def removed(group: Conversation, *, by: str, user_id: str) -> Change | None:
    """One member less: by who leads the group, and of those who lead it by its owner. Refuses with ``FORBIDDEN``."""
    _leads(group, by)
    role = group.role_of(user_id)
    if role is None:
        return None
    if role != MEMBER and group.role_of(by) != OWNER:
        raise Refusal("FORBIDDEN")
    return _without(group, user_id, "removed")


def left(group: Conversation, *, user_id: str) -> Change:
    """Without one who wants out. An owner's place goes to the first admin, else to the longest there."""
    return _without(group, user_id, "left")


def appointed(group: Conversation, *, by: str, user_id: str, role: str) -> Change | None:
    """A member who leads the group along with its owner (``admin``), or no longer does. Refuses with ``FORBIDDEN``."""
    if group.role_of(by) != OWNER or user_id == by:
        raise Refusal("FORBIDDEN")
    now = group.role_of(user_id)
    if now is None:
        raise Refusal("USER_UNKNOWN")
    if now == role:
        return None
    admins = group.admins | {user_id} if role == ADMIN else group.admins - {user_id}
    return Change(_next(group, admins=admins), Note(what=role, user_ids=(user_id,)))


def _without(group: Conversation, user_id: str, what: str) -> Change:
    members = tuple(member for member in group.members if member != user_id)
    owner, admins = group.owner_id, group.admins - {user_id}
    if owner == user_id:
        owner = next((member for member in members if member in admins), members[0] if members else None)
        admins -= {owner} if owner else set()
    after = _next(group, members=members, owner_id=owner, admins=admins)
    return Change(after, Note(what=what, user_ids=(user_id,)), went=(user_id,))


def _next(group: Conversation, **changes: object) -> Conversation:
    return replace(group, version=group.version + 1, **changes)  # type: ignore[arg-type]


def _leads(group: Conversation, user_id: str) -> None:
    if group.role_of(user_id) not in (OWNER, ADMIN):
        raise Refusal("FORBIDDEN")


def _room_for(members: Collection[str]) -> None:
    if len(members) > MEMBERS_MAX:
        raise Refusal("GROUP_FULL", most=MEMBERS_MAX)
