"""API keys by REST: made with the password, let in at the routes of their scopes, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.registry import catalogue
from models.auth.apikeys.rules import SCOPES
from tests.doors.conftest import PASSWORD, House, Person
from tests.doors.test_rest_second_factor import turned_on

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEYS = "/api/auth/api-keys"
VIEW = {"id", "name", "scopes", "perMinute", "uses", "createdAt", "expiresAt", "lastUsedAt"}


async def made(person: Person, *scopes: str, **more: Any) -> tuple[str, dict[str, Any]]:
    body = {"name": "Reports", "scopes": list(scopes), "password": PASSWORD, "perMinute": 6_000, **more}
    answer = await person.send("POST", KEYS, body)
    assert answer.status == 201, answer.body
    assert set(answer.body) == {"apiKey", "key"}
    assert set(answer.body["apiKey"]) == VIEW
    return answer.body["key"], answer.body["apiKey"]


async def test_a_key_is_made_shown_once_used_and_revoked(rest: House) -> None:
    ada = await rest.person("ada")
    text, key = await made(ada, "profile:read", "users:read")
    assert text.startswith(f"rk_{key['id']}_")
    own = await rest.send("GET", "/users/me", token=text)
    assert own.body["user"]["id"] == ada.id
    (await rest.send("GET", "/api/wallet", token=text)).error(403, "SCOPE_MISSING")
    listed = (await ada.get(KEYS)).body["items"]
    assert [(one["id"], one["uses"]) for one in listed] == [(key["id"], 2)]
    assert text not in str(listed)
    assert (await ada.send("DELETE", f"{KEYS}/{key['id']}")).status == 204
    (await rest.send("GET", "/users/me", token=text)).error(401, "TOKEN_INVALID")


async def test_a_key_opens_nothing_that_names_no_scope(rest: House) -> None:
    ada = await rest.person("ada")
    text, _ = await made(ada, *SCOPES)
    closed = [route for route in catalogue.routes if not route.public and route.scope is None]
    assert len(closed) > 50
    for route in closed:
        path = route.path
        for name in route.takes().fields.values():
            path = path.replace("{" + str(name.data_key) + "}", "x")
        answer = await rest.send(route.method, path, {} if route.method != "GET" else None, token=text)
        assert (answer.status, answer.body["error"]["code"]) == (403, "SCOPE_MISSING"), route.path


async def test_every_scope_opens_something_and_every_route_has_one_that_exists(rest: House) -> None:
    named = {route.scope for route in catalogue.routes if route.scope}
    assert named == set(SCOPES)
    assert not any(route.public for route in catalogue.routes if route.scope)
    reads = {route.method for route in catalogue.routes if route.scope and route.scope.endswith(":read")}
    assert reads == {"GET"}


async def test_a_key_writes_as_its_owner(rest: House) -> None:
    ada, bob = await rest.person("ada"), await rest.person("bob")
    text, _ = await made(ada, "chat:write", "chat:read")
    sent = await rest.send(
        "POST", "/api/chat/messages", {"to": bob.id, "text": "by a server", "opId": "k1"}, token=text
    )
    assert sent.status in (200, 201), sent.body
    assert sent.body["message"]["sender"]["id"] == ada.id
    conversation = sent.body["message"]["conversationId"]
    path = f"/api/chat/conversations/{conversation}/messages"
    assert len((await rest.send("GET", path, token=text)).body["items"]) == 1


async def test_making_one_takes_the_password_and_the_second_factor(rest: House) -> None:
    ada = await rest.person("ada")
    body = {"name": "x", "scopes": ["calls:read"], "password": "wrong"}
    (await ada.send("POST", KEYS, body)).error(403, "PASSWORD_WRONG")
    for wrong in ({"scopes": []}, {"scopes": ["wallet:write"]}, {"perMinute": 0}, {"expiresInDays": 731}):
        (await ada.send("POST", KEYS, {**body, **wrong})).error(400, "VALIDATION_FAILED")
    _, recovery = await turned_on(rest, ada)
    body["password"] = PASSWORD
    (await ada.send("POST", KEYS, body)).error(401, "TOTP_REQUIRED")
    assert (await ada.send("POST", KEYS, {**body, "recoveryCode": recovery[0]})).status == 201


async def test_over_its_limit_a_key_is_told_when_to_come_back(rest: House) -> None:
    ada = await rest.person("ada")
    text, _ = await made(ada, "profile:read", perMinute=1)
    assert (await rest.send("GET", "/users/me", token=text)).status == 200
    refused = await rest.send("GET", "/users/me", token=text)
    refused.error(429, "RATE_LIMITED")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
