"""What an audit says: the invariants by name, how many rows each was checked on, and which rows break it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

# Broken rows that are named for each invariant; the rest is counted. A fault that is everywhere must not fill memory.
NAMED_MAX = 50

INVARIANTS: Mapping[str, str] = {
    "I1": "every entry sums to zero in every currency",
    "I2": "every balance is the sum of its journal lines",
    "I3": "no balance is or was negative",
    "I4": "what a wallet holds is what its open calls and withdrawals hold",
    "I5": "a hold is captured or released once, never beyond its amount",
    "I6": "an ended call costs what its conversation costs",
    "I7": "what was charged is earning and commission; refunds stay within it",
    "I8": "a call is settled within a minute of its end, and its escrow is empty then",
    "I9": "every fact is in the journal once, under its own name",
    "I10": "a wallet's version is the number of its entries, without gaps",
    "I11": "what a gateway has collected is what was credited, less what it gave back and paid out",
    "I12": "every wallet's hash chain verifies",
    "I13": "all accounts of a currency add up to zero",
    "I14": "the exchange pool is what the used quotes have converted",
    "I15": "a withdrawal is held, paid, given back or returned as it says, each once",
    "I16": "points are what calls have given, refunds taken back and redemptions spent",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One row that breaks an invariant: ``row`` is the ``_id`` in ``collection``."""

    invariant: str
    collection: str
    row: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Tally:
    """One invariant's outcome; ``named`` are the first ``NAMED_MAX`` of the ``broken`` findings."""

    invariant: str
    checked: int
    broken: int
    named: tuple[Finding, ...]

    @property
    def says(self) -> str:
        """The invariant as a sentence."""
        return INVARIANTS[self.invariant]


@dataclass(frozen=True, slots=True)
class Report:
    """All invariants in their order, and how many documents were read."""

    tallies: tuple[Tally, ...]
    read: Mapping[str, int]

    @property
    def clean(self) -> bool:
        """Nothing is broken."""
        return not any(tally.broken for tally in self.tallies)

    @property
    def findings(self) -> list[Finding]:
        """The broken rows that are named."""
        return [finding for tally in self.tallies for finding in tally.named]

    def __str__(self) -> str:
        return (
            "\n".join(f"{f.invariant} {f.collection} {f.row}: {f.sentence}" for f in self.findings) or "clean"
        )


class Findings:
    """A report in the making."""

    def __init__(self) -> None:
        self._checked: Counter[str] = Counter()
        self._broken: Counter[str] = Counter()
        self._named: dict[str, list[Finding]] = defaultdict(list)
        self.read: Counter[str] = Counter()

    def checked(self, *invariants: str) -> None:
        """One more row has been looked at for these."""
        for invariant in invariants:
            self._checked[invariant] += 1

    def broken(self, invariant: str, collection: str, row: str, sentence: str) -> None:
        """A row breaks an invariant."""
        assert invariant in INVARIANTS
        self._broken[invariant] += 1
        if len(self._named[invariant]) < NAMED_MAX:
            self._named[invariant].append(Finding(invariant, collection, row, sentence))

    def report(self) -> Report:
        """What has been found so far."""
        return Report(
            tuple(
                Tally(name, self._checked[name], self._broken[name], tuple(self._named[name]))
                for name in INVARIANTS
            ),
            dict(self.read),
        )
