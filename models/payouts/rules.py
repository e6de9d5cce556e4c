"""Pure rules of withdrawals: what becomes of a payout by what was learned of it, and what is posted then.

``step(payout, learned, now)`` is the payout after it, or the same one when nothing is to be changed. What has
been learned is one of the classes below. Money moves with the stage and never without it (``entry``), so an entry is
there exactly when the document says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from models.ledger.journal import WITHDRAW_FEES, Entry, Kind, Leg, Pocket, account_of, clearing
from models.payments.gateway import PayoutAsk, PayoutSeen, PayoutState
from models.payouts.payout import OPEN, Payout, Reason, Stage

# Longer than a gateway may take to answer (its adapter's own bound is far below): who has a payout in hand until then
# is at it. After it the others do not wait for him, and he sends nothing any more.
LEASE = timedelta(seconds=120)
# How long a payout may wait with nothing done, before the money goes back.
GIVE_UP_AFTER = timedelta(hours=24)
# Between looks at a payout that the gateway has; the last one again and again.
LOOKS: Sequence[timedelta] = tuple(
    timedelta(seconds=seconds) for seconds in (2, 5, 15, 30, 60, 120, 300, 900, 1800, 3600)
)
# Between tries to submit when the gateway cannot be reached.
TRIES: Sequence[timedelta] = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 60, 300, 900))
# Monnify refuses the same amount to the same account within two minutes.
LATER = timedelta(seconds=150)
# When a payout that was paid is looked at again, counted from then: banks give money back days later.
SETTLED_LOOKS: Sequence[timedelta] = (timedelta(days=1), timedelta(days=7), timedelta(days=30))
# A reference that the gateway does not know so often and for so long needs a person. Nothing is submitted again.
UNKNOWN_MAX = 5
UNKNOWN_FOR = timedelta(minutes=30)
# How long after its last submission the operator may take a payout back that the gateway does not know.
VOID_AFTER = timedelta(minutes=30)
# While a person is asked for, the gateway is too.
REVIEW_LOOK = timedelta(hours=1)
NARRATION_MAX = 30
# Who changes a payout tells its owner; what has not been told by then is told by the job.
TELL_WITHIN = timedelta(seconds=10)

UNKNOWN_REVIEW = "The gateway does not know it, and it was sent: look there before it is submitted or voided."


# ------------------------------------------------------------------------------------------------------ what is learned


@dataclass(frozen=True, slots=True)
class Begun:
    """It is being submitted from now on."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """Submission ``number`` has certainly not left."""

    number: int
    said: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway has certainly not done submission ``number``. ``later``: it may do the same later."""

    number: int
    code: str
    later: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody knows what became of submission ``number``. ``said`` is for logs."""

    number: int
    said: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The gateway says how it stands."""

    payout: PayoutSeen


@dataclass(frozen=True, slots=True)
class NotKnown:
    """The gateway does not know the reference."""


@dataclass(frozen=True, slots=True)
class Away:
    """The gateway could not be asked, or may not be yet (a frozen wallet)."""

    said: str


class Order(StrEnum):
    """What an operator may decide."""

    SUBMIT = "submit"
    VOID = "void"
    APPROVE = "approve"
    REJECT = "reject"


Learned = Begun | Unsent | Refused | Lost | Seen | NotKnown | Away | Order


def step(payout: Payout, learned: Learned, now: datetime) -> Payout:
    """The payout after what was learned; the same object when that changes nothing.

    Answers to a submission that was not the last one are too old and change nothing.
    """
    after = _step(payout, learned, now)
    if after.stage in (Stage.FAILED, Stage.REVERSED) and after.look_at is not None:
        after = replace(after, look_at=None)
    if after is payout:
        return payout
    told = after.tell_at if after.status is payout.status else now + TELL_WITHIN
    return replace(after, version=payout.version + 1, tell_at=told)


