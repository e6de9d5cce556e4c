"""What a value of the environment must look like: each check raises ``ValidationError`` with the end of a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from urllib.parse import urlsplit

from babel.numbers import is_currency
from marshmallow import ValidationError
from redis.asyncio.connection import parse_url

JWT_SECRET_BYTES_MIN = 32  # RFC 7518 §3.2: a key for HS256 is at least as long as its hash


def url(*schemes: str) -> Callable[[str], None]:
    """A check of an address: its scheme is one of these, and it names a host."""

    def check(text: str) -> None:
        # The value may hold a password: the sentence must not repeat it.
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValidationError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}.")
        if not text.split("://", 1)[1]:
            raise ValidationError("names no host.")

    return check


def redis_url(text: str) -> None:
    """A check of a Redis address by the parser that reads it later: its port, database and options."""
    url("redis", "rediss", "unix")(text)
    try:
        parse_url(text)
    except ValueError:
        raise ValidationError("is not of the form redis://user:password@host:port/database.") from None


def ice(*schemes: str) -> Callable[[str], None]:
    """A check of a STUN or TURN server's address (RFC 7064, RFC 7065)."""

    def check(text: str) -> None:
        if not re.fullmatch(
            rf"(?:{'|'.join(schemes)}):(?:[^\s/:@?]+|\[[0-9A-Fa-f:.]+\])(?::\d{{1,5}})?(?:\?transport=(?:udp|tcp))?",
            text,
        ):
            raise ValidationError(f"has {text!r}, which is not of the form {schemes[0]}:host:port.")

    return check


def origin(text: str) -> None:
    """A web origin, with ``:*`` for any port."""
    try:
        parts = urlsplit(text.replace(":*", ":1") if text.endswith(":*") else text)
        _ = parts.port  # raises when it is not a number
    except ValueError:
        raise ValidationError(
            f"has {text!r}, which is not an origin such as https://app.example.com."
        ) from None
    bare = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in ("http", "https") or not parts.hostname or "*" in parts.netloc or "@" in text:
        raise ValidationError(f"has {text!r}, which is not an origin such as https://app.example.com.")
    if bare != text.replace(":*", ":1"):
        raise ValidationError(f"has {text!r}: an origin ends after host and port.")


def currency(text: str) -> None:
    """A currency of ISO 4217."""
    if not is_currency(text):
        raise ValidationError("must be an ISO 4217 code in capitals, such as NGN.")


def database_name(text: str) -> None:
    """A name that MongoDB takes for a database."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", text):
        raise ValidationError("must be letters, digits, _ and -, at most 63.")


def long_enough(text: str) -> None:
    """A secret that can sign with HS256."""
    if len(text.encode()) < JWT_SECRET_BYTES_MIN:
        raise ValidationError(f"must be at least {JWT_SECRET_BYTES_MIN} bytes.")


def flag(text: str) -> bool:
    """Yes or no."""
    if text not in ("true", "false"):
        raise ValidationError("must be true or false.")
    return text == "true"


def apple_id(text: str) -> None:
    """The id of a key or a team at Apple."""
    if not re.fullmatch(r"[A-Z0-9]{10}", text):
        raise ValidationError("must be ten capital letters and digits.")


def bundle_id(text: str) -> None:
    """The id of an app at Apple."""
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,155}", text) or text.endswith(".voip"):
        raise ValidationError("must be the bundle id of the app, such as com.example.app, without .voip.")


def network(text: str) -> None:
    """A network such as 10.0.0.0/8, or one address."""
    try:
        ip_network(text)
    except ValueError:
        raise ValidationError(f"has {text!r}, which is not a network such as 10.0.0.0/8.") from None


def within(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``."""

    def whole(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
            raise ValidationError(f"must be a whole number from {least} to {most}.")
        return int(text)

    return whole


def socket_or_port(text: str) -> None:
    """The path of a socket, or a host with its port."""
    if not re.fullmatch(r"/\S+|(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", text):
        raise ValidationError("is neither the path of a socket nor of the form host:port.")
