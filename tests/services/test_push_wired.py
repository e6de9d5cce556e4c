"""Push as it is wired: from the environment to the three providers, with the tokens that accounts keep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from models.auth.devices.store import DeviceStore
from models.auth.session import PushToken
from models.db import Database, Session
from server.cli_doctor import examine
from server.clock import SystemClock
from server.config import load_config
from server.metrics import REGISTRY
from server.wiring_push import WiredPush, wire_push
from tests.fakes import CountingIds, VirtualClock
from tests.services.pushkit import ANN, BOB, CALL, PHONE
from tests.standins.apns import ApnsStandIn
from tests.standins.expo import ExpoStandIn
from tests.standins.fcm import FcmStandIn
from tests.standins.keys import p256_key, pem, tls

APPLE = {"APNS_KEY_ID": "KEY1234567", "APNS_TEAM_ID": "TEAM123456", "APNS_TOPIC": "com.example.app"}


async def _rings(call_id: str) -> bool:
    return True


async def _nobody(user_id: str, conversation_id: str) -> set[str]:
    return set()


@asynccontextmanager
async def wired(
    db: Database, clock: VirtualClock, ids: CountingIds, env: dict[str, str]
) -> AsyncIterator[WiredPush]:
    made = wire_push(
        load_config(env), db, still_rings=_rings, focused=_nobody, clock=clock, ids=ids, nudge=lambda: None
    )
    yield made
    await made.close()


async def show(db: Database, clock: VirtualClock, kind: str, token: str) -> None:
    """Bob's device shows a token."""
    push = PushToken(
        user_id=BOB,
        device_id=f"device with {kind}",
        session_id="s1",
        kind=kind,
        token=token,
        platform=None,
        updated_at=clock.now(),
    )

    async def body(session: Session) -> None:
        await DeviceStore(db).keep(push, session)

    await db.transaction(body)


def pushed(provider: str, outcome: str) -> float:
    found = REGISTRY.get_sample_value("ringmeter_pushes_total", {"provider": provider, "outcome": outcome})
    return found or 0.0


async def test_a_ring_goes_by_expo_and_by_fcm_as_the_environment_says(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    expo, fcm = ExpoStandIn(), FcmStandIn(clock)
    await expo.start()
    await fcm.start()
    expo.dead = {PHONE}
    env = {"EXPO_URL": expo.url, "FCM_URL": fcm.url, "FCM_SERVICE_ACCOUNT": fcm.account}
    await show(db, clock, "EXPO", PHONE)
    await show(db, clock, "FCM", "android")
    await show(db, clock, "APNS_VOIP", "ab" * 32)  # not set up: passed over
    before = pushed("expo", "gone"), pushed("fcm", "ok")
    async with wired(db, clock, ids, env) as push:
        until = clock.now() + timedelta(seconds=45)
        await push.pushes.ring(call_id=CALL, call_type="audio", caller=ANN, callee_id=BOB, expires_at=until)
        await push.pushes.run_due()
    assert [message["token"] for message in fcm.pushed] == ["android"]
    assert (pushed("expo", "gone"), pushed("fcm", "ok")) == (before[0] + 1, before[1] + 1)
    left = await DeviceStore(db).of_users([BOB])
    assert sorted(token.kind for token in left) == ["APNS_VOIP", "FCM"]
    await expo.stop()
    await fcm.stop()


async def test_the_doctor_says_which_senders_work(
    mongo_uri: str, clock: VirtualClock, tmp_path: Path
) -> None:
    expo, apns = ExpoStandIn(), ApnsStandIn(clock, tls(tmp_path))
    await expo.start()
    await apns.start()

    async def said(**env: str) -> dict[str, bool | None]:
        config = load_config({"MONGO_URI": mongo_uri, "EXPO_URL": expo.url, **env})
        return {one.what: one.ok for one in await examine(config) if one.what.startswith("push")}

    assert await said() == {"push": True, "push by FCM": None, "push by APNs": None}
    fcm = FcmStandIn(SystemClock())  # the doctor's clock is the machine's, and so must Google's be
    await fcm.start()
    native = {
        "FCM_SERVICE_ACCOUNT": fcm.account,
        "FCM_URL": fcm.url,
        "APNS_KEY": pem(p256_key()),
        "APNS_URL": apns.url,
        **APPLE,
    }
    assert await said(**native) == {"push": True, "push by FCM": True, "push by APNs": True}
    assert fcm.asked == 0
    await apns.stop()
    fcm.denied = True
    assert await said(**native) == {"push": True, "push by FCM": False, "push by APNs": False}
    await fcm.stop()
    await expo.stop()
