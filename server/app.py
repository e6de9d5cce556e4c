"""The application: one ``cleanup_ctx`` per resource, all routes, and the drain."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from handlers.calls_jobs import DEAD_AFTER_SECONDS
from handlers.elsewhere import Hearer
from handlers.services import Services
from handlers.system import arrived, gone, more, welcome
from models.auth.tokens import TokenMint
from models.db import Database
from models.errors import Refusal
from models.ports import Clock, NoCourier
from models.rooms.engine import ALARM as ROOM_ALARM
from server.admin.app import add_admin
from server.admission import Admission
from server.backlogs import BACKLOGS_SECONDS
from server.backlogs import JOB as BACKLOGS
from server.bus.bus import Bus
from server.clock import LoopAlarms, SystemClock, SystemIds, Tasks
from server.config import Config
from server.counted_gateways import count_gateway
from server.docs import add_documents
from server.funnel import Answer
from server.gate import Gate
from server.health import VERSION, Health
from server.jobs import counted, turn_of
from server.metrics import (
    NO_DOOR,
    REQUESTS,
    CountedEnds,
    count_entries,
    count_ledger_refusal,
    declare_doors,
)
from server.prepare import prepare
from server.rest import BODY_MAX, add_routes, answer_with
from server.rests import rest_of
from server.sandbox_pages import add_sandbox
from server.security import Origins, protect
from server.siblings import Siblings
from server.sockets import Sockets
from server.tracing import traces_to
from server.turns import Turns
from server.wiring import Edges, Wired, catalogue, wire

log = structlog.get_logger(__name__)

WEB = Path(__file__).parent / "web"
SWEEP_SECONDS = 1.0
# How soon a block holds at every process.
BLOCKS_SECONDS = 5.0
GC_THRESHOLDS = (20_000, 20, 50)
# Of the 10 s that a drain may take in all; the database's own stop needs some of them.
DRAIN_SECONDS = 5.0
# The turn that a job is in when the server ends; what it leaves undone the next process does.
TURN_SECONDS_MAX = 1.0

WIRED: web.AppKey[Wired] = web.AppKey("wired", Wired)
SOCKETS: web.AppKey[Sockets] = web.AppKey("sockets", Sockets)
DATABASE: web.AppKey[Database] = web.AppKey("database", Database)
HEALTH: web.AppKey[Health] = web.AppKey("health", Health)
BUS: web.AppKey[Bus] = web.AppKey("bus", Bus)
TASKS: web.AppKey[Tasks] = web.AppKey("tasks", Tasks)


def make_app(
    config: Config,
    uri: str,
    *,
    clock: Clock | None = None,
    works: bool = True,
    siblings: Siblings | None = None,
) -> web.Application:
    """The whole server on the MongoDB at ``uri``; nothing is opened before the app starts.

    ``clock`` is a test's own; without it time is the machine's. ``works``: it also does the jobs that are anybody's.
    ``siblings`` are the other processes at the same port.
    """
    app = web.Application(client_max_size=BODY_MAX)
    clock, ids, tasks = clock or SystemClock(), SystemIds(), Tasks()
    process = ids.new()
    origins = Origins(config.cors_origins)
    alarms = LoopAlarms(clock, tasks)
    admission = Admission(config.limits.admission, clock)
    sockets = Sockets(
        tasks=tasks,
        process=process,
        origins=origins.allows_socket,
        admission=admission,
        proxy_hops=config.trusted_proxy_hops,
    )
    traces = traces_to(config.otel_endpoint, process=process, version=VERSION)
    db = Database(uri, config.mongo_database, listeners=traces.listeners if traces is not None else ())
    bus = (
        Bus(config.redis_url, name=config.mongo_database, process=process, tasks=tasks)
        if config.redis_url
        else None
    )
    pushing = asyncio.Event()
    paying = asyncio.Event()
    watching = asyncio.Event()
    edges = Edges(
        clock=clock,
        ids=ids,
        alarms=alarms,
        doors=sockets,
        process=process,
        courier=bus or NoCourier(),
        nudge=pushing.set,
        nudge_billing=paying.set,
        nudge_presence=watching.set,
        give_way=tasks.give_way,
    )
    wired = wire(config, db, edges)
    services = wired.services
    wired.funnel.traces = traces
    alarms.ring = lambda key: (services.rooms if key.startswith(ROOM_ALARM) else services.calls).alarm(key)
    services.calls.works, services.calls.send_back = works, sockets.send_back
    turns = Turns(process, works=works, workers=lambda: services.calls.workers, clock=clock)
    services.ledger.listeners.append(count_entries)
    services.ledger.refused = count_ledger_refusal
    declare_doors(catalogue)
    for gateway in wired.money.gateways.values():
        count_gateway(gateway)
    services.calls.announcer = CountedEnds(services.calls.announcer)
    sockets.bind(
        services=services,
        funnel=wired.funnel,
        catalogue=catalogue,
        welcome=welcome,
        more=more,
        arrived=arrived,
        gone=gone,
    )

    if bus is not None:
        bus.bind(doors=sockets, ear=Hearer(services), others_live=lambda: services.calls.others_live)
        sockets.carry = bus.carry
        sockets.relay_to(bus.towards)
        sockets.here = lambda user_id, connected: bus.here(user_id, connected=connected)
        app[BUS] = bus

    protect(app, origins=origins, production=config.production, new_id=ids.new)
    assert config.jwt_secret is not None
    mint = TokenMint(config.jwt_secret, config.access_token_seconds)
    gate = Gate(
        blocks=services.blocks,
        admission=admission,
        block_after=config.limits.block_after,
        proxy_hops=config.trusted_proxy_hops,
        clock=clock,
        tasks=tasks,
        made_by_us=lambda token: mint.made(token, clock.now()),
    )
    app.middlewares.extend([gate.middleware, _refusals])
    add_routes(app, catalogue, services, wired.funnel, proxy_hops=config.trusted_proxy_hops)
    health = Health(db, services.calls, sockets.relayed, bus)
    health.siblings = siblings
    health.add_routes(app)
    add_documents(app, catalogue, WEB)
    add_admin(app, wired=wired, config=config, db=db, pages=WEB)
    _add_pages(app, production=config.production)
    if wired.money.sandbox is not None:
        add_sandbox(app, wired.money.sandbox, WEB)
    sockets.sio.attach(app)
    if siblings is not None:
        siblings.join(app, sockets.sio.eio, proxy_hops=config.trusted_proxy_hops)

    app[WIRED], app[SOCKETS], app[DATABASE], app[HEALTH], app[TASKS] = wired, sockets, db, health, tasks

    async def database(_: web.Application) -> AsyncIterator[None]:
        await prepare(db, clock, process)
        yield
        await db.close()
        if traces is not None:
            await traces.close()

    async def threads(_: web.Application) -> AsyncIterator[None]:
        yield
        await wired.close()

    async def others(_: web.Application) -> AsyncIterator[None]:
        if bus is not None:
            bus.start()
        yield
        if bus is not None:
            bus.stop()

    async def jobs(_: web.Application) -> AsyncIterator[None]:
        # Before any socket is ours. What died with other processes goes before all that is overdue by now: a call
        # whose money has run out since must not be charged for the time in which nobody knew of a conversation.
        await services.calls.run_leases(DEAD_AFTER_SECONDS)
        await services.calls.run_orphaned(DEAD_AFTER_SECONDS)
        await services.presence.run_orphaned(DEAD_AFTER_SECONDS)
        await services.rooms.run_orphaned(DEAD_AFTER_SECONDS)
        timed = [
            asyncio.create_task(
                tasks.every(
                    job.every_seconds,
                    turn_of(job, services, turns, traces),
                    job.name,
                    first=job.first,
                    rest=rest_of(job, services, turns, clock),
                )
            )
            for job in catalogue.jobs.values()
        ]
        for name, seconds, work in (
            ("tokens", SWEEP_SECONDS, sockets.sweep),
            ("address_blocks", BLOCKS_SECONDS, lambda: _put_out(services, sockets)),
            (BACKLOGS, BACKLOGS_SECONDS, lambda: wired.backlogs.read(turns.first(BACKLOGS))),
        ):
            turn = counted(name, seconds, work, clock)
            timed.append(asyncio.create_task(tasks.every(seconds, turn, name)))
        waiting = [
            asyncio.create_task(_at_once(pushing, services.pushes.run_due, "pushes", tasks)),
            asyncio.create_task(_at_once(paying, services.billing.run_wanted, "billing", tasks)),
            asyncio.create_task(_at_once(watching, services.presence.run_due, "presence", tasks)),
        ]
        # What was imported never dies: keep the collector from walking it again and again. What lives on after a
        # request is rarely a cycle, so looking for those every 700 objects costs more than it finds.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        yield
        alarms.stop()
        for task in waiting:
            task.cancel()
        await tasks.end(timed, TURN_SECONDS_MAX)
        await asyncio.gather(*waiting, return_exceptions=True)
        sockets.sio.eio.pings.abort()
        await _last_words(services)

    app.cleanup_ctx.extend([database, threads, others, jobs])
    return app


def health_app(app: web.Application) -> web.Application:
    """How ``app`` is, and nothing else of it: for a worker, whose port serves nobody."""
    health = web.Application()
    app[HEALTH].add_routes(health)
    return health


async def drain(app: web.Application) -> None:
    """No new calls, everybody sent away to come back, what runs brought to its end."""
    app[HEALTH].draining = True
    app[WIRED].funnel.draining = True
    await app[SOCKETS].drain()
    await app[TASKS].drain(DRAIN_SECONDS)


async def _put_out(services: Services, sockets: Sockets) -> None:
    """Read which addresses are kept out, and close the sockets that are there already."""
    if await services.blocks.refresh():
        await sockets.put_out(partial(services.blocks.refusal, stranger=False))


async def _at_once(
    wanted: asyncio.Event, work: Callable[[], Coroutine[Any, Any, Any]], name: str, tasks: Tasks
) -> None:
    """A new push goes out, a payment extends a call: now, not at the job's next turn."""
    while True:
        await wanted.wait()
        wanted.clear()
        tasks.spawn(work(), name)


