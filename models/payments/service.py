"""Verbs of payments: money on its way in through a gateway."""

from __future__ import annotations

from collections.abc import Mapping

from models.errors import Refusal
from models.payments.gateway import Gateway


class Payments:
    """One per process."""

    def __init__(self, *, gateways: Mapping[str, Gateway], default: str | None) -> None:
        self.gateways = gateways
        self._default = default

    def gateway(self, name: str | None) -> Gateway:
        """A gateway by its name, the default one without. Refuses with ``GATEWAY_UNAVAILABLE``."""
        found = self.gateways.get(name or self._default or "")
        if found is None:
            raise Refusal("GATEWAY_UNAVAILABLE")
        return found
