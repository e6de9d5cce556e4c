"""Two tabs of the demo page in real calls: Chromium, its media over loopback, this server between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doors.browser import Browser, Page, chromium
from tests.doors.serverprocess import ServerProcess, lodging_now, running

_numbers = itertools.count(1)
_SHOWN = "(at) => document.querySelector(`[data-test=${at}]`).checkVisibility()"
_MUTED_TRACKS = """() => window.madeConnections.at(-1).getSenders()
  .filter((one) => one.track?.kind === "audio" && !one.track.enabled).length"""
# The energy of what was played in the last stretch of 1.5 s; the fake microphone beeps every second.
_LOUDNESS = """async (below) => {
  for (const one of (await window.madeConnections.at(-1).getStats()).values()) {
    if (one.type !== "inbound-rtp" || one.kind !== "audio") continue;
    const now = { energy: one.totalAudioEnergy, samples: one.totalSamplesReceived };
    const since = (window.heard ??= now);
    if (now.samples - since.samples < 72_000) return null;
    window.heard = now;
    const loudness = now.energy - since.energy;
    return below === null || loudness < below ? { loudness } : null;
  }
}"""


@dataclass(frozen=True)
class Stage:
    """A server and a browser; ``pair`` opens two tabs of two new people."""

    server: ServerProcess
    browser: Browser

    def pair(self) -> tuple[Page, Page]:
        number = next(_numbers)
        pages = []
        for name in (f"Ada {number}", f"Bea {number}"):
            page = self.browser.page(name).open(f"{self.server.address}/")
            page.join(name)
            pages.append(page)
        return pages[0], pages[1]


@pytest.fixture(scope="module")
def house(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("browser")
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


def talk(caller: Page, callee: Page, kind: str = "video") -> None:
    """Call, answer, and wait until media comes in on both sides."""
    caller.call(callee.name, kind)
    callee.until(_SHOWN, "accept")
    callee.click("accept")
    for page in (caller, callee):
        page.until_state("active")
        page.until_media_grows(video=kind == "video")


def test_two_tabs_see_and_hear_each_other_and_a_hang_up_on_one_side_ends_both(stage: Stage) -> None:
    ada, bea = stage.pair()
    talk(ada, bea)
    for page in (ada, bea):
        received = page.received()
        assert received["audioBytes"] > 0
        assert received["videoBytes"] > 0
        assert received["frames"] > 0
        assert page.text("state") == "active"
    bea.click("hangup")
    for page, other, direction in ((ada, bea, "Outgoing"), (bea, ada, "Incoming")):
        page.until_state("ended")
        page.until_text("history", f"{direction} video · completed")
        page.until_text("history", other.name)


def test_muting_silences_one_direction_and_leaves_the_call_up(stage: Stage) -> None:
    ada, bea = stage.pair()
    talk(ada, bea, "audio")
    loud = bea.until(_LOUDNESS)["loudness"]
    assert loud > 0
    ada.click("mute")
    ada.until(_MUTED_TRACKS)
    bea.until(_LOUDNESS, loud / 20)
    assert ada.text("state") == bea.text("state") == "active"
    ada.click("mute")
    ada.until(f"() => !({_MUTED_TRACKS})()")
    ada.click("hangup")
    bea.until_state("ended")


def test_a_chat_line_written_in_a_call_is_read_on_both_sides(stage: Stage) -> None:
    ada, bea = stage.pair()
    talk(ada, bea, "audio")
    bea.fill("chat-text", "Can you hear the <b>birds</b>?")
    bea.click("chat-send")
    for page in (ada, bea):
        page.until_text("chat-log", "Can you hear the <b>birds</b>?")
    ada.click("hangup")
    bea.until_state("ended")


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_page_that_is_reloaded_in_the_middle_takes_the_call_up_again(stage: Stage, who: str) -> None:
    ada, bea = stage.pair()
    talk(ada, bea)
    {"caller": ada, "callee": bea}[who].reload()
    for page in (ada, bea):
        page.until_state("active")
        page.until_media_grows()
    ada.click("hangup")
    for page in (ada, bea):
        page.until_state("ended")
        page.until_text("history", "completed")


def test_a_declined_call_ends_on_both_sides_and_says_so(stage: Stage) -> None:
    ada, bea = stage.pair()
    ada.call(bea.name)
    bea.until(_SHOWN, "reject")
    bea.click("reject")
    for page in (ada, bea):
        page.until_state("ended")
        page.until_text("history", "video · declined")


def test_a_caller_who_gives_up_leaves_a_missed_call(stage: Stage) -> None:
    ada, bea = stage.pair()
    ada.call(bea.name, "audio")
    bea.until(_SHOWN, "accept")
    ada.click("hangup")
    bea.until(f"(at) => !({_SHOWN})(at)", "accept")
    bea.until_text("history", "Missed audio · cancelled")
    ada.until_text("history", "Outgoing audio · cancelled")


def test_an_audio_call_becomes_a_video_call_when_the_other_side_agrees(stage: Stage) -> None:
    ada, bea = stage.pair()
    talk(ada, bea, "audio")
    assert ada.received()["videoBytes"] == 0
    ada.click("upgrade")
    bea.until(_SHOWN, "upgrade-accept")
    bea.click("upgrade-accept")
    for page in (ada, bea):
        page.until_media_grows(video=True)
        assert page.text("state") == "active"
    bea.click("hangup")
    for page in (ada, bea):
        page.until_text("history", "video · completed")


def test_a_call_outlives_the_death_of_the_server_between_the_two(stage: Stage) -> None:
    ada, bea = stage.pair()
    talk(ada, bea)
    stage.server.kill()
    stage.server.start()
    for page in (ada, bea):
        page.until_media_grows()  # from tab to tab: it does not pass through the server
    bea.fill("chat-text", "Still there?")
    bea.click("chat-send")
    for page in (ada, bea):
        page.until_text("chat-log", "Still there?")
        page.until_state("active")
    ada.click("hangup")
    for page in (ada, bea):
        page.until_text("history", "video · completed")
