"""Presence on the wire: phones that watch, go to the background, call, block, and come back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.doors.conftest import House, Person
from tests.doors.phones import Phone
from tests.doors.talk import ring
from tests.fakes import VirtualClock

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("rising")]

# Longer than a disconnect waits until it is told.
GONE_SECONDS = 4


async def see(phone: Phone, *people: Person) -> list[str]:
    data = await phone.ask("PRESENCE_WATCH", userIds=[person.id for person in people])
    assert [one["userId"] for one in data["presences"]] == [person.id for person in people]
    return [one["state"] for one in data["presences"]]


async def hears(phone: Phone, person: Person, state: str) -> dict[str, Any]:
    told = await phone.happens("PRESENCE")
    assert (told["userId"], told["state"]) == (person.id, state)
    assert set(told) == {"userId", "state", "lastSeenAt"}
    return dict(told)


async def later(house: House, seconds: float) -> None:
    """What has happened is noticed, and then time passes; the house's jobs, which run all the time, see it."""
    assert isinstance(house.clock, VirtualClock)
    await house.services.presence.run_due()
    house.clock.pass_(seconds)


async def leaves(house: House, phone: Phone, person: Person) -> None:
    """The phone hangs up, and the server has noticed."""
    await phone.close()
    leases = house.services.presence._leases
    while leases.states(person.id) or leases._left:
        await house.db.ping()


async def test_whoever_watches_hears_who_comes_goes_to_the_background_and_leaves(house: House) -> None:
    bob, ann = await asyncio.gather(house.person("bob"), house.person("ann"))
    b, b2 = await asyncio.gather(bob.phone("b"), bob.phone("b2"))
    assert await see(b, ann) == ["offline"]
    a = await ann.phone("a")
    told = await hears(b, ann, "online")
    assert told["lastSeenAt"] is None
    await later(house, 5)
    assert await a.ask("PRESENCE_SET", state="away") == {}
    await later(house, 2)
    await hears(b, ann, "away")
    assert (await bob.get(f"/api/users/{ann.id}")).body["user"]["presence"] == "away"
    await later(house, 2)
    await a.ask("PRESENCE_SET", state="online", conversationId="a-conversation")
    await later(house, 2)
    await hears(b, ann, "online")
    assert await house.services.presence.focused(ann.id, "a-conversation") == {"a"}
    await leaves(house, a, ann)
    await later(house, GONE_SECONDS)
    told = await hears(b, ann, "offline")
    assert told["lastSeenAt"] is not None
    assert (await see(b2, ann), "PRESENCE" in b2.names()) == (["offline"], False)


async def test_a_call_is_told_to_watchers_without_waiting_for_any_clock(house: House) -> None:
    ann, bob, cid = await asyncio.gather(*(house.person(name) for name in ("ann", "bob", "cid")))
    a, b, c = await asyncio.gather(ann.phone("a"), bob.phone("b"), cid.phone("c"))
    assert await see(c, ann, bob) == ["online", "online"]
    call_id = await ring(a, b, bob)
    states = {(told["userId"], told["state"]) for told in [await c.happens("PRESENCE") for _ in range(2)]}
    assert states == {(ann.id, "in_call"), (bob.id, "in_call")}
    await b.ask("CALL_REJECT", callId=call_id)
    await later(house, 2)
    states = {(told["userId"], told["state"]) for told in [await c.happens("PRESENCE") for _ in range(2)]}
    assert states == {(ann.id, "online"), (bob.id, "online")}


async def test_a_network_that_changes_in_mid_watch_is_not_told_and_the_phone_watches_again(
    house: House,
) -> None:
    ann, bob = await asyncio.gather(house.person("ann"), house.person("bob"))
    a, b = await asyncio.gather(ann.phone("a"), bob.phone("b"))
    assert await see(b, ann) == ["online"]
    await a.kill()
    await a.connect()
    await a.happens("SYNC")
    await later(house, GONE_SECONDS)
    await later(house, GONE_SECONDS)
    await b.kill()
    await b.connect()
    await b.happens("SYNC")
    assert await see(b, ann) == ["online"]
    await b.settled()
    assert "PRESENCE" not in b.names()


@pytest.mark.parametrize("who", ["the watcher", "the watched"])
async def test_e61_a_block_hides_at_once_and_until_it_is_taken_back(house: House, who: str) -> None:
    ann, bob, cid = await asyncio.gather(*(house.person(name) for name in ("ann", "bob", "cid")))
    b, c = await asyncio.gather(bob.phone("b"), cid.phone("c"))
    a = await ann.phone("a")
    assert await see(b, ann) == await see(c, ann) == ["online"]
    blocker, blocked = (bob, ann) if who == "the watcher" else (ann, bob)
    assert (await blocker.send("PUT", f"/api/users/{blocked.id}/block")).status == 204
    assert (await hears(b, ann, "offline"))["lastSeenAt"] is None
    await leaves(house, a, ann)
    await later(house, GONE_SECONDS)
    await hears(c, ann, "offline")
    again = await b.ask("PRESENCE_WATCH", userIds=[ann.id])
    assert again["presences"] == [{"userId": ann.id, "state": "offline", "lastSeenAt": None}]
    await later(house, GONE_SECONDS)
    await ann.phone("a")
    await hears(c, ann, "online")
    await b.settled()
    assert b.names().count("PRESENCE") == 1
    assert (await blocker.send("DELETE", f"/api/users/{blocked.id}/block")).status == 204
    await hears(b, ann, "online")


