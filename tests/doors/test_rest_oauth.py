"""Signing in with Google and Facebook by REST, against public keys on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.doors.conftest import PASSWORD, House, open_house
from tests.standins.jwks import JwksStandIn

pytestmark = pytest.mark.asyncio(loop_scope="module")
APP = "123.apps.googleusercontent.com"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keys() -> AsyncIterator[JwksStandIn]:
    standin = JwksStandIn()
    standin.add("k1")
    await standin.start()
    yield standin
    await standin.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def oauth(mongo_uri: str, keys: JwksStandIn) -> AsyncIterator[House]:
    ids = {"GOOGLE_CLIENT_IDS": f"ios.apps, {APP}", "FACEBOOK_APP_ID": "7654321"}
    urls = {"GOOGLE_KEYS_URL": keys.url, "FACEBOOK_KEYS_URL": keys.url}
    async with open_house(mongo_uri, **ids, **urls) as house:
        yield house


def token(house: House, keys: JwksStandIn, **more: Any) -> str:
    now = int(house.clock.now().timestamp())
    said = {"iss": "https://accounts.google.com", "aud": APP, "sub": "1", "iat": now, "exp": now + 3600}
    return keys.token({**said, "email": "ada@gmail.com", "email_verified": True, "name": "Ada Obi", **more})


async def test_google_and_facebook_open_an_account(oauth: House, keys: JwksStandIn) -> None:
    body = {"idToken": token(oauth, keys), "device": {"name": "Ada's phone", "platform": "ios"}}
    first = await oauth.send("POST", "/api/auth/oauth/google", body)
    assert first.status == 200, first.body
    assert first.body["user"]["email"] == "ada@gmail.com"
    assert first.body["user"]["emailVerified"] is True
    assert first.body["accessToken"] == first.body["access_token"]
    again = await oauth.send("POST", "/api/auth/oauth/google", {"id_token": body["idToken"]})
    assert again.body["user"]["id"] == first.body["user"]["id"]
    sessions = await oauth.send("GET", "/api/auth/sessions", token=first.body["accessToken"])
    assert [item["device"]["platform"] for item in sessions.body["items"]].count("ios") == 1

    facebook = {"iss": "https://www.facebook.com", "aud": "7654321", "email_verified": ...}
    said = token(oauth, keys, **{**facebook, "email_verified": False, "email": "bob@example.org", "sub": "b"})
    bob = await oauth.send("POST", "/api/auth/oauth/facebook", {"idToken": said})
    assert bob.status == 200, bob.body
    (await oauth.send("POST", "/api/auth/oauth/google", {"idToken": said})).error(401, "ID_TOKEN_INVALID")


async def test_an_address_that_has_an_account_is_linked_by_its_owner(oauth: House, keys: JwksStandIn) -> None:
    eve = await oauth.person("eve")
    said = {"idToken": token(oauth, keys, sub="eve", email=f"{eve.username}@example.org")}
    taken = await oauth.send("POST", "/api/auth/oauth/google", said)
    assert taken.error(409, "ACCOUNT_EXISTS")["details"] == {"field": "email"}
    path = "/api/auth/oauth/google/link"
    (await eve.send("POST", path, {**said, "password": "wrong"})).error(403, "PASSWORD_WRONG")
    assert (await eve.send("POST", path, {**said, "password": PASSWORD})).status == 204
    links = await eve.send("GET", "/api/auth/oauth")
    assert [(link["provider"], set(link)) for link in links.body["items"]] == [
        ("google", {"provider", "email", "linkedAt"})
    ]
    opened = await oauth.send("POST", "/api/auth/oauth/google", said)
    assert opened.body["user"]["id"] == eve.id
    assert (await eve.send("DELETE", "/api/auth/oauth/google")).status == 204
    assert (await eve.send("DELETE", "/api/auth/oauth/google")).status == 204
    (await oauth.send("POST", "/api/auth/oauth/google", said)).error(409, "ACCOUNT_EXISTS")
    unknown = {**said, "password": PASSWORD}
    (await eve.send("POST", "/api/auth/oauth/myspace/link", unknown)).error(400, "VALIDATION_FAILED")


async def test_where_no_provider_is_configured_there_is_none(rest: House) -> None:
    for provider in ("google", "facebook"):
        answer = await rest.send("POST", f"/api/auth/oauth/{provider}", {"idToken": "x.y.z"})
        answer.error(403, "PROVIDER_UNAVAILABLE")
