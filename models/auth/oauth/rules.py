"""What an ID token must say before anybody is let in by it (OpenID Connect Core 1.0 §3.1.3.7).

RS256 and nothing else, so that neither "none" nor our own public key as an HMAC secret gets through; issuer and
audience are ours to name; time is checked against our own clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from models.errors import Refusal

ALGORITHM = "RS256"
# Clocks of two companies differ by no more.
LEEWAY_SECONDS = 60
# Google's expire after an hour; what lives longer was not made for signing in.
AGE_SECONDS_MAX = 86_400
TOKEN_LENGTH_MAX = 8192
SUBJECT_LENGTH_MAX = 255  # OpenID Connect Core §2
KEY_ID_LENGTH_MAX = 256


@dataclass(frozen=True, slots=True)
class Provider:
    """Who vouches for people. ``audiences`` are our own ids there."""

    name: str
    issuers: Sequence[str]
    audiences: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who somebody is at a provider. ``email_verified``: the provider has seen that they read that address."""

    provider: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None

    @property
    def id(self) -> str:
        """The same person's for ever; addresses change hands."""
        return f"{self.provider}:{self.subject}"


def key_id_of(token: str) -> str:
    """The key that a token says it is signed with. Refuses with ``ID_TOKEN_INVALID``."""
    if len(token) > TOKEN_LENGTH_MAX:
        raise Refusal("ID_TOKEN_INVALID")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Refusal("ID_TOKEN_INVALID") from None
    key_id = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(key_id, str) or len(key_id) > KEY_ID_LENGTH_MAX:
        raise Refusal("ID_TOKEN_INVALID")
    return key_id


def person_of(
    token: str, key: RSAPublicKey, provider: Provider, *, nonce: str | None, now: datetime
) -> Person:
    """Who the token is about. ``nonce`` is the one that the client had put in. Refuses with ``ID_TOKEN_INVALID``."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=list(provider.audiences),
            issuer=list(provider.issuers),
            options={
                "require": ["exp", "iat", "sub", "iss", "aud"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Refusal("ID_TOKEN_INVALID") from None
    if not _in_time(claims, now) or not _for_us(claims, provider):
        raise Refusal("ID_TOKEN_INVALID")
    # A nonce that was given and is missing in the token is as wrong as another one.
    if nonce is not None and claims.get("nonce") != nonce:
        raise Refusal("ID_TOKEN_INVALID")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_LENGTH_MAX:
        raise Refusal("ID_TOKEN_INVALID")
    if not subject.isascii() or not subject.isprintable():
        raise Refusal("ID_TOKEN_INVALID")
    return Person(
        provider=provider.name,
        subject=subject,
        email=_text(claims.get("email")),
        # Some say it as text.
        email_verified=claims.get("email_verified") is True or claims.get("email_verified") == "true",
        name=_text(claims.get("name")),
    )


def _text(value: Any) -> str | None:
    """Text without halves of characters, which JSON can say and nothing can store."""
    return value.encode(errors="ignore").decode() or None if isinstance(value, str) else None


def _in_time(claims: Mapping[str, Any], now: datetime) -> bool:
    issued, expires, not_before = claims["iat"], claims["exp"], claims.get("nbf", 0)
    if any(type(value) not in (int, float) for value in (issued, expires, not_before)):
        return False
    at = now.timestamp()
    return bool(
        at < expires + LEEWAY_SECONDS
        and expires - issued <= AGE_SECONDS_MAX
        and at - AGE_SECONDS_MAX < issued <= at + LEEWAY_SECONDS
        and not_before <= at + LEEWAY_SECONDS
    )


def _for_us(claims: Mapping[str, Any], provider: Provider) -> bool:
    """Made for several, it says for whom of them it was asked: us (§3.1.3.7, 4 and 5)."""
    audience = claims["aud"]
    return not isinstance(audience, list) or len(audience) == 1 or claims.get("azp") in provider.audiences
