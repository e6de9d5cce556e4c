"""Whom a service elsewhere sends us on to is not visited: what we send holds tokens, names and numbers."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from models.errors import Refusal
from models.notices.notice import Letter
from models.notices.notice import Sent as Carried
from models.notify.ports import Note, Push, Sent
from models.rooms.livekit.rules import Key
from models.rooms.livekit.service import MediaServerAway
from server.adapters.expo import ExpoSender
from server.adapters.jwks import JwksKeys
from server.adapters.livekit import LiveKitServer
from server.adapters.twilio import TwilioCarrier
from tests.fakes import VirtualClock

ADAPTERS = sorted((Path(__file__).parents[2] / "server" / "adapters").rglob("*.py"))


class SendsOn:
    """A service that sends everybody on to another address of its own, where it counts who comes."""

    def __init__(self) -> None:
        self.status, self.asked, self.followed = 307, 0, 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            self.followed += 1
            return web.json_response({})
        self.asked += 1
        return web.json_response({}, status=self.status, headers={"Location": "/elsewhere"})


@pytest.fixture
async def service() -> AsyncIterator[tuple[SendsOn, str]]:
    sends_on, app = SendsOn(), web.Application()
    app.router.add_route("*", "/{path:.*}", sends_on.answer)
    async with TestServer(app) as server:
        yield sends_on, str(server.make_url("")).rstrip("/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nobody_is_followed_to_where_nobody_was_configured(
    service: tuple[SendsOn, str], clock: VirtualClock, status: int
) -> None:
    sends_on, url = service
    sends_on.status = status
    sms = TwilioCarrier("AC1", "token", "+15005550006", url=url)
    letter = Letter(to="+2348012345678", subject="", text="x", mark="m", at=clock.now())
    assert (await sms.carry(letter)).sent is not Carried.OK
    assert await sms.carried(letter) is None
    assert await sms.try_access() == f"it answers {status}"
    await sms.close()
    pushes = ExpoSender(url=url)
    push = Push(note=Note.MISSED, token="ExponentPushToken[a]", data={}, ttl_seconds=30, title="T", body="B")
    assert [one.sent for one in await pushes.send([push])] == [Sent.LATER]
    await pushes.close()
    media = Key(url=url.replace("http", "ws"), api_key="key", api_secret="s" * 32)
    rooms = LiveKitServer(key=media, clock=clock)
    with pytest.raises(MediaServerAway):
        await rooms.participants("room")
    await rooms.close()
    with pytest.raises(Refusal, match="PROVIDER_AWAY"):
        await JwksKeys([url], clock).key("k1")
    assert sends_on.asked >= 6
    assert sends_on.followed == 0


def test_every_request_of_the_adapters_says_so() -> None:
    """aiohttp follows unless it is told otherwise; httpx and what stands above it do not."""
    verbs = {"get", "post", "put", "delete", "request"}
    found: list[str] = []
    for path in ADAPTERS:
        text = path.read_text()
        if "import aiohttp" not in text:
            continue
        asked = [
            item.context_expr
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.AsyncWith)
            for item in node.items
            if isinstance(item.context_expr, ast.Call)
            and isinstance(item.context_expr.func, ast.Attribute)
            and item.context_expr.func.attr in verbs
        ]
        found += [f"{path.name}:{call.lineno}" for call in asked if not _says(call)]
    assert found == []


def _says(call: ast.Call) -> bool:
    said: Any = next((word.value for word in call.keywords if word.arg == "allow_redirects"), None)
    return isinstance(said, ast.Constant) and said.value is False
