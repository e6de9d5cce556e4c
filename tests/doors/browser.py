"""Chromium in the hands of a test: ``tests/js/browser.mjs`` in a process of its own, one line for each thing to do."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.doors.serverprocess import ROOT, program

JS = ROOT / "tests" / "js"
# The two sides of what flows: bytes that came in, and pictures that were made of them.
_RECEIVED = """async () => {
  const made = window.madeConnections ?? [];
  const live = made.filter((one) => one.connectionState === "connected").at(-1);
  if (!live) return null;
  const found = { audioBytes: 0, videoBytes: 0, frames: 0 };
  for (const one of (await live.getStats()).values()) {
    if (one.type !== "inbound-rtp") continue;
    found[`${one.kind}Bytes`] += one.bytesReceived;
    found.frames += one.framesDecoded ?? 0;
  }
  return found;
}"""
# The same for each connection that is up, under its number among those that the page has made.
_LEGS = """async () => {
  const legs = {};
  for (const [number, one] of (window.madeConnections ?? []).entries()) {
    if (one.connectionState !== "connected") continue;
    legs[number] = { audioBytes: 0, videoBytes: 0, frames: 0 };
    for (const stat of (await one.getStats()).values()) {
      if (stat.type !== "inbound-rtp") continue;
      legs[number][`${stat.kind}Bytes`] += stat.bytesReceived;
      legs[number].frames += stat.framesDecoded ?? 0;
    }
  }
  return legs;
}"""


class Page:
    """One tab: a person with a phone. Controls go by their ``data-test``."""

    def __init__(self, browser: Browser, name: str) -> None:
        self._browser = browser
        self.name = name

    def _do(self, verb: str, **with_: Any) -> Any:
        return self._browser.ask(verb, page=self.name, **with_)

    def open(self, url: str, **size: int) -> Page:
        self._do("open", url=url, **size)
        return self

    def fill(self, at: str, text: str) -> None:
        self._do("fill", at=at, text=text)

    def click(self, at: str) -> None:
        self._do("click", at=at)

    def select(self, at: str, option: str) -> None:
        """Choose of a list, by value or by label."""
        self._do("select", at=at, text=option)

    def until_gone(self) -> None:
        """Wait until the tab was closed."""
        self._do("gone")

    def text(self, at: str) -> str:
        return str(self._do("text", at=at))

    def reload(self) -> None:
        self._do("reload")

    def run(self, script: str, arg: Any = None) -> Any:
        return self._do("run", script=script, arg=arg)

    def until(self, script: str, arg: Any = None, *, within: float = 30.0) -> Any:
        """Wait until the script gives something true; that."""
        return self._do("until", script=script, arg=arg, withinMs=round(within * 1000))

    def until_text(self, at: str, text: str, *, within: float = 30.0) -> None:
        """Wait until a control's text holds ``text``."""
        script = "([at, text]) => document.querySelector(`[data-test=${at}]`)?.innerText.includes(text)"
        self.until(script, [at, text], within=within)

    def until_state(self, state: str, *, within: float = 30.0) -> None:
        script = "(state) => document.querySelector('[data-test=state]').textContent === state"
        self.until(script, state, within=within)

    def join(self, name: str) -> None:
        self.fill("name", name)
        self.click("join")
        self.until("() => document.querySelector('[data-test=peer]').checkVisibility()")

    def call(self, name: str, kind: str = "video") -> None:
        self.fill("peer", name)
        self.click(f"call-{kind}")

    def received(self) -> dict[str, int]:
        """What has come in over the connection that is up now."""
        found: dict[str, int] = self.until(_RECEIVED)
        return found

    def until_media_grows(self, *, video: bool = True) -> dict[str, int]:
        """Wait until more has come in than now, in every kind; the newer figures."""
        before = self.received()
        # not an async arrow with a promise that is always true: the driver awaits what it returns
        script = (
            f"async ([before, video]) => {{ const now = await ({_RECEIVED})(); return now"
            " && now.audioBytes > before.audioBytes"
            " && (!video || (now.videoBytes > before.videoBytes && now.frames > before.frames)) && now; }"
        )
        found: dict[str, int] = self.until(script, [before, video])
        return found

    def until_legs_grow(self, count: int, *, within: float = 30.0) -> dict[str, dict[str, int]]:
        """Wait for ``count`` connections with more sound and more pictures coming in on each; the figures."""
        script = f"""async (count) => {{
          const now = await ({_LEGS})();
          const before = (window.legsBefore ??= now);
          const grows = ([number, leg]) =>
            before[number] && ["audioBytes", "videoBytes", "frames"].every((what) => leg[what] > before[number][what]);
          const live = Object.entries(now);
          for (const [number] of live) before[number] ??= now[number];
          if (live.length !== count || !live.every(grows)) return null;
          window.legsBefore = undefined;
          return now;
        }}"""
        found: dict[str, dict[str, int]] = self.until(script, count, within=within)
        return found

    def show(self, html: str) -> None:
        self._do("content", html=html)

    def scheme(self, scheme: str) -> None:
        """``dark`` or ``light``."""
        self._do("scheme", scheme=scheme)

    def size(self, width: int, height: int) -> None:
        self._do("size", width=width, height=height)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """What is to be seen, or all of the page."""
        self._do("picture", path=str(path), whole=whole)

    def close(self) -> None:
        self._do("close")

    def console(self) -> list[str]:
        lines: list[str] = self._do("console")
        return lines


class Browser:
    """The driver's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self.pages: list[Page] = []
        assert self._read()["value"] == "ready"

    def page(self, name: str) -> Page:
        page = Page(self, name)
        self.pages.append(page)
        return page

    def forget(self) -> None:
        """Throw all cookies away."""
        self.ask("forget")

    def put_away(self, is_fault: Callable[[str], bool]) -> list[str]:
        """Close all tabs, as a test ends; what their consoles said that is a fault."""
        faults: list[str] = []
        for page in self.pages:
            lines = page.console()
            print(page.name, *lines, sep="\n  ")  # shown when the test has failed
            faults += filter(is_fault, lines)
            page.close()
        self.pages.clear()
        return faults

    def popup(self, name: str) -> Page:
        """The next tab that a page opens, or has opened, by that name."""
        page = self.page(name)
        self.ask("popup", page=name)
        return page

    def ask(self, verb: str, **with_: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": next(self._numbers), "do": verb, **with_}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        assert answer["ok"], f"{verb} {with_}: {answer['error']}"
        return answer["value"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the browser's driver has ended; its standard error says why"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile, gone at the end."""
    node, binary = program("node", "nodejs"), program("chromium", "chromium")
    if not (JS / "node_modules" / "playwright-core").exists():
        said = "playwright-core is missing: npm ci in tests/js"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    process = subprocess.Popen(
        [node, str(JS / "browser.mjs"), binary, str(profile)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Browser(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        process.stdout.close()
