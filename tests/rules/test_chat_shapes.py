"""What chat takes and what its cursors are."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import ValidationError

from handlers.chat import HistoryQuery, SendMessage, before_number
from handlers.shapes import encode_cursor
from models.errors import Refusal


def test_a_message_goes_to_a_person_or_into_a_conversation() -> None:
    common = {"text": "hello", "opId": "1"}
    assert SendMessage().load({**common, "to": "u1"}) == {"to": "u1", "text": "hello", "op_id": "1"}
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


def test_a_cursor_leads_back_to_its_number() -> None:
    assert before_number(encode_cursor("17")) == 17
    assert before_number(None) is None


@pytest.mark.parametrize(
    "cursor", ["zzz", encode_cursor("x"), encode_cursor("1", "2"), encode_cursor("9" * 30)]
)
def test_a_cursor_that_is_not_ours_is_refused(cursor: str) -> None:
    with pytest.raises(Refusal):
        before_number(cursor)


def test_the_examples_of_the_documents_pass() -> None:
    for shape in (SendMessage(), HistoryQuery()):
        assert not shape.validate(dict(shape.example))
