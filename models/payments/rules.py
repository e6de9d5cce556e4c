"""Pure rules of payments: what follows from what a gateway says, what it posts, and when to ask again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from models.ledger.journal import Entry, Kind, Leg, Pocket, Wallet, account_of, clearing
from models.money import AMOUNT_MAX, spoken
from models.payments.gateway import Opened, PaymentSeen, PayState
from models.payments.payment import WALLET, Asked, Payment, Status
from models.wallet.rules import PAID_INTO

# A gateway is asked after this many seconds, the last of them again and again, while a payment may still come.
BACK_OFF_SECONDS = (60, 120, 300, 900, 3600)
# After that what was not paid is given up; a notification still brings it back, and so does a look after these days.
OPEN_HOURS = 72
LATE_DAYS = (7, 30)
# When a completed payment is looked at again for money that went back.
AFTER_DAYS = (1, 7, 30)
# A checkout whose answer was lost is opened again under another reference, so many times.
CHECKOUTS_MAX = 5
# Who opens a checkout has so long; longer than any gateway's adapter waits.
OPENING_SECONDS = 30
# A client that asks how a payment stands makes us ask the gateway, at most this often for each payment.
VERIFY_SECONDS = 3
# A notification that came before the gateway itself says so: asked again after this.
ECHO_SECONDS = 30


def reference_of(user_id: str, key: str) -> str:
    """What a payment is called outside: a retry with the same key is the same payment."""
    return f"pay-{hashlib.sha256(f'{user_id} {key}'.encode()).hexdigest()[:24]}"


def another(payment: Payment) -> Asked:
    """The next checkout of a payment."""
    return Asked(reference=f"{payment.reference}-{len(payment.asked) + 1}")


def refused(payment: Payment, *, word: str) -> Payment:
    """A payment whose checkout the gateway did not open."""
    failed = payment.status is Status.PENDING and not payment.paid_minor
    return replace(payment, status=Status.FAILED if failed else payment.status, word=word)


def opened(payment: Payment, *, asked: Asked, at: Opened) -> Payment:
    """A payment whose checkout is open, whatever has become of it meanwhile."""
    known = tuple(
        replace(one, gateway_reference=at.gateway_reference or one.gateway_reference)
        if one.reference == asked.reference
        else one
        for one in payment.asked
    )
    return replace(payment, asked=known, checkout_url=at.checkout_url)


# ------------------------------------------------------------------------------------------- what a gateway has said


@dataclass(frozen=True, slots=True)
class Step:
    """A payment after what was seen, and what has to be posted for it: credited, and taken back.

    ``punish``: what was credited earlier is taken back, so nothing more may leave the wallet until somebody looked.
    """

    payment: Payment
    credit_minor: int = 0
    reverse_minor: int = 0

    @property
    def punish(self) -> bool:
        """Whether the wallet is to be frozen."""
        return self.reverse_minor > self.credit_minor


def step(payment: Payment, seen: Mapping[str, PaymentSeen], now: datetime) -> Step:
    """What follows for a payment from how its checkouts stand at the gateway.

    Money is only ever added to what is known: what a gateway says late, twice or in another order changes nothing.
    An amount in another currency than the payment's counts as nothing and asks for a person.
    """
    credit = reverse = 0
    asked: list[Asked] = []
    review, changed = payment.review, payment
    for one in payment.asked:
        found = seen.get(one.reference)
        if found is None:
            asked.append(one)
            continue
        one = replace(one, gateway_reference=found.gateway_reference or one.gateway_reference)
        paid, gone = _paid(found)
        if found.currency != payment.currency:
            if paid:
                review = f"paid in {found.currency}: {spoken(paid, found.currency)}"
            asked.append(one)
            continue
        if paid > AMOUNT_MAX:
            review = "the gateway says that more was paid than there is"
            asked.append(one)
            continue
        more = max(0, paid - one.paid_minor)
        back = max(0, min(gone, one.paid_minor + more) - one.reversed_minor)
        asked.append(replace(one, paid_minor=one.paid_minor + more, reversed_minor=one.reversed_minor + back))
        credit, reverse = credit + more, reverse + back
        changed = replace(
            changed,
            fee_minor=found.fee_minor if found.fee_minor is not None else changed.fee_minor,
            card=found.card or changed.card,
            word=found.word or changed.word,
        )
    changed = replace(
        changed,
        asked=tuple(asked),
        paid_minor=payment.paid_minor + credit,
        reversed_minor=payment.reversed_minor + reverse,
        credits=payment.credits + (credit > 0),
        reversals=payment.reversals + (reverse > 0),
        review=review,
    )
    changed = replace(changed, status=_status(changed, seen.values()))
    if changed.paid_minor and changed.completed_at is None:
        changed = replace(changed, completed_at=now)
    return Step(changed, credit, reverse)


def _paid(seen: PaymentSeen) -> tuple[int, int]:
    """What was paid and what of it went back. A reversal without an amount is one of everything."""
    paid = max(0, seen.paid_minor) if seen.state in (PayState.PAID, PayState.REVERSED) else 0
    gone = max(0, seen.reversed_minor)
    if seen.state is PayState.REVERSED and not gone:
        gone = AMOUNT_MAX
    return paid, gone


def _status(payment: Payment, seen: Iterable[PaymentSeen]) -> Status:
    if payment.paid_minor:
        return settled(payment)
    states = [one.state for one in seen if one.currency == payment.currency]
    if payment.status is not Status.PENDING or not states or PayState.PENDING in states:
        return payment.status
    if PayState.FAILED in states:
        return Status.FAILED
    if PayState.CANCELLED in states:
        return Status.CANCELLED
    return payment.status


def settled(payment: Payment) -> Status:
    """The status of a payment that was paid: reversed once all of it has really gone back."""
    gone = payment.reversed_minor - payment.refunding_minor
    return Status.REVERSED if gone >= payment.paid_minor else Status.COMPLETED


# ----------------------------------------------------------------------------------------------------------- entries


def credit_id(payment: Payment, number: int) -> str:
    """The idempotency key of the ``number``-th credit of a payment, from 1."""
    first = f"pay:{payment.gateway}:{payment.reference}"
    return first if number == 1 else f"{first}:{number}"


def reversal_id(payment: Payment, number: int) -> str:
    """The idempotency key of the ``number``-th time that money of a payment is taken back, from 1."""
    return f"rev:{payment.gateway}:{payment.reference}:{number}"


def credit(wallet: Wallet, payment: Payment, *, number: int, amount_minor: int, now: datetime) -> Entry:
    """Money that a gateway has collected, into the account that it was paid for."""
    return Entry(
        id=credit_id(payment, number),
        kind=Kind.DEPOSIT,
        at=now,
        legs=(
            Leg(clearing(payment.gateway), -amount_minor, wallet.currency),
            Leg(account_of(wallet.key, PAID_INTO[payment.into]), amount_minor, wallet.currency),
        ),
        payment_id=payment.id,
    )


def reversal(
    wallet: Wallet,
    payment: Payment,
    *,
    number: int,
    amount_minor: int,
    now: datetime,
    more: int = 0,
    owing: bool = True,
) -> Entry:
    """Money that goes back to who paid: from the account it went into, then the other; the rest is owed.

    ``more``: what an entry just before this one adds to the account that was paid into. Not ``owing``: what is not
    there is taken from that account nevertheless, and the ledger refuses.
    """
    into = PAID_INTO[payment.into]
    other = next(pocket for pocket in PAID_INTO.values() if pocket is not into)
    rest = amount_minor
    taken: dict[Pocket, int] = {}
    for pocket, there in ((into, wallet.balance(into) + more), (other, wallet.balance(other))):
        taken[pocket] = min(rest, there)
        rest -= taken[pocket]
    taken[Pocket.OWED if owing else into] = taken.get(Pocket.OWED if owing else into, 0) + rest
    legs = tuple(
        Leg(account_of(wallet.key, pocket), -amount, wallet.currency)
        for pocket, amount in taken.items()
        if amount
    )
    return Entry(
        id=reversal_id(payment, number),
        kind=Kind.REVERSAL,
        at=now,
        legs=(*legs, Leg(clearing(payment.gateway), amount_minor, wallet.currency)),
        payment_id=payment.id,
    )


def given_back(taken: Entry, now: datetime) -> Entry:
    """The other way round of what a refund took that was not done."""
    legs = tuple(Leg(leg.account, -leg.amount_minor, leg.currency) for leg in taken.legs)
    return Entry(id=f"{taken.id}:void", kind=Kind.REVERSAL, at=now, legs=legs, payment_id=taken.payment_id)


def bought(wallet: Wallet, payment: Payment, *, key: str, now: datetime) -> Entry:
    """Call credits for money of one's own primary balance."""
    return Entry(
        id=f"cr:{payment.user_id}:{key}",
        kind=Kind.CREDITS,
        at=now,
        legs=(
            Leg(account_of(wallet.key, Pocket.PRIMARY), -payment.amount_minor, wallet.currency),
            Leg(account_of(wallet.key, Pocket.CREDITS), payment.amount_minor, wallet.currency),
        ),
        payment_id=payment.id,
    )


