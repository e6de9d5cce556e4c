"""Wallets as this process saw them last: for plans whose writing the wallets' versions guard.

What is remembered may be old, since other processes move wallets too. So it serves only where something is posted: a
posting is made for one version of a wallet, with its head, and for whether it is frozen, and is ``Stale`` on any other.
Whoever is told that forgets, and reads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from models.ledger.journal import Wallet

# Those kept longest ago are forgotten first: a read is all that it costs. More than one process can renew for.
SEEN_MAX = 20_000


class Seen:
    """One per process, of at most ``most`` wallets."""

    def __init__(self, most: int = SEEN_MAX) -> None:
        self._most = most
        self._wallets: OrderedDict[str, Wallet] = OrderedDict()

    def __len__(self) -> int:
        return len(self._wallets)

    def of(self, keys: Iterable[str]) -> dict[str, Wallet]:
        """Those of the wallets that are remembered, by key."""
        return {key: wallet for key in keys if (wallet := self._wallets.get(key)) is not None}

    def keep(self, wallets: Iterable[Wallet]) -> None:
        """Remember these, unless a later version of one is: what is committed is not always told in that order."""
        for wallet in wallets:
            known = self._wallets.get(wallet.key)
            if known is None or known.version <= wallet.version:
                self._wallets[wallet.key] = wallet
            self._wallets.move_to_end(wallet.key)
        while len(self._wallets) > self._most:
            self._wallets.popitem(last=False)

    def moved(self, wallets: Iterable[Wallet]) -> None:
        """``keep``, of those that are remembered."""
        self.keep([wallet for wallet in wallets if wallet.key in self._wallets])

    def forget(self, keys: Iterable[str]) -> None:
        """Read these next time: what was planned from them has not come about, or nothing more will be."""
        for key in keys:
            self._wallets.pop(key, None)
