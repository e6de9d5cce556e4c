"""Access tokens and refresh tokens as text.

An access token is a JWT (RFC 7519), HS256 under the server's secret. Its time is checked here against the given
instant: the library's own clock is not ours.

A refresh token is ``session.generation.proof``, the proof being an HMAC-SHA256 under a key derived from the secret.
So the successor of a token is known without being stored: a retry whose answer was lost gets the same text again,
and nothing that lies in the database can be used as a token.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from models.errors import Refusal

# Ours have some 400 characters; what is longer is not looked at.
TOKEN_LENGTH_MAX = 2048
_ALGORITHM = "HS256"
_TYPE = "access"
# Who made it and whom it is for: this server, both times. A token that is made under the same secret by or for anything
# else opens nothing here.
_ISSUER = _AUDIENCE = "ringmeter"
_ALWAYS = ["exp", "iat", "sub", "jti", "typ", "sid"]
_REQUIRED = [*_ALWAYS, "iss", "aud"]
_REFRESH = re.compile(r"([0-9A-Za-z-]{1,64})\.([0-9]{1,9})\.([A-Za-z0-9_-]{43})")
# A label of its own, so that a proof can never pass for a signature made with the same secret.
_REFRESH_LABEL = b"ringmeter refresh token v1"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good access token says."""

    user_id: str
    session_id: str
    expires_at: datetime


class TokenMint:
    """Makes and reads tokens. ``secret`` has at least 32 bytes; ``access_token_seconds`` is an access token's life."""

    def __init__(self, secret: str, access_token_seconds: int) -> None:
        self._key = secret.encode()
        self._refresh_key = hmac.digest(self._key, _REFRESH_LABEL, "sha256")
        self.access_token_seconds = access_token_seconds

    def access(self, *, user_id: str, session_id: str, token_id: str, now: datetime) -> str:
        """A new access token."""
        issued = int(now.timestamp())
        claims = {
            "sub": user_id,
            "sid": session_id,
            "jti": token_id,
            "typ": _TYPE,
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "iat": issued,
            "exp": issued + self.access_token_seconds,
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def read_access(self, token: str | None, now: datetime) -> Claims:
        """What the token says. Refuses with ``TOKEN_MISSING``, ``TOKEN_INVALID`` or ``TOKEN_EXPIRED``."""
        if not token:
            raise Refusal("TOKEN_MISSING")
        if len(token) > TOKEN_LENGTH_MAX:
            raise Refusal("TOKEN_INVALID")
        options: jwt.types.Options = {
            "require": _REQUIRED,
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        }
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                options=options,
            )
        except jwt.MissingRequiredClaimError:
            raise Refusal("TOKEN_EXPIRED" if self._is_older(token) else "TOKEN_INVALID") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            # ValueError: text that is no UTF-8; RecursionError: a header nested to death.
            raise Refusal("TOKEN_INVALID") from None
        expires, session_id = claims["exp"], claims["sid"]
        if claims["typ"] != _TYPE or type(expires) is not int or not isinstance(session_id, str):
            raise Refusal("TOKEN_INVALID")
        expires_at = datetime.fromtimestamp(0, UTC) + timedelta(seconds=expires)
        if now >= expires_at:
            raise Refusal("TOKEN_EXPIRED")
        return Claims(claims["sub"], session_id, expires_at)

    def made(self, token: str, now: datetime) -> bool:
        """Whether it is one of ours, also when it is over; it may be revoked."""
        try:
            self.read_access(token, now)
        except Refusal as no:
            return no.code == "TOKEN_EXPIRED"
        return True

    def _is_older(self, token: str) -> bool:
        """Whether it is one of ours from before they had an issuer: the app fetches another, nobody is signed out."""
        checks = {f"verify_{name}": False for name in ("exp", "iat", "nbf", "aud", "iss")}
        options: Any = {"require": _ALWAYS, **checks}
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM], options=options)
        except jwt.PyJWTError:
            return False
        return claims["typ"] == _TYPE and "iss" not in claims and "aud" not in claims

    def refresh(self, session_id: str, generation: int) -> str:
        """The refresh token of a session's generation: always the same text."""
        said = f"{session_id}.{generation}"
        proof = hmac.digest(self._refresh_key, said.encode(), "sha256")
        return f"{said}.{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"

    def read_refresh(self, token: str) -> tuple[str, int]:
        """Session and generation of a refresh token that we made. Refuses with ``REFRESH_INVALID``."""
        parts = _REFRESH.fullmatch(token)
        if parts is None:
            raise Refusal("REFRESH_INVALID")
        session_id, generation = parts[1], int(parts[2])
        if not hmac.compare_digest(token, self.refresh(session_id, generation)):
            raise Refusal("REFRESH_INVALID")
        return session_id, generation