# ------------------------------------------------------------------------------------------------- when to ask again


def back_off(tries: int) -> timedelta:
    """How long to wait after so many times of asking."""
    return timedelta(seconds=BACK_OFF_SECONDS[min(tries, len(BACK_OFF_SECONDS) - 1)])


def next_look(payment: Payment, tries: int, now: datetime) -> datetime | None:
    """When the gateway is asked again on our own account; None: never.

    What was not paid, or not in full, is asked for until it is ``OPEN_HOURS`` old and once more after ``LATE_DAYS``;
    what was paid again after ``AFTER_DAYS``, since it may be taken back.
    """
    if payment.gateway == WALLET:
        return None
    looks = []
    if payment.paid_minor < payment.amount_minor:
        over = payment.created_at + timedelta(hours=OPEN_HOURS)
        late = [payment.created_at + timedelta(days=days) for days in LATE_DAYS]
        looks += [min(now + back_off(tries), over)] if now < over else [at for at in late if at > now][:1]
    if payment.paid_minor > payment.reversed_minor and payment.completed_at is not None:
        after = [payment.completed_at + timedelta(days=days) for days in AFTER_DAYS]
        looks += [at for at in after if at > now][:1]
    return min(looks, default=None)


def given_up(payment: Payment, now: datetime) -> bool:
    """Whether a payment that was never paid is too old to wait for."""
    return payment.status is Status.PENDING and now >= payment.created_at + timedelta(hours=OPEN_HOURS)
