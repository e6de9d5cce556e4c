"""Request ids, security headers and CORS on every answer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient

from server.config import DEVELOPMENT_ORIGINS
from server.security import Origins, protect, security_headers

PAGE = "https://app.example.com"


@pytest.fixture
async def client(aiohttp_client: Any) -> TestClient[Any, Any]:
    ids = (f"made-{n}" for n in itertools.count(1))
    app = web.Application()
    protect(app, origins=Origins((PAGE,)), production=False, new_id=lambda: next(ids))

    async def hello(_: web.Request) -> web.Response:
        return web.json_response({"bound": structlog.contextvars.get_contextvars().get("request_id")})

    app.router.add_get("/hello", hello)
    client: TestClient[Any, Any] = await aiohttp_client(app)
    return client


async def test_every_answer_has_the_headers_also_one_without_a_route(client: TestClient[Any, Any]) -> None:
    for path, status in (("/hello", 200), ("/nowhere", 404)):
        answer = await client.get(path, headers={"Origin": PAGE})
        assert answer.status == status
        for name, value in security_headers(production=False):
            assert answer.headers.getall(name) == [value]
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert answer.headers["Vary"] == "Origin"
        assert answer.headers["X-Request-Id"].startswith("made-")
        assert "Python" not in answer.headers["Server"]


async def test_a_wrong_method_carries_them_too(client: TestClient[Any, Any]) -> None:
    answer = await client.post("/hello", headers={"Origin": PAGE})
    assert answer.status == 405
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE


async def test_a_preflight_is_answered_for_any_path(client: TestClient[Any, Any]) -> None:
    ask = {"Origin": PAGE, "Access-Control-Request-Method": "PUT"}
    for path in ("/hello", "/nowhere"):
        answer = await client.options(path, headers=ask)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", PAGE + ".evil.example", "http://[", ""])
async def test_a_stranger_is_told_nothing(client: TestClient[Any, Any], origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        answer = await client.request(method, "/hello", headers=headers)
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
        assert answer.headers["Vary"] == "Origin"


async def test_a_sane_request_id_is_kept_and_bound_to_the_log(client: TestClient[Any, Any]) -> None:
    answer = await client.get("/hello", headers={"X-Request-Id": "phone-7.42_a"})
    assert answer.headers["X-Request-Id"] == "phone-7.42_a"
    assert await answer.json() == {"bound": "phone-7.42_a"}


@pytest.mark.parametrize("given", ["short", "x" * 65, "with space 123", "quote\"'123456", "tést-12345678"])
async def test_any_other_request_id_is_replaced(client: TestClient[Any, Any], given: str) -> None:
    answer = await client.get("/hello", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] == "made-1"


async def test_answers_in_json_are_not_kept_by_caches(client: TestClient[Any, Any]) -> None:
    assert (await client.get("/hello")).headers["Cache-Control"] == "no-store"


def test_the_demo_page_and_swagger_can_work_under_the_policy() -> None:
    policy = dict(security_headers(production=False))["Content-Security-Policy"]
    rules = {part.split()[0]: part.split()[1:] for part in policy.split(";")}
    assert rules["script-src"] == ["'self'"]
    assert rules["style-src"] == ["'self'"]
    assert {"'self'", "ws:"} <= set(rules["connect-src"])
    assert "blob:" in rules["media-src"]
    assert "data:" in rules["img-src"]
    assert rules["frame-ancestors"] == rules["object-src"] == rules["base-uri"] == ["'none'"]
    assert "camera=(self)" in dict(security_headers(production=False))["Permissions-Policy"]


def test_https_is_insisted_on_in_production_only() -> None:
    assert "Strict-Transport-Security" in dict(security_headers(production=True))
    said = dict(security_headers(production=True))["Strict-Transport-Security"]
    assert said == "max-age=31536000; includeSubDomains"
    assert "Strict-Transport-Security" not in dict(security_headers(production=False))


def test_localhost_is_allowed_on_any_port_where_the_list_says_so() -> None:
    origins = Origins(DEVELOPMENT_ORIGINS)
    for allowed in (
        "http://localhost:8081",
        "http://127.0.0.1:19006",
        "http://localhost",
        "HTTP://LOCALHOST:1",
    ):
        assert origins.allows(allowed)
    for refused in (
        "http://localhost.evil.example:80",
        "http://evil.example",
        "null",
        "",
        "file://localhost",
    ):
        assert not origins.allows(refused)


def test_a_page_of_the_server_itself_and_a_native_app_may_connect() -> None:
    origins = Origins(())
    assert origins.allows("https://calls.example.com", "calls.example.com")
    assert not origins.allows("https://evil.example", "calls.example.com")
    assert origins.allows_socket(None, {})
    assert origins.allows_socket("http://10.0.2.2:3000", {"HTTP_HOST": "10.0.2.2:3000"})
    assert not origins.allows_socket("http://evil.example", {"HTTP_HOST": "10.0.2.2:3000"})
    assert not origins.allows_socket("http://evil.example", {})
