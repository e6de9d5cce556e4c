"""What a username and a display name may be, and how they are compared.

A username is plain ASCII, so that two that look alike are alike. Display names are free text: they are compared only
in searches, by their folded form.
"""

from __future__ import annotations

import re
import unicodedata

from models.errors import Refusal

USERNAME_LENGTH_MIN = 3
USERNAME_LENGTH_MAX = 32
DISPLAY_NAME_LENGTH_MAX = 64
# The highest code point: behind every text that begins with the same letters, in the order of UTF-8 bytes.
LAST_CHARACTER = "\U0010ffff"

_USERNAME = re.compile(r"[A-Za-z0-9._-]+")
_NOT_USERNAME = re.compile(r"[^a-z0-9._-]+")


def checked_username(text: str) -> str:
    """A username as its owner writes it. Refuses with ``VALIDATION_FAILED`` what is no username."""
    text = text.strip()
    if not USERNAME_LENGTH_MIN <= len(text) <= USERNAME_LENGTH_MAX or not _USERNAME.fullmatch(text):
        sentence = (
            f"{USERNAME_LENGTH_MIN} to {USERNAME_LENGTH_MAX} characters: letters a to z, digits and . _ -"
        )
        raise Refusal("VALIDATION_FAILED", username=[sentence])
    return text


def checked_display_name(text: str) -> str:
    """A display name without control characters, with single spaces. Refuses with ``VALIDATION_FAILED``."""
    # Categories: Cc control, Cf format (bidirectional overrides that turn a name around), but joiners stay.
    kept = "".join(ch if not _steers(ch) else " " for ch in unicodedata.normalize("NFC", text))
    name = " ".join(kept.split())
    if not 1 <= len(name) <= DISPLAY_NAME_LENGTH_MAX:
        raise Refusal("VALIDATION_FAILED", displayName=[f"1 to {DISPLAY_NAME_LENGTH_MAX} characters."])
    return name


def _steers(ch: str) -> bool:
    return unicodedata.category(ch) in {"Cc", "Cf"} and ch not in "\u200c\u200d"


def folded(text: str) -> str:
    """The form in which names are compared and searched: compatible characters alike, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def username_from(text: str) -> str:
    """The best username that ``text`` (an e-mail's local part, a name) gives; always a valid one."""
    plain = "".join(ch for ch in unicodedata.normalize("NFKD", text) if not unicodedata.combining(ch)).lower()
    name = _NOT_USERNAME.sub("_", plain).strip("._-")[:USERNAME_LENGTH_MAX]
    return name if len(name) >= USERNAME_LENGTH_MIN else f"user_{name}" if name else "user"


def username_variant(base: str, mark: str) -> str:
    """Another username near ``base``, made different by ``mark``."""
    return f"{base[: USERNAME_LENGTH_MAX - 1 - len(mark)]}-{mark}"