def _step(payout: Payout, learned: Learned, now: datetime) -> Payout:
    if payout.stage is Stage.APPROVAL and not isinstance(learned, Order):
        return payout  # no gateway has been asked: whatever is said is not about it
    match learned:
        case Begun() if payout.stage is Stage.WAITING:
            begun = _enter(payout, Stage.SUBMITTING, now)
            return replace(begun, submissions=payout.submissions + 1, look_at=now + LEASE)
        case Unsent(number, said) if _asked(payout, number):
            return _wait(payout, said, now, after=_pause(TRIES, payout.submissions - 1))
        case Refused(number, code, later) if _asked(payout, number):
            if later and now + LATER < payout.give_up_at:
                return replace(_wait(payout, code, now, after=LATER), heard=True)
            return _failed(payout, Reason.REFUSED, code, now)
        case Lost(number, said) if _asked(payout, number):
            return replace(payout, word=said, heard=True, look_at=now + LOOKS[0])
        case Seen(seen):
            return _seen(payout, seen, now)
        case NotKnown():
            return _not_known(payout, now)
        case Away(said):
            return _away(payout, said, now)
        case Order():
            return _ordered(payout, learned, now)
        case _:
            return payout


def _asked(payout: Payout, number: int) -> bool:
    """Whether submission ``number`` is the one that is being waited for."""
    return payout.stage is Stage.SUBMITTING and payout.submissions == number


def _enter(payout: Payout, stage: Stage, now: datetime) -> Payout:
    return replace(payout, stage=stage, stage_at=now, looks=0, unknown=0)


def _wait(payout: Payout, word: str, now: datetime, *, after: timedelta) -> Payout:
    """Back to waiting, since nothing was done; given up when that has gone on for too long."""
    if now >= payout.give_up_at:
        return _failed(payout, Reason.UNAVAILABLE, word, now)
    waiting = _enter(payout, Stage.WAITING, now)
    return replace(waiting, word=word, look_at=min(now + after, payout.give_up_at))


def _failed(payout: Payout, reason: Reason, word: str, now: datetime) -> Payout:
    failed = _enter(payout, Stage.FAILED, now)
    return replace(failed, reason=reason, word=word, look_at=None, review=None)


def _seen(payout: Payout, seen: PayoutSeen, now: datetime) -> Payout:
    """What the gateway says counts, if it speaks of this payout. It never goes back from an end but by a reversal."""
    amount = payout.amount_minor if seen.amount_minor is None else seen.amount_minor
    currency = payout.currency if seen.currency is None else seen.currency
    if (seen.reference, amount, currency) != (payout.reference, payout.amount_minor, payout.currency):
        said = f"The gateway speaks of {amount} {currency} under {seen.reference}."
        return _review(payout, said, now)
    known = replace(
        payout,
        gateway_reference=seen.gateway_reference or payout.gateway_reference,
        gateway_fee_minor=payout.gateway_fee_minor if seen.fee_minor is None else seen.fee_minor,
        heard=True,
        word=seen.word or seen.state.value,
    )
    if payout.stage in OPEN:
        return _seen_open(known, seen.state, now)
    if payout.stage is Stage.PAID:
        return _seen_paid(known, seen.state, now)
    if payout.stage is Stage.FAILED and seen.state is PayoutState.PAID:
        return _review(payout, "The gateway has paid it after it had failed: the money went out twice.", now)
    return payout


def _seen_open(known: Payout, state: PayoutState, now: datetime) -> Payout:
    match state:
        case PayoutState.PAID:
            paid = _enter(known, Stage.PAID, now)
            return replace(paid, look_at=now + SETTLED_LOOKS[0], review=None)
        case PayoutState.FAILED | PayoutState.REVERSED:
            return _failed(known, Reason.FAILED, known.word, now)
        case PayoutState.OTP | PayoutState.PENDING:
            stage = Stage.OTP if state is PayoutState.OTP else Stage.PENDING
            there = known if known.stage is stage else _enter(known, stage, now)
            looked = replace(there, looks=there.looks + 1, unknown=0, review=None)
            return replace(looked, look_at=now + _pause(LOOKS, there.looks))


