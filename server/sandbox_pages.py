"""The sandbox's checkout page: a plain form, for browsers with and without JavaScript. Not there in production.

What a button does is a step of the sandbox (``models/sandbox``). After it the browser is sent to the page again, and
from there to the app: by a refresh of the page, since the policy of our answers lets no form lead to another origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web

from models.db import database_away
from models.money import spoken
from models.payments.gateway import PayState
from models.sandbox.rules import LATE_SECONDS, Button, Thing, amount_of, offered
from server.adapters.gateways.sandbox import SandboxGateway

log = structlog.get_logger(__name__)

PATH = "/sandbox/checkout/{reference:[A-Za-z0-9-]{1,64}}"
SANDBOX: web.AppKey[SandboxGateway] = web.AppKey("sandbox", SandboxGateway)
# Until the browser goes back to the app by itself, and between two looks at a payment that is on its way.
BACK_SECONDS = 3
LOOK_SECONDS = 2
_FORM = "application/x-www-form-urlencoded"
# What a link must not be made of, whoever has asked for it.
_NO_LINK = frozenset(("javascript", "data", "vbscript", "file", "blob", "about", "filesystem"))
_BADGES = {
    PayState.PENDING: "Waiting for payment",
    PayState.PAID: "Paid",
    PayState.FAILED: "Failed",
    PayState.REVERSED: "Reversed",
}
_WAYS = {
    Button.PAID: ("Pay", "All of it, at once."),
    Button.REST: ("Pay the rest", "What is missing, at once."),
    Button.UNDERPAID: ("Pay too little", "What comes in is credited, and no more."),
    Button.OVERPAID: ("Pay too much", "What comes in is credited, all of it."),
    Button.LATE: ("Pay late", f"Like a bank transfer: it arrives in {LATE_SECONDS} seconds."),
    Button.FAILED: ("Let it fail", "The card is declined; nothing is paid."),
    Button.REVERSED: ("Take it back", "A chargeback: the wallet is debited and frozen."),
}

Handler = Callable[[web.Request], Awaitable[web.Response]]


def add_sandbox(app: web.Application, gateway: SandboxGateway, pages: Path) -> None:
    """The page and what it is made of."""
    template = Template((pages / "checkout" / "checkout.html").read_text(encoding="utf-8"))

    async def show(request: web.Request) -> web.Response:
        return await _shown(request, gateway, template)

    async def press(request: web.Request) -> web.Response:
        return await _pressed(request, gateway, template)

    app[SANDBOX] = gateway
    app.router.add_get(PATH, _told(show, template))
    app.router.add_post(PATH, _told(press, template))
    app.router.add_static("/static/checkout", pages / "checkout")


def serves_at(app: web.Application, host: str, port: int) -> None:
    """Where this server listens, now that it does: what checkout pages are linked by unless PUBLIC_URL is set."""
    gateway = app.get(SANDBOX)
    if gateway is not None and not gateway.fixed:
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
        gateway.address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


def _told(handler: Handler, template: Template) -> Handler:
    """A fault as a page."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception as fault:
            if not database_away(fault):
                raise
            log.warning("checkout without a database", error=repr(fault))
            lead = "The server's database does not answer. Load this page again in a moment."
            return _page(template, 503, state="unknown", badge="Not now", title="Not now", lead=lead)

    return handle


async def _shown(request: web.Request, gateway: SandboxGateway, template: Template) -> web.Response:
    payment = await gateway.sandbox.payment(request.match_info["reference"])
    if payment is None:
        lead = "It was never opened here. Begin again in the app."
        return _page(template, 404, state="unknown", badge="Unknown", title="No such payment", lead=lead)
    return _payment_page(template, gateway, payment, done="done" in request.query)


async def _pressed(request: web.Request, gateway: SandboxGateway, template: Template) -> web.Response:
    reference = request.match_info["reference"]
    # Another site's form would have to know the reference, and what this page has signed. Newer browsers say as well
    # from where a form comes (Origin is "null" under our referrer policy).
    strange = request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")
    form = await request.post() if request.content_type == _FORM and not strange else {}
    seen, mark, button = (str(form.get(name, "")) for name in ("seen", "mark", "outcome"))
    if not gateway.marked(reference, seen, mark) or button not in set(Button):
        lead = "This button was not pressed on this page. Go back and load it again."
        return _page(template, 403, state="unknown", badge="Refused", title="Not done", lead=lead)
    done = await gateway.sandbox.press(reference, Button(button), seen=int(seen))
    # A page that was not the newest any more is shown as it is now.
    where = f"/sandbox/checkout/{reference}" + ("?done" if done else "")
    return web.Response(status=303, headers={hdrs.LOCATION: where})


