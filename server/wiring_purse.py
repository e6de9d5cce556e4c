"""What a wallet's owner has beside paying, put together: conversions, papers, points."""

from __future__ import annotations

from dataclasses import dataclass

from models.db import Database
from models.fx.service import Fx
from models.fx.store import QuoteStore
from models.ledger.service import Ledger
from models.papers.service import Papers
from models.papers.store import PaperStore
from models.ports import Clock, Ids
from models.rewards.service import Rewards
from models.rewards.store import RewardStore
from models.users.service import Users
from models.wallet.service import Wallets
from server.adapters.printer import FilePrinter
from server.adapters.rates import FixedRates, HttpRates, rates_of
from server.config import Config
from server.metrics import count_rates


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredPurse:
    """These services of a process, and what has to be closed with them."""

    fx: Fx
    rates: FixedRates | HttpRates | None
    papers: Papers
    rewards: Rewards
    printer: FilePrinter

    async def close(self) -> None:
        """Close the connections."""
        if self.rates is not None:
            await self.rates.close()
        await self.printer.close()


def wire_purse(
    config: Config, db: Database, *, ledger: Ledger, wallets: Wallets, users: Users, clock: Clock, ids: Ids
) -> WiredPurse:
    """Make it, once per process."""
    money = config.money
    rates = rates_of(money.fx_rates, money.fx_url, clock, count_rates)
    printer = FilePrinter()
    rewards = Rewards(
        ledger=ledger,
        store=RewardStore(db),
        clock=clock,
        ids=ids,
        currency=config.currency,
        per_minute=money.reward_points_per_minute,
        point_minor=money.reward_point_minor,
    )
    ledger.listeners.append(rewards.listen)
    return WiredPurse(
        printer=printer,
        rewards=rewards,
        papers=Papers(store=PaperStore(db), wallets=wallets, users=users, printer=printer, clock=clock),
        rates=rates,
        fx=Fx(
            ledger=ledger,
            store=QuoteStore(db),
            rates=rates,
            pins=wallets.pins,
            clock=clock,
            ids=ids,
            spread_bps=money.fx_spread_bps,
            quote_seconds=money.fx_quote_seconds,
        ),
    )
