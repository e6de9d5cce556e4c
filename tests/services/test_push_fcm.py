"""The FCM adapter against the stand-in: what goes out, access tokens, every error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from models.notify.ports import Note, Outcome, Push, Sent
from server.adapters.credentials import service_account
from server.adapters.fcm import PRESSING_MAX, FcmSender
from tests.fakes import VirtualClock
from tests.standins.fcm import FcmStandIn
from tests.standins.keys import account_json

CALLER = {"id": "u1", "username": "ann", "displayName": "Ann", "avatarUrl": "https://x.test/a.png"}
CALL = "01950000-0000-7000-8000-0000000000ca"
RING = Push(
    note=Note.RING,
    token="phone",
    data={
        "type": "incoming_call",
        "callId": CALL,
        "callType": "video",
        "caller": CALLER,
        "startedAt": "2026-03-01T12:00:00.000Z",
        "expiresAt": "2026-03-01T12:00:45.000Z",
    },
    ttl_seconds=37,
    title="Ann",
    body="Incoming video call",
)
MESSAGE = Push(
    note=Note.MESSAGE,
    token="phone",
    data={
        "type": "message",
        "conversationId": "c1",
        "messageId": "m1",
        "seq": 7,
        "count": 2,
        "sender": CALLER,
    },
    ttl_seconds=600,
    title="Ann",
    body="hello",
)


@pytest.fixture
async def fcm(clock: VirtualClock) -> AsyncIterator[FcmStandIn]:
    standin = FcmStandIn(clock)
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
async def sender(fcm: FcmStandIn, clock: VirtualClock) -> AsyncIterator[FcmSender]:
    made = FcmSender(service_account(fcm.account), clock=clock, url=fcm.url)
    yield made
    await made.close()


async def sent(sender: FcmSender, push: Push = RING) -> Outcome:
    (outcome,) = await sender.send([push])
    return outcome


async def test_a_ring_is_a_data_message_that_the_native_module_reads(
    fcm: FcmStandIn, sender: FcmSender
) -> None:
    assert (await sent(sender)).sent is Sent.OK
    (message,) = fcm.pushed
    assert message["token"] == "phone"
    assert message["android"] == {"priority": "high", "ttl": "37s"}
    assert set(message) == {"token", "data", "android"}, "data only: nothing is shown without the app"
    data = message["data"]
    assert data["messageType"] == "incomingCall"
    assert json.loads(data["incomingCall"]) == {
        "eventId": CALL,
        "serverCallId": CALL,
        "hasVideo": True,
        "startedAt": "2026-03-01T12:00:00.000Z",
        "caller": {"id": "u1", "displayName": "Ann", "avatarUrl": "https://x.test/a.png"},
        "metadata": {"callType": "video", "expiresAt": "2026-03-01T12:00:45.000Z"},
    }
    assert (data["type"], data["callId"]) == ("incoming_call", CALL)


async def test_what_ends_a_ring_and_what_was_written_go_as_texts_too(
    fcm: FcmStandIn, sender: FcmSender
) -> None:
    cancel = replace(RING, note=Note.CANCELLED, data={"type": "call_cancelled", "callId": CALL}, title=None)
    await sender.send([cancel, MESSAGE])
    ended, message = (one["data"] for one in sorted(fcm.pushed, key=lambda one: one["data"]["type"]))
    assert ended["messageType"] == "callEnded"
    assert json.loads(ended["callEnded"]) == {"eventId": CALL, "serverCallId": CALL}
    assert "title" not in ended
    assert (message["messageType"], message["seq"], message["title"]) == ("message", "7", "Ann")
    assert json.loads(message["sender"]) == CALLER


async def test_one_access_token_serves_until_shortly_before_its_end(
    fcm: FcmStandIn, sender: FcmSender, clock: VirtualClock
) -> None:
    await sender.send([RING] * 20)
    assert len(fcm.assertions) == 1, "those who need it at the same time wait for one"
    claims = fcm.assertions[0]
    assert claims["scope"].endswith("/auth/firebase.messaging")
    assert claims["exp"] - claims["iat"] == 3600
    clock.pass_(3600 - 301)
    await sent(sender)
    assert len(fcm.assertions) == 1
    clock.pass_(2)
    assert (await sent(sender)).sent is Sent.OK
    assert len(fcm.assertions) == 2


async def test_an_access_token_that_was_taken_back_is_replaced_once(
    fcm: FcmStandIn, sender: FcmSender
) -> None:
    await sent(sender)
    fcm.revoked = {"ya29.access-1"}
    results = await sender.send([RING] * 5)
    assert [one.sent for one in results] == [Sent.OK] * 5
    assert len(fcm.assertions) == 2, "one fresh token for all of them"
    fcm.revoked = {"ya29.access-1", "ya29.access-2", "ya29.access-3"}
    before = fcm.asked
    assert (await sent(sender)).sent is Sent.LATER
    assert fcm.asked == before + 2, "not again and again"


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        ("UNREGISTERED", Sent.GONE),
        ("INVALID_ARGUMENT", Sent.NEVER),
        ("SENDER_ID_MISMATCH", Sent.NEVER),
        ("THIRD_PARTY_AUTH_ERROR", Sent.NEVER),
        ("QUOTA_EXCEEDED", Sent.LATER),
        ("UNAVAILABLE", Sent.LATER),
        ("INTERNAL", Sent.LATER),
        ("html", Sent.LATER),
    ],
)
async def test_every_error_has_its_consequence(
    fcm: FcmStandIn, sender: FcmSender, error: str, wanted: Sent
) -> None:
    fcm.mode = error
    assert (await sent(sender)).sent is wanted
    assert len(fcm.assertions) == 1


async def test_what_is_no_token_is_gone(fcm: FcmStandIn, sender: FcmSender) -> None:
    fcm.bad_tokens = {"phone"}
    assert (await sent(sender)).sent is Sent.GONE


async def test_a_project_that_does_not_exist_costs_no_device_its_token(
    fcm: FcmStandIn, sender: FcmSender
) -> None:
    fcm.mode = "no_project"
    assert (await sent(sender)).sent is Sent.NEVER


async def test_the_wait_that_google_asks_for_is_passed_on(fcm: FcmStandIn, sender: FcmSender) -> None:
    fcm.mode, fcm.retry_after = "QUOTA_EXCEEDED", "60"
    assert (await sent(sender)).retry_after_seconds == 60


async def test_without_an_access_token_a_push_waits(fcm: FcmStandIn, sender: FcmSender) -> None:
    fcm.denied = True
    assert (await sent(sender)).sent is Sent.LATER
    assert fcm.asked == 0
    fcm.denied = False
    assert (await sent(sender)).sent is Sent.OK


async def test_the_access_can_be_tried_without_sending_anything(
    fcm: FcmStandIn, sender: FcmSender, clock: VirtualClock
) -> None:
    assert await sender.try_access() is None
    fcm.denied = True
    clock.pass_(3600)
    assert await sender.try_access() == "HTTP 400"
    await fcm.stop()
    assert await sender.try_access() == "ConnectError"
    assert fcm.asked == 0


async def test_an_account_with_another_key_gets_none(fcm: FcmStandIn, clock: VirtualClock) -> None:
    account = account_json(f"{fcm.url}/token", client_email="somebody@else.example")
    stranger = FcmSender(service_account(account), clock=clock, url=fcm.url)
    assert (await sent(stranger)).sent is Sent.LATER
    await stranger.close()
    assert fcm.asked == 0


async def test_rings_do_not_wait_for_messages_that_hang(fcm: FcmStandIn, sender: FcmSender) -> None:
    await sent(sender)
    fcm.hold = asyncio.Event()
    messages = asyncio.create_task(sender.send([MESSAGE] * 100))
    fcm.arrived.clear()
    await fcm.arrived.wait()
    hanging, fcm.hold = fcm.hold, None
    assert (await sent(sender)).sent is Sent.OK
    assert not messages.done()
    hanging.set()
    assert {one.sent for one in await messages} == {Sent.OK}
    assert PRESSING_MAX > 1


async def test_a_provider_that_never_answers_counts_as_a_failed_try(
    fcm: FcmStandIn, clock: VirtualClock
) -> None:
    hasty = FcmSender(service_account(fcm.account), clock=clock, url=fcm.url, total_seconds=0.2)
    fcm.hold = asyncio.Event()
    assert (await sent(hasty)).sent is Sent.LATER
    await hasty.close()
    assert (await sent(hasty)).sent is Sent.LATER, "closed"


async def test_a_provider_that_is_not_there_is_a_try_for_later(fcm: FcmStandIn, sender: FcmSender) -> None:
    await fcm.stop()
    assert (await sent(sender)).sent is Sent.LATER
