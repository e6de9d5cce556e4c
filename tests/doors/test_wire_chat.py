"""Chat on the wire with the official client: its events, its notices, its refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.doors.conftest import House
from tests.doors.talk import pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE_FIELDS = {
    *("id", "conversationId", "seq", "version", "sender", "text", "attachment", "replyTo", "encrypted"),
    *("ciphertext", "note", "createdAt", "editedAt", "deletedAt"),
}


async def test_e62_a_message_comes_to_the_other_and_to_ones_other_devices(house: House) -> None:
    ada, a, bob, b = await pair(house)
    a2 = await ada.phone("a2")
    message = await a.ask("CHAT_MESSAGE", to=bob.id, text="hello", opId="mine")
    assert set(message) == MESSAGE_FIELDS | {"opId"}
    heard = await b.happens("CHAT_MESSAGE")
    assert set(heard) == MESSAGE_FIELDS | {"logSeq"}
    assert (heard["id"], heard["seq"], heard["text"]) == (message["id"], 1, "hello")
    echo = await a2.happens("CHAT_MESSAGE")
    assert (echo["id"], echo["opId"]) == (message["id"], "mine")
    await a.settled()
    assert "CHAT_MESSAGE" not in a.names()
    reply = await b.ask(
        "CHAT_MESSAGE", conversationId=message["conversationId"], text="hi", opId="1", replyTo=message["id"]
    )
    assert (reply["seq"], reply["replyTo"]) == (2, message["id"])
    again = await b.ask("chat_message", to=ada.id, text="hi", opId="1", replyTo=message["id"])
    assert again == reply
    assert (await b.refused("CHAT_MESSAGE", to=ada.id, text="ho", opId="1"))["code"] == "IDEMPOTENCY_MISMATCH"


async def test_markers_edits_and_deletions_are_told(house: House) -> None:
    _, a, bob, b = await pair(house)
    b2 = await bob.phone("b2")
    message = await a.ask("CHAT_MESSAGE", to=bob.id, text="helo", opId="1")
    await b.happens("CHAT_MESSAGE")
    delivered = await b.ask("MESSAGE_DELIVERED", messageId=message["id"])
    assert (delivered["seq"], delivered["userId"]) == (1, bob.id)
    heard = await a.happens("MESSAGE_DELIVERED")
    assert {name: heard[name] for name in delivered} == delivered
    await b.ask("MESSAGE_READ", conversationId=message["conversationId"], seq=99)
    assert (await a.happens("MESSAGE_READ"))["seq"] == 1, "E60: no further than there is"
    assert (await b2.happens("MESSAGE_READ"))["userId"] == bob.id
    await a.ask("MESSAGE_EDIT", messageId=message["id"], text="hello")
    edited = await b.happens("MESSAGE_EDIT")
    assert (edited["text"], edited["version"], edited["seq"]) == ("hello", 2, 1)
    assert edited["logSeq"] > heard["logSeq"] - 1
    assert (await b.refused("MESSAGE_EDIT", messageId=message["id"], text="mine"))["code"] == "FORBIDDEN"
    await a.ask("MESSAGE_DELETE", messageId=message["id"])
    deleted = await b.happens("MESSAGE_DELETE")
    assert (deleted["text"], deleted["version"]) == (None, 3)
    assert deleted["deletedAt"]
    assert (await a.refused("MESSAGE_EDIT", messageId=message["id"], text="x"))["code"] == "MESSAGE_DELETED"


async def test_typing_is_told_and_ends_by_a_message_or_with_the_socket(house: House) -> None:
    ada, a, bob, b = await pair(house)
    await a.ask("CHAT_TYPING", to=bob.id)
    begun = await b.happens("CHAT_TYPING")
    assert set(begun) == {"conversationId", "from"}
    assert begun["from"]["id"] == ada.id
    await a.ask("CHAT_STOP_TYPING", conversationId=begun["conversationId"])
    assert (await b.happens("CHAT_STOP_TYPING"))["from"]["id"] == ada.id
    await a.ask("CHAT_TYPING", to=bob.id)
    await a.ask("CHAT_MESSAGE", to=bob.id, text="hello", opId="1")
    await b.happens("CHAT_STOP_TYPING")
    await a.ask("CHAT_TYPING", to=bob.id)
    await a.kill()
    await b.happens("CHAT_STOP_TYPING")
    await b.settled()
    assert b.names().count("CHAT_TYPING") == b.names().count("CHAT_STOP_TYPING") == 3


async def test_typing_ends_by_itself(house: House) -> None:
    _, a, bob, b = await pair(house)
    await a.ask("CHAT_TYPING", to=bob.id)
    await b.happens("CHAT_TYPING")
    await house.pass_(6)
    await house.services.chat.typing.expire()
    await b.happens("CHAT_STOP_TYPING")


async def test_a_group_from_its_founding_to_its_end(house: House) -> None:
    ada, a, bob, b = await pair(house)
    eve = await house.person("eve")
    e = await eve.phone("e")
    body = {"name": "Us", "memberIds": [bob.id]}
    answer = await ada.post("/api/chat/groups", body, headers={"Idempotency-Key": "1"})
    assert answer.status == 201
    group = answer.body["conversation"]
    assert (group["kind"], group["role"], group["memberCount"], group["unread"]) == ("group", "owner", 2, 0)
    again = await ada.post("/api/chat/groups", body, headers={"Idempotency-Key": "1"})
    assert again.body == answer.body
    updated = await b.happens("CONVERSATION_UPDATED")
    assert (updated["conversation"]["id"], updated["conversation"]["role"]) == (group["id"], "member")
    members = f"/api/chat/groups/{group['id']}/members"
    (await bob.post(members, {"memberIds": [eve.id]})).error(403, "FORBIDDEN")
    (await eve.post(members, {"memberIds": [eve.id]})).error(404, "CONVERSATION_UNKNOWN")
    await a.ask("CHAT_MESSAGE", conversationId=group["id"], text="before eve", opId="1")
    assert (await ada.post(members, {"memberIds": [eve.id]})).body["conversation"]["memberCount"] == 3
    await e.happens("CONVERSATION_UPDATED")
    await b.ask("CHAT_MESSAGE", conversationId=group["id"], text="hello eve", opId="1")
    assert (await e.happens("CHAT_MESSAGE", lambda x: x["text"]))["text"] == "hello eve"
    promoted = await ada.send("PUT", f"{members}/{bob.id}", {"role": "admin"})
    assert [one["role"] for one in promoted.body["conversation"]["members"]] == ["owner", "admin", "member"]
    named = await bob.send("PATCH", f"/api/chat/groups/{group['id']}", {"name": "All of us"})
    assert named.body["conversation"]["name"] == "All of us"
    assert (await bob.send("DELETE", f"{members}/{eve.id}")).status == 204
    gone = await e.happens("CONVERSATION_UPDATED", lambda x: x["conversation"]["role"] is None)
    assert gone["conversation"]["name"] == "All of us"
    refused = await e.refused("CHAT_MESSAGE", conversationId=group["id"], text="?", opId="1")
    assert refused["code"] == "CONVERSATION_UNKNOWN"
    assert (await ada.post(f"/api/chat/groups/{group['id']}/leave")).status == 204
    now = (await bob.get(f"/api/chat/conversations/{group['id']}")).body["conversation"]
    assert (now["role"], now["memberCount"]) == ("owner", 1)
    notes = [x["note"]["what"] for x in b.heard("CHAT_MESSAGE") if x["note"]]
    assert notes == ["created", "added", "admin", "renamed", "removed", "left"]


async def test_e61_over_a_block_nothing_passes_and_nothing_comes_later(house: House) -> None:
    ada, a, bob, b = await pair(house)
    message = await a.ask("CHAT_MESSAGE", to=bob.id, text="before", opId="0")
    await b.happens("CHAT_MESSAGE")
    assert (await bob.send("PUT", f"/api/users/{ada.id}/block")).status == 204
    for event, payload in (
        ("CHAT_MESSAGE", {"to": bob.id, "text": "no", "opId": "1"}),
        ("CHAT_MESSAGE", {"conversationId": message["conversationId"], "text": "no", "opId": "1"}),
        ("CHAT_TYPING", {"to": bob.id}),
        ("MESSAGE_EDIT", {"messageId": message["id"], "text": "no"}),
    ):
        assert (await a.refused(event, payload))["code"] == "USER_UNAVAILABLE", event
    assert (await b.refused("CHAT_MESSAGE", to=ada.id, text="no", opId="1"))["code"] == "USER_BLOCKED"
    before = len(a.log)
    await b.ask("MESSAGE_READ", messageId=message["id"])
    assert (await bob.send("DELETE", f"/api/users/{ada.id}/block")).status == 204
    await a.settled()
    await b.settled()
    assert "MESSAGE_READ" not in [name for name, _ in a.log[before:]]
    assert b.names().count("CHAT_MESSAGE") == 1


@pytest.mark.parametrize(
    ("event", "payload", "field"),
    [
        ("CHAT_MESSAGE", {"to": "u", "opId": "1"}, "text"),
        ("CHAT_MESSAGE", {"text": "x", "opId": "1"}, "to"),
        ("MESSAGE_READ", {}, "messageId"),
        ("MESSAGE_READ", {"conversationId": "c"}, "seq"),
        ("MESSAGE_DELIVERED", {"conversationId": "c", "seq": 1.5}, "seq"),
        ("MESSAGE_EDIT", {"messageId": "m"}, "text"),
        ("MESSAGE_DELETE", {}, "messageId"),
        ("CHAT_TYPING", {}, "to"),
    ],
)
async def test_what_is_no_request_of_chat_names_the_field(
    house: House, event: str, payload: dict[str, Any], field: str
) -> None:
    ada = await house.person("ada")
    phone = await ada.phone("a")
    error = await phone.refused(event, payload)
    assert (error["code"], list(error["details"])) == ("VALIDATION_FAILED", [field])


async def test_many_phones_of_a_group_hear_all_in_the_same_order(house: House) -> None:
    people = await asyncio.gather(*(house.person(f"p{n}") for n in range(4)))
    phones = await asyncio.gather(*(one.phone("phone") for one in people))
    body = {"name": "Us", "memberIds": [one.id for one in people[1:]]}
    group = (await people[0].post("/api/chat/groups", body)).body["conversation"]
    bursts = [
        [["CHAT_MESSAGE", {"conversationId": group["id"], "text": f"{p}.{n}", "opId": f"{n}"}] for n in range(25)]
        for p in range(4)
    ]  # fmt: skip
    acks = await asyncio.gather(*(phone.burst(row) for phone, row in zip(phones, bursts, strict=True)))
    own = [{ack["data"]["seq"]: ack["data"]["id"] for ack in row} for row in acks]
    whole = {seq: one for row in own for seq, one in row.items()}
    assert sorted(whole) == list(range(2, 102))
    for phone, mine in zip(phones, own, strict=True):
        await phone.settled()
        heard = [x for x in phone.heard("CHAT_MESSAGE") if not x["note"]]
        assert [x["seq"] for x in heard] == sorted(set(whole) - set(mine))
        assert {x["seq"]: x["id"] for x in heard} | mine == whole
