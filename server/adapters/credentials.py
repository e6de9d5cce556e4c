"""What proves to Google and to Apple that we may push, read from the configuration.

Faults are ``ValidationError`` with the end of a sentence that holds no part of a secret.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from marshmallow import ValidationError

# Google's keys have some 2 KB, Apple's some 250 bytes; another file is a mistake.
FILE_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A Google service account that may send messages of its project."""

    project_id: str
    client_email: str
    token_uri: str
    key_id: str | None
    key: RSAPrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApnsKey:
    """An Apple key for push (a ``.p8`` file), with its id and its team's."""

    key_id: str
    team_id: str
    key: EllipticCurvePrivateKey = field(repr=False)


def service_account(given: str) -> ServiceAccount:
    """The service account in ``given``: JSON, or the path of a file with it."""
    text = given if given.lstrip().startswith("{") else _file(given)
    try:
        found = json.loads(text)
    except ValueError:
        raise ValidationError("is not JSON, nor the path of a file with JSON.") from None
    if not isinstance(found, dict) or found.get("type") != "service_account":
        raise ValidationError('is not a Google service account ("type": "service_account").')
    missing = [
        name
        for name in ("project_id", "client_email", "private_key", "token_uri")
        if not isinstance(found.get(name), str) or not found[name]
    ]
    if missing:
        raise ValidationError(f"lacks {', '.join(missing)}.")
    key = _private_key(found["private_key"])
    if not isinstance(key, RSAPrivateKey):
        raise ValidationError("has a private_key that is not RSA.")
    key_id = found.get("private_key_id")
    return ServiceAccount(
        project_id=found["project_id"],
        client_email=found["client_email"],
        token_uri=found["token_uri"],
        key_id=key_id if isinstance(key_id, str) else None,
        key=key,
    )


def apns_private_key(given: str) -> EllipticCurvePrivateKey:
    """The key in ``given``: PEM (line ends may be written ``\\n``), or the path of a ``.p8`` file."""
    text = given.replace("\\n", "\n") if "BEGIN PRIVATE KEY" in given else _file(given)
    key = _private_key(text)
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ValidationError("is not a P-256 key, as Apple's are.")
    return key


def _file(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode()
    except (OSError, ValueError):
        # Without the path: a key that was meant to be here and is not recognised must not be told.
        raise ValidationError("names no file that can be read.") from None


def _private_key(pem: str) -> object:
    try:
        return load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValidationError("holds no private key in PEM form.") from None
