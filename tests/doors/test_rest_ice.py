"""E56: who is given a way through the TURN server, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from server.config import ConfigFault, load_config
from tests.doors.conftest import House, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOUSE = {"TURN_IN_CALLS_ONLY": "true", "TURN_TTL_SECONDS": "86400"}


async def relays(person: Person) -> list[str]:
    """The names under which the TURN server knows this person."""
    body = (await person.get("/api/ice-servers")).body
    assert body["iceServers"][0] == {"urls": ["stun:stun.example.org:3478"]}
    return [server["username"] for server in body["iceServers"] if "credential" in server]


async def test_e56_turn_credentials_come_with_a_live_call_and_not_without(rest: House) -> None:
    ann, bob, eve = await asyncio.gather(*(rest.person(name) for name in ("ann", "bob", "eve")))
    assert [await relays(person) for person in (ann, bob, eve)] == [[], [], []]
    call = (await ann.post("/api/calls", {"to": bob.id, "type": "audio"})).body["call"]
    for person in (ann, bob):
        (name,) = await relays(person)
        assert name.endswith(f":{person.id}"), "one's own, while it rings already"
    assert await relays(eve) == []
    assert (await bob.post("/api/calls/reject", {"callId": call["id"]})).status == 200
    assert [await relays(person) for person in (ann, bob)] == [[], []]


async def test_e56_a_credential_is_good_for_a_day_at_most(rest: House) -> None:
    ann, bob = await asyncio.gather(rest.person("ann"), rest.person("bob"))
    await ann.post("/api/calls", {"to": bob.id, "type": "audio"})
    (name,) = await relays(ann)
    assert int(name.split(":")[0]) - int(rest.clock.now().timestamp()) == 86_400
    with pytest.raises(ConfigFault, match="TURN_TTL_SECONDS must be a whole number from 60 to 86400"):
        load_config({"TURN_TTL_SECONDS": "86401"})
    with pytest.raises(ConfigFault, match="TURN_IN_CALLS_ONLY must be true or false"):
        load_config({"TURN_IN_CALLS_ONLY": "sometimes"})
