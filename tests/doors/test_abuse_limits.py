"""Limits at the doors: one allowance over all processes, addresses behind proxies, rings by socket and REST alike."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.app import SOCKETS
from tests.doors.conftest import House, open_house
from tests.doors.phones import Exchange
from tests.doors.redis_server import RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRONG = {"identifier": "nobody-at-all", "password": "wrong horse battery"}


async def tries(house: House, count: int, address: str, who: str) -> list[int]:
    headers = {"X-Forwarded-For": address}
    body = {**WRONG, "identifier": who}
    answers = [await house.send("POST", "/login", body, headers=headers) for _ in range(count)]
    return [answer.status for answer in answers]


async def test_two_processes_share_the_allowance_of_an_address_and_of_an_account(
    mongo_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.limits_shared.TIMEOUT_SECONDS", 30.0)
    redis = await RedisServer(tmp_path).start()
    env = {"REDIS_URL": redis.url, "AUTH_PER_MINUTE": "4", "TRUSTED_PROXY_HOPS": "1"}
    try:
        async with open_house(mongo_uri, **env) as one:
            name = one.db.db.name
            async with open_house(mongo_uri, clock=one.clock, database=name, **env) as other:
                first = await tries(one, 2, "198.51.100.1", "ann") + await tries(
                    other, 3, "198.51.100.1", "bob"
                )
                assert first == [401] * 4 + [429]
                spread = [
                    (await tries((one, other)[n % 2], 1, f"198.51.100.{n}", "cid"))[0] for n in range(2, 8)
                ]
                assert spread == [401] * 4 + [429] * 2
    finally:
        await redis.kill()


async def test_of_ipv6_a_whole_network_of_64_bits_is_one_address(mongo_uri: str) -> None:
    async with open_house(mongo_uri, AUTH_PER_MINUTE="3", TRUSTED_PROXY_HOPS="1") as house:
        said = [(await tries(house, 1, f"2001:db8:1:2::{n:x}", f"person-{n}"))[0] for n in range(1, 6)]
        assert said == [401] * 3 + [429] * 2
        assert await tries(house, 1, "2001:db8:1:3::1", "person-1") == [401]


async def test_a_socket_comes_from_where_the_trusted_proxy_says(mongo_uri: str, exchange: Exchange) -> None:
    async with open_house(mongo_uri, exchange, TRUSTED_PROXY_HOPS="1") as house:
        ann = await house.person("ann")
        seen: list[str] = []
        sockets = house.app[SOCKETS]
        for transport in ("websocket", "polling"):
            phone = await ann.phone(
                transport,
                transports=[transport],
                extraHeaders={"X-Forwarded-For": "203.0.113.9, 198.51.100.7"},
            )
            (connection,) = [c for c in sockets._by_sid.values() if c.ctx.device_id == transport]
            seen.append(connection.ctx.address)
            await phone.forget()
        assert seen == ["198.51.100.7"] * 2


async def test_rings_by_socket_and_by_rest_are_counted_together(mongo_uri: str, exchange: Exchange) -> None:
    async with open_house(mongo_uri, exchange, RINGS_PER_MINUTE="4") as house:
        eve, people = await house.person("eve"), [await house.person("bob") for _ in range(3)]
        phone = await eve.phone("phone")
        for number in range(4):
            to = people[number % 3].id
            if number % 2:
                answer = await eve.post("/api/calls/initiate", {"to": to, "type": "audio"})
                assert answer.status == 201, answer.body
                call = answer.body["call"]
            else:
                call = await phone.ask("CALL_REQUEST", to=to, type="audio")
            await phone.ask("CALL_ENDED", callId=call["id"])
        no = await phone.refused("CALL_REQUEST", to=people[0].id, type="audio")
        assert (no["code"], no["retryAfterMs"]) == ("RATE_LIMITED", 60_000)
        answer = await eve.post("/api/calls/initiate", {"to": people[1].id, "type": "audio"})
        assert answer.error(429, "RATE_LIMITED")["retryAfterMs"] == 60_000
        assert answer.headers["Retry-After"] == "60"


async def test_who_is_declined_six_times_waits_by_socket_and_by_rest(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with open_house(mongo_uri, exchange, DECLINE_COOL_OFF_SECONDS="300") as house:
        eve, bob = await asyncio.gather(house.person("eve"), house.person("bob"))
        e, b = await asyncio.gather(eve.phone("e"), bob.phone("b"))
        for _ in range(6):
            call = await e.ask("CALL_REQUEST", to=bob.id, type="audio")
            await b.ask("CALL_REJECT", callId=call["id"])
        house.clock.pass_(60)  # then the pair may ring again
        no = await e.refused("CALL_REQUEST", to=bob.id, type="audio")
        assert (no["code"], no["retryAfterMs"]) == ("RATE_LIMITED", 240_000)
        answer = await eve.post("/api/calls/initiate", {"to": bob.id, "type": "audio"})
        answer.error(429, "RATE_LIMITED")
        # The one who declined may call at any time.
        call = await b.ask("CALL_REQUEST", to=eve.id, type="audio")
        await b.ask("CALL_ENDED", callId=call["id"])
