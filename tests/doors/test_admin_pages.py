"""The administrators' pages: people, calls, reports and the trail, by a browser without JavaScript."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from models.trail.rules import ACTS, Act, Actor, Target
from models.trail.store import TRAIL
from tests.doors.adminweb import Web, administrator, keeper
from tests.doors.conftest import PASSWORD, House, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = {"CALL_RATE_MINOR": "1000"}
WHY = "Threats in three calls"


async def acts_on(house: House, target: str) -> list[tuple[str, str]]:
    """What the trail says of somebody or something, newest first: acts and reasons."""
    page = await house.services.trail.search(target=target)
    return [(row.act, row.reason) for row in page.rows]


async def ringing(house: House) -> tuple[Person, Person, str]:
    """Two people, and a call that rings and would cost."""
    ada, bob = await house.person("ada"), await house.person("bob")
    for one in (ada, bob):
        await house.services.wallets.create(one.id, "7391", "NGN")
    await ada.pay_in(50_000)
    answer = await ada.post("/api/calls/initiate", {"to": bob.id, "type": "audio"})
    assert answer.status == 201, answer.body
    return ada, bob, answer.body["call"]["id"]


async def talking(house: House) -> tuple[Person, Person, str]:
    """The same, when both talk."""
    ada, bob, call_id = await ringing(house)
    assert (await bob.post("/api/calls/accept", {"callId": call_id})).status == 200
    call = await house.services.desk.calls.one(call_id)
    if call.state.value == "accepted":  # without sockets the media's own word begins it
        for one in (ada, bob):
            await one.post("/api/calls/connected", {"callId": call_id})
    return ada, bob, call_id


async def rows_of(web: Web, path: str, kind: str) -> list[str]:
    """The texts of the rows of a table."""
    text = (await web.get(path)).text
    found = re.findall(rf'<tr role="row"[^>]*data-test="{kind}".*?</tr>', text, re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row)) for row in found]


# ------------------------------------------------------------------------------------------------------------ people


async def test_people_are_found_by_all_that_they_go_by(rest: House) -> None:
    _, web = await keeper(rest)
    eve = await rest.person("evergreen", displayName="Eve Ever", phone="+2348012345678")
    for text in ("evergreen", "EVE EV", f"{eve.username}@example.org", "%2B2348012345678", eve.id):
        (row,) = await rows_of(web, f"/admin/people?text={text}", "person")
        assert "Eve Ever" in row
    assert await rows_of(web, "/admin/people?text=nobody-at-all", "person") == []
    for text in ("%00", "%7B%22%24gt%22%3A%22%22%7D", "*", "(", "%F0%9F%98%80", "%ff"):
        assert (await web.get(f"/admin/people?text={text}")).status == 200


async def test_people_are_narrowed_by_state_and_role_and_come_in_pages(rest: House) -> None:
    warden, web = await keeper(rest)
    admins = await rows_of(web, "/admin/people?role=admin", "person")
    assert any(warden.username in row for row in admins)
    assert all("administrator" in row for row in admins)
    assert await rows_of(web, "/admin/people?status=banned&text=" + warden.username, "person") == []
    for number in range(51):
        await rest.db["users"].insert_one(
            {
                "_id": f"0195{number:04x}",
                "username": f"crowd{number}",
                "username_key": f"crowd{number}",
                "display_name": f"Crowd {number}",
                "display_key": f"crowd {number}",
                "email": f"c{number}@x.y",
                "email_key": f"c{number}@x.y",
                "password_hash": "x",
                "currency": "NGN",
                "role": "user",
                "status": "active",
                "created_at": rest.clock.now(),
                "updated_at": rest.clock.now(),
            }
        )
    first = await web.get("/admin/people?text=crowd")
    older = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert older is not None
    rest_of = await rows_of(web, older[1].replace("&amp;", "&"), "person")
    assert len(rest_of) == 1


@pytest.mark.parametrize("act", ["ban", "end-sessions", "freeze"])
async def test_an_act_is_done_with_its_reason_and_stands_in_the_trail(rest: House, act: str) -> None:
    warden, web = await keeper(rest)
    eve = await rest.person("eve")
    await rest.services.wallets.create(eve.id, "7391", "NGN")
    page = f"/admin/people/{eve.id}"
    await web.get(page)
    shown = await web.post(f"{page}/{act}", reason=WHY)
    assert shown.said
    name = {"ban": "user.ban", "end-sessions": "user.end_sessions", "freeze": "wallet.freeze"}[act]
    assert await acts_on(rest, eve.id) == [(name, WHY)]
    row = (await rest.services.trail.search(target=eve.id)).rows[0]
    assert (row.actor.kind, row.actor.user_id, row.actor.name) == ("admin", warden.id, warden.username)
    assert row.actor.address == "127.0.0.1"
    assert WHY in (await web.get(page)).text
    if act == "ban":
        (await eve.get("/api/auth/profile")).error(403, "ACCOUNT_BANNED")
        shown = await web.post(f"{page}/unban", reason="They have said sorry")
        assert (await eve.get("/api/auth/profile")).status == 200
    elif act == "end-sessions":
        (await eve.get("/api/auth/profile")).error(401, "TOKEN_INVALID")
    else:
        assert (await rest.services.desk.money.wallets(eve.id))[0].frozen
        await web.post(f"{page}/unfreeze", reason="It was cleared up", currency="NGN")
        assert not (await rest.services.desk.money.wallets(eve.id))[0].frozen


@pytest.mark.parametrize("reason", ["", "   ", "\u200b\u202e", "\r\n"])
async def test_no_act_is_without_a_reason(rest: House, reason: str) -> None:
    _, web = await keeper(rest)
    eve = await rest.person("eve")
    await web.get(f"/admin/people/{eve.id}")
    for act in ("ban", "freeze", "end-sessions"):
        shown = await web.post(f"/admin/people/{eve.id}/{act}", reason=reason)
        assert (shown.status, "Say why" in shown.problem) == (400, True)
    assert await acts_on(rest, eve.id) == []


async def test_what_gives_power_asks_for_a_code_that_was_not_used(rest: House) -> None:
    _, web = await keeper(rest)
    eve = await rest.person("eve")
    path = f"/admin/people/{eve.id}/promote"
    await web.get(f"/admin/people/{eve.id}")
    code = web.code()
    assert (await web.post(path, reason=WHY)).status == 401
    assert (await web.post(path, reason=WHY, code="000000")).status == 403
    assert await acts_on(rest, eve.id) == []
    assert (await web.post(path, reason=WHY, code=code)).said == f"{eve.username} is an administrator."
    assert (await web.post(f"/admin/people/{eve.id}/demote", reason=WHY, code=code)).status == 403
    await rest.pass_(30)
    assert (await web.post(f"/admin/people/{eve.id}/demote", reason=WHY, code=web.code())).status == 200
    assert [act for act, _ in await acts_on(rest, eve.id)] == ["user.demote", "user.promote"]


async def test_nobody_bans_themselves_or_does_what_there_is_not(rest: House) -> None:
    warden, web = await keeper(rest)
    page = await web.get(f"/admin/people/{warden.id}")
    assert 'id="act-ban"' not in page.text
    assert (await web.post(f"/admin/people/{warden.id}/ban", reason=WHY)).status == 400
    assert (await web.post(f"/admin/people/{warden.id}/explode", reason=WHY)).status == 404
    assert (await web.post("/admin/people/nobody/ban", reason=WHY)).status == 404
    assert "There is no such user." in (await web.get("/admin/people/nobody")).problem
    assert await acts_on(rest, warden.id) == [("admin.sign_in", "to set up the second factor")]


async def test_a_lost_second_factor_is_dropped_for_another_administrator(rest: House) -> None:
    _, web = await keeper(rest)
    other, theirs = await keeper(rest, "other")
    await web.get(f"/admin/people/{other.id}")
    shown = await web.post(f"/admin/people/{other.id}/drop-factor", reason="Lost the phone", code=web.code())
    assert shown.said == f"{other.username} signs in by password alone."
    assert "Set up your second factor" in (await theirs.get("/admin/")).words


# ------------------------------------------------------------------------------------------------------------- calls


async def test_a_live_call_is_shown_with_its_money_and_ended_with_a_reason(rest: House) -> None:
    _, web = await keeper(rest)
    ada, bob, call_id = await talking(rest)
    shown = await web.get("/admin/calls")
    assert f'id="call-{call_id}"' in shown.text
    assert ada.username in shown.words
    assert bob.username in shown.words
    part = await web.send("GET", "/admin/calls/live", HX_Request="true")
    assert (part.status, "<!doctype" in part.text, call_id in part.text) == (200, False, True)
    assert "NGN" in part.words
    page = await web.get(f"/admin/calls/{call_id}")
    assert "End this call" in page.words
    assert (await web.post(f"/admin/calls/{call_id}/end", reason="")).status == 400
    ended = await web.post(f"/admin/calls/{call_id}/end", reason="Fraud while it ran")
    assert "has ended" in ended.said
    call = (await ada.get(f"/api/calls/{call_id}")).body["call"]
    assert (call["state"], call["endReason"]) == ("ended", "policy")
    assert await acts_on(rest, call_id) == [("call.end", "Fraud while it ran")]
    again = await web.post(f"/admin/calls/{call_id}/end", reason="Once more")
    assert again.status == 200
    assert len(await acts_on(rest, call_id)) == 1, "what had ended already was done by nobody"
    assert call_id not in (await web.get("/admin/calls")).text


async def test_a_call_is_found_by_its_id(rest: House) -> None:
    _, web = await keeper(rest)
    *_, call_id = await ringing(rest)
    assert call_id in (await web.get(f"/admin/calls/find?id={call_id}")).text
    for wrong in ("nothing", "", "%00", "../people"):
        shown = await web.get(f"/admin/calls/find?id={wrong}")
        assert (shown.status, shown.problem) == (404, "There is no such call.")


# ----------------------------------------------------------------------------------------------------------- reports


async def reported(house: House, **more: Any) -> tuple[Person, str]:
    """Somebody who was reported, and the report."""
    bad, other = await house.person("bad"), await house.person("other")
    answer = await other.post("/api/reports", {"userId": bad.id, "reason": "abuse", **more})
    assert answer.status == 201, answer.body
    return bad, answer.body["report"]["id"]


async def test_a_report_is_decided_once_and_a_ban_is_done(rest: House) -> None:
    _, web = await keeper(rest)
    bad, report_id = await reported(rest, comment="He shouted.")
    path = f"/admin/reports/{report_id}"
    assert bad.username in (await web.get("/admin/reports")).words
    page = await web.get(path)
    assert "He shouted." in page.words
    version = page.hidden()["version"]
    none = await web.post(f"{path}/resolve", reason=WHY, version=version)
    assert (none.status, "Choose what is to come of it" in none.problem, WHY in none.text) == (
        400,
        True,
        True,
    )
    assert (await web.post(f"{path}/resolve", resolution="banned", version=version, reason=" ")).status == 400
    shown = await web.post(f"{path}/resolve", resolution="banned", version=version, reason=WHY)
    assert shown.said == f"The report is closed, and {bad.username} is banned."
    (await bad.get("/api/auth/profile")).error(403, "ACCOUNT_BANNED")
    assert bad.username not in (await web.get("/admin/reports")).words
    assert WHY in (await web.get(path)).words
    late = await web.post(f"{path}/resolve", resolution="dismissed", version=version, reason="No")
    assert late.status == 409
    assert [act for act, _ in await acts_on(rest, bad.id)] == ["user.ban"]
    assert ("report.resolve", WHY) in await acts_on(rest, report_id)


async def test_a_report_of_oneself_is_not_ones_to_read_or_decide(rest: House) -> None:
    warden, web = await keeper(rest)
    other = await rest.person("other")
    answer = await other.post("/api/reports", {"userId": warden.id, "reason": "abuse"})
    report_id = answer.body["report"]["id"]
    assert report_id not in (await web.get("/admin/reports?state=all")).text
    assert (await web.get(f"/admin/reports/{report_id}")).status == 404
    done = await web.post(
        f"/admin/reports/{report_id}/resolve", resolution="dismissed", version="1", reason="x"
    )
    assert done.status == 404
    assert await acts_on(rest, report_id) == []


# ------------------------------------------------------------------------------------------------------------- trail


async def test_the_trail_is_searched_by_words_act_person_and_day(rest: House) -> None:
    warden, web = await keeper(rest)
    eve = await rest.person("eve")
    await web.get(f"/admin/people/{eve.id}")
    await web.post(f"/admin/people/{eve.id}/ban", reason="Purple elephants, again")
    await web.post(f"/admin/people/{eve.id}/unban", reason="It was a parrot")
    today = f"{rest.clock.now():%Y-%m-%d}"
    for query, count in (
        ("text=elephants", 1),
        (f"target={eve.username}", 2),
        (f"target={eve.id}&act=user.unban", 1),
        (f"target={eve.username}&act=user", 2),
        (f"actor={warden.username}&target={eve.id}&since={today}&until={today}", 2),
        (f"target={eve.id}&until=2020-01-01", 0),
        (f"target={eve.id}&since=2120-01-01", 0),
        (f"target={eve.id}&since=nonsense&until=2026-13-40&act=nothing&before=x", 2),
        (f"target={eve.id}&until=9999-12-31", 2),
        ("text=%5B.*&actor=%24ne", 0),
    ):
        assert len(await rows_of(web, f"/admin/trail?{query}", "trail-row")) == count, query


async def test_signing_in_and_out_is_in_the_trail(rest: House) -> None:
    warden, web = await keeper(rest)
    await web.post("/admin/logout")
    await rest.pass_(30)
    await web.sign_in(warden.username, code=web.code())
    assert [act for act, _ in await acts_on(rest, warden.id)] == [
        "admin.sign_in",
        "admin.sign_out",
        "admin.sign_in",
    ]
    assert (await acts_on(rest, warden.id))[0] == ("admin.sign_in", "with the second factor")


async def test_the_trail_is_verified_on_its_page(rest: House) -> None:
    _, web = await keeper(rest)
    page = await web.get("/admin/trail")
    head = re.search(r'data-test="head">([0-9]+:[0-9a-f]{64})<', page.text)
    assert head is not None
    assert "The chain holds" in (await web.post("/admin/trail/verify", anchor=head[1])).words
    assert "The chain holds" in (await web.post("/admin/trail/verify")).words
    other = f"{head[1].split(':')[0]}:{'0' * 64}"
    assert "The chain is broken" in (await web.post("/admin/trail/verify", anchor=other)).words
    assert (await web.post("/admin/trail/verify", anchor="17")).status == 400
    seq = int(head[1].split(":")[0])
    kept = await rest.db[TRAIL].find_one({"_id": seq})
    assert kept is not None
    await rest.db[TRAIL].update_one({"_id": seq}, {"$set": {"reason": "another"}})
    broken = await web.post("/admin/trail/verify")
    assert f"The chain is broken at row {seq}" in broken.words
    await rest.db[TRAIL].update_one({"_id": seq}, {"$set": {"reason": kept["reason"]}})


async def test_the_trail_is_taken_away_as_a_file_which_is_in_the_trail_itself(rest: House) -> None:
    warden, web = await keeper(rest)
    await web.get("/admin/trail")
    file = await web.post("/admin/trail/export")
    assert file.headers["Content-Type"].startswith("application/x-ndjson")
    assert file.headers["Content-Disposition"].startswith('attachment; filename="trail-')
    assert file.headers["Cache-Control"] == "no-store"
    rows = [json.loads(line) for line in file.text.splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["act"] == "trail.export"
    assert rows[-1]["actor"]["user_id"] == warden.id
    assert (await web.send("GET", "/admin/trail/export")).status == 404


async def test_facts_of_an_act_stand_beside_it_and_amounts_are_money(rest: House) -> None:
    _, web = await keeper(rest)
    ada = await rest.person("ada")
    act = Act(
        actor=Actor.system(),
        act="call.refund",
        target=Target("user", ada.id, ada.username),
        reason=WHY,
        details={"amount_minor": 123_450, "currency": "NGN", "times": 2, "none": None},
    )
    async with rest.services.trail.keeping(act) as row:
        await rest.db.transaction(row.also)
    (shown,) = await rows_of(web, f"/admin/trail?target={ada.id}", "trail-row")
    assert "NGN 1,234.50, times 2 " in shown.replace("\xa0", " ")
    assert "123450" not in shown
    assert "none" not in shown


async def test_the_overview_shows_what_waits_and_what_was_done(rest: House) -> None:
    _, web = await keeper(rest)
    _, report_id = await reported(rest)
    *_, call_id = await ringing(rest)
    words = (await web.get("/admin/")).words
    assert ACTS["admin.sign_in"] in words
    text = (await web.get("/admin/")).text
    assert call_id in text
    assert report_id


async def test_who_is_signed_in_nowhere_sees_nothing(rest: House) -> None:
    await administrator(rest)
    ada, bob, call_id = await ringing(rest)
    _, report_id = await reported(rest)
    paths = ["", "/", "/people", f"/people/{ada.id}", "/calls", "/calls/live", f"/calls/{call_id}", "/trail"]
    for path in [*paths, "/reports", f"/reports/{report_id}", "/nothing", f"/calls/{call_id}/now"]:
        for headers in ({}, {"Authorization": f"Bearer {ada.token}"}):
            shown = await Web(rest).send("GET", f"/admin{path}", **headers)
            assert (shown.status, shown.headers["Location"].startswith("/admin/login")) == (303, True)
            assert bob.username not in shown.text
    for path in (
        "/logout",
        f"/people/{ada.id}/ban",
        f"/calls/{call_id}/end",
        "/trail/export",
        "/trail/verify",
    ):
        shown = await Web(rest).send("POST", f"/admin{path}", {"reason": "x"})
        assert (shown.status, shown.headers["Location"]) == (303, "/admin/login")
    shown = await Web(rest).sign_in(ada.username, PASSWORD)
    assert shown.status == 403
