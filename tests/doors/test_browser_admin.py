"""The administrators' pages in a real browser: a paid call that runs is ended, its caller banned, the money given back,
and all three are found in the trail. On a phone's width nothing goes out of the screen.

``ADMIN_PICTURES=folder`` keeps pictures of the pages, of which the guide has one.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyotp
import pytest

from server.clock import SystemClock
from tests.doors.browser import Browser, Page, chromium
from tests.doors.serverprocess import ServerProcess, lodging_now, running

SETTINGS = {"CALL_RATE_MINOR": "1000"}
PASSWORD = "correct horse battery"
WIDE, NARROW = (1280, 860), (390, 844)
PICTURES = os.environ.get("ADMIN_PICTURES")
_numbers = itertools.count(1)
_REGISTER = """async ([name, password]) => {
  const body = JSON.stringify({ email: `${name}@example.org`, username: name, displayName: "Wanda Warden", password });
  const headers = { "Content-Type": "application/json" };
  return (await fetch("/api/auth/register", { method: "POST", headers, body })).status;
}"""
_HEADING = "(text) => document.querySelector('h1')?.innerText.includes(text)"
_SHOWN = "(at) => document.querySelector(`[data-test=${at}]`)?.checkVisibility()"
# Wider than the screen, or out of it to the side; what scrolls by itself is no fault.
_TOO_WIDE = """() => {
  const wide = [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility()
    && !one.closest(".unseen, .skip, thead") && one.getBoundingClientRect().right > innerWidth + 1);
  const page = document.documentElement.scrollWidth > innerWidth;
  return page || wide.length ? [page, ...wide.slice(0, 5).map((one) => one.outerHTML.slice(0, 200))] : null;
}"""
# What a thumb cannot hit: links in a running text are exempt (WCAG 2.2, 2.5.8).
_TOO_SMALL = """() => [...document.querySelectorAll("button, summary, select, .nav a, .button, input")]
  .filter((one) => one.checkVisibility() && !["radio", "checkbox", "hidden"].includes(one.type))
  .filter((one) => one.getBoundingClientRect().height < 38)
  .map((one) => one.outerHTML.slice(0, 120))"""


@dataclass(frozen=True)
class Stage:
    """A server and a browser."""

    server: ServerProcess
    browser: Browser

    def person(self, name: str) -> Page:
        """Somebody with a phone, and the first money that the demo sees to."""
        page = self.browser.page(f"{name} {next(_numbers)}").open(f"{self.server.address}/")
        page.join(page.name)
        page.until_text("balance", "₦500.00")
        return page

    def paid_call(self) -> tuple[Page, Page]:
        """Two people who talk, and pay for it."""
        ada, bea = self.person("Ada"), self.person("Bea")
        ada.call(bea.name, "audio")
        bea.until(_SHOWN, "accept")
        bea.click("accept")
        for page in (ada, bea):
            page.until_state("active")
        return ada, bea


class Desk:
    """An administrator's browser."""

    def __init__(self, stage: Stage, size: tuple[int, int]) -> None:
        self.name = f"warden{next(_numbers)}"
        self.page = stage.browser.page(self.name)
        stage.browser.forget()
        self.page.open(f"{stage.server.address}/admin/login", width=size[0], height=size[1])
        assert self.page.run(_REGISTER, [self.name, PASSWORD]) == 201
        promoted = stage.server.command("users", "promote", self.name)
        assert promoted.returncode == 0, promoted.stdout + promoted.stderr
        self.recovery: list[str] = []

    def enter(self) -> None:
        """Sign in for the first time, which sets up the second factor."""
        page = self.page
        page.fill("identifier", self.name)
        page.fill("password", PASSWORD)
        self.picture("sign-in")
        page.click("sign-in")
        page.until(_SHOWN, "secret")
        self.picture("second-factor")
        secret = page.text("secret").replace(" ", "")
        page.fill("code", pyotp.TOTP(secret).at(SystemClock().now()))
        page.click("enrol")
        page.until(_SHOWN, "recovery")
        self.recovery = re.findall(r"[0-9A-Z]{4}(?:-[0-9A-Z]{4}){3,}", page.text("recovery"))
        assert len(self.recovery) == 10
        page.click("go-on")
        page.until(_HEADING, "Overview")

    def go(self, path: str, heading: str) -> None:
        self.page.run("(path) => { location = path; }", f"/admin{path}")
        self.page.until(
            "([path, text]) => location.pathname + location.search === path"
            " && document.readyState === 'complete' && document.querySelector('h1')?.innerText.includes(text)",
            [f"/admin{path}", heading],
        )

    def do(self, act: str, reason: str, **fields: str) -> None:
        """Open an act's form, say why, and press its button."""
        page = self.page
        if not page.run("(at) => document.querySelector(`[data-test=act-${at}]`).open", act):
            page.click(f"open-{act}")
        page.fill(f"reason-{act}", reason)
        for name, value in fields.items():
            page.fill(name.replace("_", "-"), value)
        self.picture(f"act-{act}")
        page.click(f"do-{act}")

    def picture(self, name: str) -> None:
        if PICTURES:
            width = self.page.run("() => innerWidth")
            for scheme in ("dark", "light"):
                self.page.scheme(scheme)
                self.page.picture(Path(PICTURES) / f"{name}-{width}-{scheme}.png", whole=width < 500)

    def fits(self, name: str) -> None:
        """Nothing is wider than the screen, or too small for a thumb."""
        self.picture(name)
        assert self.page.run(_TOO_WIDE) is None, name
        assert self.page.run(_TOO_SMALL) == [], name


