"""The blocks that hold, in memory: what every request and every handshake is looked up in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from models.blocks.rules import HOST_BITS_V6, Network, network_of, parsed, parsed_network
from models.blocks.store import Block


class Board:
    """One per process."""

    def __init__(self) -> None:
        # By ``network_of``: single addresses, of which there may be many, cost one look however many they are.
        self._single: dict[str, tuple[datetime, bool]] = {}
        self._wide: dict[str, tuple[Network, datetime]] = {}

    def __len__(self) -> int:
        return len(self._single) + len(self._wide)

    def put(self, blocks: Iterable[Block], now: datetime) -> bool:
        """Take over what has changed; whether by that somebody is kept out who was not, also who is no stranger."""
        more = False
        for block in blocks:
            network = parsed_network(block.network)
            one = network.prefixlen == (32 if network.version == 4 else HOST_BITS_V6)
            key = network_of(str(network.network_address)) if one else block.network
            single, wide = self._single.pop(key, None), self._wide.pop(key, None)
            held = (single is not None and not single[1] and single[0] > now) or (
                wide is not None and wide[1] > now
            )
            if block.until <= now:
                continue
            more = more or not (held or block.automatic)
            if one:
                self._single[key] = block.until, block.automatic
            else:
                self._wide[key] = (network, block.until)
        return more

    def until(self, address: str, now: datetime, *, stranger: bool = True) -> datetime | None:
        """Until when an address is kept out; None: it is not. Whoever is no ``stranger`` only by a block that somebody
        has made: those that are made by themselves are for strangers.
        """
        ends = []
        single = self._single.get(network_of(address))
        if single is not None and (stranger or not single[1]):
            ends.append(single[0])
        found = parsed(address) if self._wide else None
        if found is not None:
            ends += [end for network, end in self._wide.values() if found in network]
        until = max(ends, default=now)
        return until if until > now else None

    def tidy(self, now: datetime) -> None:
        """Forget what is over."""
        self._single = {key: row for key, row in self._single.items() if row[0] > now}
        self._wide = {key: row for key, row in self._wide.items() if row[1] > now}
