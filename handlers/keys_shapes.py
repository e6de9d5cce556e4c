"""Wire shapes of keys and of encrypted groups. Keys, signatures and bodies are base64."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from handlers.shapes import Id, Instant, PageQuery, Shape, Text
from models.keys.keys import Kind, Prekey, Upload
from models.keys.rules import KEY_ID_MAX, MLS_BYTES_MAX, REGISTRATION_ID_MAX, UPLOAD_MAX

# In base64, with room for what the rules then refuse in their own sentence.
EC_TEXT_MAX = 64
KEM_TEXT_MAX = 2200
SIGNATURE_TEXT_MAX = 96
PACKAGE_TEXT_MAX = -(-MLS_BYTES_MAX // 3) * 4 + 4
OP_ID_MAX = 128
# What one commit or welcome may have; the body of a request bounds them together.
COMMIT_TEXT_MAX = 64 * 1024
# Each is for one device; those of 50 people with 20 devices each.
WELCOMES_MAX = 1000
EPOCH_MAX = 2**53 - 1

_CONVERSATION = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
_USER = "01985c3e-0000-7000-8000-00000000b0b0"
_IDENTITY = "BVl8xiPyAGYAd2ZqVg4sNHhcE3K0uUTRBHVLpPpLJ+1C"
_SIGNATURE = "A" * 86 + "=="


def _key_id(**kwargs: Any) -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=0, max=KEY_ID_MAX), **kwargs)


def _epoch(**kwargs: Any) -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=0, max=EPOCH_MAX), **kwargs)


def _generation(**kwargs: Any) -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=1, max=EPOCH_MAX), **kwargs)


class EcPrekey(Shape):
    """A one-time Curve25519 key under the app's own number for it."""

    id = _key_id(required=True)
    key = Text(required=True, least=1, most=EC_TEXT_MAX)


class SignedEcPrekey(EcPrekey):
    """A Curve25519 key that the identity key has signed (XEdDSA)."""

    signature = Text(required=True, least=1, most=SIGNATURE_TEXT_MAX)


class KemPrekey(Shape):
    """A post-quantum key (ML-KEM) that the identity key has signed (XEdDSA)."""

    id = _key_id(required=True)
    key = Text(required=True, least=1, most=KEM_TEXT_MAX)
    signature = Text(required=True, least=1, most=SIGNATURE_TEXT_MAX)


class KeyPackage(Shape):
    """An MLS key package, which proves itself; the server looks at nothing but its size."""

    id = _key_id(required=True)
    key = Text(required=True, least=1, most=PACKAGE_TEXT_MAX)


def _many(shape: type[Shape]) -> fields.List[Any]:
    return fields.List(fields.Nested(shape), load_default=list, validate=validate.Length(max=UPLOAD_MAX))


class PutKeys(Shape):
    """A device's keys. The first time with ``registrationId`` and ``signedPreKey``; later, what is missing stays."""

    identity_key = Text(required=True, least=1, most=EC_TEXT_MAX)
    registration_id = fields.Integer(
        strict=True, load_default=None, validate=validate.Range(min=0, max=REGISTRATION_ID_MAX)
    )
    signed_pre_key = fields.Nested(SignedEcPrekey, load_default=None)
    pre_keys = _many(EcPrekey)
    kem_pre_keys = _many(KemPrekey)
    last_resort_kem_pre_key = fields.Nested(KemPrekey, load_default=None)
    key_packages = _many(KeyPackage)
    last_resort_key_package = fields.Nested(KeyPackage, load_default=None)
    example = {
        "identityKey": _IDENTITY,
        "registrationId": 4711,
        "signedPreKey": {"id": 1, "key": _IDENTITY, "signature": _SIGNATURE},
        "preKeys": [{"id": 1, "key": _IDENTITY}, {"id": 2, "key": _IDENTITY}],
    }


def upload_of(ask: dict[str, Any]) -> Upload:
    """What ``PutKeys`` has loaded, as a value."""
    last = {Kind.KEM: ask["last_resort_kem_pre_key"], Kind.MLS: ask["last_resort_key_package"]}
    rows = {Kind.EC: ask["pre_keys"], Kind.KEM: ask["kem_pre_keys"], Kind.MLS: ask["key_packages"]}
    return Upload(
        identity_key=ask["identity_key"],
        registration_id=ask["registration_id"],
        signed=Prekey(**ask["signed_pre_key"]) if ask["signed_pre_key"] else None,
        last_resort={kind: Prekey(**key) for kind, key in last.items() if key},
        one_time={kind: tuple(Prekey(**key) for key in row) for kind, row in rows.items() if row},
    )


class KeyCounts(Shape):
    """What the server has of this device. ``lastResort…``: whether there is one."""

    device_id = fields.String(required=True)
    identity_key = fields.String(required=True)
    signed_pre_key_id = fields.Integer(required=True)
    one_time = fields.Integer(required=True, metadata={"description": "One-time Curve25519 keys left."})
    kem = fields.Integer(required=True, metadata={"description": "One-time post-quantum keys left."})
    key_packages = fields.Integer(required=True, metadata={"description": "One-time MLS key packages left."})
    last_resort = fields.Boolean(required=True)
    last_resort_key_package = fields.Boolean(required=True)


