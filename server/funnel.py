"""The one path of every request: who → limit → shape → lane → once → handler → answer.

A handler raises ``Refusal`` or returns; nothing else leaves here. Every fault becomes an answer: the database away
is 503 with a time to come back, anything unforeseen is ``INTERNAL`` and a log entry with its trace.

Up to the lane nothing is awaited (where no credentials are shown), so the order of arrival is the order in the lane.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from marshmallow import ValidationError

from handlers.blobs import Blob, Stream
from handlers.context import Context
from handlers.registry import Event, Limit, Route
from handlers.shapes import TEXT_MAX, Shape, camel, unclean
from models.auth.guesses import Guesses, name_of
from models.blocks.rules import network_of
from models.db import database_away
from models.errors import Refusal
from models.once import FirstAnswer, Once
from models.ports import Clock, Letter, Window, Windows
from server.lanes import Lanes
from server.limits import Allowance, TokenBucket
from server.metrics import REQUEST_SECONDS, REQUESTS
from server.proofs import note_misuse, note_proof
from server.tracing import Traces

log = structlog.get_logger(__name__)

OP_ID_MAX = 128
# What names an account at the doors that ask for a password, in the order in which they are looked at there.
_ACCOUNT_NAMES = ("identifier", "email", "username", "phone", "phoneNumber", "phone_number")

# Refusals of what a person types again, for the same thing and under the same key; see ``models.once.fingerprint``.
_TYPED_AGAIN = frozenset(
    {
        "PIN_WRONG",
        "PIN_LOCKED",
        "PIN_UNSET",
        "PASSWORD_WRONG",
        "PASSWORD_REQUIRED",
        "TOTP_REQUIRED",
        "TOTP_WRONG",
        "TOTP_LOCKED",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with. ``data`` is the handler's answer in wire form; ``refusal`` when it said no."""

    data: Any = None
    refusal: Refusal | None = None

    def ack(self) -> dict[str, Any]:
        """As the acknowledgement of an event."""
        if self.refusal is not None:
            return {"ok": False, "error": self.refusal.body()}
        return {"ok": True, "data": self.data if self.data is not None else {}}


class Limits:
    """The rates of CONTRACT §1, which has ten events a second. Of a device in this process's memory, of addresses and
    accounts in ``windows``.
    """

    def __init__(
        self,
        auth_per_minute: int,
        events_per_second: int = 10,
        *,
        windows: Windows,
        clock: Clock,
        guesses: Guesses | None = None,
    ) -> None:
        self.event = TokenBucket(events_per_second, 10 * events_per_second)
        self.relay = TokenBucket(5 * events_per_second, 20 * events_per_second)
        self._auth_per_minute = auth_per_minute
        self._windows = windows
        self._clock = clock
        self._guesses = guesses

    def allowance(self, ctx: Context) -> Allowance:
        """What a device may relay."""
        return self.relay.of(_device(ctx), time.monotonic())

    def check(self, limit: Limit, ctx: Context) -> None:
        """Count one request of a device (without a sign-in: of an address), or refuse with ``RATE_LIMITED``."""
        now = time.monotonic()
        if limit == "event":
            wait = self.event.take(_device(ctx) if ctx.user_id else network_of(ctx.address), now)
        elif limit == "relay":
            wait = self.relay.take(_device(ctx), now)
        else:
            return
        if wait:
            raise Refusal("RATE_LIMITED", retry_after_ms=wait)

    async def credentials(
        self, ctx: Context, ask: Mapping[str, Any] | None, door: str, *, by_account: bool = True
    ) -> None:
        """Count one try at a door where credentials are shown, or refuse with ``RATE_LIMITED``.

        By address first: who is refused there takes nothing from the account that ``ask`` names. A device that was
        signed in before, and an address from which a password was set anew, do not share that account's allowance
        with strangers.
        """
        now, address = self._clock.now().timestamp(), network_of(ctx.address)
        account = _account(ctx, ask) if by_account else None
        guesses = self._guesses if account and not ctx.user_id else None
        device = guesses.known.read((ask or {}).get("deviceToken")) if guesses else None
        asked = [f"{door}|{address}"]
        if account:
            asked.append(f"{door}|known {device.id}|{account}" if device else f"{door}||{account}")
        windows = [Window(key, self._auth_per_minute, 60.0) for key in asked]
        wait = await self._windows.take(*windows, now=now)
        if wait and account and guesses and await guesses.is_back(account, ctx.address):
            own = Window(f"{door}|back {address}|{account}", self._auth_per_minute, 60.0)
            wait = await self._windows.take(own, now=now)
        if wait:
            raise Refusal("RATE_LIMITED", retry_after_ms=wait)


