"""The APNs adapter against the stand-in, over HTTP/2 and TLS: what goes out, provider tokens, every error."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.notify.ports import Note, Outcome, Push, Sent
from server.adapters.apns import ApnsSender
from server.adapters.credentials import ApnsKey
from tests.fakes import VirtualClock
from tests.services.test_push_fcm import CALL
from tests.services.test_push_fcm import RING as FCM_RING
from tests.standins.apns import REASONS, ApnsStandIn
from tests.standins.keys import p256_key, tls

PHONE = "ab" * 32
KEY = ApnsKey(key_id="KEY1234567", team_id="TEAM123456", key=p256_key())


@pytest.fixture
async def apns(clock: VirtualClock, tmp_path: Path) -> AsyncIterator[ApnsStandIn]:
    standin = ApnsStandIn(clock, tls(tmp_path))
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
async def sender(apns: ApnsStandIn, clock: VirtualClock) -> AsyncIterator[ApnsSender]:
    made = ApnsSender(KEY, topic="com.example.app", clock=clock, url=apns.url, trust=apns.tls.client)
    yield made
    await made.close()


def ring(clock: VirtualClock, token: str = PHONE) -> Push:
    return replace(FCM_RING, token=token, expires_at=clock.now() + timedelta(seconds=45))


async def sent(sender: ApnsSender, clock: VirtualClock, token: str = PHONE) -> Outcome:
    (outcome,) = await sender.send([ring(clock, token)])
    return outcome


async def test_a_ring_has_the_headers_and_the_payload_of_a_voip_push(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock
) -> None:
    assert (await sent(sender, clock)).sent is Sent.OK
    (push,) = apns.pushed
    assert push.token == PHONE
    headers = {name: value for name, value in push.headers.items() if name.startswith("apns-")}
    assert headers.pop("apns-id") == str(uuid.uuid5(uuid.NAMESPACE_OID, f"{CALL} {PHONE}"))
    assert headers == {
        "apns-topic": "com.example.app.voip",
        "apns-push-type": "voip",
        "apns-priority": "10",
        "apns-expiration": str(int(datetime(2026, 3, 1, 12, 0, 45, tzinfo=UTC).timestamp())),
    }
    assert set(push.payload) == {"aps", "incomingCall"}
    assert push.payload["incomingCall"]["eventId"] == CALL
    assert push.payload["incomingCall"]["caller"]["displayName"] == "Ann"


@pytest.mark.parametrize("note", [note for note in Note if note is not Note.RING])
async def test_nothing_but_a_ring_is_ever_sent(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock, note: Note
) -> None:
    (outcome,) = await sender.send([replace(ring(clock), note=note)])
    assert outcome.sent is Sent.NEVER
    assert apns.asked == 0


async def test_one_connection_carries_everything_and_a_closed_one_is_replaced(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock
) -> None:
    results = await sender.send([ring(clock) for _ in range(50)])
    assert {one.sent for one in results} == {Sent.OK}
    assert {one.sent for one in await sender.send([ring(clock) for _ in range(50)])} == {Sent.OK}
    assert apns.connections == 1
    apns.hang_up()
    for _ in range(2):  # the first may meet the old connection on its way out
        last = await sent(sender, clock)
    assert last.sent is Sent.OK
    assert apns.connections == 2


async def test_a_provider_token_is_renewed_after_three_quarters_of_an_hour(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock
) -> None:
    for minutes in (0, 30, 14):
        clock.pass_(60 * minutes)
        await sent(sender, clock)
    assert len(apns.provider_tokens) == 1
    clock.pass_(61)
    assert (await sent(sender, clock)).sent is Sent.OK
    assert len(apns.provider_tokens) == 2


async def test_a_provider_token_that_apple_calls_expired_is_replaced_once_and_not_too_soon(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock
) -> None:
    await sent(sender, clock)
    clock.pass_(60)
    apns.expired_before = clock.now().timestamp() - 1
    assert (await sent(sender, clock)).sent is Sent.LATER, "too young: Apple would refuse another"
    assert apns.asked == 2
    clock.pass_(20 * 60)
    results = await sender.send([ring(clock) for _ in range(5)])
    assert {one.sent for one in results} == {Sent.OK}
    assert len(apns.provider_tokens) == 2


@pytest.mark.parametrize("reason", REASONS)
async def test_every_reason_has_its_consequence(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock, reason: str
) -> None:
    apns.mode = reason
    outcome = await sent(sender, clock)
    later = {reason for reason, status in REASONS.items() if status in (429, 500, 503)} | {
        "ExpiredProviderToken"
    }
    # With a wrong APNS_TOPIC or APNS_SANDBOX every token is refused with BadDeviceToken or DeviceTokenNotForTopic:
    # not one is forgotten for it.
    wanted = Sent.LATER if reason in later else Sent.NEVER
    assert (outcome.sent, outcome.reason) == (wanted, reason)
    assert apns.asked == 1


async def test_a_device_that_is_gone_says_since_when(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock
) -> None:
    apns.unregistered = {PHONE: 1_772_000_000_123}
    outcome = await sent(sender, clock)
    assert (outcome.sent, outcome.reason) == (Sent.GONE, "Unregistered")
    assert outcome.gone_since == datetime.fromtimestamp(1_772_000_000.123, UTC)


async def test_what_is_no_token_never_gets_into_an_address(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock
) -> None:
    for token in ("../../1/secrets", "", "xyz", PHONE + "?", "a" * 15):
        assert (await sent(sender, clock, token)).sent is Sent.GONE
    assert apns.asked == 0


async def test_the_wait_that_apple_asks_for_is_passed_on(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock
) -> None:
    apns.mode, apns.retry_after = "ServiceUnavailable", "30"
    assert (await sent(sender, clock)).retry_after_seconds == 30


async def test_a_provider_that_never_answers_counts_as_a_failed_try(
    apns: ApnsStandIn, clock: VirtualClock
) -> None:
    hasty = ApnsSender(
        KEY,
        topic="com.example.app",
        clock=clock,
        url=apns.url,
        trust=apns.tls.client,
        total_seconds=0.3,
    )
    apns.hold = asyncio.Event()
    assert (await sent(hasty, clock)).sent is Sent.LATER
    apns.hold.set()
    apns.hold = None
    assert (await sent(hasty, clock)).sent is Sent.OK, "and the next one gets through"
    await hasty.close()
    assert (await sent(hasty, clock)).sent is Sent.LATER, "closed"


async def test_a_certificate_that_nobody_vouches_for_is_not_spoken_to(
    apns: ApnsStandIn, clock: VirtualClock
) -> None:
    careful = ApnsSender(KEY, topic="com.example.app", clock=clock, url=apns.url)
    assert (await sent(careful, clock)).sent is Sent.LATER
    await careful.close()
    assert apns.asked == 0


async def test_a_provider_that_is_not_there_is_a_try_for_later(
    apns: ApnsStandIn, sender: ApnsSender, clock: VirtualClock
) -> None:
    await apns.stop()
    assert (await sent(sender, clock)).sent is Sent.LATER
