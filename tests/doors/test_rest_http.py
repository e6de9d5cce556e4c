"""HTTP itself, as strangers misuse it: two lengths, odd methods, secrets in addresses, what is not for the web."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog.testing

from handlers.registry import catalogue
from models.users.store import USERS
from server.proofs import REMEMBERED_MAX, Repeats, account_mark
from server.rest import NEVER_IN_ADDRESSES
from tests.doors.conftest import PASSWORD, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE: dict[str, str] = {}


async def raw(rest: House, head: str, body: bytes = b"") -> bytes:
    """All that is answered on one connection to a request byte by byte."""
    where = urlsplit(rest.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("both lengths", "Content-Length: 4\nTransfer-Encoding: chunked"),
        ("two lengths", "Content-Length: 4\nContent-Length: 40"),
        ("an encoding that is none", "Transfer-Encoding: xchunked"),
        ("a length that is no number", "Content-Length: +4"),
        ("a header that is folded", "X-Some: a\n b: c\nContent-Length: 4"),
        ("a space before the colon", "Content-Length : 4"),
    ],
)
async def test_a_request_whose_end_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    rest: House, name: str, head: str
) -> None:
    smuggled = b"0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await raw(rest, f"POST /api/auth/login HTTP/1.1\nHost: x\nConnection: close\n{head}", smuggled)
    assert answer.count(b"HTTP/1.1 ") <= 1, name
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), (name, answer[:80])


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PROPFIND"])
async def test_methods_that_nobody_needs_are_not_taken(rest: House, method: str) -> None:
    path = "x:1" if method == "CONNECT" else "/api/auth/profile"
    answer = await raw(rest, f"{method} {path} HTTP/1.1\nHost: x\nX-Secret: of a proxy\nConnection: close")
    assert answer.split(b" ", 2)[1] in (b"400", b"404", b"405"), answer[:200]
    assert b"of a proxy" not in answer


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/.git/config",
            "/.env",
            "/main.py",
            "/server/config.py",
            "/static/",
            "/static/demo",
            "/static/demo/",
        ),
        *("/static/demo/../../config.py", "/static/demo/%2e%2e/%2e%2e/config.py", "/docs/", "/%00"),
        *(
            "/static/demo/..%2f..%2fconfig.py",
            "/static/demo//etc/passwd",
            "//etc/passwd",
            "/.data/jwt_secret",
        ),
    ],
)
async def test_nothing_is_served_that_is_not_meant_for_the_web(rest: House, path: str) -> None:
    answer = await raw(rest, f"GET {path} HTTP/1.1\nHost: x\nConnection: close")
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 403, 404), answer[:200]
    assert b"import" not in answer
    assert b"Index of" not in answer


async def test_a_password_in_an_address_is_not_read(rest: House) -> None:
    ada = await rest.person("ada")
    said = f"identifier={ada.username}&password={PASSWORD.replace(' ', '%20')}"
    (await rest.send("POST", f"/api/auth/login?{said}", {})).error(400, "VALIDATION_FAILED")
    body = {"identifier": ada.username}
    (await rest.send("POST", f"/api/auth/login?{said}", body)).error(400, "VALIDATION_FAILED")
    gone = await ada.send("DELETE", f"/api/user/account?{said}&forfeitBalance=true")
    gone.error(400, "VALIDATION_FAILED")
    assert (await ada.get("/api/auth/profile")).status == 200


async def test_an_address_adds_nothing_to_a_body_and_of_two_values_the_first_counts(rest: House) -> None:
    ada = await rest.person("ada")
    answer = await ada.send("PUT", "/api/user/profile?displayName=Mallory&role=admin", {"displayName": "Ada"})
    assert answer.body["user"]["displayName"] == "Ada"
    answer = await ada.send("PUT", "/api/user/profile?displayName=Mallory", {})
    assert "Mallory" not in str(answer.body)
    assert len((await ada.get("/api/users?query=ada&limit=1&limit=50")).body["items"]) <= 1


async def test_no_address_has_to_say_a_secret() -> None:
    for route in catalogue.routes:
        if route.method == "GET":
            names = {name.lower().replace("_", "") for name in route.takes._declared_fields}
            assert not names & NEVER_IN_ADDRESSES, (route.path, names & NEVER_IN_ADDRESSES)


async def test_pages_styles_and_scripts_say_in_which_letters_they_are(rest: House) -> None:
    styles = ("/static/look/look.css", "/static/demo/demo.css")
    for path in ("/", "/docs", "/static/demo/demo.js", *styles, "/metrics"):
        answer = await rest.send("GET", path)
        assert answer.status == 200, path
        assert "charset=utf-8" in answer.headers["Content-Type"].lower(), (
            path,
            answer.headers["Content-Type"],
        )


async def test_a_new_server_knows_nobody(mongo_uri: str) -> None:
    async with open_house(mongo_uri) as new:
        assert await new.db[USERS].find_one({}) is None
        for name in ("admin", "root", "administrator", "test"):
            body = {"identifier": name, "password": name}
            (await new.send("POST", "/api/auth/login", body)).error(401, "CREDENTIALS_WRONG")


def proofs(lines: list[Any]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == "proof"]


async def test_every_sign_in_leaves_a_line_whether_it_goes_well_or_not(rest: House) -> None:
    ada = await rest.person("ada")
    with structlog.testing.capture_logs() as lines:
        await ada.login()
        wrong = {"identifier": f" {ada.username.upper()} ", "password": "hunter2hunter2"}
        (await rest.send("POST", "/api/auth/login", wrong)).error(401, "CREDENTIALS_WRONG")
        body = {"currentPassword": "hunter2hunter2", "newPassword": "another battery horse"}
        (await ada.post("/api/auth/change-password", body)).error(403, "PASSWORD_WRONG")
        typed = {"identifier": "hunter2hunter2", "password": "x"}  # into the wrong field
        (await rest.send("POST", "/api/auth/login", typed)).error(401, "CREDENTIALS_WRONG")
    well, badly, change, mistyped = proofs(lines)
    assert (well["door"], well["outcome"], well["user_id"]) == ("POST /api/auth/login", "ok", ada.id)
    assert (badly["outcome"], badly["account"]) == (
        "CREDENTIALS_WRONG",
        account_mark(f"USERNAME:{ada.username}"),
    )
    assert (change["outcome"], change["user_id"]) == ("PASSWORD_WRONG", ada.id)
    assert mistyped["account"] != badly["account"]
    assert all(line["address"] == "127.0.0.1" for line in (well, badly, change, mistyped))
    assert "hunter2" not in str(lines)
    assert PASSWORD not in str(lines)


async def test_who_is_not_let_in_leaves_a_line(rest: House) -> None:
    with structlog.testing.capture_logs() as lines:
        (await rest.send("GET", "/api/auth/profile", token="eyJ.made.up")).error(401, "TOKEN_INVALID")
        (await rest.send("GET", "/api/auth/profile")).error(401, "TOKEN_MISSING")
    told = [(line["door"], line["code"], line["address"]) for line in lines if line["event"] == "refused"]
    door = "GET /api/auth/profile"
    assert told == [(door, "TOKEN_INVALID", "127.0.0.1"), (door, "TOKEN_MISSING", "127.0.0.1")]
    assert "made.up" not in str(lines)


async def test_who_runs_into_a_limit_or_sends_rubbish_leaves_one_line_a_minute(rest: House) -> None:
    ada, bob = await rest.person("ada"), await rest.person("bob")
    with structlog.testing.capture_logs() as lines:
        for person in (ada, bob):
            for text in ("x", "y", "z"):
                (await person.send("PUT", "/api/user/profile", {"avatarUrl": text})).error(
                    400, "VALIDATION_FAILED"
                )
        for _ in range(3):
            (await ada.send("POST", "/api/calls", data=b"{")).error(400, "BAD_JSON")
    told = [(line["door"], line["code"], line["user_id"]) for line in lines if line["event"] == "stopped"]
    assert told == [
        ("PUT /api/user/profile", "VALIDATION_FAILED", ada.id),
        ("PUT /api/user/profile", "VALIDATION_FAILED", bob.id),
        ("POST /api/calls/initiate", "BAD_JSON", ""),
    ]


async def test_what_is_told_once_a_minute_is_told_again_after_it_and_forgotten_in_time() -> None:
    told = Repeats()
    assert [told.first(("door", "CODE", "ada"), at) for at in (0.0, 1.0, 59.9, 60.0, 61.0)] == [
        *(True, False, False, True, False),
    ]
    for number in range(REMEMBERED_MAX + 5):
        assert told.first(("door", "CODE", str(number)), 61.0)
    assert len(told._told) == REMEMBERED_MAX
