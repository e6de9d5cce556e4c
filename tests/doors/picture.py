"""Takes docs/images/demo.png, the picture of the README: ``python -m tests.doors.picture``.

Two tabs of the demo in a real call, each at a phone's width, side by side. Browsers without a camera show a test
pattern; so that there is somebody to see, each tab's camera is a drawing of a person. The call is charged by the
second, so that the money is seen to run. All else is as users have it.
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from tests.doors.browser import Page, chromium
from tests.doors.serverprocess import ROOT, running

WIDTH, HEIGHT = 390, 760
TARIFF = {
    "CALL_RATE_MINOR": "6000",
    "CALL_FIRST_BLOCK_SECONDS": "1",
    "CALL_BLOCK_SECONDS": "1",
    "CALL_MINIMUM_MINOR": "0",
}
PICTURE = ROOT / "docs" / "images" / "demo.png"
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
_SIDE_BY_SIDE = """<style>body {{ margin: 0; display: flex; gap: 28px; padding: 28px; background: #e9e7f2 }}
img {{ width: {width}px; border-radius: 26px; box-shadow: 0 10px 34px rgb(30 20 60 / .28) }}</style>{images}"""


def main() -> None:
    """Make the call, take the two shots, and lay them side by side."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder / "server", **TARIFF) as server, chromium(folder / "profile") as browser:
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
            shots = [_shot(page, folder) for page in (ada, bea)]
            both = browser.page("both").open("about:blank", width=2 * WIDTH + 84, height=HEIGHT + 56)
            both.show(_SIDE_BY_SIDE.format(width=WIDTH, images="".join(shots)))
            PICTURE.parent.mkdir(parents=True, exist_ok=True)
            both.picture(PICTURE)
            ada.click("hangup")
            bea.until_state("ended")
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1024} KiB")


def _shot(page: Page, folder: Path) -> str:
    path = folder / f"{page.name}.png"
    page.run("() => scrollTo(0, 0)")
    page.picture(path)
    return f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


if __name__ == "__main__":
    main()
