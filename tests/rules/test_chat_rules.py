"""Chat's pure rules."""

from __future__ import annotations

import itertools
import re

import pytest

from models.chat.conversations.conversation import ADMIN, GROUP, MEMBER, Conversation, Membership
from models.chat.message import Ciphertext, Draft
from models.chat.rules import (
    BODY_BYTES_MAX,
    MEMBERS_MAX,
    TEXT_BYTES_MAX,
    WORD_LENGTH_MAX,
    WORDS_MAX,
    Change,
    added,
    apart,
    appointed,
    check_devices,
    checked,
    checked_name,
    checked_text,
    founded,
    left,
    pair_id,
    query_words,
    removed,
    renamed,
    words_of,
)
from models.errors import Refusal

USERS = [f"01950000-{n:04x}-7000-8000-{n:012x}" for n in range(40)]


def test_a_pair_has_one_conversation_whoever_asks() -> None:
    assert pair_id(USERS[1], USERS[2]) == pair_id(USERS[2], USERS[1])


def test_pairs_do_not_share_a_conversation_and_ids_look_like_ids() -> None:
    pairs = list(itertools.combinations(USERS, 2))
    found = {pair_id(*pair) for pair in pairs}
    assert len(found) == len(pairs)
    uuid7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(uuid7.fullmatch(one) for one in found)
    assert not found & set(USERS)


@pytest.mark.parametrize("text", ["x", " ", "ä" * (TEXT_BYTES_MAX // 2), "😀" * (TEXT_BYTES_MAX // 4)])
def test_a_text_of_up_to_8_kib_passes_unchanged(text: str) -> None:
    assert checked_text(text) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "VALIDATION_FAILED"),
        ("x" * (TEXT_BYTES_MAX + 1), "PAYLOAD_TOO_LARGE"),
        ("ä" * 4097, "PAYLOAD_TOO_LARGE"),
    ],
)
def test_nothing_and_too_much_are_refused(text: str, code: str) -> None:
    with pytest.raises(Refusal) as no:
        checked_text(text)
    assert no.value.code == code


def body(device: str, text: str = "AAAA") -> Ciphertext:
    return Ciphertext(user_id="bob", device_id=device, type=3, body=text)


@pytest.mark.parametrize(
    ("draft", "code"),
    [
        (Draft(op_id="1"), "VALIDATION_FAILED"),
        (Draft(op_id="1", text="", attachment_id="m"), "VALIDATION_FAILED"),
        (Draft(op_id="1", text="hello", ciphertexts=(body("a"),)), "VALIDATION_FAILED"),
        (Draft(op_id="1", ciphertexts=(body("a"), body("a"))), "VALIDATION_FAILED"),
        (Draft(op_id="1", ciphertexts=(body("a", "A" * (BODY_BYTES_MAX + 1)),)), "PAYLOAD_TOO_LARGE"),
    ],
)
def test_what_says_nothing_or_twice_or_too_much_is_no_message(draft: Draft, code: str) -> None:
    with pytest.raises(Refusal) as no:
        checked(draft)
    assert no.value.code == code


def test_a_body_for_each_device_but_the_sending_one_passes() -> None:
    draft = Draft(op_id="1", ciphertexts=(body("a"), body("b")))
    check_devices(draft, {"ann": {"phone"}, "bob": {"a", "b"}}, sender_id="ann", device_id="phone")
    with pytest.raises(Refusal):
        check_devices(draft, {"ann": {"tablet"}, "bob": {"a", "b"}}, sender_id="ann", device_id="phone")


# ------------------------------------------------------------------------------------------------------------- search


def test_words_are_folded_each_once_and_bounded() -> None:
    assert words_of("Good good GOOD morning; it's 7:30, Straße!") == [
        *("good", "morning", "it", "s", "7", "30", "strasse")
    ]
    assert words_of("ﬁne") == ["fine"]
    many = words_of(" ".join(f"w{n}" for n in range(WORDS_MAX + 9)))
    assert (len(many), many[0]) == (WORDS_MAX, "w0")
    assert words_of("x" * 100) == ["x" * WORD_LENGTH_MAX]
    assert query_words("x" * 100) == ["x" * WORD_LENGTH_MAX], "what is kept short is asked for as short"


# ------------------------------------------------------------------------------------------------------------- groups


def group(*members: str, admins: tuple[str, ...] = ()) -> Conversation:
    return Conversation(
        id="g", kind=GROUP, members=members, name="Us", owner_id=members[0], admins=frozenset(admins)
    )


