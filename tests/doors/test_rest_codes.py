"""Forgotten passwords and verified addresses by REST."""

from __future__ import annotations

from typing import Any

import pytest

from tests.doors.conftest import PASSWORD, House
from tests.services.accounts_house import FakeMessenger

pytestmark = pytest.mark.asyncio(loop_scope="module")
NEW = "kettle orbit 73 lantern"


def messenger_of(rest: House) -> FakeMessenger:
    rest.services.accounts.codes._messenger = messenger = FakeMessenger()
    return messenger


async def asks(rest: House, **who: Any) -> None:
    answer = await rest.send("POST", "/api/auth/forgot-password", who)
    assert (answer.status, answer.body) == (202, "")
    await rest.services.accounts.codes.run_due()


async def test_a_forgotten_password_is_set_anew(rest: House) -> None:
    messenger, ada = messenger_of(rest), await rest.person("ada")
    await asks(rest, identifier="nobody@example.org")
    assert messenger.brought == []
    await asks(rest, email=f"{ada.username}@example.org")
    code = messenger.code()
    body = {"identifier": ada.username, "code": code, "newPassword": NEW}
    path = "/api/auth/reset-password"
    (await rest.send("POST", path, {**body, "code": "00000000"})).error(403, "CODE_WRONG")
    (await rest.send("POST", path, {**body, "identifier": "nobody"})).error(403, "CODE_WRONG")
    weak = (await rest.send("POST", path, {**body, "newPassword": "password"})).error(
        400, "VALIDATION_FAILED"
    )
    assert "password" in weak["details"]
    assert (await rest.send("POST", path, body)).status == 204
    (await rest.send("POST", path, body)).error(403, "CODE_WRONG")
    (await ada.send("GET", "/api/auth/profile")).error(401, "TOKEN_INVALID")
    login = {"identifier": ada.username, "password": PASSWORD}
    (await rest.send("POST", "/api/auth/login", login)).error(401, "CREDENTIALS_WRONG")
    assert (await rest.send("POST", "/api/auth/login", {**login, "password": NEW})).status == 200


async def test_addresses_are_verified(rest: House) -> None:
    messenger = messenger_of(rest)
    ada = await rest.person("ada", phone="+2348031234001")
    for way in ("email", "phone"):
        asked = await ada.send("POST", f"/api/auth/verify-{way}/send")
        assert (asked.status, asked.body) == (202, "")
        await rest.services.accounts.codes.run_due()
        (await ada.send("POST", f"/api/auth/verify-{way}", {"code": "0"})).error(403, "CODE_WRONG")
        shown = await ada.send("POST", f"/api/auth/verify-{way}", {"code": messenger.code()})
        assert shown.status == 200
        assert shown.body["user"][f"{way}Verified"] is True
    bob = await rest.person("bob")
    told = (await bob.send("POST", "/api/auth/verify-phone/send")).error(400, "VALIDATION_FAILED")
    assert list(told["details"]) == ["phone"]
    (await rest.send("POST", "/api/auth/verify-email", {"code": "1"})).error(401, "TOKEN_MISSING")


async def test_a_password_that_is_guessed_first_is_not_set(rest: House) -> None:
    body = {"email": "weak@example.org", "username": "weak-one", "password": "password1"}
    told = (await rest.send("POST", "/api/auth/register", body)).error(400, "VALIDATION_FAILED")
    assert told["details"]["password"][0] == "Too easy to guess."
    ada = await rest.person("ada")
    change = {"currentPassword": PASSWORD, "newPassword": "12345678"}
    (await ada.send("POST", "/api/auth/change-password", change)).error(400, "VALIDATION_FAILED")
