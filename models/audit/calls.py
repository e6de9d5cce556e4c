"""One call and the journal entries that name it: what was held, captured, shared and given back. Pure.

The price is computed anew from the call's intervals and segments, by the tariff's own function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from models.audit.report import Findings
from models.audit.rules import JOURNAL
from models.calls import tariff
from models.calls.call import Call, Charge, Purse, Stage
from models.ledger.journal import COMMISSION, Entry, Kind, Pocket, escrow, pocket_of, wallet_key
from models.money import BPS, split

CALLS = "calls"

# An ended call's money is settled at once; a process that dies over it leaves it to the others' job.
SETTLED_WITHIN = timedelta(seconds=60)

_SHARED = (Stage.SETTLED, Stage.CLEARED)


@dataclass(slots=True)
class Sums:
    """The entries of a call, added up by what they did; the payer's with the sign of what they did."""

    held: Purse = field(default_factory=Purse)
    captured: Purse = field(default_factory=Purse)
    released: Purse = field(default_factory=Purse)
    refunded: Purse = field(default_factory=Purse)
    escrow: int = 0
    commission: int = 0
    pending: int = 0
    paid_out: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)


def judge(call: Call | None, call_id: str, entries: Sequence[Entry], now: datetime, found: Findings) -> None:
    """Check a call against its entries. ``now`` is when the database was read; an end may have come just before it."""
    if call is None:
        for entry in entries:
            invariant = "I4" if entry.kind is Kind.HOLD else "I9"
            found.broken(invariant, JOURNAL, entry.id, f"belongs to call {call_id}, which does not exist")
        return
    if not call.live:
        _price(call, found)
    charge = call.charge
    if charge is None:
        for entry in entries:
            said = f"belongs to call {call_id}, which takes no money"
            found.broken("I4" if entry.kind is Kind.HOLD else "I9", JOURNAL, entry.id, said)
        return
    payee = wallet_key(call.callee.user_id, call.price.currency)
    sums = _add_up(call_id, charge, payee, entries, found)
    _held(call, charge, sums, found)
    if call.live and charge.stage is not Stage.OPEN:
        found.broken("I8", CALLS, call_id, f"is live, and its money is {charge.stage.value}")
    if not call.live:
        _settled(call, charge, sums, now, found)
    if charge.stage in _SHARED:
        _shared(call, charge, sums, found)


def _price(call: Call, found: Findings) -> None:
    """What an ended call costs."""
    found.checked("I6")
    if any(interval.end is None for interval in call.intervals):
        found.broken("I6", CALLS, call.id, "has ended, and its conversation runs")
    if tariff.earlier_ms(call) > call.talk_ms():
        said = f"has {tariff.earlier_ms(call)} ms of conversation in earlier segments"
        found.broken("I6", CALLS, call.id, f"{said}, {call.talk_ms()} ms in its intervals")
    refunded = call.charge.refunded.total if call.charge is not None else 0
    price = tariff.cost(call)
    if call.cost_minor + refunded != price:
        said = f"cost_minor is {call.cost_minor}" + (f" after refunds of {refunded}" if refunded else "")
        found.broken("I6", CALLS, call.id, f"{said}, its conversation costs {price}")
    elif price and call.charge is None:
        found.broken("I6", CALLS, call.id, f"costs {price}, and nobody was charged")


def _add_up(call_id: str, charge: Charge, payee: str, entries: Sequence[Entry], found: Findings) -> Sums:
    sums = Sums()
    for entry in entries:
        sums.kinds[entry.kind] += 1
        payer = _purses(entry, charge.wallet)
        match entry.kind:
            case Kind.HOLD:
                sums.held += payer["held"]
            case Kind.CAPTURE:
                sums.captured -= payer["held"]
            case Kind.RELEASE:
                sums.released -= payer["held"]
            case Kind.REFUND:
                sums.refunded += payer["available"]
        if entry.kind in (Kind.HOLD, Kind.RELEASE) and payer["held"] + payer["available"] != Purse():
            said = "moves money between call credits and primary balance, or elsewhere"
            found.broken("I5", JOURNAL, entry.id, said)
        for leg in entry.legs:
            place = pocket_of(leg.account)
            if leg.account == escrow(call_id):
                sums.escrow += leg.amount_minor
            elif leg.account == COMMISSION:
                sums.commission += leg.amount_minor
            elif place is not None and place[0] == payee:
                if place[1] is Pocket.PENDING:
                    sums.pending += leg.amount_minor
                else:
                    sums.paid_out += leg.amount_minor
            elif place is None or place[0] != charge.wallet:
                found.broken("I9", JOURNAL, entry.id, f"moves {leg.account}, which is no part of the call")
    return sums


