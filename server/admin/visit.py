"""One request of a page: who asks, what they sent, and how it is answered."""

from __future__ import annotations

import asyncio
import base64
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import aiohttp_jinja2
import jinja2
from aiohttp import hdrs, web

from handlers.services import Services
from handlers.shapes import unclean
from models.admin.service import AdminDoor, Present
from models.errors import CODES, Refusal
from models.trail.rules import Actor
from server.admin.csrf import Marks
from server.admin.nav import Entry
from server.admin.static import Static
from server.config import Config
from server.rest import come_back
from server.wiring import Wired

BASE = "/admin"
TEMPLATES: web.AppKey[jinja2.Environment] = web.AppKey("admin_templates", jinja2.Environment)
REASON_LENGTH_MAX = 500
SAID_SECONDS = 60
# As long as browsers keep a cookie at most (RFC 6265bis §5.5).
DEVICE_SECONDS = 400 * 86_400
SAID_LENGTH_MAX = 300
# Nothing but our own files; the page's pictures are files too, but for the QR code.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "Content-Security-Policy": POLICY,
    # So that forms name their origin, and no other site learns of an address here.
    "Referrer-Policy": "same-origin",
    "X-Robots-Tag": "noindex, nofollow",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    hdrs.VARY: "HX-Request",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """What all requests share."""

    wired: Wired
    config: Config
    door: AdminDoor
    marks: Marks
    static: Static
    entries: Sequence[Entry] = ()

    @property
    def services(self) -> Services:
        return self.wired.services

    @property
    def secure(self) -> bool:
        """Whether browsers come by https: then the cookie is bound to this very host (RFC 6265bis, ``__Host-``)."""
        return self.config.production or (self.config.money.public_url or "").startswith("https://")

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds a sign-in."""
        return "__Host-ringmeter-admin" if self.secure else "ringmeter-admin"

    @property
    def device(self) -> str:
        """The name of the cookie by which the browser is known."""
        return f"{self.cookie}-device"

    @property
    def said(self) -> str:
        """The name of the cookie that holds what the next page has to say."""
        return f"{self.cookie}-said"


@dataclass(slots=True)
class Visit:
    """``form`` is what was sent, read and checked already; ``present`` is there unless the page is open to all.

    ``no`` is what the answer says no with, if it does: its headers say when to come back.
    """

    admin: Admin
    request: web.Request
    address: str
    cookie: str
    fresh_cookie: bool = False
    present: Present | None = None
    form: dict[str, str] = field(default_factory=dict)
    no: Refusal | None = None

    @property
    def services(self) -> Services:
        return self.admin.services

    @property
    def config(self) -> Config:
        return self.admin.config

    @property
    def who(self) -> Present:
        """Who is signed in."""
        assert self.present is not None, "a page that is open to all knows nobody"
        return self.present

    @property
    def user_id(self) -> str:
        return self.who.account.profile.user_id

    @property
    def actor(self) -> Actor:
        """As whom they act, for the trail."""
        profile = self.who.account.profile
        return Actor.admin(user_id=profile.user_id, name=profile.username, address=self.address or None)

    @property
    def now(self) -> datetime:
        return self.services.clock.now()

    @property
    def partial(self) -> bool:
        """Whether htmx asks for a part of the page."""
        return self.request.headers.get("HX-Request") == "true"

    def part(self, name: str) -> str:
        """A part of the path."""
        text = self.request.match_info[name]
        return "" if unclean(text) else text

    def query(self, name: str, most: int = 200) -> str:
        """A value of the address's query, clean, "" without one."""
        return cleaned(self.request.query.get(name, ""))[:most]

    def sent(self, name: str, most: int = 4000) -> str:
        """A field of the form, clean, "" without one."""
        return cleaned(self.form.get(name, ""))[:most]

    async def fresh(self) -> None:
        """Ask for the second factor again, by the form's field ``code``. ``TOTP_REQUIRED``, ``TOTP_WRONG``…"""
        await self.admin.door.fresh(self.who, self.sent("code", 64))

    def failed(self, act: str, no: Refusal) -> dict[str, Any]:
        """A refused form for the macro ``act``: which one, why, and what was typed, but for codes."""
        self.no = no
        typed = {name: cleaned(value) for name, value in self.form.items() if name not in ("code", "csrf")}
        return {"act": act, "said": refused(no), "form": {"reason": "", **typed}}

    # -------------------------------------------------------------------------------------------------------- answers

    async def render(self, template: str, *, status: int = 200, **context: Any) -> web.Response:
        """A whole page of ``web/admin/templates``, or with htmx the part that its template is."""
        said = "" if self.partial else self._heard()
        ready = self.present is not None and self.present.ready
        text = aiohttp_jinja2.render_string(
            template,
            self.request,
            {
                "visit": self,
                "me": self.present.account if self.present else None,
                "csrf_token": self.admin.marks.of(self.cookie),
                "menu": await self._menu() if ready and not self.partial else (),
                "said": said,
                "now": self.now,
                **context,
            },
            app_key=TEMPLATES,
        )
        answer = web.Response(text=text, status=status, content_type="text/html", charset="utf-8")
        if said:
            self._drop(answer, self.admin.said)
        return self.dressed(answer)

    def to(self, path: str, said: str = "", **query: str) -> web.Response:
        """Go to a page below ``/admin``; ``said`` is shown there, once."""
        # With a fragment of its own, or the browser would keep that of the form: what is said stands at the top.
        url = (
            BASE
            + path
            + (f"?{urlencode(query)}" if query else "")
            + ("#main" if said and not self.partial else "")
        )
        # A part that htmx asked for must not become the page of the sign-in.
        answer = (
            web.Response(status=204, headers={"HX-Redirect": url})
            if self.partial
            else web.Response(status=303, headers={hdrs.LOCATION: url})
        )
        if said:
            kept = base64.urlsafe_b64encode(said[:SAID_LENGTH_MAX].encode()).decode()
            self._keep(answer, self.admin.said, f"{kept}.{self.admin.marks.of(kept, 'said')}", SAID_SECONDS)
        return self.dressed(answer)

    @property
    def device_token(self) -> str | None:
        """What an earlier sign-in has left in this browser: strangers who guess do not lock it out."""
        return self.request.cookies.get(self.admin.device)

    def hold(self, answer: web.Response, token: str, *, device_token: str | None = None) -> None:
        """Give the browser what it is to hold. It goes with the browser's session; the device's token stays."""
        self._keep(answer, self.admin.cookie, token, None)
        if device_token is not None:
            self._keep(answer, self.admin.device, device_token, DEVICE_SECONDS)
        self.fresh_cookie = False

    def let_go(self, answer: web.Response) -> None:
        """Take from the browser what it holds."""
        self._drop(answer, self.admin.cookie)
        self.fresh_cookie = False

    def dressed(self, answer: web.Response) -> web.Response:
        """The answer with the headers of all pages, and the cookie that forms need before a sign-in."""
        for name, value in HEADERS.items():
            answer.headers[name] = value
        if self.no is not None:
            answer.headers.update(come_back(self.no))
        if self.fresh_cookie:
            self._keep(answer, self.admin.cookie, self.cookie, None)
        return answer

    async def _menu(self) -> list[tuple[Entry, bool, int]]:
        """The entries, whether one is here, and how many wait there."""
        here = self.request.path.removeprefix(BASE) or "/"
        entries = self.admin.entries
        counts = await asyncio.gather(*(one.count(self) if one.count else _none() for one in entries))
        return [
            (one, here == one.path or (one.path != "/" and here.startswith(one.path + "/")), count)
            for one, count in zip(entries, counts, strict=True)
        ]

    def _heard(self) -> str:
        kept, _, mark = self.request.cookies.get(self.admin.said, "").partition(".")
        if not kept or not self.admin.marks.good(mark, kept, "said"):
            return ""
        return base64.urlsafe_b64decode(kept).decode()

    def _keep(self, answer: web.Response, name: str, value: str, seconds: int | None) -> None:
        answer.set_cookie(
            name,
            value,
            max_age=seconds,
            path="/",
            secure=self.admin.secure,
            httponly=True,
            samesite="Strict",
        )

    def _drop(self, answer: web.Response, name: str) -> None:
        answer.del_cookie(name, path="/", secure=self.admin.secure, httponly=True, samesite="Strict")


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One address below ``/admin``.

    ``open``: without a sign-in. ``enrolling``: also before a second factor is set up. ``quiet``: asked for by the page
    itself, which keeps nobody signed in.
    """

    method: str
    path: str
    handler: Handler
    open: bool = False
    enrolling: bool = False
    quiet: bool = False


def cleaned(text: str) -> str:
    """A text of one or more lines without what nobody can see or store, and without space around it."""
    text = text.encode(errors="replace").decode().replace("\r\n", "\n")
    kept = (c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    return unicodedata.normalize("NFC", "".join(kept)).strip()


async def _none() -> int:
    return 0


def refused(problem: Refusal) -> str:
    """A refusal for people: its sentence, and what is wrong with which field."""
    words = [CODES[problem.code].sentence]
    for said in problem.details.values() if problem.code == "VALIDATION_FAILED" else ():
        words += [str(one) for one in said] if isinstance(said, list) else [str(said)]
    if problem.retry_after_ms and come_back(problem):
        words.append(f"Come back in {waiting(problem.retry_after_ms)}.")
    return " ".join(words)


def waiting(ms: int) -> str:
    """A span for people, rounded up."""
    seconds = -(-ms // 1000)
    if seconds < 60:
        return f"{seconds} second{'s' if seconds != 1 else ''}"
    minutes = -(-seconds // 60)
    if minutes < 120:
        return f"{minutes} minute{'s' if minutes != 1 else ''}"
    return f"{-(-minutes // 60)} hours"
