"""Notices of account activity through the doors: who wants which, and a letter from a server with a mail relay."""

from __future__ import annotations

import pytest

from tests.doors.conftest import House, open_house
from tests.standins.smtp import RelayStandIn

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_everybody_sees_and_changes_their_own(rest: House) -> None:
    ann, bob = await rest.person("ann"), await rest.person("bob")
    assert (await ann.get("/api/user/notices")).body == {"notices": {"email": True, "sms": False}}
    changed = await ann.send("PUT", "/api/user/notices", {"sms": True})
    assert (changed.status, changed.body) == (200, {"notices": {"email": True, "sms": True}})
    await ann.send("PUT", "/api/user/notices", {"email": False})
    assert (await ann.get("/api/user/notices")).body == {"notices": {"email": False, "sms": True}}
    assert (await bob.get("/api/user/notices")).body == {"notices": {"email": True, "sms": False}}


@pytest.mark.parametrize("wrong", [{"email": "perhaps"}, {"sms": 7}, {"email": []}])
async def test_a_choice_is_true_or_false(rest: House, wrong: dict[str, object]) -> None:
    ann = await rest.person("ann")
    (await ann.send("PUT", "/api/user/notices", wrong)).error(400, "VALIDATION_FAILED")
    (await rest.send("GET", "/api/user/notices")).error(401, "TOKEN_MISSING")


async def test_a_server_with_a_relay_tells_who_is_paid(mongo_uri: str) -> None:
    relay = RelayStandIn()
    await relay.start()
    try:
        url = f"smtp://127.0.0.1:{relay.port}"
        async with open_house(mongo_uri, SMTP_URL=url, MAIL_FROM="no-reply@example.org") as house:
            ann = await house.person("ann")
            assert (await ann.post("/api/wallet/create", {"pin": "4071"})).status == 201
            await house.services.wallets.freeze(ann.id, frozen=True)
            await house.services.notices.run_due()
            assert [one["Subject"] for one in relay.letters] == ["Your wallet is frozen"]
            assert relay.recipients == [ann.signed_in["user"]["email"]]
    finally:
        await relay.stop()
