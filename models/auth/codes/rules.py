"""What a code is, to where it goes, and in which words.

Eight digits (26 bits; ASVS 6.5.4 asks for 20), good for ten minutes (ASVS 6.5.5). Kept is a keyed digest: so few digits
would be found by trying them all against a plain one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from models.auth.rules import Key, login_key
from models.users.profile import Account

DIGITS = 8
GOOD_FOR = timedelta(minutes=10)
# All wrong tries at one code together, from wherever: a guesser gets one in two millions of it, and who wants to make
# somebody else's code useless needs ten addresses for each (each has five).
TRIES_MAX = 50
# How often one person is sent codes for one purpose. An SMS costs, and there is a trade in causing them.
GAP = timedelta(seconds=60)
PER_HOUR_MAX = {"email": 20, "sms": 5}
# How often one address asks in an hour for codes for one name: one stranger alone does not use up what is sent.
ASKED_MAX = 4
# After a carrier said "later". What was asked for is given up when nobody waits for it any more.
AGAIN_AFTER = timedelta(seconds=15)
GIVE_UP_AFTER = timedelta(minutes=10)


class Purpose(StrEnum):
    """What a code is for; one that is good for one is good for nothing else."""

    RESET = "reset"
    EMAIL = "verify-email"
    PHONE = "verify-phone"


class Way(StrEnum):
    """How a message reaches a person."""

    EMAIL = "email"
    SMS = "sms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a person is sent. ``mark`` is this message's own, at every try another."""

    way: Way
    to: str
    subject: str
    text: str = field(repr=False)
    mark: str
    at: datetime


def code_of(chance: bytes) -> str:
    """A code of eight digits from eight or more bytes of chance."""
    return f"{int.from_bytes(chance, 'big') % 10**DIGITS:0{DIGITS}d}"


def digest(pepper: bytes, purpose: Purpose, user_id: str, code: str) -> str:
    """What is kept of a code, and compared; blanks and dashes that people type do not matter."""
    said = re.sub(r"[\s-]", "", code)
    return hmac.digest(pepper, f"{purpose}|{user_id}|{said}".encode(), "sha256").hex()


def wish_key(identifier: str) -> tuple[str, str]:
    """Whose password was forgotten, as a field and its value; a field of nobody's for what can be no account."""
    key = login_key(identifier)
    if key is None:
        return "nobody", hashlib.sha256(identifier.encode()).hexdigest()
    return key[0].value, key[1]


def where_to(purpose: Purpose, account: Account, asked_by: str) -> tuple[Way, str] | None:
    """To where a code goes: what was asked by, else what is known to be read. None: nowhere, or no need."""
    by_mail = (Way.EMAIL, account.email) if account.email else None
    by_phone = (Way.SMS, account.phone) if account.phone else None
    if purpose is Purpose.EMAIL:
        return None if account.email_verified else by_mail
    if purpose is Purpose.PHONE:
        return None if account.phone_verified else by_phone
    if asked_by == Key.EMAIL.value:
        return by_mail
    if asked_by == Key.PHONE.value:
        return by_phone
    if account.phone_verified and not account.email_verified:
        return by_phone
    return by_mail or by_phone


_WORDS = {
    Purpose.RESET: ("Set a new password", "to set a new password"),
    Purpose.EMAIL: ("Confirm your e-mail address", "to confirm your e-mail address"),
    Purpose.PHONE: ("Confirm your phone number", "to confirm your phone number"),
}


def words(purpose: Purpose, way: Way, code: str, *, house: str) -> tuple[str, str]:
    """Subject and text. ``house`` is the name under which people know the server."""
    subject, what_for = _WORDS[purpose]
    minutes = GOOD_FOR // timedelta(minutes=1)
    if way is Way.SMS:
        return "", f"{house}: {code} is your code {what_for}, good for {minutes} minutes. Tell it to nobody."
    text = (
        f"{code} is your code {what_for}. It is good for {minutes} minutes.\n\n"
        "Nobody of us will ever ask you for it. If you have not asked for it, you need not do anything: without the "
        "code nothing changes.\n"
    )
    return f"{house}: {subject}", text
