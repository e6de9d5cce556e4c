"""Two tabs of the demo page write to each other: ticks, typing, edits, deletions, a picture, and who is there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doors.browser import Browser, Page, chromium
from tests.doors.serverprocess import ServerProcess, lodging_now, running

_numbers = itertools.count(1)
# The line of the log with these words.
_FIND = """[...document.querySelectorAll("[data-test=message]")]
  .find((one) => one.querySelector(".bubble > p")?.innerText === text)"""
_LINE = (
    f"([text, state]) => {{ const line = {_FIND}; return line && (!state || line.dataset.state === state); }}"
)
_ACT = f"""([text, act]) => {{
  const button = {_FIND}?.querySelector(`[data-test=message-${{act}}]`);
  button?.click();
  return button !== undefined && button !== null;
}}"""
_PRESENCE = "(state) => document.querySelector('[data-test=presence]').dataset.presence === state"
_TEXTS = """() => [...document.querySelectorAll("[data-test=message] .bubble")]
  .map((one) => [...one.children].map((part) => part.innerText).join(" / "))"""
_UNREAD = """([name, count]) => {
  const rows = [...document.querySelectorAll("[data-test=conversation]")];
  const row = rows.find((one) => one.querySelector("strong").innerText === name);
  return row && (row.querySelector(".badge")?.innerText ?? "") === count;
}"""
# A picture that no encoder makes small, chosen as a person would choose it.
_CHOOSE_PICTURE = """async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
  const pen = canvas.getContext("2d");
  for (let x = 0; x < 640; x += 20) {
    pen.fillStyle = `hsl(${x} 70% 50%)`;
    pen.fillRect(x, 0, 20, 480);
  }
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const files = new DataTransfer();
  files.items.add(new File([blob], "stripes.png", { type: "image/png" }));
  const input = document.querySelector("[data-test=chat-file]");
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
}"""
_THUMBNAIL = """() => {
  const image = document.querySelector("[data-test=message] img");
  return image?.complete && image.naturalWidth > 0 && { width: image.naturalWidth, height: image.naturalHeight };
}"""
_HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@dataclass(frozen=True)
class Stage:
    """A server and a browser; ``people`` opens a tab for each of some new people."""

    server: ServerProcess
    browser: Browser

    def people(self, *names: str) -> list[Page]:
        number = next(_numbers)
        pages = []
        for name in names:
            page = self.browser.page(f"{name} {number}").open(f"{self.server.address}/")
            page.join(page.name)
            pages.append(page)
        return pages


@pytest.fixture(scope="module")
def house(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("chat")
    with (
        lodging_now(mongo_uri) as database,
        running(folder / "server", mongo_uri=mongo_uri, database=database) as server,
        chromium(folder / "profile") as browser,
    ):
        yield Stage(server, browser)


@pytest.fixture
def stage(house: Stage) -> Iterator[Stage]:
    yield house
    faults = house.browser.put_away(lambda line: line.startswith("uncaught:") or "VALIDATION_FAILED" in line)
    assert faults == [], "what the pages say has to fit what the server hears"


def write(page: Page, text: str) -> None:
    page.fill("chat-text", text)
    page.click("chat-send")


def opened(page: Page, other: Page) -> None:
    """Name the other one in the dial, and wait for their chat."""
    page.fill("peer", other.name)
    page.until("(name) => document.querySelector('#chat-title').innerText === name", other.name)


def test_two_chat_with_typing_ticks_an_edit_a_reply_and_a_deletion(stage: Stage) -> None:
    ada, bea = stage.people("Ada", "Bea")
    opened(ada, bea)
    write(ada, "Are you there?")
    ada.until(_LINE, ["Are you there?", "read"])  # it came up at Bea, who had nobody named yet
    bea.until(_LINE, ["Are you there?", ""])

    bea.fill("chat-text", "Just a mom")
    ada.until_text("chat-typing", f"{bea.name} is typing…")
    write(bea, "Just a momemt")
    ada.until(_LINE, ["Just a momemt", ""])
    ada.until("() => document.querySelector('[data-test=chat-typing]').innerText === ''")

    bea.until(_ACT, ["Just a momemt", "edit"])
    assert "Editing" in bea.text("chat-strip")
    write(bea, "Just a moment")
    for page in (ada, bea):
        page.until(_LINE, ["Just a moment", ""])
        page.until_text("chat-log", "edited")
        assert "momemt" not in page.text("chat-log")

    ada.until(_ACT, ["Just a moment", "reply"])
    write(ada, "Take your time")
    for page in (ada, bea):
        page.until(_LINE, ["Take your time", ""])
        assert f"{bea.name}: Just a moment / Take your time" in page.run(_TEXTS)

    bea.until(_ACT, ["Just a moment", "delete"])
    for page in (ada, bea):
        page.until(_LINE, ["Message deleted", ""])
        assert page.run(_TEXTS)[1:] == ["Message deleted", f"{bea.name}: Message deleted / Take your time"]

    ada.reload()
    opened(ada, bea)
    ada.until("() => document.querySelectorAll('[data-test=message]').length === 3")
    assert ada.run(_TEXTS)[:2] == ["Are you there?", "Message deleted"]


def test_a_picture_is_sent_and_seen_as_a_thumbnail_by_both(stage: Stage) -> None:
    ada, bea = stage.people("Ada", "Bea")
    opened(ada, bea)
    ada.run(_CHOOSE_PICTURE)
    ada.until_text("chat-strip", "stripes.png")
    write(ada, "Look")
    for page in (ada, bea):
        page.until(_LINE, ["Look", ""])
        assert page.until(_THUMBNAIL) == {"width": 320, "height": 240}


def test_what_nobody_looked_at_is_delivered_unread_and_counted(stage: Stage) -> None:
    ada, bea, cyn = stage.people("Ada", "Bea", "Cyn")
    opened(bea, cyn)  # so that nothing of Ada's opens by itself
    opened(ada, bea)
    ada.until(_PRESENCE, "online")
    for text in ("One", "Two"):
        write(ada, text)
    ada.until(_LINE, ["Two", "delivered"])
    bea.click("chat-back")
    bea.until(_UNREAD, [ada.name, "2"])
    bea.run("() => document.querySelector('[data-test=conversation]').click()")
    for text in ("One", "Two"):
        ada.until(_LINE, [text, "read"])

    bea.run(_HIDE, True)
    ada.until(_PRESENCE, "away")
    write(ada, "Three")
    bea.until(_LINE, ["Three", ""])
    ada.until(_LINE, ["Three", "delivered"])
    bea.run(_HIDE, False)
    ada.until(_LINE, ["Three", "read"])

    bea.close()
    stage.browser.pages.remove(bea)
    ada.until(_PRESENCE, "offline")
    ada.until_text("presence", "last seen")
    write(ada, "Four")
    ada.until(_LINE, ["Four", "sent"])
