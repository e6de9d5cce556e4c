"""Points by REST: shown, paged, redeemed once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.doors.conftest import House, Person
from tests.doors.test_rest_fx import rich

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = {"CALL_RATE_MINOR": "1000", "REWARD_POINTS_PER_MINUTE": "5", "REWARD_POINT_MINOR": "20"}
REWARDS, REDEEM = "/api/wallet/rewards", "/api/wallet/rewards/redeem"
SHOWN = {"points", "worthMinor", "currency", "pointMinor", "pointsPerMinute", "history", "nextCursor"}
KEYS = (f"points-{number}" for number in itertools.count(1))


async def talked(rest: House, ann: Person, bob: Person, seconds: float = 30) -> str:
    """A paid call by REST alone; its id."""
    made = await ann.post("/api/calls/initiate", {"to": bob.id, "type": "audio"})
    assert made.status == 201, made.body
    call_id = made.body["call"]["id"]
    taken = await bob.post("/api/calls/accept", {"callId": call_id})
    assert taken.status == 200, taken.body
    await rest.pass_(seconds)
    over = await ann.post("/api/calls/end", {"callId": call_id})
    assert over.body["call"]["costMinor"] == 1_000, over.body
    return str(call_id)


async def shown(person: Person, query: str = "") -> dict[str, Any]:
    answer = await person.get(REWARDS + query)
    assert answer.status == 200, answer.body
    return dict(answer.body["rewards"])


async def test_points_are_shown_with_their_worth_and_what_gave_them(rest: House) -> None:
    ann, bob = await rich(rest), await rest.person("bob")
    nothing = await shown(ann)
    assert (set(nothing), nothing["points"], nothing["history"]) == (SHOWN, 0, [])
    call_id = await talked(rest, ann, bob)
    found = await shown(ann)
    assert (found["points"], found["worthMinor"], found["currency"]) == (5, 100, "NGN")
    assert (found["pointMinor"], found["pointsPerMinute"]) == (20, 5)
    (line,) = found["history"]
    assert set(line) == {"id", "kind", "points", "callId", "createdAt"}
    assert (line["kind"], line["points"], line["callId"]) == ("earned", 5, call_id)
    assert (await shown(bob))["points"] == 0


async def test_points_are_redeemed_once_for_call_credits(rest: House) -> None:
    ann, bob = await rich(rest), await rest.person("bob")
    await talked(rest, ann, bob)
    key = {"Idempotency-Key": next(KEYS)}
    done = await ann.post(REDEEM, {"points": 4}, headers=key)
    assert (done.status, set(done.body)) == (201, {"redemption", "points", "wallet"})
    assert set(done.body["redemption"]) == {"id", "points", "amountMinor", "currency", "createdAt"}
    assert (done.body["points"], done.body["redemption"]["amountMinor"]) == (1, 80)
    assert done.body["wallet"]["callCredits"]["availableMinor"] == 80
    line = (await ann.get("/api/wallet/transactions")).body["items"][0]
    assert (line["id"], line["kind"], line["account"]) == (
        *(done.body["redemption"]["id"], "reward", "call_credits"),
    )
    again = await ann.post(REDEEM, {"points": 4}, headers=key)
    assert (again.status, again.body) == (201, done.body)
    await rest.db["once"].delete_many({})
    lost = await ann.post(REDEEM, {"points": 4}, headers=key)
    assert (lost.status, lost.body) == (201, done.body)
    assert (await ann.post(REDEEM, {"points": 1}, headers=key)).status == 422
    assert [line["kind"] for line in (await shown(ann))["history"]] == ["redeemed", "earned"]


async def test_the_history_comes_in_pages(rest: House) -> None:
    ann, bob = await rich(rest), await rest.person("bob")
    calls = [await talked(rest, ann, bob) for _ in range(3)]
    seen, cursor = [], ""
    for _ in range(3):
        page = await shown(ann, f"?limit=1{cursor}")
        seen += [line["callId"] for line in page["history"]]
        cursor = f"&cursor={page['nextCursor']}"
    assert page["nextCursor"] is None
    assert seen == calls[::-1]


async def test_refusals_of_points(rest: House) -> None:
    ann = await rest.person("ann")
    key = {"Idempotency-Key": next(KEYS)}
    no = (await ann.post(REDEEM, {"points": 1}, headers=key)).error(402, "POINTS_INSUFFICIENT")
    assert no["details"] == {"points": 0}
    (await ann.post(REDEEM, {"points": 1})).error(400, "IDEMPOTENCY_KEY_REQUIRED")
    for points in (0, -1, 1.5, "1", None, 10**12):
        body = {"points": points}
        details = (await ann.post(REDEEM, body, headers={"Idempotency-Key": next(KEYS)})).error(
            400, "VALIDATION_FAILED"
        )["details"]
        assert list(details) == ["points"]
    (await ann.get(f"{REWARDS}?cursor=abc")).error(400, "VALIDATION_FAILED")
    (await rest.send("GET", REWARDS)).error(401, "TOKEN_MISSING")
    (await rest.send("POST", REDEEM, {})).error(401, "TOKEN_MISSING")


async def test_points_have_an_entity_tag(rest: House) -> None:
    ann, bob = await rich(rest), await rest.person("bob")
    tag = (await ann.get(REWARDS)).headers["ETag"]
    assert (await ann.get(REWARDS, headers={"If-None-Match": tag})).status == 304
    await talked(rest, ann, bob)
    assert (await ann.get(REWARDS, headers={"If-None-Match": tag})).status == 200
