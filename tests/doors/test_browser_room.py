"""A room of three tabs: a mesh of Chromium pages, their media over loopback, this server between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doors.browser import Browser, Page, chromium
from tests.doors.serverprocess import ServerProcess, lodging_now, running

_TILES = """(ids) => {
  const shown = [...document.querySelectorAll("[data-test=room-tile]")].map((one) => one.dataset.user);
  return shown.length === ids.length && ids.every((id) => shown.includes(id));
}"""
_MY_ID = """() => JSON.parse(sessionStorage.getItem("ringmeter.session")).user.id"""
_PICTURES = """(count) => [...document.querySelectorAll("[data-test=room-tile]")]
  .filter((one) => one.dataset.look === "picture" && one.querySelector("video").videoWidth > 0).length === count"""
_KICK = """(id) => document.querySelector(`[data-user="${id}"] [data-test=room-kick]`).click()"""
_STATE = "(state) => document.querySelector('[data-test=room-state]').textContent === state"
_COUNT = "(count) => document.querySelector('[data-test=room-count]').textContent === count"
_NOTICE = "(text) => document.querySelector('#notice-text').innerText.includes(text)"


@dataclass(frozen=True)
class Person:
    """Somebody in a tab."""

    page: Page
    id: str

    def go_in(self, *, others: int) -> None:
        """Through the door, and until all who are there are seen and heard."""
        self.page.click("room-join")
        self.page.until(_STATE, "joined")
        self.sees(others=others)

    def sees(self, *, others: int) -> None:
        """Everybody, oneself too, by number; sound and pictures come in from each of the others."""
        self.page.until(_COUNT, str(others + 1))
        self.page.until_legs_grow(others)
        self.page.until(_PICTURES, others + 1)


@dataclass(frozen=True)
class Stage:
    """A server and a browser."""

    server: ServerProcess
    browser: Browser

    def person(self, name: str, path: str) -> Person:
        """A new tab at ``path`` in which ``name`` has signed in."""
        page = self.browser.page(name).open(f"{self.server.address}{path}", width=800, height=700)
        page.fill("name", name)
        page.click("join")
        return Person(page, page.until(f"() => sessionStorage.getItem('ringmeter.session') && ({_MY_ID})()"))


@pytest.fixture(scope="module")
def house(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("rooms")
    with (
        lodging_now(mongo_uri) as database,
        running(folder / "server", mongo_uri=mongo_uri, database=database) as server,
        chromium(folder / "profile") as browser,
    ):
        yield Stage(server, browser)


@pytest.fixture
def stage(house: Stage) -> Iterator[Stage]:
    yield house
    faults = house.browser.put_away(lambda line: "uncaught:" in line or "VALIDATION_FAILED" in line)
    assert faults == [], "what the pages say has to fit what the server hears"


def opened(stage: Stage, owner: str) -> tuple[Person, str]:
    """Somebody who has opened a room and stands in front of it, and the room's link."""
    host = stage.person(owner, "/rooms")
    host.page.fill("room-name", "Stand-up")
    host.page.click("room-create")
    host.page.until_text("room-link", "/rooms?room=")
    return host, host.page.text("room-link").removeprefix(stage.server.address)


def test_three_in_a_room_see_and_hear_each_other_while_one_leaves_and_one_comes_back(stage: Stage) -> None:
    ada, link = opened(stage, "Ada")
    ada.page.click("room-join")
    ada.page.until(_STATE, "joined")
    bea, cyn = stage.person("Bea", link), stage.person("Cyn", link)
    bea.go_in(others=1)
    cyn.go_in(others=2)
    for one in (ada, bea):
        one.sees(others=2)
        one.page.until(_TILES, [ada.id, bea.id, cyn.id])

    bea.page.fill("room-chat-text", "Can <b>everybody</b> hear me?")
    bea.page.click("room-chat-send")
    for one in (ada, bea, cyn):
        one.page.until_text("room-chat-log", "Can <b>everybody</b> hear me?")

    bea.page.reload()  # in again without a click, with connections of its own
    for one in (ada, bea, cyn):
        one.sees(others=2)
    bea.page.until_text("room-chat-log", "Can <b>everybody</b> hear me?")

    cyn.page.click("room-leave")
    cyn.page.until(_STATE, "outside")
    for one in (ada, bea):
        one.page.until(_TILES, [ada.id, bea.id])
        one.sees(others=1)


def test_the_owner_shows_somebody_out_and_closes_the_room(stage: Stage) -> None:
    dan, link = opened(stage, "Dan")
    dan.page.click("room-join")
    dan.page.until(_STATE, "joined")
    eve, fay = stage.person("Eve", link), stage.person("Fay", link)
    eve.go_in(others=1)
    fay.go_in(others=2)

    dan.page.run(_KICK, eve.id)
    eve.page.until(_STATE, "outside")
    eve.page.until(_NOTICE, "shown you out")
    dan.sees(others=1)

    dan.page.click("room-close")
    for one in (dan, fay):
        one.page.until(_STATE, "outside")
        one.page.until(_NOTICE, "closed by its owner")


def test_a_room_outlives_the_death_of_the_server(stage: Stage) -> None:
    gus, link = opened(stage, "Gus")
    gus.page.click("room-join")
    gus.page.until(_STATE, "joined")
    hal = stage.person("Hal", link)
    hal.go_in(others=1)
    stage.server.kill()
    for one in (gus, hal):
        one.page.until(_STATE, "reconnecting")
        one.page.until_legs_grow(1)  # from tab to tab: it does not pass through the server
    stage.server.start()
    for one in (gus, hal):
        one.page.until(_STATE, "joined")
        one.sees(others=1)
    hal.page.fill("room-chat-text", "Still there?")
    hal.page.click("room-chat-send")
    for one in (gus, hal):
        one.page.until_text("room-chat-log", "Still there?")
