"""The pages put together, and the one way that every request of them goes.

network → sign-in → second factor → form → page. Whatever is refused is a page with the refusal's sentence.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp_jinja2
import jinja2
import structlog
from aiohttp import hdrs, web

from models.admin.service import AdminDoor
from models.admin.store import AdminSessionStore
from models.auth.sessions.store import SessionStore
from models.db import Database
from models.errors import Refusal
from models.trail.rules import ACTS
from models.users.store import UserStore
from server.adapters.chance import SystemChance
from server.addresses import client_address
from server.admin import (
    views_calls,
    views_charts,
    views_health,
    views_home,
    views_money,
    views_payouts,
    views_people,
    views_reports,
    views_sign_in,
    views_trail,
)
from server.admin.csrf import FIELD, HEADER, Marks, own_page
from server.admin.nav import Entry
from server.admin.static import BASE as STATIC
from server.admin.static import static_of
from server.admin.visit import BASE, TEMPLATES, Admin, Page, Visit, refused
from server.admin.words import FILTERS
from server.config import Config
from server.funnel import fault
from server.metrics import REQUESTS
from server.wiring import Wired

log = structlog.get_logger(__name__)

_FORM = "application/x-www-form-urlencoded"
MODULES = (
    views_sign_in,
    views_home,
    views_calls,
    views_money,
    views_people,
    views_reports,
    views_payouts,
    views_trail,
    views_charts,
    views_health,
)
MENU: tuple[Entry, ...] = (
    views_home.ENTRY,
    views_calls.ENTRY,
    views_people.ENTRY,
    views_reports.ENTRY,
    views_payouts.ENTRY,
    views_charts.ENTRY,
    views_health.ENTRY,
    views_trail.ENTRY,
)


def add_admin(
    app: web.Application,
    *,
    wired: Wired,
    config: Config,
    db: Database,
    pages: Path,
) -> None:
    """Add the pages and what they are made of."""
    assert config.jwt_secret is not None
    services = wired.services
    static = static_of(pages)
    admin = Admin(
        wired=wired,
        config=config,
        door=AdminDoor(
            store=AdminSessionStore(db),
            accounts=services.accounts,
            people=UserStore(db),
            sessions=SessionStore(db),
            trail=services.trail,
            clock=services.clock,
            chance=SystemChance(),
        ),
        marks=Marks(hmac.digest(config.jwt_secret.encode(), b"ringmeter admin pages v1", "sha256")),
        static=static,
        entries=MENU,
    )
    env = aiohttp_jinja2.setup(
        app,
        app_key=TEMPLATES,
        loader=jinja2.FileSystemLoader(pages / "admin" / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        filters=FILTERS,
    )
    env.globals.update(static=static.url, base=BASE, acts=ACTS)
    for module in MODULES:
        for page in module.PAGES:
            add = app.router.add_get if page.method == hdrs.METH_GET else app.router.add_post
            add(BASE + page.path, _handler(page, admin))
    unknown = Page(method="*", path="/{rest:.*}", handler=_unknown)
    app.router.add_get(BASE, _handler(Page(method="GET", path="", handler=_home, enrolling=True), admin))
    app.router.add_route("*", BASE + unknown.path, _handler(unknown, admin))
    app.router.add_get(STATIC + "/{digest}/{name}", static.serve)


async def _home(visit: Visit) -> web.StreamResponse:
    return visit.to("/")


async def _unknown(visit: Visit) -> web.StreamResponse:
    raise Refusal("ROUTE_UNKNOWN")


def _handler(page: Page, admin: Admin) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
    name = f"{page.method} {BASE}{page.path}"

    async def handle(request: web.Request) -> web.StreamResponse:
        address = client_address(request, admin.config.trusted_proxy_hops)
        if not _from_here(address, admin.config):
            raise web.HTTPNotFound
        visit = _visit(request, admin, address)
        code = "ok"
        try:
            return await _answered(page, visit)
        except web.HTTPException:
            raise
        except Exception as error:
            no = error if isinstance(error, Refusal) else fault(error, name)
            code = no.code
            return await _page_of(no, visit)
        finally:
            REQUESTS.labels(name, code).inc()

    return handle


def _visit(request: web.Request, admin: Admin, address: str) -> Visit:
    cookie = request.cookies.get(admin.cookie, "")
    return Visit(
        admin=admin,
        request=request,
        address=address,
        cookie=cookie or admin.door.token(),
        fresh_cookie=not cookie,
    )


async def _answered(page: Page, visit: Visit) -> web.StreamResponse:
    if page.open:
        await _read(visit)
        return await page.handler(visit)
    try:
        visit.present = await visit.admin.door.present(
            None if visit.fresh_cookie else visit.cookie, active=not page.quiet
        )
    except Refusal as no:
        if no.code not in ("TOKEN_MISSING", "SESSION_ENDED", "FORBIDDEN"):
            raise
        return _to_sign_in(visit, no)
    if not visit.present.ready and not page.enrolling:
        return visit.to("/second-factor")
    await _read(visit)
    return await page.handler(visit)


def _to_sign_in(visit: Visit, no: Refusal) -> web.Response:
    """Where one signs in, and comes back from to this page."""
    said = {
        "SESSION_ENDED": "You were signed out. Sign in again.",
        "FORBIDDEN": "You are no administrator any more.",
    }.get(no.code, "")
    asked = visit.request
    here = asked.headers.get("HX-Current-URL", "") if visit.partial else str(asked.rel_url)
    query = (
        {"next": here} if not visit.partial and asked.method == hdrs.METH_GET and here != f"{BASE}/" else {}
    )
    answer = visit.to("/login", said, **query)
    if not visit.fresh_cookie:
        visit.let_go(answer)
    return answer


async def _read(visit: Visit) -> None:
    """Read a form, and make sure that it was sent from a page of ours."""
    request = visit.request
    if request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
        return
    if not own_page(request.headers, request.host, visit.config.money.public_url):
        log.warning(
            "admin form from elsewhere", origin=request.headers.get(hdrs.ORIGIN), address=visit.address
        )
        raise Refusal("FORM_FOREIGN")
    if request.content_type != _FORM:
        raise Refusal("FORM_FOREIGN")
    try:
        form = await request.post()
    except web.HTTPRequestEntityTooLarge:
        raise Refusal("PAYLOAD_TOO_LARGE") from None
    visit.form = {name: value for name, value in form.items() if isinstance(value, str)}
    mark = request.headers.get(HEADER) or visit.form.get(FIELD, "")
    if visit.fresh_cookie or not visit.admin.marks.good(mark, visit.cookie):
        raise Refusal("FORM_FOREIGN")


async def _page_of(no: Refusal, visit: Visit) -> web.Response:
    """A refusal as a page. htmx puts no refusals into a page: what was there stays, and is asked for again."""
    visit.no = no
    if no.status >= 500:
        visit.present = None  # the menu asks the database, which is away perhaps
    if visit.partial:
        return visit.dressed(web.Response(status=no.status, text=refused(no)))
    return await visit.render("refused.html", status=no.status, problem=refused(no), code=no.code)


def _from_here(address: str, config: Config) -> bool:
    if not config.identity.admin_networks:
        return True
    try:
        seen = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(seen, "ipv4_mapped", None)
    return any((mapped or seen) in network for network in config.identity.admin_networks)
