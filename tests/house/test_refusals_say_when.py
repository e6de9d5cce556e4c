"""Whoever is told to wait is told for how long, in the body and in the header (RFC 9110 §10.2.3)."""

from __future__ import annotations

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request

from models.errors import CODES, Refusal
from server.funnel import Answer
from server.rest import answer_with

WAITING_HELPS = {code for code, meaning in CODES.items() if meaning.status in (429, 503)}
# Waiting helps against it until it does not: then ``resetNeeded`` is told in place of a time.
TOLD_BY_WHO_LOCKS = {"PIN_LOCKED"}
# A no that ends by itself, though its status does not say so.
ENDS = {"ADDRESS_BLOCKED", "PAYOUT_COOLING_OFF"}


@pytest.mark.parametrize("code", sorted(WAITING_HELPS - TOLD_BY_WHO_LOCKS))
def test_a_code_that_says_later_has_a_time_of_its_own(code: str) -> None:
    assert (CODES[code].retry_after_ms or 0) > 0
    answer = answer_with(Answer(refusal=Refusal(code)), make_mocked_request("GET", "/"))
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("code", sorted(WAITING_HELPS | ENDS))
@pytest.mark.parametrize(
    ("wait", "seconds"), [(1, "1"), (999, "1"), (1000, "1"), (1001, "2"), (3_600_000, "3600")]
)
def test_a_time_that_is_known_is_told_in_both_ways(code: str, wait: int, seconds: str) -> None:
    no = Refusal(code, retry_after_ms=wait)
    assert Answer(refusal=no).ack()["error"]["retryAfterMs"] == wait
    answer = answer_with(Answer(refusal=no), make_mocked_request("GET", "/"))
    assert answer.status == CODES[code].status
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["error"]["retryAfterMs"] == wait
    assert answer.headers["Retry-After"] == seconds


def test_what_no_waiting_helps_against_says_no_time() -> None:
    for code in ("FORBIDDEN", "ACCOUNT_BANNED", "VALIDATION_FAILED", "CALL_UNKNOWN"):
        answer = answer_with(Answer(refusal=Refusal(code)), make_mocked_request("GET", "/"))
        assert "Retry-After" not in answer.headers
