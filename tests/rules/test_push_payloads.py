"""What is pushed: pure rules."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from models.notify.ports import Push
from models.notify.rings import rules
from models.notify.rings.rules import next_try_at, ways
from models.notify.rings.todo import Todo, What
from models.notify.rules import PAYLOAD_BYTES_MAX, is_expo_token

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RING = Todo(
    call_id="c1",
    what=What.RING,
    call_type="audio",
    caller={"id": "u1", "username": "ann", "displayName": "Ann", "avatarUrl": "https://x.test/a.png"},
    callee_id="u2",
    started_at=NOW,
    rings_until=NOW + timedelta(seconds=45),
    give_up_at=NOW + timedelta(seconds=45),
    attempts=1,
    told=frozenset(),
    refused=frozenset(),
    rung=False,
    lease="l1",
)


@dataclass(frozen=True)
class Token:
    kind: str
    token: str
    device_id: str = "d1"
    user_id: str = "u2"


def push_for(todo: Todo, token: str, now: datetime) -> Push | None:
    """What one Expo token gets."""
    found = ways(todo, [Token("EXPO", token)], senders={"EXPO"}, refused=())
    return rules.push_for(todo, found[0], now) if found else None


@pytest.mark.parametrize(
    "token",
    ["ExponentPushToken[abc-DEF_1]", "ExpoPushToken[x]", "0a1b2c3d-0000-4000-8000-0123456789ab"],
)
def test_an_expo_token_is_known_by_its_shape(token: str) -> None:
    assert is_expo_token(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "ExponentPushToken",
        "ExponentPushToken[]",
        "ExponentPushToken[a]b",
        "ExponentPushToken[a b]",
        "abc",
    ],
)
def test_what_only_begins_like_an_expo_token_is_none(token: str) -> None:
    assert not is_expo_token(token)


def test_a_ring_is_held_no_longer_than_it_rings() -> None:
    late = push_for(RING, "t", NOW + timedelta(seconds=44.2))
    assert late is not None
    assert late.ttl_seconds == 1
    assert push_for(RING, "t", NOW + timedelta(seconds=45)) is None


def test_a_cancel_is_told_only_where_it_may_have_rung() -> None:
    cancelled = replace(RING, what=What.CANCELLED)
    assert push_for(cancelled, "t", NOW) is None
    push = push_for(replace(cancelled, rung=True), "t", NOW)
    assert push is not None
    assert push.title is None


@pytest.mark.parametrize("what", [What.RING, What.MISSED])
def test_a_payload_stays_below_what_the_platforms_take_whatever_the_caller_is_called(what: What) -> None:
    caller = {
        "id": "u1",
        "username": "a" * 32,
        "displayName": "😀" * 250,
        "avatarUrl": "https://x.test/" + "a" * 2000,
    }
    push = push_for(replace(RING, what=what, rung=True, caller=caller), "t", NOW)
    assert push is not None
    assert len(json.dumps(push.data)) <= PAYLOAD_BYTES_MAX
    assert push.data["caller"]["id"] == "u1"
    assert len(push.title or "") <= 64


def test_waits_double_up_to_a_bound_and_end_with_the_ring() -> None:
    waits = []
    for attempts in range(1, 6):
        at = next_try_at(replace(RING, attempts=attempts), NOW)
        assert at is not None
        waits.append((at - NOW).total_seconds())
    assert waits == [1, 2, 4, 5, 5]
    assert next_try_at(RING, NOW + timedelta(seconds=44)) is None
