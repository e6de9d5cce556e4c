"""What somebody can do with the ids of another's things: nothing, at any route and any event, whatever the id is of.

Driven from the catalogue: each field that names something gets each kind of thing that the owner has. The owner's own
view of all of it is the same afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from handlers.registry import Event, Route
from server.wiring import catalogue
from tests.doors import estate
from tests.doors.conftest import House, Person
from tests.doors.estate import CANARY, HANDSET, Estate, key
from tests.doors.wire import raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE = estate.HOUSE
# Of a person's things. People themselves are known to all.
KINDS = (
    *("session", "api_key", "talking", "message", "conversation", "group", "attached", "report", "room"),
    *("account", "payment", "reference", "bank_account", "payout", "card", "quote"),
)
# Fields that name something.
NAMING = {"to", "with", "reference", "replyTo", "expoPushToken", "account", "identifier"}
# Where an id that is nobody's and one that is another's are answered alike, and well: nothing happens by it.
ALIKE = {
    "POST /api/auth/forgot-password": "the same answer whoever is meant",
    "DELETE /api/auth/api-keys/{id}": "revoking is safe to repeat",
    "DELETE /api/auth/expo-push-token": "forgetting is safe to repeat",
    "POST /api/auth/expo-push-token": "the name of one's own device, or a token that one's own device has now",
    "DELETE /api/users/{id}/block": "unblocking is safe to repeat",
    "GET /api/calls/history": "no call with somebody of that id",
    "GET /api/chat/history/{userId}": "nothing was written with somebody of that id",
    "GET /api/chat/search": "nothing found there",
    "PRESENCE_WATCH": "somebody of that id is not there",
    "PRESENCE_SET": "one's own state",
    "CHAT_STOP_TYPING": "there is nothing to stop",
}
# Refused with another status than 400, 403 and 404.
STATES = {(401, "POST /api/auth/login"), (409, "GET /api/room/{roomId}/messages")}
NUMBERS = itertools.count(1)


def naming(door: Route | Event) -> list[str]:
    """The fields of a door that name something, as clients write them."""
    found = [field.data_key or name for name, field in door.takes().fields.items()]
    return [
        name for name in found if name in NAMING or (name.lower().endswith(("id", "ids")) and name != "opId")
    ]


def body_with(door: Route | Event, name: str, value: str) -> dict[str, Any]:
    """The example of a door, which would pass, with another's id."""
    body = {**door.takes.example, "opId": f"x{next(NUMBERS)}"}
    return {**body, name: [value] if name.endswith("Ids") else value}


def view(person: Person) -> list[str]:
    lists = (
        *("/api/auth/sessions", "/api/auth/api-keys", "/api/calls/history", "/api/call-logs", "/api/wallets"),
        *("/api/chat/conversations", "/api/rooms", "/api/payments", "/api/wallet/payouts", "/users/me"),
        *("/api/wallet/bank-accounts", "/api/wallet/cards", "/api/wallet/transactions", "/api/chat/unread"),
    )
    return [*lists, f"/api/chat/history/{person.id}"]


async def seen(made: Estate) -> dict[str, Any]:
    """All that the owner can read."""
    found = {path: (await made.owner.get(path)).body for path in view(made.friend)}
    for session in found["/api/auth/sessions"]["items"]:
        session.pop("expiresInMs")
        session.pop("lastSeenAt")
    return found


ROUTES = [(route, name) for route in catalogue.routes for name in naming(route)]
EVENTS = [(event, name) for event in catalogue.events.values() for name in naming(event)]


@pytest.mark.timeout(180)
async def test_the_ids_of_anothers_things_open_nothing_and_change_nothing(rest: House) -> None:
    made = await Estate.open(rest)
    things = {kind: await made.make(kind) for kind in KINDS}
    # A stranger to the owner and to all that is the owner's.
    other = await estate.rich(rest, "other")
    # The owner's withdrawal is on its way by itself, as far as it comes in no time.
    async with asyncio.timeout(30):
        while (await made.owner.get("/api/wallet/payouts")).body["items"][0]["status"] == "pending":
            await rest.db.ping()
    before = await seen(made)
    assert CANARY in str(before), "there is something to find"
    found: list[Any] = []
    for route, name in ROUTES:
        some = (opened(rest, other, route, name, value, kind) for kind, value in things.items())
        found += [one for answers in await asyncio.gather(*some) for one in answers]
    async with raw(rest, other.token) as wire:
        for event, name in EVENTS:
            for kind, value in things.items():
                number = next(NUMBERS)
                await wire.send_str(f"42{number}{json.dumps([event.name, body_with(event, name, value)])}")
                ack = await wire.ack(number)
                if CANARY in str(ack) or (ack["ok"] and event.name not in ALIKE):
                    found.append((event.name, name, kind, ack))
    assert found == []
    assert await seen(made) == before


async def opened(
    rest: House, other: Person, route: Route, name: str, value: str, kind: str
) -> list[tuple[Any, ...]]:
    """What is wrong with the answer to somebody with another's id; nothing, as it should be."""
    body, path = body_with(route, name, value), route.path
    for one in list(body):
        if f"{{{one}}}" in path:
            path = path.replace(f"{{{one}}}", str(body.pop(one)))
    assert "{" not in path, (route.path, body)
    if route.method == "GET":
        path = f"{path}?{urlencode({**body, 'limit': 5})}"
    sent = {**key(), "X-Device-Id": HANDSET.name}
    got = await other.send(route.method, path, None if route.method == "GET" else body, headers=sent)
    place = f"{route.method} {route.path}"
    told = CANARY in str(got.body).replace(value, "")
    shut = got.status in (400, 403, 404) or (got.status, place) in STATES
    if not told and (shut or (got.status < 300 and place in ALIKE)):
        return []
    return [(place, name, kind, got.status, got.body)]
