"""Signing in with Google: what a token must say, whose account it opens, and whose it does not."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from models.auth.oauth.rules import Provider
from models.auth.service import SignedIn, SignInDevice
from models.db import Database
from models.errors import Refusal
from server.adapters.jwks import JwksKeys
from server.adapters.passwords import Passwords
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import BY, PASSWORD, House, Process, code_of
from tests.services.test_second_factor import Phone
from tests.standins.jwks import JwksStandIn

APP = "123.apps.googleusercontent.com"
ISSUER = "https://accounts.google.com"


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


@pytest.fixture(scope="module")
def pair() -> JwksStandIn:
    """Keys take a while to make: the same for all tests here."""
    made = JwksStandIn()
    made.add("k1")
    made.add("k2")
    return made


@pytest.fixture
async def google(pair: JwksStandIn) -> AsyncIterator[JwksStandIn]:
    standin = JwksStandIn()
    standin.keys = dict(pair.keys)
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
async def house(
    db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords, google: JwksStandIn
) -> House:
    house = House(db, clock, ids, passwords)
    provider = Provider("google", (ISSUER, "accounts.google.com"), (APP, "ios.apps"))
    house.providers["google"] = (provider, JwksKeys([google.url], clock))
    house.one = house.process()
    return house


def claims(house: House, **more: Any) -> dict[str, Any]:
    now = int(house.clock.now().timestamp())
    said = {
        "iss": ISSUER,
        "aud": APP,
        "sub": "1098765",
        "iat": now,
        "exp": now + 3600,
        "email": "ada@example.com",
        "email_verified": True,
        "name": "Ada Obi",
        **more,
    }
    return {name: value for name, value in said.items() if value is not ...}


async def comes(
    house: House, token: str, process: Process | None = None, nonce: str | None = None, **proof: Any
) -> SignedIn:
    return await (process or house.one).accounts.oauth.sign_in(
        "google", token, nonce=nonce, device=SignInDevice(), **proof
    )


async def verify(house: House, name: str = "ada") -> None:
    await house.db["users"].update_one({"username": name}, {"$set": {"email_verified_at": house.clock.now()}})


async def test_who_comes_for_the_first_time_gets_an_account_and_then_the_same(
    house: House, google: JwksStandIn
) -> None:
    first = await comes(house, google.token(claims(house)))
    account = first.account
    assert (account.email, account.email_verified) == ("ada@example.com", True)
    assert (account.profile.username, account.profile.display_name) == ("ada", "Ada Obi")
    # The person is the subject: the address may change.
    again = await comes(house, google.token(claims(house, email="new@example.com", aud="ios.apps")))
    assert again.account.profile.user_id == account.profile.user_id
    assert await house.count("users") == 1
    assert await house.count("sessions") == 2
    assert await code_of(house.signs_in(password="")) == "CREDENTIALS_WRONG"


async def test_an_address_that_the_provider_has_not_seen_read_is_not_verified(
    house: House, google: JwksStandIn
) -> None:
    for n, (said, verified) in enumerate(
        [(False, 0), (..., 0), ("false", 0), (1, 0), (None, 0), ("true", 1)]
    ):
        token = google.token(claims(house, email_verified=said, sub=f"s{n}", email=f"x{n}@example.org"))
        assert (await comes(house, token)).account.email_verified is bool(verified)


async def test_of_one_person_at_two_processes_at_once_there_is_one_account(
    house: House, google: JwksStandIn
) -> None:
    token, there = google.token(claims(house)), house.process()
    done = await asyncio.gather(*(comes(house, token, process) for process in [house.one, there] * 3))
    assert len({one.account.profile.user_id for one in done}) == 1
    assert await house.count("users") == await house.count("oauth_identities") == 1


async def test_an_account_is_opened_when_both_sides_have_seen_that_the_address_is_read(
    house: House, google: JwksStandIn
) -> None:
    ada = await house.joins()
    await verify(house)
    signed_in = await comes(house, google.token(claims(house, email="ADA@Example.com")))
    assert signed_in.account.profile.user_id == ada.account.profile.user_id
    assert await house.signs_in(), "the password is still the password"


@pytest.mark.parametrize(("here", "there"), [(False, True), (True, False), (False, False)])
async def test_whoever_only_wrote_the_address_into_a_form_opens_nothing(
    house: House, google: JwksStandIn, here: bool, there: bool
) -> None:
    await house.joins()
    if here:
        await verify(house)
    with pytest.raises(Refusal) as no:
        await comes(house, google.token(claims(house, email_verified=there)))
    assert (no.value.code, no.value.details) == ("ACCOUNT_EXISTS", {"field": "email"})
    assert await house.count("oauth_identities") == 0


async def test_a_second_factor_is_asked_for_as_with_a_password(house: House, google: JwksStandIn) -> None:
    ada = await house.joins()
    await verify(house)
    phone = await Phone(house, ada.account.profile.user_id).turned_on()
    token = google.token(claims(house))
    assert await code_of(comes(house, token)) == "TOTP_REQUIRED"
    assert await code_of(comes(house, token, totp=phone.wrong())) == "TOTP_WRONG"
    assert await house.count("oauth_identities") == 0
    await comes(house, token, totp=phone.code())
    assert await code_of(comes(house, token)) == "TOTP_REQUIRED"
    await comes(house, token, recovery_code=phone.recovery[0])


async def test_the_banned_and_the_deleted_are_not_let_in(house: House, google: JwksStandIn) -> None:
    token = google.token(claims(house))
    ada = await comes(house, token)
    await house.stewards.ban(ada.account.profile.user_id, **BY)
    assert await code_of(comes(house, token)) == "ACCOUNT_BANNED"
    await house.stewards.unban(ada.account.profile.user_id, **BY)
    # Deleting takes a password; one is set by a code.
    await house.one.accounts.codes.forgot("ada@example.com")
    await house.one.accounts.codes.run_due()
    await house.one.accounts.reset_password("ada", house.messenger.code(), new=PASSWORD, address="a")
    await house.one.accounts.delete(ada.account.profile.user_id, password=PASSWORD)
    assert await house.count("oauth_identities") == 0
    again = await comes(house, token)
    assert again.account.profile.user_id != ada.account.profile.user_id


async def test_without_an_address_there_is_no_account_to_make(house: House, google: JwksStandIn) -> None:
    assert await code_of(comes(house, google.token(claims(house, email=...)))) == "VALIDATION_FAILED"
    assert await code_of(comes(house, google.token(claims(house, email="no address")))) == "VALIDATION_FAILED"
    ada = await house.joins()
    link = house.one.accounts.oauth.link
    await link(ada.account.profile.user_id, "google", google.token(claims(house, email=...)), nonce=None)
    assert await comes(house, google.token(claims(house, email=...)))


async def test_a_name_that_may_not_be_is_left_out(house: House, google: JwksStandIn) -> None:
    for n, name in enumerate(["x" * 5000, "\ud800", "", 7, None]):
        token = _signed(google, claims(house, name=name, sub=str(n), email=f"x{n}@example.org"))
        profile = (await comes(house, token)).account.profile
        assert profile.display_name == profile.username, name


async def test_linking_is_one_person_to_one_account(house: House, google: JwksStandIn) -> None:
    ada, bob = await house.joins(), await house.joins("bob")
    ada_id, bob_id = ada.account.profile.user_id, bob.account.profile.user_id
    oauth, token = house.one.accounts.oauth, google.token(claims(house))
    await oauth.link(ada_id, "google", token, nonce=None)
    await oauth.link(ada_id, "google", token, nonce=None)
    assert await code_of(oauth.link(bob_id, "google", token, nonce=None)) == "ACCOUNT_EXISTS"
    other = google.token(claims(house, sub="other"))
    assert await code_of(oauth.link(ada_id, "google", other, nonce=None)) == "ACCOUNT_EXISTS"
    assert [link.provider for link in await oauth.links(ada_id)] == ["google"]
    assert (await comes(house, token)).account.profile.user_id == ada_id
    await oauth.unlink(ada_id, "google")
    assert await code_of(comes(house, token)) == "ACCOUNT_EXISTS"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://accounts.evil.example"},
        {"iss": ...},
        {"aud": "another.apps.googleusercontent.com"},
        {"aud": ...},
        {"aud": []},
        {"aud": [APP, "another"]},
        {"aud": [APP, "another"], "azp": "another"},
        {"sub": ...},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": "sub\x00"},
        {"sub": "ä"},
        {"exp": ...},
        {"exp": "9999999999"},
        {"iat": ...},
        {"iat": True},
        {"nbf": 9_999_999_999},
        {"exp": float("inf")},
    ],
    ids=str,
)
async def test_a_token_that_says_something_else_opens_nothing(
    house: House, google: JwksStandIn, wrong: dict[str, Any]
) -> None:
    said = {**claims(house), **wrong}
    token = _signed(google, {name: value for name, value in said.items() if value is not ...})
    assert await code_of(comes(house, token)) == "ID_TOKEN_INVALID"
    assert await house.count("users") == 0


def _signed(google: JwksStandIn, said: dict[str, Any], **header: Any) -> str:
    """A token of any words, which the library would not make."""
    first = {"alg": "RS256", "typ": "JWT", "kid": "k1", **header}
    return jwt.api_jws.encode(json.dumps(said).encode(), google.keys["k1"], "RS256", headers=first)


@pytest.mark.parametrize(
    ("issued", "expires", "good"),
    [(-3600, 0, True), (-3600, -59, True), (-3600, -60, False), (60, 3600, True), (61, 3600, False)],
)
async def test_time_is_checked_with_a_minute_to_spare(
    house: House, google: JwksStandIn, issued: int, expires: int, good: bool
) -> None:
    now = int(house.clock.now().timestamp())
    token = google.token(claims(house, iat=now + issued, exp=now + expires))
    if good:
        await comes(house, token)
    else:
        assert await code_of(comes(house, token)) == "ID_TOKEN_INVALID"


async def test_a_nonce_is_the_one_that_was_put_in(house: House, google: JwksStandIn) -> None:
    with_one, without = google.token(claims(house, nonce="n1")), google.token(claims(house))
    assert await code_of(comes(house, with_one, nonce="n2")) == "ID_TOKEN_INVALID"
    assert await code_of(comes(house, without, nonce="n1")) == "ID_TOKEN_INVALID"
    await comes(house, with_one, nonce="n1")


async def test_only_rs256_by_a_key_of_the_provider_counts(house: House, google: JwksStandIn) -> None:
    said = claims(house)
    good = google.token(said)
    public = google.keys["k1"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body, proof = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"k1"}').decode().rstrip("=")
    hmac_head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1"}').decode().rstrip("=")
    by_hmac = jwt.api_jws.get_algorithm_by_name("HS256").sign(f"{hmac_head}.{body}".encode(), public)
    forged = [
        f"{none}.{body}.",
        f"{none}.{body}.{proof}",
        f"{hmac_head}.{body}.{base64.urlsafe_b64encode(by_hmac).decode().rstrip('=')}",
        f"{head}.{body}.",
        f"{head}.{body}x.{proof}",
        google.token(said, "k2", kid="k1"),
        jwt.encode(said, google.keys["k1"], algorithm="RS512", headers={"kid": "k1"}),
        jwt.encode(said, google.keys["k1"], algorithm="RS256"),
        google.token(said, kid="x" * 300),
        "x.y.z",
        "",
        good + "x" * 9000,
    ]
    for token in forged:
        assert await code_of(comes(house, token)) == "ID_TOKEN_INVALID", token[:40]
    await comes(house, good)


async def test_a_provider_that_is_not_configured_is_not_there(house: House, google: JwksStandIn) -> None:
    work = house.one.accounts.oauth.sign_in("facebook", "x", nonce=None, device=SignInDevice())
    assert await code_of(work) == "PROVIDER_UNAVAILABLE"


# ------------------------------------------------------------------------------------------------------------- keys


async def test_keys_are_asked_for_once_while_they_hold(google: JwksStandIn, clock: VirtualClock) -> None:
    keys = JwksKeys([google.url], clock)
    assert all(await asyncio.gather(*(keys.key("k1") for _ in range(20))))
    clock.pass_(3599)
    assert await keys.key("k2")
    assert google.asked == 1
    clock.pass_(1)
    assert await keys.key("k1")
    assert google.asked == 2


async def test_a_rotated_key_is_found_and_made_up_ids_do_not_make_us_ask(
    google: JwksStandIn, pair: JwksStandIn, clock: VirtualClock
) -> None:
    google.keys.pop("k2")
    keys = JwksKeys([google.url], clock)
    assert await keys.key("k1")
    google.keys = {"k2": pair.keys["k2"]}
    assert await keys.key("k2") is None, "it was asked a moment ago"
    clock.pass_(60)
    for n in range(50):
        assert await keys.key(f"made up {n}") is None
    assert google.asked == 2
    assert await keys.key("k2")
    assert await keys.key("k1") is None, "what is published no more is good no more"
    assert google.asked == 2


@pytest.mark.parametrize("mode", ["down", "nonsense", "huge", "elsewhere", "silent"])
async def test_while_the_provider_is_away_the_keys_are_good_for_a_day(
    google: JwksStandIn, clock: VirtualClock, mode: str
) -> None:
    keys = JwksKeys([google.url], clock, answer_seconds=0.2)
    assert await keys.key("k1")
    google.mode = mode
    clock.pass_(3600 + 86_399)
    assert await keys.key("k1")
    clock.pass_(1)
    assert await code_of(keys.key("k1")) == "PROVIDER_AWAY"
    google.mode = "ok"
    clock.pass_(60)
    assert await keys.key("k1")


async def test_without_any_keys_it_is_said_that_the_provider_is_away(
    google: JwksStandIn, clock: VirtualClock
) -> None:
    google.mode = "down"
    keys = JwksKeys([google.url], clock)
    assert await code_of(keys.key("k1")) == "PROVIDER_AWAY"
    google.mode = "ok"
    assert await code_of(keys.key("k1")) == "PROVIDER_AWAY", "not asked again within a minute"
    clock.pass_(60)
    assert await keys.key("k1")


async def test_of_two_addresses_one_will_do(google: JwksStandIn, clock: VirtualClock) -> None:
    keys = JwksKeys([google.url + "/none", google.url], clock)
    assert await keys.key("k1")


async def test_keys_that_are_not_for_this_are_left_out(google: JwksStandIn, clock: VirtualClock) -> None:
    google.add("short", bits=1024)
    row = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(google.keys["k1"].public_key()))
    google.more = [
        {**row, "kid": "for encryption", "use": "enc"},
        {**row, "kid": "for another", "alg": "RS512"},
        {**row, "kid": 7},
        {"kty": "oct", "kid": "a secret", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "broken", "n": "?", "e": "AQAB"},
        "no key",
    ]
    keys = JwksKeys([google.url], clock)
    assert await keys.key("k1")
    for key_id in ("short", "for encryption", "for another", "a secret", "broken"):
        assert await keys.key(key_id) is None
