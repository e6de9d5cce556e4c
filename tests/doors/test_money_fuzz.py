"""Whatever is sent to the routes of money: the answer is one that the document names, and never a fault of ours.

Requests are made by schemathesis from /openapi.json, right ones and wrong ones, always the same; the server is the
real one, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.doors.conftest import open_house

ROOT = Path(__file__).parents[2]
ROUTES = r"^/(api/wallet|api/wallets|api/payments|wallet|payments|transactions)"
EXAMPLES = 8
# Below it aiohttp hands a request's first line on; a longer one it refuses itself, in words of its own.
LINE_BYTES_MAX = 8_000
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@dataclass
class Open:
    """A server that is up, and somebody with a wallet."""

    url: str
    token: str


@pytest.fixture(scope="module")
def served(mongo_uri: str) -> Iterator[Open]:
    """A house in a thread with a loop of its own."""
    up: list[Any] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def live() -> None:
        over = asyncio.Event()
        try:
            async with open_house(mongo_uri) as house:
                person = await house.person("fuzzed")
                await person.post("/api/wallet/create", {"pin": "4821"})
                await person.pay_in(5_000_000)
                up.extend([Open(house.url, person.token), over])
                ready.set()
                await over.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    ready.wait(60)
    assert up, "the house did not open"
    yield up[0]
    loop.call_soon_threadsafe(up[1].set)
    thread.join(30)
    loop.close()


def operations() -> list[Any]:
    """The operations of money, from the document as it is checked in (and as it is served, another test says)."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    schema = schemathesis.openapi.from_dict(document).include(path_regex=ROUTES)
    return [found.ok() for found in schema.get_all_operations()]


OPERATIONS = operations()


def test_the_document_has_the_routes_of_money() -> None:
    assert len(OPERATIONS) > 30


# Schemathesis draws by the module of that name, and where other tests ran before, hypothesis says so.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_every_answer_is_a_documented_one(served: Open, operation: Any, mode: GenerationMode) -> None:
    session = requests.Session()
    session.trust_env = False

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def look(case: schemathesis.Case) -> None:
        answer = case.call(
            base_url=served.url,
            session=session,
            headers={"Authorization": f"Bearer {served.token}"},
            allow_redirects=False,
            timeout=10,
        )
        if len(answer.request.url or "") > LINE_BYTES_MAX:
            assert answer.status_code == 400
            return
        case.validate_response(answer, checks=CHECKS)

    try:
        look()
    except Unsatisfiable:
        pytest.skip("there is no wrong request to it")
    finally:
        session.close()
