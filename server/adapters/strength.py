"""How hard a password is to guess, by zxcvbn: ``models.auth.strength.Strength``.

It knows common passwords, names, words, keyboard walks, dates and what is made of them. Its time grows with the
length: only the first 72 characters are looked at, in a thread, since that is up to 0.1 s of work.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from typing import Any

from models.auth.strength import own_words, too_weak

LOOKED_AT = 72
WORDS_MAX = 20
# What somebody tries first who knows which server this is (ASVS 6.1.2); its own name comes to these (TOTP_ISSUER).
HOUSE_WORDS = ("ringmeter", "ring", "meter", "call", "calls", "wallet", "admin", "administrator", "operator")


class Zxcvbn:
    """``score_min`` 0 to 4: 1 refuses what is tried among the first thousand, 2 among the first million.

    ``house`` is the name under which people know this server.
    """

    def __init__(self, score_min: int, house: str = "") -> None:
        self._score_min = score_min
        self._house = (*HOUSE_WORDS, *own_words(house, re.sub(r"\W+", "", house)))
        # One at a time: the library keeps the words in a global, and a flood of long passwords takes one core only.
        self._turn = asyncio.Semaphore(1)

    async def refuse_weak(self, password: str, own_words: Collection[str]) -> None:
        """Refuse with ``VALIDATION_FAILED`` and its advice."""
        if self._score_min == 0:
            return
        async with self._turn:
            known = [*self._house, *sorted(own_words)[:WORDS_MAX]]
            found: dict[str, Any] = await asyncio.to_thread(_judged, password, known)
        if found["score"] < self._score_min:
            feedback = found["feedback"]
            raise too_weak(*([feedback["warning"]] if feedback["warning"] else []), *feedback["suggestions"])


def _judged(password: str, own_words: Collection[str]) -> dict[str, Any]:
    from zxcvbn import (
        zxcvbn,  # here: its lists of words take 12 MB, which a server that nobody registers at can spare
    )

    looked_at: dict[str, Any] = zxcvbn(password[:LOOKED_AT], user_inputs=[x[:LOOKED_AT] for x in own_words])
    return looked_at
