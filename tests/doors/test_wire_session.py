"""Connecting, being greeted, catching up, and going: CONTRACT §2."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import pytest
from rich.console import Console

from server.app import SOCKETS, drain
from server.cli_users import add_parser
from server.cli_users import run as users
from server.clock import SystemClock
from server.config import load_config
from tests.doors.conftest import PASSWORD, House, open_house
from tests.doors.phones import Exchange, Phone, check_error
from tests.doors.talk import pair, ring, talk

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def no_entry(house: House, **options: Any) -> str:
    """The code with which a connect is refused."""
    phone = await house.phone("stranger", **options)
    told = await phone.happens("*connect_error")
    assert set(told["data"]) >= {"code", "message"}
    check_error(told["data"])
    assert told["message"] == told["data"]["message"]
    assert "*connect" not in phone.names()
    return str(told["data"]["code"])


# ------------------------------------------------------------------------------------------------------- coming in


async def test_a_connect_without_a_good_token_is_refused_with_its_code(house: House) -> None:
    for auth in (None, {}, {"token": ""}, {"token": None}, {"token": 7}, {"token": ["x"]}, {"other": 1}):
        assert await no_entry(house, **({} if auth is None else {"auth": auth})) == "TOKEN_MISSING"
    for token in ("x", "a.b.c", "Bearer x", "x" * 5000, "\x00", "💥"):
        assert await no_entry(house, auth={"token": token}) == "TOKEN_INVALID"
    for header in ("", "Basic eDp4", "Bearer"):
        assert await no_entry(house, extraHeaders={"Authorization": header}) == "TOKEN_MISSING"
    assert await no_entry(house, extraHeaders={"Authorization": "Bearer nonsense"}) == "TOKEN_INVALID"


async def test_an_expired_token_is_refused_as_expired(house: House) -> None:
    ada = await house.person("ada")
    await house.pass_(901)
    assert await no_entry(house, auth={"token": ada.token}) == "TOKEN_EXPIRED"
    answer = await house.send(
        "POST", "/api/auth/refresh-token", {"refreshToken": ada.signed_in["refreshToken"]}
    )
    fresh = await house.phone("fresh", auth={"token": answer.body["accessToken"]})
    await fresh.happens("SYNC")


async def test_signed_out_banned_and_deleted_people_are_refused(house: House) -> None:
    out, banned, gone = await asyncio.gather(*(house.person(name) for name in ("out", "banned", "gone")))
    assert (await out.post("/api/auth/logout")).status == 204
    assert await no_entry(house, auth={"token": out.token}) == "TOKEN_INVALID"
    assert await cli(house, "ban", banned.username) == 0
    assert await no_entry(house, auth={"token": banned.token}) == "ACCOUNT_BANNED"
    assert (await gone.send("DELETE", "/api/user/account", {"password": PASSWORD})).status == 204
    assert await no_entry(house, auth={"token": gone.token}) == "ACCOUNT_DELETED"


async def test_the_token_may_come_in_the_authorization_header(house: House) -> None:
    ada = await house.person("ada")
    for scheme in ("Bearer ", "bearer "):
        phone = await house.phone("a", extraHeaders={"Authorization": scheme + ada.token})
        await phone.happens("SYNC")
    phone = await house.phone("a", auth={"token": f"Bearer {ada.token}"})
    await phone.happens("SYNC")


async def test_polling_works_and_may_become_a_websocket(house: House) -> None:
    ada, bob = await asyncio.gather(house.person("ada"), house.person("bob"))
    a = await ada.dial("a", transports=["polling"])
    b = await bob.dial("b", transports=["polling", "websocket"])
    assert await a.happens("*connect") == {"transport": "polling"}
    await asyncio.gather(a.happens("SYNC"), b.happens("SYNC"))
    call_id = await talk(a, b, bob)
    await b.ask("CALL_ENDED", callId=call_id)
    assert (await a.happens("CALL_ENDED"))["callId"] == call_id
    assert (await a.refused("CALL_ENDED", callId="x"))["code"] == "CALL_UNKNOWN"


async def test_the_greeting_comes_after_the_connect_and_says_who_is_there(house: House) -> None:
    ada = await house.person("ada")
    phone = await ada.dial("my phone")
    sync = await phone.happens("SYNC")
    assert phone.names()[:2] == ["*connect", "SYNC"]
    assert sync == {
        "calls": [],
        "missed": 0,
        "seq": 0,
        "gap": False,
        "deviceId": "my phone",
        "wallet": None,
    }
    # Without a name of its own, a device is its sign-in; a second one of the same sign-in is another device.
    one, two = await ada.dial(), await ada.dial()
    names = [(await phone.happens("SYNC"))["deviceId"] for phone in (one, two)]
    assert len(set(names)) == 2
    assert all(0 < len(name) <= 64 for name in names)


@pytest.mark.parametrize("name", ["", "x" * 65, 7, None, ["a"], "\x00", {"a": 1}])
async def test_a_device_id_that_is_none_is_not_taken(house: House, name: Any) -> None:
    ada = await house.person("ada")
    phone = await house.phone("odd", auth={"token": ada.token, "deviceId": name})
    sync = await phone.happens("SYNC")
    assert sync["deviceId"] != name
    assert sync["gap"] is False


# ------------------------------------------------------------------------------------------------------ catching up


async def test_a_device_gets_what_it_missed_in_order_and_once(house: House) -> None:
    _, a, bob, b = await pair(house)
    await b.close()
    for number in range(3):
        await a.ask("CHAT_MESSAGE", to=bob.id, text=f"message {number}", opId=f"m{number}")
    call_id = (await a.ask("CALL_REQUEST", to=bob.id, type="audio"))["id"]
    await a.ask("CALL_ENDED", callId=call_id)

    again = await bob.dial("b", since=0)
    sync = await again.happens("SYNC")
    ended = await again.happens("CALL_ENDED")
    assert (sync["missed"], sync["gap"]) == (4, False), "E13: a ring that is over is not replayed"
    assert [name for name in again.names() if not name.startswith("*")] == [
        "SYNC", "CHAT_MESSAGE", "CHAT_MESSAGE", "CHAT_MESSAGE", "CALL_ENDED",
    ]  # fmt: skip
    told = again.heard("CHAT_MESSAGE")
    assert [one["text"] for one in told] == ["message 0", "message 1", "message 2"]
    assert [one["logSeq"] for one in told] == sorted(one["logSeq"] for one in told)
    assert ended["seq"] == ended["logSeq"] == sync["seq"]

    rest = await bob.dial("b", since=told[1]["logSeq"])
    sync = await rest.happens("SYNC")
    await rest.happens("CALL_ENDED")
    assert (sync["missed"], [one["text"] for one in rest.heard("CHAT_MESSAGE")]) == (2, ["message 2"])

    nothing = await bob.dial("b", since=sync["seq"])
    assert (await nothing.happens("SYNC"))["missed"] == 0
    new_device = await bob.dial("b-new")
    assert (await new_device.happens("SYNC"))["missed"] == 0


@pytest.mark.parametrize("since", [10_000, 2**53])
async def test_e59_a_number_that_is_not_of_this_log_is_answered_with_a_gap(house: House, since: int) -> None:
    _, a, bob, _ = await pair(house)
    await a.ask("CHAT_MESSAGE", to=bob.id, text="hello", opId="1")
    phone = await bob.dial("b", since=since)
    assert (await phone.happens("SYNC"))["gap"] is True


async def test_numbers_that_are_no_numbers_count_as_none(house: House) -> None:
    ada = await house.person("ada")
    for since in (-1, 1.5, "1", True, [], {}, 10**30):
        phone = await house.phone("odd", auth={"token": ada.token, "since": since})
        sync = await phone.happens("SYNC")
        assert sync["missed"] == 0, since


async def test_what_is_too_old_to_be_kept_shows_as_a_gap(house: House) -> None:
    _, a, bob, _ = await pair(house)
    await a.ask("CHAT_MESSAGE", to=bob.id, text="old", opId="1")
    await house.pass_(8 * 86_400)
    await house.services.mailbox.trim()
    phone = await (await bob.login()).dial("b", since=0)
    sync = await phone.happens("SYNC")
    assert (sync["gap"], sync["missed"], sync["seq"]) == (True, 0, 1)


async def test_e12_a_phone_that_was_off_has_no_ring_and_one_missed_call(house: House) -> None:
    _, a, bob, b = await pair(house)
    await b.close()
    await a.ask("CALL_REQUEST", to=bob.id, type="audio")
    await house.pass_(46)
    await a.happens("CALL_TIMEOUT")
    bob = await bob.login()
    phone = await bob.dial("b", since=0)
    await phone.happens("CALL_TIMEOUT")
    assert "CALL_REQUEST" not in phone.names()
    missed = (await bob.get("/api/calls/history?status=missed")).body["items"]
    assert [one["endReason"] for one in missed] == ["unreachable"]


async def test_a_phone_that_connects_in_the_middle_of_a_ring_rings_for_the_rest_of_it(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob)
    await house.pass_(20)
    late = await bob.dial("late")
    sync = await late.happens("SYNC")
    rung = await late.happens("CALL_REQUEST")
    assert [(one["id"], one["state"]) for one in sync["calls"]] == [(call_id, "ringing")]
    assert (rung["callId"], rung["expiresInMs"]) == (call_id, 25_000)
    await late.ask("CALL_ACCEPT", callId=call_id)
    assert (await b.happens("CALL_ANSWERED_ELSEWHERE"))["by"] == "accept"


async def test_the_newest_socket_of_a_device_is_the_device_and_there_is_no_ping_pong(house: House) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    newer = await ada.dial("a", reconnection=True, reconnectionDelay=10)
    await newer.happens("SYNC")
    assert await a.happens("*disconnect") == "io server disconnect", "a client does not come back from this"
    assert (await newer.ask("CALL_SYNC"))["calls"][0]["state"] == "active", "the call did not notice"
    await b.ask("SESSION_DESCRIPTION", callId=call_id, description={"type": "offer", "sdp": "v=0\r\n"})
    await newer.happens("SESSION_DESCRIPTION")
    await newer.settled()
    assert newer.names().count("*connect") == 1
    await b.settled()
    assert "CALL_UPDATED" not in b.names()


async def test_a_client_that_lost_its_network_comes_back_by_itself_and_catches_up(house: House) -> None:
    _, a, bob, _ = await pair(house)
    b = await bob.phone("b2", reconnection=True, reconnectionDelay=10, reconnectionDelayMax=20)
    await b.use(token=bob.token, deviceId="b2", since=0)
    await b.kill()
    await a.ask("CHAT_MESSAGE", to=bob.id, text="did you get this?", opId="1")
    assert (await b.happens("SYNC"))["gap"] is False
    assert (await b.happens("CHAT_MESSAGE"))["text"] == "did you get this?"
    assert b.names().count("CHAT_MESSAGE") == 1


# ---------------------------------------------------------------------------------------------------------- staying


async def test_a_token_that_expires_is_announced_a_minute_before_and_refreshed(house: House) -> None:
    ada = await house.person("ada")
    phone = await ada.phone("a")
    await house.pass_(838)
    await phone.settled()
    assert "AUTH_EXPIRING" not in phone.names()
    await house.pass_(2.5)
    told = await phone.happens("AUTH_EXPIRING")
    assert set(told) == {"expiresInMs"}
    assert 58_000 <= told["expiresInMs"] <= 60_000
    await house.pass_(1)
    answer = await house.send(
        "POST", "/api/auth/refresh-token", {"refreshToken": ada.signed_in["refreshToken"]}
    )
    data = await phone.ask("AUTH_REFRESH", token=answer.body["accessToken"])
    assert 899_000 <= data["expiresInMs"] <= 900_000
    await house.pass_(200)
    await phone.settled()
    assert phone.names().count("AUTH_EXPIRING") == 1
    # And before the next end it is announced again.
    await house.pass_(660)
    await phone.happens("AUTH_EXPIRING")


async def test_a_socket_whose_token_is_not_refreshed_is_closed_25_seconds_after_its_end(house: House) -> None:
    ada = await house.person("ada")
    phone = await ada.phone("a", reconnection=True, reconnectionDelay=10)
    await house.pass_(850)
    await phone.happens("AUTH_EXPIRING")
    await house.pass_(73)
    await phone.settled()
    await house.pass_(3)
    told = await phone.happens("error")
    assert (told["error"]["code"], told["event"]) == ("TOKEN_EXPIRED", None)
    assert await phone.happens("*disconnect") == "io server disconnect"
    assert not house.app[SOCKETS].online(ada.id)


async def test_a_socket_is_not_refreshed_with_a_bad_token_or_anothers(house: House) -> None:
    ada, bob = await asyncio.gather(house.person("ada"), house.person("bob"))
    phone = await ada.phone("a")
    for token, code in ((bob.token, "FORBIDDEN"), ("x", "TOKEN_INVALID"), ("", "VALIDATION_FAILED")):
        assert (await phone.refused("AUTH_REFRESH", token=token))["code"] == code
    await house.pass_(850)
    await phone.happens("AUTH_EXPIRING")
    await house.pass_(80)
    assert (await phone.happens("error"))["error"]["code"] == "TOKEN_EXPIRED"


async def test_e52_a_call_whose_token_runs_out_goes_on_with_a_new_one_and_is_lost_without(
    house: House,
) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    await house.pass_(850)
    for person, phone in ((ada, a), (bob, b)):
        await phone.happens("AUTH_EXPIRING")
        if person is bob:
            fresh = await person.login()
            await phone.ask("AUTH_REFRESH", token=fresh.token)
    await house.pass_(76)
    assert (await a.happens("error"))["error"]["code"] == "TOKEN_EXPIRED"
    told = await b.happens("CALL_UPDATED")
    assert (told["callId"], told["call"]["state"]) == (call_id, "reconnecting")
    await house.pass_(31)
    assert (await b.happens("CALL_ENDED"))["reason"] == "connection_lost"


# ------------------------------------------------------------------------------------------------------------ going


async def cli(house: House, verb: str, name: str) -> int:
    """``python main.py users …`` beside the running server."""
    config = load_config({"MONGO_URI": URIS[house.url], "MONGO_DATABASE": house.db.db.name})
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return await users(parser.parse_args(["users", verb, name]), config, Console(quiet=True))


URIS: dict[str, str] = {}


@pytest.fixture(autouse=True)
def known(house: House, mongo_uri: str) -> None:
    URIS[house.url] = mongo_uri


async def closed(phone: Phone, code: str) -> None:
    """The phone is told why, and sent away for good, within a second."""
    told = await phone.happens("error", seconds=5)
    assert (told["error"]["code"], told["event"]) == (code, None)
    assert await phone.happens("*disconnect") == "io server disconnect"


async def test_a_ban_from_the_command_line_closes_sockets_and_ends_the_call_within_a_second(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with open_house(mongo_uri, exchange, clock=SystemClock()) as house:
        URIS[house.url] = mongo_uri
        ada, a, bob, b = await pair(house)
        a2 = await ada.phone("a2")
        await talk(a, b, bob)
        loop = asyncio.get_running_loop()
        assert await cli(house, "ban", ada.username) == 0
        began = loop.time()
        await asyncio.gather(closed(a, "ACCOUNT_BANNED"), closed(a2, "ACCOUNT_BANNED"))
        assert (await b.happens("CALL_ENDED"))["reason"] == "policy"
        # The second, and what two busy cores may add to it.
        assert loop.time() - began < 3
        assert await no_entry(house, auth={"token": ada.token}) == "ACCOUNT_BANNED"
        (await ada.get("/api/auth/profile")).error(403, "ACCOUNT_BANNED")
        assert (await b.refused("CALL_REQUEST", to=ada.id, type="audio"))["code"] == "USER_UNAVAILABLE"
        assert await cli(house, "unban", ada.username) == 0
        back = await ada.phone("a")
        await ring(b, back, ada)
        assert await cli(house, "ban", "nobody-of-that-name") == 1


async def test_a_password_change_closes_the_other_sockets_and_not_this_sign_in(house: House) -> None:
    ada = await house.person("ada")
    other = await ada.login()
    here, there = await ada.phone("here"), await other.phone("there")
    body = {"currentPassword": PASSWORD, "newPassword": "another good password"}
    assert (await ada.post("/api/auth/change-password", body)).status == 204
    await closed(there, "SESSION_ENDED")
    await here.settled()
    assert await no_entry(house, auth={"token": other.token}) == "TOKEN_INVALID"


async def test_a_logout_closes_the_sockets_of_its_sign_in_only(house: House) -> None:
    ada = await house.person("ada")
    other = await ada.login()
    here, here2, there = await ada.phone("here"), await ada.phone("here2"), await other.phone("there")
    assert (await ada.post("/api/auth/logout")).status == 204
    await asyncio.gather(closed(here, "SESSION_ENDED"), closed(here2, "SESSION_ENDED"))
    await there.settled()
    assert (await other.post("/api/auth/logout-all")).status == 204
    await closed(there, "SESSION_ENDED")


async def test_e18_a_device_that_is_signed_out_while_it_rings_stops_and_the_others_ring_on(
    house: House,
) -> None:
    _, a, bob, b = await pair(house)
    other = await bob.login()
    b2 = await other.phone("b2")
    call_id = await ring(a, b, bob)
    await b2.happens("CALL_REQUEST")
    sessions = (await bob.get("/api/auth/sessions")).body["items"]
    ended = next(one["id"] for one in sessions if not one["current"])
    assert (await bob.send("DELETE", f"/api/auth/sessions/{ended}")).status == 204
    await closed(b2, "SESSION_ENDED")
    assert (await b.ask("CALL_ACCEPT", callId=call_id))["state"] == "active"


async def test_e53_a_deleted_account_closes_its_sockets_and_ends_its_call(house: House) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    assert (await ada.send("DELETE", "/api/user/account", {"password": PASSWORD})).status == 204
    assert (await b.happens("CALL_ENDED"))["reason"] == "policy"
    await a.happens("*disconnect")
    seen = (await bob.get(f"/api/calls/{call_id}")).body["call"]["caller"]
    assert ada.username not in seen.values(), "a deleted person has no name in others' histories"


# --------------------------------------------------------------------------------------------------------- draining


async def test_a_draining_server_sends_everybody_away_and_they_come_back_to_the_next_one(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with open_house(mongo_uri, exchange) as house:
        ada, bob = await asyncio.gather(house.person("ada"), house.person("bob"))
        again: dict[str, Any] = {"reconnection": True, "reconnectionDelay": 10, "reconnectionDelayMax": 50}
        a, b = await ada.phone("a", **again), await bob.phone("b", **again)
        p = await ada.phone("p", transports=["polling"])
        call_id = await talk(a, b, bob)
        path, port = "/socket.io/?EIO=4&transport=websocket", house.site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        late = await house.http.ws_connect(house.url + path)
        await late.receive()
        # As `python main.py run` does it: nobody new, then everybody away.
        await house.site.stop()
        async with asyncio.timeout(10):
            await drain(house.app)
        for phone in (a, b, p):
            if phone is not p:  # which is told only if it happens to ask at the time
                told = await phone.happens("error")
                assert (told["error"]["code"], told["event"]) == ("SERVER_DRAINING", None)
                assert told["error"]["retryAfterMs"] > 0
            assert await phone.happens("*disconnect") != "io server disconnect", "nobody comes back from that"
        # Who had come as far as the door is told why not.
        await late.send_str('40{"token":"%s"}' % ada.token)  # noqa: UP031
        assert '"code":"SERVER_DRAINING"' in (await late.receive()).data
        await late.close()
        # By the same clock: however long this machine took meanwhile, no lease has run out.
        async with open_house(mongo_uri, exchange, clock=house.clock, database=house.db.db.name, port=port):
            for phone in (a, b):
                sync = await phone.happens("SYNC")
                assert [(one["id"], one["state"]) for one in sync["calls"]] == [(call_id, "active")]
            await a.ask("CALL_ENDED", callId=call_id)
            await b.happens("CALL_ENDED")


async def test_a_draining_server_says_so_by_http(mongo_uri: str) -> None:
    async with open_house(mongo_uri) as house:
        ada = await house.person("ada")
        await drain(house.app)
        sick = await house.send("GET", "/health")
        assert (sick.status, sick.body["status"]) == (503, "draining")
        refused = await ada.get("/api/calls/history")
        refused.error(503, "SERVER_DRAINING")
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await house.send("GET", "/health/live")).status == 200


async def test_a_drain_does_not_wait_for_clients_that_do_not_listen(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with open_house(mongo_uri, exchange) as house:
        ada = await house.person("ada")
        # A polling client that has connected and asks for nothing more.
        path = "/socket.io/?EIO=4&transport=polling"
        opened = await house.send("GET", path)
        sid = opened.body[1:].split('"sid":"')[1].split('"')[0]
        said = await house.send("POST", f"{path}&sid={sid}", data='40{"token":"%s"}' % ada.token)  # noqa: UP031
        assert said.body == "OK"
        async with asyncio.timeout(4):
            await drain(house.app)
