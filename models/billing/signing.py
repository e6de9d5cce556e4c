"""Signing JSON so that anybody can check it: Ed25519 (RFC 8032) over the canonical text of RFC 8785.

The key is derived (HKDF-SHA256, RFC 5869) from a secret of the server, so there is nothing more to keep, and the same
words are signed the same way each time. What is signed has only texts, whole numbers within 2^53, null, lists and
objects with ASCII names; for those RFC 8785 is: names sorted, no spaces, UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from models.money import AMOUNT_MAX

ALGORITHM = "Ed25519"
# What else is ever derived from the same secret has another label.
_LABEL = b"ringmeter receipt v1"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
# Nobody's receipt is deeper; a file from somewhere may be.
DEPTH_MAX = 16


class Signer:
    """The key of this server. ``public_key`` is base64url without padding, ``key_id`` names it."""

    def __init__(self, secret: str) -> None:
        seed = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_LABEL).derive(secret.encode())
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = encoded(raw)
        self.key_id = key_id(raw)

    def signed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """``body`` with its ``signature``."""
        assert "signature" not in body
        return {
            **body,
            "signature": {
                "alg": ALGORITHM,
                "keyId": self.key_id,
                "publicKey": self.public_key,
                "value": encoded(self._key.sign(canonical(body))),
            },
        }


def key_id(public_key: bytes) -> str:
    """The name of a key: the first 64 bits of its SHA-256, in hex."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def canonical(value: Any) -> bytes:
    """The one text of a JSON value (RFC 8785). Raises ``ValueError`` for what is never signed."""
    _check(value, DEPTH_MAX)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _check(value: Any, deeper: int) -> None:
    if not deeper:
        raise ValueError("too deep")
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise ValueError("a name that is not ASCII")
            _check(item, deeper - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, deeper - 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > AMOUNT_MAX:
            raise ValueError("a number beyond 2^53")
    elif value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is no text and no whole number")


def signature_faults(document: Mapping[str, Any], trusted_key: str | None) -> list[str]:
    """What is wrong with the signature of a document; nothing when it is right.

    ``trusted_key``: the public key that should have signed it; without one, whichever is in the document is believed.
    """
    signature = document.get("signature")
    if not isinstance(signature, dict) or signature.keys() != {"alg", "keyId", "publicKey", "value"}:
        return ["There is no signature {alg, keyId, publicKey, value}."]
    if signature["alg"] != ALGORITHM:
        return [f"The signature is not of {ALGORITHM}."]
    key, value = decoded(signature["publicKey"], KEY_BYTES), decoded(signature["value"], SIGNATURE_BYTES)
    if key is None or value is None:
        return ["The signature or its key is not base64url of the right length."]
    faults = []
    if signature["keyId"] != key_id(key):
        faults.append("keyId is not the name of the public key.")
    if trusted_key is not None and signature["publicKey"] != trusted_key:
        faults.append(f"It is signed with the key {key_id(key)}: by another server, or with another secret.")
    try:
        body = {name: item for name, item in document.items() if name != "signature"}
        Ed25519PublicKey.from_public_bytes(key).verify(value, canonical(body))
    except InvalidSignature:
        faults.append("The signature does not fit: something was altered after signing.")
    except ValueError as fault:
        faults.append(f"It has {fault}, which is never signed.")
    return faults


def encoded(raw: bytes) -> str:
    """base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decoded(text: Any, length: int) -> bytes | None:
    """The ``length`` bytes behind a text; None for anything else, also for another spelling of the same bytes."""
    if not isinstance(text, str):
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return None
    return raw if len(raw) == length and encoded(raw) == text else None
