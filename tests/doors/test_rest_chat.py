"""Chat by REST: lists, histories, searches, and what a phone does that is woken by a push."""

from __future__ import annotations

import pytest

from models.notify.messages.bundle import Bundle, News
from tests.doors.conftest import House, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def two(rest: House) -> tuple[Person, Person]:
    return await rest.person("ada"), await rest.person("bob")


async def say(by: Person, to: Person, text: str) -> dict[str, object]:
    answer = await by.post("/api/chat/messages", {"to": to.id, "text": text, "opId": f"{to.id}:{text}"})
    assert answer.status == 201, answer.body
    return dict(answer.body["message"])


async def test_a_message_is_sent_changed_and_deleted_without_a_socket(rest: House) -> None:
    ada, bob = await two(rest)
    message = await say(ada, bob, "helo")
    assert await say(ada, bob, "helo") == message
    path = f"/api/chat/messages/{message['id']}"
    edited = (await ada.send("PATCH", path, {"text": "hello"})).body["message"]
    assert (edited["text"], edited["version"]) == ("hello", 2)
    (await bob.send("PATCH", path, {"text": "mine"})).error(403, "FORBIDDEN")
    deleted = (await ada.send("DELETE", path)).body["message"]
    assert (deleted["text"], deleted["version"]) == (None, 3)
    assert (await ada.send("DELETE", path)).body["message"] == deleted
    (await ada.send("PATCH", path, {"text": "again"})).error(409, "MESSAGE_DELETED")
    stranger = await rest.person("eve")
    (await stranger.send("DELETE", path)).error(404, "MESSAGE_UNKNOWN")


async def test_a_woken_phone_says_what_it_has_and_what_was_read(rest: House) -> None:
    ada, bob = await two(rest)
    message = await say(ada, bob, "hello")
    marker = (await bob.post("/api/chat/delivered", {"messageId": message["id"]})).body["marker"]
    assert (marker["userId"], marker["seq"]) == (bob.id, 1)
    body = {"conversationId": message["conversationId"], "seq": 1}
    assert (await bob.post("/api/chat/read", body)).body["marker"]["seq"] == 1
    listed = (await ada.get("/api/chat/conversations")).body["items"][0]
    assert [(x["userId"], x["deliveredSeq"], x["readSeq"]) for x in listed["markers"]] == [(bob.id, 1, 1)]


async def test_the_list_shows_each_conversation_as_its_member_sees_it(rest: House) -> None:
    ada, bob = await two(rest)
    first = await say(ada, bob, "one")
    await say(ada, bob, "two")
    page = (await bob.get("/api/chat/conversations")).body
    [one] = page["items"]
    assert page["nextCursor"] is None
    assert one["id"] == first["conversationId"]
    assert (one["kind"], one["name"], one["unread"], one["readSeq"]) == ("direct", None, 2, 0)
    assert {x["id"] for x in one["members"]} == {ada.id, bob.id}
    assert (one["lastMessage"]["text"], "opId" in one["lastMessage"]) == ("two", False)
    assert "opId" in (await ada.get("/api/chat/conversations")).body["items"][0]["lastMessage"]
    assert (await bob.get("/api/chat/unread")).body == {"unread": 2, "conversations": 1}
    muted = await bob.send("PUT", f"/api/chat/conversations/{one['id']}/mute", {"muted": True})
    assert muted.body["conversation"]["muted"] is True
    assert (await ada.get(f"/api/chat/conversations/{one['id']}")).body["conversation"]["muted"] is False


async def test_the_list_is_paged(rest: House) -> None:
    ada = await rest.person("ada")
    others = [await rest.person("other") for _ in range(5)]
    for other in others:
        await say(ada, other, "hello")
    seen, cursor = [], ""
    for _ in range(3):
        page = (await ada.get(f"/api/chat/conversations?limit=2{cursor}")).body
        seen += [x["id"] for x in page["items"]]
        cursor = f"&cursor={page['nextCursor']}"
    assert page["nextCursor"] is None
    assert len(seen) == len(set(seen)) == 5
    (await ada.get("/api/chat/conversations?cursor=zzz")).error(400, "VALIDATION_FAILED")


async def test_messages_are_paged_in_both_directions(rest: House) -> None:
    ada, bob = await two(rest)
    sent = [await say(ada, bob, f"{n}") for n in range(1, 8)]
    path = f"/api/chat/conversations/{sent[0]['conversationId']}/messages"

    async def walk(query: str) -> list[int]:
        seen, cursor = [], ""
        while True:
            page = (await bob.get(f"{path}?limit=3{query}{cursor}")).body
            seen += [x["seq"] for x in page["items"]]
            if page["nextCursor"] is None:
                return seen
            cursor = f"&cursor={page['nextCursor']}"

    assert await walk("") == [7, 6, 5, 4, 3, 2, 1]
    assert await walk("&before=6") == [5, 4, 3, 2, 1]
    assert await walk("&after=2") == [3, 4, 5, 6, 7]
    (await bob.get(f"{path}?after=1&before=3")).error(400, "VALIDATION_FAILED")
    (await bob.get(f"{path}?cursor=zzz")).error(400, "VALIDATION_FAILED")
    (await (await rest.person("eve")).get(path)).error(404, "CONVERSATION_UNKNOWN")
    history = (await bob.get(f"/api/chat/history/{ada.id}?limit=2")).body
    assert [x["seq"] for x in history["items"]] == [7, 6]