def _seen_paid(known: Payout, state: PayoutState, now: datetime) -> Payout:
    if state is PayoutState.REVERSED:
        return replace(_enter(known, Stage.REVERSED, now), look_at=None, review=None)
    if state is not PayoutState.PAID:
        return _review(known, f"It was paid, and the gateway says {known.word} now.", now)
    return replace(known, looks=known.looks + 1, look_at=_settled_look(known, now), review=None)


def _not_known(payout: Payout, now: datetime) -> Payout:
    """The gateway knows nothing of the reference. That is no leave to submit it again: it may be on its way."""
    if payout.stage is Stage.WAITING:
        # Only what may be known is asked for before it is submitted.
        if now >= payout.give_up_at:
            return _failed(payout, Reason.UNAVAILABLE, payout.word, now)
        return replace(payout, heard=False, look_at=now)
    if payout.stage is Stage.PAID:
        return replace(payout, looks=payout.looks + 1, look_at=_settled_look(payout, now))
    if not payout.open:
        return payout
    unknown = payout.unknown + 1
    looked = replace(_looked(payout, now), unknown=unknown)
    if payout.review is None and unknown >= UNKNOWN_MAX and now - payout.stage_at >= UNKNOWN_FOR:
        return _review(looked, UNKNOWN_REVIEW, now)
    return looked


def _away(payout: Payout, said: str, now: datetime) -> Payout:
    if payout.stage is Stage.WAITING and not payout.heard and now >= payout.give_up_at:
        return _failed(payout, Reason.UNAVAILABLE, said, now)
    if payout.stage is Stage.PAID:
        over = now - payout.stage_at > SETTLED_LOOKS[-1] + timedelta(days=1)
        return replace(payout, word=said, look_at=None if over else now + REVIEW_LOOK)
    return replace(_looked(payout, now), word=said) if payout.open else payout


def _looked(payout: Payout, now: datetime) -> Payout:
    """Nothing new of an open one: look again by and by."""
    pause = REVIEW_LOOK if payout.review is not None else _pause(LOOKS, payout.looks)
    return replace(payout, looks=payout.looks + 1, look_at=now + pause)


def _settled_look(paid: Payout, now: datetime) -> datetime | None:
    later = [paid.stage_at + after for after in SETTLED_LOOKS if paid.stage_at + after > now]
    return later[0] if later else None


def _review(payout: Payout, said: str, now: datetime) -> Payout:
    """Somebody has to look into it; an end stays what it is, and an open one is asked for all the same."""
    if payout.open:
        return replace(payout, review=said, looks=payout.looks + 1, look_at=now + REVIEW_LOOK)
    if payout.stage is Stage.PAID:
        return replace(payout, review=said, looks=payout.looks + 1, look_at=_settled_look(payout, now))
    return payout if payout.review == said else replace(payout, review=said)


def _ordered(payout: Payout, order: Order, now: datetime) -> Payout:
    """The operator's decision; the same object when it may not be."""
    if payout.stage is Stage.APPROVAL:
        if order is Order.REJECT:
            return _failed(payout, Reason.REJECTED, payout.word, now)
        if order is Order.APPROVE:
            return replace(_enter(payout, Stage.WAITING, now), look_at=now, give_up_at=now + GIVE_UP_AFTER)
        return payout
    if order in (Order.APPROVE, Order.REJECT):
        return payout
    if order is Order.VOID:
        if payout.stage is Stage.PAID and payout.review is not None:
            return replace(_enter(payout, Stage.REVERSED, now), look_at=None, review=None)
        return _failed(payout, Reason.CANCELLED, payout.word, now) if may_void(payout, now) else payout
    if payout.stage is Stage.WAITING:
        return replace(payout, look_at=now)
    if not may_submit(payout, now):
        return payout
    waiting = _enter(payout, Stage.WAITING, now)
    return replace(waiting, heard=True, review=None, look_at=now, give_up_at=now + GIVE_UP_AFTER)


