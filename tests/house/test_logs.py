"""Log lines are JSON with the request's ids, and keep secrets to themselves."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from server.logs import HIDDEN, configure_logs


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logs("info", production=True, stream=stream)
    yield stream
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def line_of(out: io.StringIO) -> dict[str, Any]:
    lines = out.getvalue().splitlines()
    assert len(lines) == 1
    entry = json.loads(lines[0])
    assert isinstance(entry, dict)
    return entry


def test_a_line_is_json_with_the_ids_of_the_request(out: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1", user_id="u-1", call_id="c-1"):
        structlog.get_logger().info("call ended", reason="completed", duration_seconds=61)
    entry = line_of(out)
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "event": "call ended",
        "level": "info",
        "request_id": "r-1",
        "user_id": "u-1",
        "call_id": "c-1",
        "reason": "completed",
        "duration_seconds": 61,
    }


def test_what_the_libraries_say_has_the_same_form(out: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-2"):
        logging.getLogger("aiohttp.server").error("Error handling request")
    entry = line_of(out)
    assert (entry["event"], entry["level"], entry["logger"], entry["request_id"]) == (
        "Error handling request",
        "error",
        "aiohttp.server",
        "r-2",
    )


def test_below_the_level_nothing_is_said(out: io.StringIO) -> None:
    structlog.get_logger().debug("noise")
    logging.getLogger("engineio.server").info("packet with contents")
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    "key",
    [
        *("password", "currentPassword", "refresh_token", "expoPushToken", "sdp", "Authorization", "text"),
        *("deviceToken", "PIN", "transactionPin", "newPin", "current_pin", "oldPin"),
    ],
)
def test_secrets_are_known_by_their_names_at_any_depth(out: io.StringIO, key: str) -> None:
    structlog.get_logger().warning("refused", **{key: "tell-nobody"}, deep={"list": [{key: "tell-nobody"}]})
    assert "tell-nobody" not in out.getvalue()
    assert line_of(out)[key] == HIDDEN


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "ExponentPushToken[abcdefghijklmnopqrstuv]",
        "Bearer abcdef0123456789",
        "v=0\r\no=- 46117 2 IN IP4 192.0.2.7\r\ns=-",
        "candidate:842163049 1 udp 1677729535 192.0.2.7 46154 typ srflx",
    ],
)
def test_secrets_are_known_by_their_look(out: io.StringIO, secret: str) -> None:
    told = secret.removeprefix("Bearer ")[-12:]
    structlog.get_logger().info(f"got {secret}", note=[secret], error=ValueError(secret))
    try:
        raise RuntimeError(f"bad input: {secret}")
    except RuntimeError:
        structlog.get_logger().exception("fault")
        logging.getLogger("x").exception("fault of a library with %s", secret)
    assert told not in out.getvalue()
    assert out.getvalue().count(HIDDEN) >= 5


def test_the_password_in_an_address_is_hidden_and_the_host_is_not(out: io.StringIO) -> None:
    structlog.get_logger().info("connecting", where="mongodb://ringmeter:hunter2@db.example:27017/")
    assert line_of(out)["where"] == f"mongodb://{HIDDEN}@db.example:27017/"


def test_an_exception_is_shown_without_the_values_of_variables(out: io.StringIO) -> None:
    local = "value-of-a-local-variable"
    try:
        raise KeyError(len(local))
    except KeyError:
        structlog.get_logger().exception("fault")
    entry = line_of(out)
    assert "KeyError" in entry["exception"]
    assert "value-of-a-local" not in entry["exception"].replace('"value-of-a-local-variable"', "")


def test_what_json_does_not_know_is_no_fault(out: io.StringIO) -> None:
    structlog.get_logger().info("odd", thing=object(), raw=b"\xff", number={1: 2}, lots="x" * 10_000)
    assert len(line_of(out)["lots"]) < 5_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_in_development_gets_readable_lines(out: io.StringIO) -> None:
    terminal = Terminal()
    configure_logs("debug", production=False, stream=terminal)
    structlog.get_logger().info("listening", port=3000, token="tell-nobody")
    assert "listening" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    assert "tell-nobody" not in terminal.getvalue()


def test_addresses_that_hold_push_tokens_are_not_logged(out: io.StringIO) -> None:
    logging.getLogger("httpx").info("HTTP Request: POST https://api.push.apple.com/3/device/%s", "ab" * 32)
    logging.getLogger("httpcore.http2").debug("send_request_headers")
    assert out.getvalue() == ""


def test_what_somebody_says_begins_no_line_of_its_own(out: io.StringIO) -> None:
    said = 'x"}\r\n{"event": "forged", "level": "info"}\u2028\x1b[2J\x00'
    with structlog.contextvars.bound_contextvars(user_id=said):
        structlog.get_logger().info(said, name=said, **{said: said})
    (line,) = out.getvalue().rstrip("\n").split("\n")
    entry = json.loads(line)
    assert entry["event"] == entry["user_id"] == entry["name"] == entry[said] == said
    assert not set(line) & set("\r\x1b\x00")
