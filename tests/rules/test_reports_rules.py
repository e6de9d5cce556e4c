"""What is copied of a reported message, and who may close a report how."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from models.chat.message import Attachment, Ciphertext, Message
from models.errors import Refusal
from models.reports import rules
from models.reports.report import Closing, Reason, Report, Resolution, State

NOW = datetime(2026, 3, 1, 23, 59, 59, 500_000, tzinfo=UTC)
MESSAGE = Message(
    id="m1",
    conversation_id="c1",
    seq=4,
    sender_id="eve",
    device_id="phone",
    op_id="secret of the sender",
    text="Sénd me your PIN",
    created_at=NOW,
    attachment=Attachment(
        id="a1",
        kind="image",
        content_type="image/png",
        size_bytes=9,
        filename=None,
        width=1,
        height=1,
        thumbnail=False,
    ),
)
REPORT = Report(
    id="r1",
    reporter_id="ann",
    reported_id="eve",
    reason=Reason.FRAUD,
    comment=None,
    evidence=rules.evidence_of(MESSAGE),
    created_at=NOW,
)
DISMISSED = Closing(resolution=Resolution.DISMISSED, note=None, by="admin", at=NOW)


def refusal(report: Report, closing: Closing, version: int = 1) -> str:
    with pytest.raises(Refusal) as no:
        rules.closed(report, closing, version=version)
    return no.value.code


def test_evidence_is_the_message_with_a_digest_that_anybody_can_make_again() -> None:
    evidence = rules.evidence_of(MESSAGE)
    assert (evidence.text, evidence.sender_id, evidence.seq) == (MESSAGE.text, "eve", 4)
    said = {
        "message_id": "m1",
        "conversation_id": "c1",
        "seq": 4,
        "version": 1,
        "sender_id": "eve",
        "text": "Sénd me your PIN",
        "encrypted": False,
        "attachment": evidence.attachment,
        "reply_to": None,
        "created_at": "2026-03-01T23:59:59.500000+00:00",
        "edited_at": None,
        "deleted_at": None,
    }
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert evidence.sha256 == sha256(text.encode()).hexdigest()
    assert rules.digest_of(replace(evidence, text="Send me your PIN")) != evidence.sha256


def test_of_an_encrypted_message_no_body_is_copied() -> None:
    body = Ciphertext(user_id="ann", device_id="phone", type=3, body="c2VjcmV0")
    evidence = rules.evidence_of(replace(MESSAGE, text=None, encrypted=True, ciphertexts=(body,)))
    assert evidence.encrypted
    assert "c2VjcmV0" not in repr(evidence)


def test_a_report_is_closed_once_and_the_same_again_changes_nothing() -> None:
    after = rules.closed(REPORT, DISMISSED, version=1)
    assert after is not None
    assert (REPORT.state, after.state, after.version) == (State.OPEN, State.CLOSED, 2)
    assert rules.closed(after, DISMISSED, version=1) is None
    assert rules.closed(after, DISMISSED, version=2) is None
    for other in (
        replace(DISMISSED, resolution=Resolution.BANNED),
        replace(DISMISSED, by="another"),
        replace(DISMISSED, note="why"),
    ):
        assert refusal(after, other) == "REPORT_CLOSED"


def test_what_was_read_at_another_version_is_not_closed() -> None:
    assert refusal(REPORT, DISMISSED, version=2) == "REPORT_CLOSED"


def test_nobody_judges_a_report_of_themselves() -> None:
    assert refusal(REPORT, replace(DISMISSED, by="eve")) == "FORBIDDEN"


def test_the_subject_is_the_message_or_the_person() -> None:
    assert REPORT.subject == "message:m1"
    assert replace(REPORT, evidence=None).subject == "user:eve"


def test_a_day_ends_at_midnight_in_utc() -> None:
    assert rules.day_of(NOW) == "2026-03-01"
    assert rules.ms_to_tomorrow(NOW) == 500
