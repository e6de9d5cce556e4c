"""Tokens as text: what a good one says, and what is none."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from models.auth.tokens import TokenMint
from models.errors import Refusal

SECRET = "0123456789abcdef0123456789abcdef"
NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
MINT = TokenMint(SECRET, 900)
GOOD: dict[str, Any] = {
    "sub": "u1",
    "sid": "s1",
    "jti": "j1",
    "typ": "access",
    "iss": "ringmeter",
    "aud": "ringmeter",
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 900,
}


def _no(token: str | None, now: datetime = NOW) -> str:
    with pytest.raises(Refusal) as no:
        MINT.read_access(token, now)
    return no.value.code


def test_a_token_says_who_from_which_sign_in_and_until_when() -> None:
    token = MINT.access(user_id="u1", session_id="s1", token_id="j1", now=NOW)
    claims = MINT.read_access(token, NOW)
    assert (claims.user_id, claims.session_id) == ("u1", "s1")
    assert claims.expires_at == datetime(2026, 3, 1, 12, 15, tzinfo=UTC)
    assert set(jwt.decode(token, options={"verify_signature": False})) == set(GOOD)


def test_a_token_expires_by_the_clock_that_is_given_and_by_no_other() -> None:
    token = MINT.access(user_id="u1", session_id="s1", token_id="j1", now=NOW)
    end = MINT.read_access(token, NOW).expires_at
    assert MINT.read_access(token, end - timedelta(milliseconds=1))
    assert _no(token, end) == "TOKEN_EXPIRED"
    far = NOW + timedelta(days=3650)
    assert MINT.read_access(MINT.access(user_id="u", session_id="s", token_id="j", now=far), far)


def test_no_token_is_missing() -> None:
    assert _no(None) == _no("") == "TOKEN_MISSING"


def test_a_token_from_before_there_were_issuers_opens_nothing_and_signs_nobody_out() -> None:
    older = {name: value for name, value in GOOD.items() if name not in ("iss", "aud")}
    assert _no(jwt.encode(older, SECRET, "HS256")) == "TOKEN_EXPIRED"
    assert _no(jwt.encode(older, "another secret of more than 32 bytes", "HS256")) == "TOKEN_INVALID"
    assert _no(jwt.encode({**older, "typ": "other"}, SECRET, "HS256")) == "TOKEN_INVALID"


@pytest.mark.parametrize("claim", list(GOOD))
def test_every_claim_is_required(claim: str) -> None:
    claims = {name: value for name, value in GOOD.items() if name != claim}
    assert _no(jwt.encode(claims, SECRET, "HS256")) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"typ": "refresh"},
            {"iss": "somebody"},
            {"iss": 7},
            {"aud": "another service"},
            {"aud": ["another service"]},
            {"aud": []},
            {"aud": None},
            {"exp": "soon"},
            {"exp": 1e300},
            {"exp": True},
            {"sid": 7},
            {"sub": 7},
            {"jti": 7},
        ),
        *({"sid": {"$ne": 1}}, {"typ": None}),
    ],
)
def test_a_claim_of_another_kind_is_no_claim(change: dict[str, Any]) -> None:
    claims = {**GOOD, **change}
    head, body = ({"alg": "HS256", "typ": "JWT"}, claims)
    text = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, body)
    )
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        text.encode(), SECRET.encode()
    )
    token = f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    assert _no(token) == "TOKEN_INVALID"


def test_another_key_another_algorithm_and_none_are_refused() -> None:
    assert _no(jwt.encode(GOOD, SECRET[::-1], "HS256")) == "TOKEN_INVALID"
    assert _no(jwt.encode(GOOD, SECRET * 2, "HS512")) == "TOKEN_INVALID"
    assert _no(jwt.encode(GOOD, "", "none")) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "rubbish",
    ["x", "a.b.c", "..", "\ud800", "é.é.é", "A" * 3000, base64.b64encode(b"[" * 900).decode() + ".e30.x"],
)
def test_rubbish_is_invalid_and_no_fault(rubbish: str) -> None:
    assert _no(rubbish) == "TOKEN_INVALID"


def test_a_refresh_token_is_the_same_text_every_time_and_read_back() -> None:
    token = MINT.refresh("01950000-0000-7000-8000-000000000001", 3)
    assert token == MINT.refresh("01950000-0000-7000-8000-000000000001", 3)
    assert MINT.read_refresh(token) == ("01950000-0000-7000-8000-000000000001", 3)


def test_a_refresh_token_that_we_did_not_make_is_refused() -> None:
    good = MINT.refresh("s-1", 3)
    session, generation, proof = good.split(".")
    others = [
        *("", "x", "a.b.c", good + "x", good[:-1], f"{session}.4.{proof}", f"s-2.{generation}.{proof}"),
        *(f"{session}.03.{proof}", f"{session}.-3.{proof}", f"{session}.{'9' * 12}.{proof}", good + "\n"),
        *(TokenMint(SECRET[::-1], 900).refresh("s-1", 3), f"{session}.３.{proof}"),
    ]
    for other in others:
        with pytest.raises(Refusal) as no:
            MINT.read_refresh(other)
        assert no.value.code == "REFRESH_INVALID"


def test_an_access_token_is_no_refresh_token_and_the_other_way_round() -> None:
    access = MINT.access(user_id="u1", session_id="s1", token_id="j1", now=NOW)
    with pytest.raises(Refusal):
        MINT.read_refresh(access)
    assert _no(MINT.refresh("s1", 1)) == "TOKEN_INVALID"
