"""What an e-mail address, a phone number and a password may be, and how they are compared.

An address is checked for its form only: that it exists, and that the account's owner reads it, is shown by a code
sent there. The same holds for phone numbers, hence "possible" and not "valid": number ranges open faster than
anybody's tables of them, and a number that is refused is a customer lost.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum

import phonenumbers

from models.errors import Refusal
from models.users.rules import folded, username_from

# RFC 5321 §4.5.3.1: 64 octets of local part, and a path of 256 with its two brackets.
EMAIL_LENGTH_MAX = 254
EMAIL_LOCAL_LENGTH_MAX = 64
PASSWORD_LENGTH_MIN = 8
# Only so that nobody makes us digest megabytes; a passphrase of a hundred words fits.
PASSWORD_LENGTH_MAX = 1024

# RFC 5322 §3.2.3 dot-atom, with letters of all scripts (RFC 6531); quoted local parts are nobody's address.
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LABEL = re.compile(r"[^\W_](?:[^\W_]|-){0,61}(?<!-)")
# What people put between the digits of a number.
_PHONE = re.compile(r"\+[0-9][0-9\s().\-/]{4,30}", re.ASCII)


class Key(Enum):
    """The unique keys by which an account is found; the value is the stored field."""

    EMAIL = "email_key"
    PHONE = "phone"
    USERNAME = "username_key"


def checked_email(text: str) -> str:
    """An e-mail address with its domain in small letters. Refuses with ``VALIDATION_FAILED``."""
    email = _email(text)
    if email is None:
        raise Refusal("VALIDATION_FAILED", email=["Not an e-mail address."])
    return email


def _email(text: str) -> str | None:
    text = unicodedata.normalize("NFC", text.strip())
    local, at, domain = text.rpartition("@")
    domain = domain.lower()
    labels = domain.split(".")
    good = (
        at
        and len(text) <= EMAIL_LENGTH_MAX
        and len(local.encode()) <= EMAIL_LOCAL_LENGTH_MAX
        and _LOCAL.fullmatch(local)
        and len(labels) >= 2
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )
    return f"{local}@{domain}" if good else None


def email_key(email: str) -> str:
    """The form by which addresses are compared: no provider tells two addresses apart by case."""
    return folded(email)


def checked_phone(text: str) -> str:
    """A phone number as E.164 (``+2348012345678``). Refuses with ``VALIDATION_FAILED``; a number needs its country."""
    phone = _phone(text)
    if phone is None:
        raise Refusal(
            "VALIDATION_FAILED", phone=["Not a phone number with its country code, such as +2348012345678."]
        )
    return phone


def _phone(text: str) -> str | None:
    text = text.strip()
    if not _PHONE.fullmatch(text):
        return None
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def checked_password(text: str) -> str:
    """A password that may be set. Length is the only rule. Refuses with ``VALIDATION_FAILED``."""
    if not PASSWORD_LENGTH_MIN <= len(text) <= PASSWORD_LENGTH_MAX:
        raise Refusal(
            "VALIDATION_FAILED", password=[f"{PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters."]
        )
    return text


def login_key(identifier: str) -> tuple[Key, str] | None:
    """Which account somebody means who types this to sign in; None when it can be nobody's."""
    if "@" in identifier:
        email = _email(identifier)
        return (Key.EMAIL, email_key(email)) if email else None
    phone = _phone(identifier)
    if phone is not None:
        return Key.PHONE, phone
    name = folded(identifier)
    return (Key.USERNAME, name) if name else None


def first_username(email: str | None, phone: str | None) -> str:
    """A username for somebody who chose none: the e-mail's local part, or the last digits of the phone number.

    Not the whole number: usernames are public.
    """
    if email is not None:
        return username_from(email.rpartition("@")[0])
    return f"user{(phone or '')[-4:]}"
