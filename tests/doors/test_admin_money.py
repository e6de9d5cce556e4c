"""The administrators' pages about money: a refund from a call's page, withdrawals that wait, each act in the trail."""

from __future__ import annotations

import re

import pytest

from models.payouts.payout import Payout, Stage
from tests.doors.adminweb import keeper
from tests.doors.conftest import House, Person
from tests.services.deskkit import held

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = {"CALL_RATE_MINOR": "1000", "WITHDRAWAL_APPROVAL_MINOR": "5000"}
WHY = "The line was bad"


async def ended_call(house: House) -> tuple[Person, Person, str]:
    """A call of half a minute that cost 10.00, and its two people."""
    ada, bob = await house.person("ada"), await house.person("bob")
    for one in (ada, bob):
        await house.services.wallets.create(one.id, "7391", "NGN")
    await ada.pay_in(50_000)
    answer = await ada.post("/api/calls/initiate", {"to": bob.id, "type": "audio"})
    call_id = answer.body["call"]["id"]
    assert (await bob.post("/api/calls/accept", {"callId": call_id})).status == 200
    for one in (ada, bob):
        await one.post("/api/calls/connected", {"callId": call_id})
    await house.pass_(30)
    assert (await bob.post("/api/calls/end", {"callId": call_id})).status == 200
    call = await house.services.desk.calls.one(call_id)
    assert call.cost_minor == 1_000
    return ada, bob, call_id


async def acts_on(house: House, target: str) -> list[str]:
    """What the trail says of something, newest first."""
    return [row.act for row in (await house.services.trail.search(target=target)).rows]


async def available(person: Person) -> int:
    return int((await person.get("/api/wallet")).body["wallet"]["availableMinor"])


async def waiting(house: House, person: Person, minor: int = 8_000) -> Payout:
    """A withdrawal that waits for approval, with the entry that holds its money."""
    return await held(house.services, person.id, minor=minor)


# ----------------------------------------------------------------------------------------------------------- refunds


async def test_money_of_a_call_goes_back_in_parts_and_both_and_the_trail_know(rest: House) -> None:
    ada, bob, call_id = await ended_call(rest)
    _, web = await keeper(rest)
    page = f"/admin/calls/{call_id}/refund"
    before = await available(ada)
    shown = await web.get(page)
    assert "Left to give back NGN 10.00" in shown.words.replace("\xa0", " ")
    assert re.search(r'<details[^>]* id="act-refund"[^>]* open>', shown.text), (
        "who came for it need not open it"
    )
    assert re.search(r">\d{1,2} [A-Z][a-z]{2} \d{4}, \d\d:\d\d</time>", shown.text), "as on all pages"
    key = shown.hidden()["key"]
    shown = await web.post(page, amount="4", note="Sorry", reason=WHY, key=key, code=web.code())
    assert (shown.status, "4.00" in shown.said) == (200, True), shown.text
    assert await available(ada) == before + 400
    [line, *_] = (await ada.get("/api/wallet/transactions")).body["items"]
    assert (line["kind"], line["amountMinor"], line["note"]) == ("refund", 400, "Sorry")
    receipt = (await ada.get(f"/api/calls/{call_id}")).body["call"]["receipt"]
    assert (receipt["totalMinor"], receipt["refundedMinor"]) == (600, 400)
    assert (await bob.get(f"/api/calls/{call_id}")).body["call"]["receipt"]["refundedMinor"] == 400
    # The same form again, as a browser sends it that was not sure: nothing more goes back.
    await rest.pass_(31)
    shown = await web.post(page, amount="4", note="Sorry", reason=WHY, key=key, code=web.code())
    assert "already" in shown.said
    await rest.pass_(31)
    key = (await web.get(page)).hidden()["key"]
    shown = await web.post(page, amount="", reason=WHY, key=key, code=web.code())
    assert await available(ada) == before + 1_000
    assert "Nothing of what it cost is left" in shown.words
    assert "Nothing is left to give back" in (await web.get(page)).words
    assert await acts_on(rest, call_id) == ["call.refund", "call.refund"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"amount": "10.01"}, "more than is left"),
        ({"amount": "ten"}, "Not an amount"),
        ({"amount": "0"}, "More than nothing"),
        ({"amount": "-1"}, ""),
        ({"amount": "1.001"}, "Not an amount"),
        ({"reason": " "}, "Say why"),
        ({"code": "000000"}, "code"),
        ({"code": ""}, "code"),
    ],
)
async def test_a_refund_that_cannot_be_moves_nothing_and_keeps_what_was_typed(
    rest: House, form: dict[str, str], said: str
) -> None:
    ada, _, call_id = await ended_call(rest)
    _, web = await keeper(rest)
    before = await available(ada)
    page = f"/admin/calls/{call_id}/refund"
    key = (await web.get(page)).hidden()["key"]
    sent = {"amount": "1", "reason": WHY, "key": key, "code": web.code(), **form}
    shown = await web.post(page, **sent)
    assert shown.status in (400, 401, 403, 409)
    assert said in shown.problem
    assert sent["amount"] in shown.text
    assert shown.hidden()["key"] == key
    assert await available(ada) == before
    assert await acts_on(rest, call_id) == []


