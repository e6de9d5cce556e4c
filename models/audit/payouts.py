"""One withdrawal and the journal entries under its name: what it holds, and what has gone out or come back. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from models.audit.report import Findings
from models.ledger.journal import Entry, Kind
from models.payouts import rules
from models.payouts.payout import Payout, Stage

PAYOUTS = "payouts"

KINDS = (Kind.WITHDRAW_HOLD, Kind.WITHDRAWAL, Kind.WITHDRAW_VOID, Kind.WITHDRAW_RETURN)


def names_of(payout: Payout) -> list[str]:
    """The names of all entries that a withdrawal may have."""
    return [rules.entry_id(payout.id, kind) for kind in KINDS]


def judge(payout: Payout, entries: Mapping[str, Entry], found: Findings) -> int:
    """Check a withdrawal against those of its entries that there are, by name; how many belong to it."""
    found.checked("I14")
    belong = 0
    for kind in KINDS:
        name = rules.entry_id(payout.id, kind)
        entry, wanted = entries.get(name), kind in rules.POSTED[payout.stage]
        belong += entry is not None
        if entry is None and wanted:
            found.broken(
                "I14", PAYOUTS, payout.id, f"is {payout.stage.value}, and {name} is not in the journal"
            )
        elif entry is not None and not wanted:
            found.broken("I14", PAYOUTS, payout.id, f"is {payout.stage.value}, and {name} is in the journal")
        elif entry is not None and _moves(entry) != {
            leg.account: (leg.amount_minor, leg.currency) for leg in rules.legs(payout, kind)
        }:
            said = (
                f"of {payout.amount_minor} {payout.currency} and {payout.fee_minor} is not what {name} moves"
            )
            found.broken("I14", PAYOUTS, payout.id, said)
    return belong


def paid_minor(payout: Payout) -> int:
    """What the gateway has paid for us and not got back, in minor units."""
    return payout.amount_minor if payout.stage is Stage.PAID else 0


def _moves(entry: Entry) -> dict[str, tuple[int, str]]:
    return {leg.account: (leg.amount_minor, leg.currency) for leg in entry.legs}
