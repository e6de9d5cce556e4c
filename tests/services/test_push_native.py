"""Rings by FCM and APNs beside Expo: one ring per device, E10-E12, E19 and E20 for all three."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from models.db import Database
from models.notify.ports import Outcome, Push, Sender
from models.notify.rules import LEASE_SECONDS
from server.adapters.apns import ApnsSender
from server.adapters.credentials import ApnsKey, service_account
from server.adapters.fcm import FcmSender
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.pushkit import BOB, CALL, PHONE, World, pushing
from tests.standins.apns import ApnsStandIn
from tests.standins.fcm import FcmStandIn
from tests.standins.keys import p256_key, tls

IPHONE, ANDROID = "ab" * 32, "android"
KINDS = ("EXPO", "FCM", "APNS_VOIP")


@dataclass
class Natives:
    """A world with all three providers. Bob has no device yet."""

    world: World
    fcm: FcmStandIn
    apns: ApnsStandIn
    calls: list[str] = field(default_factory=list)

    def device(self, kind: str) -> str:
        """Bob has a device with one token of that kind; the token."""
        token = {"EXPO": PHONE, "FCM": ANDROID, "APNS_VOIP": IPHONE}[kind]
        self.world.drawer.put(BOB, token, kind=kind)
        return token

    def told(self) -> list[tuple[str, str]]:
        """Who was told what: kind of token, and what; those of one kind in order."""
        expo = [("EXPO", kind) for _, kind in self.world.told()]
        fcm = [("FCM", message["data"]["type"]) for message in self.fcm.pushed]
        apns = [("APNS_VOIP", "incoming_call") for _ in self.apns.pushed]
        return [*expo, *fcm, *apns]

    def hold(self, kind: str) -> asyncio.Event:
        """Let a provider hang until the event is set."""
        event = asyncio.Event()
        provider: Any = {"EXPO": self.world.expo, "FCM": self.fcm, "APNS_VOIP": self.apns}[kind]
        provider.hold = event
        provider.arrived.clear()
        return event

    async def arrived(self, kind: str) -> None:
        """Something has been asked of a provider."""
        provider: Any = {"EXPO": self.world.expo, "FCM": self.fcm, "APNS_VOIP": self.apns}[kind]
        await provider.arrived.wait()

    def fail(self, kind: str, token: str, *, dead: bool) -> None:
        """A provider knows a token no more, or will never take a push for it."""
        match kind:
            case "EXPO" if dead:
                self.world.expo.dead.add(token)
            case "EXPO":
                self.world.expo.ticket_errors[token] = "MessageTooBig"
            case "FCM":
                self.fcm.errors[token] = "UNREGISTERED" if dead else "SENDER_ID_MISMATCH"
            case _ if dead:
                self.apns.unregistered[token] = 4_000_000_000_000
            case _:
                self.apns.errors[token] = "PayloadTooLarge"

    def down(self, kind: str, *, back: bool = False) -> None:
        """A provider is away, or back."""
        modes = {"EXPO": "down", "FCM": "UNAVAILABLE", "APNS_VOIP": "ServiceUnavailable"}
        provider: Any = {"EXPO": self.world.expo, "FCM": self.fcm, "APNS_VOIP": self.apns}[kind]
        provider.mode = "ok" if back else modes[kind]


class Dying:
    """A sender whose process is killed when the provider has said yes."""

    def __init__(self, inner: Sender) -> None:
        self._inner = inner

    async def send(self, pushes: Sequence[Push]) -> Sequence[Outcome]:
        await self._inner.send(pushes)
        raise Killed


@pytest.fixture
async def natives(
    db: Database, clock: VirtualClock, ids: CountingIds, tmp_path: Path
) -> AsyncIterator[Natives]:
    fcm, apns = FcmStandIn(clock), ApnsStandIn(clock, tls(tmp_path))
    await fcm.start()
    await apns.start()
    by_google = FcmSender(service_account(fcm.account), clock=clock, url=fcm.url)
    by_apple = ApnsSender(
        ApnsKey(key_id="KEY1234567", team_id="TEAM123456", key=p256_key()),
        topic="com.example.app",
        clock=clock,
        url=apns.url,
        trust=apns.tls.client,
    )
    async with pushing(db, clock, ids) as world:
        world.drawer.tokens.clear()
        world.senders |= {"FCM": by_google, "APNS_VOIP": by_apple}
        yield Natives(world, fcm, apns)
    await by_google.close()
    await by_apple.close()
    await apns.stop()
    await fcm.stop()


async def test_every_device_rings_once_by_the_best_of_its_tokens(natives: Natives) -> None:
    world = natives.world
    world.drawer.put(BOB, "ExponentPushToken[ios]", device="iphone")
    world.drawer.put(BOB, IPHONE, kind="APNS_VOIP", device="iphone")
    world.drawer.put(BOB, ANDROID, kind="FCM", device="android")
    world.drawer.put(BOB, "ExponentPushToken[android]", device="android")
    world.drawer.put(BOB, "ExponentPushToken[plain]", device="plain")
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    assert sorted(natives.told()) == [(kind, "incoming_call") for kind in sorted(KINDS)]
    assert world.told() == [("ExponentPushToken[plain]", "incoming_call")]
    assert world.counted == [(kind, "ok") for kind, _ in world.counted]


async def test_a_missed_call_never_goes_by_voip_and_stops_the_ring_where_it_rang(natives: Natives) -> None:
    world = natives.world
    world.drawer.put(BOB, "ExponentPushToken[ios]", device="iphone")
    world.drawer.put(BOB, IPHONE, kind="APNS_VOIP", device="iphone")
    world.drawer.put(BOB, ANDROID, kind="FCM", device="android")
    world.drawer.put(BOB, "ExponentPushToken[android]", device="android")
    world.drawer.put(BOB, "lonely", kind="FCM", device="lonely")
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    await world.stop(pushes, missed=True)
    await pushes.run_due()
    assert len(natives.apns.pushed) == 1, "another one would ring"
    assert sorted(world.told()) == [
        ("ExponentPushToken[android]", "missed_call"),
        ("ExponentPushToken[ios]", "missed_call"),
    ]
    assert sorted((m["token"], m["data"]["type"]) for m in natives.fcm.pushed[2:]) == [
        (ANDROID, "call_cancelled"),
        ("lonely", "missed_call"),
    ]
    assert {m["data"]["messageType"] for m in natives.fcm.pushed[2:]} == {"callEnded"}
    world.clock.pass_(600)
    assert await pushes.run_due() == 0


async def test_a_cancel_and_a_message_go_by_expo_where_only_voip_is_beside_it(natives: Natives) -> None:
    world = natives.world
    world.drawer.put(BOB, "ExponentPushToken[ios]", device="iphone")
    world.drawer.put(BOB, IPHONE, kind="APNS_VOIP", device="iphone")
    world.drawer.put(BOB, "cd" * 32, kind="APNS_VOIP", device="bare")
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    await world.stop(pushes, missed=False)
    await pushes.run_due()
    await world.write(pushes, 1)
    await pushes.room_invited(room_id="r1", room_name="Room", by={"displayName": "Ann"}, user_id=BOB)
    world.clock.pass_(1)
    await pushes.messages.run_due()
    await pushes.invites.run_due()
    assert len(natives.apns.pushed) == 2
    assert [kind for _, kind in world.told()] == ["call_cancelled", "message", "room_invite"]


async def test_a_message_goes_by_fcm_where_there_is_nothing_else(natives: Natives) -> None:
    natives.device("FCM")
    pushes = natives.world.process()
    await natives.world.write(pushes, 1, "hello")
    natives.world.clock.pass_(1)
    await pushes.messages.run_due()
    data = natives.fcm.pushed[0]["data"]
    assert (data["messageType"], data["title"], data["body"]) == ("message", "Ann", "hello")


@pytest.mark.parametrize("dead", [True, False])
@pytest.mark.parametrize("kind", ["FCM", "APNS_VOIP"])
async def test_e19_where_the_native_token_fails_for_good_the_ring_goes_by_expo_at_once(
    natives: Natives, kind: str, dead: bool
) -> None:
    world = natives.world
    token = ANDROID if kind == "FCM" else IPHONE
    world.drawer.put(BOB, token, kind=kind, device="d1")
    world.drawer.put(BOB, PHONE, device="d1")
    natives.fail(kind, token, dead=dead)
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    assert natives.told() == [("EXPO", "incoming_call")]
    assert world.drawer.of(BOB) == ([PHONE] if dead else [token, PHONE])
    world.clock.pass_(10)
    assert await pushes.run_due() == 0
    await world.stop(pushes, missed=False)
    await pushes.run_due()
    assert natives.told() == [("EXPO", "incoming_call"), ("EXPO", "call_cancelled")]


@pytest.mark.parametrize("kind", KINDS)
async def test_e10_a_call_that_is_over_rings_by_no_provider_not_even_at_a_second_try(
    natives: Natives, kind: str
) -> None:
    world = natives.world
    natives.device(kind)
    natives.down(kind)
    pushes = world.process()
    await world.ring(pushes)
    assert await pushes.run_due() == 1
    world.over.add(CALL)  # and nobody took the ring back yet
    natives.down(kind, back=True)
    world.clock.pass_(2)
    await pushes.run_due()
    assert natives.told() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_e11_a_ring_that_goes_out_twice_is_the_same_ring(natives: Natives, kind: str) -> None:
    """The worker dies after the provider's yes; the device tells by ``callId`` and ``eventId``."""
    world = natives.world
    natives.device(kind)
    dying, heir = world.process(**{kind: Dying(world.senders[kind])}), world.process()
    await world.ring(heir)
    with pytest.raises(Killed):
        await dying.rings.run_due()
    assert len(natives.told()) == 1
    world.clock.pass_(LEASE_SECONDS)
    await heir.run_due()
    assert len(natives.told()) == 2
    ids = {message["data"]["callId"] for message in (*world.expo.pushed, *natives.fcm.pushed)}
    ids |= {json.loads(message["data"]["incomingCall"])["eventId"] for message in natives.fcm.pushed}
    ids |= {push.payload["incomingCall"]["eventId"] for push in natives.apns.pushed}
    assert ids == {CALL}
    assert len({push.headers["apns-id"] for push in natives.apns.pushed}) <= 1