# ------------------------------------------------------------------------------------------------------- withdrawals


async def saver(house: House) -> Person:
    ada = await house.person("ada")
    await house.services.wallets.create(ada.id, "7391", "NGN")
    await ada.pay_in(20_000)
    return ada


async def test_a_withdrawal_that_waits_is_approved_with_a_fresh_code(rest: House) -> None:
    ada = await saver(rest)
    payout = await waiting(rest, ada)
    _, web = await keeper(rest)
    shown = await web.get("/admin/payouts")
    assert re.search(r'data-test="waiting".*?80\.00', shown.text, re.DOTALL)
    shown = await web.get(f"/admin/payouts/{payout.id}")
    assert 'data-test="do-approve"' in shown.text
    assert 'data-test="do-submit"' not in shown.text
    there = f"/admin/payouts/{payout.id}/approve"
    refused = await web.post(there, reason=WHY, code="000000")
    assert (refused.status, bool(refused.problem)) == (403, True)
    assert (await rest.services.desk.payouts.find(payout.id)).stage is Stage.APPROVAL
    shown = await web.post(there, reason=WHY, code=web.code())
    assert "approved" in shown.said
    assert (await rest.services.desk.payouts.find(payout.id)).stage is not Stage.APPROVAL
    await rest.pass_(31)
    again = await web.post(there, reason=WHY, code=web.code())
    assert (again.status, "state" in again.problem) == (409, True)
    assert await acts_on(rest, payout.id) == ["payout.approve"]


async def test_a_withdrawal_that_is_rejected_is_in_the_wallet_again(rest: House) -> None:
    ada = await saver(rest)
    before = await available(ada)
    payout = await waiting(rest, ada)
    assert await available(ada) == before - 8_000
    _, web = await keeper(rest)
    await web.get(f"/admin/payouts/{payout.id}")
    shown = await web.post(f"/admin/payouts/{payout.id}/reject", reason=WHY)
    assert "rejected" in shown.said
    assert await available(ada) == before
    told = (await ada.get(f"/api/wallet/payouts/{payout.id}")).body["payout"]
    assert (told["status"], told["reason"]) == ("failed", "rejected")
    assert await acts_on(rest, payout.id) == ["payout.reject"]


async def test_nobody_decides_on_their_own_withdrawal(rest: House) -> None:
    warden, web = await keeper(rest)
    await rest.services.wallets.create(warden.id, "7391", "NGN")
    await warden.pay_in(20_000)
    payout = await waiting(rest, warden)
    shown = await web.get(f"/admin/payouts/{payout.id}")
    assert "somebody else decides" in shown.words
    shown = await web.post(f"/admin/payouts/{payout.id}/reject", reason=WHY)
    assert (shown.status, await acts_on(rest, payout.id)) == (400, [])


async def test_what_there_is_not_cannot_be_decided(rest: House) -> None:
    _, web = await keeper(rest)
    assert (await web.get("/admin/payouts/nothing")).status == 404
    assert (await web.post("/admin/payouts/nothing/approve", reason=WHY)).status == 404
    assert (await web.get("/admin/calls/nothing/refund")).status == 404
    ada = await saver(rest)
    payout = await waiting(rest, ada)
    assert (await web.post(f"/admin/payouts/{payout.id}/pay-me", reason=WHY)).status == 404


# -------------------------------------------------------------------------------------------------- charts and health


async def test_charts_draw_what_was_earned_and_say_it_in_a_table(rest: House) -> None:
    await ended_call(rest)
    _, web = await keeper(rest)
    for span in ("7", "30", "90", "nonsense"):
        shown = await web.get(f"/admin/charts?days={span}")
        assert shown.status == 200
        assert shown.text.count('data-test="chart"') >= 6
    shown = await web.get("/admin/charts?days=7")
    assert re.search(r'data-test="earned-NGN">NGN.[1-9]', shown.text)
    assert shown.text.count('<rect class="bar') == 6 * 7
    assert "style=" not in shown.text


async def test_health_shows_processes_queues_and_the_books(rest: House) -> None:
    ada = await saver(rest)
    await waiting(rest, ada)
    await rest.services.desk.figures.keep_audit(clean=True, broken=0)
    _, web = await keeper(rest)
    await rest.services.calls.beat()
    shown = await web.get("/admin/health")
    assert (shown.status, "clean" in shown.words, "sandbox" in shown.words) == (200, True, True)
    assert int(re.findall(r'data-test="processes">(\d+)<', shown.text)[0]) >= 1
    row = re.search(r'data-test="queue-payouts_approval".*?</tr>', shown.text, re.DOTALL)
    assert row is not None
    assert "waits for you" in row[0]
    part = await web.send("GET", "/admin/health/now", HX_Request="true")
    assert (part.status, "<!doctype" in part.text) == (200, False)
