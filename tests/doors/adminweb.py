"""A browser without JavaScript for the administrators' pages: forms, hidden fields, cookies, redirects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import unescape
from http.cookies import SimpleCookie
from typing import Any

import pyotp

from tests.doors.conftest import PASSWORD, House, Person

_FIELD = re.compile(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">')


@dataclass(slots=True)
class Shown:
    """A page as it came."""

    status: int
    text: str
    headers: Any

    @property
    def words(self) -> str:
        """What a person reads of it."""
        return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", self.text)))

    @property
    def problem(self) -> str:
        """The refusal's sentence on it."""
        found = re.search(r'data-test="problem">(.*?)</p>', self.text, re.DOTALL)
        return unescape(re.sub(r"<[^>]*>", "", found[1])).strip() if found else ""

    @property
    def said(self) -> str:
        """What was done, on the page after it."""
        found = re.search(r'data-test="said">(.*?)</p>', self.text, re.DOTALL)
        return unescape(re.sub(r"<[^>]*>", "", found[1])).strip() if found else ""

    def hidden(self) -> dict[str, str]:
        """The page's hidden fields; the newest of each name."""
        return {name: unescape(value) for name, value in _FIELD.findall(self.text)}


@dataclass(slots=True)
class Web:
    """One browser. ``cookies`` are what it holds; ``send`` is one request, ``get`` and ``post`` follow redirects."""

    house: House
    cookies: dict[str, str] = field(default_factory=dict)
    secret: str = ""
    csrf: str = ""
    last: Shown | None = None

    async def send(self, method: str, path: str, form: dict[str, str] | None = None, **headers: str) -> Shown:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with self.house.http.request(
            method, self.house.url + path, data=form, headers=sent, allow_redirects=False
        ) as answer:
            for line in answer.headers.getall("Set-Cookie", []):
                for name, morsel in SimpleCookie(line).items():
                    self.cookies[name] = morsel.value
                    if morsel["max-age"] == "0":
                        del self.cookies[name]
            shown = Shown(answer.status, await answer.text(), answer.headers)
        self.csrf = shown.hidden().get("csrf", self.csrf)
        self.last = shown
        return shown

    async def get(self, path: str, **headers: str) -> Shown:
        shown = await self.send("GET", path, **headers)
        while shown.status == 303:
            shown = await self.send("GET", shown.headers["Location"])
        return shown

    async def post(self, path: str, headers: dict[str, str] | None = None, **form: str) -> Shown:
        """Press a button of the page that was shown last."""
        shown = await self.send("POST", path, {"csrf": self.csrf, **form}, **(headers or {}))
        while shown.status == 303:
            shown = await self.send("GET", shown.headers["Location"])
        return shown

    def code(self) -> str:
        """What the app shows now, by the house's clock."""
        return pyotp.TOTP(self.secret).at(self.house.clock.now())

    async def sign_in(self, name: str, password: str = PASSWORD, code: str = "", next_: str = "") -> Shown:
        await self.get("/admin/login")
        return await self.post("/admin/login", identifier=name, password=password, code=code, next=next_)

    async def enrol(self) -> Shown:
        """Set the second factor up, from its page."""
        shown = self.last
        assert shown is not None
        found = re.search(r'data-test="secret">([A-Z2-7 ]+)<', shown.text)
        assert found is not None, shown.text
        self.secret = found[1].replace(" ", "")
        return await self.post("/admin/second-factor", code=self.code())


async def administrator(house: House, name: str = "warden") -> Person:
    """Somebody with that role."""
    person = await house.person(name)
    await house.db["users"].update_one({"_id": person.id}, {"$set": {"role": "admin"}})
    return person


async def keeper(house: House, name: str = "warden") -> tuple[Person, Web]:
    """An administrator, signed in to the pages with a second factor that was used up just now."""
    person, web = await administrator(house, name), Web(house)
    await web.sign_in(person.username)
    shown = await web.enrol()
    assert shown.status == 200, shown.text
    await house.pass_(31)
    assert (await web.get("/admin/")).status == 200
    return person, web
