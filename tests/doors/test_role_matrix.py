"""Who gets which answer where: every route × (nobody, a user, another, a banned one, an administrator)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from handlers.registry import Route
from models.users.store import USERS
from server.wiring import catalogue
from tests.doors import estate
from tests.doors.conftest import House, Person, Reply
from tests.doors.estate import CANARY, HANDSET, Estate, key
from tests.house.openapi_check import refuse_undocumented

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = estate.HOUSE
ROLES = ("anonymous", "user", "other", "banned", "administrator")
# The owner of what a line is about asks last: what the others must not do has not been done until then.
ASKED = ("anonymous", "banned", "other", "administrator", "user")
NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    method: str
    path: str
    body: str
    statuses: dict[str, int]
    fresh: bool
    route: Route = field(repr=False)

    @property
    def wants(self) -> list[str]:
        """The kinds of things that are made for it."""
        found = re.findall(r"<([a-z_]+)>", f"{self.path} {self.body}")
        return list(dict.fromkeys(found))


def route_of(method: str, path: str) -> Route:
    """The route of the catalogue that answers at an address."""
    place = path.partition("?")[0]
    for route in catalogue.routes:
        # Fixed parts before variable ones, as aiohttp has it by the order of their making.
        pattern = re.sub(r"{[^}]*}", "[^/]+", route.path)
        if route.method == method and re.fullmatch(pattern, place):
            return route
    raise LookupError(f"no route answers to {method} {path}")


def table() -> list[Line]:
    """The lines of roles.txt."""
    lines = []
    for text in (Path(__file__).parent / "roles.txt").read_text().splitlines():
        if not text or text.startswith("#"):
            continue
        place, body, statuses = (part.strip() for part in text.lstrip("*").split(" |"))
        method, path = place.split(" ")
        numbers = dict(zip(ROLES, map(int, statuses.split()), strict=True))
        lines.append(Line(method, path, body, numbers, text.startswith("*"), route_of(method, path)))
    return lines


TABLE = table()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(rest: House) -> AsyncIterator[dict[str, Any]]:
    made = await Estate.open(rest)
    yield {"estate": made, **await roles(rest, made.owner, made.admin)}


async def roles(rest: House, user: Person, admin: Person) -> dict[str, Person | None]:
    """Who asks."""
    banned = await rest.person("banned")
    await rest.db[USERS].update_one({"_id": banned.id}, {"$set": {"status": "banned"}})
    other = await estate.rich(rest, "other")
    return {"anonymous": None, "user": user, "other": other, "banned": banned, "administrator": admin}


async def newcomers(rest: House) -> dict[str, Person | None]:
    """People of every role of whom nothing else is known, who have no money either."""
    user, admin = await rest.person("user"), await rest.person("admin")
    await rest.db[USERS].update_one({"_id": admin.id}, {"$set": {"role": "admin"}})
    found = await roles(rest, user, admin)
    return {**found, "other": await rest.person("other")}


def filled(text: str, things: dict[str, str], who: Person | None, stranger: str) -> str:
    """The text with ids and with what is about whoever asks."""
    mine = {
        "me.new": f"new{next(NUMBERS)}",
        "me.username": who.username if who else "nobody",
        "me.refresh": who.signed_in["refreshToken"] if who else "nothing",
        "me.stranger": stranger,
    }
    for name, value in {**things, **mine}.items():
        text = text.replace(f"<{name}>", value)
    assert not re.search(r"<[a-z_.]+>", text), text
    return text


async def asks(rest: House, line: Line, path: str, body: str, who: Person | None) -> Reply:
    sent = key()
    if "/keys" in path:
        sent["X-Device-Id"] = HANDSET.name
    token = who.token if who else None
    if line.route.blob:
        return await fetched(rest, path, token)
    if line.route.body != "json":
        return await rest.send(line.method, path, token=token, headers=sent, data=body.encode())
    return await rest.send(line.method, path, json.loads(body) if body else None, token=token, headers=sent)


async def fetched(rest: House, path: str, token: str | None) -> Reply:
    """A file, which is no text."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with rest.http.get(rest.url + path, headers=headers) as answer:
        json_ = answer.content_type == "application/json" and answer.status >= 400
        body = await answer.json() if json_ else (await answer.read()).decode("latin-1")
        return Reply(answer.status, body, answer.headers)


async def test_every_route_has_one_line() -> None:
    there = [(line.route.method, line.route.path) for line in TABLE]
    assert sorted(there) == sorted({(route.method, route.path) for route in catalogue.routes})


@pytest.mark.parametrize("line", TABLE, ids=lambda line: f"{line.method} {line.path.partition('?')[0]}")
async def test_each_role_gets_its_answer(rest: House, people: dict[str, Any], line: Line) -> None:
    made: Estate = people["estate"]
    things = {kind: await made.make(kind) for kind in line.wants}
    who = await newcomers(rest) if line.fresh else people
    for role in ASKED:
        person = who[role]
        if line.path.endswith("/refresh-token") and role not in ("anonymous", "banned"):
            person = await person.login()
        stranger = await made.make("stranger") if "<me.stranger>" in line.body else ""
        path, body = (filled(text, things, person, stranger) for text in (line.path, line.body))
        got = await asks(rest, line, path, body, person)
        assert got.status == line.statuses[role], (role, got.status, got.body)
        refuse_undocumented(line.method, line.route.path, got)
        if role != "user" and not (role == "administrator" and line.path.startswith("/api/admin/")):
            assert CANARY not in str(got.body), (role, got.body)
        if role == "banned" and not line.route.public:
            got.error(403, "ACCOUNT_BANNED")


@pytest.mark.parametrize("line", [line for line in TABLE if line.route.also], ids=lambda line: line.path)
async def test_other_names_of_a_route_let_nobody_in_either(rest: House, line: Line) -> None:
    for other in line.route.also:
        path = re.sub(r"{[^}]*}", "anything", other)
        got = await asks(rest, line, path, filled(line.body, dict.fromkeys(line.wants, "x"), None, "x"), None)
        assert got.status == line.statuses["anonymous"], (other, got.status, got.body)
