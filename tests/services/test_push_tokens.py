"""Dead tokens are forgotten, and those that a device has shown anew since then are not."""

from __future__ import annotations

from datetime import timedelta

from models.auth.devices.store import DeviceStore
from models.auth.session import PushToken
from models.db import Database, Session
from tests.fakes import VirtualClock


async def keep(db: Database, clock: VirtualClock, user_id: str, token: str) -> None:
    push = PushToken(
        user_id=user_id,
        device_id=f"phone of {user_id}",
        session_id="s1",
        kind="EXPO",
        token=token,
        platform="ios",
        updated_at=clock.now(),
    )

    async def body(session: Session) -> None:
        await DeviceStore(db).keep(push, session)

    await db.transaction(body)


async def test_e19_only_what_was_dead_then_and_was_not_shown_since_is_forgotten(
    db: Database, clock: VirtualClock
) -> None:
    store = DeviceStore(db)
    await keep(db, clock, "ann", "t-ann")
    await keep(db, clock, "bob", "t-bob")
    pushed_at = clock.pass_(60)
    clock.pass_(60)
    await keep(db, clock, "cat", "t-bob")  # somebody else on the same phone
    await store.dead({"t-ann": pushed_at, "t-bob": pushed_at, "t-nobody": pushed_at})
    left = await store.of_users(["ann", "bob", "cat"])
    assert [(one.user_id, one.token) for one in left] == [("cat", "t-bob")]
    await store.dead({"t-bob": clock.now() - timedelta(milliseconds=1)})
    assert len(await store.of_users(["cat"])) == 1
    await store.dead({"t-bob": clock.now()})
    assert await store.of_users(["cat"]) == []
