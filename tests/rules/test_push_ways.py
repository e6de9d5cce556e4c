"""Which of a device's tokens tells it what; and the waits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from models.notify.ports import Note, Outcome, Sent
from models.notify.rings.rules import ways
from models.notify.rings.todo import What
from models.notify.rules import asked_wait, wait_seconds, way
from server.adapters.retry_after import retry_after_seconds
from tests.rules.test_push_payloads import NOW, RING

ALL = ("EXPO", "FCM", "APNS_VOIP")


@dataclass(frozen=True)
class Token:
    kind: str
    token: str
    device_id: str = "d1"
    user_id: str = "u2"


def used(note: Note, *kinds: str, refused: tuple[str, ...] = ()) -> str | None:
    """The kind of token that a device with these kinds is told by."""
    tokens = [Token(kind, f"t-{kind}") for kind in kinds]
    found = way(note, tokens, senders=ALL, refused={f"t-{kind}" for kind in refused})
    return found.kind if found else None


@pytest.mark.parametrize("note", [note for note in Note if note is not Note.RING])
def test_nothing_but_a_ring_goes_by_voip(note: Note) -> None:
    assert used(note, "APNS_VOIP") is None
    assert used(note, "APNS_VOIP", "EXPO") == "EXPO"


def test_a_ring_goes_by_the_native_token_and_else_by_expo() -> None:
    assert used(Note.RING, "EXPO", "APNS_VOIP") == "APNS_VOIP"
    assert used(Note.RING, "EXPO", "FCM") == "FCM"
    assert used(Note.RING, "EXPO", "FCM", refused=("FCM",)) == "EXPO"
    assert used(Note.RING, "EXPO", "FCM", refused=("FCM", "EXPO")) is None


def test_what_stops_a_ring_goes_the_way_of_the_ring_and_what_is_shown_by_expo() -> None:
    assert used(Note.CANCELLED, "EXPO", "FCM") == "FCM"
    for note in (Note.MISSED, Note.MESSAGE, Note.INVITED):
        assert used(note, "EXPO", "FCM") == "EXPO"
        assert used(note, "FCM") == "FCM"


def test_a_kind_without_a_sender_is_passed_over() -> None:
    tokens = [Token("FCM", "t1"), Token("EXPO", "t2")]
    found = way(Note.RING, tokens, senders={"EXPO"}, refused=())
    assert found is not None
    assert found.kind == "EXPO"


def test_a_missed_call_is_two_notes_only_where_it_rang_by_one_token_and_is_shown_by_another() -> None:
    missed = replace(RING, what=What.MISSED)
    both = [Token("EXPO", "t1"), Token("FCM", "t2")]

    def notes(rung: bool, tokens: list[Token]) -> list[Note]:
        found = ways(replace(missed, rung=rung), tokens, senders=ALL, refused=())
        return [one.note for one in found]

    assert notes(True, both) == [Note.CANCELLED, Note.MISSED]
    assert notes(False, both) == [Note.MISSED]
    assert notes(True, both[:1]) == notes(True, both[1:]) == [Note.MISSED]


def test_waits_double_and_what_failed_together_does_not_come_back_together() -> None:
    plain = [wait_seconds(attempts, most=300, chance="") for attempts in range(1, 12)]
    assert plain == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    shifted = {wait_seconds(5, most=300, chance=f"00-{n:04x}") for n in range(0, 0x10000, 997)}
    assert len(shifted) > 60
    assert 16 <= min(shifted) < max(shifted) < 20


def test_the_longest_wait_that_is_asked_for_counts_and_only_of_what_is_tried_again() -> None:
    said = [
        Outcome(sent=Sent.LATER, retry_after_seconds=7),
        Outcome(sent=Sent.LATER),
        Outcome(sent=Sent.NEVER, retry_after_seconds=99),
    ]
    assert asked_wait(said) == 7
    assert asked_wait([]) == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30),
        (" 0 ", 0),
        ("Sun, 01 Mar 2026 12:00:20 GMT", 20),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("9" * 30, None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert datetime(2026, 3, 1, 12, tzinfo=UTC) == NOW
    assert retry_after_seconds(header, now=NOW) == seconds
