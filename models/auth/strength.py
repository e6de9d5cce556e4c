"""How hard a password is to guess."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from models.errors import Refusal
from models.users.profile import Account


class Strength(Protocol):
    """Who judges passwords, off the loop: that takes a while."""

    async def refuse_weak(self, password: str, own_words: Collection[str]) -> None:
        """Refuse with ``VALIDATION_FAILED`` what is guessed soon, by somebody who knows the person's ``own_words``."""
        ...


class AnyStrength:
    """Who takes any password."""

    async def refuse_weak(self, password: str, own_words: Collection[str]) -> None:
        """Nothing."""


def too_weak(*advice: str) -> Refusal:
    """The refusal, with what would help."""
    return Refusal("VALIDATION_FAILED", password=["Too easy to guess.", *advice])


def own_words(*said: str | None) -> list[str]:
    """What a guesser who knows the person tries first: names and addresses, whole and in their parts."""
    words = {
        word for text in said if text for word in (text, *text.replace("@", " ").replace(".", " ").split())
    }
    return sorted(word for word in words if len(word) > 2)


def own_words_of(account: Account) -> list[str]:
    """The same of an account."""
    profile = account.profile
    return own_words(profile.username, profile.display_name, account.email, account.phone)
