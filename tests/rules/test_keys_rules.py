"""Which keys are taken, and whose signatures hold."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest
import xeddsa

from models.errors import Refusal
from models.keys import rules
from models.keys.keys import DeviceKeys, Kind, Owner, Prekey, Upload
from tests.services.keykit import Handset, noise, text

ADA, EVE = Handset("ada"), Handset("eve")


def refusal(work: object, *args: object) -> Refusal:
    with pytest.raises(Refusal) as no:
        work(*args)  # type: ignore[operator]
    return no.value


@pytest.mark.parametrize("prekey", [ADA.signed(), ADA.kem(3)])
def test_a_signature_by_the_identity_key_holds(prekey: Prekey) -> None:
    rules.check_signature(ADA.identity, "signedPreKey", prekey)
    raw = text(base64.b64decode(ADA.identity)[1:])
    rules.check_signature(raw, "signedPreKey", prekey)


@pytest.mark.parametrize("sign_bit", [False, True])
def test_signals_own_form_keeps_the_sign_of_the_key_in_the_signature(sign_bit: bool) -> None:
    seed = xeddsa.seed_to_priv(noise("signal"))
    private = xeddsa.priv_force_sign(seed, sign_bit)
    identity, key = text(xeddsa.priv_to_curve25519_pub(seed)), b"\x05" + noise("key")
    signature = bytearray(xeddsa.ed25519_priv_sign(private, key, noise("nonce", 64)))
    signature[-1] |= 0x80 if sign_bit else 0
    assert rules.signature_holds(identity, text(key), text(bytes(signature)))
    signature[-1] ^= 0x80
    assert not rules.signature_holds(identity, text(key), text(bytes(signature)))


def test_a_signature_by_another_of_another_key_or_turned_in_one_bit_is_refused() -> None:
    prekey = ADA.signed()
    assert prekey.signature is not None
    turned = bytearray(base64.b64decode(prekey.signature))
    turned[10] ^= 1
    wrong = (
        (EVE.identity, prekey),
        (ADA.identity, replace(prekey, key=ADA.signed(2).key)),
        (ADA.identity, replace(prekey, signature=text(bytes(turned)))),
        (ADA.identity, replace(prekey, signature=text(bytes(64)))),
        (ADA.identity, replace(prekey, signature="not base64")),
        (ADA.identity, replace(prekey, signature=None)),
        # With the type byte left out of what was signed.
        (ADA.identity, replace(prekey, key=text(base64.b64decode(prekey.key)[1:]))),
    )
    for identity, one in wrong:
        no = refusal(rules.check_signature, identity, "signedPreKey", one)
        assert (no.code, no.details) == ("SIGNATURE_INVALID", {"field": "signedPreKey", "keyId": 1})


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_point_of_no_order_signs_nothing(point: bytes) -> None:
    """Under such identities a signature of zeros would hold for any key, were it not looked for."""
    assert not rules.signature_holds(text(point), ADA.signed().key, text(bytes(64)))
    assert not rules.signature_holds(text(point), ADA.signed().key, text(point + bytes(32)))


@pytest.mark.parametrize(
    ("field", "upload"),
    [
        ("identityKey", Upload(identity_key=text(noise("x", 31)))),
        ("identityKey", Upload(identity_key=text(b"\x06" + noise("x")))),
        ("identityKey", Upload(identity_key="?")),
        ("signedPreKey", replace(ADA.upload(), signed=Prekey(id=1, key=text(noise("x", 34)), signature="x"))),
        ("preKeys", replace(ADA.upload(), one_time={Kind.EC: (Prekey(id=1, key=text(noise("x", 5))),)})),
        ("kemPreKeys", replace(ADA.upload(), one_time={Kind.KEM: (ADA.ec(1),)})),
        ("lastResortKemPreKey", replace(ADA.upload(), last_resort={Kind.KEM: ADA.ec(1)})),
        (
            "keyPackages",
            replace(ADA.upload(), one_time={Kind.MLS: (Prekey(id=1, key=text(noise("x", 8193))),)}),
        ),
        ("lastResortKeyPackage", replace(ADA.upload(), last_resort={Kind.MLS: Prekey(id=1, key="")})),
        ("preKeys", ADA.upload(ec=range(101))),
        ("preKeys", replace(ADA.upload(), one_time={Kind.EC: (ADA.ec(1), ADA.ec(1))})),
    ],
)
def test_what_cannot_be_a_key_is_refused_by_its_field(field: str, upload: Upload) -> None:
    no = refusal(rules.checked, upload)
    assert no.code == "VALIDATION_FAILED"
    assert set(no.details) == {field}


@pytest.mark.parametrize("size", [1184, 1185, 1568, 1569])
def test_post_quantum_keys_have_the_sizes_of_their_standard(size: int) -> None:
    key = Prekey(id=1, key=text(noise("kem", size)), signature="-")
    assert rules.checked(replace(ADA.upload(), one_time={Kind.KEM: (key,)}))


def test_every_key_with_a_signature_is_looked_at() -> None:
    upload = ADA.upload(ec=[1], kem=[2, 3], mls=[4], last_kem=9, last_mls=8)
    assert [(name, one.id) for name, one in rules.signed_parts(upload)] == [
        ("signedPreKey", 1),
        ("kemPreKeys", 2),
        ("kemPreKeys", 3),
        ("lastResortKemPreKey", 9),
    ]


@pytest.mark.parametrize(
    ("before", "added", "after"),
    [(0, 9, 4), (0, 10, 5), (9, 1, 5), (9, 0, 4), (10, 50, 4), (2, 7, 4)],
)
def test_a_shortage_ends_with_the_upload_that_reaches_ten(before: int, added: int, after: int) -> None:
    refills = rules.refills_after({Kind.EC: 4}, {Kind.EC: before}, {Kind.EC: added})
    assert refills == {Kind.EC: after, Kind.KEM: 0, Kind.MLS: 0}


def test_the_digest_is_what_the_document_says() -> None:
    last = ADA.kem(2**31)
    keys = DeviceKeys(
        set_id="s",
        owner=Owner(user_id="u", device_id="d", session_id="s"),
        identity_key=ADA.identity,
        registration_id=1,
        signed=ADA.signed(7),
        last_resort={Kind.KEM: last, Kind.MLS: ADA.package(1)},
        refills={},
    )
    said = base64.b64decode(ADA.identity) + bytes([0, 0, 0, 0, 0, 0, 0, 7])
    said += base64.b64decode(ADA.signed(7).key)
    without = text(hashlib.sha256(said).digest())
    said += bytes([0, 0, 0, 0, 0x80, 0, 0, 0]) + base64.b64decode(last.key)
    assert rules.digest_of(keys) == text(hashlib.sha256(said).digest())
    assert rules.digest_of(replace(keys, last_resort={})) == without


def test_an_identity_is_the_same_with_and_without_its_type_byte() -> None:
    assert rules.same_identity(ADA.identity, text(base64.b64decode(ADA.identity)[1:]))
    assert not rules.same_identity(ADA.identity, EVE.identity)
