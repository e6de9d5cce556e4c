"""Bank accounts. Whose an account is, the bank says, before it is kept.

accounts = BankAccounts(store=BankAccountStore(db), gateways={…}, preferred="monnify", clock=clock, ids=ids)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from models.db import Session
from models.errors import Refusal
from models.payments.gateway import Bank, BankAccount, Gateway, GatewayAway, GatewayNo
from models.payouts.accounts.store import BankAccountStore, SavedAccount
from models.ports import Clock, Ids
from models.wallet.rules import checked_currency

log = structlog.get_logger(__name__)

# More accounts than one person has, and few enough that nobody tries numbers with it.
ACCOUNTS_MAX = 10
# Banks come and go rarely; the list is long, and asked for by every form.
BANKS_KEPT = timedelta(hours=1)

_NUMBER = re.compile(r"[0-9A-Z]{4,34}")


@dataclass(frozen=True, slots=True)
class _Banks:
    banks: tuple[Bank, ...]
    until: datetime


class BankAccounts:
    """One per process."""

    def __init__(
        self,
        *,
        store: BankAccountStore,
        gateways: Mapping[str, Gateway],
        preferred: str | None,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._gateways = gateways
        self._preferred = preferred
        self._clock = clock
        self._ids = ids
        self._banks: dict[tuple[str, str], _Banks] = {}

    def gateway_for(self, currency: str) -> Gateway:
        """The gateway that pays out in a currency: the preferred one, else the first. ``GATEWAY_UNAVAILABLE``."""
        for name in (self._preferred or "", *self._gateways):
            gateway = self._gateways.get(name)
            if gateway is not None and currency in gateway.terms.payouts:
                return gateway
        raise Refusal("GATEWAY_UNAVAILABLE", currency=currency)

    async def banks(self, currency: str) -> tuple[Bank, ...]:
        """The banks that can be paid to in a currency, by name.

        Refuses with ``GATEWAY_UNAVAILABLE``, ``GATEWAY_AWAY``, ``GATEWAY_REFUSED`` and ``VALIDATION_FAILED``.
        """
        gateway = self.gateway_for(checked_currency(currency))
        return await self._banks_of(gateway, currency)

    async def _banks_of(self, gateway: Gateway, currency: str) -> tuple[Bank, ...]:
        kept, now = self._banks.get((gateway.name, currency)), self._clock.now()
        if kept is not None and now < kept.until:
            return kept.banks
        try:
            found = await gateway.banks(currency)
        except GatewayAway as away:
            if kept is not None:
                return kept.banks
            raise _away(gateway, away) from away
        except GatewayNo as no:
            raise _refused(gateway, no) from no
        banks = tuple(sorted(found, key=lambda bank: (bank.name.casefold(), bank.code)))
        self._banks[gateway.name, currency] = _Banks(banks, now + BANKS_KEPT)
        return banks

    async def add(self, user_id: str, *, currency: str, bank_code: str, account_number: str) -> SavedAccount:
        """Keep an account of this user, under the name that the bank says.

        Refuses with ``BANK_ACCOUNT_REFUSED`` (the bank knows none of this number), ``BANK_ACCOUNT_EXISTS``
        (``bankAccountId``), ``VALIDATION_FAILED``, ``GATEWAY_UNAVAILABLE``, ``GATEWAY_AWAY``, ``GATEWAY_REFUSED``.
        """
        currency = checked_currency(currency)
        number = checked_number(account_number)
        gateway = self.gateway_for(currency)
        mine = await self._store.of_user(user_id)
        for one in mine:
            if (one.currency, one.bank_code, one.account_number) == (currency, bank_code, number):
                raise Refusal("BANK_ACCOUNT_EXISTS", bankAccountId=one.id)
        if len(mine) >= ACCOUNTS_MAX:
            raise Refusal("VALIDATION_FAILED", accountNumber=[f"At most {ACCOUNTS_MAX} bank accounts."])
        banks = {bank.code: bank for bank in await self._banks_of(gateway, currency)}
        if bank_code not in banks:
            raise Refusal("VALIDATION_FAILED", bankCode=["Not a bank of GET /api/wallet/banks."])
        try:
            name = await gateway.account_name(
                BankAccount(bank_code=bank_code, account_number=number), currency
            )
        except GatewayAway as away:
            raise _away(gateway, away) from away
        except GatewayNo as no:
            raise _refused(gateway, no) from no
        if not name:
            raise Refusal("BANK_ACCOUNT_REFUSED")
        account = SavedAccount(
            id=self._ids.new(),
            user_id=user_id,
            currency=currency,
            gateway=gateway.name,
            bank_code=bank_code,
            bank_name=banks[bank_code].name,
            account_number=number,
            account_name=name,
            created_at=self._clock.now(),
        )
        if not await self._store.add(account):  # another request of theirs was first
            raise Refusal("BANK_ACCOUNT_EXISTS")
        return account

    async def of_user(self, user_id: str) -> list[SavedAccount]:
        """A user's accounts, the oldest first."""
        return await self._store.of_user(user_id)

    async def find(self, user_id: str, account_id: str) -> SavedAccount:
        """One of one's own. ``BANK_ACCOUNT_UNKNOWN`` also when it is another's."""
        found = await self._store.find(account_id)
        if found is None or found.user_id != user_id:
            raise Refusal("BANK_ACCOUNT_UNKNOWN")
        return found

    async def turn(self, user_id: str, session: Session) -> None:
        """Of several transactions of one user only one gets through at once. ``BANK_ACCOUNT_UNKNOWN``: none is left."""
        if not await self._store.touch(user_id, session):
            raise Refusal("BANK_ACCOUNT_UNKNOWN")

    async def remove(self, user_id: str, account_id: str) -> None:
        """Forget one; withdrawals to it go on. ``BANK_ACCOUNT_UNKNOWN``."""
        if not await self._store.remove(user_id, account_id):
            raise Refusal("BANK_ACCOUNT_UNKNOWN")


def checked_number(text: str) -> str:
    """An account number without the spaces and dashes that people write. ``VALIDATION_FAILED``."""
    number = re.sub(r"[ -]", "", text).upper()
    if not _NUMBER.fullmatch(number):
        raise Refusal("VALIDATION_FAILED", accountNumber=["4 to 34 digits or letters."])
    return number


def _away(gateway: Gateway, away: GatewayAway) -> Refusal:
    log.warning("a gateway does not answer", gateway=gateway.name, said=str(away))
    return Refusal("GATEWAY_AWAY")


def _refused(gateway: Gateway, no: GatewayNo) -> Refusal:
    log.warning("a gateway refuses", gateway=gateway.name, code=no.code, said=no.said)
    return Refusal("GATEWAY_REFUSED")
