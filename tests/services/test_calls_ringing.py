"""E1-E18 of the calls' edge cases: ringing, and the races around it. E10 to E12 also stand in ``test_push``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.calls.call import Call, Reason, State
from models.db import Database
from models.errors import Refusal
from models.once import FirstAnswer, Once
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Race, Town, answer, greeting, offer


@pytest.fixture
async def town(db: Database, clock: VirtualClock, ids: CountingIds) -> Town:
    built = Town(db, clock, ids)
    await built.people("ann", "bob", "cid")
    return built


async def refused(verb: Any) -> Refusal:
    with pytest.raises(Refusal) as no:
        await verb
    return no.value


async def test_a_call_rings_is_taken_and_ended_and_both_are_told_each_step(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob, offer=offer(), reports_media=True)
    assert bob.letters("CALL_REQUEST")[0]["offer"] == offer()
    assert bob.letters("CALL_REQUEST")[0]["expiresInMs"] == 45_000
    await bob.ringing(call)
    town.clock.pass_(3)
    await bob.accept(call, answer=answer(), reports_media=True)
    assert ann.letters("CALL_ACCEPT")[0]["answer"] == answer()
    town.clock.pass_(1)
    await ann.connected(call)
    town.clock.pass_(1)
    assert (await bob.connected(call)).state is State.ACTIVE
    town.clock.pass_(60.5)
    ended = await ann.end(call)
    assert (ended.end_reason, ended.ended_by, ended.spoken_seconds()) == (Reason.COMPLETED, "ann", 60)
    assert ann.told() == ["CALL_RINGING", "CALL_ACCEPT", "CALL_UPDATED", "CALL_ENDED"]
    assert bob.told() == ["CALL_REQUEST", "CALL_UPDATED", "CALL_ENDED"]
    told = ann.letters("CALL_ENDED")[0]
    assert (told["reason"], told["durationSeconds"], told["endedBy"]) == ("completed", 60, "ann")
    assert told["cost"] == {"amountMinor": 0, "currency": "NGN"}
    assert town.pusher.about(call.id) == ["ring", "stop"]
    assert await town.locks() == {}
    assert here.alarms.armed == {}


async def test_e01_two_devices_accept_at_once_and_one_has_the_call(town: Town) -> None:
    for seed in range(12):
        here, there = town.process(f"h{seed}", raced=True), town.process(f"t{seed}", raced=True)
        ann = town.phone(here, "ann")
        phone, tablet = town.phone(here, "bob", "phone"), town.phone(there, "bob", "tablet")
        call = await ann.request(phone)
        results = await Race(seed).run(phone=phone.accept(call), tablet=tablet.accept(call))
        no = [r for r in results.values() if isinstance(r, Refusal)]
        assert [r.code for r in no] == ["CALL_ANSWERED_ELSEWHERE"]
        winner = next(name for name, r in results.items() if isinstance(r, Call))
        now = await town.call(call)
        assert now.callee_leg is not None
        assert (now.callee_leg.device_id, now.version) == (winner, 2)
        assert await town.locks() == {"ann": call.id, "bob": call.id}
        assert (await town.log("ann")).count("CALL_ACCEPT") == 2 * (seed + 1), "with and without the answer"
        assert len(ann.letters("CALL_ACCEPT")) == (1 if winner == "phone" else 0), (
            "told where she is connected"
        )
        await ann.end(call)
        await town.audit()


async def test_e04_both_call_each_other_at_once_and_are_in_one_call(town: Town) -> None:
    for seed in range(12):
        here, there = town.process(f"h{seed}", raced=True), town.process(f"t{seed}", raced=True)
        ann, bob = town.phone(here, "ann"), town.phone(there, "bob")
        results = await Race(seed).run(
            ann=ann.request(bob, offer=offer("ann")), bob=bob.request(ann, offer=offer("bob"))
        )
        ids = {result.id for result in results.values()}
        assert len(ids) == 1
        (call,) = [x for x in await town.calls_of("ann", "bob") if x.live]
        assert call.id in ids
        assert call.state is State.ACTIVE
        assert await town.locks() == {"ann": call.id, "bob": call.id}
        first, second = (ann, bob) if call.caller.user_id == "ann" else (bob, ann)
        offers = [x["description"] for x in second.letters("SESSION_DESCRIPTION")]
        assert offers == [offer(first.user_id)], "the merged one answers the other's offer"
        await second.describe(call, answer())
        await first.calls.get(first.user_id, call.id)
        assert (await town.call(call)).negotiation.answer == answer()
        await ann.end(call)
        await town.audit()


async def test_e04_also_by_rest_the_merged_side_finds_the_offer_in_its_signals(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob", rest=True)
    call = await ann.request(bob, offer=offer())
    assert (await bob.request(ann)).id == call.id
    found = await bob.calls.signals("bob", call.id, after=0)
    assert [(x.kind, x.body) for x in found] == [("description", offer())]


async def test_e05_two_people_call_a_third_at_once_and_one_rings(town: Town) -> None:
    for seed in range(12):
        here, there = town.process(f"h{seed}", raced=True), town.process(f"t{seed}", raced=True)
        ann, cid, bob = town.phone(here, "ann"), town.phone(there, "cid"), town.phone(here, "bob")
        results = await Race(seed).run(ann=ann.request(bob), cid=cid.request(bob))
        (no,) = [r for r in results.values() if isinstance(r, Refusal)]
        (call,) = [r for r in results.values() if isinstance(r, Call)]
        assert no.code == "CALL_BUSY"
        assert await town.locks() == {call.caller.user_id: call.id, "bob": call.id}
        assert len(bob.letters("CALL_REQUEST")) == (1 if call.caller.user_id == "ann" else 0)
        other = "cid" if call.caller.user_id == "ann" else "ann"
        (line,) = (await ann.calls.history(other, limit=1))[:1]
        assert (line.end_reason, line.id) == (Reason.BUSY, no.details["callId"])
        await (ann if call.caller.user_id == "ann" else cid).end(call)
        await town.audit()


async def test_e06_a_decline_on_one_device_after_another_has_taken_the_call_does_nothing(town: Town) -> None:
    here = town.process("p1")
    ann, phone, tablet = (
        town.phone(here, "ann"),
        town.phone(here, "bob", "phone"),
        town.phone(here, "bob", "tablet"),
    )
    call = await ann.request(phone)
    await tablet.accept(call)
    assert phone.told() == ["CALL_REQUEST", "CALL_ANSWERED_ELSEWHERE"]
    assert (await refused(phone.reject(call))).code == "CALL_ANSWERED_ELSEWHERE"
    assert (await town.call(call)).state is State.ACTIVE


async def test_e07_a_cancel_that_overtakes_its_request_is_obeyed_and_nobody_hears_of_it(town: Town) -> None:
    here, there = town.process("p1"), town.process("p2")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    assert await there.calls.end(ann.device, op_id="op") is None
    call = await ann.request(bob, op_id="op")
    assert (call.state, call.end_reason) == (State.ENDED, Reason.CANCELLED)
    await town.pass_(10, here, there)
    assert bob.told() == []
    assert await town.log("bob") == []
    assert town.pusher.said == []
    await town.audit()


async def test_e07_a_cancel_and_its_request_in_any_order_leave_no_ring(town: Town) -> None:
    for seed in range(24):
        here, there = town.process(f"h{seed}", raced=True), town.process(f"t{seed}", raced=True)
        ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
        cancel = there.calls.end(ann.device, op_id=f"op{seed}")
        await Race(seed).run(start=ann.request(bob, op_id=f"op{seed}"), cancel=cancel)
        await town.pass_(4, here, there)
        (call,) = [x for x in await town.calls_of("ann") if x.op_id == f"op{seed}"]
        assert (call.state, call.end_reason) == (State.ENDED, Reason.CANCELLED)
        told = [letter.event for letter in bob.inbox if letter.payload["callId"] == call.id]
        assert told in ([], ["CALL_ENDED"], ["CALL_REQUEST", "CALL_ENDED"])
        await town.audit()


async def test_e08_the_same_request_again_is_the_same_call_also_on_another_process(town: Town) -> None:
    here, there = town.process("p1"), town.process("p2")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob, op_id="op")
    again = await Phone(there, "ann", ann.device_id).request(bob, op_id="op")
    assert again.id == call.id
    assert bob.told() == ["CALL_REQUEST"]
    assert town.pusher.about(call.id) == ["ring"]
    assert len(await town.calls_of("ann")) == 1


async def test_e08_both_copies_of_a_request_at_once_make_one_call(town: Town) -> None:
    for seed in range(12):
        here, there = town.process(f"h{seed}", raced=True), town.process(f"t{seed}", raced=True)
        ann, twin, bob = town.phone(here, "ann"), town.phone(there, "ann"), town.phone(here, "bob")
        op = f"op{seed}"
        results = await Race(seed).run(one=ann.request(bob, op_id=op), two=twin.request(bob, op_id=op))
        assert len({call.id for call in results.values()}) == 1
        (live,) = [x for x in await town.calls_of("ann") if x.live]
        assert (live.op_id, live.state) == (op, State.RINGING)
        assert town.pusher.about(live.id) == ["ring"]
        await ann.end(live)
        await town.audit()


async def test_e09_the_same_key_with_another_payload_is_a_conflict(town: Town) -> None:
    here, there = Once(town.db, "p1"), Once(town.db, "p2")
    now = town.clock.now()
    assert await here.claim("ann", "call_request:op", {"to": "bob", "type": "audio"}, now) is None
    await here.answer("ann", "call_request:op", {"data": {"id": "1"}})
    first = await there.claim("ann", "call_request:op", {"type": "audio", "to": "bob"}, now)
    assert first == FirstAnswer({"data": {"id": "1"}})
    no = await refused(there.claim("ann", "call_request:op", {"to": "cid", "type": "audio"}, now))
    assert no.code == "IDEMPOTENCY_MISMATCH"
    assert await there.claim("bob", "call_request:op", {"to": "cid"}, now) is None, "keys are a user's own"


async def test_e10_a_call_cancelled_at_once_no_longer_rings_for_a_push(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    assert await here.calls.still_rings(call.id)
    town.clock.pass_(0.05)
    await ann.end(call)
    assert not await here.calls.still_rings(call.id)
    assert town.pusher.about(call.id) == ["ring", "missed"]
    (line,) = await here.calls.history("bob", status="missed")
    assert line.end_reason is Reason.CANCELLED


async def test_e12_a_phone_that_was_away_for_a_day_finds_one_missed_call_and_does_not_ring(
    town: Town,
) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), Phone(here, "bob", "bob-phone")
    await ann.request(bob)
    await town.pass_(46, here, step=23)
    town.clock.pass_(24 * 3600)
    sync, letters = await greeting(bob, 0)
    assert [x.event for x in letters] == ["CALL_TIMEOUT"]
    assert sync["calls"] == []
    assert len(await here.calls.history("bob", status="missed")) == 1


async def test_e13_a_ring_that_is_over_is_not_replayed_and_one_that_goes_on_is(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), Phone(here, "bob", "bob-phone")
    call = await ann.request(bob)
    await ann.end(call)
    town.clock.pass_(1)
    again = await ann.request(bob)
    town.clock.pass_(5)
    sync, letters = await greeting(bob, 0)
    assert [x.event for x in letters] == ["CALL_ENDED", "CALL_REQUEST"]
    assert letters[1].payload["expiresInMs"] == 40_000
    assert [(x["id"], x["state"]) for x in sync["calls"]] == [(again.id, "ringing"), (call.id, "ended")]
    assert (sync["missed"], sync["gap"]) == (2, False)
    await ann.end(again)
    assert [x.event for x in (await greeting(bob, 0))[1]] == ["CALL_ENDED", "CALL_ENDED"]
    assert (await greeting(bob, None))[1] == []


async def test_e13_a_phone_without_a_number_rings_only_for_what_rings(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), Phone(here, "bob", "bob-phone")
    call = await ann.request(bob)
    town.clock.pass_(5)
    assert [x.event for x in (await greeting(bob, None))[1]] == ["CALL_REQUEST"]
    await ann.end(call)
    assert (await greeting(bob, None))[1] == []


async def test_e14_only_the_callee_rings_and_takes(town: Town) -> None:
    here = town.process("p1")
    ann, bob, cid = (town.phone(here, name) for name in ("ann", "bob", "cid"))
    call = await ann.request(bob)
    assert (await refused(cid.ringing(call))).code == "CALL_UNKNOWN"
    assert (await refused(cid.accept(call))).code == "CALL_UNKNOWN"
    assert (await refused(cid.reject(call))).code == "CALL_UNKNOWN"
    assert (await refused(cid.end(call))).code == "CALL_UNKNOWN"
    assert (await refused(ann.ringing(call))).code == "CALL_WRONG_SIDE"
    assert (await refused(ann.accept(call))).code == "CALL_WRONG_SIDE"
    assert ann.told() == []


async def test_e15_a_caller_who_is_back_in_ten_seconds_still_rings(town: Town) -> None:
    here, there = town.process("p1"), town.process("p2")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    await ann.drop()
    await town.pass_(10, here, there)
    await ann.back(there)
    await town.pass_(20, here, there)
    assert (await town.call(call)).state is State.RINGING
    assert (await bob.accept(call)).state is State.ACTIVE


async def test_e15_a_caller_who_stays_away_ends_the_ring_after_fifteen_seconds(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    await ann.drop()
    lost_at = town.clock.now()
    await town.pass_(20, here)
    over = await town.call(call)
    assert over.end_reason is Reason.CALLER_LOST
    assert over.ended_at == lost_at.__class__.fromtimestamp(lost_at.timestamp() + 15, tz=lost_at.tzinfo)
    assert bob.told() == ["CALL_REQUEST", "CALL_ENDED"]
    assert town.pusher.about(call.id) == ["ring", "missed"]
    await town.audit()


async def test_e15_an_accept_while_the_caller_is_gone_is_no_conversation_until_she_is_back(
    town: Town,
) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    await ann.drop()
    town.clock.pass_(5)
    assert (await bob.accept(call)).state is State.ACCEPTED
    await town.pass_(4, here)
    await ann.back()
    assert (await town.call(call)).state is State.ACTIVE
    assert (await town.call(call)).active_at == town.clock.now()


async def test_e16_a_block_stops_the_ring_and_looks_like_no_answer(town: Town) -> None:
    here = town.process("p1")
    ann, phone, tablet = (
        town.phone(here, "ann"),
        town.phone(here, "bob", "phone"),
        town.phone(here, "bob", "tablet"),
    )
    call = await ann.request(phone)
    await here.users.block("bob", "ann")
    assert phone.told() == tablet.told() == ["CALL_REQUEST", "CALL_TIMEOUT"]
    assert ann.letters("CALL_TIMEOUT")[0]["reason"] == "no_answer"
    assert ann.letters("CALL_TIMEOUT")[0]["call"]["endedBy"] is None
    assert (await town.call(call)).end_reason is Reason.NO_ANSWER
    assert (await refused(ann.request(phone))).code == "USER_UNAVAILABLE"
    assert (await refused(phone.request(ann))).code == "USER_BLOCKED"
    await town.audit()


async def test_e17_who_calls_somebody_in_a_call_hears_busy_and_the_call_goes_on(town: Town) -> None:
    here = town.process("p1")
    ann, bob, cid = (town.phone(here, name) for name in ("ann", "bob", "cid"))
    call = await ann.request(bob)
    await bob.accept(call)
    version = (await town.call(call)).version
    no = await refused(cid.request(bob))
    assert no.code == "CALL_BUSY"
    assert (await refused(bob.request(cid))).code == "CALL_IN_PROGRESS"
    assert (await town.call(call)).version == version
    (line,) = await here.calls.history("bob", status="missed")
    assert (line.id, line.end_reason) == (no.details["callId"], Reason.BUSY)
    await ann.end(call)
    assert (await cid.request(bob)).state is State.RINGING


async def test_e17_a_busy_phone_refuses_with_its_own_reason(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    await bob.reject(call, reason=Reason.BUSY)
    assert ann.told() == ["CALL_BUSY"]
    assert (await town.call(call)).end_reason is Reason.BUSY


async def test_e18_a_device_that_signs_out_stops_and_the_others_ring_on(town: Town) -> None:
    here = town.process("p1")
    ann, phone, tablet = (
        town.phone(here, "ann"),
        town.phone(here, "bob", "phone"),
        town.phone(here, "bob", "tablet"),
    )
    call = await ann.request(phone)
    await phone.drop()
    assert (await town.call(call)).state is State.RINGING
    assert (await tablet.accept(call)).state is State.ACTIVE
    assert phone.told() == []


async def test_the_second_request_of_the_same_two_replaces_the_ring(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    first = await ann.request(bob)
    second = await ann.request(bob)
    assert (await town.call(first)).end_reason is Reason.CANCELLED
    assert (await town.call(second)).state is State.RINGING
    assert bob.told() == ["CALL_REQUEST", "CALL_ENDED", "CALL_REQUEST"]
    await town.audit()


async def test_a_deleted_person_is_nobody_and_their_name_is_gone_from_the_history(town: Town) -> None:
    here = town.process("p1")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    await here.calls.end_all("bob")
    assert (await town.call(call)).end_reason is Reason.NO_ANSWER
    await here.calls.forget("bob")
    (line,) = await here.calls.history("ann")
    assert (line.callee.username, line.callee.display_name, line.callee.avatar_url) == (
        "deleted",
        "deleted",
        None,
    )
    assert line.caller.display_name == "Ann"


async def test_the_history_has_every_call_once_from_both_sides_page_by_page(town: Town) -> None:
    here = town.process("p1")
    ann, bob, cid = (town.phone(here, name) for name in ("ann", "bob", "cid"))
    made = []
    for caller, callee in ((ann, bob), (bob, ann), (ann, cid), (cid, ann)):
        call = await caller.request(callee)
        town.clock.pass_(1)
        await caller.end(call)
        made.append(call.id)
    newest = await here.calls.history("ann", limit=2)
    assert [call.id for call in newest] == [made[3], made[2], made[1]], (
        "one more than the limit tells of a next page"
    )
    last = newest[1]
    rest = await here.calls.history("ann", before=(last.created_at, last.id))
    assert [call.id for call in rest] == [made[1], made[0]]
    assert [x.id for x in await here.calls.history("ann", direction="outgoing")] == [made[2], made[0]]
    assert [x.id for x in await here.calls.history("ann", direction="incoming")] == [made[3], made[1]]
    assert [x.id for x in await here.calls.history("ann", other_id="cid")] == [made[3], made[2]]
    assert [x.id for x in await here.calls.history("ann", status="missed")] == [made[3], made[1]]
    assert await here.calls.history("bob", status="live") == []


async def test_verbs_at_once_on_one_process_take_turns(town: Town) -> None:
    here = town.process("p1")
    ann, phone, tablet = (
        town.phone(here, "ann"),
        town.phone(here, "bob", "phone"),
        town.phone(here, "bob", "tablet"),
    )
    call = await ann.request(phone)
    verbs = [phone.accept(call), tablet.accept(call), phone.reject(call), ann.end(call), ann.end(call)]
    await asyncio.gather(*verbs, return_exceptions=True)
    over = await town.call(call)
    assert over.state is State.ENDED
    assert ann.told().count("CALL_ENDED") == 1
    await town.audit()
