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

# Marks upon one character; no script writes more.
MARKS_MAX = 4

_JOINERS = "\u200c\u200d"
# Letters and symbols with nothing to see: the fillers of Hangul, the empty pattern of Braille.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
# All but one between two characters.
_LOOSE_JOINERS = re.compile(
    r"(?<=[\u200c\u200d])[\u200c\u200d]+|(?:^|(?<=\s))[\u200c\u200d]+|[\u200c\u200d]+(?=\s|$)"
)
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
    """A display name as ``one_line`` makes it. Refuses with ``VALIDATION_FAILED``, also what nobody could see."""
    name = one_line(text)
    if not 1 <= len(name) <= DISPLAY_NAME_LENGTH_MAX or not visible(name):
        raise Refusal("VALIDATION_FAILED", displayName=[f"1 to {DISPLAY_NAME_LENGTH_MAX} characters."])
    return name


def one_line(text: str) -> str:
    """Text for titles and lists, which nothing in it can rearrange: single spaces instead of whatever steers.

    Control characters go, bidirectional overrides and marks, private characters and noncharacters; joiners stay between
    two characters that they join; of marks that stand on one character the first few stay.
    """
    kept: list[str] = []
    marks = 0
    for ch in unicodedata.normalize("NFC", text):
        marks = marks + 1 if unicodedata.category(ch) in {"Mn", "Me"} else 0
        if marks <= MARKS_MAX:
            kept.append(" " if _steers(ch) else ch)
    return " ".join(_LOOSE_JOINERS.sub("", " ".join("".join(kept).split())).split())


def visible(text: str) -> bool:
    """Whether there is anything to see in a text."""
    return any(unicodedata.category(ch)[0] in "LNPS" and ch not in _BLANK for ch in text)


def _steers(ch: str) -> bool:
    if unicodedata.category(ch) in {"Cc", "Cf", "Co"}:
        return ch not in _JOINERS
    return ord(ch) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(ch) <= 0xFDEF


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
