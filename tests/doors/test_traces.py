"""Traces by OpenTelemetry: what a receiver on this machine is sent, and that nothing is there when nobody asks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from server.config import ConfigFault, load_config
from server.tracing import installed
from tests.doors.conftest import PASSWORD, House, open_house
from tests.doors.serverprocess import eventually

ROOT = Path(__file__).parents[2]
SERVER, CLIENT, INTERNAL = 2, 3, 1
FAILED = 2


@dataclass
class Receiver:
    """Speaks OTLP over HTTP, and keeps what it gets."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    raw: bytes = b""

    async def take(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        assert request.headers["Content-Type"] == "application/x-protobuf"
        body = await request.read()
        self.raw += body
        told = ExportTraceServiceRequest.FromString(body)
        for one in told.resource_spans:
            self.resources.append({a.key: a.value.string_value for a in one.resource.attributes})
            self.spans += [span for scope in one.scope_spans for span in scope.spans]
        return web.Response(body=b"", content_type="application/x-protobuf")

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def within(self, parent: Any) -> list[Any]:
        return [span for span in self.spans if span.parent_span_id == parent.span_id]


def about(span: Any) -> dict[str, str]:
    return {a.key: a.value.string_value for a in span.attributes}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    if not installed():
        said = "needs the extra otel: .venv/bin/pip install -c constraints.txt '.[otel]'"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    one = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", one.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield one
    await runner.cleanup()


async def lived(house: House) -> None:
    ann = await house.person("ann")
    await ann.get("/api/wallet")
    (await house.send("POST", "/api/auth/login", {"identifier": ann.username, "password": "not it"})).error(
        401, "CREDENTIALS_WRONG"
    )

    async def worked() -> bool:
        page = await house.send("GET", "/metrics")
        return 'ringmeter_job_runs_total{name="deadlines",outcome="ok"} 0.0' not in page.body

    await eventually(worked)


async def test_doors_jobs_and_their_commands_become_spans(mongo_uri: str, receiver: Receiver) -> None:
    async with open_house(mongo_uri, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url + "/") as house:
        await lived(house)
    (registered,) = receiver.named("POST /api/auth/register")
    assert (registered.kind, about(registered)["ringmeter.outcome"]) == (SERVER, "ok")
    assert registered.parent_span_id == b""
    commands = receiver.within(registered)
    assert {"mongodb"} == {about(span)["db.system.name"] for span in commands}
    assert all(span.kind == CLIENT and span.trace_id == registered.trace_id for span in commands)
    assert any(about(span).get("db.collection.name") == "users" for span in commands)
    assert all(registered.start_time_unix_nano <= span.start_time_unix_nano for span in commands)
    (refused,) = receiver.named("POST /api/auth/login")
    assert (about(refused)["ringmeter.outcome"], refused.status.code) == ("CREDENTIALS_WRONG", 0)
    job = receiver.named("job deadlines")[0]
    assert (job.kind, about(job)["ringmeter.outcome"]) == (INTERNAL, "ok")
    assert any(receiver.within(one) for one in receiver.named("job deadlines"))
    assert receiver.resources[0]["service.name"] == "ringmeter"
    assert receiver.resources[0]["service.version"]


async def test_no_span_says_who_somebody_is_or_what_was_sent(mongo_uri: str, receiver: Receiver) -> None:
    async with open_house(mongo_uri, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as house:
        await lived(house)
        bob = await house.person("bob")
        await bob.get("/api/users?query=ann")
        secrets = [bob.id, bob.username, bob.token, PASSWORD, "example.org", "not it"]
    assert receiver.named("GET /api/users")
    for secret in secrets:
        assert secret.encode() not in receiver.raw


async def test_a_fault_of_ours_is_a_span_that_failed_and_its_words_stay_here(
    mongo_uri: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("tell-nobody")

    async with open_house(mongo_uri, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as house:
        ann = await house.person("ann")
        monkeypatch.setattr(house.services.users, "search", breaks, raising=True)
        assert (await ann.get("/api/users?query=ann")).status == 500
    (span,) = receiver.named("GET /api/users")
    assert (span.status.code, about(span)["ringmeter.outcome"]) == (FAILED, "INTERNAL")
    assert b"tell-nobody" not in receiver.raw


async def test_a_receiver_that_is_away_keeps_nobody_waiting(mongo_uri: str, receiver: Receiver) -> None:
    async with open_house(mongo_uri, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as house:
        ann = await house.person("ann")
        assert (await ann.get("/api/wallet")).status in (200, 404)


def test_nothing_of_it_is_imported_when_nobody_asks(tmp_path: Path) -> None:
    # redis-py looks for the metrics of that SDK by itself, where it is installed.
    program = (
        "import sys, main\n"
        "from server.app import make_app\n"
        "from server.config import load_config, with_jwt_secret\n"
        "import asyncio\n"
        "async def made():\n"
        "    make_app(with_jwt_secret(load_config({'DATA_DIR': sys.argv[1]})), 'mongodb://127.0.0.1:9/?replicaSet=x')\n"
        "asyncio.run(made())\n"
        "ours = ('opentelemetry.exporter', 'opentelemetry.sdk.trace', 'opentelemetry.proto', 'server.adapters.otel')\n"
        "print(sorted(m for m in sys.modules if m.startswith(ours)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_without_its_packages_the_variable_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.tracing.installed", lambda: False)
    with pytest.raises(ConfigFault, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT needs more packages: pip install"):
        load_config({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    with pytest.raises(ConfigFault, match="OTEL_EXPORTER_OTLP_ENDPOINT must begin with http"):
        load_config({"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4318"})
