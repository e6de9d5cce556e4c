"""The modules in the guides do what the guides say: their very text in tabs, with the WebRTC of the browser.

Each module has a scope of its own, so that what it does not import it does not have.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest

from tests.doors.browser import Browser, Page, chromium
from tests.doors.serverprocess import ROOT, ServerProcess, lodging_now, running

GUIDES = ROOT / "docs" / "guides"
SECRET = "the secret of a server whose tokens a test makes"
# What is left to an app, by module: what it shows, and how it begins. `page` is what a test sees of it.
_CALLS = """
  const page = { states: [], video: null };
  const ui = { show: (call) => page.states.push(call.state), play: (stream) => (page.video = play(stream)) };
"""
_CHAT = """
  const page = { typing: null, ...modules["./chat"] };
  const ui = {
    changed: () => {},
    marked: () => {},
    typing: (user, yes) => (page.typing = yes ? user.id : null),
  };
"""
_ROOMS = """
  const page = { room: null, said: [], videos: {} };
  const ui = {
    show: (room) => (page.room = room),
    said: (message) => page.said.push(message.message),
    gone: (userId) => delete page.videos[userId],
    play: (userId, stream) => (page.videos[userId] = play(stream)),
  };
"""
# An account, the modules, and the sign-in as it stands at the end of each guide.
_APP = """async (name) => {
  const { io } = await import("/static/vendor/socket.io.esm.min.js");
  const { mediaDevices } = navigator;
  const modules = { "socket.io-client": { io }, "react-native-webrtc": { RTCPeerConnection, mediaDevices } };
  const play = (stream) => {
    const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true, srcObject: stream });
    document.body.append(video);
    return video;
  };
  const account = JSON.stringify({ email: `${name}@example.com`, username: name, password: "a password" });
  const headers = { "Content-Type": "application/json" };
  await fetch("/api/auth/register", { method: "POST", headers, body: account }); // refused to who comes again
  %(modules)s
  %(ui)s
  const api = modules["./api"], mine = modules["./%(name)s"];
  Object.assign(window, { page, ui, api, mine, heard: [] });
  const handle = mine.hear(ui);
  await new Promise((ready) =>
    api.signIn(name, "a password", name, async (event, said) => {
      await handle(event, said);
      heard.push(event);
      if (event === "SYNC") ready();
    }));
  return (await api.rest("GET", "/api/auth/profile")).user.id;
}"""
# Into the scope of api.js, for a connection that is lost and a token that has become old.
_WAY_IN = """
  tokens: () => tokens, lose: () => void socket.io.engine.close(),
  go: () => void socket.disconnect(), comeBack: () => void socket.connect()
