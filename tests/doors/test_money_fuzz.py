"""Whatever is sent to the routes of money: the answer is one that the document names, and never a fault of ours.

Requests are made by schemathesis from /openapi.json, right ones and wrong ones, always the same; the server is the
real one, in a process of its own: what its threads draw by chance would count as drawn by a strategy of hypothesis.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from pymongo import AsyncMongoClient
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.doors.serverprocess import ServerProcess
from tests.patience import PATIENT_MS
from tests.standins import payer

ROOT = Path(__file__).parents[2]
ROUTES = r"^/(api/wallet|api/wallets|api/payments|wallet|payments|transactions)"
EXAMPLES = 8
WHO = {"email": "fuzzed@example.com", "password": "correct horse battery staple"}
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
    """A server that is up, and somebody with money in a wallet."""

    url: str

    def session(self) -> requests.Session:
        """Signed in anew: a sign-in has its own allowance, so none of its few requests is refused for their number."""
        session = requests.Session()
        session.trust_env = False
        answer = session.post(f"{self.url}/api/auth/login", json=WHO, timeout=10)
        assert answer.status_code == 200, answer.text
        session.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
        return session


@pytest.fixture(scope="module")
def served(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """The server with a database of its own."""
    database = f"fuzz-{uuid4().hex[:12]}"
    server = ServerProcess(tmp_path_factory.mktemp("server"), mongo_uri=mongo_uri, database=database)
    try:
        server.start()
        asyncio.run(_settle(server.address))
        yield Open(server.address)
    finally:
        server.stop()
        asyncio.run(_drop(mongo_uri, database))


async def _settle(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{url}/api/auth/register", json={"username": "fuzzed", **WHO}) as answer:
            assert answer.status == 201, await answer.text()
            head = {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}
        async with http.post(f"{url}/api/wallet/create", json={"pin": "4821"}, headers=head) as answer:
            assert answer.status == 201, await answer.text()
        await payer.pay_in(http, url, {**head, "Idempotency-Key": "first"}, {"amountMinor": 5_000_000})


async def _drop(uri: str, database: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=PATIENT_MS) as client:
        await client.drop_database(database)


def operations() -> list[Any]:
    """The operations of money, from the document as it is checked in (and as it is served, another test says)."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    schema = schemathesis.openapi.from_dict(document).include(path_regex=ROUTES)
    return [found.ok() for found in schema.get_all_operations()]


OPERATIONS = operations()


def test_the_document_has_the_routes_of_money() -> None:
    assert len(OPERATIONS) > 30


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_every_answer_is_a_documented_one(served: Open, operation: Any, mode: GenerationMode) -> None:
    session = served.session()

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
            allow_redirects=False,
            timeout=10,
        )
        if len(answer.request.url or "") > LINE_BYTES_MAX:
            assert answer.status_code == 400
            return
        assert answer.status_code != 429 or "RATE_LIMITED" not in answer.text, (
            "nothing is looked at behind that"
        )
        case.validate_response(answer, checks=CHECKS)

    try:
        look()
    except Unsatisfiable:
        pytest.skip("there is no wrong request to it")
    finally:
        session.close()
