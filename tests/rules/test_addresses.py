"""Where a request comes from, as proxies say it."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from server.addresses import client_address


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:51234", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:51234", "2001:db8::1"),
        ("198.51.100.1, 203.0.113.9:2", "203.0.113.9"),
        ("x" * 5000, "x" * 64),
    ],
)
def test_the_port_of_a_client_makes_it_no_other_client(said: str, meant: str) -> None:
    request = make_mocked_request("GET", "/", headers={"X-Forwarded-For": said})
    assert client_address(request, 1) == meant
