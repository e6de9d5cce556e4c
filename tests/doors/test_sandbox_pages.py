"""The sandbox's checkout page by HTTP: what it shows, what its buttons do, and whom it does not believe."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest

from models.payments.gateway import Checkout
from models.sandbox.rules import LATE_SECONDS
from server.app import WIRED
from server.sandbox_pages import serves_at
from tests.doors.conftest import House, Reply, open_house
from tests.fakes import VirtualClock

pytestmark = pytest.mark.asyncio(loop_scope="module")
_NUMBERS = count(1)


def gateway(house: House) -> Any:
    return house.app[WIRED].money.sandbox


async def opened(house: House, **more: Any) -> str:
    """The path of a new payment's page."""
    ask = {
        "reference": f"page-{next(_NUMBERS)}",
        "amount_minor": 50_000,
        "currency": "NGN",
        "payer_id": "u",
        "payer_name": "Ada <b>Lovelace</b>",
        "payer_email": None,
        "description": "Deposit & co",
        "return_url": "https://app.example.org/back?x=1&y=2",
    }
    url = (await gateway(house).checkout(Checkout(**{**ask, **more}))).checkout_url
    assert url.startswith(f"{house.url}/sandbox/checkout/")
    return str(url.removeprefix(house.url))


async def press(house: House, path: str, button: str, **more: str) -> Reply:
    page = await house.send("GET", path)
    form = dict(re.findall(r'name="(seen|mark)" value="([^"]*)"', page.body))
    return await post(house, path, {**form, "outcome": button, **more})