def may_void(payout: Payout, now: datetime) -> bool:
    """Whether the operator may take an open payout back: nothing was sent, or what was sent is not known there.

    ``NotKnown`` is to be learned just before.
    """
    return payout.stage is Stage.WAITING or may_submit(payout, now)


def may_submit(payout: Payout, now: datetime) -> bool:
    """Whether the operator may have it submitted again: the gateway has not known it for long enough."""
    lost = payout.stage in (Stage.SUBMITTING, Stage.PENDING, Stage.OTP) and payout.unknown > 0
    return lost and now - payout.stage_at >= VOID_AFTER


def _pause(pauses: Sequence[timedelta], number: int) -> timedelta:
    return pauses[min(number, len(pauses) - 1)]


# --------------------------------------------------------------------------------------------------------------- money


# The entry that comes with a change of the stage; none: the money stays where it is.
_POSTS: Mapping[tuple[bool, Stage], Kind] = {
    (True, Stage.PAID): Kind.WITHDRAWAL,
    (True, Stage.FAILED): Kind.WITHDRAW_VOID,
    (False, Stage.REVERSED): Kind.WITHDRAW_RETURN,
}
_MARKS = {
    Kind.WITHDRAW_HOLD: "hold",
    Kind.WITHDRAWAL: "ok",
    Kind.WITHDRAW_VOID: "void",
    Kind.WITHDRAW_RETURN: "rev",
}
KINDS = tuple(_MARKS)
# What is in the journal of a payout, by where it is.
POSTED: Mapping[Stage, tuple[Kind, ...]] = {
    **dict.fromkeys(OPEN, (Kind.WITHDRAW_HOLD,)),
    Stage.PAID: (Kind.WITHDRAW_HOLD, Kind.WITHDRAWAL),
    Stage.FAILED: (Kind.WITHDRAW_HOLD, Kind.WITHDRAW_VOID),
    Stage.REVERSED: (Kind.WITHDRAW_HOLD, Kind.WITHDRAWAL, Kind.WITHDRAW_RETURN),
}


def entry_of(before: Payout, after: Payout, now: datetime) -> Entry | None:
    """What a change posts."""
    if before.stage is after.stage:
        return None
    kind = _POSTS.get((before.open, after.stage))
    return entry(after, kind, now) if kind else None


def entry_id(payout_id: str, kind: Kind) -> str:
    """The idempotency key of one of a payout's entries."""
    return f"wd:{payout_id}:{_MARKS[kind]}"


def entry(payout: Payout, kind: Kind, now: datetime) -> Entry:
    """One of a payout's entries."""
    return Entry(
        id=entry_id(payout.id, kind),
        kind=kind,
        at=now,
        legs=legs(payout, kind),
        note=f"{payout.to.bank_name} {payout.to.last4}",
    )


def legs(payout: Payout, kind: Kind) -> tuple[Leg, ...]:
    """What an entry moves: into what is held, from there to the gateway and the platform, or back."""
    primary, held = (account_of(payout.wallet, one) for one in (Pocket.PRIMARY, Pocket.PRIMARY_HELD))
    taken, currency = payout.held_minor, payout.currency
    out = [(clearing(payout.gateway), payout.amount_minor), (WITHDRAW_FEES, payout.fee_minor)]
    match kind:
        case Kind.WITHDRAW_HOLD:
            moves = [(primary, -taken), (held, taken)]
        case Kind.WITHDRAWAL:
            moves = [(held, -taken), *out]
        case Kind.WITHDRAW_VOID:
            moves = [(held, -taken), (primary, taken)]
        case _:
            moves = [*((account, -amount) for account, amount in out), (primary, taken)]
    return tuple(Leg(account, amount, currency) for account, amount in moves if amount)


def ask(payout: Payout) -> PayoutAsk:
    """What the gateway is asked for."""
    return PayoutAsk(
        reference=payout.reference,
        amount_minor=payout.amount_minor,
        currency=payout.currency,
        to=payout.to.for_gateway(),
        narration=f"Withdrawal {payout.id[-12:]}"[:NARRATION_MAX],
    )
