"""Chance from the system: ``models.ports.Chance``."""

from __future__ import annotations

import os


class SystemChance:
    """What nobody can guess."""

    def bytes(self, count: int) -> bytes:
        """That many bytes."""
        return os.urandom(count)
