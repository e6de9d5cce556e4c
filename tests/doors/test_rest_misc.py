"""What holds for every address: bodies, headers, CORS, unknown places; and the system's own pages."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from handlers.registry import catalogue
from tests.doors.conftest import House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = {"CORS_ORIGINS": "https://app.example.com,http://localhost:*"}
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Server": "ringmeter",
}
KIB = 1024


# ------------------------------------------------------------------------------------------------------------ bodies


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"{", 400, "BAD_JSON"),
        (b"", 400, "VALIDATION_FAILED"),
        (b"null", 400, "VALIDATION_FAILED"),
        (b"[]", 400, "VALIDATION_FAILED"),
        (b'"text"', 400, "VALIDATION_FAILED"),
        (b"7", 400, "VALIDATION_FAILED"),
        (b'{"identifier": NaN}', 400, "BAD_JSON"),
        (b'{"identifier": Infinity}', 400, "BAD_JSON"),
        (b'{"identifier": -Infinity}', 400, "BAD_JSON"),
        (b'{"identifier": "\xff"}', 400, "BAD_JSON"),
        (b'{"identifier": "\\ud800"}', 400, "BAD_JSON"),
        (b"\x00", 400, "BAD_JSON"),
        (b"a=1&b=2", 400, "BAD_JSON"),
        (b'{"identifier": "a", "password": "b"} x', 400, "BAD_JSON"),
        (b'{"x":' * 40 + b"1" + b"}" * 40, 400, "VALIDATION_FAILED"),
        (b"[" * 100_000, 400, "VALIDATION_FAILED"),
        (b'{"x":"' + b"x" * (256 * KIB) + b'"}', 413, "PAYLOAD_TOO_LARGE"),
        (b"x" * 900_000, 413, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_a_body_that_is_no_good_is_refused(rest: House, data: bytes, status: int, code: str) -> None:
    (await rest.send("POST", "/login", data=data)).error(status, code)


async def test_a_body_may_have_256_kib_and_32_levels(rest: House) -> None:
    head, tail = b'{"identifier":"nobody","password":"p","x":"', b'"}'
    whole = head + b"x" * (256 * KIB - len(head) - len(tail)) + tail
    assert len(whole) == 256 * KIB
    (await rest.send("POST", "/login", data=whole)).error(401, "CREDENTIALS_WRONG")
    (await rest.send("POST", "/login", data=whole + b" ")).error(413, "PAYLOAD_TOO_LARGE")
    nested = b'{"identifier":"nobody","password":"p","x":' + b"[" * 31 + b"]" * 31 + b"}"
    (await rest.send("POST", "/login", data=nested)).error(401, "CREDENTIALS_WRONG")


WRITING = [route for route in catalogue.routes if route.method != "GET"]


@pytest.mark.parametrize("route", WRITING, ids=lambda route: f"{route.method} {route.path}")
async def test_every_route_answers_whatever_shape_it_gets(rest: House, route: Any) -> None:
    eve = await rest.person("eve")
    path = re.sub(r"\{\w+\}", "x", route.path)
    if route.path in ("/api/auth/logout", "/api/auth/logout-all"):
        return
    for data in (
        b"{}",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b'{"a":{"$gt":""}}',
        b'{"callId":{},"to":[],"password":1}',
    ):
        reply = await eve.send(route.method, path, data=data)
        assert 200 <= reply.status < 500, (data, reply.body)
        if reply.status >= 400:
            reply.error(reply.status, reply.body["error"]["code"])


async def test_wrong_queries_are_refused_and_unknown_ones_ignored(rest: House) -> None:
    ada = await rest.person("ada")
    assert (await ada.get("/api/calls?unknown=1&limit=10")).status == 200
    (await ada.get("/api/users?query=" + "x" * 65)).error(400, "VALIDATION_FAILED")
    (await ada.get("/api/users?query=%00")).error(400, "VALIDATION_FAILED")
    assert (await ada.get("/api/users?query=.*%24%28")).status == 200


# ------------------------------------------------------------------------------------------------------------ places


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/nothing", "/api/calls/x/y/z", "/api/", "//", "/%2e%2e/etc/passwd"]
)
async def test_an_address_where_nothing_is(rest: House, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        (await rest.send(method, path)).error(404, "ROUTE_UNKNOWN")


async def test_a_method_that_an_address_does_not_take(rest: House) -> None:
    reply = await rest.send("DELETE", "/api/auth/login")
    reply.error(405, "METHOD_NOT_ALLOWED")
    assert "POST" in reply.headers["Allow"]
    reply = await rest.send("PUT", "/api/calls")
    reply.error(405, "METHOD_NOT_ALLOWED")
    assert {"GET", "POST"} <= set(reply.headers["Allow"].split(", "))


@pytest.mark.parametrize(
    "path", ["/health", "/", "/docs", "/api/calls", "/nothing", "/openapi.json", "/metrics", "/login"]
)
async def test_every_answer_carries_the_security_headers_and_a_request_id(rest: House, path: str) -> None:
    reply = await rest.send("GET", path)
    for name, value in SECURITY.items():
        assert reply.headers[name] == value, name
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    assert re.fullmatch(r"[0-9a-f-]{36}", reply.headers["X-Request-Id"])
    assert "Strict-Transport-Security" not in reply.headers, "only in production"


async def test_a_request_id_of_the_clients_own_is_used_when_it_is_sane(rest: House) -> None:
    reply = await rest.send("GET", "/api/calls", headers={"X-Request-Id": "client-chosen.1"})
    assert reply.headers["X-Request-Id"] == reply.body["requestId"] == "client-chosen.1"
    for odd in ("short", "x" * 65, "with space and more", "<script>alert</script>", "quote\"quote'"):
        reply = await rest.send("GET", "/api/calls", headers={"X-Request-Id": odd})
        assert reply.headers["X-Request-Id"] != odd


# -------------------------------------------------------------------------------------------------------------- CORS


@pytest.mark.parametrize("path", ["/api/calls", "/api/auth/login", "/nothing", "/health"])
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.com", True),
        ("http://localhost:8081", True),
        ("https://APP.example.com", True),
        ("https://evil.example.com", False),
        ("https://app.example.com.evil.org", False),
        ("http://app.example.com", False),
        ("null", False),
    ],
)
async def test_pages_of_the_allow_list_may_read_answers_and_no_others(
    rest: House, path: str, origin: str, allowed: bool
) -> None:
    plain = await rest.send("GET", path, headers={"Origin": origin})
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = await rest.send("OPTIONS", path, headers=asked)
    assert preflight.status == 204
    for reply in (plain, preflight):
        assert reply.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
        assert "Origin" in reply.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in reply.headers
    assert ("PATCH" in preflight.headers.get("Access-Control-Allow-Methods", "")) is allowed
    assert ("Idempotency-Key" in preflight.headers.get("Access-Control-Allow-Headers", "")) is allowed
    if allowed:
        assert "X-Request-Id" in plain.headers["Access-Control-Expose-Headers"]


async def test_the_sockets_door_has_the_same_allow_list(rest: House) -> None:
    path = "/socket.io/?EIO=4&transport=polling"
    good = await rest.send("GET", path, headers={"Origin": "https://app.example.com"})
    assert (good.status, good.headers["Access-Control-Allow-Origin"]) == (200, "https://app.example.com")
    bad = await rest.send("GET", path, headers={"Origin": "https://evil.example.com"})
    assert bad.status == 400
    assert "Access-Control-Allow-Origin" not in bad.headers
    assert (await rest.send("GET", path)).status == 200, "a native app says no origin"


# ------------------------------------------------------------------------------------------------------------ system


async def test_health_says_what_a_load_balancer_needs(rest: House) -> None:
    reply = await rest.send("GET", "/health")
    assert reply.status == 200
    assert set(reply.body) == {"status", "database", "uptimeSeconds", "version"}
    assert (reply.body["status"], reply.body["database"]) == ("ok", "up")
    live = await rest.send("GET", "/health/live")
    assert (live.status, live.body) == (200, {"status": "ok"})


async def test_metrics_are_for_prometheus_and_name_nobody(rest: House) -> None:
    ada = await rest.person("ada")
    await ada.get("/api/calls")
    reply = await rest.send("GET", "/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert re.search(r'^\w+\{.*"GET /api/calls/history".*"ok".*\} [1-9]', reply.body, re.MULTILINE)
    assert ada.id not in reply.body
    assert ada.username not in reply.body


async def test_the_documents_are_there(rest: House) -> None:
    for path in ("/docs", "/api"):
        page = await rest.send("GET", path)
        assert page.status == 200
        assert page.headers["Content-Type"].startswith("text/html")
        for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.body):
            assert (await rest.send("GET", asset)).status == 200, asset
    api, events = await asyncio.gather(rest.send("GET", "/openapi.json"), rest.send("GET", "/asyncapi.json"))
    assert api.body["openapi"].startswith("3.1")
    assert events.body["asyncapi"].startswith("3.")
    paths = api.body["paths"]
    for route in catalogue.routes:
        for path in (route.path, *route.also):
            assert route.method.lower() in paths[path], path


async def test_the_demo_is_there_in_development_and_not_in_production(rest: House, mongo_uri: str) -> None:
    page = await rest.send("GET", "/")
    assert page.status == 200
    for asset in re.findall(r'(?:src|href)="(/?static/[^"]+)"', page.body):
        assert (await rest.send("GET", "/" + asset.lstrip("/"))).status == 200, asset
    (await rest.send("GET", "/static/demo/../../app.py")).error(404, "ROUTE_UNKNOWN")
    async with open_house(mongo_uri, ENV="production", CORS_ORIGINS="") as production:
        (await production.send("GET", "/")).error(404, "ROUTE_UNKNOWN")
        secure = await production.send("GET", "/health")
        assert secure.headers["Strict-Transport-Security"].startswith("max-age=")
        local = await production.send("GET", "/health", headers={"Origin": "http://localhost:8081"})
        assert "Access-Control-Allow-Origin" not in local.headers
