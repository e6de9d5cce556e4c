"""A real exchange that the server cannot read: Signal's own library in three apps, the whole server in between."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import bson
import pytest_asyncio

from tests import databases
from tests.doors.conftest import House, open_house
from tests.doors.signalapp import SignalApp

# What the library calls its messages: the first ones bring what begins the session.
PREKEY, WHISPER = 3, 2
WORDS = ("The owl flies at midnight.", "Then I bring the lantern.", "And bread.", "The bridge is down.")


@pytest_asyncio.fixture
async def database(mongo_uri: str) -> AsyncIterator[str]:
    """A database that outlives its servers."""
    async with databases.lent(mongo_uri) as name:
        yield name


async def everything(house: House) -> bytes:
    """All that the database holds, of every collection."""
    rows = []
    for name in await house.db.db.list_collection_names():
        rows += [bson.encode(row) async for row in house.db.db[name].find()]
    return b"".join(rows)


@pytest_asyncio.fixture
async def apps() -> AsyncIterator[list[SignalApp]]:
    """The apps of a test, which end with it."""
    begun: list[SignalApp] = []
    yield begun
    for app in begun:
        await app.close()


async def test_two_people_on_three_devices_write_to_each_other_across_a_restart(
    mongo_uri: str, database: str, apps: list[SignalApp]
) -> None:
    async with open_house(mongo_uri, database=database) as house:
        ada, bob = await house.person("ada"), await house.person("bob")
        for person, name in ((ada, "phone"), (await ada.login(), "tablet"), (bob, "phone")):
            apps.append(await SignalApp(person, name).begin())
        phone, tablet, other = apps

        sent = await other.send(ada, WORDS[0], "1")
        assert [one["deviceId"] for one in sent["claimed"]] == ["phone", "tablet"]
        for app in (phone, tablet):
            assert (await app.reads(WORDS[0]))["type"] == PREKEY
        counts = (await ada.get("/api/keys/count", headers={"X-Device-Id": "phone"})).body["keys"]
        assert (counts["oneTime"], counts["kem"]) == (4, 4)

        answer = await phone.send(bob, WORDS[1], "1")
        assert [one["deviceId"] for one in answer["claimed"]] == ["tablet"], "the session with Bob is there"
        assert (await other.reads(WORDS[1]))["type"] == WHISPER
        assert (await tablet.reads(WORDS[1]))["type"] == PREKEY
        assert (await other.send(ada, WORDS[2], "2"))["claimed"] == []
        for app in (phone, tablet):
            await app.reads(WORDS[2])

        kept = await everything(house)
        assert answer["message"]["encrypted"]
        assert b"ciphertexts" in kept, "the messages are there"
        for words in (*WORDS[:3], "midnight", "lantern"):
            assert words.encode() not in kept
            assert base64.b64encode(words.encode())[:-4] not in kept

    async with open_house(mongo_uri, database=database, port=int(house.url.rpartition(":")[2])):
        for app in apps:
            await app.ask("dial", url=house.url)
        await phone.send(bob, WORDS[3], "after the restart")
        assert (await other.reads(WORDS[3]))["type"] == WHISPER
        await tablet.reads(WORDS[3])
        assert [app.heard for app in apps] == [[], [], []], "nothing twice"
