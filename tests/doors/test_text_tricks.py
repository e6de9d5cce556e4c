"""Tricks in every text field of every route and event: operators of the database, names of prototypes, letters that
steer, join, vanish or look like others. None is a fault of ours, and none finds somebody else.

Driven from the catalogue: a field that is added tomorrow is tried tomorrow.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from marshmallow import fields

from handlers.registry import Route
from handlers.shapes import Shape
from server.wiring import catalogue
from tests.doors import estate
from tests.doors.conftest import PASSWORD, House, Person
from tests.doors.estate import CANARY, Estate, key, of
from tests.doors.wire import raw

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

HOUSE = estate.HOUSE
NUMBERS = itertools.count(1)
# What is no text, where text is expected: as JSON says it.
OPERATORS: list[Any] = [{"$ne": None}, {"$regex": ".*"}, ["$gt", ""], {"__proto__": {"role": "admin"}}]
TEXTS = [
    "$where", "a.$b", "__proto__", "constructor", "\x00", "\u202e\u2066x", "\u200b", "аda", "e\u0301",
    "👩\u200d👩\u200d👧",
]  # fmt: skip
# Half a character is no text either: only JSON's escapes carry it.
HALF = "half a character"
TRICKS = [*OPERATORS, *TEXTS, HALF]


def places(shape: type[Shape]) -> list[tuple[str, ...]]:
    """Where text stands in a payload: names on the wire, through what is nested; ``*`` is an element of a list."""
    found: list[tuple[str, ...]] = []
    for name, field in shape().fields.items():
        wire = field.data_key or name
        inner, path = field, (wire,)
        if isinstance(inner, fields.List):
            inner, path = inner.inner, (wire, "*")
        if isinstance(inner, fields.Nested):
            found += [(*path, *rest) for rest in places(type(inner.schema))]
        elif not isinstance(inner, fields.Integer | fields.Boolean):
            found.append(path)
    return found


def with_trick(example: Any, path: tuple[str, ...], trick: Any) -> Any:
    """The example with the trick at that place."""
    if not path:
        return trick
    if path[0] == "*":
        return [with_trick({}, path[1:], trick)]
    inside = example.get(path[0]) if isinstance(example, dict) else None
    return {**(example if isinstance(example, dict) else {}), path[0]: with_trick(inside, path[1:], trick)}


def as_json(payload: Any) -> str:
    return json.dumps(payload).replace(json.dumps(HALF), r'"a\ud800"')


def tricks_for(number: int) -> list[Any]:
    """Four for each field, other ones for the next: all of them come about everywhere in the end."""
    return [TRICKS[(4 * number + step) % len(TRICKS)] for step in range(4)]


# Whoever did these would be somebody else, or nobody, afterwards.
ENDS = {"/api/user/account", "/api/auth/logout", "/api/auth/logout-all", "/api/auth/change-password"}
ROUTES = [
    (route, path)
    for route in catalogue.routes
    if route.body == "json" and route.path not in ENDS
    for path in places(route.takes)
]
EVENTS = [(event, path) for event in catalogue.events.values() for path in places(event.takes)]


async def test_there_is_text_at_most_doors() -> None:
    assert len({route.path for route, _ in ROUTES}) > 60
    assert len({event.name for event, _ in EVENTS}) > 20


async def test_tricks_in_any_text_of_any_route_are_no_fault_and_find_nobody(rest: House) -> None:
    made = await Estate.open(rest)
    for kind in ("message", "group", "room", "report", "transfer"):
        await made.make(kind)
    other = await estate.rich(rest, "other")
    found: list[Any] = []
    for number, (route, path) in enumerate(ROUTES):
        some = (answer_of(rest, other, route, path, trick) for trick in tricks_for(number))
        for trick, (status, body) in zip(tricks_for(number), await asyncio.gather(*some), strict=True):
            if status >= 500 or CANARY in body or made.owner.id in body:
                found.append((route.method, route.path, path, trick, status, body[:300]))
    assert found == []


async def answer_of(
    rest: House, who: Person, route: Route, path: tuple[str, ...], trick: Any
) -> tuple[int, str]:
    payload = with_trick(dict(route.takes.example), path, trick)
    address = route.path
    for name in list(payload):
        if f"{{{name}}}" in address:
            text = payload.pop(name)
            text = text if isinstance(text, str) and text else json.dumps(text)
            address = address.replace(f"{{{name}}}", quote(text, safe=""))
    sent = {**key(), "Content-Type": "application/json"}
    if route.method == "GET":
        query = {name: one if isinstance(one, str) else json.dumps(one) for name, one in payload.items()}
        got = await who.send("GET", f"{address}?{urlencode(query)}")
    else:
        got = await who.send(route.method, address, data=as_json(payload), headers=sent)
    return got.status, str(got.body)


async def test_tricks_in_any_text_of_any_event_are_answered_and_find_nobody(rest: House) -> None:
    made = await Estate.open(rest)
    await made.make("message")
    other = await rest.person("other")
    found: list[Any] = []
    async with raw(rest, other.token) as wire:
        for number, (event, path) in enumerate(EVENTS):
            for trick in tricks_for(number):
                ack_id = next(NUMBERS)
                payload = with_trick(dict(event.takes.example), path, trick)
                await wire.send_str(f"42{ack_id}[{json.dumps(event.name)},{as_json(payload)}]")
                ack = await wire.ack(ack_id)
                code = "" if ack["ok"] else ack["error"]["code"]
                if code in ("INTERNAL", "DATABASE_AWAY") or CANARY in str(ack) or made.owner.id in str(ack):
                    found.append((event.name, path, trick, ack))
    assert found == []


# What looks, folds or sounds like a name to some program.
LIKE = [
    *(
        "{}\u200b",
        "\u202e{}",
        "{}\u0301",
        "{}\x00",
        "{}\u200d",
        "{}.",
        "${}",
        "{}*",
        ".*",
        "{}$",
        "^{}",
        "{}%00",
    ),
    *("\u0430{}", "{}\u00ad", "\ufeff{}"),
]


async def test_nothing_that_looks_like_a_name_signs_in_as_it_or_is_paid_for_it(rest: House) -> None:
    ada = await estate.rich(rest, "ada")
    payer = await estate.rich(rest, "payer")
    for like in LIKE:
        name = like.format(ada.username)
        got = await rest.send("POST", "/api/auth/login", {"identifier": name, "password": PASSWORD})
        assert got.status in (400, 401), (name, got.body)
        paid = {"to": name, "amountMinor": 1, "pin": estate.PIN}
        got = await payer.post("/api/wallet/transfer", paid, headers=key())
        assert got.status in (400, 404), (name, got.body)
    for operator in OPERATORS:
        for field in ("identifier", "password", "email", "username", "phone"):
            body = {"identifier": ada.username, "password": PASSWORD, field: operator}
            got = await rest.send("POST", "/api/auth/login", body)
            assert got.status == 400, (field, operator, got.body)


async def test_a_name_that_is_taken_is_taken_however_it_is_written(rest: House) -> None:
    ada = await rest.person("Ada")
    for like in (ada.username.upper(), ada.username.lower(), f" {ada.username} "):
        body = {"email": f"n{next(NUMBERS)}@example.org", "username": like, "password": PASSWORD}
        (await rest.send("POST", "/api/auth/register", body)).error(409, "ACCOUNT_EXISTS")
    for like in (f"{ada.username}\u200b", ada.username.replace("A", "А"), f"\u202e{ada.username}"):
        body = {"email": f"n{next(NUMBERS)}@example.org", "username": like, "password": PASSWORD}
        (await rest.send("POST", "/api/auth/register", body)).error(400, "VALIDATION_FAILED")
    # The same letters, composed and not, are one address.
    taken = {"email": "amélie@example.org", "password": PASSWORD}
    of(await rest.send("POST", "/api/auth/register", taken), status=201)
    again = {"email": "ame\u0301lie@example.org", "password": PASSWORD}
    (await rest.send("POST", "/api/auth/register", again)).error(409, "ACCOUNT_EXISTS")


async def test_what_others_see_carries_nothing_that_steers(rest: House) -> None:
    ada, bob = await rest.person("ada"), await rest.person("bob")
    steers = "Gro\u202eup\u2069 \u200bone\x1b"
    shown = of(await ada.send("PUT", "/api/user/profile", {"displayName": steers}), "user", "displayName")
    body = {"name": steers, "memberIds": [bob.id]}
    group = of(await ada.post("/api/chat/groups", body), "conversation", "name", status=201)
    room = of(await ada.post("/api/room/create", {"name": steers}), "room", "name", status=201)
    assert shown == group == room == "Gro up one"
    for nothing in ("\u202e\u2066", "\u3164"):
        (await ada.send("PUT", "/api/user/profile", {"displayName": nothing})).error(400, "VALIDATION_FAILED")
        (await ada.post("/api/chat/groups", {**body, "name": nothing})).error(400, "VALIDATION_FAILED")