class CheckKeys(Shape):
    """The digest of the keys that the device thinks are here."""

    digest = Text(required=True, least=1, most=EC_TEXT_MAX)
    example = {"digest": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}


class ClaimKeys(Shape):
    """Whose devices are to be written to: all of them, or one. ``kind``: for a session of Signal's, or for MLS."""

    user_id = Id(required=True)
    device_id = Id(load_default=None)
    kind = fields.String(load_default="signal", validate=validate.OneOf(["signal", "mls"]))
    op_id = Text(load_default=None, allow_none=True, least=1, most=OP_ID_MAX)
    example = {"userId": _USER}


class BundleView(Shape):
    """What it takes to write to a device. What has no one-time key left has its last resort, or null.

    Without ``preKey`` the session begins with the signed prekey alone (X3DH §3.3).
    """

    device_id = fields.String(required=True)
    identity_key = fields.String(required=True)
    registration_id = fields.Integer(required=True)
    signed_pre_key = fields.Nested(SignedEcPrekey, required=True)
    pre_key = fields.Nested(EcPrekey, required=True, allow_none=True)
    kem_pre_key = fields.Nested(KemPrekey, required=True, allow_none=True)
    key_package = fields.Nested(KeyPackage, required=True, allow_none=True)


class Claimed(Shape):
    """The devices of the person that have keys."""

    user_id = fields.String(required=True)
    devices = fields.List(fields.Nested(BundleView), required=True)


class Logged(Shape):
    """An event of the durable log."""

    seq = fields.Integer(metadata={"description": "The same as `logSeq`."})
    log_seq = fields.Integer(
        metadata={"description": "Your own rising number; the last one handled is `since`."}
    )


class KeysChangedNotice(Logged):
    """A device's identity key is another one; null: it has none now."""

    user_id = fields.String(required=True)
    device_id = fields.String(required=True)
    identity_key = fields.String(required=True, allow_none=True)


class KeysLowNotice(Logged):
    """How many one-time keys this device has left."""

    one_time = fields.Integer(required=True)
    kem = fields.Integer(required=True)
    key_packages = fields.Integer(required=True)


# ------------------------------------------------------------------------------------------------- encrypted groups


class GroupRef(Shape):
    """An encrypted group, by its conversation."""

    conversation_id = Id(required=True)
    example = {"conversationId": _CONVERSATION}


class WelcomeBody(Shape):
    """An MLS Welcome for one device of a member."""

    user_id = Id(required=True)
    device_id = Id(required=True)
    body = Text(required=True, least=1, most=COMMIT_TEXT_MAX)


class MakeCommit(GroupRef):
    """A commit made in ``epoch`` of ``generation``."""

    generation = _generation(load_default=1)
    epoch = _epoch(required=True)
    commit = Text(required=True, least=1, most=COMMIT_TEXT_MAX)
    welcome = fields.List(
        fields.Nested(WelcomeBody), load_default=list, validate=validate.Length(max=WELCOMES_MAX)
    )
    op_id = Text(required=True, least=1, most=OP_ID_MAX)
    example = {"conversationId": _CONVERSATION, "epoch": 3, "commit": "AAEAAg==", "opId": "b7a0c1de-5a"}


class ResetGroup(GroupRef):
    """The generation that cannot go on."""

    generation = _generation(required=True)
    op_id = Text(required=True, least=1, most=OP_ID_MAX)
    example = {"conversationId": _CONVERSATION, "generation": 1, "opId": "b7a0c1de-5b"}


class CommitsQuery(GroupRef, PageQuery):
    """The commits of later epochs than ``after``; without one, all that are kept."""

    after = fields.Integer(load_default=-1, validate=validate.Range(min=-1, max=EPOCH_MAX))
    generation = fields.Integer(load_default=None, validate=validate.Range(min=1, max=EPOCH_MAX))
    example = {"conversationId": _CONVERSATION, "after": 3}


class GroupStateView(Shape):
    """Where a group stands: the epoch in which the next commit is to be made."""

    conversation_id = fields.String(required=True)
    generation = fields.Integer(required=True)
    epoch = fields.Integer(required=True)


class CommitView(Shape):
    """The one commit of an epoch, which leads to the next."""

    conversation_id = fields.String(required=True)
    generation = fields.Integer(required=True)
    epoch = fields.Integer(required=True)
    commit = fields.String(required=True)
    sender = fields.String(required=True, metadata={"description": "The user's id."})
    device_id = fields.String(required=True)
    created_at = Instant(required=True)


class CommitNotice(CommitView, Logged):
    """A commit as it is told."""


class WelcomeNotice(GroupStateView, Logged):
    """An MLS Welcome to ``epoch`` of a group."""

    body = fields.String(required=True)
    sender = fields.String(required=True)
    sender_device_id = fields.String(required=True)


class ResetNotice(GroupStateView, Logged):
    """A group begins again: the state of the earlier generation is worth nothing any more."""

    sender = fields.String(required=True)
    device_id = fields.String(required=True)