async def _last_words(services: Services) -> None:
    try:
        await services.calls.flush_told()
    except Exception as error:
        log.info("told marks were not written; the next start tells again", error=repr(error))


@web.middleware
async def _refusals(request: web.Request, handler):  # type: ignore[no-untyped-def]
    """aiohttp's own refusals in the form of ours."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        REQUESTS.labels(NO_DOOR, "ROUTE_UNKNOWN").inc()
        return answer_with(Answer(refusal=Refusal("ROUTE_UNKNOWN")), request)
    except web.HTTPMethodNotAllowed as no:
        answer = answer_with(Answer(refusal=Refusal("METHOD_NOT_ALLOWED")), request)
        answer.headers["Allow"] = ", ".join(sorted(no.allowed_methods))
        return answer
    except web.HTTPRequestEntityTooLarge:
        return answer_with(Answer(refusal=Refusal("PAYLOAD_TOO_LARGE")), request)


def _add_pages(app: web.Application, *, production: bool) -> None:
    if production:
        return

    async def demo(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(WEB / "demo" / "index.html")

    async def rooms(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(WEB / "demo" / "rooms.html")

    app.router.add_get("/", demo)
    app.router.add_get("/rooms", rooms)
    app.router.add_static("/static/demo", WEB / "demo")
    app.router.add_static("/static/look", WEB / "look")
