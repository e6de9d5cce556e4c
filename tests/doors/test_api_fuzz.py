"""Whatever is sent to any route: the answer is one that the document names, and never a fault of ours.

Requests are made by schemathesis from /openapi.json, right ones and wrong ones, with a token and without, always the
same; the server is the real one, in a process of its own: what its threads draw by chance would count as drawn by a
strategy of hypothesis. Who may see what is another test's matter (``test_role_matrix``, ``test_others_ids``).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

from server.wiring import catalogue
from tests.doors.serverprocess import lodging_now, running
from tests.patience import PATIENT_MS
from tests.standins import payer

ROOT = Path(__file__).parents[2]
MONEY = re.compile(r"^/(api/wallet|api/wallets|api/payments|wallet|payments|transactions)")
# Requests of one kind to one operation: more where money moves, one where it is only another name of a route.
EXAMPLES_OF_MONEY, EXAMPLES, EXAMPLES_OF_ANOTHER_NAME = 8, 4, 1
PASSWORD = "correct horse battery staple"
# Each has few enough wrong PINs and codes to their name that nothing they send is refused for their number.
RIGHT, WRONG, ADMIN = "fuzzed", "fuzzer", "steward"
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
    """A server that is up, with people who have money in their wallets."""

    url: str

    def session(self, who: str) -> requests.Session:
        """Signed in anew: a sign-in has its own allowance, so none of its few requests is refused for their number."""
        session = self.stranger()
        body = {"identifier": who, "password": PASSWORD}
        answer = session.post(f"{self.url}/api/auth/login", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        session.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
        return session

    def stranger(self) -> requests.Session:
        """Nobody in particular."""
        session = requests.Session()
        session.trust_env = False
        return session


@pytest.fixture(scope="module")
def served(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """The server with a database of its own."""
    folder = tmp_path_factory.mktemp("server")
    with (
        lodging_now(mongo_uri) as database,
        running(folder, mongo_uri=mongo_uri, database=database) as server,
    ):
        asyncio.run(_settle(server.address, mongo_uri, database))
        yield Open(server.address)


async def _settle(url: str, uri: str, database: str) -> None:
    async with aiohttp.ClientSession() as http:
        for name in (RIGHT, WRONG, ADMIN):
            who = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
            async with http.post(f"{url}/api/auth/register", json=who) as answer:
                assert answer.status == 201, await answer.text()
                head = {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}
            async with http.post(f"{url}/api/wallet/create", json={"pin": "4821"}, headers=head) as answer:
                assert answer.status == 201, await answer.text()
            await payer.pay_in(http, url, {**head, "Idempotency-Key": "first"}, {"amountMinor": 5_000_000})
    async with AsyncMongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=PATIENT_MS) as client:
        await client[database]["users"].update_one({"username": ADMIN}, {"$set": {"role": "admin"}})


def operations() -> list[Any]:
    """All operations, from the document as it is checked in (and as it is served, another test says)."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    return [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]


OPERATIONS = operations()


def public(operation: Any) -> bool:
    """Whether the document asks for no token."""
    return operation.definition.raw.get("security") == []


def examples_of(operation: Any) -> int:
    """How many requests of one kind."""
    if MONEY.match(operation.path):
        return EXAMPLES_OF_MONEY
    return EXAMPLES_OF_ANOTHER_NAME if "other names" in operation.tags else EXAMPLES


def test_the_document_has_all_routes_and_those_of_money() -> None:
    names = {(route.method, path) for route in catalogue.routes for path in (route.path, *route.also)}
    assert names <= {(one.method.upper(), one.path) for one in OPERATIONS}
    assert len([one for one in OPERATIONS if MONEY.match(one.path)]) > 30


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_every_answer_is_a_documented_one(served: Open, operation: Any, mode: GenerationMode) -> None:
    who = RIGHT if mode is GenerationMode.POSITIVE else WRONG
    session = served.session(ADMIN if operation.path.startswith("/api/admin/") else who)
    stranger = served.stranger()

    @settings(
        max_examples=examples_of(operation),
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def look(case: schemathesis.Case) -> None:
        for by in (stranger, session):
            answer = case.call(base_url=served.url, session=by, allow_redirects=False, timeout=10)
            if len(answer.request.url or "") > LINE_BYTES_MAX:
                assert answer.status_code == 400
                continue
            assert answer.status_code != 429 or "RATE_LIMITED" not in answer.text, (
                "nothing is looked at behind that"
            )
            case.validate_response(answer, checks=CHECKS)
            if by is stranger and not public(operation):
                assert answer.status_code == 401, "nobody is told anything, of right requests or wrong ones"

    try:
        look()
    except Unsatisfiable:
        pytest.skip("there is no wrong request to it")
    finally:
        session.close()
        stranger.close()
