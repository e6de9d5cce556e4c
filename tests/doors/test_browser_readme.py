"""The client in the README is a phone: its very text, with the browser's WebRTC for React Native's."""

from __future__ import annotations

import re
from pathlib import Path

from tests.doors.browser import chromium
from tests.doors.serverprocess import lodging_now, running

README = Path(__file__).parents[2] / "README.md"

# What Metro would bundle: the two imports, and the module's one export.
_IMPORTS = """
  const { io } = await import("/static/vendor/socket.io.esm.min.js");
  const { mediaDevices } = navigator;
"""
_SETUP = """async (name) => {
  %s
  const answer = await fetch("/api/auth/register", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ email: `${name}@example.com`, password: "a password" }),
  });
  const { user, accessToken: token } = await answer.json();
  const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true });
  document.body.append(video);
  const states = [];
  const onCall = (call) => states.push(call.state);
  const onStream = (stream) => (video.srcObject = stream);
  const me = phone({ url: location.origin, token, deviceId: name, onCall, onStream });
  Object.assign(window, { states, video, me });
  return user.id;
}"""


def client() -> str:
    """The README's module, as the body of a function."""
    (code,) = re.findall(r"```js\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 40, "a client that fits on a screen"
    imports = re.findall(r"^import .*$", code, re.MULTILINE)
    assert len(imports) == 2
    for line in imports:
        code = code.replace(line, "")
    return _IMPORTS + code.replace("export function phone", "function phone")


def test_two_tabs_with_the_readmes_client_see_each_other(mongo_uri: str, tmp_path: Path) -> None:
    setup = _SETUP % client()
    with (
        lodging_now(mongo_uri) as database,
        running(tmp_path / "server", mongo_uri=mongo_uri, database=database) as server,
        chromium(tmp_path / "profile") as browser,
    ):
        ada, bea = (browser.page(name).open(f"{server.address}/") for name in ("ada", "bea"))
        ada.run(setup, "ada")
        her = bea.run(setup, "bea")
        ada.run("(id) => me.ring(id, 'video')", her)
        bea.until("() => states.includes('ringing')")
        bea.run("() => me.accept()")
        for page in (ada, bea):
            page.until("() => video.videoWidth > 0 && video.currentTime > 0.3")
        bea.run("() => me.hangUp()")
        for page in (ada, bea):
            page.until("() => states.at(-1) === 'ended'")
        browser.pages.clear()