async def test_messages_are_found(rest: House) -> None:
    ada, bob = await two(rest)
    sent = [await say(ada, bob, text) for text in ("Good morning", "Good evening", "nothing")]
    page = (await bob.get("/api/chat/search?query=good&limit=1")).body
    assert [x["text"] for x in page["items"]] == ["Good evening"]
    rest_of = (await bob.get(f"/api/chat/search?query=good&limit=1&cursor={page['nextCursor']}")).body
    assert ([x["text"] for x in rest_of["items"]], rest_of["nextCursor"]) == (["Good morning"], None)
    where = f"conversationId={sent[0]['conversationId']}"
    assert len((await bob.get(f"/api/chat/search?query=EVEN&{where}")).body["items"]) == 1
    (await bob.get("/api/chat/search?query=%21")).error(400, "VALIDATION_FAILED")
    eve = await rest.person("eve")
    assert (await eve.get("/api/chat/search?query=good")).body["items"] == []
    (await eve.get(f"/api/chat/search?query=good&{where}")).error(404, "CONVERSATION_UNKNOWN")


async def test_groups_refuse_what_cannot_be(rest: House) -> None:
    ada, bob = await two(rest)
    nobody = {"name": "Us", "memberIds": ["nobody"]}
    error = (await ada.post("/api/chat/groups", nobody)).error(404, "USER_UNKNOWN")
    assert error["details"] == {"userIds": ["nobody"]}
    (await ada.post("/api/chat/groups", {"name": " ", "memberIds": []})).error(400, "VALIDATION_FAILED")
    await bob.send("PUT", f"/api/users/{ada.id}/block")
    (await ada.post("/api/chat/groups", {"name": "Us", "memberIds": [bob.id]})).error(403, "USER_UNAVAILABLE")
    first = await ada.post("/api/chat/groups", {"name": "Us", "memberIds": [], "opId": "1"})
    assert first.status == 201
    other = {"name": "We", "memberIds": [], "opId": "1"}
    (await ada.post("/api/chat/groups", other)).error(422, "IDEMPOTENCY_MISMATCH")


async def test_a_message_is_sent_once_for_an_idempotency_key_which_stands_for_its_op_id(rest: House) -> None:
    ada, bob = await two(rest)
    headers = {"Idempotency-Key": "k1"}
    answers = [
        await ada.post("/api/chat/messages", {"to": bob.id, "text": "hi", **more}, headers=headers)
        for more in ({}, {}, {"opId": "a"}, {"opId": "b"})
    ]
    assert {(one.status, one.body["message"]["id"]) for one in answers} == {
        (201, answers[0].body["message"]["id"])
    }
    other = await ada.post("/api/chat/messages", {"to": bob.id, "text": "ho"}, headers=headers)
    other.error(422, "IDEMPOTENCY_MISMATCH")
    body = {"to": bob.id, "text": "hi"}
    for key in ("k" * 129, None):
        more = {"headers": {"Idempotency-Key": key}} if key else {}
        (await ada.post("/api/chat/messages", body, **more)).error(400, "VALIDATION_FAILED")
    assert len((await bob.get(f"/api/chat/history/{ada.id}")).body["items"]) == 1


async def test_a_push_is_wired_to_say_what_a_message_says_when_it_goes_out(rest: House) -> None:
    ada, bob = await two(rest)
    message = await say(ada, bob, "hello")
    news = News(message_id=str(message["id"]), seq=1, sender={}, preview="?", title=None)
    bundle = Bundle(
        id="", user_id=bob.id, conversation_id=str(message["conversationId"]), newest=news, seqs=(1,), count=1,
        newest_at=rest.services.clock.now(), attempts=1, told=frozenset(), refused=frozenset(), lease="",
    )  # fmt: skip
    fresh = await rest.services.pushes.messages.fresh(bundle)
    assert fresh is not None
    assert (fresh.newest.preview, fresh.newest.sender["id"]) == ("hello", ada.id)
    await ada.send("DELETE", f"/api/chat/messages/{message['id']}")
    assert await rest.services.pushes.messages.fresh(bundle) is None


@pytest.mark.parametrize("where", ["history", "search", "conversation"])
async def test_a_history_and_a_search_are_read_in_both_directions(rest: House, where: str) -> None:
    ada, bob = await two(rest)
    said = [await say(ada, bob, f"word {n}") for n in range(7)]
    path = {
        "history": f"/api/chat/history/{ada.id}?",
        "search": "/api/chat/search?query=word&",
        "conversation": f"/api/chat/conversations/{said[0]['conversationId']}/messages?",
    }[where]
    name = "id" if where == "search" else "seq"

    async def read(**first: object) -> list[object]:
        """All pages of two, from the first one on."""
        seen: list[object] = []
        more = "".join(f"&{key}={value}" for key, value in first.items())
        while True:
            page = (await bob.get(f"{path}limit=2{more}")).body
            seen += [one["seq"] for one in page["items"]]
            if page["nextCursor"] is None:
                return seen
            more = f"&cursor={page['nextCursor']}"

    assert await read() == [7, 6, 5, 4, 3, 2, 1]
    assert await read(before=said[4][name]) == [4, 3, 2, 1]
    assert await read(after=said[1][name]) == [3, 4, 5, 6, 7]
    both = f"{path}before={said[0][name]}&after={said[0][name]}"
    (await bob.get(both)).error(400, "VALIDATION_FAILED")