def _about(ctx: Context, payload: Any) -> dict[str, str]:
    """What the log lines of a request carry: who, and which call."""
    about = {"user_id": ctx.user_id} if ctx.user_id else {}
    call_id = payload.get("callId") if isinstance(payload, dict) else None
    if isinstance(call_id, str):
        about["call_id"] = call_id[:64]
    return about


def _device(ctx: Context) -> str:
    """Whose allowance it is. A REST client may call itself another device in each request, so there the sign-in."""
    return f"{ctx.user_id}:{ctx.device_id if ctx.door == 'socket' else f'sign-in {ctx.session_id}'}"


def _named(payload: Any) -> Mapping[str, Any] | None:
    return payload if isinstance(payload, dict) else None


def _account(ctx: Context, ask: Mapping[str, Any] | None) -> str | None:
    """Whose account is tried: the same text however its name is written, or each way would be another ten guesses."""
    if ctx.user_id:
        return ctx.user_id
    for name in _ACCOUNT_NAMES:
        value = (ask or {}).get(name)
        if value and isinstance(value, str):
            return name_of(value) if len(value) <= TEXT_MAX else value[:TEXT_MAX]
    return None


class Funnel:
    """Runs events and routes of the catalogue."""

    def __init__(self, *, limits: Limits, once: Once) -> None:
        self.lanes = Lanes()
        self.limits = limits
        self._once = once
        self._schemas: dict[type[Shape], Shape] = {}
        self.draining = False
        self.traces: Traces | None = None

    def schema(self, shape: type[Shape]) -> Shape:
        """The one instance of a schema."""
        found = self._schemas.get(shape)
        if found is None:
            found = self._schemas[shape] = shape()
        return found

    async def run(self, door: Event | Route, ctx: Context, payload: Any, *, key: str | None = None) -> Answer:
        """Answer one request; never raises. ``key`` is the Idempotency-Key of REST (events carry ``opId``)."""
        started = time.perf_counter()
        name = door.name if isinstance(door, Event) else f"{door.method} {door.path}"
        if self.traces is None:
            answer = await self._answered(door, name, ctx, payload, key)
        else:
            with self.traces.span(name, door=ctx.door) as span:
                answer = await self._answered(door, name, ctx, payload, key)
                span.outcome(answer.refusal.code if answer.refusal else "ok")
        _note(name, ctx, answer, started)
        if door.limit == "auth" or (answer.refusal is not None and answer.refusal.code in _TYPED_AGAIN):
            note_proof(name, ctx, answer.refusal, answer.data, account=_account(ctx, _named(payload)))
        return answer

    async def _answered(
        self, door: Event | Route, name: str, ctx: Context, payload: Any, key: str | None
    ) -> Answer:
        try:
            with structlog.contextvars.bound_contextvars(**_about(ctx, payload)):
                return Answer(await self._admitted(door, name, ctx, payload, key))
        except Refusal as refusal:
            return Answer(refusal=refusal)
        except Exception as error:
            return Answer(refusal=fault(error, name))

    def relay(self, door: Event, ctx: Context, payload: Any) -> tuple[Answer, Sequence[Letter]] | None:
        """Forward at once what can be: the answer, and letters to send. None: use ``run``. Never raises."""
        started = time.perf_counter()
        lane = payload.get(camel(door.lane or "")) if isinstance(payload, dict) else None
        if not isinstance(lane, str) or not self.lanes.free(lane):
            return None
        assert door.relay is not None
        letters: Sequence[Letter] = ()
        try:
            self.limits.check("relay", ctx)
            done = door.relay(ctx, self._load(door, payload))
            if done is None:
                return None
            answer, letters = Answer(done[0]), done[1]
        except Refusal as refusal:
            answer = Answer(refusal=refusal)
        except Exception as error:
            answer = Answer(refusal=fault(error, door.name))
        _note(door.name, ctx, answer, started)
        return answer, letters

    async def _admitted(
        self, door: Event | Route, name: str, ctx: Context, payload: Any, key: str | None
    ) -> Any:
        if door.limit in ("auth", "address"):
            await self.limits.credentials(ctx, _named(payload), name, by_account=door.limit == "auth")
        else:
            self.limits.check(door.limit, ctx)
        if key is not None and not door.once and isinstance(payload, dict) and needs_op_id(door):
            payload = {**payload, "opId": key}  # the verb keeps its own first answers
        ask = self._load(door, payload)
        lane = ask.get(door.lane) if door.lane else None
        if lane is None:
            data = await self._once_only(door, ctx, ask, payload, key)
        else:
            async with self.lanes.turn(str(lane)):
                data = await self._once_only(door, ctx, ask, payload, key)
        return {door.wraps: data} if isinstance(door, Route) and door.wraps and data is not None else data

    def _load(self, door: Event | Route, payload: Any) -> dict[str, Any]:
        if payload is None:
            payload = {}
        if not isinstance(payload, dict):
            raise Refusal("VALIDATION_FAILED", _schema=["An object is expected."])
        try:
            ask: dict[str, Any] = self.schema(door.takes).load(payload)
        except ValidationError as error:
            raise Refusal("VALIDATION_FAILED", **_sentences(error)) from None
        return ask

    async def _once_only(
        self, door: Event | Route, ctx: Context, ask: dict[str, Any], payload: Any, key: str | None
    ) -> Any:
        key = key or (payload.get("opId") if isinstance(payload, dict) else None)
        if not door.once or key is None:
            return await self._call(door, ctx, ask)
        if not isinstance(key, str) or not 0 < len(key) <= OP_ID_MAX or unclean(key):
            raise Refusal("VALIDATION_FAILED", opId=[f"Text of 1 to {OP_ID_MAX} characters."])
        if "op_id" in ask:
            # The verb guards itself by it, should this process die before it keeps the answer.
            ask["op_id"] = key
        now = ctx.services.clock.now()
        first = await self._once.claim(ctx.user_id, f"{_verb(door)}:{key}", {**payload, "opId": None}, now)
        if isinstance(first, FirstAnswer):
            if "error" in first.body:
                error = first.body["error"]
                raise Refusal(error["code"], retry_after_ms=error["wait"], **error["details"])
            return first.body["data"]
        try:
            data = await self._call(door, ctx, ask)
        except Refusal as refusal:
            await self._keep_refusal(ctx, f"{_verb(door)}:{key}", refusal)
            raise
        except BaseException:
            await self._once.forget(ctx.user_id, f"{_verb(door)}:{key}")
            raise
        await self._once.answer(ctx.user_id, f"{_verb(door)}:{key}", {"data": data})
        return data

    async def _keep_refusal(self, ctx: Context, key: str, refusal: Refusal) -> None:
        if refusal.retry_after_ms is not None or refusal.code in _TYPED_AGAIN:
            await self._once.forget(ctx.user_id, key)  # it said "later", so later must be possible
            return
        error = {"code": refusal.code, "details": refusal.details, "wait": None}
        await self._once.answer(ctx.user_id, key, {"error": error})

    async def _call(self, door: Event | Route, ctx: Context, ask: dict[str, Any]) -> Any:
        result = await door.handler(ctx, ask)
        if isinstance(result, Blob | Stream):
            return result
        if door.gives is None or result is None:
            return None
        if isinstance(door, Route) and door.many:
            return {
                "items": self.schema(door.gives).dump(result.items, many=True),
                "nextCursor": result.next_cursor,
            }
        return self.schema(door.gives).dump(result)


