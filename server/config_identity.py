"""The part of the configuration that is about who people are: second factors, passwords, other sign-ins."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

from environs import Env
from marshmallow import ValidationError

from server.config_checks import long_enough, network, url, within
from server.config_read import DEFAULTS, optional, parse, whole, words


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityConfig:
    """What the server was told about identity."""

    totp_secret: str | None = field(repr=False)
    totp_issuer: str
    password_score_min: int
    session_days_max: int
    google_client_ids: tuple[str, ...]
    google_keys_url: str | None
    facebook_app_id: str | None
    facebook_keys_url: str | None
    # Whence the administrators' pages are there at all; () is from everywhere.
    admin_networks: tuple[IPv4Network | IPv6Network, ...]


def identity_config(read: Env, *, production: bool) -> IdentityConfig:
    """Read the variables; faults are kept by ``read``."""
    score = parse(read, "PASSWORD_SCORE_MIN", within(0, 4), default=None)
    return IdentityConfig(
        totp_secret=optional(read, "TOTP_SECRET", long_enough),
        totp_issuer=read.str("TOTP_ISSUER", DEFAULTS["TOTP_ISSUER"], validate=_issuer),
        password_score_min=(2 if production else 1) if score is None else score,
        session_days_max=whole(read, "SESSION_DAYS_MAX", 1, 3660),
        google_client_ids=words(read, "GOOGLE_CLIENT_IDS", (), _client_id),
        google_keys_url=optional(read, "GOOGLE_KEYS_URL", url("http", "https")),
        facebook_app_id=optional(read, "FACEBOOK_APP_ID", _client_id),
        facebook_keys_url=optional(read, "FACEBOOK_KEYS_URL", url("http", "https")),
        admin_networks=tuple(ip_network(one) for one in words(read, "ADMIN_NETWORKS", (), network)),
    )


def _issuer(text: str) -> None:
    # A colon parts the issuer from the name in what an authenticator app shows.
    if len(text) > 64 or ":" in text or not text.isprintable():
        raise ValidationError("must be a name of at most 64 characters, without a colon.")


def _client_id(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", text):
        raise ValidationError(
            f"has {text!r}, which is not an id such as 1234-abcd.apps.googleusercontent.com."
        )
