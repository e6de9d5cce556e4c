"""Somebody who pays on the sandbox's checkout page, by its plain form, at a server that may be another process."""

from __future__ import annotations

import re
from typing import Any

import aiohttp

TRIES = 5
_FIELDS = re.compile(r'name="(seen|mark)" value="([^"]*)"')


async def press(http: aiohttp.ClientSession, checkout_url: str, button: str = "paid") -> None:
    """Press a button of the page."""
    async with http.get(checkout_url) as page:
        assert page.status == 200, await page.text()
        form: dict[str, Any] = dict(_FIELDS.findall(await page.text()))
    async with http.post(checkout_url, data={**form, "outcome": button}, allow_redirects=False) as answer:
        assert answer.status == 303, await answer.text()


async def pay_in(http: aiohttp.ClientSession, url: str, head: dict[str, str], body: dict[str, Any]) -> None:
    """A deposit from its beginning to its end; ``head`` says who, and with which key."""
    payment = (await _post(http, f"{url}/api/wallet/deposit", head, body))["payment"]
    await press(http, payment["checkoutUrl"])
    asked = {"reference": payment["reference"]}
    paid = (await _post(http, f"{url}/api/wallet/verify-deposit", head, asked))["payment"]
    if paid["paidMinor"] != paid["amountMinor"]:
        raise RuntimeError(f"not credited: {paid}")


async def _post(http: aiohttp.ClientSession, url: str, head: dict[str, str], body: dict[str, Any]) -> Any:
    """Ask again what was refused for want of a database, for which the server has waited."""
    for left in reversed(range(TRIES)):
        async with http.post(url, json=body, headers=head) as answer:
            if answer.status < 300:
                return await answer.json()
            if answer.status != 503 or not left:
                raise RuntimeError(f"{url}: {answer.status} {await answer.text()}")
    raise AssertionError