async def post(house: House, path: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
    async with house.http.post(house.url + path, data=form, headers=headers, allow_redirects=False) as answer:
        return Reply(answer.status, await answer.text(), answer.headers)


def buttons(page: Reply) -> list[str]:
    return re.findall(r'name="outcome" value="(\w+)"', page.body)


def title(page: Reply) -> str:
    return re.findall(r'data-test="checkout-title">([^<]*)<', page.body)[0]


async def test_the_page_shows_what_is_to_be_paid_and_nothing_as_html(rest: House) -> None:
    page = await rest.send("GET", await opened(rest))
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    assert title(page) == "Pay NGN 500.00"
    assert "Ada &lt;b&gt;Lovelace&lt;/b&gt;" in page.body
    assert "Deposit &amp; co" in page.body
    assert buttons(page) == ["paid", "underpaid", "overpaid", "late", "failed"]
    assert "NGN 250.00" in page.body
    assert "NGN 600.00" in page.body
    assert "<script>" not in page.body, "the policy of our answers lets no script stand in a page"
    assert " style=" not in page.body


async def test_a_button_pays_and_leads_back_to_the_app(rest: House) -> None:
    path = await opened(rest)
    done = await press(rest, path, "paid")
    assert (done.status, done.headers["Location"]) == (303, f"{path}?done")
    page = await rest.send("GET", f"{path}?done")
    assert title(page) == "NGN 500.00 paid"
    back = "https://app.example.org/back?x=1&amp;y=2"
    assert f'content="3; url={back}"' in page.body
    assert f'href="{back}"' in page.body
    assert 'data-done="yes"' in page.body
    assert buttons(page) == ["reversed"]

    later = await rest.send("GET", path)
    assert "http-equiv" not in later.body, "who comes back to look is not sent away"
    assert (await press(rest, path, "reversed")).status == 303
    assert title(await rest.send("GET", path)) == "NGN 500.00 taken back"
    assert buttons(await rest.send("GET", path)) == []


async def test_too_little_is_said_to_be_and_the_rest_can_follow(rest: House) -> None:
    path = await opened(rest, amount_minor=50_001, return_url="")
    await press(rest, path, "underpaid")
    page = await rest.send("GET", path)
    assert title(page) == "NGN 250.00 paid"
    assert "NGN 250.01 is missing." in page.body
    assert buttons(page) == ["rest", "reversed"]
    await press(rest, path, "rest")
    assert title(await rest.send("GET", path)) == "NGN 500.01 paid"


async def test_a_late_payment_refreshes_itself_until_it_is_there(rest: House) -> None:
    path = await opened(rest)
    await press(rest, path, "late")
    page = await rest.send("GET", f"{path}?done")
    assert 'http-equiv="refresh" content="2"' in page.body
    assert 'data-done="no"' in page.body
    assert buttons(page) == []
    assert isinstance(rest.clock, VirtualClock)
    rest.clock.pass_(LATE_SECONDS)
    page = await rest.send("GET", f"{path}?done")
    assert title(page) == "NGN 500.00 paid"
    assert "https://app.example.org/back" in page.body


async def test_a_failed_payment_can_be_tried_again(rest: House) -> None:
    path = await opened(rest)
    await press(rest, path, "failed")
    page = await rest.send("GET", path)
    assert title(page) == "Not paid"
    assert buttons(page) == ["paid", "late"]
    await press(rest, path, "paid")
    assert title(await rest.send("GET", path)) == "NGN 500.00 paid"


async def test_a_page_that_is_not_the_newest_does_nothing_and_shows_what_is(rest: House) -> None:
    path = await opened(rest)
    old = dict(re.findall(r'name="(seen|mark)" value="([^"]*)"', (await rest.send("GET", path)).body))
    await press(rest, path, "failed")
    again = await post(rest, path, {**old, "outcome": "paid"})
    assert (again.status, again.headers["Location"]) == (303, path)
    assert title(await rest.send("GET", path)) == "Not paid"


@pytest.mark.parametrize(
    ("change", "headers"),
    [
        ({"mark": ""}, {}),
        ({"mark": "0" * 32}, {}),
        ({"mark": "é" * 32}, {}),
        ({"seen": "2"}, {}),
        ({"seen": "x"}, {}),
        ({"outcome": "gift"}, {}),
        ({"outcome": ""}, {}),
        ({}, {"Sec-Fetch-Site": "cross-site"}),
        ({}, {"Sec-Fetch-Site": "same-site"}),
        ({}, {"Content-Type": "text/plain"}),
    ],
)
async def test_what_was_not_pressed_on_the_page_does_nothing(
    rest: House, change: dict[str, str], headers: dict[str, str]
) -> None:
    path = await opened(rest)
    form = dict(re.findall(r'name="(seen|mark)" value="([^"]*)"', (await rest.send("GET", path)).body))
    if "Content-Type" in headers:
        async with rest.http.post(rest.url + path, data=b"outcome=paid", headers=headers) as answer:
            assert answer.status == 403
    else:
        refused = await post(rest, path, {**form, "outcome": "paid", **change}, headers)
        assert refused.status == 403, refused.body
    assert title(await rest.send("GET", path)) == "Pay NGN 500.00"
    other = await opened(rest)
    stolen = await post(rest, other, {**form, "outcome": "paid"})
    assert stolen.status == 403, "a form is good for one payment"


@pytest.mark.parametrize(
    ("url", "linked", "goes"),
    [
        ("https://app.example.org/", True, True),
        ("http://127.0.0.1:1/x", True, True),
        ("myapp://wallet", True, False),
        ('https://app.example.org/"><script>', True, True),
        ("javascript:alert(1)", False, False),
        ("JavaScript://x/%0aalert(1)", False, False),
        ("data:text/html,x", False, False),
        ("//app.example.org", False, False),
        ("https://[", False, False),
        ("", False, False),
    ],
)
async def test_the_way_back_is_a_link_only_if_it_is_one(
    rest: House, url: str, linked: bool, goes: bool
) -> None:
    path = await opened(rest, return_url=url)
    await press(rest, path, "paid")
    page = await rest.send("GET", f"{path}?done")
    assert ("checkout-back" in page.body) is linked
    assert ("http-equiv" in page.body) is goes
    assert "<script>" not in page.body


async def test_an_unknown_payment_has_a_page_that_says_so(rest: House) -> None:
    page = await rest.send("GET", "/sandbox/checkout/nothing")
    assert (page.status, title(page)) == (404, "No such payment")
    refused = await post(rest, "/sandbox/checkout/nothing", {"outcome": "paid", "seen": "1", "mark": ""})
    assert refused.status == 403
    assert (await rest.send("GET", "/sandbox/checkout/no%20such")).status == 404


async def test_pages_are_linked_by_where_the_server_is_unless_it_was_told(mongo_uri: str) -> None:
    async with open_house(mongo_uri, PUBLIC_URL="https://calls.example.org/") as house:
        ask = {"reference": "r", "amount_minor": 1, "currency": "NGN", "payer_id": "u", "payer_name": "A"}
        more = {"payer_email": None, "description": "", "return_url": ""}
        url = (await gateway(house).checkout(Checkout(**ask, **more))).checkout_url
        assert url == "https://calls.example.org/sandbox/checkout/r"
        assert buttons(await house.send("GET", "/sandbox/checkout/r")) == [
            "paid",
            "overpaid",
            "late",
            "failed",
        ]
    async with open_house(mongo_uri) as house:
        serves_at(house.app, "0.0.0.0", 81)
        assert gateway(house).address == "http://127.0.0.1:81"
        serves_at(house.app, "::1", 82)
        assert gateway(house).address == "http://[::1]:82"


async def test_in_production_there_is_no_sandbox(mongo_uri: str) -> None:
    async with open_house(mongo_uri, ENV="production", LOG_LEVEL="error") as house:
        assert gateway(house) is None
        for path in ("/sandbox/checkout/r", "/static/checkout/checkout.css"):
            assert (await house.send("GET", path)).status == 404
        serves_at(house.app, "127.0.0.1", 80)
