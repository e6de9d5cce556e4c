"""Reports by REST and from the command line: a person files, an administrator reads, closes, bans."""

from __future__ import annotations

import argparse
import io
import shlex

import pytest
from rich.console import Console

from models.users.store import USERS
from server import cli_reports
from server.config import load_config
from tests.doors.conftest import House, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def administrator(house: House) -> Person:
    """Somebody who keeps the server."""
    person = await house.person("admin")
    await house.db[USERS].update_one({"_id": person.id}, {"$set": {"role": "admin"}})
    return person


async def told(house: House, mongo_uri: str, line: str) -> tuple[int, str]:
    """Exit status and output of ``main.py reports LINE`` beside the house."""
    parser = argparse.ArgumentParser()
    cli_reports.add_parser(parser.add_subparsers(dest="command"))
    config = load_config({"MONGO_URI": mongo_uri, "MONGO_DATABASE": house.db.db.name})
    out = io.StringIO()
    args = parser.parse_args(["reports", *shlex.split(line)])
    status = await cli_reports.run(args, config, Console(file=out, width=300))
    return status, out.getvalue()


async def test_a_message_is_reported_and_its_sender_banned_though_it_was_deleted_meanwhile(
    house: House,
) -> None:
    admin, ann, eve = await administrator(house), await house.person("ann"), await house.person("eve")
    desk, phone = await admin.phone("desk"), await eve.phone("phone")
    message = await phone.ask("CHAT_MESSAGE", to=ann.id, text="Send me your PIN.", opId="1")
    ask = {"messageId": message["id"], "reason": "fraud", "comment": "To everybody."}
    filed = await ann.post("/api/reports", ask)
    assert filed.status == 201
    receipt = filed.body["report"]
    assert (receipt["messageId"], receipt["userId"], receipt["reason"]) == (message["id"], eve.id, "fraud")
    assert (await ann.post("/api/reports", ask)).body == filed.body
    await phone.ask("MESSAGE_DELETE", messageId=message["id"])

    notice = (await desk.happens("REPORT_FILED"))["report"]
    assert notice["id"] == receipt["id"]
    path = f"/api/admin/reports/{receipt['id']}"
    report = (await admin.get(path)).body["report"]
    assert report["evidence"]["text"] == "Send me your PIN."
    assert report["evidence"]["sha256"] == notice["evidence"]["sha256"]
    assert (report["reporter"]["id"], report["reported"]["id"]) == (ann.id, eve.id)
    listed = (await admin.get("/api/admin/reports?limit=200")).body["items"]
    assert [one for one in listed if one["id"] == report["id"]] == [report]

    close = {"version": report["version"], "resolution": "banned", "note": "Third time."}
    closed = (await admin.post(f"{path}/close", close)).body["report"]
    assert (closed["state"], closed["resolution"], closed["closedBy"]) == ("closed", "banned", admin.id)
    assert (await phone.happens("error"))["error"]["code"] == "ACCOUNT_BANNED"
    assert "REPORT_FILED" not in phone.names()
    (await eve.get("/api/auth/profile")).error(403, "ACCOUNT_BANNED")
    again = (await admin.post(f"{path}/close", close)).body["report"]
    assert (again["version"], again["closedAt"]) == (closed["version"], closed["closedAt"])
    (await admin.post(f"{path}/close", {**close, "resolution": "dismissed"})).error(409, "REPORT_CLOSED")


async def test_nobody_else_sees_reports_or_closes_them(rest: House) -> None:
    ann, eve = await rest.person("ann"), await rest.person("eve")
    filed = (await ann.post("/api/reports", {"userId": eve.id, "reason": "spam"})).body["report"]
    path = f"/api/admin/reports/{filed['id']}"
    close = {"version": 1, "resolution": "dismissed"}
    for person in (ann, eve):
        (await person.get("/api/admin/reports")).error(403, "FORBIDDEN")
        (await person.get(path)).error(403, "FORBIDDEN")
        (await person.post(f"{path}/close", close)).error(403, "FORBIDDEN")
    admin = await administrator(rest)
    assert (await admin.get(path)).status == 200
    await rest.db[USERS].update_one({"_id": admin.id}, {"$set": {"role": "user"}})
    (await admin.get(path)).error(403, "FORBIDDEN")


