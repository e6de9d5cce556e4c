"""Takes the pictures of the README and the guides, docs/images/*.png: ``python -m tests.doors.picture [NAME]``.

Two tabs of the demo in a real call, each at a phone's width, side by side; and a room of three, as one of them sees it.
Browsers without a camera show a test pattern; so that there is somebody to see, each tab's camera is a drawing of a
person. The call is charged by the second, so that the money is seen to run. And the checkout of the sandbox beside the
wallet into which it pays. All else is as users have it.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.doors.browser import Browser, Page, chromium
from tests.doors.serverprocess import ROOT, ServerProcess, running

WIDTH, HEIGHT = 390, 760
ROOM_WIDTH, ROOM_HEIGHT = 1160, 780
TARIFF = {
    "CALL_RATE_MINOR": "6000",
    "CALL_FIRST_BLOCK_SECONDS": "1",
    "CALL_BLOCK_SECONDS": "1",
    "CALL_MINIMUM_MINOR": "0",
}
IMAGES = ROOT / "docs" / "images"
_CAMERA = """([sky, ground, skin, hair, shirt]) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 960, height: 540 });
  const pen = canvas.getContext("2d");
  const round = (x, y, rx, ry, color) => {
    pen.fillStyle = color;
    pen.beginPath();
    pen.ellipse(x, y, rx, ry, 0, 0, 2 * Math.PI);
    pen.fill();
  };
  const draw = () => {
    const sway = Math.sin(performance.now() / 700) * 6;
    const wall = pen.createLinearGradient(0, 0, 0, 540);
    wall.addColorStop(0, sky);
    wall.addColorStop(1, ground);
    pen.fillStyle = wall;
    pen.fillRect(0, 0, 960, 540);
    round(760, 110, 46, 46, "rgba(255,255,255,.35)");
    round(480 + sway / 2, 575, 250, 190, shirt);
    round(480 + sway, 245, 142, 158, hair);
    round(480 + sway, 400, 52, 70, skin);
    round(480 + sway, 275, 112, 132, skin);
    pen.fillStyle = hair;
    pen.beginPath();
    pen.ellipse(480 + sway, 200, 122, 78, 0, Math.PI, 2 * Math.PI);
    pen.fill();
    for (const side of [-42, 42]) round(480 + sway + side, 270, 9, 12, "#2b2118");
    pen.strokeStyle = "#7a3d2e";
    pen.lineWidth = 7;
    pen.lineCap = "round";
    pen.beginPath();
    pen.arc(480 + sway, 318, 38, 0.2 * Math.PI, 0.8 * Math.PI);
    pen.stroke();
  };
  setInterval(draw, 50);
  const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async ({ audio, video }) => {
    const stream = new MediaStream();
    if (audio) (await real({ audio })).getTracks().forEach((track) => stream.addTrack(track));
    if (video) canvas.captureStream(20).getTracks().forEach((track) => stream.addTrack(track));
    return stream;
  };
}"""
_ADA = ["#f6c28b", "#e98a6b", "#8d5a3b", "#241712", "#2f6f6a"]
_BEA = ["#9fc3e8", "#6b7fc4", "#f0c9a4", "#8a3b1f", "#b8475f"]
_CYN = ["#b9d8b0", "#6fa58c", "#c68d62", "#3a2a24", "#c9923a"]
# Whether so many others come in at the size at which they are sent.
_SHARP = """(count) => [...document.querySelectorAll("[data-test=room-tile] video:not(.own)")]
  .filter((one) => one.videoWidth >= 960).length === count"""
_SIDE_BY_SIDE = """<style>body {{ margin: 0; display: flex; gap: 28px; padding: 28px; background: #e9e7f2 }}
img {{ width: {width}px; border-radius: 26px; box-shadow: 0 10px 34px rgb(30 20 60 / .28) }}</style>{images}"""


def main(names: Sequence[str]) -> None:
    """A call, a room, a payment, on one server; only those of these names, if there are any."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder / "server", **TARIFF) as server, chromium(folder / "profile") as browser:
            made = {
                "demo": lambda to: call(server, browser, folder, to),
                "room": lambda to: room(server, browser, to),
                "checkout": lambda to: checkout(server, browser, folder, to),
            }
            pictures = [IMAGES / f"{name}.png" for name in names or made]
            for picture in pictures:
                made[picture.stem](picture)
    for picture in pictures:
        Image.open(picture).convert("RGB").save(picture, optimize=True)
        print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size // 1024} KiB")


def call(server: ServerProcess, browser: Browser, folder: Path, picture: Path) -> None:
    """Make the call, take the two shots, and lay them side by side."""
    ada = browser.page("Ada").open(f"{server.address}/", width=WIDTH, height=HEIGHT)
    bea = browser.page("Bea").open(f"{server.address}/", width=WIDTH, height=HEIGHT)
    for page, colors in ((ada, _ADA), (bea, _BEA)):
        page.join(page.name)
        page.until_text("balance", "500")
        page.run(_CAMERA, colors)
    ada.call("Bea")
    bea.until("() => document.querySelector('[data-test=accept]').checkVisibility()")
    bea.click("accept")
    for page in (ada, bea):
        page.until_state("active")
        page.until_media_grows()
    for page in (ada, bea):
        page.until("() => document.querySelector('[data-test=charged]').innerText >= '₦7.00'")
    _side_by_side(browser, [_shot(page, folder) for page in (ada, bea)], picture)
    ada.click("hangup")
    bea.until_state("ended")
    for page in (ada, bea):
        page.close()


def checkout(server: ServerProcess, browser: Browser, folder: Path, picture: Path) -> None:
    """Cyn pays in: the page on which she pays, and her wallet when it has come in."""
    cyn = browser.page("Cyn Payer").open(f"{server.address}/", width=WIDTH, height=HEIGHT)
    cyn.join(cyn.name)
    cyn.until_text("balance", "500")
    cyn.click("pay-in")
    till = browser.popup("till")
    till.until_text("checkout-title", "Pay")
    shots = [_shot(till, folder)]
    till.click("overpaid")
    cyn.until_text("balance", "1,100")
    till.until_gone()
    cyn.click("wallet-open")
    cyn.run("() => document.querySelector('#statement-part').setAttribute('open', '')")
    cyn.until_text("lines", "Paid in")
    cyn.run("() => Promise.all(document.getAnimations().map((one) => one.finished)).then(() => null)")
    shots.append(_shot(cyn, folder))
    _side_by_side(browser, shots, picture)
    cyn.close()


def _side_by_side(browser: Browser, shots: Sequence[str], picture: Path) -> None:
    both = browser.page("both").open("about:blank", width=2 * WIDTH + 84, height=HEIGHT + 56)
    both.show(_SIDE_BY_SIDE.format(width=WIDTH, images="".join(shots)))
    both.picture(picture)
    both.close()


def room(server: ServerProcess, browser: Browser, picture: Path) -> None:
    """Three people in the mesh who write to each other, too, as the first of them sees it."""
    people: list[Page] = []
    at = f"{server.address}/rooms"
    for name, colors in (("Ada", _ADA), ("Bea", _BEA), ("Cyn", _CYN)):
        page = browser.page(f"{name} in the room").open(at, width=ROOM_WIDTH, height=ROOM_HEIGHT)
        page.fill("name", name)
        page.click("join")
        if not people:
            page.until("() => document.querySelector('[data-test=room-create]').checkVisibility()")
            page.fill("room-name", "Monday stand-up")
            page.click("room-create")
            page.until_text("room-link", "/rooms?room=")
            at = page.text("room-link")
        page.until("() => document.querySelector('[data-test=room-join]').checkVisibility()")
        page.run(_CAMERA, colors)
        page.click("room-join")
        page.until("() => document.querySelector('[data-test=room-state]').textContent === 'joined'")
        people.append(page)
    for page in people:
        page.until_legs_grow(2)
    ada, bea, cyn = people
    for page, text in (
        (bea, "Good morning! I can see you both."),
        (cyn, "And I hear you."),
        (ada, "Then let us begin: who goes first?"),
        (bea, "I do. The release is out since Friday."),
    ):
        page.fill("room-chat-text", text)
        page.click("room-chat-send")
        for one in people:
            one.until_text("room-chat-log", text)
    for page in people:  # the codec has had time for a sharp picture
        page.until(_SHARP, 2)
    ada.run("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    ada.picture(picture)
    for page in people:
        page.click("room-leave")
        page.close()


def _shot(page: Page, folder: Path) -> str:
    path = folder / f"{page.name}.png"
    page.run("() => scrollTo(0, 0)")
    page.picture(path)
    return f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


if __name__ == "__main__":
    main(sys.argv[1:])
