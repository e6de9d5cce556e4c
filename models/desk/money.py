"""What administrators do about people's money: frozen wallets, refunds of calls and of payments."""

from __future__ import annotations

from dataclasses import dataclass

from models.also import Also
from models.auth.stewards import Stewards, target_of
from models.calls.call import Call
from models.calls.service import Calls
from models.desk.calls import target_of as target_of_call
from models.errors import Refusal
from models.ledger.journal import Wallet
from models.ledger.service import Ledger
from models.money import AMOUNT_MAX
from models.payments.payment import Refund
from models.payments.refunds.service import Refunds
from models.trail.rules import Act, Actor, Target, checked_reason
from models.trail.service import Trail


@dataclass(frozen=True, slots=True)
class RefundedCall:
    """A call after a refund, and what went back. ``again``: it had been done before under this key."""

    call: Call
    amount_minor: int
    currency: str
    again: bool


class MoneyDesk:
    """One per process."""

    def __init__(
        self, *, people: Stewards, ledger: Ledger, calls: Calls, refunds: Refunds, trail: Trail
    ) -> None:
        self._people = people
        self._ledger = ledger
        self._calls = calls
        self._refunds = refunds
        self._trail = trail

    async def wallets(self, user_id: str) -> list[Wallet]:
        """All wallets of a person, the oldest first."""
        return await self._ledger.store.wallets_of(user_id)

    async def freeze(self, name: str, *, by: Actor, reason: str, currency: str | None = None) -> list[Wallet]:
        """Let nothing out of a person's wallets (of one, with ``currency``); they are told. Safe to repeat.

        What comes in still does, and calls that run go on. Refuses with ``USER_UNKNOWN`` and ``WALLET_UNKNOWN``.
        """
        return await self._set_frozen(name, True, by, reason, currency)

    async def unfreeze(
        self, name: str, *, by: Actor, reason: str, currency: str | None = None
    ) -> list[Wallet]:
        """Let money out of a person's wallets again; of one's own, nobody does: ``SELF_NOT_ALLOWED``.

        Refuses as ``freeze`` does.
        """
        return await self._set_frozen(name, False, by, reason, currency)

    async def _set_frozen(
        self, name: str, frozen: bool, by: Actor, reason: str, currency: str | None
    ) -> list[Wallet]:
        account = await self._people.find(name)
        if not frozen:
            _refuse_oneself(by, account.profile.user_id)
        act = Act(
            actor=by,
            act="wallet.freeze" if frozen else "wallet.unfreeze",
            target=target_of(account),
            reason=checked_reason(reason),
            details={"currency": currency or "all"},
        )
        async with self._trail.keeping(act) as note:
            return await self._ledger.freeze(
                account.profile.user_id, frozen=frozen, currency=currency, also=note.also
            )

    async def refund_call(
        self,
        call_id: str,
        *,
        by: Actor,
        reason: str,
        amount_minor: int | None = None,
        key: str | None = None,
        note: str | None = None,
    ) -> RefundedCall:
        """Give the payer back what a call cost, or a part of it; payee and platform bear it as they shared it.

        The reason is for the trail alone; ``note`` stands in the statements of both. With a ``key`` it is done once
        however often it is asked. Refuses with ``CALL_UNKNOWN``, ``CALL_WRONG_STATE`` (live, or free),
        ``REFUND_TOO_LARGE``, ``IDEMPOTENCY_MISMATCH``, ``VALIDATION_FAILED``, and of one's own call with
        ``SELF_NOT_ALLOWED``.
        """
        call, why = await self._calls.of_anybody(call_id), checked_reason(reason)
        _refuse_oneself(by, call.caller.user_id, call.callee.user_id)
        told = checked_reason(note) if note else None
        _refuse_no_amount(amount_minor)
        act = Act(actor=by, act="call.refund", target=target_of_call(call), reason=why)
        async with self._trail.keeping(act) as row:

            def also(amount: int, currency: str) -> Also:
                row.add(amount_minor=amount, currency=currency)
                return row.also

            after = await self._calls.refund(
                call_id, amount_minor=amount_minor, key=key, note=told, also=also
            )
        back = row.row.details["amount_minor"] if row.row is not None else 0
        assert isinstance(back, int)
        return RefundedCall(after, back, call.price.currency, again=not back)

    async def refund_payment(
        self,
        reference: str,
        *,
        by: Actor,
        reason: str,
        amount_minor: int | None = None,
        key: str | None = None,
    ) -> Refund:
        """Send money of a payment back to who paid it, through its gateway; a job asks the gateway.

        Refuses as ``Refunds.begin`` does, and with ``VALIDATION_FAILED``.
        """
        why = checked_reason(reason)
        _refuse_no_amount(amount_minor)
        act = Act(actor=by, act="payment.refund", target=Target("payment", reference), reason=why)
        async with self._trail.keeping(act) as note:
            return await self._refunds.begin(
                reference, amount_minor=amount_minor, reason=why, key=key, note=note
            )


def _refuse_no_amount(amount_minor: int | None) -> None:
    if amount_minor is not None and not 0 < amount_minor <= AMOUNT_MAX:
        raise Refusal("VALIDATION_FAILED", amountMinor=["An amount above nothing is expected."])


def _refuse_oneself(by: Actor, *people: str) -> None:
    """Nobody decides where the money is their own."""
    if by.user_id is not None and by.user_id in people:
        raise Refusal("SELF_NOT_ALLOWED")
