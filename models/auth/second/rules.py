"""What a code of an authenticator app and a recovery code are (RFC 6238, RFC 4226).

SHA-1, six digits, thirty seconds: the only parameters that every app knows. A clock may be one step off. A step that
was accepted, and all before it, are never accepted again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import datetime

import pyotp

STEP_SECONDS = 30
DIGITS = 6
DRIFT_STEPS = 1
# RFC 4226 §4, R6: 160 bits recommended.
SEED_BYTES = 20
# 120 bits each, so that a plain digest of one tells nothing (ASVS 6.5.2 asks for 112).
RECOVERY_CODES, RECOVERY_BYTES = 10, 15
RECOVERY_LENGTH = RECOVERY_BYTES * 8 // 5
# How long a seed waits for the first code that shows that an app has it.
PENDING_SECONDS = 900
# What people read wrongly: base32 has none of these digits.
_MISREAD = str.maketrans("018", "OIB")
_RECOVERY_LABEL = "ringmeter recovery code v1"


def step_at(now: datetime) -> int:
    """The number of the step at an instant."""
    return int(now.timestamp()) // STEP_SECONDS


def accepted_step(seed: bytes, code: str, now: datetime, *, after: int) -> int | None:
    """The step whose code this is, of those that may be used now and come ``after`` the last one used."""
    digits = re.sub(r"[\s-]", "", code)
    if not re.fullmatch(rf"[0-9]{{{DIGITS}}}", digits, re.ASCII):
        return None
    totp = pyotp.TOTP(text_of(seed), digits=DIGITS, interval=STEP_SECONDS)
    present = step_at(now)
    found: int | None = None
    # All of them are computed, so that the time tells nothing of the clock's drift.
    for step in range(present - DRIFT_STEPS, present + DRIFT_STEPS + 1):
        same = hmac.compare_digest(totp.generate_otp(step), digits)
        if same and step > after and found is None:
            found = step
    return found


def text_of(seed: bytes) -> str:
    """A seed as apps take it when nobody can scan: base32."""
    return base64.b32encode(seed).decode().rstrip("=")


def uri_of(seed: bytes, *, name: str, issuer: str) -> str:
    """The ``otpauth://`` address that is in the QR code."""
    totp = pyotp.TOTP(text_of(seed), digits=DIGITS, interval=STEP_SECONDS)
    return str(totp.provisioning_uri(name=name, issuer_name=issuer))


def recovery_code(chance: bytes) -> str:
    """A recovery code as it is shown: six groups of four."""
    text = base64.b32encode(chance).decode()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def recovery_digest(user_id: str, code: str) -> str | None:
    """What is kept of a recovery code; None for what can be none. Groups, case and misread digits do not matter."""
    text = re.sub(r"[\s-]", "", code).upper().translate(_MISREAD)
    if not re.fullmatch(rf"[A-Z2-7]{{{RECOVERY_LENGTH}}}", text, re.ASCII):
        return None
    return hashlib.sha256(f"{_RECOVERY_LABEL}|{user_id}|{text}".encode()).hexdigest()
