"""Where rates come from, as a port; ``server/adapters/rates.py`` has the adapters."""

from __future__ import annotations

from typing import Protocol

from models.fx.rules import Table


class RatesAway(Exception):
    """There are no rates now that are new enough to trade by."""


class Rates(Protocol):
    """A source of rates."""

    async def table(self) -> Table:
        """The rates of this moment. Raises ``RatesAway``."""
        ...
