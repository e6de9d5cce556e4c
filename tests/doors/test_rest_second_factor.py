"""The second factor by REST: from the QR code to a PIN that is reset with it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pyotp
import pytest

from tests.doors.conftest import PASSWORD, House, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


class App:
    """An authenticator app on the house's time; each code it is asked for is of a step not used before."""

    def __init__(self, house: House, secret: str) -> None:
        self.totp, self.house = pyotp.TOTP(secret), house

    async def code(self) -> str:
        await self.house.pass_(30)
        return self.totp.at(self.house.clock.now())


async def turned_on(rest: House, ada: Person) -> tuple[App, list[str]]:
    made = await ada.send("POST", "/api/auth/2fa/setup")
    app = App(rest, made.body["secret"])
    on = await ada.send("POST", "/api/auth/2fa/enable", {"code": await app.code()})
    assert on.status == 200, on.body
    assert set(on.body) == {"recoveryCodes"}
    return app, on.body["recoveryCodes"]


def login(ada: Person, **more: Any) -> dict[str, Any]:
    return {"identifier": ada.username, "password": PASSWORD, **more}


async def test_the_answer_to_setup_can_be_scanned_opened_and_typed(rest: House) -> None:
    ada = await rest.person("ada")
    made = await ada.send("POST", "/api/auth/2fa/setup", {})
    assert made.status == 200
    assert set(made.body) == {"secret", "otpauthUri", "qrSvg"}
    uri = urlsplit(made.body["otpauthUri"])
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", f"/Ringmeter:{ada.username}")
    asked = parse_qs(uri.query)
    assert (asked["secret"], asked["issuer"]) == ([made.body["secret"]], ["Ringmeter"])
    assert len(made.body["secret"]) == 32
    svg = ElementTree.fromstring(made.body["qrSvg"])
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"


async def test_signing_in_and_the_pin_take_a_fresh_code(rest: House) -> None:
    ada = await rest.person("ada")
    assert (await ada.send("POST", "/api/wallet/create", {"pin": "7391"})).status == 201
    reset = {"password": PASSWORD, "newPin": "8253"}
    assert (await ada.send("POST", "/api/wallet/reset-pin", reset)).status == 204
    app, recovery = await turned_on(rest, ada)
    assert (await ada.send("GET", "/api/auth/profile")).body["user"]["twoFactor"] is True

    owed = await rest.send("POST", "/api/auth/login", login(ada))
    owed.error(401, "TOTP_REQUIRED")
    wrong = {**login(ada), "password": "wrong"}
    (await rest.send("POST", "/api/auth/login", wrong)).error(401, "CREDENTIALS_WRONG")
    (await rest.send("POST", "/api/auth/login", login(ada, totp="abc"))).error(403, "TOTP_WRONG")
    code = await app.code()
    assert (await rest.send("POST", "/api/auth/login", login(ada, totp=code))).status == 200
    (await rest.send("POST", "/login", login(ada, totp=code))).error(403, "TOTP_WRONG")
    assert (await rest.send("POST", "/login", login(ada, recoveryCode=recovery[0]))).status == 200
    again = login(ada, recovery_code=recovery[0])
    (await rest.send("POST", "/auth/login", again)).error(403, "TOTP_WRONG")

    (await ada.send("POST", "/api/wallet/reset-pin", reset)).error(401, "TOTP_REQUIRED")
    wrong = {**reset, "password": "wrong", "recoveryCode": recovery[1]}
    (await ada.send("POST", "/api/wallet/reset-pin", wrong)).error(403, "PASSWORD_WRONG")
    fresh = {
        **reset,
        "newPin": "9162",
        "recoveryCode": recovery[1],
    }  # which the wrong password has not used up
    assert (await ada.send("POST", "/api/wallet/reset-pin", fresh)).status == 204
    (await ada.send("POST", "/api/wallet/reset-pin", fresh)).error(403, "TOTP_WRONG")
    assert (await ada.send("POST", "/api/wallet/validate-pin", {"pin": "9162"})).body["valid"] is True


async def test_new_recovery_codes_and_turning_it_off(rest: House) -> None:
    ada = await rest.person("ada")
    _, recovery = await turned_on(rest, ada)
    (await ada.send("POST", "/api/auth/2fa/setup")).error(409, "TOTP_ENABLED")
    path = "/api/auth/2fa/recovery-codes"
    told = (await ada.send("POST", path, {"password": PASSWORD})).error(400, "VALIDATION_FAILED")
    assert list(told["details"]) == ["code"]
    new = await ada.send("POST", path, {"password": PASSWORD, "recoveryCode": recovery[0]})
    assert (new.status, len(new.body["recoveryCodes"])) == (200, 10)
    off = {"password": PASSWORD, "recoveryCode": recovery[1]}
    (await ada.send("POST", "/api/auth/2fa/disable", off)).error(403, "TOTP_WRONG")
    off["recoveryCode"] = new.body["recoveryCodes"][0]
    assert (await ada.send("POST", "/api/auth/2fa/disable", off)).status == 204
    (await ada.send("POST", "/api/auth/2fa/disable", off)).error(409, "TOTP_NOT_SET_UP")
    (await ada.send("POST", "/api/auth/2fa/enable", {"code": "123456"})).error(409, "TOTP_NOT_SET_UP")
    assert (await rest.send("POST", "/api/auth/login", login(ada))).status == 200


@pytest.mark.parametrize("path", ["setup", "enable", "disable", "recovery-codes"])
async def test_a_second_factor_is_the_signed_in_persons(rest: House, path: str) -> None:
    (await rest.send("POST", f"/api/auth/2fa/{path}", {"code": "1"})).error(401, "TOKEN_MISSING")
