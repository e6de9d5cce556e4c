"""The demo page shows the money: two tabs in Chromium, paid calls of a few seconds, this server between them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.billing.receipt import price_view
from models.calls.call import Price
from models.calls.tariff import cost_of
from tests.doors.browser import Browser, Page, chromium
from tests.doors.serverprocess import ServerProcess, lodging_now, running

# Calls by the second, so dear that the 500 with which a wallet begins last for 6 of them (and 3 with video).
TARIFF = {
    "CALL_RATE_MINOR": "500000",
    "CALL_VIDEO_RATE_MINOR": "1000000",
    "CALL_FIRST_BLOCK_SECONDS": "1",
    "CALL_BLOCK_SECONDS": "1",
    "CALL_MINIMUM_MINOR": "0",
}
_numbers = itertools.count(1)
_SHOWN = "(at) => document.querySelector(`[data-test=${at}]`).checkVisibility()"
_HIDDEN = "(at) => !document.querySelector(`[data-test=${at}]`).checkVisibility()"
# The figure that a control shows, once it is shown and (with `above`) more than that.
_FIGURE = """([at, above]) => {
  const shown = document.querySelector(`[data-test=${at}]`);
  const figure = Number(shown.innerText.replace(/[^0-9.]/g, ""));
  return shown.checkVisibility() && figure > above ? { figure } : null;
}"""
_LASTS = """(above) => {
  const [minutes, seconds] = document.querySelector("[data-test=lasts]").innerText.split(":").map(Number);
  return 60 * minutes + seconds > above;
}"""
_TOTAL = "(text) => document.querySelector('[data-test=receipt] .total .amount')?.innerText === text"
_SET_RATE = """async (ratePerMinuteMinor) => {
  const { accessToken } = JSON.parse(sessionStorage.getItem("ringmeter.session"));
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${accessToken}` };
  const answer = await fetch("/api/user/profile", {
    method: "PUT", headers, body: JSON.stringify({ ratePerMinuteMinor }),
  });
  return answer.status;
}"""
_RECKON = """async (asked) => {
  const { costOf } = await import("/static/demo/money.js");
  return asked.map(([price, talkMs]) => costOf(price, talkMs));
}"""
_KEEP_FILES = """() => {
  const made = URL.createObjectURL;
  URL.createObjectURL = (blob) => {
    window.kept = blob;
    return made.call(URL, blob);
  };
}"""


@dataclass(frozen=True)
class Stage:
    """A server and a browser; ``pair`` opens two tabs of two new people with a wallet each."""

    server: ServerProcess
    browser: Browser

    def pair(self) -> tuple[Page, Page]:
        number = next(_numbers)
        pages = []
        for name in (f"Ada {number}", f"Bea {number}"):
            page = self.browser.page(name).open(f"{self.server.address}/")
            page.join(name)
            page.until_text("balance", "₦500.00")
            pages.append(page)
        return pages[0], pages[1]


@pytest.fixture(scope="module")
def house(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("money")
    with (
        lodging_now(mongo_uri) as database,
        running(folder / "server", mongo_uri=mongo_uri, database=database, **TARIFF) as server,
        chromium(folder / "profile") as browser,
    ):
        yield Stage(server, browser)


@pytest.fixture
def stage(house: Stage) -> Iterator[Stage]:
    yield house
    faults = house.browser.put_away(lambda line: line.startswith(("uncaught:", "error:")))
    assert faults == [], "a page under this policy, with what this server says, has nothing to complain about"


def figure(page: Page, at: str, above: float = -1) -> float:
    """The amount that a control shows; waits until it is more than ``above``."""
    return float(page.until(_FIGURE, [at, above])["figure"])


def pay_in(stage: Stage, page: Page) -> None:
    """Go to the checkout, and pay there; its tab goes when that is done."""
    page.click("pay-in")
    checkout = stage.browser.popup(f"{page.name} at the checkout")
    checkout.click("paid")
    checkout.until_gone()


def answer(caller: Page, callee: Page) -> None:
    callee.until(_SHOWN, "accept")
    callee.click("accept")
    for page in (caller, callee):
        page.until_state("active")


def test_a_paid_call_is_seen_from_its_price_to_its_receipt(stage: Stage, tmp_path: Path) -> None:
    ada, bea = stage.pair()
    ada.fill("peer", bea.name)
    ada.until_text("price", "Audio ₦5,000.00, video ₦10,000.00 a minute")
    ada.until_text("price-terms", "charged by the second · your ₦500.00 lasts 6 s, with video 3 s")

    ada.click("call-audio")
    bea.until(_SHOWN, "accept")
    assert "pays ₦5,000.00 a minute" in bea.run("() => document.querySelector('#incoming-kind').innerText")
    answer(ada, bea)
    ada.until("() => document.querySelector('[data-test=balance]').innerText === '₦0.00'")
    ada.until_text("warning", "about to be cut off")
    bea.until(_HIDDEN, "warning")
    assert not ada.run(_LASTS, 6)
    pay_in(stage, ada)
    ada.until(_LASTS, 6)
    for page in (ada, bea):
        figure(page, "charged", above=figure(page, "charged"))
    figure(ada, "charged", above=500)  # beyond the money with which it began

    for page in (ada, bea):
        page.until_state("ended")
        assert "The money ran out" in page.run("() => document.querySelector('#words').innerText")
        page.until(_SHOWN, "receipt")
        assert page.text("charged") == "₦1,000.00"
        page.until(_TOTAL, "₦1,000.00")
        page.until_text("history", "out of money")
        page.until_text("history", "0:12")
    ada.until_text("balance", "₦0.00")
    bea.until_text("receipt", "You earn ₦800.00; the platform keeps 20 %.")
    bea.until("() => document.querySelector('#balance-more').innerText === '₦800.00 earned'")
    assert bea.text("earned") == "₦800.00"
    bea.click("history-receipt")
    bea.until_text("history", "You earn ₦800.00; the platform keeps 20 %.")

    ada.run(_KEEP_FILES)
    ada.click("receipt-file")
    file = tmp_path / "receipt.json"
    file.write_text(ada.run("() => window.kept.text()"))
    checked = stage.server.command("verify-receipt", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_call_that_nobody_could_pay_offers_a_top_up_and_does_not_ring(stage: Stage) -> None:
    ada, bea = stage.pair()
    assert bea.run(_SET_RATE, 9_000_000) == 200
    ada.call(bea.name)
    ada.until_text("warning", "Not enough money for this.")
    ada.until_text("price-terms", "your ₦500.00 is not enough")
    assert (ada.text("state"), bea.text("state")) == ("idle", "idle")
    ada.click("top-up-now")
    ada.until_text("balance", "₦1,000.00")
    ada.until(_HIDDEN, "warning")
    ada.click("top-up")
    ada.until_text("balance", "₦1,500.00")
    ada.until_text("price-terms", "your ₦1,500.00 lasts 1 s")
    ada.reload()
    ada.until_text("balance", "₦1,500.00")


def test_video_at_another_price_is_asked_for_when_the_payer_has_agreed_to_it(stage: Stage) -> None:
    ada, bea = stage.pair()
    for balance in ("₦1,000.00", "₦1,500.00"):
        ada.click("top-up")
        ada.until_text("balance", balance)
    ada.call(bea.name, "audio")
    answer(ada, bea)
    ada.click("upgrade")
    ada.until(_SHOWN, "upgrade-accept")
    question = ada.run("() => document.querySelector('#upgrade-text').innerText")
    assert question == "Go on with video? You pay ₦10,000.00 a minute then, instead of ₦5,000.00 a minute."
    ada.click("upgrade-accept")
    bea.until(_SHOWN, "upgrade-accept")
    bea.click("upgrade-accept")
    for page in (ada, bea):
        page.until_text("price", "₦10,000.00 a minute")
    figure(ada, "charged", above=figure(ada, "charged"))
    bea.click("hangup")
    for page in (ada, bea):
        page.until_text("receipt", "Video")
        page.until(_TOTAL, page.text("charged"))
        assert "Audio" in page.text("receipt")


def test_between_two_ticks_the_page_reckons_as_the_server_does(stage: Stage) -> None:
    ada = stage.browser.page("Ada").open(f"{stage.server.address}/")
    chance = random.Random(3)
    asked = []
    for _ in range(2_000):
        price = Price(
            rate_per_minute_minor=chance.choice([0, 1, 7, 30, 90, 1_000, 375_000, chance.randrange(10**6)]),
            currency="NGN",
            first_block_seconds=chance.choice([1, 6, 30, 60, 180]),
            block_seconds=chance.choice([1, 6, 30, 60]),
            connect_fee_minor=chance.choice([0, 0, 500]),
            minimum_minor=chance.choice([0, 0, 1_000]),
        )
        asked.append((price, chance.choice([0, 1, 999, 1_000, 60_000, 60_999, chance.randrange(10**7)])))
    shown = ada.run(_RECKON, [[price_view(price), talk_ms] for price, talk_ms in asked])
    assert shown == [cost_of(price, talk_ms) for price, talk_ms in asked]