def presences(body: Any, user_id: str) -> list[str]:
    """What an answer says of a person, wherever it names them."""
    if isinstance(body, list):
        return [found for one in body for found in presences(one, user_id)]
    if not isinstance(body, dict):
        return []
    here = [body["presence"]] if body.get("id") == user_id and "presence" in body else []
    return here + [found for one in body.values() for found in presences(one, user_id)]


async def test_e61_what_two_people_have_with_each_other_shows_no_presence_after_a_block(house: House) -> None:
    ann, bob = await asyncio.gather(house.person("ann"), house.person("bob"))
    a, b = await asyncio.gather(ann.phone("a"), bob.phone("b"))
    call_id = await ring(a, b, bob)
    await b.ask("CALL_REJECT", callId=call_id)
    await a.ask("CHAT_MESSAGE", to=bob.id, text="hello", opId="1")
    group = (await ann.post("/api/chat/groups", {"name": "Two", "memberIds": [bob.id]})).body["conversation"][
        "id"
    ]
    pages = [
        *(
            "/api/calls/history",
            f"/api/calls/{call_id}",
            "/api/chat/conversations",
            "/api/chat/search?query=hello",
        ),
        *(
            f"/api/chat/conversations/{group}",
            f"/api/chat/history/{ann.id}",
            f"/api/users?query={ann.username}",
        ),
    ]
    for path in pages:
        told = presences((await bob.get(path)).body, ann.id)
        assert set(told) == {"online"}, path
    assert presences(await b.ask("CALL_SYNC"), ann.id) == ["online"]
    assert (await bob.send("PUT", f"/api/users/{ann.id}/block")).status == 204
    for asker, other in ((bob, ann), (ann, bob)):
        for path in pages:
            path = path.replace(ann.id, other.id).replace(ann.username, other.username)
            assert set(presences((await asker.get(path)).body, other.id)) <= {"offline"}, path
    assert presences(await b.ask("CALL_SYNC"), ann.id) == ["offline"]
    b2 = await bob.phone("b2")
    assert presences(b2.heard("SYNC"), ann.id) == ["offline"]
    assert presences((await bob.get(f"/api/users/{ann.id}")).body, ann.id) == ["offline"]


async def test_who_is_deleted_looks_like_somebody_who_never_was(house: House) -> None:
    ann, bob = await asyncio.gather(house.person("ann"), house.person("bob"))
    _, b = await asyncio.gather(ann.phone("a"), bob.phone("b"))
    await see(b, ann)
    gone = await ann.send("DELETE", "/api/user/account", {"password": "correct horse battery"})
    assert gone.status == 204, gone.body
    await house.services.presence.run_due()
    assert (await hears(b, ann, "offline"))["lastSeenAt"] is None
    assert await house.db["presence"].find_one({"_id": ann.id}) is None


async def test_what_is_no_question_is_refused_and_the_watch_before_it_stands(house: House) -> None:
    ann, bob = await asyncio.gather(house.person("ann"), house.person("bob"))
    b = await bob.phone("b")
    await see(b, ann)
    for wrong in ({}, {"userIds": ann.id}, {"userIds": [1]}, {"userIds": [ann.id] * 201}, {"userIds": [""]}):
        assert (await b.refused("PRESENCE_WATCH", wrong))["code"] == "VALIDATION_FAILED"
    for wrong in ({}, {"state": "offline"}, {"state": "in_call"}, {"state": "online", "conversationId": 5}):
        assert (await b.refused("PRESENCE_SET", wrong))["code"] == "VALIDATION_FAILED"
    await ann.phone("a")
    await hears(b, ann, "online")
    lower = await b.ask("presence_watch", userIds=[ann.id, ann.id])
    assert [one["state"] for one in lower["presences"]] == ["online"]


async def test_e55_whoever_guesses_calls_to_resume_learns_nothing_and_is_slowed_down(house: House) -> None:
    """There are no resume ids: a leg is resumed by the call's id, from the account that holds it."""
    ann, bob, eve = await asyncio.gather(*(house.person(name) for name in ("ann", "bob", "eve")))
    a, b, e = await asyncio.gather(ann.phone("a"), bob.phone("b"), eve.phone("e"))
    live = await ring(a, b, bob)
    nobodys = live[:-4] + ("0000" if live[-4:] != "0000" else "1111")
    answers = [await e.refused("CALL_RESUME", callId=call_id) for call_id in (live, nobodys, "no id at all")]
    assert [no["code"] for no in answers] == ["CALL_UNKNOWN"] * 3
    assert answers[0] == answers[1] == answers[2], "nothing tells a call of others from none"
    acks = await e.burst([("CALL_RESUME", {"callId": f"{live[:-3]}{n:03x}"}) for n in range(300)])
    codes = [ack["error"]["code"] for ack in acks]
    assert set(codes) == {"CALL_UNKNOWN", "RATE_LIMITED"}
    assert codes.count("CALL_UNKNOWN") < 150
    assert all(ack["error"]["retryAfterMs"] > 0 for ack in acks if ack["error"]["code"] == "RATE_LIMITED")
    call = await a.ask("CALL_ENDED", callId=live)
    assert call["endReason"] == "cancelled", "and the call has not noticed"
