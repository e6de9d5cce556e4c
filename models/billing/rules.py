"""How a call's money moves: how much is reserved and when, and the entries that say so. Pure.

Reservation. What is held is always the exact price of some number of whole blocks. It reaches two periods ahead of
what has been talked, and is renewed when one period is left, so a renewal may fail for a whole period before anybody
notices. A period is 60 s; with a fuller wallet it grows, to spare transactions. Near the end of the money all that
buys another block is held, and the end of the grant is the end of the call (the final unit of RFC 8506 §5.6).

Postings (credit positive, see ``models/ledger``; every id is an idempotency key):

    hold      call:{c}:h:{n}     available → held                    reserve, renew
    call      call:{c}:cap:{n}   held → escrow                       what was used (back, if too much)
    release   call:{c}:rel       held → available                    what was not
    settle    call:{c}:settle    escrow → payee's pending, commission
    earning   call:{c}:clear     pending → available (first of all, what the payee owes)
    refund    call:{c}:refund:…  payee and commission → payer        by the shares of the whole
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from models.calls import tariff
from models.calls.call import Call, Charge, Purse, Stage
from models.calls.deadlines import EARLY_PART
from models.ledger.journal import COMMISSION, Entry, Kind, Leg, Pocket, Wallet, account_of, escrow
from models.money import split

# How far a renewal reaches, by how much conversation the wallet can still pay: the first whose bound is reached.
PERIODS_MS = ((3_000_000, 300_000), (1_200_000, 120_000), (0, 60_000))
# A last look into the wallet this long before the end of the money; a payment in between asks for one by itself.
LAST_LOOK_MS = 3_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The money of a call after a reservation, and the entries that make it so."""

    charge: Charge
    entries: tuple[Entry, ...]


def cheapest(call: Call, now: datetime) -> int:
    """What it takes to go on for another second, in minor units; at least one.

    At a very low rate a second is rounded to nothing, and still a call that is not free takes a wallet.
    """
    talked = call.talk_ms(now) - tariff.earlier_ms(call)
    return max(1, tariff.cost_of(call.price, talked + 1000) - tariff.cost_of(call.price, talked))


def left(call: Call, wallet: Wallet, now: datetime) -> int:
    """What there is for going on: all that can be spent, and what is reserved for the call and not used yet."""
    secured = call.charge.secured_minor if call.charge is not None else 0
    return wallet.spendable + secured - tariff.cost(call, now)


