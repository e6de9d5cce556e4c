"""E21 to E28 of the calls' edge cases: descriptions and candidates; clients without a socket; quality; upgrades."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.calls.call import Call, Reason, State
from models.calls.signals.store import SIGNALS
from models.calls.switchboard import HELD_MAX
from models.db import Database
from models.errors import Refusal
from server.lanes import Lanes
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Process, Town, answer, candidate, greeting, offer


@pytest.fixture
async def town(db: Database, clock: VirtualClock, ids: CountingIds) -> Town:
    built = Town(db, clock, ids)
    await built.people("ann", "bob", "cid")
    return built


@pytest.fixture
def here(town: Town) -> Process:
    return town.process("p1")


async def refused(verb: Any) -> Refusal:
    with pytest.raises(Refusal) as no:
        await verb
    return no.value


async def talking(ann: Phone, bob: Phone, **more: Any) -> Call:
    call = await ann.request(bob, offer=offer("a1"), **more)
    return await bob.accept(call, answer=answer("b1"))


# ---------------------------------------------------------------------------------------------------- candidates


async def test_e21_candidates_before_the_accept_wait_and_come_in_order(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob, offer=offer("a1"))
    await ann.send(call, candidate(1, "a1"), candidate(2, "a1"))
    await bob.send(call, candidate(3, "b1"))
    assert bob.candidates() == ann.candidates() == []
    await bob.accept(call, answer=answer("b1"))
    await ann.send(call, None)
    assert bob.candidates() == [candidate(1, "a1"), candidate(2, "a1"), None]
    assert ann.candidates() == [candidate(3, "b1")]


async def test_e21_candidates_before_the_offer_wait_for_it(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    await bob.accept(call)
    await ann.send(call, candidate(1, "a1"))
    assert bob.candidates() == []
    await ann.describe(call, offer("a1"))
    assert bob.told()[-2:] == ["SESSION_DESCRIPTION", "ICE_CANDIDATE"]
    await bob.send(call, candidate(2, "b1"))
    assert ann.candidates() == [], "she has no description that they belong to"
    await bob.describe(call, answer("b1"))
    assert ann.told()[-2:] == ["SESSION_DESCRIPTION", "ICE_CANDIDATE"]


async def test_e21_candidates_of_the_device_that_did_not_take_the_call_go_nowhere(
    town: Town, here: Process
) -> None:
    ann = town.phone(here, "ann")
    phone, tablet = town.phone(here, "bob", "phone"), town.phone(here, "bob", "tablet")
    call = await ann.request(phone, offer=offer("a1"))
    await phone.send(call, candidate(1))
    await tablet.send(call, candidate(2))
    await tablet.accept(call, answer=answer("b1"))
    assert ann.candidates() == [candidate(2)]
    assert (await refused(phone.send(call, candidate(3)))).code == "CALL_ANSWERED_ELSEWHERE"


async def test_e21_candidates_of_an_older_negotiation_are_dropped_without_a_word(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await ann.describe(call, offer("a2"))
    await bob.describe(call, answer("b2"))
    await ann.send(call, candidate(1, "a1"), candidate(2, "a2"), candidate(3))
    assert bob.candidates() == [candidate(2, "a2"), candidate(3)]
    await ann.send(call, candidate(4, "a3"))
    assert bob.candidates()[2:] == [], "of a negotiation to come"
    await ann.describe(call, offer("a3"))
    assert bob.candidates()[2:] == [candidate(4, "a3")]


async def test_e21_candidates_after_the_hang_up_are_refused_with_how_it_ended(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await bob.end(call)
    no = await refused(ann.send(call, candidate(1)))
    assert (no.code, no.details["endReason"]) == ("CALL_ENDED", "completed")


async def test_e21_ten_thousand_candidates_are_capped_and_the_same_one_is_held_once(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob, offer=offer("a1"))
    for _ in range(1000):
        await ann.send(call, candidate(0))
    held = refusals = 0
    for n in range(10_000):
        try:
            await ann.send(call, candidate(n))
            held += 1
        except Refusal as no:
            assert no.code == "TOO_MANY_CANDIDATES"  # noqa: PT017 - ten thousand times
            assert no.retry_after_ms  # noqa: PT017
            refusals += 1
    assert (held, refusals) == (HELD_MAX, 10_000 - HELD_MAX)
    await bob.accept(call, answer=answer("b1"))
    assert bob.candidates() == [candidate(n) for n in range(HELD_MAX)]


async def test_e21_candidates_wait_while_the_others_socket_is_away(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await bob.drop()
    await ann.send(call, candidate(1, "a1"))
    await bob.back()
    assert bob.candidates() == []
    await bob.resume(call)
    assert bob.candidates() == [candidate(1, "a1")]


async def test_e21_what_was_read_before_the_end_does_not_bring_an_ended_call_back(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await ann.end(call)
    here.calls.board.update(call)
    assert here.presence.state_of("ann") == "online"
    assert len(here.calls.board) == 0


# -------------------------------------------------------------------------------------------------- descriptions


async def test_e22_nobody_else_speaks_in_a_call(town: Town, here: Process) -> None:
    ann, bob, cid = (town.phone(here, name) for name in ("ann", "bob", "cid"))
    tablet = town.phone(here, "bob", "tablet")
    call = await ann.request(bob, offer=offer("a1"))
    await bob.accept(call, answer=answer("b1"))
    await ann.describe(call, offer("a2"))
    assert (await refused(tablet.describe(call, answer("t")))).code == "CALL_ANSWERED_ELSEWHERE"
    assert (await refused(tablet.connected(call))).code == "CALL_ANSWERED_ELSEWHERE"
    assert (await refused(cid.describe(call, offer("c")))).code == "CALL_UNKNOWN"
    assert (await refused(cid.send(call, candidate(1)))).code == "CALL_UNKNOWN"
    assert (await refused(cid.resume(call))).code == "CALL_UNKNOWN"
    assert (await refused(cid.end(call))).code == "CALL_UNKNOWN"
    assert (await refused(here.calls.get("cid", call.id))).code == "CALL_UNKNOWN"
    assert (await refused(here.calls.signals("cid", call.id, after=0))).code == "CALL_UNKNOWN"
    assert [x["description"] for x in ann.letters("SESSION_DESCRIPTION")] == []
    assert [x["description"] for x in bob.letters("SESSION_DESCRIPTION")] == [offer("a2")]


async def test_e23_a_description_is_checked_before_it_goes_anywhere(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    head = "v=0\r\n"
    just = {"type": "offer", "sdp": head + "a" * (64 * 1024 - len(head))}
    await ann.describe(call, just)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"type": "offer", "sdp": just["sdp"] + "a"}, "SDP_TOO_LARGE"),
        ({"type": "offer", "sdp": head + "é" * 40_000}, "SDP_TOO_LARGE"),
        ({"type": "offer", "sdp": 7}, "SDP_INVALID"),
        ({"type": "offer", "sdp": head + "\x00"}, "SDP_INVALID"),
        ({"type": "offer", "sdp": head + "\ud800"}, "SDP_INVALID"),
        ({"type": "offer", "sdp": "x"}, "SDP_INVALID"),
        ({"type": "pranswer", "sdp": head}, "SDP_INVALID"),
        ({"type": "offer", "sdp": head + "m=audio 9 x\r\n" * 1000}, "SDP_INVALID"),
        ({"type": "offer"}, "SDP_INVALID"),
    ]
    for body, code in wrong:
        assert (await refused(ann.describe(call, body))).code == code
    assert len(bob.letters("SESSION_DESCRIPTION")) == 1
    assert (await refused(ann.request(bob, offer=answer()))).code == "SDP_INVALID"


async def test_e24_both_renegotiate_at_once_and_one_offer_survives(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    results = await asyncio.gather(
        ann.describe(call, offer("a2")), bob.describe(call, offer("b2")), return_exceptions=True
    )
    assert [getattr(r, "code", "ok") for r in results] == ["ok", "CALL_GLARE"]
    now = await town.call(call)
    assert (now.negotiation.number, now.negotiation.offer) == (2, offer("a2"))
    await bob.describe(call, answer("b2"))
    results = await asyncio.gather(
        bob.describe(call, offer("b3")), ann.describe(call, offer("a3")), return_exceptions=True
    )
    assert not [r for r in results if isinstance(r, BaseException)], (
        "the impolite one's offer takes the place"
    )
    assert (await town.call(call)).negotiation.offer == offer("a3")
    no = await refused(bob.describe(call, offer("b4")))
    assert (no.code, no.retry_after_ms is not None) == ("CALL_GLARE", True)


async def test_e25_an_offer_or_answer_that_was_lost_comes_with_the_resending(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await bob.drop()
    await ann.describe(call, offer("a2"))  # nobody was there to hear it
    await bob.back()
    await bob.resume(call)
    assert [x["description"] for x in bob.letters("SESSION_DESCRIPTION")] == [offer("a2")]
    await ann.describe(call, offer("a2"))  # resent by its sender
    assert [x["description"] for x in bob.letters("SESSION_DESCRIPTION")] == [offer("a2")] * 2
    assert (await town.call(call)).negotiation.number == 2
    await ann.drop()
    await bob.describe(call, answer("b2"))  # the answer is lost
    await ann.back()
    await ann.resume(call)
    await ann.describe(call, offer("a2"))
    assert [x["description"] for x in ann.letters("SESSION_DESCRIPTION")] == [answer("b2")]


async def test_e26_video_in_an_audio_call_is_refused_until_it_was_asked_for_and_granted(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    video = offer("a2", video=True)
    assert (await refused(ann.describe(call, video))).code == "CALL_UPGRADE_REQUIRED"
    assert (await refused(ann.request(bob, offer=video))).code == "CALL_UPGRADE_REQUIRED"
    await here.calls.ask_upgrade(ann.device, call.id, type="video")
    assert bob.letters("CALL_UPGRADE")[0]["price"]["ratePerMinuteMinor"] == 0
    assert (await refused(ann.describe(call, video))).code == "CALL_UPGRADE_REQUIRED"
    await here.calls.answer_upgrade(bob.device, call.id, accept=False)
    assert ann.told()[-2:] == ["CALL_UPGRADE_REJECT", "CALL_UPDATED"]
    assert (await refused(ann.describe(call, video))).code == "CALL_UPGRADE_REQUIRED"
    await here.calls.ask_upgrade(ann.device, call.id, type="video")
    await here.calls.answer_upgrade(bob.device, call.id, accept=True)
    assert "CALL_UPGRADE_ACCEPT" in ann.told()
    assert (await ann.describe(call, video)).type == "video"
    assert [x["description"] for x in bob.letters("SESSION_DESCRIPTION")] == [video]


async def test_who_asks_for_video_cannot_grant_it_and_both_asking_have_consented(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await here.calls.ask_upgrade(ann.device, call.id, type="video")
    await here.calls.ask_upgrade(ann.device, call.id, type="video")
    assert bob.told().count("CALL_UPGRADE") == 1
    assert (
        await refused(here.calls.answer_upgrade(ann.device, call.id, accept=True))
    ).code == "CALL_WRONG_SIDE"
    both = await here.calls.ask_upgrade(bob.device, call.id, type="video")
    assert (both.type, both.upgrade) == ("video", None)
    assert (await here.calls.answer_upgrade(bob.device, call.id, accept=True)).version == both.version


async def test_e28_what_one_client_sends_back_to_back_is_done_in_order(town: Town, here: Process) -> None:
    """Offer, twenty candidates and the hang-up at once, in a lane as the funnel has it: first come, first served."""
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    lanes, order = Lanes(), []

    async def in_lane(name: str, verb: Any) -> None:
        async with lanes.turn(call.id):
            await verb
            order.append(name)

    await asyncio.gather(
        in_lane("offer", ann.describe(call, offer("a2"))),
        *(in_lane(f"ice {n}", ann.send(call, candidate(n, "a2"))) for n in range(20)),
        in_lane("end", ann.end(call)),
    )
    assert order == ["offer", *(f"ice {n}" for n in range(20)), "end"]
    assert bob.told()[1:] == ["SESSION_DESCRIPTION", *["ICE_CANDIDATE"] * 20, "CALL_ENDED"]
    assert bob.candidates() == [candidate(n, "a2") for n in range(20)]


async def test_a_late_offer_reaches_the_device_that_takes_the_call(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    await ann.describe(call, offer("a1"))
    assert bob.told() == ["CALL_REQUEST"]
    await bob.accept(call)
    assert [x["description"] for x in bob.letters("SESSION_DESCRIPTION")] == [offer("a1")]


async def test_descriptions_are_forgotten_with_the_call(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob", rest=True)
    call = await talking(ann, bob)
    await ann.send(call, candidate(1, "a1"))
    await ann.end(call)
    over = await town.call(call)
    assert (over.negotiation.offer, over.negotiation.answer) == (None, None)
    assert await town.db[SIGNALS].count_documents({}) == 0


# ------------------------------------------------------------------------------------- clients without a socket


async def test_a_client_without_a_socket_calls_and_polls_what_comes_for_it(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann", rest=True), town.phone(here, "bob")
    call = await ann.request(bob, offer=offer("a1"))
    assert await here.calls.signals("ann", call.id, after=0) == []
    await bob.accept(call, answer=answer("b1"))
    await bob.send(call, candidate(1, "b1"), candidate(2, "b1"))
    await bob.describe(call, offer("b2"))
    found = await here.calls.signals("ann", call.id, after=0)
    assert [(x.number, x.kind, x.body) for x in found] == [
        (1, "description", answer("b1")),
        (2, "candidate", candidate(1, "b1")),
        (3, "candidate", candidate(2, "b1")),
        (4, "description", offer("b2")),
    ]
    assert {x.sender for x in found} == {"bob"}
    assert [x.number for x in await here.calls.signals("ann", call.id, after=3)] == [4]
    assert ann.told() == [], "it has no socket"


async def test_a_callee_without_a_socket_misses_none_of_the_signals(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob", rest=True)
    call = await ann.request(bob, offer=offer("a1"))
    await ann.send(call, candidate(1, "a1"))
    first = await here.calls.signals("bob", call.id, after=0)
    assert [(x.number, x.body) for x in first] == [(1, offer("a1"))]
    await bob.accept(call, answer=answer("b1"))
    await ann.send(call, candidate(2, "a1"))
    more = await here.calls.signals("bob", call.id, after=first[-1].number)
    assert [(x.number, x.body) for x in more] == [(2, candidate(1, "a1")), (3, candidate(2, "a1"))]


async def test_a_callee_without_a_socket_may_accept_before_it_polls(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob", rest=True)
    call = await ann.request(bob, offer=offer("a1"))
    await bob.accept(call)
    await ann.send(call, candidate(1, "a1"))
    found = await here.calls.signals("bob", call.id, after=0)
    assert [x.kind for x in found] == ["description", "candidate"]
    await bob.describe(call, answer("b1"))
    assert [x["description"] for x in ann.letters("SESSION_DESCRIPTION")] == [answer("b1")]


async def test_a_leg_without_a_socket_needs_no_lease(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann", rest=True), town.phone(here, "bob", rest=True)
    call = await ann.request(bob)
    await bob.accept(call)
    await town.pass_(120, here, step=20)
    assert (await town.call(call)).state is State.ACTIVE
    assert (await bob.end(call)).end_reason is Reason.COMPLETED


async def test_signals_from_two_processes_at_once_are_numbered_without_a_gap(
    town: Town, here: Process
) -> None:
    there = town.process("p2")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob", rest=True)
    call = await talking(ann, bob)
    twin = Phone(there, "ann", ann.device_id)
    sends = [(ann if n % 2 else twin).send(call, candidate(n, "a1")) for n in range(30)]
    await asyncio.gather(*sends)
    found = await here.calls.signals("bob", call.id, after=1)
    assert [x.number for x in found] == list(range(2, 32))
    assert sorted(x.body["candidate"] for x in found) == sorted(candidate(n)["candidate"] for n in range(30))


async def test_quality_is_kept_for_each_side_and_told_to_nobody(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await ann.hears(call, 800)
    await bob.hears(call, 700)
    now = await ann.hears(call, 850)
    assert now.quality == {"caller": {"inbound": 850}, "callee": {"inbound": 700}}
    await ann.end(call)
    assert (await town.call(call)).quality == now.quality
    assert ann.told() == ["CALL_ACCEPT", "CALL_ENDED"]


async def test_without_a_bus_signals_reach_a_phone_at_another_process_by_the_log(town: Town) -> None:
    one, two = town.process("p1"), town.process("p2")
    ann, bob = town.phone(one, "ann"), town.phone(two, "bob")
    await town.pass_(2, one, two)
    call = await ann.request(bob, offer=offer("aaaa"))
    await bob.accept(call, answer=answer("bbbb"))
    await one.hear()
    await ann.send(call, candidate(1, "aaaa"), candidate(2, "aaaa"))
    await ann.send(call, candidate(2, "aaaa"))
    await ann.describe(call, offer("cccc"))
    await two.hear()
    assert bob.candidates() == [candidate(1, "aaaa"), candidate(2, "aaaa")]
    assert [told["description"] for told in bob.letters("SESSION_DESCRIPTION")] == [offer("cccc")]
    _, missed = await greeting(bob, 0)
    assert not {"ICE_CANDIDATE", "SESSION_DESCRIPTION"} & {letter.event for letter in missed}, "it resumes"
