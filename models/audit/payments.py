"""I11 for one payment: its entries are those that it says, and move what it says."""

from __future__ import annotations

from collections.abc import Sequence

from models.audit.report import Findings
from models.ledger.journal import Entry, Kind, Pocket, account_of, clearing, wallet_key
from models.payments.payment import WALLET, Payment, Status
from models.payments.rules import credit_id, reversal_id
from models.payments.store import PAYMENTS
from models.wallet.rules import PAID_INTO

# What moves money of a payment.
KINDS = frozenset((Kind.DEPOSIT, Kind.REVERSAL, Kind.CREDITS))


def judge(payment: Payment, entries: Sequence[Entry], found: Findings) -> None:
    """Check one payment against its entries."""
    found.checked("I11")
    wrong = _of_wallet(payment, entries) if payment.gateway == WALLET else _of_gateway(payment, entries)
    for said in wrong:
        found.broken("I11", PAYMENTS, payment.id, said)


def _of_wallet(payment: Payment, entries: Sequence[Entry]) -> list[str]:
    """Call credits for money of one's own."""
    key, amount = wallet_key(payment.user_id, payment.currency), payment.amount_minor
    legs = [{leg.account: leg.amount_minor for leg in entry.legs} for entry in entries]
    right = [{account_of(key, Pocket.PRIMARY): -amount, account_of(key, Pocket.CREDITS): amount}]
    if legs != right or payment.paid_minor != amount:
        return [f"of {amount} {payment.currency} is not what its entry moves"]
    return []


def _of_gateway(payment: Payment, entries: Sequence[Entry]) -> list[str]:
    wrong: list[str] = []
    names = {entry.id for entry in entries}
    credits = [credit_id(payment, number + 1) for number in range(payment.credits)]
    reversals = [reversal_id(payment, number + 1) for number in range(payment.reversals)]
    voids = [f"{name}:void" for name in reversals]
    missing = [name for name in (*credits, *reversals) if name not in names]
    strange = names - {*credits, *reversals, *voids}
    wrong += [f"was credited or taken back, and {name} is not in the journal" for name in missing]
    wrong += [f"does not know of {name}" for name in sorted(strange)]
    paid = sum(_collected(payment, entry) for entry in entries if entry.kind is Kind.DEPOSIT)
    back = -sum(_collected(payment, entry) for entry in entries if entry.kind is Kind.REVERSAL)
    if (paid, back) != (payment.paid_minor, payment.reversed_minor):
        said = f"says that {payment.paid_minor} was credited and {payment.reversed_minor} taken back"
        wrong.append(f"{said}, its entries say {paid} and {back}")
    wrong += [f"has {entry.id}, which moves another's money" for entry in entries if _foreign(payment, entry)]
    if (payment.status in (Status.COMPLETED, Status.REVERSED)) != (payment.paid_minor > 0):
        wrong.append(f"is {payment.status.value}, and {payment.paid_minor} was credited")
    if sum(one.paid_minor for one in payment.asked) != payment.paid_minor:
        wrong.append("does not know by which checkout it was paid")
    return wrong


def _collected(payment: Payment, entry: Entry) -> int:
    account = clearing(payment.gateway)
    return -sum(leg.amount_minor for leg in entry.legs if leg.account == account)


def _foreign(payment: Payment, entry: Entry) -> bool:
    """Whether an entry moves anything but between the gateway and the wallet that was paid into."""
    key, place = wallet_key(payment.user_id, payment.currency), clearing(payment.gateway)
    if entry.kind is Kind.DEPOSIT:
        own = {place, account_of(key, PAID_INTO[payment.into])}
    else:
        own = {place, *(account_of(key, pocket) for pocket in (*PAID_INTO.values(), Pocket.OWED))}
    return any(leg.account not in own or leg.currency != payment.currency for leg in entry.legs)