@pytest.fixture(scope="module")
def house(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("admin")
    with (
        lodging_now(mongo_uri) as database,
        running(folder / "server", mongo_uri=mongo_uri, database=database, **SETTINGS) as server,
        chromium(folder / "profile") as browser,
    ):
        yield Stage(server, browser)
        for command in (("audit",), ("trail", "verify")):
            checked = server.command(*command)
            assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture
def stage(house: Stage) -> Iterator[Stage]:
    yield house
    # A policy that stops something of ours would say so here.
    faults = house.browser.put_away(
        lambda line: line.startswith("uncaught:") or "Content Security Policy" in line
    )
    assert faults == []


def test_a_running_call_is_ended_its_caller_banned_the_money_given_back_and_all_of_it_found(
    stage: Stage,
) -> None:
    ada, bea = stage.paid_call()
    desk = Desk(stage, WIDE)
    desk.enter()
    page = desk.page
    desk.picture("overview")

    desk.go("/calls", "Live calls")
    page.until_text("live", ada.name)
    page.until_text("live", "NGN 10.00")
    talked = "() => document.querySelector('[data-test=live-call] [data-name=Talked]').innerText"
    before = page.run(talked)
    page.run("() => { window.sameDocument = true; }")
    page.until(f"(before) => ({talked})() !== before", before)
    assert page.run("() => window.sameDocument"), "the money runs without a reload"
    desk.picture("calls")
    page.click("end-call")
    page.until(_SHOWN, "reason-end")
    desk.do("end", "Threats, heard by three")
    page.until_text("said", "has ended")
    for phone in (ada, bea):
        phone.until_state("ended")
    page.until_text("call-state", "policy")
    page.until_text("call-cost", "NGN 10.00")
    where = page.run("() => location.pathname")

    page.run(
        "(name) => [...document.querySelectorAll('a.person')].find((one) => one.innerText === name).click()",
        ada.name,
    )
    page.until(_HEADING, ada.name)
    desk.do("ban", "Reports 12 and 14")
    page.until_text("said", "is banned")
    page.until_text("status", "banned")
    ada.until("() => document.querySelector('#link')?.dataset.status !== 'online'")
    desk.picture("person")

    desk.go(where.removeprefix("/admin"), ada.name)
    page.click("refund")
    page.until(_HEADING, "Give money back")
    desk.do("refund", "They were threatened", code_refund="000000")
    page.until_text("problem", "This code is wrong")
    page.fill("code-refund", desk.recovery[0])
    page.click("do-refund")
    page.until_text("said", "NGN 10.00")
    page.until_text("call-refunded", "NGN 10.00")

    desk.go("/trail", "Trail")
    for act, why in (
        ("call.end", "Threats, heard by three"),
        ("user.ban", "Reports 12 and 14"),
        ("call.refund", "They were threatened"),
    ):
        page.select("trail-act", act)
        page.fill("trail-text", why)
        page.click("trail-find")
        page.until("(act) => new URLSearchParams(location.search).get('act') === act", act)
        page.until_text("trail", why)
        rows = "() => [...document.querySelectorAll('[data-test=trail-row]')].map((one) => one.dataset.act)"
        assert page.run(rows) == [act]
        page.until_text("trail", desk.name)
    desk.go("/trail", "Trail")
    desk.picture("trail")
    page.click("verify")
    page.until_text("verdict", "The chain holds")


def test_every_page_fits_a_phone(stage: Stage) -> None:
    ada, bea = stage.paid_call()
    desk = Desk(stage, NARROW)
    page = desk.page
    desk.fits("sign-in")
    desk.enter()
    desk.fits("overview")
    page.click("menu")
    desk.fits("menu")
    page.run("() => [...document.querySelectorAll('.menu [data-test=nav-people]')][0].click()")
    page.until(_HEADING, "People")
    desk.fits("people")
    links = page.run(
        "() => [...document.querySelectorAll('.menu .nav a')].map((one) => one.getAttribute('href'))"
    )
    assert len(links) >= 5
    for link in links:
        page.run("(path) => { location = path; }", link)
        page.until("(path) => location.pathname === path && document.readyState === 'complete'", link)
        desk.fits(link.strip("/").replace("/", "-"))
    desk.go("/calls", "Live calls")
    page.until_text("live", ada.name)
    desk.fits("calls")
    page.click("end-call")
    page.until(_SHOWN, "reason-end")
    desk.fits("call")
    desk.do("end", "It was enough")
    page.until_text("said", "has ended")
    bea.until_state("ended")
    page.click("refund")
    page.until(_HEADING, "Give money back")
    desk.fits("refund")
    page.run("(path) => { location = path; }", "/admin/people?text=Ada")
    page.until("() => document.querySelectorAll('[data-test=person]').length > 0")
    page.run("() => document.querySelector('[data-test=person] a.person').click()")
    page.until(_SHOWN, "status")
    desk.fits("person")
    page.run("() => document.querySelectorAll('.act').forEach((one) => { one.open = true; })")
    desk.fits("person-acts")
    page.run("(path) => { location = path; }", "/admin/nothing")
    page.until(_SHOWN, "problem")
    desk.fits("refused")
