"""Keys of devices with a real database: kept as a whole, each given out once, gone with the sign-in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from handlers.keys import KEYS_CHANGED, KEYS_LOW
from models.db import Database
from models.keys import rules
from models.keys.keys import Bundle, Kind, Owner
from models.keys.store import CLAIMED_KEPT, DEVICE_KEYS, KEY_CHANGES, KEY_WATCHERS, PREKEYS, TELL_SECONDS
from models.users.store import UserStore
from server.adapters.passwords import Passwords
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import PASSWORD, House, code_of
from tests.services.callkit import Killed, Mortal
from tests.services.keykit import Cut, Handset, Silent, World

PHONE, TABLET, NEW_PHONE = Handset("phone"), Handset("tablet"), Handset("new phone")


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords) -> World:
    return World(House(db, clock, ids, passwords))


@pytest.fixture
async def ada(world: World) -> Owner:
    return await world.joins("ada")


@pytest.fixture
async def bob(world: World) -> Owner:
    return await world.joins("bob")


async def claim(world: World, by: Owner, of: Owner, **more: Any) -> list[Bundle]:
    return await world.keys.claim(by.user_id, by.device_id, of=of.user_id, **more)


def best(bundle: Bundle, kind: Kind) -> int | None:
    prekey = bundle.best(kind)
    return prekey.id if prekey else None


# ---------------------------------------------------------------------------------------------- handing in, claiming


async def test_a_claim_brings_what_was_handed_in_of_every_device(
    world: World, ada: Owner, bob: Owner
) -> None:
    tablet = await world.signs_in("ada", "tablet")
    await world.keys.put(ada, PHONE.upload(ec=[5, 3], kem=[9], last_kem=1))
    await world.keys.put(tablet, TABLET.upload())
    phone, other = await claim(world, bob, ada)
    assert (phone.keys.owner, other.keys.owner) == (ada, tablet)
    assert (phone.keys.identity_key, phone.keys.registration_id) == (PHONE.identity, 77)
    assert phone.keys.signed == PHONE.signed()
    assert (phone.best(Kind.EC), phone.best(Kind.KEM)) == (PHONE.ec(5), PHONE.kem(9))
    assert (other.best(Kind.EC), other.best(Kind.KEM)) == (None, None)


async def test_keys_are_given_out_in_the_order_of_their_upload_then_the_last_resort(
    world: World, ada: Owner, bob: Owner
) -> None:
    await world.keys.put(ada, PHONE.upload(ec=[7, 2], kem=[4], last_kem=99))
    await world.keys.put(ada, PHONE.upload(ec=[1], kem=[3]))
    claimed = [(await claim(world, bob, ada))[0] for _ in range(4)]
    assert [best(one, Kind.EC) for one in claimed] == [7, 2, 1, None]
    assert [best(one, Kind.KEM) for one in claimed] == [4, 3, 99, 99]


async def test_e63_a_hundred_callers_at_two_processes_get_fifty_keys_once_each(
    world: World, ada: Owner
) -> None:
    await world.keys.put(ada, PHONE.upload(ec=range(50), kem=range(50), last_kem=1000))
    callers = [await world.joins(f"caller{n}") for n in range(4)]
    processes = [world.process(), world.process()]
    claimed = await asyncio.gather(
        *(
            processes[n % 2].claim(callers[n % 4].user_id, "phone", of=ada.user_id, device_id="phone")
            for n in range(100)
        )
    )
    ec = Counter(best(one, Kind.EC) for (one,) in claimed)
    kem = Counter(best(one, Kind.KEM) for (one,) in claimed)
    assert ec == {**dict.fromkeys(range(50), 1), None: 50}
    assert kem == {**dict.fromkeys(range(50), 1), 1000: 50}


async def test_key_packages_are_claimed_by_themselves(world: World, ada: Owner, bob: Owner) -> None:
    await world.keys.put(ada, PHONE.upload(ec=[1], mls=[1], last_mls=50))
    first, second = [(await claim(world, bob, ada, kinds=[Kind.MLS]))[0] for _ in range(2)]
    assert (first.best(Kind.MLS), second.best(Kind.MLS)) == (PHONE.package(1), PHONE.package(50))
    _, counts = await world.keys.own(ada.user_id, "phone")
    assert counts == {Kind.EC: 1, Kind.KEM: 0, Kind.MLS: 0}


async def test_ones_own_other_devices_are_claimed_without_the_asking_one(world: World, ada: Owner) -> None:
    tablet = await world.signs_in("ada", "tablet")
    await world.keys.put(ada, PHONE.upload(ec=[1]))
    assert await code_of(claim(world, ada, ada)) == "KEYS_UNKNOWN"
    await world.keys.put(tablet, TABLET.upload())
    assert [one.keys.owner for one in await claim(world, ada, ada)] == [tablet]


async def test_an_upload_twice_adds_nothing_not_even_what_was_claimed_meanwhile(
    world: World, ada: Owner, bob: Owner
) -> None:
    upload = PHONE.upload(ec=[1, 2], kem=[1], last_kem=9)
    await world.keys.put(ada, upload)
    assert best((await claim(world, bob, ada))[0], Kind.EC) == 1
    await world.keys.put(ada, upload)
    _, counts = await world.keys.own(ada.user_id, "phone")
    assert (counts[Kind.EC], counts[Kind.KEM]) == (1, 0)
    claimed = [(await claim(world, bob, ada))[0] for _ in range(2)]
    assert [best(one, Kind.EC) for one in claimed] == [2, None]


async def test_an_id_stays_with_its_key_claimed_or_not(world: World, ada: Owner, bob: Owner) -> None:
    await world.keys.put(ada, PHONE.upload(ec=[1, 2], last_kem=9))
    await claim(world, bob, ada)
    clashes = [
        PHONE.upload(ec=[50]).one_time[Kind.EC] + (PHONE.ec(key_id, other="another"),) for key_id in (1, 2)
    ]
    for row in clashes:
        upload = replace(PHONE.upload(), one_time={Kind.EC: row})
        assert await code_of(world.keys.put(ada, upload)) == "KEY_ID_TAKEN"
    for upload in (
        replace(PHONE.upload(), signed=replace(PHONE.signed(2), id=1)),
        replace(PHONE.upload(), last_resort={Kind.KEM: replace(PHONE.kem(8), id=9)}),
    ):
        assert await code_of(world.keys.put(ada, upload)) == "KEY_ID_TAKEN"
    _, counts = await world.keys.own(ada.user_id, "phone")
    assert counts[Kind.EC] == 1, "of a refused upload nothing is kept"


async def test_a_new_signed_prekey_replaces_the_one_before(world: World, ada: Owner, bob: Owner) -> None:
    await world.keys.put(ada, PHONE.upload(signed=1, last_kem=1))
    await world.keys.put(ada, PHONE.upload(signed=2))
    await world.keys.put(ada, PHONE.upload(signed=None, ec=[4]))
    (bundle,) = await claim(world, bob, ada)
    assert bundle.keys.signed == PHONE.signed(2)
    assert (best(bundle, Kind.EC), best(bundle, Kind.KEM)) == (4, 1)


async def test_the_first_upload_is_whole(world: World, ada: Owner) -> None:
    assert await code_of(world.keys.put(ada, PHONE.upload(signed=None))) == "VALIDATION_FAILED"
    assert await world.count(DEVICE_KEYS) == 0


async def test_no_more_than_two_hundred_wait_for_their_claim(world: World, ada: Owner) -> None:
    await world.keys.put(ada, PHONE.upload(ec=range(100)))
    await world.keys.put(ada, PHONE.upload(ec=range(100, 200)))
    assert await code_of(world.keys.put(ada, PHONE.upload(ec=[200]))) == "VALIDATION_FAILED"
    await world.keys.put(ada, PHONE.upload(ec=range(150, 200)))
    assert await world.count(PREKEYS) == 200


async def test_a_bad_signature_keeps_the_whole_upload_out(world: World, ada: Owner) -> None:
    upload = PHONE.upload(ec=[1], kem=[1, 2])
    forged = (upload.one_time[Kind.KEM][0], TABLET.kem(2))
    upload = replace(upload, one_time={**upload.one_time, Kind.KEM: forged})
    assert await code_of(world.keys.put(ada, upload)) == "SIGNATURE_INVALID"
    assert await world.count(DEVICE_KEYS) == await world.count(PREKEYS) == 0


async def test_of_more_devices_than_twenty_the_one_longest_not_renewed_goes(
    world: World, ada: Owner, bob: Owner
) -> None:
    owners = [Owner(user_id=ada.user_id, device_id=f"d{n:02}", session_id=ada.session_id) for n in range(21)]
    for n, owner in enumerate(owners[:20]):
        world.clock.pass_(1)
        await world.keys.put(owner, Handset(f"h{n}").upload(ec=[1]))
    await claim(world, bob, ada)
    world.clock.pass_(1)
    await world.keys.put(owners[0], Handset("h0").upload(ec=[2]))
    await world.keys.put(owners[20], Handset("h20").upload(ec=[1]))
    known = (await world.keys.devices_of([ada.user_id, bob.user_id, "nobody"])).items()
    assert {user: len(devices) for user, devices in known} == {ada.user_id: 20, bob.user_id: 0, "nobody": 0}
    assert "d01" not in (await world.keys.devices_of([ada.user_id]))[ada.user_id]
    assert await world.log(bob.user_id) == [
        (KEYS_CHANGED, {"userId": ada.user_id, "deviceId": "d01", "identityKey": None})
    ]


async def test_a_digest_tells_a_device_that_its_keys_are_not_here(world: World, ada: Owner) -> None:
    assert await code_of(world.keys.check(ada.user_id, "phone", digest="-")) == "KEYS_UNKNOWN"
    keys = await world.keys.put(ada, PHONE.upload(last_kem=1))
    await world.keys.check(ada.user_id, "phone", digest=rules.digest_of(keys))
    await world.keys.put(ada, PHONE.upload(signed=2))
    check = world.keys.check(ada.user_id, "phone", digest=rules.digest_of(keys))
    assert await code_of(check) == "KEYS_MISMATCH"


async def test_ids_of_keys_given_out_are_free_again_after_a_month(
    world: World, ada: Owner, bob: Owner
) -> None:
    await world.keys.put(ada, PHONE.upload(ec=[1, 2]))
    await claim(world, bob, ada)
    world.clock.pass_(CLAIMED_KEPT.total_seconds())
    assert await world.keys.tidy() == 0
    world.clock.pass_(1)
    assert await world.keys.tidy() == 1
    assert await world.count(PREKEYS) == 1


# ------------------------------------------------------------------------------------------------------- who may claim


async def test_who_is_blocked_or_gone_gets_no_keys_and_no_ones_keys_are_given(
    world: World, ada: Owner, bob: Owner
) -> None:
    people = UserStore(world.db)
    await world.keys.put(ada, PHONE.upload(ec=[1]))
    assert await code_of(claim(world, ada, bob)) == "KEYS_UNKNOWN"
    assert await code_of(world.keys.claim(bob.user_id, "phone", of="nobody")) == "USER_UNKNOWN"
    assert await code_of(claim(world, bob, ada, device_id="other")) == "KEYS_UNKNOWN"
    await people.block(ada.user_id, bob.user_id, world.clock.now())
    assert await code_of(claim(world, bob, ada)) == "USER_UNAVAILABLE"
    await people.unblock(ada.user_id, bob.user_id)
    await people.block(bob.user_id, ada.user_id, world.clock.now())
    assert await code_of(claim(world, bob, ada)) == "USER_BLOCKED"
    _, counts = await world.keys.own(ada.user_id, "phone")
    assert counts[Kind.EC] == 1


async def test_nobody_drains_a_device_however_they_ask(world: World, ada: Owner, bob: Owner) -> None:
    keys = world.process(per_minute=3)
    tablet = await world.signs_in("ada", "tablet")
    await keys.put(ada, PHONE.upload(ec=range(10)))
    await keys.put(tablet, TABLET.upload(ec=range(10)))
    for device_id in (None, "phone", None):
        await keys.claim(bob.user_id, "phone", of=ada.user_id, device_id=device_id)
    for device_id in (None, "phone"):
        again = keys.claim(bob.user_id, "phone", of=ada.user_id, device_id=device_id)
        assert await code_of(again) == "RATE_LIMITED"
    _, counts = await keys.own(ada.user_id, "phone")
    assert counts[Kind.EC] == 7
    world.clock.pass_(61)
    await keys.claim(bob.user_id, "phone", of=ada.user_id)


# ------------------------------------------------------------------------------------------------------ running short


async def test_a_device_is_asked_for_more_once_for_each_shortage(
    world: World, ada: Owner, bob: Owner
) -> None:
    phone, tablet = world.doors.connect(ada.user_id, "phone"), world.doors.connect(ada.user_id, "tablet")
    await world.keys.put(ada, PHONE.upload(ec=range(11), kem=range(40)))
    await claim(world, bob, ada)
    assert phone == []
    for _ in range(3):
        await claim(world, bob, ada)
    low = {"oneTime": 9, "kem": 38, "keyPackages": 0}
    assert [(letter.event, letter.payload) for letter in phone] == [(KEYS_LOW, low)]
    await world.keys.put(ada, PHONE.upload(ec=[100]))
    await claim(world, bob, ada)
    assert len(phone) == 1, "still the same shortage"
    await world.keys.put(ada, PHONE.upload(ec=range(200, 203)))
    await claim(world, bob, ada)
    assert [letter.payload["oneTime"] for letter in phone] == [9, 9]
    assert tablet == []


async def test_a_process_that_dies_before_it_asks_is_followed_by_the_next_claim(
    world: World, ada: Owner, bob: Owner
) -> None:
    await world.keys.put(ada, PHONE.upload(ec=[1, 2]))
    dying = world.process(announcer=Silent())
    for _ in range(2):
        with pytest.raises(Cut):
            await dying.claim(bob.user_id, "phone", of=ada.user_id)
    await world.keys.put(ada, PHONE.upload(ec=[3]))
    await claim(world, bob, ada)
    assert [event for event, _ in await world.log(ada.user_id)] == [KEYS_LOW]


# -------------------------------------------------------------------------------------------------- identities change


async def test_an_identity_is_never_replaced_silently(world: World, ada: Owner, bob: Owner) -> None:
    inbox = world.doors.connect(bob.user_id, "phone")
    await world.keys.put(ada, PHONE.upload(ec=[1, 2]))
    await claim(world, bob, ada)
    assert await code_of(world.keys.put(ada, NEW_PHONE.upload(ec=[9]))) == "IDENTITY_CHANGED"
    assert best((await claim(world, bob, ada))[0], Kind.EC) == 2
    await world.keys.remove(ada.user_id, "phone")
    await world.keys.remove(ada.user_id, "phone")
    assert await code_of(claim(world, bob, ada)) == "KEYS_UNKNOWN"
    await world.keys.put(ada, NEW_PHONE.upload(ec=[9]))
    gone = {"userId": ada.user_id, "deviceId": "phone", "identityKey": None}
    assert [(letter.event, letter.payload) for letter in inbox] == [(KEYS_CHANGED, gone)]


async def test_a_new_sign_in_of_the_same_device_brings_another_identity_and_its_keys_alone(
    world: World, ada: Owner, bob: Owner
) -> None:
    await world.keys.put(ada, PHONE.upload(ec=[1, 2], last_kem=1))
    await claim(world, bob, ada)
    again = await world.signs_in("ada", "phone")
    await world.keys.put(again, NEW_PHONE.upload(ec=[7]))
    changed = {"userId": ada.user_id, "deviceId": "phone", "identityKey": NEW_PHONE.identity}
    assert await world.log(bob.user_id) == [(KEYS_CHANGED, changed)]
    claimed = [(await claim(world, bob, ada))[0] for _ in range(2)]
    assert [one.keys.identity_key for one in claimed] == [NEW_PHONE.identity] * 2
    assert [one.best(Kind.EC) for one in claimed] == [NEW_PHONE.ec(7), None]
    assert claimed[0].best(Kind.KEM) is None, "a key that the old identity signed is worth nothing"
    # The sign-in before it has no part in these keys.
    await world.accounts.logout(ada.user_id, ada.session_id)
    assert (await world.keys.devices_of([ada.user_id]))[ada.user_id] == {"phone"}


async def test_the_same_identity_by_a_new_sign_in_goes_over_to_it(
    world: World, ada: Owner, bob: Owner
) -> None:
    await world.keys.put(ada, PHONE.upload(ec=[1]))
    await claim(world, bob, ada)
    again = await world.signs_in("ada", "phone")
    await world.keys.put(again, PHONE.upload(ec=[1, 2]))
    await world.accounts.logout(ada.user_id, ada.session_id)
    assert best((await claim(world, bob, ada))[0], Kind.EC) == 2
    await world.accounts.logout(again.user_id, again.session_id)
    assert (await world.keys.devices_of([ada.user_id]))[ada.user_id] == set()
    await world.keys.tell_changes()
    assert len(await world.log(bob.user_id)) == 1


async def test_only_those_are_told_who_have_claimed(world: World, ada: Owner, bob: Owner) -> None:
    eve = await world.joins("eve")
    await world.keys.put(ada, PHONE.upload())
    await claim(world, bob, ada)
    await world.keys.remove(ada.user_id, "phone")
    assert len(await world.log(bob.user_id)) == 1
    assert await world.log(eve.user_id) == await world.log(ada.user_id) == []
    assert await world.count(KEY_WATCHERS) == await world.count(KEY_CHANGES) == 0


async def test_a_claim_in_the_middle_of_a_change_gets_the_new_keys_or_hears_of_the_change(
    world: World, ada: Owner, bob: Owner
) -> None:
    await world.keys.put(ada, PHONE.upload(ec=[1]))
    again = await world.signs_in("ada", "phone")

    class Meanwhile(type(world.keys._store)):  # type: ignore[misc]
        async def watch(self, set_ids: Any, user_id: str) -> None:
            if PHONE.identity in {keys.identity_key for keys in await self.of_users([ada.user_id])}:
                await world.keys.put(again, NEW_PHONE.upload(ec=[2]))
            await super().watch(set_ids, user_id)

    keys = world.process()
    keys._store = Meanwhile(world.db)
    (bundle,) = await keys.claim(bob.user_id, "phone", of=ada.user_id)
    assert bundle.best(Kind.EC) == NEW_PHONE.ec(2)
    await world.keys.remove(ada.user_id, "phone")
    assert [payload["identityKey"] for _, payload in await world.log(bob.user_id)] == [None]
    assert await world.count(KEY_WATCHERS) == 0


# ------------------------------------------------------------------------------------------------ sign-ins that end


@pytest.mark.parametrize("way", ["logout", "logout_all", "password", "other device", "deleted", "expired"])
async def test_keys_go_with_the_sign_in_and_others_hear_of_it(
    world: World, ada: Owner, bob: Owner, way: str
) -> None:
    tablet = await world.signs_in("ada", "tablet")
    await world.keys.put(tablet, TABLET.upload(ec=[1], kem=[1], mls=[1]))
    await claim(world, bob, ada)
    accounts = world.accounts
    if way == "logout":
        await accounts.logout(ada.user_id, tablet.session_id)
    elif way == "logout_all":
        await accounts.logout_all(ada.user_id)
    elif way == "password":
        new = "another good password"
        await accounts.change_password(ada.user_id, ada.session_id, current=PASSWORD, new=new)
    elif way == "other device":
        await accounts.end_session(ada.user_id, tablet.session_id)
    elif way == "deleted":
        await accounts.delete(ada.user_id, password=PASSWORD)
    else:
        world.clock.pass_(31 * 86_400)
        await accounts.tidy()
    assert await world.count(DEVICE_KEYS) == await world.count(PREKEYS) == 0
    assert await world.keys.tell_changes() == 1
    gone = {"userId": ada.user_id, "deviceId": "tablet", "identityKey": None}
    assert await world.log(bob.user_id) == [(KEYS_CHANGED, gone)]
    assert await world.keys.tell_changes() == 0


async def test_other_devices_keep_their_keys(world: World, ada: Owner) -> None:
    tablet = await world.signs_in("ada", "tablet")
    await world.keys.put(ada, PHONE.upload(ec=[1]))
    await world.keys.put(tablet, TABLET.upload(ec=[1]))
    await world.accounts.logout(ada.user_id, tablet.session_id)
    assert (await world.keys.devices_of([ada.user_id]))[ada.user_id] == {"phone"}
    assert await world.count(PREKEYS) == 1


async def test_an_upload_against_the_end_of_its_sign_in_leaves_nothing(world: World) -> None:
    for n in range(8):
        owner = await world.joins(f"person{n}")
        await asyncio.gather(
            world.keys.put(owner, Handset(f"h{n}").upload(ec=[1])),
            world.accounts.logout(owner.user_id, owner.session_id),
            return_exceptions=True,
        )
        assert (await world.keys.devices_of([owner.user_id]))[owner.user_id] == set()
        again = world.keys.put(owner, Handset(f"h{n}").upload(ec=[1]))
        assert await code_of(again) == "TOKEN_INVALID"
    assert await world.count(PREKEYS) == 0


# ------------------------------------------------------------------------------------- several at once, and deaths


async def test_uploads_of_one_device_at_two_processes_add_up(world: World, ada: Owner) -> None:
    one, two = world.process(), world.process()
    await asyncio.gather(
        *((one, two)[n % 2].put(ada, PHONE.upload(ec=range(n * 5, n * 5 + 10), last_kem=1)) for n in range(8))
    )
    keys, counts = await one.own(ada.user_id, "phone")
    assert counts[Kind.EC] == 45
    order = [row["n"] async for row in world.db[PREKEYS].find({"set_id": keys.set_id})]
    assert len(set(order)) == 45
    assert await world.count(DEVICE_KEYS) == 1


async def test_wherever_a_process_dies_an_upload_is_kept_whole_or_not_at_all(
    world: World, ada: Owner
) -> None:
    upload, died = PHONE.upload(ec=range(3), kem=[1], last_kem=2), 0
    for dies_at in range(1, 20):
        mortal = Mortal(world.db)
        mortal.dies_at = dies_at
        try:
            await world.process(mortal).put(ada, upload)
        except Killed:
            died += 1
        assert (await world.count(PREKEYS), await world.count(DEVICE_KEYS)) in {(0, 0), (4, 1)}
        await world.keys.put(ada, upload)
        _, counts = await world.keys.own(ada.user_id, "phone")
        assert counts == {Kind.EC: 3, Kind.KEM: 1, Kind.MLS: 0}
        await world.keys.remove(ada.user_id, "phone")
        if not mortal.dead:
            break
    assert died >= 2


async def test_wherever_a_process_dies_no_key_is_given_out_twice(
    world: World, ada: Owner, bob: Owner
) -> None:
    await world.keys.put(ada, PHONE.upload(ec=range(60), kem=range(60), last_kem=99))
    seen: list[int | None] = []
    for dies_at in range(1, 30):
        mortal = Mortal(world.db)
        mortal.dies_at = dies_at
        try:
            (bundle,) = await world.process(mortal).claim(bob.user_id, "phone", of=ada.user_id)
        except Killed:
            continue
        seen.append(best(bundle, Kind.EC))
        if not mortal.dead:
            break
    else:
        pytest.fail("a claim has fewer steps")
    seen += [best((await claim(world, bob, ada))[0], Kind.EC) for _ in range(5)]
    assert len(set(seen)) == len(seen) == 6
    await world.keys.remove(ada.user_id, "phone")
    assert len([1 for event, _ in await world.log(bob.user_id) if event == KEYS_CHANGED]) == 1


async def test_wherever_a_process_dies_everybody_hears_once_of_a_change(world: World, ada: Owner) -> None:
    claimers = [await world.joins(f"claimer{n}") for n in range(3)]
    for dies_at in range(1, 30):
        handset = Handset(f"h{dies_at}")
        await world.keys.put(ada, handset.upload())
        for one in claimers:
            await claim(world, one, ada)
        mortal = Mortal(world.db)
        mortal.dies_at = dies_at
        try:
            await world.process(mortal).remove(ada.user_id, "phone")
        except Killed:
            world.clock.pass_(TELL_SECONDS)
            await world.keys.remove(ada.user_id, "phone")
        for one in claimers:
            assert len(await world.log(one.user_id)) == dies_at
        assert await world.count(KEY_CHANGES) == await world.count(KEY_WATCHERS) == 0
        if not mortal.dead:
            break
    else:
        pytest.fail("a removal has fewer steps")


async def test_two_processes_tell_a_change_once(world: World, ada: Owner, bob: Owner) -> None:
    inbox = world.doors.connect(bob.user_id, "phone")
    await world.keys.put(ada, PHONE.upload())
    await claim(world, bob, ada)
    await world.accounts.logout(ada.user_id, ada.session_id)
    told = await asyncio.gather(*(world.process().tell_changes() for _ in range(4)))
    assert sum(told) == 1
    assert len(inbox) == len(await world.log(bob.user_id)) == 1
