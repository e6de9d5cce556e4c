"""How entries move balances, and how they are chained. Pure.

Every wallet has a hash chain of its own: ``hash(n) = SHA-256(canonical(hash(n-1), wallet, n, entry, lines))``, written
in the same transaction as the entry. Whoever alters, removes or inserts a journal line has to alter every later link
of the wallets it touched, and the wallet's ``head``.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

from models.ledger.journal import Entry, Leg, Line, Pocket, Seal, Sealed, Wallet, pocket_of
from models.money import AMOUNT_MAX

# The two accounts that a statement shows, and the pockets that make them up.
STATEMENT_ACCOUNTS: Mapping[str, tuple[Pocket, ...]] = {
    "primary": (Pocket.PRIMARY, Pocket.PRIMARY_HELD),
    "call_credits": (Pocket.CREDITS, Pocket.CREDITS_HELD),
}


class Overdrawn(Exception):
    """An entry would take more out of a pocket than is in it."""

    def __init__(self, wallet: Wallet, pocket: Pocket) -> None:
        super().__init__(f"{pocket.value} of {wallet.key}")
        self.wallet, self.pocket = wallet, pocket


class Overfull(Exception):
    """A balance would grow beyond what JSON readers keep exactly."""


def check(entry: Entry) -> None:
    """What must hold of every entry before it is written."""
    assert len(entry.legs) >= 2, "an entry has two sides"
    sums: dict[str, int] = defaultdict(int)
    for leg in entry.legs:
        assert type(leg.amount_minor) is int, "money is an integer"
        assert leg.amount_minor != 0, "a leg moves something"
        sums[leg.currency] += leg.amount_minor
    assert not any(sums.values()), "the legs of an entry sum to zero in every currency"


def post(wallets: Mapping[str, Wallet], entries: Sequence[Entry]) -> tuple[list[Sealed], dict[str, Wallet]]:
    """Entries applied in order to the wallets they touch: what to write, and the wallets after it.

    ``wallets`` by key must hold every wallet that a leg names. Raises ``Overdrawn`` and ``Overfull``.
    """
    after = dict(wallets)
    sealed: list[Sealed] = []
    for entry in entries:
        check(entry)
        seals = []
        for key, legs in _of_wallets(entry).items():
            before = after[key]
            balances = _moved(before, legs)
            lines = statement_lines(before, balances)
            seal = Seal(
                wallet=key,
                version=before.version + 1,
                previous=before.head,
                hash=chain_hash(before.head, key, before.version + 1, entry, lines),
                lines=lines,
                counterparty=entry.counterparties.get(key),
            )
            changes: dict[str, Any] = {pocket.value: balance for pocket, balance in balances.items()}
            after[key] = replace(before, version=seal.version, head=seal.hash, **changes)
            seals.append(seal)
        sealed.append(Sealed(entry, tuple(seals)))
    return sealed, after


def _of_wallets(entry: Entry) -> dict[str, list[tuple[Pocket, Leg]]]:
    """The legs that move a pocket of a wallet, by the wallet's key."""
    found: dict[str, list[tuple[Pocket, Leg]]] = {}
    for leg in entry.legs:
        place = pocket_of(leg.account)
        if place is not None:
            found.setdefault(place[0], []).append((place[1], leg))
    return found


def _moved(wallet: Wallet, legs: Sequence[tuple[Pocket, Leg]]) -> dict[Pocket, int]:
    """What legs of the wallet make of the pockets that they touch. Raises ``Overdrawn`` and ``Overfull``."""
    balances: dict[Pocket, int] = {}
    for pocket, leg in legs:
        assert leg.currency == wallet.currency, "a wallet has one currency"
        amount = -leg.amount_minor if pocket is Pocket.OWED else leg.amount_minor
        balances[pocket] = balances.get(pocket, wallet.balance(pocket)) + amount
    for pocket, balance in balances.items():
        if balance < 0:
            raise Overdrawn(wallet, pocket)
        if balance > AMOUNT_MAX:
            raise Overfull(wallet.key)
    return balances


def statement_lines(before: Wallet, balances: Mapping[Pocket, int]) -> tuple[Line, ...]:
    """How available plus held changed in the two accounts that a statement shows; holds and releases change nothing.

    ``balances`` are those of the pockets that an entry touches, after it.
    """
    lines = []
    for account, pockets in STATEMENT_ACCOUNTS.items():
        change = sum(balances[pocket] - before.balance(pocket) for pocket in pockets if pocket in balances)
        if change:
            lines.append(Line(account, change, sum(before.balance(pocket) for pocket in pockets) + change))
    return tuple(lines)


def chain_hash(previous: str, wallet: str, version: int, entry: Entry, lines: Sequence[Line]) -> str:
    """The hash of one link: everything that the entry says, after the hash of the link before it."""
    said = [
        previous,
        wallet,
        version,
        entry.id,
        entry.kind.value,
        entry.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        [[leg.account, leg.amount_minor, leg.currency] for leg in entry.legs],
        [[line.account, line.amount_minor, line.after_minor] for line in lines],
        entry.call_id,
        entry.payment_id,
        entry.counterparties.get(wallet),
        entry.note,
    ]
    return hashlib.sha256(json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
