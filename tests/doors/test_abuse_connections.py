"""Who may open connections: floods from one address, one person's devices, silence, guessed ids, blocked addresses."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import timedelta
from functools import partial
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from models.errors import CODES
from models.trail.rules import Actor
from server.admission import SILENT_FOR
from server.app import SOCKETS
from server.cli_blocks import run as blocks_command
from server.config import load_config
from tests.doors.conftest import House, Reply
from tests.doors.talk import pair, talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = {
    "TRUSTED_PROXY_HOPS": "1",
    "HANDSHAKES_PER_SECOND": "1",
    "SOCKETS_PER_ADDRESS": "3",
    "SOCKETS_PER_USER": "2",
    "BLOCK_AFTER_REFUSALS": "20",
    "AUTH_PER_MINUTE": "5",
}
POLL = "/socket.io/?EIO=4&transport=polling"


def of(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


async def opened(house: House, address: str) -> str:
    """A transport by polling, without a connect; its id."""
    answer = await house.send("GET", POLL, headers=of(address))
    assert answer.status == 200, answer.body
    return str(json.loads(answer.body[1:])["sid"])


def says_when(answer: Reply, status: int, code: str) -> int:
    """The refusal tells when to come back, in both ways; in milliseconds."""
    wait = int(answer.error(status, code)["retryAfterMs"])
    assert int(answer.headers["Retry-After"]) == -(-wait // 1000) >= 1
    return wait


async def test_handshakes_of_one_address_are_bounded_and_those_of_others_go_on(house: House) -> None:
    flood = "203.0.113.10"
    ids = [await opened(house, flood) for _ in range(3)]
    # Three are open: no more until one has gone.
    assert says_when(await house.send("GET", POLL, headers=of(flood)), 429, "TOO_MANY_CONNECTIONS") == 30_000
    for sid in ids:
        await house.send("POST", f"{POLL}&sid={sid}", data="1", headers=of(flood))
    assert house.app[SOCKETS]._admission.open_at(flood) == 0
    for _ in range(16):
        sid = await opened(house, flood)
        await house.send("POST", f"{POLL}&sid={sid}", data="1", headers=of(flood))
    assert says_when(await house.send("GET", POLL, headers=of(flood)), 429, "RATE_LIMITED") == 1000
    with pytest.raises(aiohttp.WSServerHandshakeError) as no:
        await house.http.ws_connect(f"{house.url}/socket.io/?EIO=4&transport=websocket", headers=of(flood))
    assert no.value.status == 429
    await opened(house, "203.0.113.11")
    await house.pass_(1)
    await opened(house, flood)


async def test_a_person_has_so_many_devices_at_once_and_each_may_come_again(house: House) -> None:
    ann = await house.person("ann")
    one, _ = await asyncio.gather(ann.phone("one"), ann.phone("two"))
    three = await ann.dial("three", reconnection=False)
    no = (await three.happens("*connect_error"))["data"]
    assert (no["code"], no["retryAfterMs"]) == ("TOO_MANY_CONNECTIONS", 30_000)
    assert no["message"] == CODES["TOO_MANY_CONNECTIONS"].sentence
    again = await ann.phone("two")
    await one.close()
    await again.ask("CALL_SYNC")
    async with asyncio.timeout(10):
        while house.app[SOCKETS].connected(ann.id, "one"):
            await house.db.ping()
    await ann.phone("three")


@pytest.mark.parametrize("way", ["websocket", "polling", "after a disconnect"])
async def test_a_transport_that_connects_to_nothing_is_closed_after_a_while(house: House, way: str) -> None:
    eio = house.app[SOCKETS].sio.eio
    ann, before = await house.person("ann"), set(eio.sockets)
    if way == "polling":
        await opened(house, "203.0.113.20")
        (sid,) = set(eio.sockets) - before
    else:
        url = f"{house.url}/socket.io/?EIO=4&transport=websocket"
        socket = await house.http.ws_connect(url, headers=of("203.0.113.21"))
        await socket.receive()
        (sid,) = set(eio.sockets) - before
        if way == "after a disconnect":
            await socket.send_str("40" + json.dumps({"token": ann.token}))
            while not (await socket.receive()).data.startswith('42["SYNC"'):
                pass
            await house.pass_(SILENT_FOR.total_seconds())
            assert sid in eio.sockets, "who is connected stays"
            await socket.send_str("41")
            async with asyncio.timeout(10):
                while house.app[SOCKETS].online(ann.id):
                    await house.db.ping()
    await house.pass_(SILENT_FOR.total_seconds() - 0.001)
    assert sid in eio.sockets
    await house.pass_(0.001)
    async with asyncio.timeout(10):
        while sid in eio.sockets:
            await house.db.ping()


async def test_nobody_takes_up_what_is_anothers_by_an_id(house: House) -> None:
    """The id of a transport has 96 bits of chance and more; that of a call opens it to its two people alone."""
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    eve = await house.person("eve")
    phone = await eve.phone("eve")
    for event in ("CALL_RESUME", "CALL_ACCEPT", "CALL_ENDED"):
        assert (await phone.refused(event, callId=call_id))["code"] == "CALL_UNKNOWN"
    # A log is one's own, whatever number is asked for: there is nothing to guess.
    for since in (0, 1, 2, 50):
        curious = await eve.dial("curious", since=since)
        assert all(call_id not in str(one) for one in (await curious.happens("SYNC")).items())
        await curious.close()
    known = next(iter(house.app[SOCKETS].sio.eio.sockets))
    assert len(known) >= 20
    guessed = known[:-6] + "AAAAAA"
    for method, data in (("GET", None), ("POST", '42["CALL_ENDED",{}]')):
        answer = await house.send(method, f"{POLL}&sid={guessed}", data=data, headers=of("203.0.113.30"))
        assert answer.status == 400
    # Somebody who is in the wire's place cannot have it by polling either.
    assert (await house.send("GET", f"{POLL}&sid={known}", headers=of("203.0.113.30"))).status == 400
    await a.ask("CALL_SYNC")
    await a.ask("CALL_ENDED", callId=call_id)


async def test_a_blocked_address_is_refused_everywhere_its_sockets_close_and_the_others_go_on(
    house: House,
) -> None:
    await house.pass_(60)
    ann, bob = await asyncio.gather(house.person("ann"), house.person("bob"))
    bad, good = "198.51.100.7", "198.51.100.8"
    phone = await ann.phone("phone", extraHeaders=of(bad), reconnection=False)
    other = await bob.phone("phone", extraHeaders=of(good))
    blocks = house.services.blocks
    await blocks.add("198.51.100.7", lasts=timedelta(hours=1), by=Actor.operator("root"), reason="floods")
    assert says_when(await ann.get("/api/auth/profile", headers=of(bad)), 403, "ADDRESS_BLOCKED") == 3_600_000
    for path in ("/api/auth/login", "/health", "/no such page"):
        says_when(await house.send("GET", path, headers=of(bad)), 403, "ADDRESS_BLOCKED")
    says_when(await house.send("GET", POLL, headers=of(bad)), 403, "ADDRESS_BLOCKED")
    await house.app[SOCKETS].put_out(blocks.refusal)
    told = await phone.happens("error")
    assert (told["error"]["code"], told["error"]["retryAfterMs"]) == ("ADDRESS_BLOCKED", 3_600_000)
    await phone.happens("*disconnect")
    await other.ask("CALL_SYNC")
    assert (await bob.get("/api/auth/profile", headers=of(good))).status == 200
    # The same person from elsewhere is not meant.
    assert (await ann.get("/api/auth/profile", headers=of(good))).status == 200
    await house.pass_(3600)
    assert (await ann.get("/api/auth/profile", headers=of(bad))).status == 401, "the token has expired by now"


async def dialled(house: House, address: str) -> aiohttp.ClientWebSocketResponse:
    """A transport by WebSocket, without a connect."""
    url = f"{house.url}/socket.io/?EIO=4&transport=websocket"
    socket = await house.http.ws_connect(url, headers=of(address))
    assert (await socket.receive()).data.startswith("0{")
    return socket


async def refusal(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """How a connect is answered that is refused."""
    said = (await socket.receive()).data
    assert said.startswith("44"), said
    found: dict[str, Any] = json.loads(said[2:])["data"]
    return found


async def test_a_transport_that_was_open_before_its_address_was_kept_out_connects_to_nothing(
    house: House,
) -> None:
    ann, bad = await house.person("ann"), "198.51.100.60"
    late = await dialled(house, bad)
    await house.services.blocks.add(bad, lasts=timedelta(minutes=1), by=Actor.operator("root"), reason="why")
    await late.send_str("40" + json.dumps({"token": ann.token}))
    no = await refusal(late)
    assert (no["code"], no["retryAfterMs"]) == ("ADDRESS_BLOCKED", 60_000)
    # By itself nobody is put out who has a token.
    await house.services.blocks.remove(bad, by=Actor.operator("root"), reason="why")
    await house.services.blocks.add_automatic(bad)
    await late.send_str("40" + json.dumps({"token": ann.token}))
    assert (await late.receive()).data.startswith("40{")
    await late.close()


async def test_connects_on_one_transport_are_bounded_whether_they_are_let_in_or_not(house: House) -> None:
    ann = await house.person("ann")
    socket = await dialled(house, "198.51.100.61")
    for number in range(20):
        if number % 2:
            await socket.send_str('40{"token":"none"}')
            assert (await refusal(socket))["code"] == "TOKEN_INVALID"
        else:
            await socket.send_str("40" + json.dumps({"token": ann.token}))
            while not (await socket.receive()).data.startswith('42["SYNC"'):
                pass
            await socket.send_str("41")
    await socket.send_str("40" + json.dumps({"token": ann.token}))
    no = await refusal(socket)
    assert (no["code"], no["retryAfterMs"]) == ("RATE_LIMITED", 1000)
    await house.pass_(1)
    await socket.send_str("40" + json.dumps({"token": ann.token}))
    assert (await socket.receive()).data.startswith("40{")
    await socket.close()


async def test_an_address_that_does_not_stop_is_kept_out_by_itself_and_longer_each_time(house: House) -> None:
    flood, body = "198.51.100.20", {"identifier": "somebody", "password": "a guess"}
    for minutes in (10, 60):
        for _ in range(5):
            (await house.send("POST", "/login", body, headers=of(flood))).error(401, "CREDENTIALS_WRONG")
        for _ in range(20):
            says_when(await house.send("POST", "/login", body, headers=of(flood)), 429, "RATE_LIMITED")
        async with asyncio.timeout(10):
            while True:
                answer = await house.send("POST", "/login", body, headers=of(flood))
                if answer.status == 403:
                    break
        assert says_when(answer, 403, "ADDRESS_BLOCKED") == minutes * 60_000
        await house.pass_(minutes * 60)


async def test_who_is_signed_in_at_the_address_of_a_flood_is_not_put_out_with_it(house: House) -> None:
    ann, shared = await house.person("ann"), "198.51.100.50"
    phone = await ann.phone("phone", extraHeaders=of(shared))
    await house.services.blocks.add_automatic(shared)
    says_when(await house.send("POST", "/login", {}, headers=of(shared)), 403, "ADDRESS_BLOCKED")
    forged = {**of(shared), "Authorization": "Bearer a.b.c"}
    says_when(await house.send("GET", "/api/auth/profile", headers=forged), 403, "ADDRESS_BLOCKED")
    assert (await ann.get("/api/auth/profile", headers=of(shared))).status == 200
    await house.app[SOCKETS].put_out(partial(house.services.blocks.refusal, stranger=False))
    await phone.ask("CALL_SYNC")
    another = await ann.phone("tablet", extraHeaders=of(shared))
    await another.ask("CALL_SYNC")
    answer = await house.send("POST", "/auth/refresh", {"refreshToken": "none"}, headers=of(shared))
    answer.error(401, "REFRESH_INVALID")
    block = {"lasts": timedelta(minutes=1), "by": Actor.operator("root"), "reason": "meant for all"}
    await house.services.blocks.add(shared, **block)
    assert (await ann.get("/api/auth/profile", headers=of(shared))).status == 403


async def test_tokens_that_are_none_are_tried_so_often_and_then_the_address_is_kept_out(
    house: House,
) -> None:
    flood, seen = {**of("198.51.100.30"), "Authorization": "Bearer a.b.c"}, list[int]()
    while 403 not in seen:
        answers = await asyncio.gather(
            *(house.send("GET", "/api/auth/profile", headers=flood) for _ in range(50))
        )
        seen += [answer.status for answer in answers]
        for answer in answers:
            if answer.status == 429:
                says_when(answer, 429, "RATE_LIMITED")
        assert len(seen) < 1000
    assert seen.count(401) == 400


async def test_what_a_signed_in_device_is_refused_keeps_no_address_out(house: House) -> None:
    ann, address = await house.person("ann"), of("198.51.100.40")
    answers = await asyncio.gather(*(ann.get("/api/users", headers=address) for _ in range(200)))
    assert [answer.status for answer in answers].count(429) > 40
    expired = {**address, "Authorization": f"Bearer {ann.token}"}
    await house.pass_(901)
    answers = await asyncio.gather(*(house.send("GET", "/api/users", headers=expired) for _ in range(100)))
    assert {answer.status for answer in answers} == {401}
    for path in ("stripe", "paystack"):
        answers = await asyncio.gather(
            *(house.send("POST", f"/api/payments/webhooks/{path}", {}, headers=address) for _ in range(40))
        )
        assert 403 not in {answer.status for answer in answers if "ADDRESS_BLOCKED" in str(answer.body)}
    assert house.services.blocks.board.until("198.51.100.40", house.clock.now()) is None


async def test_an_operator_lists_adds_and_removes_blocks(house: House, mongo_uri: str) -> None:
    config = load_config(
        {
            "MONGO_URI": mongo_uri,
            "MONGO_DATABASE": house.db.db.name,
            "JWT_SECRET": "s" * 40,
            "BCRYPT_ROUNDS": "4",
        }
    )

    async def command(**words: Any) -> tuple[int, str]:
        console = Console(record=True, width=200)
        args = argparse.Namespace(**{"reason": "floods", "lasts": timedelta(hours=2), **words})
        return await blocks_command(args, config, console), console.export_text()

    status, said = await command(blocks_verb="add", network="198.51.100.64/28")
    assert (status, said.startswith("198.51.100.64/28 is kept out until ")) == (0, True)
    status, said = await command(blocks_verb="list")
    assert status == 0
    assert all(word in said for word in ("198.51.100.64/28", "floods"))
    status, said = await command(blocks_verb="add", network="127.0.0.1")
    assert (status, "never kept out" in said) == (1, True)
    assert await command(blocks_verb="remove", network="198.51.100.64/28") == (0, "It is let in again.\n")
    assert await command(blocks_verb="remove", network="198.51.100.64/28") == (0, "It was not kept out.\n")