@pytest.mark.parametrize("kind", KINDS)
async def test_e11_two_workers_at_once_ring_once(natives: Natives, kind: str) -> None:
    natives.device(kind)
    first, second = natives.world.process(), natives.world.process()
    await natives.world.ring(first)
    await asyncio.gather(*(process.run_due() for process in (first, second) * 5))
    assert natives.told() == [(kind, "incoming_call")]


async def test_e12_no_provider_holds_a_ring_longer_than_it_rings(natives: Natives) -> None:
    for kind in KINDS:
        natives.device(kind)
    world = natives.world
    pushes = world.process()
    await world.ring(pushes, seconds=45)
    world.clock.pass_(8)
    ends_at = int(world.clock.now().timestamp()) + 37
    await pushes.run_due()
    assert world.expo.pushed[0]["ttl"] == 37
    assert natives.fcm.pushed[0]["android"]["ttl"] == "37s"
    assert natives.apns.pushed[0].headers["apns-expiration"] == str(ends_at)


async def test_e19_a_token_that_was_shown_anew_since_apple_lost_it_is_kept(natives: Natives) -> None:
    world = natives.world
    natives.device("APNS_VOIP")
    shown_at = world.clock.now().timestamp()
    natives.apns.unregistered = {IPHONE: round((shown_at - 60) * 1000)}
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    assert world.drawer.of(BOB) == [IPHONE]
    natives.apns.unregistered = {IPHONE: round(shown_at * 1000)}
    await world.ring(pushes, call_id=CALL.replace("ca", "cb"))
    await pushes.run_due()
    assert world.drawer.of(BOB) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_e20_a_provider_that_hangs_delays_the_rings_of_no_other(natives: Natives, kind: str) -> None:
    world = natives.world
    for each in KINDS:
        natives.device(each)
    hanging = natives.hold(kind)
    pushes = world.process()
    rounds = []
    for number in range(12):  # more than there ever were threads or rounds
        await world.ring(pushes, call_id=f"01950000-0000-7000-8000-{number:012d}")
        rounds.append(asyncio.create_task(pushes.run_due()))
        while len([each for each, _ in natives.told()]) < 2 * (number + 1):
            await asyncio.wait(rounds, timeout=0.01)
    assert {each for each, _ in natives.told()} == set(KINDS) - {kind}
    assert not any(task.done() for task in rounds)
    hanging.set()
    await asyncio.gather(*rounds)


