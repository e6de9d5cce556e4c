"""Verbs of wallets.

    wallets = Wallets(ledger=ledger, store=WalletStore(db), users=users, hasher=passwords, passwords=accounts,
                      clock=clock, currency="NGN", pepper=…)

A wallet is one user's money in one currency; the PIN is one for all of them. Whoever is paid without having a wallet
gets one, without a PIN until they create one themselves. All money moves through the ledger, under keys that make a
repeated request find what the first one did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.auth.session import Hasher
from models.errors import Refusal
from models.ledger.journal import Entry, Wallet
from models.ledger.service import Ledger
from models.money import QUOTE_ROUTE
from models.ports import Clock
from models.users.rules import folded
from models.users.service import Profile, Users
from models.wallet import rules
from models.wallet.pins import PasswordCheck, Pins
from models.wallet.rules import Amount, StatementLine
from models.wallet.store import WalletStore

# More currencies than one person keeps money in.
WALLETS_MAX = 32


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer that was made, as its payer sees it, and the payer's wallet now."""

    id: str
    entry: Entry
    payee: Profile
    amount_minor: int
    wallet: Wallet


@dataclass(frozen=True, slots=True)
class Account:
    """One of a wallet's two accounts by its name; ``id`` is its public id."""

    id: str
    kind: str
    wallet: Wallet


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a statement: its wallet's public id, the version that made it, and its account."""

    wallet_id: str
    version: int
    account: str


@dataclass(frozen=True, slots=True)
class StatementPage:
    """A stretch of a statement, newest first. ``after`` is the place behind which it goes on; None: nothing follows."""

    lines: tuple[StatementLine, ...]
    people: Mapping[str, Profile]
    after: Place | None


