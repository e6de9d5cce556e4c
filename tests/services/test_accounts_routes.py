"""Accounts and people through their routes, on a whole server: names of fields and of routes, statuses, forms."""

from __future__ import annotations

import argparse
import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import socketio
from aiohttp.test_utils import TestClient, TestServer
from rich.console import Console

from handlers.registry import catalogue
from models.db import Database
from server import cli_users
from server.app import make_app
from server.config import Config, load_config
from tests.services.accounts_house import PASSWORD, SECRET

TOKEN = "ExponentPushToken[aaaaaaaaaaaaaaaaaaaaaa]"
ADA = {"email": "ada@example.com", "username": "ada", "password": PASSWORD}


@dataclass
class Socket:
    """A socket, what it is told, and whether it was closed."""

    client: socketio.AsyncClient
    told: list[tuple[str, Any]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def closes_within_a_second(self) -> str:
        """The code it is told; fails when it stays open."""
        async with asyncio.timeout(1.0):
            await self.closed.wait()
        return str([data["error"]["code"] for name, data in self.told if name == "error"][-1])


@dataclass
class Server:
    """A running server, and what a client of it does."""

    config: Config
    client: TestClient[Any, Any]
    sockets: list[socketio.AsyncClient] = field(default_factory=list)

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """Status and body of an answer."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.request(method, path, json=body, headers=headers) as answer:
            raw = await answer.read()
            return answer.status, await answer.json() if raw else None

    async def token(self, name: str = "ada", **more: Any) -> str:
        """Register somebody; their access token."""
        body = {"email": f"{name}@example.com", "username": name, "password": PASSWORD, **more}
        status, answer = await self.ask("POST", "/api/auth/register", body)
        assert status == 201, answer
        return str(answer["accessToken"])

    async def socket(self, token: str) -> Socket:
        """A connected socket."""
        socket = Socket(socketio.AsyncClient(reconnection=False))
        socket.client.on("*", lambda event, data: socket.told.append((event, data)))
        socket.client.on("disconnect", lambda *_: socket.closed.set())
        self.sockets.append(socket.client)
        url = str(self.client.make_url("/"))
        await socket.client.connect(url, auth={"token": token}, transports=["websocket"])
        return socket

    async def users(self, *words: str) -> tuple[int, str]:
        """``main.py users …``: status and output."""
        parser = argparse.ArgumentParser()
        cli_users.add_parser(parser.add_subparsers(dest="command"))
        out = io.StringIO()
        status = await cli_users.run(
            parser.parse_args(["users", *words]), self.config, Console(file=out, width=200)
        )
        return status, out.getvalue()


@pytest.fixture
async def server(db: Database, mongo_uri: str) -> AsyncIterator[Server]:
    config = load_config(
        {
            "MONGO_URI": mongo_uri,
            "MONGO_DATABASE": db.db.name,
            "JWT_SECRET": SECRET,
            "BCRYPT_ROUNDS": "4",
            "AUTH_PER_MINUTE": "100",
            "CALL_RATE_MINOR": "0",
        }
    )
    async with TestClient(TestServer(make_app(config, mongo_uri))) as client:
        running = Server(config, client)
        yield running
        for socket in running.sockets:
            await socket.disconnect()


async def test_the_answers_have_the_form_of_the_contract(server: Server) -> None:
    status, answer = await server.ask("POST", "/api/auth/register", {**ADA, "displayName": "Ada Obi"})
    assert status == 201
    assert set(answer) == {
        *("user", "accessToken", "refreshToken", "tokenType", "expiresIn"),
        *("access_token", "refresh_token", "deviceToken"),
    }
    assert answer["access_token"] == answer["accessToken"]
    assert answer["refresh_token"] == answer["refreshToken"]
    assert (answer["tokenType"], answer["expiresIn"]) == ("Bearer", 900)
    assert set(answer["user"]) == {
        *("id", "username", "displayName", "avatarUrl", "presence", "currency"),
        *("ratePerMinuteMinor", "videoRatePerMinuteMinor"),
        *(
            "email",
            "phone",
            "emailVerified",
            "phoneVerified",
            "twoFactor",
            "role",
            "status",
            "createdAt",
            "updatedAt",
        ),
    }
    status, again = await server.ask("POST", "/api/auth/login", {"identifier": "ada", "password": PASSWORD})
    assert (status, set(again)) == (200, set(answer))
    status, tokens = await server.ask(
        "POST", "/api/auth/refresh-token", {"refreshToken": again["refreshToken"]}
    )
    assert (status, set(tokens)) == (200, set(answer) - {"user"})
    status, me = await server.ask("GET", "/api/auth/profile", token=tokens["accessToken"])
    assert (status, me) == (200, {"user": answer["user"]})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"email": "a@example.com", "fullName": "Ada Obi"}, {"displayName": "Ada Obi", "username": "user_a"}),
        ({"email": "ada@example.com", "first_name": "Ada", "last_name": "Obi"}, {"displayName": "Ada Obi"}),
        ({"email": "ada@example.com", "first_name": "Ada"}, {"displayName": "Ada"}),
        (
            {"phoneNumber": "+234 801 234 5678"},
            {"phone": "+2348012345678", "email": None, "username": "user5678"},
        ),
        ({"phone": "+2348012345678", "phoneNumber": "+14155552671"}, {"phone": "+2348012345678"}),
        ({"email": "ada@example.com", "displayName": "Ada", "fullName": "Other"}, {"displayName": "Ada"}),
        ({"email": "ada@example.com", "displayName": None, "username": None}, {"displayName": "ada"}),
        ({"email": "ada@example.com", "role": "admin", "status": "x", "id": "1"}, {"role": "user"}),
    ],
)
async def test_other_clients_names_of_fields_are_understood(
    server: Server, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    status, answer = await server.ask("POST", "/api/auth/register", {**body, "password": PASSWORD})
    assert status == 201, answer
    assert {name: answer["user"][name] for name in expected} == expected


async def test_the_other_names_of_the_routes_answer_alike(server: Server) -> None:
    for n, path in enumerate(("/register", "/users/register")):
        assert (await server.ask("POST", path, {**ADA, "email": f"a{n}@example.com", "username": f"ada{n}"}))[
            0
        ] == 201
    for path in ("/login", "/auth/login"):
        for name, value in (("identifier", "ada0"), ("email", "A0@example.com"), ("username", "Ada0")):
            status, answer = await server.ask("POST", path, {name: value, "password": PASSWORD})
            assert status == 200, answer
    status, tokens = await server.ask("POST", "/auth/refresh", {"refresh_token": answer["refresh_token"]})
    assert status == 200
    for path in ("/api/auth/profile", "/api/user/profile", "/users/me"):
        assert (await server.ask("GET", path, token=tokens["access_token"]))[1]["user"]["username"] == "ada0"


@pytest.mark.parametrize("operator", [{"$ne": None}, {"$gt": ""}, ["ada"], 7, True])
async def test_no_operator_of_the_database_gets_through(server: Server, operator: Any) -> None:
    token = await server.token()
    refused = [
        await server.ask("POST", "/api/auth/login", {"identifier": operator, "password": PASSWORD}),
        await server.ask("POST", "/api/auth/login", {"identifier": "ada", "password": operator}),
        await server.ask("POST", "/api/auth/register", {**ADA, "email": operator}),
        await server.ask("POST", "/api/auth/refresh-token", {"refreshToken": operator}),
        await server.ask("PUT", "/api/user/profile", {"username": operator}, token=token),
        await server.ask("DELETE", "/api/user/account", {"password": operator}, token=token),
        await server.ask("POST", "/api/auth/expo-push-token", {"expoPushToken": operator}, token=token),
    ]
    assert [(status, body["error"]["code"]) for status, body in refused] == [(400, "VALIDATION_FAILED")] * 7


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "ada@example.com"}, "password"),
        ({"email": "ada@example.com", "password": "1234567"}, "password"),
        ({"email": "ada@example.com", "password": "a\x00bcdefgh"}, "password"),
        ({"email": "ada@example.com", "password": "x" * 1025}, "password"),
        ({"password": PASSWORD}, "email"),
        ({"email": "ada\x00@example.com", "password": PASSWORD}, "email"),
        ({"email": "ada@example.com", "password": PASSWORD, "device": "phone"}, "device"),
    ],
)
async def test_what_is_wrong_is_named(server: Server, body: dict[str, Any], field: str) -> None:
    status, answer = await server.ask("POST", "/api/auth/register", body)
    assert (status, answer["error"]["code"]) == (400, "VALIDATION_FAILED")
    assert list(answer["error"]["details"]) == [field]


async def test_every_route_of_accounts_but_the_public_ones_wants_a_token(server: Server) -> None:
    ours = [r for r in catalogue.routes if r.handler.__module__ in ("handlers.auth", "handlers.users")]
    assert {r.path for r in ours if r.public} == {
        *("/api/auth/register", "/api/auth/login", "/api/auth/refresh-token"),
    }
    for route in ours:
        if not route.public:
            status, answer = await server.ask(route.method, route.path.replace("{id}", "x"))
            assert (status, answer["error"]["code"]) == (401, "TOKEN_MISSING"), route.path


async def test_push_tokens_have_the_official_shape_or_a_kind_of_their_own(server: Server) -> None:
    token = await server.token(device={"id": "d-1", "platform": "ios"})
    path = "/api/auth/expo-push-token"
    good = [
        {"expoPushToken": TOKEN, "platform": "ios"},
        {"expoPushToken": "ExpoPushToken[abc]", "deviceId": "d-2"},
        {"expoPushToken": "ab" * 32, "kind": "APNS_VOIP"},
        {"expoPushToken": "f:APA91b-_" * 12, "kind": "FCM"},
    ]
    for body in good:
        status, answer = await server.ask("POST", path, body, token=token)
        assert status == 200, answer
        assert answer["device"]["id"] == body.get("deviceId", "d-1")
        assert answer["device"]["kind"] == body.get("kind", "EXPO")
    bad = [
        *(
            {"expoPushToken": text}
            for text in ("", "x", "ExponentPushToken[]", TOKEN + "x", "ExpoPushToken[a]b]")
        ),
        *({}, {"expoPushToken": "a b", "kind": "FCM"}, {"expoPushToken": TOKEN, "kind": "CARRIER_PIGEON"}),
    ]
    for body in bad:
        status, answer = await server.ask("POST", path, body, token=token)
        assert (status, answer["error"]["code"]) == (400, "VALIDATION_FAILED"), body
    for _ in range(2):
        assert await server.ask("DELETE", path, {"expoPushToken": TOKEN}, token=token) == (204, None)
    assert (await server.ask("DELETE", path, token=token))[0] == 204


async def test_a_profile_is_changed_within_bounds(server: Server) -> None:
    token, path = await server.token(), "/api/user/profile"
    body = {"fullName": "Ada Obi", "avatarUrl": "https://example.com/a.png", "ratePerMinuteMinor": 500}
    status, answer = await server.ask("PUT", path, body, token=token)
    assert (status, answer["user"]["displayName"], answer["user"]["ratePerMinuteMinor"]) == (
        200,
        "Ada Obi",
        500,
    )
    for bad in (
        *({"avatarUrl": url} for url in ("javascript:alert(1)", "ftp://x/y", "x", "https://" + "x" * 3000)),
        *({"ratePerMinuteMinor": rate} for rate in (-1, 1.5, "7", 10**12, True)),
        *({"username": None}, {"username": "a b"}, {"displayName": ""}),
        *({"currency": code} for code in ("usd", "XXQ", "", None, 5)),
    ):
        status, answer = await server.ask("PUT", path, bad, token=token)
        assert (status, answer["error"]["code"]) == (400, "VALIDATION_FAILED"), bad
    status, answer = await server.ask(
        "PUT", path, {"avatarUrl": None, "ratePerMinuteMinor": None}, token=token
    )
    assert (answer["user"]["avatarUrl"], answer["user"]["ratePerMinuteMinor"]) == (None, None)
    assert answer["user"]["currency"] == "NGN"
    status, answer = await server.ask("PUT", path, {"currency": "USD"}, token=token)
    assert (status, answer["user"]["currency"]) == (200, "USD")


async def test_people_are_found_page_by_page_looked_at_and_blocked(server: Server) -> None:
    token = await server.token("viewer")
    others = {name: await server.token(name) for name in ("ada1", "ada2", "ada3")}
    names, cursor = [], ""
    while cursor is not None:
        status, page = await server.ask("GET", f"/api/users?query=ADA&limit=2&cursor={cursor}", token=token)
        assert status == 200
        names += [person["username"] for person in page["items"]]
        cursor = page["nextCursor"]
    assert names == ["ada1", "ada2", "ada3"]
    person = page["items"][-1]
    assert person["presence"] == "offline"
    assert set(person) == {
        *("id", "username", "displayName", "avatarUrl", "presence", "currency"),
        *("ratePerMinuteMinor", "videoRatePerMinuteMinor"),
    }
    one = f"/api/users/{person['id']}"
    assert await server.ask("GET", one, token=token) == (200, {"user": person})
    status, me = await server.ask("GET", "/users/me", token=token)
    status, _ = await server.ask("PUT", f"/api/users/{me['user']['id']}/block", token=others["ada3"])
    assert status == 204
    assert (await server.ask("GET", one, token=token))[1]["error"]["code"] == "USER_UNKNOWN"
    status, _ = await server.ask("DELETE", f"/api/users/{me['user']['id']}/block", token=others["ada3"])
    assert (status, (await server.ask("GET", one, token=token))[0]) == (204, 200)
    for bad in ("limit=0", "limit=201", "cursor=nonsense", "cursor=W10", "limit=x", "query=" + "x" * 65):
        status, answer = await server.ask("GET", f"/api/users?{bad}", token=token)
        assert (status, answer["error"]["code"]) == (400, "VALIDATION_FAILED"), bad


async def test_sign_ins_are_listed_ended_and_all_left(server: Server) -> None:
    token = await server.token(device={"id": "d-1", "name": "Ada's phone", "platform": "ios"})
    _, other = await server.ask("POST", "/login", {"identifier": "ada", "password": PASSWORD})
    status, page = await server.ask("GET", "/api/auth/sessions", token=token)
    assert (status, page["nextCursor"], len(page["items"])) == (200, None, 2)
    mine = next(x for x in page["items"] if x["current"])
    theirs = next(x for x in page["items"] if not x["current"])
    assert mine["device"] == {"id": "d-1", "name": "Ada's phone", "platform": "ios"}
    assert theirs["device"]["name"], "without a name, what the client calls itself"
    assert 0 < mine["expiresInMs"] <= 30 * 86_400_000
    for _ in range(2):
        assert await server.ask("DELETE", f"/api/auth/sessions/{theirs['id']}", token=token) == (204, None)
    assert (await server.ask("GET", "/users/me", token=other["accessToken"]))[0] == 401
    assert (await server.ask("DELETE", "/api/auth/sessions/none", token=token))[0] == 404
    assert await server.ask("POST", "/api/auth/logout-all", token=token) == (204, None)
    assert (await server.ask("POST", "/api/auth/logout", token=token))[1]["error"]["code"] == "TOKEN_INVALID"


async def test_passwords_change_and_accounts_go_by_password(server: Server) -> None:
    token = await server.token()
    path, new = "/api/auth/change-password", "another password"
    wrong = {"currentPassword": "wrong", "newPassword": new}
    assert (await server.ask("POST", path, wrong, token=token))[0] == 403
    assert (await server.ask("POST", path, {"currentPassword": PASSWORD, "newPassword": "x"}, token=token))[
        0
    ] == 400
    right = {"currentPassword": PASSWORD, "newPassword": new}
    assert await server.ask("POST", path, right, token=token) == (204, None)
    status, answer = await server.ask("DELETE", "/api/user/account", {"password": PASSWORD}, token=token)
    assert (status, answer["error"]["code"]) == (403, "PASSWORD_WRONG")
    assert await server.ask("DELETE", "/api/user/account", {"password": new}, token=token) == (204, None)
    status, answer = await server.ask("GET", "/users/me", token=token)
    assert (status, answer["error"]["code"]) == (403, "ACCOUNT_DELETED")


async def test_a_live_socket_is_kept_by_a_fresh_token_of_the_same_person_only(server: Server) -> None:
    token, bob = await server.token("ada"), await server.token("bob")
    socket = (await server.socket(token)).client
    ack = await socket.call("AUTH_REFRESH", {"token": token})
    assert ack["ok"]
    assert 0 < ack["data"]["expiresInMs"] <= 900_000
    for bad, code in ((bob, "FORBIDDEN"), ("rubbish", "TOKEN_INVALID"), ("\x00", "VALIDATION_FAILED")):
        ack = await socket.call("auth_refresh", {"token": bad})
        assert (ack["ok"], ack["error"]["code"]) == (False, code)


async def test_a_ban_from_the_command_line_closes_the_sockets_within_a_second(server: Server) -> None:
    token, bob = await server.token("ada"), await server.token("bob")
    socket, other = await server.socket(token), await server.socket(bob)
    assert await server.users("ban", "ADA") == (0, "ada is banned.\n")
    assert await socket.closes_within_a_second() == "ACCOUNT_BANNED"
    assert other.client.connected
    with pytest.raises(socketio.exceptions.ConnectionError):
        await server.socket(token)
    assert await server.users("unban", "ada@example.com") == (0, "ada is active.\n")
    assert (await server.ask("GET", "/users/me", token=token))[0] == 200


async def test_signing_out_closes_the_sockets_of_that_sign_in_at_once(server: Server) -> None:
    token = await server.token()
    _, second = await server.ask("POST", "/login", {"identifier": "ada", "password": PASSWORD})
    one, two = await server.socket(token), await server.socket(second["accessToken"])
    await server.ask("POST", "/api/auth/logout", token=token)
    assert await one.closes_within_a_second() == "SESSION_ENDED"
    assert two.client.connected


async def test_the_command_line_lists_promotes_and_says_what_it_cannot_find(server: Server) -> None:
    await server.token("ada", displayName="[red]Ada[/red]", phone="+2348012345678")
    assert await server.users("promote", "+2348012345678") == (0, "ada is an administrator.\n")
    status, table = await server.users("list")
    assert status == 0
    for cell in ("ada@example.com", "[red]Ada[/red]", "+2348012345678", "admin", "active"):
        assert cell in table
    for verb in ("ban", "unban", "promote"):
        assert await server.users(verb, "nobody") == (1, "There is no such user.\n")
    for wrong in ([], ["ban"], ["list", "--limit", "0"], ["sing", "ada"]):
        with pytest.raises(SystemExit) as end:
            await server.users(*wrong)
        assert end.value.code == 2


async def test_the_command_line_says_so_when_there_is_no_server(tmp_path: Any) -> None:
    parser = argparse.ArgumentParser()
    cli_users.add_parser(parser.add_subparsers(dest="command"))
    out = io.StringIO()
    config = load_config({"DATA_DIR": str(tmp_path)})
    status = await cli_users.run(parser.parse_args(["users", "list"]), config, Console(file=out, width=200))
    assert (status, "start it" in out.getvalue()) == (1, True)


async def test_guesses_are_limited_by_address_and_route(mongo_uri: str, db: Database) -> None:
    config = load_config(
        {"MONGO_URI": mongo_uri, "MONGO_DATABASE": db.db.name, "JWT_SECRET": SECRET, "BCRYPT_ROUNDS": "4"}
    )
    async with TestClient(TestServer(make_app(config, mongo_uri))) as client:
        server = Server(config, client)
        await server.token()
        statuses = [
            (await server.ask("POST", "/login", {"identifier": "ada", "password": "wrong"}))[0]
            for _ in range(12)
        ]
        assert statuses == [401] * 10 + [429] * 2
