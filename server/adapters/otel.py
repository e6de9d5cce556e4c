"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP from a thread of its own.

Imported only where traces are wanted. What the SDK reads from the environment by itself holds too: OTEL_TRACES_SAMPLER,
OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_*. Nothing here is global, so no other SDK is in its way.

No span holds who somebody is or what was sent: names of doors and collections, outcomes, and times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from server.tracing import FAULTS

SERVICE = "ringmeter"
# A receiver that does not answer holds up the thread that sends, and the end of the process, so long at most.
SEND_SECONDS = 3
# Commands in flight are bounded by the driver's pool; what never ends, by this.
COMMANDS_MAX = 1000
_QUIET = frozenset({"hello", "ping", "endSessions", "killCursors"})


class OtelSpan:
    """A span that goes on."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def outcome(self, word: str) -> None:
        """Its outcome; a fault of ours marks it as failed, a refusal does not."""
        self._span.set_attribute("ringmeter.outcome", word)
        if word in FAULTS:
            self._span.set_status(Status(StatusCode.ERROR, word))


class OtelTraces:
    """``server.tracing.Traces``. ``endpoint`` is the receiver's address, to which ``/v1/traces`` is added."""

    def __init__(self, endpoint: str, *, process: str, version: str) -> None:
        resource = Resource.create({"service.version": version, "service.instance.id": process})
        if resource.attributes.get("service.name", "").startswith("unknown_service"):  # type: ignore[union-attr]
            resource = resource.merge(Resource({"service.name": SERVICE}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE, version)
        self.listeners: Sequence[Any] = (_Commands(self._tracer),)

    @contextmanager
    def span(self, name: str, *, door: str) -> Iterator[OtelSpan]:
        """A span that begins a trace: what clients say of theirs is not believed."""
        kind = SpanKind.INTERNAL if door == "job" else SpanKind.SERVER
        with self._tracer.start_as_current_span(
            name,
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            kind=kind,
            attributes={"ringmeter.door": door},
            record_exception=False,  # its text may hold what was sent; the log has it
            set_status_on_exception=False,
        ) as span:
            yield OtelSpan(span)

    async def close(self) -> None:
        """Send the rest."""
        await asyncio.to_thread(self._provider.shutdown)


class _Commands(CommandListener):  # type: ignore[misc]
    """A span for each command of the driver that is sent within a span."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._running: dict[tuple[int, Any], trace.Span] = {}

    def started(self, event: CommandStartedEvent) -> None:
        """It was sent."""
        if event.command_name in _QUIET or not trace.get_current_span().is_recording():
            return
        target = event.command.get(event.command_name)
        about = {
            "db.system.name": "mongodb",
            "db.operation.name": event.command_name,
            "db.namespace": event.database_name,
        }
        if isinstance(target, str):
            about["db.collection.name"] = target
        name = f"{event.command_name} {target}" if isinstance(target, str) else event.command_name
        if len(self._running) >= COMMANDS_MAX:
            self._running.pop(next(iter(self._running))).end()
        self._running[_key(event)] = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=about)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """It was answered."""
        span = self._running.pop(_key(event), None)
        if span is not None:
            span.end()

    def failed(self, event: CommandFailedEvent) -> None:
        """It was refused, or the connection broke. The server's words may hold values, so only its code is kept."""
        span = self._running.pop(_key(event), None)
        if span is not None:
            code = event.failure.get("code")
            if isinstance(code, int):
                span.set_attribute("db.response.status_code", str(code))
            span.set_status(Status(StatusCode.ERROR))
            span.end()


def _key(event: Any) -> tuple[int, Any]:
    return event.request_id, event.connection_id