"""
_PLAYS = "const plays = (video) => video?.videoWidth > 0 && video.currentTime > 0.3;"
_SEES = f"""(ids) => {{
  {_PLAYS}
  return Object.keys(page.videos).length === ids.length && ids.every((id) => plays(page.videos[id]));
}}"""
_SYNCS = "(count) => heard.filter((event) => event === 'SYNC').length === count"
_TEXTS = "[...page.messages.values()].sort((a, b) => a.seq - b.seq).map((one) => one.text)"
_MARK = "([them, event, seq]) => [...page.markers].some(([key, mark]) => key.endsWith(them) && mark[event] === seq)"


def module(guide: str, name: str, *, also: str = "") -> str:
    """A module of a guide as the statement that a bundler would make of it."""
    blocks = re.findall(r"```js\n(.*?)```", (GUIDES / guide).read_text(), re.DOTALL)
    (code,) = (block for block in blocks if block.startswith(f"// {name}.js\n"))
    code = re.sub(r"^import ({.*}) from (\".*\");$", r"const \1 = modules[\2];", code, flags=re.MULTILINE)
    exported = re.findall(r"^export (?:async )?(?:function|const) (\w+)", code, re.MULTILINE)
    code = re.sub(r"^export ", "", code, flags=re.MULTILINE)
    assert not re.search(r"^(import|export)\b", code, re.MULTILINE), "a form that this test does not know"
    code = code.replace('"https://calls.example.com"', "location.origin")
    return f'modules["./{name}"] = (() => {{\n{code}\nreturn {{ {", ".join([*exported, also])} }};\n}})();\n'


def app(guide: str, name: str, ui: str) -> str:
    """What makes a tab an app with that module."""
    modules = module("clients.md", "api", also=_WAY_IN) + module(guide, name)
    return _APP % {"modules": modules, "ui": ui, "name": name}


@dataclass(frozen=True)
class Stage:
    """A server and a browser."""

    server: ServerProcess
    browser: Browser

    def begin(self, name: str, code: str) -> tuple[Page, str]:
        """A tab in which somebody has signed in, and their id."""
        page = self.browser.page(name).open(f"{self.server.address}/")
        return page, page.run(code, name)


@pytest.fixture(scope="module")
def house(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("guides")
    with (
        lodging_now(mongo_uri) as database,
        running(folder / "server", mongo_uri=mongo_uri, database=database, JWT_SECRET=SECRET) as server,
        chromium(folder / "profile") as browser,
    ):
        yield Stage(server, browser)


@pytest.fixture
def stage(house: Stage) -> Iterator[Stage]:
    yield house
    faults = house.browser.put_away(lambda line: line.startswith("uncaught:") or "Some fields are" in line)
    assert faults == [], "what a module sends has to fit what the server hears"


def test_the_client_of_the_guide_calls_and_comes_back(stage: Stage) -> None:
    code = app("clients.md", "calls", _CALLS)
    (ada, _), (bea, beas) = (stage.begin(name, code) for name in ("ada", "bea"))
    ada.run("(to) => mine.ring(to, 'video', ui)", beas)
    bea.until("() => page.states.at(-1) === 'ringing'")
    bea.run("() => mine.accept(ui)")
    for page in (ada, bea):
        page.until(f"() => {{ {_PLAYS} return plays(page.video) && page.states.at(-1) === 'active'; }}")

    for page in (ada, bea):  # one after the other: after a restart of ICE the call is as before
        page.run("() => api.lose()")
        page.until(_SYNCS, 2)
        for one in (ada, bea):
            one.until("() => page.states.at(-2) === 'reconnecting' && page.states.at(-1) === 'active'")
            one.until_media_grows()
    bea.run("() => mine.hangUp()")
    for page in (ada, bea):
        page.until("() => page.states.at(-1) === 'ended'")


def test_the_client_of_the_guide_outlives_its_token(stage: Stage) -> None:
    (cyn, _) = stage.begin("cyn", app("clients.md", "calls", _CALLS))

    def token(seconds: int) -> str:
        """The token of the tab, but good for so many seconds from now."""
        claims = jwt.decode(
            cyn.run("() => api.tokens().accessToken"), SECRET, algorithms=["HS256"], audience="ringmeter"
        )
        return jwt.encode(claims | {"exp": int(time.time()) + seconds}, SECRET, algorithm="HS256")

    old = token(-1)
    cyn.run("(token) => (api.tokens().accessToken = token)", old)
    profile = "api.rest('GET', '/api/auth/profile').then(({ user }) => user.username)"
    assert cyn.run(f"() => Promise.all([{profile}, {profile}])") == ["cyn", "cyn"], "one refresh for both"
    assert cyn.run("() => api.tokens().accessToken") != old

    cyn.run("(token) => { api.tokens().accessToken = token; api.lose(); }", old)
    cyn.until(_SYNCS, 2)
    assert cyn.run("() => api.tokens().accessToken") != old

    soon = token(30)
    cyn.run("(token) => { api.tokens().accessToken = token; api.lose(); }", soon)
    cyn.until("() => heard.includes('AUTH_EXPIRING')")
    cyn.until("(soon) => api.tokens().accessToken !== soon", soon)

    cyn.run(
        "() => api.send('PRESENCE_SET', { state: 'online' })"
    )  # answered after the AUTH_REFRESH before it
    cyn.run("() => api.rest('POST', '/api/auth/logout-all')")
    cyn.until("() => heard.at(-1) === 'SIGNED_OUT'")


def test_the_guide_to_rooms_is_a_mesh_of_three(stage: Stage) -> None:
    code = app("rooms.md", "rooms", _ROOMS)
    (fay, fays), (gus, guss), (hal, hals) = (stage.begin(name, code) for name in ("fay", "gus", "hal"))
    everybody = ((fay, [guss, hals]), (gus, [fays, hals]), (hal, [fays, guss]))
    room = fay.run("async () => (await api.rest('POST', '/api/room/create', { name: 'Monday' })).room.id")
    for page, _ in everybody:
        page.run("(id) => mine.join(id, ui)", room)
    for page, others in everybody:
        page.until(_SEES, others)
        page.until("() => page.room.participants.length === 3")
    gus.run("async () => void (await mine.say('Good morning'))")
    for page in (fay, hal):
        page.until("() => page.said.join() === 'Good morning'")

    for page, _ in everybody:  # what plays from here on plays over connections that are new
        page.run("(id) => void delete page.videos[id]", guss)
    gus.run("() => { page.videos = {}; api.lose(); }")
    gus.until(_SYNCS, 2)
    for page, others in everybody:
        page.until(_SEES, others)

    hal.run("() => mine.leave(ui)")
    for page, others in ((fay, [guss]), (gus, [fays]), (hal, [])):
        page.until(_SEES, others)
    fay.run("async (id) => void (await api.rest('POST', `/api/room/${id}/close`))", room)
    for page in (fay, gus):
        page.until("() => page.room === null && !Object.keys(page.videos).length")


def test_the_guide_to_the_chat_is_a_chat(stage: Stage) -> None:
    code = app("chat.md", "chat", _CHAT)
    (dan, dans), (eve, eves) = (stage.begin(name, code) for name in ("dan", "eve"))
    dan.run("async (to) => void (await mine.typing({ to }))", eves)
    eve.until("(id) => page.typing === id", dans)
    dan.run("async (to) => { await mine.write({ to }, 'Hello'); await mine.write({ to }, 'Wordl'); }", eves)
    eve.until(f"() => {_TEXTS}.join() === 'Hello,Wordl' && page.typing === null")
    dan.until(_MARK, [eves, "MESSAGE_DELIVERED", 2])
    dan.run("async () => void (await mine.edit([...page.messages.values()].at(-1), 'World'))")
    eve.until(f"() => {_TEXTS}.join() === 'Hello,World'")
    dan.run("async () => void (await mine.remove([...page.messages.values()][0]))")
    eve.until(f"() => {_TEXTS}.join() === ',World'")
    eve.run("async () => void (await mine.read([...page.messages.values()].at(-1)))")
    dan.until(_MARK, [eves, "MESSAGE_READ", 2])

    eve.run("() => api.go()")
    made = "async (id) => (await api.rest('POST', '/api/chat/groups', { name: 'We', memberIds: [id] })).conversation"
    us = dan.run(made, eves)["id"]
    dan.run("async (conversationId) => void (await mine.write({ conversationId }, 'Who is hungry?'))", us)
    dan.run("async (to) => void (await mine.write({ to }, 'Are you there?'))", eves)
    eve.run("() => api.comeBack()")
    for text in ("Who is hungry?", "Are you there?"):
        eve.until(f"(text) => {_TEXTS}.includes(text)", text)

    (again, _) = stage.begin("eve", code)  # the app is started anew, and has nothing
    again.until(f"() => {_TEXTS}.filter(Boolean).length === 3")
    texts = again.run(f"() => {_TEXTS}.filter(Boolean)")
    assert sorted(texts) == ["Are you there?", "Who is hungry?", "World"]
