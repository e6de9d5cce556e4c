"""Money in and out as a new user has it, in a narrow browser: joined, paid at the checkout, called, withdrawn."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doors.browser import Browser, Page, chromium
from tests.doors.serverprocess import ServerProcess, lodging_now, running

# Whole minutes of ten naira: a call of some seconds costs ten, and brings a point.
SETTINGS = {"CALL_RATE_MINOR": "1000", "WITHDRAWAL_FEE_MINOR": "2500"}
WIDTH, HEIGHT = 360, 740
_numbers = itertools.count(1)
_SHOWN = "(at) => document.querySelector(`[data-test=${at}]`).checkVisibility()"
_OPEN = "(at) => { document.querySelector(`[data-test=${at}]`).open = true; }"
# Wider than the screen, or out of it to the side.
_TOO_WIDE = """() => document.documentElement.scrollWidth > innerWidth || [...document.querySelectorAll("dialog *")]
  .some((one) => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1)"""
_KEEP_FILES = """() => {
  const made = URL.createObjectURL;
  URL.createObjectURL = (blob) => {
    window.kept = blob;
    return made.call(URL, blob);
  };
}"""
_FIRST_PAYOUT = """(status) => document.querySelector("[data-test=payouts] li")?.dataset.status === status"""


@dataclass(frozen=True)
class Stage:
    """A server and a browser."""

    server: ServerProcess
    browser: Browser

    def person(self, name: str) -> Page:
        """Somebody new, with the wallet and the first money that the demo sees to."""
        page = self.browser.page(f"{name} {next(_numbers)}")
        page.open(f"{self.server.address}/", width=WIDTH, height=HEIGHT)
        page.join(page.name)
        page.until_text("balance", "₦500.00")
        return page

    def checkout(self) -> Page:
        """The checkout that a click has opened."""
        return self.browser.popup(f"checkout {next(_numbers)}")


@pytest.fixture(scope="module")
def house(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("payments")
    with (
        lodging_now(mongo_uri) as database,
        running(folder / "server", mongo_uri=mongo_uri, database=database, **SETTINGS) as server,
        chromium(folder / "profile") as browser,
    ):
        yield Stage(server, browser)
        audit = server.command("audit")
        assert audit.returncode == 0, audit.stdout + audit.stderr


@pytest.fixture
def stage(house: Stage) -> Iterator[Stage]:
    yield house
    faults = house.browser.put_away(lambda line: line.startswith("uncaught:"))
    assert faults == []


def wallet(page: Page, part: str = "") -> None:
    """Open the wallet, and one of its parts."""
    page.click("wallet-open")
    page.until("() => document.querySelector('[data-test=wallet]').open")
    if part:
        page.run(_OPEN, part)


def add(stage: Stage, page: Page, amount: str, button: str) -> None:
    """Add money from the open wallet, and press a button of the checkout."""
    page.fill("add-amount", amount)
    page.click("add-money")
    till = stage.checkout()
    till.click(button)
    till.until_gone()


def withdraw(page: Page, number: str, amount: str, pin: str = "4071") -> None:
    """Keep an account, and withdraw to it."""
    page.until("() => document.querySelector('[data-test=bank]').options.length > 1")
    page.select("bank", "Second Sandbox Bank")
    page.fill("account-number", number)
    page.click("account-add")
    page.until_text("sheet-said", "It is the account of")
    page.fill("withdraw-amount", amount)
    page.fill("withdraw-pin", pin)
    page.click("withdraw")


def test_a_new_user_pays_calls_and_withdraws(stage: Stage) -> None:
    ada, bea = stage.person("Ada"), stage.person("Bea")
    ada.run("() => { window.sameDocument = true; }")
    wallet(ada)
    ada.fill("add-amount", "2000")
    ada.click("add-money")
    till = stage.checkout()
    till.until_text("checkout-title", "Pay NGN 2,000.00")
    assert not till.run(_TOO_WIDE)
    ada.until_text("add-pending", "Waiting for ₦2,000.00")
    till.click("paid")
    ada.until_text("sheet-said", "₦2,000.00 came in")
    ada.until_text("balance", "₦2,500.00")
    till.until_gone()
    ada.click("wallet-close")

    ada.call(bea.name, "audio")
    bea.until(_SHOWN, "accept")
    bea.click("accept")
    for page in (ada, bea):
        page.until_state("active")
    ada.click("hangup")
    bea.until_state("ended")
    ada.until_text("balance", "₦2,490.00")
    bea.until_text("wallet-open", "₦8.00 earned")

    wallet(ada, "withdraw-part")
    withdraw(ada, "0123456789", "1000", pin="9146")
    ada.until_text("sheet-said", "The PIN is wrong")
    ada.fill("withdraw-pin", "4071")
    ada.click("withdraw")
    ada.until_text("sheet-said", "₦1,000.00 are on their way")
    ada.until(_FIRST_PAYOUT, "completed")
    ada.until_text("payouts", "Second Sandbox Bank ••6789")
    # A thousand, and the fee of 25.
    ada.until("() => document.querySelector('[data-test=balance]').innerText === '₦1,465.00'")
    assert not ada.run(_TOO_WIDE)
    assert ada.run("() => window.sameDocument"), "nothing of it took a reload"


def test_a_top_up_is_one_press_and_paying_in_goes_by_the_checkout(stage: Stage) -> None:
    ada = stage.person("Ada")
    ada.click("top-up")
    ada.until_text("balance", "₦1,000.00")
    ada.click("pay-in")
    till = stage.checkout()
    till.until_text("checkout-title", "Pay NGN 500.00")
    ada.click("top-up")
    ada.until_text("balance", "₦1,500.00")
    till.click("underpaid")
    ada.until_text("balance", "₦1,750.00")
    till.until_gone()


def test_what_was_paid_is_credited_less_more_or_nothing(stage: Stage) -> None:
    ada = stage.person("Ada")
    wallet(ada)
    add(stage, ada, "500", "underpaid")
    ada.until_text("sheet-said", "₦250.00 came in, of ₦500.00")
    ada.until_text("balance", "₦750.00")
    add(stage, ada, "500", "overpaid")
    ada.until_text("sheet-said", "₦600.00 came in, of ₦500.00")
    ada.until_text("balance", "₦1,350.00")
    add(stage, ada, "500", "failed")
    ada.until_text("sheet-said", "The payment is failed.")
    assert ada.text("balance") == "₦1,350.00"
    ada.select("add-into", "call_credits")
    add(stage, ada, "40", "paid")
    ada.until_text("sheet-wallets", "₦40.00 call credits")
    assert ada.text("balance") == "₦1,350.00"
    ada.fill("add-amount", "1.234")
    ada.click("add-money")
    ada.until_text("sheet-said", "More decimals")


def test_a_withdrawal_that_fails_is_in_the_wallet_again(stage: Stage) -> None:
    ada = stage.person("Ada")
    wallet(ada, "withdraw-part")
    withdraw(ada, "0000000001", "200")
    ada.until_text("sheet-said", "₦200.00 are on their way")
    ada.until(_FIRST_PAYOUT, "failed")
    ada.until("() => document.querySelector('[data-test=balance]').innerText === '₦500.00'")
    ada.fill("account-number", "0000000003")
    ada.click("account-add")
    ada.until_text("sheet-said", "The bank knows no account of this number.")
    withdraw(ada, "0123456789", "5000")
    ada.until_text("sheet-said", "There is not enough money")


def test_the_statement_is_saved_money_is_changed_and_points_become_credits(stage: Stage) -> None:
    ada, bea = stage.person("Ada"), stage.person("Bea")
    ada.call(bea.name, "audio")
    bea.until(_SHOWN, "accept")
    bea.click("accept")
    for page in (ada, bea):
        page.until_state("active")
    ada.click("hangup")
    ada.until_text("balance", "₦490.00")

    wallet(ada, "exchange-part")
    ada.fill("quote-amount", "160")
    ada.select("quote-to", "USD")
    ada.click("quote-ask")
    ada.until_text("quote-text", "₦160.00 give $0.09")
    ada.fill("convert-pin", "4071")
    ada.click("convert")
    ada.until_text("sheet-said", "You have got $0.09")
    ada.until_text("sheet-wallets", "$0.09")
    ada.until_text("balance", "₦330.00")

    ada.run(_OPEN, "points-part")
    ada.until_text("points-text", "You have 1 point, worth ₦0.10.")
    ada.click("points-redeem")
    ada.until_text("points-text", "You have 0 points")
    ada.until_text("sheet-wallets", "₦0.10 call credits")

    ada.run(_OPEN, "statement-part")
    ada.run(_KEEP_FILES)
    ada.click("statement-csv")
    paper = ada.until("() => window.kept && window.kept.text()")
    assert {"call", "deposit", "exchange", "reward"} <= set(re.split(r"[,\r\n]", paper))
    ada.run("() => { window.kept = null; }")
    ada.click("statement-pdf")
    assert ada.until("() => window.kept && window.kept.slice(0, 5).text()") == "%PDF-"
    assert not ada.run(_TOO_WIDE)
