"""Notices of account activity through the doors: who wants which, and a letter from a server with a mail relay."""

from __future__ import annotations

from argparse import ArgumentParser

import pytest
import structlog
from rich.console import Console

from server import cli_wallets
from server.config import load_config
from tests.doors.conftest import House, open_house
from tests.fakes import VirtualClock
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


async def test_a_server_with_a_relay_tells_also_what_the_operator_does(mongo_uri: str) -> None:
    relay = RelayStandIn()
    await relay.start()
    told = {"SMTP_URL": f"smtp://127.0.0.1:{relay.port}", "MAIL_FROM": "no-reply@example.org"}
    try:
        async with open_house(mongo_uri, **told) as house:
            ann = await house.person("ann")
            assert (await ann.post("/api/wallet/create", {"pin": "4071"})).status == 201
            await house.db["users"].update_one(
                {"_id": ann.id}, {"$set": {"email_verified_at": house.clock.now()}}
            )
            changed = {"currentPin": "4071", "newPin": "8253"}
            assert (await ann.post("/api/wallet/change-pin", changed)).status == 204
            await house.services.notices.run_due()

            parser = ArgumentParser()
            cli_wallets.add_parser(parser.add_subparsers(dest="command"))
            database = {"MONGO_URI": mongo_uri, "MONGO_DATABASE": house.db.db.name}
            freeze = parser.parse_args(["wallets", "freeze", ann.id])
            assert await cli_wallets.run(freeze, load_config({**database, **told}), Console(quiet=True)) == 0
            assert isinstance(house.clock, VirtualClock)
            house.clock.pass_(60)  # the command line has the machine's time
            await house.services.notices.run_due()
            assert [one["Subject"] for one in relay.letters] == [
                "Your PIN was changed",
                "Your wallet is frozen",
            ]
            assert set(relay.recipients) == {ann.signed_in["user"]["email"]}
    finally:
        await relay.stop()


@pytest.mark.parametrize("env", ["development", "production"])
async def test_without_a_relay_the_log_tells_in_development_and_nobody_in_production(
    mongo_uri: str, env: str
) -> None:
    settings = {"ENV": env, "JWT_SECRET": "0123456789abcdef" * 4}
    with structlog.testing.capture_logs() as log:
        async with open_house(mongo_uri, **settings) as house:
            ann = await house.person("ann")
            await ann.post("/api/wallet/create", {"pin": "4071"})
            await house.db["users"].update_one(
                {"_id": ann.id}, {"$set": {"email_verified_at": house.clock.now()}}
            )
            changed = {"currentPin": "4071", "newPin": "8253"}
            assert (await ann.post("/api/wallet/change-pin", changed)).status == 204
            await house.services.notices.run_due()
            kept = await house.db["notices"].count_documents({})
    told = [(one["way"], one["to"]) for one in log if one["event"] == "notice not sent but logged"]
    if env == "development":
        assert told == [("email", ann.signed_in["user"]["email"])]
    else:
        assert (told, kept) == ([], 0)
