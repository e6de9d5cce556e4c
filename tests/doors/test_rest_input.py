"""Input at the edges of what the database and the limits can take: refused, never a fault of ours."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.doors.conftest import PASSWORD, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUSE: dict[str, str] = {"AUTH_PER_MINUTE": "10"}


async def raw(rest: House, head: bytes, body: bytes = b"") -> tuple[int, Any]:
    """A request byte by byte, for what no honest client sends."""
    where = urlsplit(rest.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(head.replace(b"\n", b"\r\n") + b"Content-Length: %d\r\n" % len(body))
    writer.write(b"Host: x\r\nConnection: close\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    top, _, rest_ = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), rest_


def cursor(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


async def test_cursors_with_half_a_character_are_refused(rest: House) -> None:
    ada = await rest.person("ada")
    (await ada.get("/api/calls?cursor=" + cursor("2026-01-01T00:00:00+00:00", "\ud800"))).error(
        400, "VALIDATION_FAILED"
    )
    (await ada.get("/api/users?query=a&cursor=" + cursor("username", "\ud800", "x"))).error(
        400, "VALIDATION_FAILED"
    )


async def test_numbers_beyond_what_the_database_can_count_to_are_refused(rest: House) -> None:
    ada, bob = await asyncio.gather(rest.person("ada"), rest.person("bob"))
    made = await ada.post("/api/calls", {"to": bob.id, "type": "audio"})
    path = f"/api/calls/{made.body['call']['id']}/signals?after="
    assert (await ada.get(path + "9007199254740991")).status == 200
    (await ada.get(path + "9223372036854775808")).error(400, "VALIDATION_FAILED")


async def test_headers_that_are_no_utf_8_are_no_fault_of_ours(rest: House) -> None:
    ada, bob = await asyncio.gather(rest.person("ada"), rest.person("bob"))
    auth = b"Authorization: Bearer " + ada.token.encode() + b"\nContent-Type: application/json\n"
    body = json.dumps({"to": bob.id, "type": "audio"}).encode()
    status, said = await raw(rest, b"POST /api/calls HTTP/1.1\nIdempotency-Key: \xff\xfe\n" + auth, body)
    assert status == 400, said
    status, said = await raw(rest, b"POST /api/calls HTTP/1.1\nX-Device-Id: \xff\xfe\n" + auth, body)
    assert status in (201, 400), said
    login = json.dumps({"identifier": ada.username, "password": PASSWORD}).encode()
    status, said = await raw(
        rest,
        b"POST /api/auth/login HTTP/1.1\nUser-Agent: \xff\xfe\nContent-Type: application/json\n",
        login,
    )
    assert status == 200, said


async def test_a_since_beyond_every_log_is_a_gap_and_no_fault(house: House) -> None:
    ada = await house.person("ada")
    phone = await ada.dial("phone", since=2**63)
    sync = await phone.happens("SYNC")
    assert sync["gap"] is True
