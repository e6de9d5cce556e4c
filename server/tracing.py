"""Traces, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where to. Without it nothing is done, and nothing imported.

A span for each request at a door (not for relayed signaling, which takes less time than a span), for each turn of a
job, and within those for each command to the database.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from marshmallow import ValidationError

from server.config_checks import url

# What a span says of its end: "ok", or the code of a refusal, or "failed".
FAULTS = frozenset({"INTERNAL", "DATABASE_AWAY", "failed"})


class Span(Protocol):
    """Something that goes on."""

    def outcome(self, word: str) -> None:
        """How it has ended."""
        ...


class Traces(Protocol):
    """One per process."""

    @property
    def listeners(self) -> Sequence[Any]:
        """What the database's driver tells of its commands."""
        ...

    def span(self, name: str, *, door: str) -> AbstractContextManager[Span]:
        """A span around what is done for one request or turn. ``door``: "socket", "rest" or "job"."""
        ...

    async def close(self) -> None:
        """Send what has not been sent, for a few seconds at most."""
        ...


def traces_to(endpoint: str | None, *, process: str, version: str) -> Traces | None:
    """What sends spans to an OTLP/HTTP receiver at ``endpoint``; None without one."""
    if endpoint is None:
        return None
    from server.adapters.otel import OtelTraces

    return OtelTraces(endpoint, process=process, version=version)


def endpoint(text: str) -> None:
    """A check of the variable: an address, and the packages that send to it."""
    url("http", "https")(text)
    if not installed():
        raise ValidationError("needs more packages: pip install 'ringmeter[otel]'.")


def installed() -> bool:
    """Whether the packages are there. Only looks for them."""
    try:
        return all(
            importlib.util.find_spec(name) is not None
            for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
        )
    except ModuleNotFoundError:  # not even what they are in
        return False