def _purses(entry: Entry, wallet: str) -> dict[str, Purse]:
    """What an entry adds to a wallet's available and held money."""
    amounts: Counter[Pocket] = Counter()
    for leg in entry.legs:
        place = pocket_of(leg.account)
        if place is not None and place[0] == wallet:
            amounts[place[1]] += leg.amount_minor
    return {
        "available": Purse(amounts[Pocket.CREDITS], amounts[Pocket.PRIMARY]),
        "held": Purse(amounts[Pocket.CREDITS_HELD], amounts[Pocket.PRIMARY_HELD]),
    }


def _held(call: Call, charge: Charge, sums: Sums, found: Findings) -> None:
    """Holds, captures and releases, and what the call says of them."""
    found.checked("I5")
    left = sums.held - sums.captured - sums.released
    if left != charge.held:
        found.broken("I5", CALLS, call.id, f"holds {_said(charge.held)}, its entries leave {_said(left)}")
    if min(left.credits, left.primary) < 0:
        found.broken("I5", CALLS, call.id, f"more was captured or released than held: {_said(left)} is left")
    if charge.stage is not Stage.OPEN and charge.held != Purse():
        found.broken(
            "I4", CALLS, call.id, f"holds {_said(charge.held)}, and its money is {charge.stage.value}"
        )
    if sums.captured != charge.captured:
        said = f"has captured {_said(charge.captured)}, its entries {_said(sums.captured)}"
        found.broken("I5", CALLS, call.id, said)
    if charge.stage is Stage.OPEN and tariff.cost(call) > charge.secured_minor:
        said = f"has come to {tariff.cost(call)}, and {charge.secured_minor} is held and captured"
        found.broken("I5", CALLS, call.id, said)
    # Every renewal is one number; the end is the last one.
    holds = charge.postings - (charge.stage is not Stage.OPEN)
    if sums.kinds[Kind.HOLD] != holds:
        said = f"has made {holds} reservations, {sums.kinds[Kind.HOLD]} are in the journal"
        found.broken("I9", CALLS, call.id, said)


def _settled(call: Call, charge: Charge, sums: Sums, now: datetime, found: Findings) -> None:
    """The captures of an ended call, and its escrow once it is settled."""
    found.checked("I8")
    if charge.stage is not Stage.OPEN and sums.captured.total != call.cost_minor + charge.refunded.total:
        said = f"has captured {sums.captured.total}, it costs {call.cost_minor + charge.refunded.total}"
        found.broken("I6", CALLS, call.id, said)
    if charge.stage in _SHARED:
        if sums.escrow:
            found.broken("I8", CALLS, call.id, f"is {charge.stage.value}, and {sums.escrow} is in its escrow")
        if charge.stage is Stage.SETTLED and call.money_due_at is None:
            found.broken("I8", CALLS, call.id, "is settled, and no day is set for its payee to get the money")
    elif call.ended_at is None or now - call.ended_at > SETTLED_WITHIN:
        found.broken("I8", CALLS, call.id, f"ended at {call.ended_at}, and its money is {charge.stage.value}")


def _shared(call: Call, charge: Charge, sums: Sums, found: Findings) -> None:
    """Earning, commission and refunds of a settled call."""
    found.checked("I7")

    def broken(said: str) -> None:
        found.broken("I7", CALLS, call.id, said)

    if charge.earned_minor + charge.commission_minor != call.cost_minor:
        both = f"{charge.earned_minor} earned and {charge.commission_minor} commission"
        broken(f"{both} are not its cost of {call.cost_minor}")
    elif charge.earned_minor != split(call.cost_minor, BPS - charge.share_bps)[0]:
        broken(f"{charge.earned_minor} earned of {call.cost_minor} is not the agreed share")
    if charge.refunded.total > charge.captured.total:
        broken(f"{charge.refunded.total} refunded of {charge.captured.total}")
    if sums.refunded != charge.refunded or sums.kinds[Kind.REFUND] != charge.refunds:
        said = f"{charge.refunds} refunds of {_said(charge.refunded)}"
        broken(f"{said}, the journal has {sums.kinds[Kind.REFUND]} of {_said(sums.refunded)}")
    if sums.commission != charge.commission_minor:
        broken(f"commission is {charge.commission_minor}, its entries give {sums.commission}")
    cleared = charge.stage is Stage.CLEARED
    pending, paid_out = (0, charge.earned_minor) if cleared else (charge.earned_minor, 0)
    if (sums.pending, sums.paid_out) != (pending, paid_out):
        said = f"the payee should have {pending} pending and {paid_out} paid out"
        broken(f"{said}, the entries give {sums.pending} and {sums.paid_out}")


def _said(purse: Purse) -> str:
    return f"{purse.total} ({purse.credits} call credits)" if purse.credits else str(purse.total)