def needs_op_id(door: Event | Route) -> bool:
    """Whether the door's own verb knows by its ``opId`` what it has done before."""
    op_id = door.takes._declared_fields.get("op_id")
    return op_id is not None and op_id.required


def fault(error: Exception, name: str) -> Refusal:
    """The refusal for an exception that is nobody's answer, logged."""
    if database_away(error):
        log.warning("database away", door=name, error=type(error).__name__)
        return Refusal("DATABASE_AWAY")
    log.error("unforeseen fault", door=name, exc_info=error)
    return Refusal("INTERNAL")


def _note(name: str, ctx: Context, answer: Answer, started: float) -> None:
    """Count and log one answer to what came at ``started`` (``perf_counter``)."""
    now = time.perf_counter()
    took = now - started
    outcome = answer.refusal.code if answer.refusal else "ok"
    if answer.refusal is not None:
        if answer.refusal.status in (403, 404):
            # Somebody reached for what is not theirs, or for what is not there: kept for whoever looks into abuse.
            log.info("refused", door=name, code=outcome, user_id=ctx.user_id, address=ctx.address)
        else:
            note_misuse(name, outcome, ctx.user_id, ctx.address, now)
    REQUESTS.labels(name, outcome).inc()
    REQUEST_SECONDS.labels(name).observe(took)
    log.debug("answered", door=name, outcome=outcome, took_ms=round(took * 1000, 1), user_id=ctx.user_id)


def _verb(door: Event | Route) -> str:
    """The name under which first answers are kept: the same by socket and by REST."""
    return door.handler.__name__


def _sentences(error: ValidationError) -> dict[str, Any]:
    """Validation messages as field → list of sentences."""
    found: dict[str, Any] = {}
    for field, said in error.normalized_messages().items():
        found[str(field)] = said if isinstance(said, list) else [str(said)]
    return found