def refusal(change: object) -> str:
    assert callable(change)
    with pytest.raises(Refusal) as no:
        change()
    return no.value.code


def test_who_founds_a_group_owns_it_and_is_in_it_once() -> None:
    change = founded("g", by="ann", name="Us", user_ids=["bob", "ann", "bob"])
    assert change.after.members == change.came == ("ann", "bob")
    assert [change.after.role_of(one) for one in ("ann", "bob", "eve")] == ["owner", "member", None]


def test_no_group_has_more_than_its_members() -> None:
    names = [f"u{n}" for n in range(MEMBERS_MAX)]
    full = founded("g", by=names[0], name="Us", user_ids=names).after
    assert refusal(lambda: founded("g", by="x", name="Us", user_ids=names)) == "GROUP_FULL"
    assert refusal(lambda: added(full, by=names[0], user_ids=["x"])) == "GROUP_FULL"
    assert added(full, by=names[0], user_ids=names[:9]) is None


ROLES = {"owner": "o", "admin": "a", "member": "m", None: "stranger"}


@pytest.mark.parametrize("by", ROLES)
@pytest.mark.parametrize("target", ["admin2", "m2", "owner"])
def test_who_removes_whom(by: str | None, target: str) -> None:
    us = group("o", "a", "m", "a2", "m2", admins=("a", "a2"))
    user_id = {"admin2": "a2", "m2": "m2", "owner": "o"}[target]
    may = by == "owner" or (by == "admin" and target == "m2")
    if may and by == "owner" and target == "owner":
        return  # that is leaving
    if not may:
        assert refusal(lambda: removed(us, by=ROLES[by], user_id=user_id)) == "FORBIDDEN"
        return
    change = removed(us, by=ROLES[by], user_id=user_id)
    assert isinstance(change, Change)
    assert user_id not in change.after.members
    assert user_id not in change.after.admins
    assert (change.went, change.after.version) == ((user_id,), 2)


@pytest.mark.parametrize("by", ROLES)
def test_who_names_adds_and_appoints(by: str | None) -> None:
    us = group("o", "a", "m", admins=("a",))
    leads, owns = by in ("owner", "admin"), by == "owner"
    for allowed, verb in (
        (leads, lambda: renamed(us, by=ROLES[by], name="We")),
        (leads, lambda: added(us, by=ROLES[by], user_ids=["x"])),
        (owns, lambda: appointed(us, by=ROLES[by], user_id="m", role=ADMIN)),
        (owns, lambda: appointed(us, by=ROLES[by], user_id="a", role=MEMBER)),
    ):
        if allowed:
            change = verb()
            assert change is not None
            assert change.after.version == 2
        else:
            assert refusal(verb) == "FORBIDDEN"


def test_what_changes_nothing_is_no_change() -> None:
    us = group("o", "a", "m", admins=("a",))
    assert renamed(us, by="o", name="Us") is None
    assert added(us, by="o", user_ids=["a", "m"]) is None
    assert removed(us, by="o", user_id="x") is None
    assert appointed(us, by="o", user_id="a", role=ADMIN) is None


def test_a_group_always_has_an_owner_while_it_has_members() -> None:
    us = group("o", "m", "a", "a2", admins=("a", "a2"))
    owners = []
    while us.members:
        assert us.owner_id in us.members
        assert us.owner_id not in us.admins
        assert us.admins <= set(us.members)
        owners.append(us.owner_id)
        us = left(us, user_id=us.owner_id or "").after
    assert owners == ["o", "a", "a2", "m"]
    assert us.owner_id is None


@pytest.mark.parametrize("name", ["", " ", "\n\t", "x" * 101])
def test_a_name_is_short_and_there(name: str) -> None:
    with pytest.raises(Refusal):
        checked_name(name)
    assert checked_name("  a \n b ") == "a b"


def test_a_block_parts_two_whoever_made_it() -> None:
    blocks = {("ann", "bob"), ("eve", "ann"), ("bob", "eve")}
    assert apart("ann", blocks) == {"bob", "eve"}
    assert apart("joe", blocks) == set()


def test_a_place_sees_from_coming_to_going() -> None:
    place = Membership(conversation_id="g", user_id="u", joined_seq=3, left_seq=7)
    assert [seq for seq in range(1, 10) if place.sees(seq)] == [4, 5, 6, 7]
    assert [place.clamped(seq, 9) for seq in (2, 7, 9, 99)] == [2, 7, 7, 7]
    assert Membership(conversation_id="g", user_id="u").clamped(99, 9) == 9
