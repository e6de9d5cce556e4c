"""Verbs of papers: a wallet's statement of a period, as CSV or PDF, and its spending and income by kind and month."""

from __future__ import annotations

from datetime import date, datetime
from typing import Protocol

from models.errors import Refusal
from models.ledger.journal import Kind, Wallet
from models.ledger.rules import STATEMENT_ACCOUNTS
from models.papers import rules
from models.papers.rules import Analytics, Flow, Statement
from models.papers.store import PaperStore
from models.ports import Clock
from models.users.service import Users
from models.wallet.rules import StatementLine, lines_of
from models.wallet.service import Wallets


class Printer(Protocol):
    """Who makes files of statements, beside the loop."""

    async def csv(self, statement: Statement) -> bytes:
        """As CSV. Refuses with ``SERVER_BUSY``."""
        ...

    async def pdf(self, statement: Statement) -> bytes:
        """As PDF; the same statement gives the same bytes. Refuses with ``SERVER_BUSY``."""
        ...


class Papers:
    """One per process."""

    def __init__(
        self,
        *,
        store: PaperStore,
        wallets: Wallets,
        users: Users,
        printer: Printer,
        clock: Clock,
    ) -> None:
        self._store = store
        self._wallets = wallets
        self._users = users
        self._printer = printer
        self._clock = clock

    async def file(
        self,
        user_id: str,
        *,
        format: str,
        first: date | None,
        last: date | None,
        zone: str,
        currency: str | None,
    ) -> tuple[Statement, bytes]:
        """A statement, and as a file of ``format`` (``csv`` or ``pdf``).

        Refuses as ``Wallets.wallet`` does, with ``VALIDATION_FAILED`` (days, time zone, too many lines for one file)
        and ``SERVER_BUSY``.
        """
        statement = await self.statement(
            user_id, first=first, last=last, zone=zone, currency=currency, most=rules.LINES_MAX[format]
        )
        write = self._printer.pdf if format == "pdf" else self._printer.csv
        return statement, await write(statement)

    async def statement(
        self,
        user_id: str,
        *,
        first: date | None,
        last: date | None,
        zone: str,
        currency: str | None,
        most: int,
    ) -> Statement:
        """A wallet's lines of whole days, and the balances of its accounts before and after them."""
        period = rules.period_of(first, last, zone, self._clock.now())
        wallet = await self._wallets.wallet(user_id, currency)
        low = await self._begins(wallet, period.start)
        high = max(low, await self._begins(wallet, period.end))
        found = await self._store.between(wallet.key, low, high, most)
        lines: list[StatementLine] = []
        for sealed in found:
            seal = next(one for one in sealed.seals if one.wallet == wallet.key)
            lines += lines_of(sealed.entry, seal, wallet.currency)
        if len(lines) > most:
            raise Refusal("VALIDATION_FAILED", to=[f"More than {most} lines; ask for fewer days."])
        accounts = {}
        for name in STATEMENT_ACCOUNTS:
            of_account = [line for line in lines if line.account == name]
            if of_account:
                opening = of_account[0].balance_after_minor - of_account[0].amount_minor
            else:
                opening = await self._store.before(wallet.key, low, period.start, name)
            accounts[name] = rules.balances(opening, of_account)
        people = await self._users.profiles({line.counterparty for line in lines if line.counterparty})
        owner = await self._users.profile(user_id)
        assert owner is not None, "who asks is signed in"
        return Statement(
            owner=owner, wallet=wallet, period=period, accounts=accounts, lines=lines, people=people
        )

    async def _begins(self, wallet: Wallet, at: datetime) -> int:
        """The version with which the time from ``at`` on begins, as far as the wallet has come."""
        found = await self._store.cut(wallet.key, at)
        return wallet.version + 1 if found is None else found

    async def analytics(self, user_id: str, *, months: int, zone: str, currency: str | None) -> Analytics:
        """What came into a wallet and went out of it in the last months, by kind.

        Refuses as ``Wallets.wallet`` does, and with ``VALIDATION_FAILED``.
        """
        firsts = rules.months_of(months, zone, self._clock.now())
        wallet = await self._wallets.wallet(user_id, currency)
        flows = await self._store.flows(wallet.key, [at for _, at in firsts[:-1]], firsts[-1][1])
        return Analytics(
            wallet,
            zone,
            {
                name: {kind: _spent(kind, flow) for kind, flow in sorted(flows.get(n, {}).items())}
                for n, (name, _) in enumerate(firsts[:-1])
            },
        )


def _spent(kind: str, flow: Flow) -> Flow:
    """A call that turns out to have been shorter than was taken for it has cost less; it is no income."""
    if kind != Kind.CAPTURE.value:
        return flow
    net = flow.spending_minor - flow.income_minor
    return Flow(max(0, -net), max(0, net), flow.count)
