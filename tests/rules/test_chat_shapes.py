"""What chat takes and what its cursors are."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import ValidationError

from handlers.chat import number_in
from handlers.chat_shapes import (
    AddMembers,
    FoundGroup,
    HistoryQuery,
    MarkMessages,
    MessagesQuery,
    SendMessage,
    TypingIn,
)
from handlers.shapes import decode_cursor, encode_cursor
from models.errors import Refusal


def test_a_message_goes_to_a_person_or_into_a_conversation() -> None:
    common = {"text": "hello", "opId": "1"}
    assert SendMessage().load({**common, "to": "u1"}) == {
        "to": "u1", "text": "hello", "op_id": "1", "attachment_id": None, "reply_to": None, "ciphertexts": None,
    }  # fmt: skip
    assert "to" not in SendMessage().load({**common, "conversationId": "c1"})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"to": None}, "to"),
        ({"conversationId": "c1"}, "to"),
        ({"text": ""}, "text"),
        ({"text": 7}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"text": None}, "text"),
        ({"ciphertexts": []}, "ciphertexts"),
        (
            {"ciphertexts": [{"userId": "u", "deviceId": "d", "type": 3, "body": "not base64!"}]},
            "ciphertexts",
        ),
        ({"ciphertexts": [{"userId": "u", "deviceId": "d", "type": -1, "body": "AAAA"}]}, "ciphertexts"),
        ({"attachmentId": 7}, "attachmentId"),
        ({"replyTo": ""}, "replyTo"),
        ({"opId": ""}, "opId"),
        ({"opId": "x" * 129}, "opId"),
    ],
)
def test_what_is_no_message_names_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as no:
        SendMessage().load({"to": "u1", "text": "hello", "opId": "1", **change})
    assert list(no.value.normalized_messages()) == [field]


@pytest.mark.parametrize("missing", ["to", "text", "opId"])
def test_a_message_needs_an_address_a_text_and_an_op_id(missing: str) -> None:
    ask = {"to": "u1", "text": "hello", "opId": "1"}
    del ask[missing]
    with pytest.raises(ValidationError) as no:
        SendMessage().load(ask)
    assert list(no.value.normalized_messages()) == [missing]


def test_a_file_or_ciphertexts_are_a_message_without_a_text() -> None:
    ask = {"to": "u1", "opId": "1"}
    body = {"userId": "u", "deviceId": "d", "type": 3, "body": "AAAA"}
    assert SendMessage().load({**ask, "attachmentId": "m1"})["text"] is None
    assert SendMessage().load({**ask, "ciphertexts": [body]})["ciphertexts"] == [
        {"user_id": "u", "device_id": "d", "type": 3, "body": "AAAA"}
    ]


@pytest.mark.parametrize(
    "ask",
    [
        {},
        {"conversationId": "c"},
        {"seq": 3},
        {"messageId": "m", "seq": 3},
        {"messageId": "m", "conversationId": "c", "seq": 3},
        {"conversationId": "c", "seq": -1},
        {"conversationId": "c", "seq": 1.5},
        {"conversationId": "c", "seq": "7"},
    ],
)
def test_a_marker_is_at_a_message_or_at_a_number_of_a_conversation(ask: dict[str, Any]) -> None:
    assert MarkMessages().validate(ask)
    assert not MarkMessages().validate({"messageId": "m"})
    assert not MarkMessages().validate({"conversationId": "c", "seq": 0})


def test_one_types_in_one_place_and_reads_in_one_direction() -> None:
    for ask in ({}, {"to": "u", "conversationId": "c"}):
        assert TypingIn().validate(ask)
    assert MessagesQuery().validate({"conversationId": "c", "before": 3, "after": 1})
    assert not MessagesQuery().validate({"conversationId": "c", "after": "1"})


def test_members_come_in_lists_of_ids() -> None:
    for ids in (None, "u1", [7], [""], ["u"] * 513):
        assert FoundGroup().validate({"name": "Us", "memberIds": ids})
        assert AddMembers().validate({"id": "g", "memberIds": ids})
    assert not FoundGroup().validate({"name": "Us", "memberIds": []})


def test_a_cursor_leads_back_to_its_number() -> None:
    assert number_in(decode_cursor(encode_cursor("17"), parts=1)) == 17
    assert number_in(decode_cursor(None, parts=1)) is None


@pytest.mark.parametrize(
    "cursor", ["zzz", encode_cursor("x"), encode_cursor("1", "2"), encode_cursor("9" * 30)]
)
def test_a_cursor_that_is_not_ours_is_refused(cursor: str) -> None:
    with pytest.raises(Refusal):
        number_in(decode_cursor(cursor, parts=1))


def test_the_examples_of_the_documents_pass() -> None:
    for shape in (SendMessage(), HistoryQuery()):
        assert not shape.validate(dict(shape.example))