def _payment_page(template: Template, gateway: SandboxGateway, payment: Thing, *, done: bool) -> web.Response:
    now = gateway.now()
    last, waits = payment.at(now), payment.waits(now)
    state = PayState(last.state)
    buttons = offered(payment, now)
    paid, asked = (spoken(some, payment.currency) for some in (last.paid_minor, payment.amount_minor))
    title = {
        PayState.PENDING: f"Pay {asked}",
        PayState.PAID: f"{paid} paid",
        PayState.FAILED: "Not paid",
        PayState.REVERSED: f"{paid} taken back",
    }[state]
    short = state is PayState.PAID and last.paid_minor < payment.amount_minor
    finished = done and state is not PayState.PENDING
    facts = [("For", payment.about), ("Payer", payment.who), ("Reference", payment.reference)]
    if state is not PayState.PENDING:
        facts.insert(0, ("Asked for", asked))
    link = _link(payment.return_url)
    refresh = ""
    if waits:
        refresh = f'<meta http-equiv="refresh" content="{LOOK_SECONDS}">'
    elif finished and link and urlsplit(link).scheme in ("http", "https"):
        refresh = f'<meta http-equiv="refresh" content="{BACK_SECONDS}; url={escape(link)}">'
    return _page(
        template,
        200,
        state="late" if waits else state,
        badge="On its way" if waits else ("Partly paid" if short else _BADGES[state]),
        title=title,
        lead=_lead(payment, state, waits=waits, going=bool(refresh) and not waits),
        refresh=refresh,
        done="yes" if finished else "no",
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts if v),
        form=_form(gateway, payment, buttons) if buttons else "",
        back=_back(link, first=not waits and state is PayState.PAID),
    )


def _lead(payment: Thing, state: PayState, *, waits: bool, going: bool) -> str:
    if waits:
        return f"The money arrives in {LATE_SECONDS} seconds. You need not wait here for it."
    if state is PayState.PENDING:
        return "Choose how the payment goes."
    if going:
        return "You are taken back to the app."
    if state is PayState.FAILED:
        return "Nothing was taken. You can try again."
    if state is PayState.REVERSED:
        return "The payer's bank has asked for it back."
    short = payment.amount_minor - payment.steps[-1].paid_minor
    return f"{spoken(short, payment.currency)} is missing." if short > 0 else "You can close this page."


def _form(gateway: SandboxGateway, payment: Thing, buttons: tuple[Button, ...]) -> str:
    """The buttons. Of a payment that still has to be paid, the first one is the usual way."""
    seen = str(len(payment.steps))
    usual = buttons[0] in (Button.PAID, Button.REST)
    parts = [
        f'<form class="ways" method="post" action="/sandbox/checkout/{payment.reference}">',
        f'<input type="hidden" name="seen" value="{seen}">',
        f'<input type="hidden" name="mark" value="{gateway.mark(payment.reference, seen)}">',
    ]
    for number, button in enumerate(buttons):
        name, hint = _WAYS[button]
        first = usual and number == 0
        if number == int(usual):
            parts.append("<h2>Or see what else can happen</h2>")
        worth = button not in (Button.FAILED, Button.REVERSED)
        amount = escape(spoken(amount_of(payment, button), payment.currency)) if worth else ""
        parts.append(
            f'<button class="way{" first" if first else ""}" type="submit" name="outcome" value="{button}" '
            f'data-test="{button}"><strong>{name}</strong><span>{amount}</span>'
            f"<small>{escape(hint)}</small></button>"
        )
    return "".join([*parts, "</form>"])


def _link(url: str) -> str | None:
    """The way back, if it is one: a web address or an app's own scheme."""
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        return None
    return url if scheme and scheme not in _NO_LINK and "://" in url else None


def _back(link: str | None, *, first: bool) -> str:
    if link is None:
        return ""
    look = "primary" if first else "quiet"
    return (
        f'<p class="back"><a class="{look}" data-test="checkout-back" href="{escape(link)}">'
        "Back to the app</a></p>"
    )


def _page(
    template: Template,
    status: int,
    *,
    state: str,
    badge: str,
    title: str,
    lead: str,
    refresh: str = "",
    done: str = "no",
    facts: str = "",
    form: str = "",
    back: str = "",
) -> web.Response:
    """The page. ``refresh``, ``facts``, ``form`` and ``back`` are HTML already."""
    text = template.substitute(
        state=escape(state),
        badge=escape(badge),
        title=escape(title),
        lead=escape(lead),
        refresh=refresh,
        done=done,
        facts=facts,
        form=form,
        back=back,
    )
    return web.Response(
        text=text, status=status, content_type="text/html", headers={hdrs.CACHE_CONTROL: "no-store"}
    )