@pytest.mark.parametrize("kind", KINDS)
async def test_e20_a_ring_goes_out_when_its_provider_is_back(natives: Natives, kind: str) -> None:
    world = natives.world
    natives.device(kind)
    natives.down(kind)
    pushes = world.process()
    await world.ring(pushes)
    for _ in range(3):
        await pushes.run_due()
        world.clock.pass_(1)
    natives.down(kind, back=True)
    world.clock.pass_(5)
    await pushes.run_due()
    assert natives.told() == [(kind, "incoming_call")]


async def test_the_wait_that_a_provider_asks_for_is_kept(natives: Natives) -> None:
    world = natives.world
    natives.device("FCM")
    natives.fcm.mode, natives.fcm.retry_after = "UNAVAILABLE", "20"
    pushes = world.process()
    await world.ring(pushes)
    asked = []
    for second in range(45):
        if await pushes.run_due():
            asked.append(second)
        world.clock.pass_(1)
    assert asked == [0, 20, 40]


async def test_a_crash_at_any_await_leaves_no_device_without_its_ring(natives: Natives) -> None:
    world = natives.world
    for kind in KINDS:
        natives.device(kind)
    for dies_at in range(1, 30):
        life = Mortal(world.db)
        call_id = f"01950000-0000-7000-8000-{dies_at:012d}"
        dying, heir = world.process(db=life), world.process()
        await world.ring(heir, call_id=call_id)
        life.dies_at = dies_at
        try:
            await dying.rings.run_due()
        except Killed:
            pass
        else:
            break
        world.clock.pass_(LEASE_SECONDS)
        await heir.run_due()
        rang = [message["data"]["callId"] for message in (*world.expo.pushed, *natives.fcm.pushed)]
        rang += [push.payload["incomingCall"]["serverCallId"] for push in natives.apns.pushed]
        assert rang.count(call_id) in (3, 6), f"died at {dies_at}"
        assert await heir.run_due() == 0
    else:
        pytest.fail("it never got through")
    assert dies_at > 5
