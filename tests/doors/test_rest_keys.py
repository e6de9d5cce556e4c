"""Keys and the commits of encrypted groups by REST, and what the devices are told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import asdict
from typing import Any

import pytest

from models.keys.keys import Kind, Upload
from tests.doors.conftest import House, Person, Reply
from tests.services.keykit import Handset

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = {"X-Device-Id": "phone"}
HANDSET, OTHER = Handset("handset"), Handset("other")


def wire(upload: Upload) -> dict[str, Any]:
    """An upload as an app sends it."""
    body: dict[str, Any] = {
        "identityKey": upload.identity_key,
        "registrationId": upload.registration_id,
        "signedPreKey": asdict(upload.signed) if upload.signed else None,
        "preKeys": [asdict(one) for one in upload.one_time.get(Kind.EC, ())],
        "kemPreKeys": [asdict(one) for one in upload.one_time.get(Kind.KEM, ())],
        "keyPackages": [asdict(one) for one in upload.one_time.get(Kind.MLS, ())],
        "lastResortKemPreKey": asdict(upload.last_resort[Kind.KEM]) if upload.last_resort else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def unnumbered(told: dict[str, Any]) -> dict[str, Any]:
    """What was told, without its number in the log."""
    assert told["seq"] == told["logSeq"] > 0
    return {name: value for name, value in told.items() if name not in ("seq", "logSeq")}


async def put(person: Person, body: dict[str, Any], device: str = "phone") -> Reply:
    return await person.send("PUT", "/api/keys", body, headers={"X-Device-Id": device})


async def test_keys_are_handed_in_counted_claimed_and_removed(rest: House) -> None:
    ada, bob = await rest.person("ada"), await rest.person("bob")
    (await ada.get("/api/keys/count", headers=PHONE)).error(404, "KEYS_UNKNOWN")
    answer = await put(ada, wire(HANDSET.upload(ec=[2, 1], kem=[5], mls=[1], last_kem=9)))
    keys = {
        "deviceId": "phone",
        "identityKey": HANDSET.identity,
        "signedPreKeyId": 1,
        "oneTime": 2,
        "kem": 1,
        "keyPackages": 1,
        "lastResort": True,
        "lastResortKeyPackage": False,
    }
    assert (answer.status, answer.body) == (200, {"keys": keys})
    assert (await ada.get("/api/keys/count", headers=PHONE)).body == {"keys": keys}
    claimed = (await bob.post("/api/keys/claim", {"userId": ada.id})).body
    bundle = {
        "deviceId": "phone",
        "identityKey": HANDSET.identity,
        "registrationId": 77,
        "signedPreKey": asdict(HANDSET.signed()),
        "preKey": {"id": 2, "key": HANDSET.ec(2).key},
        "kemPreKey": asdict(HANDSET.kem(5)),
        "keyPackage": None,
    }
    assert claimed == {"userId": ada.id, "devices": [bundle]}
    packages = (await bob.post("/api/keys/claim", {"userId": ada.id, "kind": "mls"})).body["devices"]
    assert packages[0]["keyPackage"] == {"id": 1, "key": HANDSET.package(1).key}
    assert packages[0]["preKey"] is packages[0]["kemPreKey"] is None
    assert (await ada.send("DELETE", "/api/keys", headers=PHONE)).status == 204
    (await bob.post("/api/keys/claim", {"userId": ada.id})).error(404, "KEYS_UNKNOWN")


async def test_the_largest_upload_fits_into_a_request(rest: House) -> None:
    ada = await rest.person("ada")
    everything = HANDSET.upload(ec=range(100), kem=range(100), last_kem=4_000_000_000)
    keys = (await put(ada, wire(everything))).body["keys"]
    assert (keys["oneTime"], keys["kem"]) == (100, 100)


async def test_a_claim_with_a_key_of_its_own_is_answered_alike_and_costs_one(rest: House) -> None:
    ada, bob = await rest.person("ada"), await rest.person("bob")
    await put(ada, wire(HANDSET.upload(ec=[1, 2, 3])))
    once = {"Idempotency-Key": "claim-1"}
    answers = [await bob.post("/api/keys/claim", {"userId": ada.id}, headers=once) for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert (await ada.get("/api/keys/count", headers=PHONE)).body["keys"]["oneTime"] == 2


async def test_what_is_wrong_with_keys_is_said(rest: House) -> None:
    ada = await rest.person("ada")
    good = wire(HANDSET.upload(ec=[1]))
    forged = {**good, "signedPreKey": {**good["signedPreKey"], "key": OTHER.signed().key}}
    error = (await put(ada, forged)).error(422, "SIGNATURE_INVALID")
    assert error["details"] == {"field": "signedPreKey", "keyId": 1}
    (await put(ada, {**good, "signedPreKey": None})).error(400, "VALIDATION_FAILED")
    (await put(ada, {**good, "identityKey": "?"})).error(400, "VALIDATION_FAILED")
    assert (await put(ada, good)).status == 200
    error = (await put(ada, {**good, "preKeys": [{"id": 1, "key": HANDSET.ec(2).key}]})).error(
        409, "KEY_ID_TAKEN"
    )
    assert error["details"] == {"field": "preKeys", "keyIds": [1]}
    (await put(ada, wire(OTHER.upload()))).error(409, "IDENTITY_CHANGED")


async def test_a_device_finds_out_whether_the_server_has_its_keys(rest: House) -> None:
    ada = await rest.person("ada")
    await put(ada, wire(HANDSET.upload()))
    said = base64.b64decode(HANDSET.identity) + (1).to_bytes(8, "big")
    said += base64.b64decode(HANDSET.signed().key)
    digest = base64.b64encode(hashlib.sha256(said).digest()).decode()
    assert (await ada.post("/api/keys/check", {"digest": digest}, headers=PHONE)).status == 204
    other = await ada.post("/api/keys/check", {"digest": digest[::-1]}, headers=PHONE)
    other.error(409, "KEYS_MISMATCH")


async def test_thirty_claims_a_minute_and_no_more(rest: House) -> None:
    ada, bob = await rest.person("ada"), await rest.person("bob")
    await put(ada, wire(HANDSET.upload()))
    for _ in range(30):
        assert (await bob.post("/api/keys/claim", {"userId": ada.id})).status == 200
    answer = await bob.post("/api/keys/claim", {"userId": ada.id, "deviceId": "phone"})
    assert answer.error(429, "RATE_LIMITED")["retryAfterMs"] > 1000


async def test_signing_out_takes_the_keys_and_those_who_claimed_are_told(house: House) -> None:
    ada, bob = await house.person("ada"), await house.person("bob")
    tablet = await ada.login()
    await put(tablet, wire(HANDSET.upload()), "tablet")
    phone = await bob.phone("phone")
    await bob.post("/api/keys/claim", {"userId": ada.id})
    assert (await tablet.post("/api/auth/logout")).status == 204
    gone = {"userId": ada.id, "deviceId": "tablet", "identityKey": None}
    assert unnumbered(await phone.happens("KEYS_CHANGED")) == gone


async def test_a_device_that_runs_short_is_told(house: House) -> None:
    ada, bob = await house.person("ada"), await house.person("bob")
    phone = await ada.phone("phone")
    await put(ada, wire(HANDSET.upload(ec=range(10), kem=range(20))))
    await bob.post("/api/keys/claim", {"userId": ada.id})
    low = await phone.happens("KEYS_LOW")
    assert (low["oneTime"], low["kem"], low["keyPackages"]) == (9, 19, 0)


async def test_e64_two_commits_at_once_and_the_group_goes_on_from_one(house: House) -> None:
    ada, bob, eve = [await house.person(name) for name in ("ada", "bob", "eve")]
    a, b = await ada.phone("phone"), await bob.phone("phone")
    tablet = await bob.phone("tablet")
    group = (await a.ask("CHAT_MESSAGE", to=bob.id, text="A group?", opId="1"))["conversationId"]
    path = f"/api/keys/groups/{group}"
    assert (await ada.get(path)).body == {"group": {"conversationId": group, "generation": 1, "epoch": 0}}

    async def commits(person: Person, epoch: int, op_id: str, **more: Any) -> Reply:
        body = {"epoch": epoch, "commit": base64.b64encode(op_id.encode()).decode(), "opId": op_id, **more}
        return await person.post(f"{path}/commits", body, headers=PHONE)

    answers = await asyncio.gather(commits(ada, 0, "ada 1"), commits(bob, 0, "bob 1"))
    won = [answer for answer in answers if answer.status == 201]
    assert len(won) == 1
    lost = next(answer for answer in answers if answer not in won)
    assert lost.error(409, "EPOCH_CONFLICT")["details"] == {"generation": 1, "epoch": 1}
    commit = won[0].body["commit"]
    heard = b if commit["sender"] == ada.id else a
    assert unnumbered(await heard.happens("GROUP_COMMIT")) == commit

    welcome = [{"userId": bob.id, "deviceId": "tablet", "body": "d2VsY29tZQ=="}]
    assert (await commits(ada, 1, "ada 2", welcome=welcome)).status == 201
    assert (await tablet.happens("GROUP_WELCOME"))["epoch"] == 2
    page = (await bob.get(f"{path}/commits?limit=1")).body
    assert [one["epoch"] for one in page["items"]] == [0]
    page = (await bob.get(f"{path}/commits?limit=1&cursor={page['nextCursor']}")).body
    assert ([one["epoch"] for one in page["items"]], page["nextCursor"]) == ([1], None)
    assert [one["epoch"] for one in (await bob.get(f"{path}/commits?after=0")).body["items"]] == [1]

    reset = await bob.post(f"{path}/reset", {"generation": 1, "opId": "again"}, headers=PHONE)
    assert reset.body == {"group": {"conversationId": group, "generation": 2, "epoch": 0}}
    assert (await a.happens("GROUP_RESET"))["sender"] == bob.id
    (await commits(ada, 2, "ada 3")).error(409, "EPOCH_CONFLICT")
    assert (await commits(ada, 0, "ada 4", generation=2)).status == 201

    (await eve.get(path)).error(404, "CONVERSATION_UNKNOWN")
    (await commits(eve, 1, "eve 1", generation=2)).error(404, "CONVERSATION_UNKNOWN")
    assert "GROUP_WELCOME" not in b.names()
    (await bob.get(f"{path}/commits?cursor=bm9uc2Vuc2U")).error(400, "VALIDATION_FAILED")
