"""Chat's pure rules."""

from __future__ import annotations

import itertools
import re

import pytest

from models.chat.rules import TEXT_BYTES_MAX, checked_text, pair_id
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
