"""One catalogue of every way in and of everything we say.

    @event("CALL_REJECT", takes=RejectCall, gives=CallView, refuses=["CALL_UNKNOWN"], lane="call_id")
    @route("POST", "/api/calls/reject", takes=RejectCall, gives=CallView, wraps="call")
    async def call_reject(ctx, ask): ...

Dispatch, both API documents, the acks, the metrics and the tests of the house are made from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from handlers.context import Context
from handlers.shapes import Nothing, Shape
from models.agenda import Agenda

Handler = Callable[[Context, dict[str, Any]], Awaitable[Any]]
F = TypeVar("F", bound=Callable[..., Any])
# What limits a door: events 10/s, relayed signaling 50/s, credentials 10/min per address and account (or per address
# alone, where whoever names an account could keep its owner from the door), or nothing.
Limit = Literal["event", "relay", "auth", "address", "none"]
# What a route does with the body of a request: JSON joins the payload; ``stream`` is left to the handler as
# ``ctx.upload``, piece by piece; ``raw`` is given whole as ``ctx.raw``, for signatures over its very bytes.
Body = Literal["json", "stream", "raw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event that clients send.

    ``lane`` names the field whose value orders requests: one at a time per value. ``once`` answers a repeated
    ``opId`` with the first ack. A ``relay`` is a plain function that decides and returns letters; it never waits, and
    what it cannot decide from memory goes to ``handler`` as for any other event. ``positional`` names the fields of an
    event that is also heard with separate arguments, in their order.
    """

    name: str
    handler: Callable[..., Any]
    takes: type[Shape]
    gives: type[Shape] | None
    refuses: Sequence[str]
    lane: str | None
    once: bool
    limit: Limit
    relay: Callable[..., Any] | None
    positional: Sequence[str]
    doc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A REST route. ``path`` has ``{fields}`` that join the payload; ``also`` are other names of the same route.

    ``wraps`` names the key around the answer (``{"call": …}``); ``gives`` with ``many`` is a page
    ``{"items": […], "nextCursor"}``. A ``blob`` answers with a file (``handlers.blobs.Blob``), to HEAD as well. With
    ``etag`` the answer has an entity tag, and whoever names it in ``If-None-Match`` gets 304 while it is the same.
    """

    method: str
    path: str
    also: Sequence[str]
    handler: Handler
    takes: type[Shape]
    gives: type[Shape] | None
    wraps: str | None
    many: bool
    status: int
    public: bool
    limit: Limit
    refuses: Sequence[str]
    lane: str | None
    once: bool
    body: Body
    blob: bool
    etag: bool
    scope: str | None
    doc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An event that the server sends."""

    name: str
    shape: type[Shape]
    doc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Timed work, every ``every_seconds``. Safe to run in several processes at once.

    What is about the sockets and the memory of a process runs in each; what is done for all of them (``anywhere``)
    mostly runs in one, and may be left to workers. Where several are due, the others wait a moment
    for one that is ``first``. What has an ``agenda`` has few turns while nothing on it is to be seen.
    """

    name: str
    every_seconds: float
    handler: Callable[..., Awaitable[Any]]
    doc: str
    anywhere: bool = False
    first: bool = False
    agenda: Callable[..., Agenda] | None = None


@dataclass(slots=True)
class Catalogue:
    """Everything that was declared, by name."""

    events: dict[str, Event] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    notices: dict[str, Notice] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)

    def event(self, name: str) -> Event | None:
        """The event of that name; upper-case names are also heard in lower case."""
        found = self.events.get(name)
        if found is None and name.islower():
            found = self.events.get(name.upper())
        return found


catalogue = Catalogue()


def event(
    name: str,
    *,
    takes: type[Shape] = Nothing,
    gives: type[Shape] | None = None,
    refuses: Sequence[str] = (),
    lane: str | None = None,
    once: bool = False,
    limit: Limit = "event",
    relay: Callable[..., Any] | None = None,
    positional: Sequence[str] = (),
) -> Callable[[F], F]:
    """Declare ``async def handler(ctx, ask)`` as the answer to an event. The docstring becomes documentation.

    ``relay(ctx, ask) -> (data, letters) | None`` is tried first where there is one: forwarding without memory, task
    or database. None says that what it needs is not in memory.
    """

    def declare(handler: F) -> F:
        if name in catalogue.events:
            raise ValueError(f"event {name} is declared twice")
        catalogue.events[name] = Event(
            name=name,
            handler=handler,
            takes=takes,
            gives=gives,
            refuses=tuple(refuses),
            lane=lane,
            once=once,
            limit=limit,
            relay=relay,
            positional=tuple(positional),
            doc=handler.__doc__ or "",
        )
        return handler

    return declare


def route(
    method: str,
    path: str,
    *,
    also: Sequence[str] = (),
    takes: type[Shape] = Nothing,
    gives: type[Shape] | None = None,
    wraps: str | None = None,
    many: bool = False,
    status: int = 200,
    public: bool = False,
    limit: Limit = "event",
    refuses: Sequence[str] = (),
    lane: str | None = None,
    once: bool = False,
    body: Body = "json",
    blob: bool = False,
    etag: bool = False,
    scope: str | None = None,
) -> Callable[[F], F]:
    """Declare ``async def handler(ctx, ask)`` as the answer to a REST route; path, query and body make ``ask``.

    With ``once`` a repeated ``Idempotency-Key`` header (or ``opId``) gets the first answer again. ``scope`` opens it to
    API keys that have it.
    """

    def declare(handler: F) -> F:
        catalogue.routes.append(
            Route(
                method=method,
                path=path,
                also=tuple(also),
                handler=handler,
                takes=takes,
                gives=gives,
                wraps=wraps,
                many=many,
                status=status,
                public=public,
                limit=limit,
                refuses=tuple(refuses),
                lane=lane,
                once=once,
                body=body,
                blob=blob,
                etag=etag,
                scope=scope,
                doc=handler.__doc__ or "",
            )
        )
        return handler

    return declare


def notice(name: str, shape: type[Shape], doc: str) -> str:
    """Declare an event that the server sends; returns its name."""
    catalogue.notices[name] = Notice(name=name, shape=shape, doc=doc)
    return name


def job(
    name: str,
    *,
    every_seconds: float,
    anywhere: bool = False,
    first: bool = False,
    agenda: Callable[..., Agenda] | None = None,
) -> Callable[[F], F]:
    """Declare ``async def handler(services)`` as timed work; see ``Job``."""

    def declare(handler: F) -> F:
        if name in catalogue.jobs:
            raise ValueError(f"job {name} is declared twice")
        catalogue.jobs[name] = Job(
            name=name,
            every_seconds=every_seconds,
            handler=handler,
            doc=handler.__doc__ or "",
            anywhere=anywhere,
            first=first,
            agenda=agenda,
        )
        return handler

    return declare
