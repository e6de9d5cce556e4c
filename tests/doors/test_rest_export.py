"""One's own data as a file, and what is left of somebody who has gone."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from handlers import export
from models.ledger.journal import Entry, Kind, Leg, Pocket, account_of, clearing, wallet_key
from models.ledger.store import JOURNAL
from tests.doors.conftest import PASSWORD, House, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEYS = (f"export-{n}" for n in itertools.count(1))
HEAD = {"exportedAt", "user", "secondFactor", "notices", "blocked"}


async def file_of(person: Person) -> tuple[Any, Any]:
    answer = await person.send("GET", "/api/user/export")
    assert answer.status == 200, answer.body
    body = answer.body if isinstance(answer.body, dict) else json.loads(answer.body)
    return body, answer.headers


async def writes(person: Person, to: Person, text: str) -> dict[str, Any]:
    body = {"to": to.id, "text": text, "opId": next(KEYS)}
    sent = await person.send("POST", "/api/chat/messages", body)
    assert sent.status in (200, 201), sent.body
    return dict(sent.body["message"])


async def paid(rest: House, person: Person, minor: int) -> None:
    assert (await person.post("/api/wallet/create", {"pin": "7391"})).status == 201
    name = wallet_key(person.id, "NGN")
    legs = (Leg(clearing("test"), -minor, "NGN"), Leg(account_of(name, Pocket.PRIMARY), minor, "NGN"))
    entry = Entry(id=f"pay:test:{next(KEYS)}", kind=Kind.DEPOSIT, at=rest.clock.now(), legs=legs)
    await rest.services.ledger.post([name], lambda _: [entry])


async def test_the_file_has_what_is_known_of_one_and_nothing_of_others(
    rest: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PAGE", 2)  # so that there are several pages of little
    ada, bob, eve = await rest.person("ada"), await rest.person("bob"), await rest.person("eve")
    await paid(rest, ada, 5_000)
    mine = [await writes(ada, bob, f'words, "quoted" ü {n}') for n in range(5)]
    await rest.send("DELETE", f"/api/chat/messages/{mine[4]['id']}", token=ada.token)
    theirs = await writes(bob, ada, "what bob has written")
    for other in (ada, bob):
        assert (await other.send("PUT", f"/api/users/{eve.id}/block")).status == 204
    await ada.login()

    found, headers = await file_of(ada)
    assert set(found) == HEAD | set(export.LISTS) | {"transactions", "messages"}
    assert headers["Content-Disposition"].startswith('attachment; filename="ringmeter-ada')
    assert headers["Cache-Control"] == "no-store"
    assert found["user"] == (await ada.get("/api/auth/profile")).body["user"]
    assert [message["text"] for message in found["messages"]] == [f'words, "quoted" ü {n}' for n in range(4)]
    assert theirs["text"] not in json.dumps(found["messages"])
    assert [line["amountMinor"] for line in found["transactions"]] == [5_000]
    assert len(found["sessions"]) == 2
    assert [person["id"] for person in found["blocked"]] == [eve.id]
    assert found["secondFactor"] == {"on": False, "recoveryCodesLeft": 0}
    assert len(found["conversations"]) == 1
    for secret in (PASSWORD, ada.signed_in["refreshToken"], "password_hash", "$2b$"):
        assert secret not in json.dumps(found)


async def test_who_has_nothing_yet_gets_a_file_too(rest: House) -> None:
    new = await rest.person("new")
    found, _ = await file_of(new)
    assert all(found[name] == [] for name in {*export.LISTS, "messages", "transactions"} - {"sessions"})
    (await rest.send("GET", "/api/user/export")).error(401, "TOKEN_MISSING")


async def test_every_list_of_the_file_is_a_route(rest: House) -> None:
    for path in (*export.LISTS.values(), "/api/wallet/transactions"):
        assert export._route(path).many


async def test_of_who_has_gone_the_journal_stays_and_the_person_does_not(rest: House) -> None:
    ada, bob = await rest.person("ada", phone="+2348031234777"), await rest.person("bob")
    await paid(rest, ada, 5_000)
    await writes(ada, bob, "good-bye")
    await rest.send("POST", "/api/auth/forgot-password", {"identifier": ada.username})
    await rest.services.accounts.codes.run_due()
    await ada.send("POST", "/api/auth/2fa/setup")
    gone = await ada.send("DELETE", "/api/user/account", {"password": PASSWORD, "forfeitBalance": True})
    assert gone.status == 204, gone.body
    legs = [row async for row in rest.db[JOURNAL].find({"legs.account": {"$regex": ada.id}})]
    assert len(legs) == 1, "the books of others, and of the tax office, need it"
    assert await rest.db["pins"].count_documents({"_id": ada.id}) == 0
    personal = (ada.username, f"{ada.username}@example.org", "+2348031234777")
    left = set()
    for name in await rest.db.db.list_collection_names():
        if not name.startswith("system."):
            rows = [row async for row in rest.db[name].find({})]
            left |= {name} if any(word in json.dumps(rows, default=str) for word in personal) else set()
    # What phones that were away are sent again is thrown away after seven days.
    assert left <= {"letters"}
