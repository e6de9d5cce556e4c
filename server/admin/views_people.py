"""People: who has an account, one person's page, and what is done about them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from models.errors import Refusal
from models.ledger.journal import Wallet
from models.trail.rules import Actor
from models.users.profile import ACTIVE, ADMIN, BANNED, DELETED, USER, Account
from server.admin.nav import Entry
from server.admin.visit import BASE, Page, Visit

SHOWN = 50
CALLS_SHOWN = 15
ACTS_SHOWN = 8
STATES = (ACTIVE, BANNED, DELETED)
ROLES = (USER, ADMIN)

# A verb of the desk: ``verb(name, by=, reason=)``.
Verb = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Act:
    """What is done about somebody. ``fresh``: the second factor is asked for again; ``said`` has the name in it."""

    verb: Callable[[Visit], Verb]
    said: str
    fresh: bool = False
    money: bool = False


ACTS = {
    "ban": Act(lambda visit: visit.services.desk.people.ban, "{} is banned."),
    "unban": Act(lambda visit: visit.services.desk.people.unban, "{} is let in again."),
    "freeze": Act(lambda visit: visit.services.desk.money.freeze, "{}: frozen.", money=True),
    "unfreeze": Act(lambda visit: visit.services.desk.money.unfreeze, "{}: open again.", money=True),
    "end-sessions": Act(
        lambda visit: visit.services.desk.people.end_sessions, "All sign-ins of {} have ended."
    ),
    "drop-factor": Act(
        lambda visit: visit.services.desk.people.drop_factor, "{} signs in by password alone.", fresh=True
    ),
    "promote": Act(lambda visit: visit.services.desk.people.promote, "{} is an administrator.", fresh=True),
    "demote": Act(
        lambda visit: visit.services.desk.people.demote, "{} is no administrator any more.", fresh=True
    ),
}


async def people(visit: Visit) -> web.StreamResponse:
    """Who has an account, the newest first; found by what they go by."""
    text = visit.query("text")
    state, role = visit.query("status"), visit.query("role")
    state, role = state if state in STATES else "", role if role in ROLES else ""
    found = await visit.services.desk.people.search(
        text, status=state or None, role=role or None, before=visit.query("before", 64) or None, limit=SHOWN
    )
    query = {"text": text, "status": state, "role": role, "before": found.before or ""}
    older = f"{BASE}/people?{urlencode({k: v for k, v in query.items() if v})}" if found.before else ""
    return await visit.render(
        "people.html",
        found=found.items,
        text=text,
        state=state,
        role=role,
        states=STATES,
        roles=ROLES,
        older=older,
    )


async def person(visit: Visit, failed: dict[str, Any] | None = None, status: int = 200) -> web.StreamResponse:
    """All that is known here of one person."""
    services, desk = visit.services, visit.services.desk
    account = await desk.people.find(visit.part("id"))
    user_id = account.profile.user_id
    wallets, oneself = await desk.money.wallets(user_id), user_id == visit.user_id
    calls = await desk.calls.of(user_id, limit=CALLS_SHOWN)
    done = await services.trail.search(target=user_id, limit=ACTS_SHOWN)
    return await visit.render(
        "person.html",
        status=status,
        account=account,
        profile=account.profile,
        oneself=oneself,
        offered=_offered(account, wallets, oneself=oneself),
        wallets=wallets,
        sessions=await services.accounts.sessions(user_id),
        calls=calls[:CALLS_SHOWN],
        done=done.rows,
        failed=failed,
    )


def _offered(account: Account, wallets: Sequence[Wallet], *, oneself: bool) -> list[str]:
    """Which of ``ACTS`` make sense as things stand. The desk decides; this is what the page shows."""
    profile, others = account.profile, not oneself
    if profile.status == DELETED:
        return []
    frozen = [wallet for wallet in wallets if wallet.frozen]
    sense = {
        "unban": profile.status == BANNED,
        "ban": profile.status != BANNED and others,
        "freeze": len(frozen) < len(wallets),
        "unfreeze": bool(frozen) and others,
        "end-sessions": True,
        "drop-factor": account.second_factor and others,
        "demote": profile.role == ADMIN and others,
        "promote": profile.role != ADMIN and profile.active,
    }
    return [name for name, well in sense.items() if well]


async def act(visit: Visit) -> web.StreamResponse:
    """Do one of ``ACTS``."""
    name = visit.part("act")
    wanted = ACTS.get(name)
    if wanted is None:
        raise Refusal("ROUTE_UNKNOWN")
    account = await visit.services.desk.people.find(visit.part("id"))
    by: Actor = visit.actor
    try:
        if wanted.fresh:
            await visit.fresh()
        more: dict[str, Any] = {}
        whose = account.profile.display_name
        if wanted.money:
            currency = visit.sent("currency", 3)
            more["currency"] = currency or None
            whose = f"The {currency} wallet of {whose}" if currency else f"All wallets of {whose}"
        await wanted.verb(visit)(account.profile.user_id, by=by, reason=visit.sent("reason"), **more)
    except Refusal as no:
        return await person(visit, failed=visit.failed(name, no), status=no.status)
    return visit.to(f"/people/{account.profile.user_id}", wanted.said.format(whose))


ENTRY = Entry("People", "/people", "people")
PAGES = [
    Page(method="GET", path="/people", handler=people),
    Page(method="GET", path="/people/{id}", handler=person),
    Page(method="POST", path="/people/{id}/{act}", handler=act),
]
