"""LiveKit at the doors: a token with the answer to joining, and its notifications by HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import jwt
import pytest
import pytest_asyncio

from tests.doors.conftest import House, open_house
from tests.doors.phones import Exchange
from tests.standins.livekit import API_KEY, API_SECRET, StandIn, livekit, signature

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def media() -> AsyncIterator[StandIn]:
    async with livekit() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def lit(mongo_uri: str, media: StandIn, exchange: Exchange) -> AsyncIterator[House]:
    """A house with LiveKit beside it."""
    env = {"LIVEKIT_URL": media.url, "LIVEKIT_API_KEY": API_KEY, "LIVEKIT_API_SECRET": API_SECRET}
    async with open_house(mongo_uri, exchange, **env) as house:
        yield house


async def test_joining_gives_a_token_that_livekit_takes_and_leaving_none(lit: House, media: StandIn) -> None:
    olu, ann = await lit.person("olu"), await lit.person("ann")
    room = (await olu.post("/api/room/create", {"type": "audio", "capacity": 50})).body["room"]
    joined = await ann.post(f"/api/room/join/{room['id']}")
    assert joined.status == 200
    given = joined.body["livekit"]
    assert (given["url"], given["expiresInMs"]) == (media.url, 600_000)
    claims = jwt.decode(
        given["token"], API_SECRET, algorithms=["HS256"], issuer=API_KEY, options={"require": ["exp", "nbf"]}
    )
    assert claims["attributes"]["userId"] == ann.id
    assert claims["sub"] == f"{ann.id}:{claims['attributes']['deviceId']}"
    assert (claims["video"]["room"], claims["video"]["roomJoin"]) == (room["id"], True)
    assert claims["video"]["canPublishSources"] == ["microphone"]
    assert "roomAdmin" not in claims["video"]
    mine = (await olu.post(f"/api/room/join/{room['id']}")).body["livekit"]["token"]
    assert jwt.decode(mine, API_SECRET, algorithms=["HS256"])["video"]["roomAdmin"] is True
    assert "livekit" not in (await ann.post(f"/api/room/{room['id']}/leave")).body


async def test_a_phone_that_leaves_has_no_new_token_and_is_out_of_livekit_too(
    lit: House, media: StandIn
) -> None:
    olu, ann = await lit.person("olu"), await lit.person("ann")
    room_id = (await olu.post("/api/room/create", {})).body["room"]["id"]
    phone, tablet = await ann.phone(), await ann.phone("tablet")
    await tablet.ask("join-room", roomId=room_id)
    token = (await phone.ask("join-room", roomId=room_id))["livekit"]["token"]
    identity = jwt.decode(token, API_SECRET, algorithms=["HS256"])["sub"]
    body = media.event("participant_joined", room_id, lit.clock.now(), sid="PA_p", identity=identity)
    headers = {"Authorization": signature(body, lit.clock.now()), "Content-Type": "application/webhook+json"}
    assert (await lit.send("POST", "/api/livekit/webhook", data=body, headers=headers)).status == 200
    left = await phone.ask("leave-room", roomId=room_id)
    assert "livekit" not in left
    assert [one["id"] for one in left["participants"]] == [ann.id], "with her tablet"
    left = await tablet.ask("leave-room", roomId=room_id)
    assert left["participants"] == []


async def test_a_notification_puts_a_participant_into_the_room_and_takes_them_out(
    lit: House, media: StandIn
) -> None:
    olu, ann = await lit.person("olu"), await lit.person("ann")
    room_id = (await olu.post("/api/room/create", {})).body["room"]["id"]
    await ann.post(f"/api/room/join/{room_id}")

    async def tell(name: str, secret: str = API_SECRET) -> int:
        body = media.event(name, room_id, lit.clock.now(), sid="PA_1", identity=f"{ann.id}:phone")
        headers = {
            "Authorization": signature(body, lit.clock.now(), secret),
            "Content-Type": "application/webhook+json",
        }
        answer = await lit.send("POST", "/api/livekit/webhook", data=body, headers=headers)
        if answer.status == 401:
            answer.error(401, "WEBHOOK_INVALID")
        return answer.status

    async def people() -> list[str]:
        return [one["id"] for one in (await olu.get(f"/api/room/{room_id}")).body["room"]["participants"]]

    assert await tell("participant_joined", "another secret, which is long enough") == 401
    assert await people() == []
    assert await tell("participant_joined") == 200
    assert await people() == [ann.id]
    assert await tell("participant_left") == 200
    assert await people() == []


async def test_a_notification_without_a_signature_is_refused(lit: House) -> None:
    (await lit.send("POST", "/api/livekit/webhook", data=b"{}")).error(401, "WEBHOOK_INVALID")


async def test_without_livekit_there_is_neither_token_nor_route(rest: House) -> None:
    olu = await rest.person("olu")
    room_id = (await olu.post("/api/room/create", {"ratePerMinuteMinor": 500})).body["room"]["id"]
    joined = (await olu.post(f"/api/room/join/{room_id}")).body
    assert "livekit" not in joined
    assert joined["room"]["price"] == {
        "ratePerMinuteMinor": 500,
        "currency": "NGN",
        "firstBlockSeconds": 60,
        "blockSeconds": 60,
        "connectFeeMinor": 0,
        "minimumMinor": 1000,
        "exponent": 2,
    }
    (await rest.send("POST", "/api/livekit/webhook", data=b"{}")).error(404, "ROUTE_UNKNOWN")


async def test_a_price_is_paid_at_the_doors(rest: House) -> None:
    olu, ann = await rest.person("olu"), await rest.person("ann")
    room_id = (await olu.post("/api/room/create", {"ratePerMinuteMinor": 500})).body["room"]["id"]
    (await ann.post(f"/api/room/join/{room_id}")).error(402, "INSUFFICIENT_FUNDS")
    await ann.post("/api/wallet/create", {"pin": "2468"}, headers={"Idempotency-Key": "w"})
    await ann.pay_in(100_000)
    assert (await ann.post(f"/api/room/join/{room_id}")).status == 200
    wallet = (await ann.get("/api/wallet")).body["wallet"]
    assert wallet["heldMinor"] > 0
    assert (await ann.get("/api/calls/history")).body["items"] == []