def reserve(call: Call, wallet: Wallet, now: datetime, *, early: bool = False) -> Plan:
    """Capture what was used and hold what the next periods cost, as far as the wallet goes. May change nothing.

    ``early``: also when a little more than a period is left, so that many need not be renewed at once.
    """
    charge = call.charge
    assert charge is not None
    assert charge.stage is Stage.OPEN, "a live call"
    talked, spent = call.talk_ms(now), tariff.cost(call, now)
    # Less has been talked than was captured when a leg turned out to have been silent before a renewal.
    capture = max(0, spent - charge.captured.total)
    spendable = 0 if wallet.frozen else wallet.spendable
    reach = tariff.reach_ms(call, charge.secured_minor + spendable)
    if reach is None:
        hold, granted, lead = 0, None, 0
    else:
        period = next(ms for bound, ms in PERIODS_MS if reach - talked >= bound or not bound)
        ahead = (tariff.reach_ms(call, charge.secured_minor) or 0) - talked
        wanted = min(reach, talked + 2 * period)
        # While more than a period is left nothing is due; somebody only asked whether more is there.
        due = ahead <= period + (period // EARLY_PART if early else 0)
        hold = max(0, _price_up_to(call, wanted) - charge.secured_minor) if due else 0
        granted = tariff.reach_ms(call, charge.secured_minor + hold)
        assert granted is not None
        lead = period if granted < reach else LAST_LOOK_MS if granted - talked > LAST_LOOK_MS else 0
    if not hold:
        # With nothing to reserve a capture would be a transaction for its own sake: the end does it as well.
        same = replace(charge, granted_ms=granted, reach_ms=reach, lead_ms=lead)
        return Plan(same, ())
    captured = _taken(charge.held, capture)
    held = _reserved(wallet, hold)
    number = charge.postings
    entries = []
    if capture:
        entries.append(_capture(call, captured, number, now))
    entries.append(_hold(call, held, number, now))
    after = replace(
        charge,
        held=charge.held - captured + held,
        captured=charge.captured + captured,
        granted_ms=granted,
        reach_ms=reach,
        lead_ms=lead,
        postings=number + 1,
    )
    return Plan(after, tuple(entries))


def capture(call: Call) -> Plan:
    """The end: capture the rest of the price, give back the rest of what was held.

    The rest is negative when a renewal has captured conversation that was not proven in the end (a phone that had been
    silent for a while was given up): that much returns from the escrow to what is held, and is released with it.
    """
    charge, at = call.charge, call.ended_at
    assert charge is not None
    assert at is not None
    rest = _rest(charge, call.cost_minor)
    left = charge.held - rest
    entries = []
    if rest.total:
        entries.append(_capture(call, rest, charge.postings, at))
    if left.total:
        legs = _move(call, charge.wallet, left, _HELD, _AVAILABLE)
        entries.append(Entry(id=f"call:{call.id}:rel", kind=Kind.RELEASE, at=at, legs=legs, call_id=call.id))
    after = replace(
        charge,
        held=Purse(),
        captured=charge.captured + rest,
        postings=charge.postings + 1,
        stage=Stage.CAPTURED if call.cost_minor else Stage.CLEARED,
    )
    return Plan(after, tuple(entries))


def settle(call: Call, payee: str) -> Plan:
    """Share the price between the payee's pending earnings (``payee`` is the wallet's key) and the platform."""
    charge, at = call.charge, call.ended_at
    assert charge is not None
    assert at is not None
    commission, earned = _shares(call.cost_minor, charge.share_bps)
    legs = [Leg(escrow(call.id), -call.cost_minor, call.price.currency)]
    if earned:
        legs.append(Leg(account_of(payee, Pocket.PENDING), earned, call.price.currency))
    if commission:
        legs.append(Leg(COMMISSION, commission, call.price.currency))
    entry = Entry(
        id=f"call:{call.id}:settle",
        kind=Kind.SETTLE,
        at=at,
        legs=tuple(legs),
        call_id=call.id,
        counterparties={payee: call.caller.user_id},
    )
    after = replace(charge, stage=Stage.SETTLED, earned_minor=earned, commission_minor=commission)
    return Plan(after, (entry,))


def clear(call: Call, payee: Wallet, now: datetime) -> Plan:
    """The dispute window is over: what was earned is the payee's to spend, but for what the payee owes."""
    charge = call.charge
    assert charge is not None
    after = replace(charge, stage=Stage.CLEARED)
    if not charge.earned_minor:
        return Plan(after, ())
    repaid = min(payee.owed, charge.earned_minor)
    legs = [Leg(account_of(payee.key, Pocket.PENDING), -charge.earned_minor, payee.currency)]
    if charge.earned_minor > repaid:
        primary = account_of(payee.key, Pocket.PRIMARY)
        legs.append(Leg(primary, charge.earned_minor - repaid, payee.currency))
    if repaid:
        legs.append(Leg(account_of(payee.key, Pocket.OWED), repaid, payee.currency))
    entry = Entry(
        id=f"call:{call.id}:clear",
        kind=Kind.CLEAR,
        at=now,
        legs=tuple(legs),
        call_id=call.id,
        counterparties={payee.key: call.caller.user_id},
    )
    return Plan(after, (entry,))


def refund(
    call: Call, amount_minor: int, payee: Wallet | None, *, key: str, note: str | None, now: datetime
) -> Plan:
    """Give ``amount_minor`` of a settled call back.

    The shares are computed anew on what is left of the price, so that refunds in parts come to the same as one. What
    the payee has been paid out already is owed by the payee and kept back from the next earnings. It returns to where
    it came from, the primary balance first, because call credits were spent first.
    """
    charge = call.charge
    assert charge is not None
    commission, earned = _shares(call.cost_minor - amount_minor, charge.share_bps)
    from_payee, from_platform = charge.earned_minor - earned, charge.commission_minor - commission
    legs = []
    if from_payee:
        assert payee is not None
        legs += _back_from(payee, from_payee, cleared=charge.stage is Stage.CLEARED)
    if from_platform:
        legs.append(Leg(COMMISSION, -from_platform, call.price.currency))
    primary = min(amount_minor, charge.captured.primary - charge.refunded.primary)
    back = Purse(amount_minor - primary, primary)
    legs += _legs(charge.wallet, back, _AVAILABLE, 1, call.price.currency)
    entry = Entry(
        id=f"call:{call.id}:refund:{key}",
        kind=Kind.REFUND,
        at=now,
        legs=tuple(legs),
        call_id=call.id,
        counterparties={
            charge.wallet: call.callee.user_id,
            **({payee.key: call.caller.user_id} if payee is not None and from_payee else {}),
        },
        note=note,
    )
    after = replace(
        charge,
        earned_minor=earned,
        commission_minor=commission,
        refunded=charge.refunded + back,
        refunds=charge.refunds + 1,
    )
    return Plan(after, (entry,))


def refunded(call: Call, entry: Entry) -> int:
    """What a refund's entry gave back to the payer."""
    assert call.charge is not None
    theirs = {account_of(call.charge.wallet, pocket) for pocket in _AVAILABLE}
    return sum(leg.amount_minor for leg in entry.legs if leg.account in theirs)


# --------------------------------------------------------------------------------------------------- small pieces

_AVAILABLE = (Pocket.CREDITS, Pocket.PRIMARY)
_HELD = (Pocket.CREDITS_HELD, Pocket.PRIMARY_HELD)


def _shares(cost_minor: int, share_bps: int) -> tuple[int, int]:
    """(commission, earned). The payee's share is rounded down, as the platform's rounding error is not theirs."""
    earned, commission = split(cost_minor, 10_000 - share_bps)
    return commission, earned


def _price_up_to(call: Call, talk_ms: int) -> int:
    """What the whole call costs when it has come to ``talk_ms``."""
    return tariff.earlier_cost(call) + tariff.cost_of(call.price, talk_ms - tariff.earlier_ms(call))


def _taken(held: Purse, amount_minor: int) -> Purse:
    """Out of what is held, call credits first."""
    assert 0 <= amount_minor <= held.total, "no more is captured than was held"
    credits = min(held.credits, amount_minor)
    return Purse(credits, amount_minor - credits)


def _rest(charge: Charge, cost_minor: int) -> Purse:
    """What is still to be captured of the price; what was captured too much is negative, the primary balance first."""
    if cost_minor >= charge.captured.total:
        return _taken(charge.held, cost_minor - charge.captured.total)
    over = charge.captured.total - cost_minor
    primary = min(over, charge.captured.primary)
    return Purse(primary - over, -primary)


def _reserved(wallet: Wallet, amount_minor: int) -> Purse:
    """Out of what is available, call credits first."""
    assert 0 <= amount_minor <= wallet.spendable, "no more is held than is there"
    credits = min(wallet.credits, amount_minor)
    return Purse(credits, amount_minor - credits)


def _legs(
    wallet: str, purse: Purse, pockets: tuple[Pocket, Pocket], sign: int, currency: str
) -> tuple[Leg, ...]:
    parts = zip(pockets, (purse.credits, purse.primary), strict=True)
    return tuple(
        Leg(account_of(wallet, pocket), sign * amount, currency) for pocket, amount in parts if amount
    )


def _move(
    call: Call, wallet: str, purse: Purse, out_of: tuple[Pocket, Pocket], into: tuple[Pocket, Pocket]
) -> tuple[Leg, ...]:
    currency = call.price.currency
    return _legs(wallet, purse, out_of, -1, currency) + _legs(wallet, purse, into, 1, currency)


def _hold(call: Call, purse: Purse, number: int, at: datetime) -> Entry:
    assert call.charge is not None
    legs = _move(call, call.charge.wallet, purse, _AVAILABLE, _HELD)
    return Entry(id=f"call:{call.id}:h:{number}", kind=Kind.HOLD, at=at, legs=legs, call_id=call.id)


def _capture(call: Call, purse: Purse, number: int, at: datetime) -> Entry:
    assert call.charge is not None
    wallet, currency = call.charge.wallet, call.price.currency
    legs = (*_legs(wallet, purse, _HELD, -1, currency), Leg(escrow(call.id), purse.total, currency))
    return Entry(
        id=f"call:{call.id}:cap:{number}",
        kind=Kind.CAPTURE,
        at=at,
        legs=legs,
        call_id=call.id,
        counterparties={wallet: call.callee.user_id},
    )


def _back_from(payee: Wallet, amount_minor: int, *, cleared: bool) -> list[Leg]:
    if not cleared:
        return [Leg(account_of(payee.key, Pocket.PENDING), -amount_minor, payee.currency)]
    there = min(payee.primary, amount_minor)
    legs = [Leg(account_of(payee.key, Pocket.PRIMARY), -there, payee.currency)] if there else []
    if amount_minor > there:
        legs.append(Leg(account_of(payee.key, Pocket.OWED), there - amount_minor, payee.currency))
    return legs
