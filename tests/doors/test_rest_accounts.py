"""Accounts by REST (CONTRACT §3.1): every route, its other names, its shapes and its refusals."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tests.doors.conftest import PASSWORD, House, Person, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONES = (f"+2348031234{number}" for number in itertools.count(100))
PUBLIC_USER = {
    "id",
    "username",
    "displayName",
    "avatarUrl",
    "presence",
    "currency",
    "ratePerMinuteMinor",
    "videoRatePerMinuteMinor",
}
OWN_USER = PUBLIC_USER | {
    "email", "phone", "emailVerified", "phoneVerified", "twoFactor", "role", "status", "createdAt", "updatedAt",
}  # fmt: skip
TOKENS = {
    *("accessToken", "refreshToken", "tokenType", "expiresIn", "access_token", "refresh_token"),
    "deviceToken",
}


def signed_in(body: Any) -> None:
    assert set(body) == TOKENS | {"user"}
    assert set(body["user"]) == OWN_USER
    tokens(body)


def tokens(body: Any) -> None:
    assert (body["access_token"], body["refresh_token"]) == (body["accessToken"], body["refreshToken"])
    assert (body["tokenType"], body["expiresIn"]) == ("Bearer", 900)
    assert len(body["accessToken"]) < 1000


# ----------------------------------------------------------------------------------------------------------- coming


@pytest.mark.parametrize("path", ["/api/auth/register", "/register", "/users/register"])
async def test_registering_gives_the_account_and_its_tokens(rest: House, path: str) -> None:
    name = f"new{path.count('/')}{len(path)}"
    body = {"email": f"{name}@Example.org", "username": name, "password": PASSWORD, "displayName": "Ada Obi"}
    made = await rest.send("POST", path, body)
    assert made.status == 201
    signed_in(made.body)
    user = made.body["user"]
    assert (user["username"], user["displayName"], user["email"]) == (name, "Ada Obi", f"{name}@example.org")
    assert (user["role"], user["status"], user["currency"], user["emailVerified"]) == (
        "user",
        "active",
        "NGN",
        False,
    )
    again = (await rest.send("POST", path, body)).error(409, "ACCOUNT_EXISTS")
    assert again["details"]["field"] in ("email", "username")


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"fullName": "Grace Hopper"}, "Grace Hopper"),
        ({"first_name": "Grace", "last_name": "Hopper"}, "Grace Hopper"),
        ({"first_name": "Grace"}, "Grace"),
        ({"displayName": "The name", "fullName": "Another"}, "The name"),
    ],
)
async def test_other_clients_names_of_the_fields_are_understood(rest: House, fields: Any, shown: str) -> None:
    number = next(PHONES)
    made = await rest.send("POST", "/register", {"phoneNumber": number, "password": PASSWORD, **fields})
    assert made.status == 201, made.body
    assert made.body["user"]["displayName"] == shown
    assert made.body["user"]["phone"] == number
    for key in ("identifier", "phone", "phoneNumber"):
        assert (await rest.send("POST", "/login", {key: number, "password": PASSWORD})).status == 200
    spaced = f"{number[:4]} {number[4:7]}-{number[7:]}"
    assert (await rest.send("POST", "/login", {"identifier": spaced, "password": PASSWORD})).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"password": PASSWORD}, "email"),
        ({"email": "no address", "password": PASSWORD}, "email"),
        ({"phone": "12", "password": PASSWORD}, "phone"),
        ({"email": "a@example.org"}, "password"),
        ({"email": "a@example.org", "password": "short"}, "password"),
        ({"email": "a@example.org", "password": "x" * 1025}, "password"),
        ({"email": "a@example.org", "password": 12345678}, "password"),
        ({"email": "a@example.org", "password": PASSWORD, "username": "no spaces"}, "username"),
        ({"email": "a@example.org", "password": PASSWORD, "username": "x"}, "username"),
        ({"email": ["a@example.org"], "password": PASSWORD}, "email"),
        ({"email": "a\x00@example.org", "password": PASSWORD}, "email"),
    ],
)
async def test_what_no_account_can_be_made_of_is_refused_by_field(rest: House, body: Any, field: str) -> None:
    details = (await rest.send("POST", "/api/auth/register", body)).error(400, "VALIDATION_FAILED")["details"]
    assert field in details
    assert all(isinstance(said, str) and said for said in details[field])


@pytest.mark.parametrize("path", ["/api/auth/login", "/login", "/auth/login"])
async def test_signing_in_by_each_of_ones_names(rest: House, path: str) -> None:
    ada = await rest.person("ada")
    for key, value in [
        ("identifier", ada.username),
        ("identifier", ada.username.upper()),
        ("identifier", f"{ada.username}@example.org"),
        ("email", f"{ada.username}@EXAMPLE.org"),
        ("username", ada.username),
    ]:
        answer = await rest.send(
            "POST", path, {key: value, "password": PASSWORD, "device": {"name": "Ada's phone"}}
        )
        assert answer.status == 200, (key, value, answer.body)
        signed_in(answer.body)
        assert answer.body["user"]["id"] == ada.id


async def test_a_wrong_name_and_a_wrong_password_are_told_alike(rest: House) -> None:
    ada = await rest.person("ada")
    wrong = await rest.send("POST", "/login", {"identifier": ada.username, "password": "wrong password"})
    nobody = await rest.send("POST", "/login", {"identifier": "nobody", "password": "wrong password"})
    assert wrong.error(401, "CREDENTIALS_WRONG") == nobody.error(401, "CREDENTIALS_WRONG")
    (await rest.send("POST", "/login", {"password": PASSWORD})).error(400, "VALIDATION_FAILED")
    (await rest.send("POST", "/login", {"identifier": {"$ne": ""}, "password": PASSWORD})).error(
        400, "VALIDATION_FAILED"
    )


async def test_sign_ins_are_limited_per_address_and_per_account(mongo_uri: str) -> None:
    async with open_house(mongo_uri, AUTH_PER_MINUTE="10", TRUSTED_PROXY_HOPS="1") as house:
        ada = await house.send(
            "POST", "/register", {"email": "ada@example.org", "username": "ada", "password": PASSWORD}
        )
        assert ada.status == 201
        good, bad = {"identifier": "ada", "password": PASSWORD}, {"identifier": "ada", "password": "wrong"}
        for _ in range(10):
            (await house.send("POST", "/login", bad)).error(401, "CREDENTIALS_WRONG")
        limited = await house.send("POST", "/login", good)
        assert limited.error(429, "RATE_LIMITED")["retryAfterMs"] > 0
        assert 1 <= int(limited.headers["Retry-After"]) <= 60
        # The same account from elsewhere is limited too; another account from elsewhere is not.
        elsewhere = {"X-Forwarded-For": "203.0.113.9"}
        (await house.send("POST", "/login", good, headers=elsewhere)).error(429, "RATE_LIMITED")
        other = {"identifier": "bob", "password": "wrong"}
        (await house.send("POST", "/login", other, headers=elsewhere)).error(401, "CREDENTIALS_WRONG")
        # What the client itself writes into the header does not help: the word of the proxy counts, which is the last.
        forged = {"X-Forwarded-For": "198.51.100.1, 127.0.0.1"}
        (await house.send("POST", "/login", other, headers=forged)).error(429, "RATE_LIMITED")


# ----------------------------------------------------------------------------------------------------------- staying


@pytest.mark.parametrize("path", ["/api/auth/refresh-token", "/auth/refresh"])
@pytest.mark.parametrize("name", ["refreshToken", "refresh_token"])
async def test_refreshing_rotates_and_forgives_a_lost_answer_but_not_a_theft(
    rest: House, path: str, name: str
) -> None:
    ada = await rest.person("ada")
    old = ada.signed_in["refreshToken"]
    first = await rest.send("POST", path, {name: old})
    assert first.status == 200
    assert set(first.body) == TOKENS
    tokens(first.body)
    assert first.body["refreshToken"] != old
    assert (await rest.send("GET", "/users/me", token=first.body["accessToken"])).status == 200
    await rest.pass_(9)
    retry = await rest.send("POST", path, {name: old})
    assert retry.body["refreshToken"] == first.body["refreshToken"], "the answer was lost"
    await rest.pass_(2)
    (await rest.send("POST", path, {name: old})).error(401, "REFRESH_REUSED")
    (await rest.send("POST", path, {name: first.body["refreshToken"]})).error(401, "REFRESH_REUSED")
    (await rest.send("GET", "/users/me", token=first.body["accessToken"])).error(401, "TOKEN_INVALID")
    for wrong in ("x", ada.token, f"{old}x"):
        (await rest.send("POST", path, {name: wrong})).error(401, "REFRESH_INVALID")
    (await rest.send("POST", path, {})).error(400, "VALIDATION_FAILED")


async def test_an_old_access_token_says_that_it_has_expired(rest: House) -> None:
    ada = await rest.person("ada")
    await rest.pass_(901)
    refused = await ada.get("/users/me")
    refused.error(401, "TOKEN_EXPIRED")
    assert refused.headers["WWW-Authenticate"] == "Bearer"


PROTECTED = [
    ("GET", "/api/auth/profile"), ("GET", "/api/user/profile"), ("GET", "/users/me"), ("PUT", "/api/user/profile"),
    ("POST", "/api/auth/logout"), ("POST", "/api/auth/logout-all"), ("POST", "/api/auth/change-password"),
    ("GET", "/api/auth/sessions"), ("DELETE", "/api/auth/sessions/x"), ("POST", "/api/auth/expo-push-token"),
    ("DELETE", "/api/auth/expo-push-token"), ("DELETE", "/api/user/account"), ("GET", "/api/users"),
    ("GET", "/api/users/x"), ("PUT", "/api/users/x/block"), ("DELETE", "/api/users/x/block"),
    ("POST", "/api/calls"), ("GET", "/api/calls"), ("GET", "/api/ice-servers"), ("GET", "/api/chat/history/x"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_nobody_comes_in_without_a_token(rest: House, method: str, path: str) -> None:
    missing = await rest.send(method, path, {} if method != "GET" else None)
    missing.error(401, "TOKEN_MISSING")
    assert missing.headers["WWW-Authenticate"] == "Bearer"
    (await rest.send(method, path, token="nonsense")).error(401, "TOKEN_INVALID")
    (await rest.send(method, path, headers={"Authorization": "Basic eDp4"})).error(401, "TOKEN_MISSING")


# ----------------------------------------------------------------------------------------------------------- profile


@pytest.mark.parametrize("path", ["/api/auth/profile", "/api/user/profile", "/users/me"])
async def test_ones_own_profile(rest: House, path: str) -> None:
    ada = await rest.person("ada", phone=next(PHONES))
    answer = await ada.get(path)
    assert answer.status == 200
    assert set(answer.body) == {"user"}
    assert set(answer.body["user"]) == OWN_USER
    assert answer.body["user"] == ada.signed_in["user"]
    created = answer.body["user"]["createdAt"]
    assert len(created) == 24
    assert created.endswith("Z")


async def test_changing_ones_profile(rest: House) -> None:
    ada, bob = await asyncio.gather(rest.person("ada"), rest.person("bob"))
    new = f"{ada.username}.new"
    changes = {
        "username": new,
        "displayName": "Ada",
        "avatarUrl": "https://x.org/a.png",
        "ratePerMinuteMinor": 2500,
    }
    answer = await ada.send("PUT", "/api/user/profile", changes)
    assert answer.status == 200
    assert changes.items() <= answer.body["user"].items()
    seen = (await bob.get(f"/api/users/{ada.id}")).body["user"]
    assert changes.items() <= seen.items()
    same = await ada.send("PUT", "/api/user/profile", {"role": "admin", "id": "x", "email": "evil@x.org"})
    assert (same.body["user"]["role"], same.body["user"]["id"]) == ("user", ada.id)
    taken = await bob.send("PUT", "/api/user/profile", {"username": new.upper()})
    assert taken.error(409, "ACCOUNT_EXISTS")["details"] == {"field": "username"}
    for wrong in (
        {"username": "a b"}, {"avatarUrl": "javascript:alert(1)"}, {"avatarUrl": "file:///etc"}, {"displayName": " "},
        {"ratePerMinuteMinor": -1}, {"ratePerMinuteMinor": 1.5}, {"ratePerMinuteMinor": "1"}, {"displayName": "x" * 65},
    ):  # fmt: skip
        details = (await ada.send("PUT", "/api/user/profile", wrong)).error(400, "VALIDATION_FAILED")[
            "details"
        ]
        assert set(details) == set(wrong)


async def test_finding_people_page_by_page(rest: House) -> None:
    people = [await rest.person("zoe") for _ in range(5)]
    ada = await rest.person("ada")
    found: list[str] = []
    cursor = ""
    for _ in range(10):
        page = (await ada.get(f"/api/users?query=ZOE-&limit=2{cursor}")).body
        assert set(page) == {"items", "nextCursor"}
        assert all(set(one) == PUBLIC_USER for one in page["items"])
        found += [one["id"] for one in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert sorted(found) == sorted(one.id for one in people)
    assert people[0].id not in [
        one["id"] for one in (await people[0].get("/api/users?query=zoe-")).body["items"]
    ]
    assert (await people[1].send("PUT", f"/api/users/{ada.id}/block")).status == 204
    assert people[1].id not in [one["id"] for one in (await ada.get("/api/users?query=zoe-")).body["items"]]
    for wrong in ("limit=0", "limit=201", "limit=x", "limit=-1", "cursor=x", "cursor=W10"):
        (await ada.get(f"/api/users?{wrong}")).error(400, "VALIDATION_FAILED")


async def test_others_are_seen_as_public_and_not_at_all_when_they_are_gone_or_do_not_want_it(
    rest: House,
) -> None:
    ada, bob = await asyncio.gather(rest.person("ada"), rest.person("bob"))
    seen = await bob.get(f"/api/users/{ada.id}")
    assert set(seen.body["user"]) == PUBLIC_USER
    assert seen.body["user"]["presence"] == "offline"
    (await bob.get("/api/users/nobody")).error(404, "USER_UNKNOWN")
    for _ in range(2):
        assert (await ada.send("PUT", f"/api/users/{bob.id}/block")).status == 204
    (await bob.get(f"/api/users/{ada.id}")).error(404, "USER_UNKNOWN")
    for _ in range(2):
        assert (await ada.send("DELETE", f"/api/users/{bob.id}/block")).status == 204
    assert (await bob.get(f"/api/users/{ada.id}")).status == 200
    (await ada.send("PUT", f"/api/users/{ada.id}/block")).error(400, "SELF_NOT_ALLOWED")
    (await ada.send("PUT", "/api/users/nobody/block")).error(404, "USER_UNKNOWN")
    assert (await ada.send("DELETE", "/api/user/account", {"password": PASSWORD})).status == 204
    (await bob.get(f"/api/users/{ada.id}")).error(404, "USER_UNKNOWN")


# ---------------------------------------------------------------------------------------------------------- sessions


async def test_ones_devices_and_signing_one_of_them_out(rest: House) -> None:
    ada, eve = await asyncio.gather(rest.person("ada"), rest.person("eve"))
    body = {"identifier": ada.username, "password": PASSWORD}
    device = {"id": "tablet-1", "name": "Ada's tablet", "platform": "android"}
    tablet = Person(rest, ada.username, (await rest.send("POST", "/login", {**body, "device": device})).body)
    page = (await ada.get("/api/auth/sessions")).body
    assert set(page) == {"items", "nextCursor"}
    assert {one["current"] for one in page["items"]} == {True, False}
    for one in page["items"]:
        assert set(one) == {"id", "device", "current", "createdAt", "lastSeenAt", "expiresInMs"}
    other = next(one for one in page["items"] if not one["current"])
    assert other["device"] == device
    (await eve.send("DELETE", f"/api/auth/sessions/{other['id']}")).error(404, "SESSION_UNKNOWN")
    assert (await tablet.get("/users/me")).status == 200
    for _ in range(2):
        assert (await ada.send("DELETE", f"/api/auth/sessions/{other['id']}")).status == 204
    (await tablet.get("/users/me")).error(401, "TOKEN_INVALID")
    (await rest.send("POST", "/auth/refresh", {"refreshToken": tablet.signed_in["refreshToken"]})).error(
        401, "REFRESH_INVALID"
    )
    assert [one["current"] for one in (await ada.get("/api/auth/sessions")).body["items"]] == [True]


async def test_signing_out_here_and_everywhere(rest: House) -> None:
    ada = await rest.person("ada")
    one, two = await ada.login(), await ada.login()
    gone = await ada.post("/api/auth/logout")
    assert (gone.status, gone.body) == (204, "")
    (await ada.get("/users/me")).error(401, "TOKEN_INVALID")
    assert (await one.get("/users/me")).status == 200
    assert (await one.post("/api/auth/logout-all")).status == 204
    for person in (one, two):
        (await person.get("/users/me")).error(401, "TOKEN_INVALID")


async def test_changing_the_password(rest: House) -> None:
    ada = await rest.person("ada")
    other = await ada.login()
    path, new = "/api/auth/change-password", "another good password"
    (await ada.post(path, {"currentPassword": "wrong password", "newPassword": new})).error(
        403, "PASSWORD_WRONG"
    )
    (await ada.post(path, {"currentPassword": PASSWORD, "newPassword": "short"})).error(
        400, "VALIDATION_FAILED"
    )
    assert (await ada.post(path, {"currentPassword": PASSWORD, "newPassword": new})).status == 204
    assert (await ada.get("/users/me")).status == 200
    (await other.get("/users/me")).error(401, "TOKEN_INVALID")
    (await rest.send("POST", "/login", {"identifier": ada.username, "password": PASSWORD})).error(
        401, "CREDENTIALS_WRONG"
    )
    assert (await rest.send("POST", "/login", {"identifier": ada.username, "password": new})).status == 200


async def test_deleting_the_account_frees_its_names(rest: House) -> None:
    ada = await rest.person("ada")
    (await ada.send("DELETE", "/api/user/account", {"password": "wrong"})).error(403, "PASSWORD_WRONG")
    (await ada.send("DELETE", "/api/user/account")).error(400, "VALIDATION_FAILED")
    assert (await ada.send("DELETE", "/api/user/account", {"password": PASSWORD})).status == 204
    (await ada.get("/users/me")).error(403, "ACCOUNT_DELETED")
    (await rest.send("POST", "/login", {"identifier": ada.username, "password": PASSWORD})).error(
        401, "CREDENTIALS_WRONG"
    )
    body = {"email": f"{ada.username}@example.org", "username": ada.username, "password": PASSWORD}
    again = await rest.send("POST", "/register", body)
    assert again.status == 201
    assert again.body["user"]["id"] != ada.id


async def test_push_tokens_are_kept_per_device(rest: House) -> None:
    ada = await rest.person("ada")
    path, token = "/api/auth/expo-push-token", "ExponentPushToken[abcdefghijklmnopqrstuv]"
    kept = await ada.post(path, {"expoPushToken": token, "deviceId": "phone-1", "platform": "ios"})
    assert kept.status == 200
    assert set(kept.body) == {"device"}
    assert {"id": "phone-1", "kind": "EXPO", "platform": "ios"}.items() <= kept.body["device"].items()
    named = await ada.post(path, {"expoPushToken": token}, headers={"X-Device-Id": "phone-2"})
    assert named.body["device"]["id"] == "phone-2"
    for wrong in ("", "garbage", "ExponentPushToken[", "ExponentPushToken[a]\n", 7, None):
        (await ada.post(path, {"expoPushToken": wrong})).error(400, "VALIDATION_FAILED")
    for _ in range(2):
        assert (await ada.send("DELETE", path, {"expoPushToken": token})).status == 204
    assert (await ada.send("DELETE", path)).status == 204