class Wallets:
    """One per process."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: WalletStore,
        users: Users,
        hasher: Hasher,
        passwords: PasswordCheck,
        clock: Clock,
        currency: str,
        pepper: bytes,
    ) -> None:
        self._ledger = ledger
        self._users = users
        self._clock = clock
        self._currency = currency
        self.pins = Pins(store=store, hasher=hasher, passwords=passwords, clock=clock, pepper=pepper)

    # ----------------------------------------------------------------------------------------------------- one's own

    async def create(self, user_id: str, pin: str, currency: str | None = None) -> Wallet:
        """A wallet in ``currency`` (the server's without one), and with the first one the PIN.

        One that was made when somebody paid its owner is taken over by the first PIN. Further wallets need the PIN.
        Refuses with ``WALLET_EXISTS``, ``VALIDATION_FAILED`` and as ``Pins.check`` does.
        """
        currency = rules.checked_currency(currency or self._currency)
        if await self.pins.first(user_id, pin):
            return await self._ledger.ensure(user_id, currency)
        if await self._ledger.wallet(user_id, currency) is not None:
            raise Refusal("WALLET_EXISTS")
        if len(await self._ledger.store.wallets_of(user_id)) >= WALLETS_MAX:
            raise Refusal("VALIDATION_FAILED", currency=[f"At most {WALLETS_MAX} wallets."])
        await self.pins.check(user_id, pin)
        return await self._ledger.ensure(user_id, currency)

    async def refuse_unless_empty(self, user_id: str) -> None:
        """Refuse with ``WALLET_NOT_EMPTY`` while anything is there, or still to come, that is the user's."""
        worth = {
            wallet.currency: amount
            for wallet in await self._ledger.store.wallets_of(user_id)
            if (amount := wallet.worth)
        }
        if worth:
            raise Refusal("WALLET_NOT_EMPTY", amountMinor=worth)

    async def find(self, user_id: str) -> Wallet | None:
        """The wallet that a person means who names none: in the server's currency, else their oldest."""
        found = await self._ledger.wallet(user_id, self._currency)
        return found or next(iter(await self._ledger.store.wallets_of(user_id)), None)

    async def wallet(self, user_id: str, currency: str | None = None) -> Wallet:
        """One's wallet in ``currency``, without one the usual one.

        Refuses with ``WALLET_UNKNOWN`` (none at all) and ``CURRENCY_MISMATCH`` (none in that currency).
        """
        found = await self._ledger.wallet(user_id, currency) if currency else None
        if found is not None:
            return found
        usual = await self.find(user_id)
        if usual is None:
            raise Refusal("WALLET_UNKNOWN")
        if currency:
            raise Refusal("CURRENCY_MISMATCH", currency=usual.currency, quoteRoute=QUOTE_ROUTE)
        return usual

    async def accounts(self, user_id: str) -> list[Account]:
        """The accounts of all of one's wallets, the oldest wallet first."""
        return [one for wallet in await self._ledger.store.wallets_of(user_id) for one in _accounts(wallet)]

    async def account(self, user_id: str, account_id: str) -> Account:
        """One of one's own accounts by its public id. ``WALLET_UNKNOWN`` also when it is another's."""
        for account in await self.accounts(user_id):
            if account.id == account_id:
                return account
        raise Refusal("WALLET_UNKNOWN")

    async def statement(
        self,
        user_id: str,
        *,
        account: str | None = None,
        currency: str | None = None,
        after: Place | None = None,
        limit: int,
    ) -> StatementPage:
        """What changed available plus held in a wallet, newest first, a line for each entry and account.

        ``account``: only ``primary`` or ``call_credits`` of the usual wallet (or of that in ``currency``), or the
        account of that public id. ``after`` is the last page's. Refuses as ``wallet`` and ``account`` do.
        """
        only = account
        if account is None or account in rules.PAID_INTO:
            wallet = await self.wallet(user_id, currency)
        else:
            chosen = await self.account(user_id, account)
            wallet, only = chosen.wallet, chosen.kind
        if after is not None and after.wallet_id != wallet.id:
            raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
        below = wallet.version + 1 if after is None else after.version + 1
        # An entry has a line or two; of the entry at the place itself they may have been read.
        found = await self._ledger.store.statement(
            wallet.key, below_version=below, most=limit + 2, account=only
        )
        lines: list[StatementLine] = []
        for sealed in found:
            seal = next(one for one in sealed.seals if one.wallet == wallet.key)
            of_entry = rules.lines_of(sealed.entry, seal, wallet.currency)
            lines += [line for line in of_entry if only in (None, line.account)]
        if after is not None:
            lines = [line for line in lines if not _read(line, after)]
        page = tuple(lines[:limit])
        people = await self._users.profiles({line.counterparty for line in page if line.counterparty})
        last = Place(wallet.id, page[-1].version, page[-1].account) if len(lines) > limit else None
        return StatementPage(page, people, last)

    async def freeze(self, user_id: str, *, frozen: bool, currency: str | None = None) -> list[Wallet]:
        """Let nothing out of a wallet (of all, without ``currency``), or again; they are told. Safe to repeat.

        What comes in still does. Refuses with ``WALLET_UNKNOWN``.
        """
        return await self._ledger.freeze(user_id, frozen=frozen, currency=currency)

    # ------------------------------------------------------------------------------------------------------ transfers

    async def transfer(
        self,
        user_id: str,
        *,
        key: str | None,
        to: str,
        amount: Amount,
        currency: str | None,
        pin: str,
        note: str | None,
    ) -> Transfer:
        """Money from one's primary balance to that of another, named by id or username.

        The same ``key`` again answers with what was moved then. Refuses with ``IDEMPOTENCY_KEY_REQUIRED``,
        ``IDEMPOTENCY_MISMATCH``, ``SELF_NOT_ALLOWED``, ``USER_UNKNOWN``, ``USER_BLOCKED``, ``USER_UNAVAILABLE``,
        ``WALLET_UNKNOWN``, ``WALLET_FROZEN``, ``CURRENCY_MISMATCH``, ``INSUFFICIENT_FUNDS``, ``VALIDATION_FAILED`` and
        as ``Pins.check`` does.
        """
        if not key:
            raise Refusal("IDEMPOTENCY_KEY_REQUIRED")
        known = await self._ledger.store.entry(rules.transfer_id(user_id, key))
        payee = await self._payee(user_id, to, again=known is not None)
        mine = await self.wallet(user_id, currency)
        minor = amount.minor_in(mine.currency)
        asked = rules.transfer(
            mine, payee.user_id, key=key, amount_minor=minor, note=note, now=self._clock.now()
        )
        if known is not None:
            return _transfer(_agreed(known.entry, asked), payee, mine)
        # Before the PIN, which costs a hash, and before the other's wallet is made.
        if mine.frozen:
            raise Refusal("WALLET_FROZEN")
        if mine.primary < minor:
            raise Refusal(
                "INSUFFICIENT_FUNDS",
                requiredMinor=minor,
                availableMinor=mine.primary,
                currency=mine.currency,
            )
        await self.pins.check(user_id, pin)
        theirs = await self._ledger.ensure(payee.user_id, mine.currency)

        def plan(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            if wallets[mine.key].frozen:
                raise Refusal("WALLET_FROZEN")
            return [asked]

        posted = await self._ledger.post([mine.key, theirs.key], plan)
        entry = asked
        if posted.again:
            found = await self._ledger.store.entry(asked.id)
            assert found is not None, "it stood in the way"
            entry = _agreed(found.entry, asked)
        return _transfer(entry, payee, posted.wallets[mine.key])

    async def _payee(self, user_id: str, to: str, *, again: bool) -> Profile:
        """The one to pay, by id or username; ``again``: they were paid already, whatever has happened since."""
        meeting = await self._users.meet(user_id, to)
        if folded(to) in (user_id, folded(meeting.caller.username)):
            raise Refusal("SELF_NOT_ALLOWED")
        payee = meeting.callee
        if payee is None:
            # Finds nobody who has blocked the payer, like any search.
            found = await self._users.search(user_id, to, limit=1)
            payee = next((one for one in found.items if folded(one.username) == folded(to)), None)
            meeting = await self._users.meet(user_id, payee.user_id) if payee else meeting
        if payee is None and again:
            payee = await self._users.profile(to)  # deleted since
        if payee is None:
            raise Refusal("USER_UNKNOWN")
        if again:
            return payee
        if meeting.blocked_by_caller:
            raise Refusal("USER_BLOCKED")
        if meeting.blocked_by_callee or not payee.active:
            raise Refusal("USER_UNAVAILABLE")
        return payee


def _accounts(wallet: Wallet) -> list[Account]:
    return [Account(wallet.id, "primary", wallet), Account(wallet.credits_id, "call_credits", wallet)]


def _agreed(posted: Entry, asked: Entry) -> Entry:
    """What was posted, if it is what is asked now. Refuses with ``IDEMPOTENCY_MISMATCH``."""
    if not rules.same_content(posted, asked):
        raise Refusal("IDEMPOTENCY_MISMATCH")
    return posted


def _transfer(entry: Entry, payee: Profile, wallet: Wallet) -> Transfer:
    amount = max(leg.amount_minor for leg in entry.legs)
    return Transfer(rules.line_id(entry, "primary"), entry, payee, amount, wallet)


def _read(line: StatementLine, place: Place) -> bool:
    """Whether a line stands at the place or before it."""
    order = list(rules.PAID_INTO)
    return line.version == place.version and order.index(line.account) <= order.index(place.account)
