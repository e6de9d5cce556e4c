"""Rooms with a price: who is in them pays the owner for just that time, once, whatever dies or is late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.billing.receipt_check import verify
from models.billing.receipts import Receipts
from models.billing.signing import Signer
from models.billing.tariffs import Tariffs
from models.calls.call import Reason, Role, Stage, State
from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Pocket
from models.ports import Device
from models.rooms.room import Gone
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import BY_THE_SECOND
from tests.services.paid_rooms import RATE, Guest, House, RoomTown, gone

SECOND = RATE // 60


@pytest.fixture
async def town(db: Database, clock: VirtualClock, ids: CountingIds) -> RoomTown:
    town = RoomTown(db, clock, ids)
    await town.people("olu", "ann", "bob", "cyn")
    return town


@pytest.fixture
async def house(town: RoomTown) -> House:
    return town.process("here")


@pytest.fixture
async def olu(town: RoomTown, house: House) -> Guest:
    """The owner, who has no money."""
    return await town.guest(house, "olu")


async def refused(guest: Guest, room_id: str) -> str:
    with pytest.raises(Refusal) as no:
        await guest.house.rooms.join(guest.device, room_id)
    return no.value.code


async def test_three_pay_for_the_time_that_each_was_there_and_the_owner_earns(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    await olu.join(room)
    guests = [await town.guest(house, name, 30_000) for name in ("ann", "bob", "cyn")]
    for guest, seconds in zip(guests, (10, 20, 30), strict=True):
        await guest.join(room)
        town.clock.pass_(seconds)
        await house.jobs()
    for guest in guests:
        await guest.leave(room)
    costs = [(await town.stay(name)).cost_minor for name in ("ann", "bob", "cyn")]
    assert costs == [60 * SECOND, 50 * SECOND, 30 * SECOND]
    for name, cost in zip(("ann", "bob", "cyn"), costs, strict=True):
        assert await town.pockets(name) == (30_000 - cost, 0)
        stay = await town.charged_rightly(await town.stay(name))
        assert (stay.end_reason, stay.ended_by, stay.callee.user_id) == (Reason.COMPLETED, name, "olu")
    await town.nobody_pays()
    assert (await town.wallet("olu")).pending == sum(costs) * 8 // 10
    await town.settled()
    assert await town.pockets("olu") == (sum(costs) * 8 // 10, 0)
    await town.books()


async def test_the_owner_pays_nothing_and_needs_no_wallet(town: RoomTown, house: House, olu: Guest) -> None:
    room = await olu.create()
    await olu.join(room)
    town.clock.pass_(600)
    await house.jobs()
    await olu.leave(room)
    assert await town.stays() == []


async def test_a_room_without_a_price_takes_nothing(town: RoomTown, house: House, olu: Guest) -> None:
    room = await olu.create(rate=None)
    ann = await town.guest(house, "ann")
    await ann.join(room)
    assert room.price is None
    assert await town.stays() == []


async def test_the_price_is_the_rooms_rate_in_the_platforms_blocks_as_they_were_when_it_was_made(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = RoomTown(db, clock, ids, Tariffs(connect_fee_minor=500, minimum_minor=2_000))
    await town.people("olu", "ann")
    here = town.process("here")
    olu = await town.guest(here, "olu")
    room = await olu.create(rate=1_200)
    quoted = room.price
    assert quoted is not None
    assert (quoted.rate_per_minute_minor, quoted.first_block_seconds) == (1_200, 60)
    assert (quoted.connect_fee_minor, quoted.minimum_minor) == (500, 2_000)
    town.tariffs = Tariffs(connect_fee_minor=700)
    ann = await town.guest(town.process("restarted"), "ann", 10_000)
    await ann.join(room)
    assert (await town.stay("ann")).price == quoted
    clock.pass_(61)
    await ann.leave(room)
    assert (await town.stay("ann")).cost_minor == 500 + 2 * 1_200
    await town.nobody_pays()


# ---------------------------------------------------------------------------------------------------- coming in


async def test_without_the_money_nobody_comes_in_and_nobody_hears_of_it(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    await olu.join(room)
    for money in (0, SECOND - 1):
        ann = await town.guest(house, "ann", money)
        assert await refused(ann, room.id) == "INSUFFICIENT_FUNDS"
    assert (await town.room(room.id)).participant("ann") is None
    assert house.said.of("ann") in ([], ["never_came", "never_came"])
    assert [data["was_here"] for kind, data in house.said.facts if kind == "left"] in ([], [False, False])
    assert await town.pockets("ann") == (SECOND - 1, 0)
    await town.nobody_pays()
    await town.pay_in(house, "ann", 1)
    await ann.join(room)  # a second's money is a second's stay
    assert (await town.room(room.id)).participant("ann") is not None


async def test_a_frozen_wallet_lets_nobody_in(town: RoomTown, house: House, olu: Guest) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 10_000)
    await house.ledger.freeze("ann", frozen=True)
    assert await refused(ann, room.id) == "WALLET_FROZEN"
    await town.nobody_pays()


async def test_two_devices_of_one_payer_pay_once_and_until_the_last_has_left(
    town: RoomTown, house: House, olu: Guest
) -> None:
    there = town.process("there")
    room = await olu.create()
    phone = await town.guest(house, "ann", 30_000)
    laptop = phone.at(there, "ann-laptop")
    await phone.join(room)
    town.clock.pass_(10)
    await laptop.join(room)
    town.clock.pass_(10)
    await phone.leave(room)
    town.clock.pass_(10)
    await laptop.leave(room)
    stay = await town.stay("ann")
    assert stay.cost_minor == 30 * SECOND
    await town.nobody_pays()


async def test_a_place_that_was_held_for_who_never_came_costs_nothing(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 30_000)
    await replace(ann, rest=True).join(room)
    assert (await town.pockets("ann"))[1] > 0
    await town.pass_(70, house)
    stay = await town.stay("ann")
    assert (stay.cost_minor, stay.end_reason) == (0, Reason.CONNECT_FAILED)
    await town.nobody_pays()


async def test_somebody_in_two_paid_rooms_and_a_call_pays_each_out_of_one_wallet(
    town: RoomTown, house: House, olu: Guest
) -> None:
    bob = await town.guest(house, "bob")
    ann = await town.guest(house, "ann", 60_000)
    one, two = await olu.create(), await bob.create()
    await ann.join(one)
    await ann.join(two)
    call = await town.phone(house, "cyn").accept(
        await town.phone(house, "ann").request(town.phone(house, "cyn"))
    )
    town.clock.pass_(10)
    await ann.leave(one)
    await ann.leave(two)
    await town.phone(house, "ann").end(call)
    assert await town.pockets("ann") == (60_000 - 3 * 10 * SECOND, 0)
    assert {stay.callee.user_id for stay in await town.stays("ann")} == {"olu", "bob"}
    await town.nobody_pays()


# ------------------------------------------------------------------------------------------------ while they are in


async def test_a_stay_is_renewed_and_a_payment_makes_it_longer(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 200 * SECOND)
    await ann.join(room)
    await town.pass_(150, house)
    assert (await town.stay("ann")).state is State.ACTIVE
    await town.pay_in(house, "ann", 100 * SECOND)
    await house.billing.run_wanted()
    await town.pass_(100, house)
    assert (await town.stay("ann")).state is State.ACTIVE
    await town.pass_(60, house)
    stay = await town.stay("ann")
    assert (stay.end_reason, stay.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 300 * SECOND)
    assert gone(house, "ann") == [Gone.FUNDS]
    assert await town.pockets("ann") == (0, 0)
    await town.nobody_pays()


async def test_a_payment_that_another_process_took_makes_it_longer_too(
    town: RoomTown, house: House, olu: Guest
) -> None:
    there = town.process("there")
    room = await olu.create()
    ann = await town.guest(house, "ann", 100 * SECOND)
    await ann.join(room)
    await town.pass_(10, house, there)
    await town.pay_in(there, "ann", 100 * SECOND)
    await town.pass_(100, house, there)
    assert (await town.stay("ann")).state is State.ACTIVE


async def test_the_participant_hears_how_the_money_goes_and_the_owner_does_not(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    await olu.join(room)
    ann = await town.guest(house, "ann", 100 * SECOND)
    await ann.join(room)
    await town.pass_(90, house, step=1)
    stay = await town.stay("ann")
    ticks = ann.letters("BILLING_TICK")
    assert len(ticks) >= 18
    assert {(tick["callId"], tick["roomId"]) for tick in ticks} == {(stay.id, room.id)}
    assert ticks[-1]["chargedMinor"] >= 85 * SECOND
    warned = [letter["remainingSeconds"] for letter in ann.letters("BILLING_LOW_BALANCE")]
    assert [low for low in warned if low <= 60] == warned
    assert len(warned) == 2
    assert olu.letters("BILLING_TICK") == []


async def test_a_device_that_comes_back_to_another_process_goes_on_hearing_it(
    town: RoomTown, house: House, olu: Guest
) -> None:
    there = town.process("there")
    room = await olu.create()
    ann = await town.guest(house, "ann", 30_000)
    await ann.join(room)
    await ann.drop()
    moved = ann.at(there)
    await there.calls.attached("ann", moved.device_id, there.name)
    await there.rooms.attached("ann", moved.device_id, there.name)
    await town.pass_(10, there)
    assert moved.letters("BILLING_TICK") != []
    assert (await town.stay("ann")).state is State.ACTIVE


async def test_a_stay_is_no_call_to_be_seen_answered_ended_or_talked_in(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 30_000)
    await ann.join(room)
    stay, calls = await town.stay("ann"), house.calls
    for name in ("ann", "olu"):
        assert await calls.recent(name) == []
        assert await calls.history(name) == []
        assert calls.board.call_of(name) is None
        device = Device(user_id=name, device_id=f"{name}-phone", session_id="s", process=house.name)
        for verb in (
            lambda device: calls.end(device, call_id=stay.id),
            lambda device: calls.connected(device, stay.id),
            lambda device: calls.report(device, stay.id, stats={}, receiving=False),
            lambda device: calls.resume(device, stay.id),
            lambda device: calls.ask_upgrade(device, stay.id, type="video"),
            lambda device: calls.signal(device.user_id, device.device_id, stay.id, []),
            lambda device: calls.signals(device.user_id, stay.id, after=0),
        ):
            with pytest.raises(Refusal) as no:
                await verb(device)
            assert no.value.code == "CALL_UNKNOWN"
        assert calls.relay(name, f"{name}-phone", stay.id, []) is None
        assert (await calls.get(name, stay.id)).id == stay.id
    with pytest.raises(Refusal):
        await calls.get("bob", stay.id)
    assert await town.locks() == {}
    assert await town.stay("ann") == stay
    assert ann.letters("CALL_UPDATED") == ann.letters("CALL_REQUEST") == []


# ------------------------------------------------------------------------------------------------------- going out


async def test_leaving_in_the_middle_of_a_block_costs_the_whole_block(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = RoomTown(db, clock, ids, replace(BY_THE_SECOND, first_block_seconds=60, block_seconds=30))
    await town.people("olu", "ann")
    here = town.process("here")
    room = await (await town.guest(here, "olu")).create()
    ann = await town.guest(here, "ann", 30_000)
    await ann.join(room)
    clock.pass_(75)
    await ann.leave(room)
    assert (await town.stay("ann")).cost_minor == 90 * SECOND
    await town.nobody_pays()


async def test_the_end_of_the_money_is_to_the_second_however_late_it_is_noticed(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 100 * SECOND)
    await ann.join(room)
    town.clock.pass_(60)
    await house.calls.run_renewals()
    town.clock.pass_(500)
    there = town.process("there")  # never heard of it
    await there.jobs()
    stay = await town.stay("ann")
    assert (stay.end_reason, stay.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 100 * SECOND)
    assert (stay.ended_at - stay.created_at).total_seconds() == 100 if stay.ended_at else False
    assert (await town.room(room.id)).participant("ann") is None
    assert gone(there, "ann") == [Gone.FUNDS]
    await town.nobody_pays()


async def test_two_stays_of_one_payer_are_renewed_in_the_same_turn_one_after_the_other(
    town: RoomTown, house: House, olu: Guest
) -> None:
    ann = await town.guest(house, "ann", 1_000 * SECOND)
    for _ in range(2):
        await ann.join(await olu.create())
    town.clock.pass_(60)
    stays = await town.stays("ann")
    assert len(stays) == 2
    assert len(await house.calls.renew_together([stay.id for stay in stays])) == 1
    await house.calls.run_renewals()
    for stay in await town.stays("ann"):
        assert stay.charge is not None
        assert stay.charge.granted_ms == 180_000
    assert (await town.wallet("ann")).primary_held == 240 * SECOND
    await town.books()


async def test_the_local_timer_cuts_off_and_the_room_says_why(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    await olu.join(room)
    ann = await town.guest(house, "ann", 30 * SECOND)
    await ann.join(room)
    stay = await town.stay("ann")
    assert house.alarms.armed[stay.id] == stay.deadline_at
    town.clock.pass_(30)
    await house.calls.alarm(stay.id)
    assert gone(house, "ann") == [Gone.FUNDS]
    assert (await town.room(room.id)).participant("ann") is None
    assert stay.id not in house.alarms.armed
    await town.nobody_pays()


async def test_who_is_out_of_money_comes_in_again_with_more(town: RoomTown, house: House, olu: Guest) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 30 * SECOND)
    await ann.join(room)
    await town.pass_(32, house)
    assert await refused(ann, room.id) == "INSUFFICIENT_FUNDS"
    await town.pay_in(house, "ann", 50 * SECOND)
    await ann.join(room)
    town.clock.pass_(20)
    await ann.leave(room)
    assert [stay.cost_minor for stay in await town.stays("ann")] == [30 * SECOND, 20 * SECOND]
    await town.nobody_pays()


async def test_a_removal_that_is_told_late_does_not_touch_a_later_stay(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 60 * SECOND)
    await ann.join(room)
    first = await town.stay("ann")
    await ann.leave(room)
    await ann.join(room)
    await house.rooms.removed(room.id, "ann", reason=Gone.FUNDS, stay_id=first.id)
    assert (await town.room(room.id)).participant("ann") is not None


async def test_the_longest_stay_is_as_long_as_the_longest_call(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = RoomTown(db, clock, ids)
    town.timers = replace(town.timers, longest=60)
    await town.people("olu", "ann")
    house = town.process("here")
    room = await (await town.guest(house, "olu")).create()
    ann = await town.guest(house, "ann", 30_000)
    await ann.join(room)
    await town.pass_(70, house, step=10)
    stay = await town.stay("ann")
    assert (stay.end_reason, stay.cost_minor) == (Reason.MAX_DURATION, 60 * SECOND)
    assert gone(house, "ann") == [Gone.DURATION]
    await town.nobody_pays()


async def test_a_dead_socket_pays_until_it_was_last_heard_of(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 30_000)
    await ann.join(room)
    town.clock.pass_(20)
    seen = town.clock.now()
    town.clock.pass_(5)
    await ann.drop(seen_at=seen)
    await town.pass_(20, house)
    stay = await town.stay("ann")
    assert (stay.end_reason, stay.cost_minor) == (Reason.CONNECTION_LOST, 20 * SECOND)
    await town.nobody_pays()


async def test_a_process_that_dies_charges_until_its_last_beat(
    town: RoomTown, house: House, olu: Guest
) -> None:
    doomed = town.process("doomed")
    await doomed.calls.beat()
    room = await olu.create()
    ann = await town.guest(doomed, "ann", 30_000)
    await ann.join(room)
    await town.pass_(20, house, doomed)
    doomed.life.dead = True
    await town.pass_(40, house)
    stay = await town.stay("ann")
    assert (stay.end_reason, stay.cost_minor) == (Reason.CONNECTION_LOST, 20 * SECOND)
    await town.nobody_pays()


async def test_kicked_banned_blocked_and_closed_out_pay_until_then(
    town: RoomTown, house: House, olu: Guest
) -> None:
    await town.people("dan")
    room = await olu.create()
    for name in ("ann", "bob", "cyn", "dan"):
        await (await town.guest(house, name, 30_000)).join(room)
    town.clock.pass_(10)
    await house.rooms.kick("olu", room.id, "ann")
    await house.rooms.end_all("bob")  # as a ban does
    await house.rooms.end_between("cyn", "olu")  # as a block does
    town.clock.pass_(10)
    await house.rooms.close("olu", room.id)
    ends = {stay.caller.user_id: (stay.end_reason, stay.cost_minor) for stay in await town.stays()}
    assert ends == {
        "ann": (Reason.COMPLETED, 10 * SECOND),
        "bob": (Reason.POLICY, 10 * SECOND),
        "cyn": (Reason.POLICY, 10 * SECOND),
        "dan": (Reason.COMPLETED, 20 * SECOND),
    }
    assert (await town.stay("ann")).ended_by == "olu"
    await town.nobody_pays()


async def test_nobody_earns_who_is_banned_neither_by_who_is_there_nor_by_who_comes(
    town: RoomTown, house: House, olu: Guest
) -> None:
    room = await olu.create()
    ann, bob = await town.guest(house, "ann", 30_000), await town.guest(house, "bob", 30_000)
    await ann.join(room)
    town.clock.pass_(10)
    await town.db["users"].update_one({"_id": "olu"}, {"$set": {"status": "banned"}})
    with pytest.raises(Refusal) as no:
        await bob.join(room)  # before the ban has closed the room
    assert no.value.code == "ROOM_UNKNOWN"
    assert [stay.caller.user_id for stay in await town.stays()] == ["ann"]
    await house.rooms.end_all("olu")
    assert (await town.stay("ann")).cost_minor == 10 * SECOND
    assert not (await town.room(room.id)).open
    await town.nobody_pays()


# ------------------------------------------------------------------------------------------------ after it was paid


async def test_the_receipt_of_a_stay_verifies_for_both(town: RoomTown, house: House, olu: Guest) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 30_000)
    await ann.join(room)
    town.clock.pass_(42)
    await ann.leave(room)
    receipts = Receipts(calls=town.store, ledger=town.ledger.store, signer=Signer("r" * 32))
    stay = await town.stay("ann")
    for role, side in ((Role.CALLER, "payer"), (Role.CALLEE, "payee")):
        receipt = await receipts.of(stay, role)
        assert receipt is not None
        assert verify(receipt, receipts.signer.public_key) == []
        assert (receipt["copy"], receipt["totalMinor"]) == (side, 42 * SECOND)


async def test_a_stay_is_refunded_like_a_call(town: RoomTown, house: House, olu: Guest) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 30_000)
    await ann.join(room)
    town.clock.pass_(50)
    await ann.leave(room)
    stay = await house.calls.refund((await town.stay("ann")).id, amount_minor=20 * SECOND)
    assert stay.cost_minor == 30 * SECOND
    assert await town.pockets("ann") == (30_000 - 30 * SECOND, 0)
    assert stay.charge is not None
    assert stay.charge.stage is Stage.SETTLED
    assert ann.letters("CALL_UPDATED") == []
    await town.settled()
    await town.books()


async def test_call_credits_are_spent_first(town: RoomTown, house: House, olu: Guest) -> None:
    room = await olu.create()
    ann = await town.guest(house, "ann", 1_000)
    await town.pay_in(house, "ann", 5 * SECOND, into=Pocket.CREDITS)
    await ann.join(room)
    town.clock.pass_(8)
    await ann.leave(room)
    wallet = await town.wallet("ann")
    assert (wallet.credits, wallet.primary) == (0, 1_000 - 3 * SECOND)
    await town.nobody_pays()
