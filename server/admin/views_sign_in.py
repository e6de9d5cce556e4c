"""Sign in, set up the second factor, sign out."""

from __future__ import annotations

import base64
import io

import segno
import structlog
from aiohttp import hdrs, web

from handlers.context import Context
from models.admin.service import Present
from models.auth.rules import PASSWORD_LENGTH_MAX
from models.auth.second.service import Setup
from models.auth.session import SignInDevice
from models.errors import Refusal
from server.admin.visit import BASE, Page, Visit, refused

log = structlog.get_logger(__name__)

NAME_LENGTH_MAX = 254
# What may be said on the page itself, with what was typed still there.
_SAID_HERE = frozenset(
    "CREDENTIALS_WRONG ACCOUNT_BANNED ACCOUNT_DELETED FORBIDDEN RATE_LIMITED SERVER_BUSY "
    "TOTP_REQUIRED TOTP_WRONG TOTP_LOCKED".split()
)


async def sign_in_page(visit: Visit) -> web.StreamResponse:
    """The form; who is signed in already goes on."""
    try:
        await visit.admin.door.present(None if visit.fresh_cookie else visit.cookie)
    except Refusal as no:
        if no.code not in ("TOKEN_MISSING", "SESSION_ENDED", "FORBIDDEN"):
            raise
        return await _form(visit, next_=visit.query("next", 1000))
    return visit.to("/")


async def sign_in(visit: Visit) -> web.StreamResponse:
    """Let somebody in, with a cookie that was never seen before."""
    name, password = visit.sent("identifier", NAME_LENGTH_MAX), visit.form.get("password", "")
    next_ = visit.sent("next", 1000)
    try:
        await _count(visit, name)
        if not name or not 0 < len(password) <= PASSWORD_LENGTH_MAX:
            raise Refusal("CREDENTIALS_WRONG")
        entered = await visit.admin.door.sign_in(
            identifier=name,
            password=password.encode(errors="replace").decode(),
            code=visit.sent("code", 64),
            device=SignInDevice(name="Administrators' pages", platform="web"),
            address=visit.address,
            device_token=visit.device_token,
        )
    except Refusal as no:
        if no.code not in _SAID_HERE:
            raise
        log.info("admin sign-in refused", code=no.code, address=visit.address)
        return await _form(visit, next_=next_, name=name, no=no)
    log.info("admin signed in", user_id=entered.present.account.profile.user_id, address=visit.address)
    answer = _onwards(visit, next_) if entered.present.ready else visit.to("/second-factor")
    visit.hold(answer, entered.token, device_token=entered.device_token)
    return answer


async def _count(visit: Visit, name: str) -> None:
    """One of the tries that this address, and this account, have at all doors that ask for a password."""
    ctx = Context(services=visit.services, address=visit.address)
    ask = {"identifier": name, "deviceToken": visit.device_token}
    await visit.admin.wired.funnel.limits.credentials(ctx, ask, "POST /api/auth/login")


def _onwards(visit: Visit, next_: str) -> web.Response:
    """To the page that was asked for; it must be one of ours."""
    path = next_.removeprefix(BASE)
    if not next_.startswith(f"{BASE}/") or path.startswith(("//", "/\\", "/login")) or not path.isprintable():
        return visit.to("/")
    answer = visit.to("/")
    answer.headers[hdrs.LOCATION] = BASE + path
    return answer


async def _form(visit: Visit, *, next_: str, name: str = "", no: Refusal | None = None) -> web.Response:
    visit.no = no
    return await visit.render(
        "login.html",
        status=no.status if no else 200,
        next=next_,
        name=name,
        problem=refused(no) if no else "",
        # What is missing is asked for by itself.
        code_wanted=no is not None and no.code.startswith("TOTP_"),
    )


async def sign_out(visit: Visit) -> web.StreamResponse:
    """The sign-in is over, here and in the database."""
    await visit.admin.door.sign_out(visit.who, visit.address)
    answer = visit.to("/login", "You are signed out.")
    # Whatever a browser has kept of the pages in spite of no-store, the next one at it does not find.
    answer.headers["Clear-Site-Data"] = '"cache"'
    visit.let_go(answer)
    return answer


async def factor_page(visit: Visit) -> web.StreamResponse:
    """What the authenticator app needs."""
    return visit.to("/") if visit.who.ready else await _factor(visit, visit.who)


async def enrol(visit: Visit) -> web.StreamResponse:
    """The app's first code; from here on it is asked for at every sign-in."""
    if visit.who.ready:
        return visit.to("/")
    try:
        token, codes = await visit.admin.door.enrolled(visit.who, visit.sent("code", 64))
    except Refusal as no:
        if no.code not in ("TOTP_WRONG", "TOTP_NOT_SET_UP"):
            raise
        return await _factor(visit, visit.who, no)
    log.info("admin set up a second factor", user_id=visit.user_id, address=visit.address)
    visit.cookie = token  # the page's own forms are for the new sign-in
    answer = await visit.render("recovery.html", codes=codes)
    visit.hold(answer, token)
    return answer


async def _factor(visit: Visit, present: Present, no: Refusal | None = None) -> web.Response:
    setup = await visit.admin.door.setup(present)
    return await visit.render(
        "second_factor.html",
        status=no.status if no else 200,
        secret=" ".join(setup.secret[at : at + 4] for at in range(0, len(setup.secret), 4)),
        uri=setup.uri,
        qr=_qr(setup),
        problem=refused(no) if no else "",
    )


def _qr(setup: Setup) -> str:
    """The QR code as the address of an SVG picture."""
    svg = io.BytesIO()
    # A quiet zone of four modules and a light ground, or a page in dark mode shows what no camera reads.
    segno.make(setup.uri, error="m").save(svg, kind="svg", xmldecl=False, scale=4, border=4, light="#fff")
    return "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()


PAGES = [
    Page(method="GET", path="/login", handler=sign_in_page, open=True),
    Page(method="POST", path="/login", handler=sign_in, open=True),
    Page(method="POST", path="/logout", handler=sign_out, enrolling=True),
    Page(method="GET", path="/second-factor", handler=factor_page, enrolling=True),
    Page(method="POST", path="/second-factor", handler=enrol, enrolling=True),
]