async def test_an_administrator_sees_no_report_of_themselves(rest: House) -> None:
    admin, ann = await administrator(rest), await rest.person("ann")
    filed = (await ann.post("/api/reports", {"userId": admin.id, "reason": "abuse"})).body["report"]
    listed = (await admin.get("/api/admin/reports?state=all&limit=100")).body["items"]
    assert filed["id"] not in [one["id"] for one in listed]
    (await admin.get(f"/api/admin/reports/{filed['id']}")).error(404, "REPORT_UNKNOWN")
    other = await administrator(rest)
    assert (await other.get(f"/api/admin/reports/{filed['id']}")).status == 200


async def test_only_what_one_may_see_is_reported_and_never_oneself(house: House) -> None:
    ann, bob, eve = [await house.person(name) for name in ("ann", "bob", "eve")]
    phone = await bob.phone("phone")
    message = await phone.ask("CHAT_MESSAGE", to=ann.id, text="Between us", opId="1")
    ask = {"messageId": message["id"], "reason": "abuse"}
    (await eve.post("/api/reports", ask)).error(404, "MESSAGE_UNKNOWN")
    (await bob.post("/api/reports", ask)).error(400, "SELF_NOT_ALLOWED")
    (await bob.post("/api/reports", {"userId": bob.id, "reason": "abuse"})).error(400, "SELF_NOT_ALLOWED")
    (await bob.post("/api/reports", {"userId": "nobody", "reason": "abuse"})).error(404, "USER_UNKNOWN")
    for wrong in (
        {"reason": "abuse"},
        {"messageId": message["id"], "userId": bob.id, "reason": "abuse"},
        {"userId": bob.id, "reason": "because"},
        {"userId": bob.id, "reason": "abuse", "comment": "x" * 1001},
    ):
        (await eve.post("/api/reports", wrong)).error(400, "VALIDATION_FAILED")


async def test_reports_are_listed_in_pages_and_by_state(rest: House) -> None:
    admin, ann = await administrator(rest), await rest.person("ann")
    people = [await rest.person("p") for _ in range(3)]
    ids = []
    for person in people:
        answer = await ann.post("/api/reports", {"userId": person.id, "reason": "spam"})
        ids.append(answer.body["report"]["id"])
    close = {"version": 1, "resolution": "warned"}
    assert (await admin.post(f"/api/admin/reports/{ids[1]}/close", close)).status == 200
    page = (await admin.get("/api/admin/reports?limit=1")).body
    assert [one["id"] for one in page["items"]] == [ids[2]]
    page = (await admin.get(f"/api/admin/reports?limit=1&cursor={page['nextCursor']}")).body
    assert [one["id"] for one in page["items"]] == [ids[0]]
    page = (await admin.get("/api/admin/reports?state=closed&limit=1")).body
    assert [one["id"] for one in page["items"]] == [ids[1]]
    page = (await admin.get("/api/admin/reports?state=all&limit=3")).body
    assert [one["id"] for one in page["items"]] == ids[::-1]
    (await admin.get("/api/admin/reports/nothing")).error(404, "REPORT_UNKNOWN")
    (await admin.get("/api/admin/reports?cursor=x")).error(400, "VALIDATION_FAILED")


async def test_the_command_line_lists_shows_and_closes(rest: House, mongo_uri: str) -> None:
    ann, eve = await rest.person("ann"), await rest.person("eve")
    ask = {"userId": eve.id, "reason": "fraud", "comment": "a [bad] one"}
    filed = (await ann.post("/api/reports", ask)).body["report"]
    status, table = await told(rest, mongo_uri, "list")
    assert status == 0
    assert filed["id"] in table
    assert "person: a [bad] one" in table
    status, said = await told(rest, mongo_uri, f"show {filed['id']}")
    assert status == 0
    assert f"{ann.username} reported {eve.username} at " in said
    assert "Comment: a [bad] one" in said
    closing = f"close {filed['id']} --resolution banned --note 'enough of it'"
    done = (0, f"Closed as banned; {eve.username} is banned.\n")
    assert await told(rest, mongo_uri, closing) == done
    assert await told(rest, mongo_uri, closing) == done, "the same again"
    (await eve.get("/api/auth/profile")).error(403, "ACCOUNT_BANNED")
    status, said = await told(rest, mongo_uri, f"close {filed['id']} --resolution dismissed")
    assert (status, said.strip()) == (1, "This report was closed, or has changed since you read it.")
    assert "Closed as banned by the command line" in (await told(rest, mongo_uri, f"show {filed['id']}"))[1]
    assert (await told(rest, mongo_uri, "show nothing"))[0] == 1
    assert filed["id"] not in (await told(rest, mongo_uri, "list"))[1]
    assert filed["id"] in (await told(rest, mongo_uri, "list --state closed --limit 200"))[1]
